"""Checks of the lesson on integers: wrong answers get a hint, right ones may differ."""

import torch
import torch.nn.functional as F


def symmetric(x, bits, top=None, scale=None, how=torch.round):
    top = top or 2 ** (bits - 1) - 1
    scale = x.abs().max() / top if scale is None else scale
    return how(x / scale), scale


def affine(x, bits, stretch=True, turn=-1, steps=None, whole=True, zero_in_codes=1):
    steps = steps or 2**bits - 1
    low, high = (x.min().clamp(max=0), x.max().clamp(min=0)) if stretch else (x.min(), x.max())
    scale = (high - low) / steps
    zero = turn * low / scale
    zero = zero.round() if whole else zero
    codes = (x / scale).round() + zero_in_codes * zero
    return codes.clamp(0, 2**bits - 1) if zero_in_codes == 1 and turn == -1 else codes, scale, zero


def grouped(w, bits, group, top=None, whole_piece=False, how=torch.round, codes=False):
    top, pieces = top or 2 ** (bits - 1) - 1, []
    for piece in w.split(group, dim=1):
        scale = (piece.abs().max() if whole_piece else piece.abs().amax(1, keepdim=True)) / top
        pieces.append(how(piece / scale) * (1 if codes else scale))
    return torch.cat(pieces, 1)


def packed(codes, shift=4, swap=False):
    codes = F.pad(codes, (0, len(codes) % 2))
    first, second = (codes[1::2], codes[0::2]) if swap else (codes[0::2], codes[1::2])
    return first | (second << shift)


def fraction(x, bits, fractions, clip=True, against=None, measure=lambda off: off.square().sum(), pick=min):
    top = 2 ** (bits - 1) - 1

    def error(f):
        scale = f * x.abs().max() / top
        codes = (x / scale).round()
        codes = codes.clamp(-top, top) if clip else codes
        return measure(codes * scale - (x.clamp(-top * scale, top * scale) if against else x)).item()

    return pick(fractions, key=error)


def fraction_error(x, bits, f):
    top = 2 ** (bits - 1) - 1
    scale = f * x.abs().max() / top
    return ((x / scale).round().clamp(-top, top) * scale - x).square().mean().item()


