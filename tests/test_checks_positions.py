"""Checks of the lesson on counting positions: wrong answers get a hint, and right ones may be written otherwise."""

import math

import torch


def table(positions, D, base=10_000.0, factor=2, sign=-1, first=0, waves=("sin", "cos")):
    """The solution, with one thing that may be wrong."""
    speeds = base ** (sign * factor * torch.arange(D // 2).double() / D)
    angles = (positions + first)[:, None] * speeds
    return torch.stack([getattr(angles, wave)() for wave in waves], -1).flatten(1)


def unpaired(positions, D, base):
    angles = positions[:, None] * base ** (-torch.arange(D).double() / D)
    return torch.where(torch.arange(D) % 2 == 0, angles.sin(), angles.cos())


def shift(k, D, upper=1, lower=-1, factor=2, swapped=False):
    M = torch.zeros(D, D)
    for i in range(D // 2):
        angle = k * 10_000 ** (-factor * i / D)
        c, s = (math.cos(angle), math.sin(angle))[::-1 if swapped else 1]
        M[2 * i:2 * i + 2, 2 * i:2 * i + 2] = torch.tensor([[c, upper * s], [lower * s, c]])
    return M


def in_halves(k, D):
    order = [*range(0, D, 2), *range(1, D, 2)]
    return shift(k, D)[order][:, order]


def parts(x, p, W_q, W_k):
    return torch.stack([a @ W_q @ (b @ W_k).T for a in (x, p) for b in (x, p)])


def blind(layer, D, lengths=(2, 3, 8, 40, 300), tries=5, shuffled=torch.randperm, look=lambda out: out, tolerance=1e-3):
    for T in lengths:
        for _ in range(tries):
            x, order = torch.randn(T, D), shuffled(T)
            if not torch.allclose(look(layer(x[order])), look(layer(x)[order]), atol=tolerance, rtol=tolerance):
                return False
    return True


def swap_first_two(T):
    return torch.tensor([1, 0, *range(2, T)])


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "position_bits": [
        (lambda p, n: (p[:, None] // 2 ** torch.arange(n) % 2).flip(1), "highest bit comes first"),
        (lambda p, n: p[:, None] // 2 ** torch.arange(n), "only its lowest bit"),
        (lambda p, n: p[:, None] % 2 ** torch.arange(n), "rest of a division"),
        (lambda p, n: p[:, None] // (2 * torch.arange(n)).clamp(min=1) % 2, "2 i instead of 2^i"),
        (lambda p, n: p[:, None] // 2 ** (torch.arange(n) + 1) % 2, "counted from 0"),
        (lambda p, n: p[:, None] // 2 ** torch.arange(n) % 2 * 2 - 1, "has become -1"),
        (lambda p, n: p[:, None] / 2 ** torch.arange(n) % 2, "rounds down"),
        (lambda p, n: (p[:, None] // 2 ** torch.arange(n) % 2).T, "A row should be a position"),
        (lambda p, n: p % 2, "n bits are wanted"),
        (lambda p, n: (p[:, None] // 2 ** torch.arange(n) % 2).flatten(), "stand in one row"),
        (lambda p, n: p // 2 ** torch.arange(n) % 2, "makes a column of them"),
    ],
    "sinusoidal_table": [
        (lambda p, D, b: table(p, D, b, waves=("cos", "sin")), "swapped"),
        (lambda p, D, b: table(p, D, b, factor=1), "the exponent is i / D"),
        (lambda p, D, b: table(p, D, b, factor=4), "4i / D"),
        (lambda p, D, b: table(p, D, b, sign=1), "later pairs faster"),
        (lambda p, D, b: table(p, D, b, first=1), "counted from 0"),
        (lambda p, D, b: table(p * math.pi / 180, D, b), "degrees"),
        (lambda p, D, b: table(p, D), "10,000 always"),
        (lambda p, D, b: torch.cat([table(p, D, b)[:, 0::2], table(p, D, b)[:, 1::2]], 1), "first all sines"),
        (lambda p, D, b: table(p, D, b, waves=("sin", "sin")), "where are the cosines"),
        (lambda p, D, b: table(p, D, b, waves=("cos", "cos")), "where are the sines"),
        (unpaired, "a speed of its own"),
        (lambda p, D, b: table(torch.arange(len(p)), D, b), "may be any"),
        (lambda p, D, b: table(p, 2 * D, b), "D / 2 pairs"),
        (lambda p, D, b: table(p, D, b)[:, ::2], "one number for each pair"),
        (lambda p, D, b: table(p, D, b).unflatten(1, (-1, 2)), "flatten(1) puts"),
        (lambda p, D, b: table(p, D, b).unflatten(1, (-1, 2)).mT, "in the last dimension"),
        (lambda p, D, b: table(p, D, b).T, "A row should be a position"),
        (lambda p, D, b: p * b ** (-torch.arange(0, D, 2) / D), "makes a column"),
    ],
    "shift_matrix": [
        (lambda k, D: shift(k, D).T, "moves backwards"),
        (lambda k, D: shift(-k, D), "moves backwards"),
        (lambda k, D: shift(k, D, lower=1), "no rotation"),
        (lambda k, D: shift(k, D, upper=-1), "no rotation"),
        (lambda k, D: shift(k, D, factor=0), "by the same angle"),
        (lambda k, D: shift(k, D, factor=1), "the exponent is i / D"),
        (lambda k, D: shift(k, D, swapped=True), "changed places"),
        (lambda k, D: shift(k, D, upper=0, lower=0), "sines missing"),
        (in_halves, "stand side by side"),
        (lambda k, D: torch.eye(D), "where is k"),
        (lambda k, D: shift(1, D), "a shift by 1"),
        (lambda k, D: shift(k, D)[:2, :2], "the block of one pair"),
        (lambda k, D: shift(k, 2 * D).view(D, 2, D, 2)[:D // 2, :, 0], "Those are the blocks"),
        (lambda k, D: torch.eye(D // 2), "two rows and two columns"),
    ],
    "score_parts": [
        (lambda *a: parts(*a)[[0, 2, 1, 3]], "the two in the middle are swapped"),
        (lambda *a: parts(*a).flip(0), "turned round"),
        (lambda *a: parts(*a).mT, "rows and columns are swapped"),
        (lambda x, p, q, k: parts(x, p, k, q), "W_q makes the queries"),
        (lambda x, p, q, k: parts(x, p, q, q), "for queries and for keys"),
        (lambda *a: parts(*a) / 2, "no scale"),
        (lambda *a: parts(*a).softmax(-1), "is the softmax applied"),
        (lambda *a: parts(*a).sum(0).expand(4, 5, 5), "kept apart"),
        (lambda *a: parts(*a).sum(0), "all four are wanted"),
        (lambda *a: parts(*a).permute(1, 2, 0), "Put the four in front"),
        (lambda *a: parts(*a).flatten(0, 1), "makes a new dimension"),
        (lambda *a: parts(*a).unflatten(0, (2, 2)), "Nearly"),
        (lambda *a: parts(*a)[::3], "make four"),
        (lambda x, p, q, k: torch.stack([(x @ q) @ (x @ k)] * 4), "q @ k.T"),
    ],
    "order_blind": [
        (lambda layer, D: True, "attention with positions added knows the order"),
        (lambda layer, D: False, "attention without mask is blind"),
        (lambda layer, D: blind(layer, D, tolerance=0), "allow for rounding"),
        (lambda layer, D: blind(layer, D, lengths=(2, 8), look=lambda out: out[-1:], tries=1, shuffled=lambda T:
                                torch.cat([torch.randperm(T - 1), torch.tensor([T - 1])])), "causal attention knows"),
        (lambda layer, D: blind(layer, D, shuffled=lambda T: torch.arange(T).roll(1)), "a mere rotation"),
        (lambda layer, D: blind(layer, D, shuffled=lambda T: torch.arange(T).flip(0)), "a mere reversal"),
        (lambda layer, D: blind(layer, D, lengths=(3, 8, 20)), "only short texts"),
        (lambda layer, D: blind(layer, D, look=lambda out: out[:, 0]), "all numbers of a token"),
        (lambda layer, D: blind(layer, D, look=lambda out: out.sum(0)), "knows the order"),
        (lambda layer, D: 1, "True or False"),
        (lambda layer, D: (layer(torch.randn(4, D))[swap_first_two(4)] == 0).all(1), "True or False"),
    ],
}


def by_powers(positions, D, base):
    step = torch.polar(torch.ones(D // 2).double(), base ** (-torch.arange(0, D, 2).double() / D))
    rows = step ** positions[:, None]
    return torch.stack([rows.imag, rows.real], -1).flatten(1)


RIGHT = {
    "position_bits": [
        lambda p, n: torch.stack([p >> i & 1 for i in range(n)], 1),
        lambda p, n: (p[:, None] // 2 ** torch.arange(n) % 2).double(),
        lambda p, n: (p[:, None] & 2 ** torch.arange(n)) > 0,
    ],
    "sinusoidal_table": [
        by_powers,
        lambda p, D, b: table(p, D, b).float(),
        lambda p, D, b: torch.tensor([[f(n * b ** (-2 * i / D)) for i in range(D // 2)
                                                        for f in (math.sin, math.cos)] for n in p.tolist()]),
    ],
    "shift_matrix": [
        lambda k, D: torch.matrix_power(shift(1, D).double(), k) if k >= 0
     else torch.matrix_power(shift(1, D).double().T, -k),
        lambda k, D: torch.linalg.matrix_exp(k * torch.block_diag(
        *[10_000.0 ** (-2 * i / D) * torch.tensor([[0., 1.], [-1., 0.]]) for i in range(D // 2)])),
    ],
    "score_parts": [
        lambda x, p, q, k: torch.einsum("amd,bnd->abmn", torch.stack([x, p]) @ q, torch.stack([x, p]) @ k)
     .flatten(0, 1).double(),
        lambda x, p, q, k: torch.stack([a @ (q @ k.T) @ b.T for a in (x, p) for b in (x, p)]),
    ],
    "order_blind": [
        lambda layer, D: torch.tensor(blind(layer, D)),
        lambda layer, D: blind(layer, D, lengths=(50, 64), tries=3),
    ],
}
