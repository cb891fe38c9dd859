"""Checks of the lesson on rotary positions: a wrong answer gets its own hint, a right one may be written otherwise."""

import math

import torch

from llm_core.checks.rope import _TURNS


def joined(a, b):
    return torch.stack([a, b], dim=-1)


def turn(pairs, angles, signs=(-1, 1), swap=False):
    a, b = pairs[..., 0], pairs[..., 1]
    c, s = (angles.sin(), angles.cos()) if swap else (angles.cos(), angles.sin())
    return joined(a * c + signs[0] * b * s, signs[1] * a * s + b * c)


def overwritten(pairs, angles):
    a, b = pairs[..., 0], pairs[..., 1]
    a = a * angles.cos() - b * angles.sin()
    return joined(a, a * angles.sin() + b * angles.cos())


def table(cached, new, width, theta, first=0, exponent=2, sign=-1, start=0):
    i = torch.arange(width // 2) + start
    speeds = torch.tensor(float(theta)) ** (sign * exponent * i / width)
    return (torch.arange(new) + cached + first)[:, None] * speeds


def halves(x, cos, sin, sign=1, out=lambda a, b: torch.cat([a, b], -1), cut=lambda x: x.chunk(2, -1)):
    a, b = cut(x)
    cos, sin = cos[:, None], sin[:, None] * sign
    return out(a * cos - b * sin, a * sin + b * cos)


def neighbours(x):
    return x[..., 0::2], x[..., 1::2]


def reordered(weight, H, order=None, inverse=False):
    d = len(weight) // H
    order = torch.cat([torch.arange(0, d, 2), torch.arange(1, d, 2)]) if order is None else order
    order = order.argsort() if inverse else order
    return weight.view(H, d, -1)[:, order].reshape(weight.shape)


def nearly(a, b):
    return torch.allclose(a, b, atol=1e-2)


def compares(tries, shifts=(1, 5, 100), vector=torch.randn, same=nearly, other=None):
    def knows(turn_query, turn_key, d):
        for m, n in tries:
            q, k = vector(d), vector(d)
            here = turn_query(q, m) @ turn_key(k, n)
            for s in shifts:
                there = turn_query(q, m + s) @ turn_key(k, n + (s if other is None else other))
                if not same(here, there):
                    return False
        return True
    return knows


GOOD_TRIES = ((0, 0), (3, 1), (2, 9), (40, 7))

WRONG = {
    "turn_pairs": [
        (lambda p, a: turn(p, -a), "wrong way round"),
        (overwritten, "first one's new value"),
        (lambda p, a: turn(p, a).flip(-1), "swapped in the result"),
        (lambda p, a: turn(p, a, swap=True), "sine and cosine swapped"),
        (lambda p, a: turn(p, a, signs=(1, 1)), "both numbers have a plus"),
        (lambda p, a: turn(p, a, signs=(-1, -1)), "both numbers have a minus"),
        (lambda p, a: p, "nothing is turned"),
        (lambda p, a: p * a.cos()[..., None], "cosine alone"),
        (lambda p, a: joined(turn(p, a)[..., 0], p[..., 1]), "only the first"),
        (lambda p, a: joined(p[..., 0], turn(p, a)[..., 1]), "only the second"),
        (lambda p, a: p * joined(a.cos(), a.sin()), "Each needs both"),
        (lambda p, a: turn(p, torch.deg2rad(a)), "degrees"),
        (lambda p, a: turn(p, a).movedim(-1, 0), "dim=-1"),
        (lambda p, a: turn(p, a).flatten(1), "torch.stack"),
        (lambda p, a: turn(p, a)[..., 0], "two are needed"),
        (lambda p, a: p * a, "one number for each pair"),
        (lambda p, a: 2 * turn(p, a), "numbers do not"),
    ],
    "rope_angles": [
        (lambda c, n, w, t: table(0, n, w, t), "start again at position 0"),
        (lambda c, n, w, t: table(c, n, w, t, first=1), "counted from 1"),
        (lambda c, n, w, t: table(c, n, w, t, first=-1), "one too small"),
        (lambda c, n, w, t: table(c, n, w, 10_000), "fixed at 10,000"),
        (lambda c, n, w, t: table(c, n, w, t, exponent=1), "2 missing"),
        (lambda c, n, w, t: table(c, n, w, t, exponent=4), "width / 2 instead of width"),
        (lambda c, n, w, t: table(c, n, w, t, start=1), "pairs from 1"),
        (lambda c, n, w, t: table(c, n, w, t, sign=1), "minus missing"),
        (lambda c, n, w, t: table(c, n, w, t).flip(-1), "opposite order"),
        (lambda c, n, w, t: 2 * math.pi * table(c, n, w, t), "2 pi"),
        (lambda c, n, w, t: table(c, n, w, t).cos(), "cosines"),
        (lambda c, n, w, t: table(c, n, w, t).sin(), "sines"),
        (lambda c, n, w, t: table(1, 1, w, t).expand(n, -1), "multiplied in"),
        (lambda c, n, w, t: torch.arange(c, c + n)[:, None] + table(1, 1, w, t), "product"),
        (lambda c, n, w, t: table(c, n, w, t).repeat(1, 2), "a pair shares one"),
        (lambda c, n, w, t: table(c, n, w, t).T, "not the other way round"),
        (lambda c, n, w, t: table(0, c + n, w, t), "only the new tokens"),
        (lambda c, n, w, t: table(0, c, w, t), "row for each cached"),
        (lambda c, n, w, t: table(c, n, w, t)[0], "each new token needs its own"),
        (lambda c, n, w, t: torch.arange(c, c + n), "speed of its own"),
        (lambda c, n, w, t: list(range(w / 2)), "width // 2"),
        (lambda c, n, w, t: torch.zeros(n, w / 2), "width // 2"),
    ],
    "rotate_in_halves": [
        (lambda x, c, s: halves(x, c, s, sign=-1), "wrong way round"),
        (lambda x, c, s: halves(x, c, s, cut=neighbours, out=lambda a, b: joined(a, b).flatten(-2)), "neighbours"),
        (lambda x, c, s: halves(x, c, s, out=lambda a, b: joined(a, b).flatten(-2)), "put together as neighbours"),
        (lambda x, c, s: halves(x, c, s, cut=neighbours), "put together as halves"),
        (lambda x, c, s: halves(x, c, s, out=lambda a, b: torch.cat([b, a], -1)), "swapped in the result"),
        (lambda x, c, s: halves(x, c[:1], s[:1]), "first row of the table"),
        (lambda x, c, s: x, "nothing is turned"),
        (lambda x, c, s: halves(x, c, s)[..., :4], "Only one half"),
        (lambda x, c, s: halves(x, c, s, out=joined), "dimension of their own"),
        (lambda x, c, s: halves(x, c, s, out=lambda a, b: torch.cat([a, b])), "dim=-1"),
        (lambda x, c, s: torch.cat([x, x], -1), "twice as wide"),
        (lambda x, c, s: x.chunk(2, -1)[0] * c, "Do the shapes line up"),
    ],
    "to_halves": [
        (lambda w, H: w, "as it was"),
        (lambda w, H: torch.cat([w[0::2], w[1::2]]), "Each head is converted on its own"),
        (lambda w, H: reordered(w, H, inverse=True), "other way round"),
        (lambda w, H: reordered(w, H).view(H, 2, -1, len(w)).flip(1).reshape(w.shape), "odd rows come first"),
        (lambda w, H: reordered(w.T, H).T, "columns permuted"),
        (lambda w, H: torch.cat([w[:, 0::2], w[:, 1::2]], 1), "each head's rows"),
        (lambda w, H: reordered(w, H).T, "transposed"),
        (lambda w, H: torch.cat([reordered(w, H)[:len(w) // H], w[len(w) // H:]]), "only head 0"),
        (lambda w, H: reordered(w, H).view(H, -1, w.shape[1]), "still apart"),
        (lambda w, H: w[0::2], "Half of the rows"),
        (lambda w, H: reordered(w, H, torch.arange(8).flip(0)), "numbers do not"),
    ],
    "knows_only_distance": [
        (lambda q, k, d: True, "keys are turned backwards"),
        (lambda q, k, d: False, "False of a true rotary encoding"),
        (compares(GOOD_TRIES, same=lambda a, b: (a == b).item()), "exact"),
        (compares(((0, 0), (5, 5))), "square of the position"),
        (compares(GOOD_TRIES, other=0), "False of a true"),
        (compares(GOOD_TRIES, vector=lambda d: torch.eye(d)[0] + torch.eye(d)[1]), "slowest"),
        (lambda q, k, d: 1.0, "True or False"),
        (lambda q, k, d: torch.tensor([True, False]), "True or False"),
    ],
}


def test_every_encoding_of_the_check_is_what_it_is_said_to_be():
    test = compares([(m, n) for m in (0, 1, 6, 33) for n in (0, 2, 50)])
    assert [test(q, k, 8) for q, k, *_ in _TURNS] == [right for _, _, right, _ in _TURNS]


RIGHT = {
    "turn_pairs": [
        lambda p, a: torch.view_as_real(torch.view_as_complex(p) * torch.polar(torch.ones_like(a), a)),
        lambda p, a: turn(p.double(), a.double()),
        lambda p, a: (torch.stack([turn(torch.eye(2)[0], a), turn(torch.eye(2)[1], a)], -1) @ p[..., None])[..., 0],
    ],
    "rope_angles": [
        table,
        lambda c, n, w, t: torch.outer(torch.arange(c, c + n).double(), 1 / t ** (torch.arange(0, w, 2).double() / w)),
        lambda c, n, w, t: torch.tensor([[p * t ** (-2 * i / w) for i in range(w // 2)] for p in range(c, c + n)]),
    ],
    "rotate_in_halves": [
        halves,
        lambda x, c, s: x * torch.cat([c, c], -1)[:, None] + torch.cat(
            [-x.chunk(2, -1)[1], x.chunk(2, -1)[0]], -1) * torch.cat([s, s], -1)[:, None],
    ],
    "to_halves": [
        reordered,
        lambda w, H: w.view(H, -1, 2, w.shape[1]).transpose(1, 2).reshape(w.shape),
        lambda w, H: torch.cat([part for head in w.chunk(H) for part in (head[0::2], head[1::2])]),
    ],
    "knows_only_distance": [
        compares(GOOD_TRIES),
        lambda q, k, d: torch.tensor(compares(((2, 9), (8, 1)), (64,))(q, k, d)),
        lambda q, k, d: compares(((2.0, 9.0),), (1.0, 30.0), lambda d: torch.randn(d).double())(q, k, d),
    ],
}