def by_loop(w, bits, group):
    out, top = torch.empty_like(w), 2 ** (bits - 1) - 1
    for r in range(len(w)):
        for j in range(0, w.shape[1], group):
            piece = w[r, j:j + group]
            out[r, j:j + group] = torch.round(piece * top / piece.abs().max()) * piece.abs().max() / top
    return out


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "symmetric_codes": [
        (lambda x, bits: symmetric(x, bits, 2 ** (bits - 1)), "is the largest code 128?"),
        (lambda x, bits: symmetric(x, bits, 2**bits - 1), "is the sign forgotten?"),
        (lambda x, bits: (symmetric(x, bits)[0], 1 / symmetric(x, bits)[1]), "is the scale turned round?"),
        (lambda x, bits: symmetric(x, bits, scale=x.max() / (2 ** (bits - 1) - 1)), "without its sign"),
        (lambda x, bits: symmetric(x, bits, scale=(x.max() - x.min()) / (2**bits - 1)), "the kind with a zero point"),
        (lambda x, bits: symmetric(x, 8), "is the scale that of 8 bits"),
        (lambda x, bits: symmetric(x, bits, scale=x.std()), "the scale should be"),
        (lambda x, bits: symmetric(x, bits, how=torch.trunc), "cut off towards zero"),
        (lambda x, bits: symmetric(x, bits, how=torch.floor), "rounded down"),
        (lambda x, bits: symmetric(x, bits, how=lambda t: t), "is the rounding missing?"),
        (lambda x, bits: (symmetric(x, bits)[0] + 2 ** (bits - 1), symmetric(x, bits)[1]), "do codes begin at 0?"),
        (lambda x, bits: (symmetric(x, bits)[0] + 2 ** (bits - 1) - 1, symmetric(x, bits)[1]), "do codes begin at 0?"),
        (lambda x, bits: (symmetric(x, bits)[0].abs(), symmetric(x, bits)[1]), "lost its sign"),
        (lambda x, bits: symmetric(x, bits)[0], "two results are needed"),
        (lambda x, bits: symmetric(x, bits)[::-1], "should be codes [n]"),
        (lambda x, bits: (symmetric(x, bits)[0], x), "the scale is a single number"),
    ],
    "codes_with_zero_point": [
        (lambda x, bits: affine(x, bits, stretch=False), "is the range stretched to include 0?"),
        (lambda x, bits: affine(x, bits, turn=1), "is the zero point's sign turned?"),
        (lambda x, bits: affine(x, bits, whole=False), "the zero point is a whole number"),
        (lambda x, bits: affine(x, bits, steps=2**bits), "is the range divided by 2^bits?"),
        (lambda x, bits: affine(x, bits, zero_in_codes=0), "must be added to the codes"),
        (lambda x, bits: affine(x, bits, zero_in_codes=-1), "is the zero point subtracted"),
        (lambda x, bits: affine(x, bits)[:2], "three results are needed"),
        (lambda x, bits: ((affine(x, bits)[0] - affine(x, bits)[2]) * affine(x, bits)[1], *affine(x, bits)[1:]),
         "numbers that come back, not the codes"),
        (lambda x, bits: (affine(x, bits)[0][:-1], *affine(x, bits)[1:]), "should be codes [n]"),
    ],
    "kept_in_groups": [
        (lambda w, bits, g: grouped(w, bits, g, whole_piece=True), "do all rows share a group's scale?"),
        (lambda w, bits, g: grouped(w, bits, w.shape[1]), "one scale for each whole row"),
        (lambda w, bits, g: grouped(w, bits, w.shape[1], whole_piece=True), "one scale for the whole matrix"),
        (lambda w, bits, g: grouped(w, bits, g, codes=True), "those are the codes"),
        (lambda w, bits, g: w, "nothing was rounded"),
        (lambda w, bits, g: grouped(w, bits, g, top=2 ** (bits - 1)), "is the largest code 8?"),
        (lambda w, bits, g: grouped(w.T, bits, g).T, "along the outputs"),
        (lambda w, bits, g: grouped(w, bits, g, how=torch.trunc), "cut off towards zero"),
        (lambda w, bits, g: grouped(w.view(-1, g), bits, g).view(w.shape), "The last group of a row may be smaller"),
        (lambda w, bits, g: grouped(w[:, :w.shape[1] // g * g], bits, g), "behind the last whole group are missing"),
        (lambda w, bits, g: torch.cat([grouped(w[:, :w.shape[1] // g * g], bits, g), w[:, w.shape[1] // g * g:]], 1)
         if w.shape[1] >= g else w, "smaller group of a row left as it was"),
    ],
    "two_in_a_byte": [
        (lambda c: packed(c, swap=True), "are the two halves swapped?"),
        (lambda c: packed(c, shift=0), "is the second code not shifted?"),
        (lambda c: c[0::2] + c[1::2], "is the second code not shifted?"),
        (lambda c: c[0::2] + 8 * c[1::2], "is it shifted by 3?"),
        (lambda c: c[:len(c) // 2] | (c[len(c) // 2:] << 4), "one from the second half"),
        (lambda c: c[0::2] | (c[1::2] << 4), "n may be odd"),
        (lambda c: packed(c[:len(c) // 2 * 2]), "n may be odd"),
        (lambda c: c, "Two codes go into *one* byte"),
        (lambda c: packed(c.int()), "a byte is a uint8"),
    ],
    "best_fraction": [
        (lambda x, bits, f: fraction(x, bits, f, clip=False), "Are the codes cut off"),
        (lambda x, bits, f: fraction(x, bits, f, against="clipped"), "What is cut off is an error"),
        (lambda x, bits, f: fraction(x, bits, f, measure=lambda off: off.abs().max()), "smallest *largest* error"),
        (lambda x, bits, f: fraction(x, bits, f, measure=lambda off: off.abs().sum()), "magnitudes of the errors"),
        (lambda x, bits, f: max(f), "the largest fraction is not always"),
        (lambda x, bits, f: min(f), "you always take the smallest"),
        (lambda x, bits, f: fraction(x, bits, f) * x.abs().max().item(), "as it stands in the list"),
        (lambda x, bits, f: f[len(f) // 2], "it should be"),
    ],
}

# Exercise -> answers that are written in another way than the solution.
RIGHT = {
    "symmetric_codes": [
        lambda x, bits: [symmetric(x, bits)[0].int(), symmetric(x, bits)[1].item()],
        lambda x, bits: (symmetric(x, bits)[0].to(torch.int8), symmetric(x, bits)[1].view(1)),
    ],
    "codes_with_zero_point": [
        lambda x, bits: [affine(x, bits)[0].to(torch.uint8), affine(x, bits)[1].item(), int(affine(x, bits)[2])],
    ],
    "kept_in_groups": [by_loop],
    "two_in_a_byte": [
        lambda c: torch.tensor([int(c[i]) + 16 * (int(c[i + 1]) if i + 1 < len(c) else 0) for i in range(0, len(c), 2)],
                               dtype=torch.uint8),
    ],
    "best_fraction": [
        lambda x, bits, f: torch.tensor(fraction(x, bits, f)),
        lambda x, bits, f: sorted((fraction_error(x, bits, g), g) for g in f)[0][1],
    ],
}
