"""Checks of the lesson "Integers: scale, zero point, granularity"."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core.checks.cases import number
from llm_core.checks.core import Wrong, attempt, check, compare, random, tensor
from llm_core.quantization.integers import quantize
from llm_core.quantization.packing import pack


def _parts(function, *arguments, names: str) -> list:
    """The results of one call, as many as names has."""
    got = attempt(function, *arguments)
    count = len(names.split(", "))
    if not isinstance(got, (tuple, list)) or len(got) != count:
        raise Wrong(f"{('two', 'three')[count - 2]} results are needed, as a tuple: {names}")
    return list(got)


def _one(value, what: str) -> float:
    try:
        return number(value)
    except Wrong:
        raise Wrong(f"{what} is a single number") from None


def _codes(value, n: int) -> Tensor:
    codes = tensor(lambda: value, shape=(n,), names="codes [n]")
    if (codes != codes.round()).any():
        raise Wrong("codes are whole numbers: is the rounding missing?")
    return codes


@check
def symmetric_codes(function) -> str:
    """function(x [n], bits) -> codes [n] and the scale."""
    cases = [(random(9, seed=811), 8), (-random(9, seed=812).abs() - 1, 4), (random(30, seed=813) * 100, 3)]
    for x, bits in cases:
        codes, scale = _parts(function, x, bits, names="codes, scale")
        codes, scale = _codes(codes, len(x)), _one(scale, "the scale")
        made = quantize(x, bits, "tensor")
        top, largest, truth = 2 ** (bits - 1) - 1, x.abs().max().item(), made.scale.item()

        def near(other: float, scale=scale) -> bool:
            return abs(scale - other) <= 1e-5 * abs(other)

        if not near(truth):
            for sentence, other in (
                (f"is the largest code {top + 1}? Then the largest number, if it is positive, needs a code that "
                 f"{bits} bits do not have; it is 2^(bits - 1) - 1 = {top}", largest / (top + 1)),
                (f"is the sign forgotten? Half of the codes are below zero, so the largest is {top}",
                 largest / (2**bits - 1)),
                ("is the scale turned round? Codes are x / scale, so it is the largest magnitude / the largest code",
                 top / largest),
                ("is the largest *number* taken, without its sign? The largest magnitude may be that of a negative one",
                 x.max().item() / top),
                ("is the scale the whole range by the number of steps? That belongs to the kind with a zero point",
                 (x.max() - x.min()).item() / (2**bits - 1)),
                ("is the scale that of 8 bits, 127? Here `bits` says how many", largest / 127),
            ):
                if near(other):
                    raise Wrong(sentence)
            raise Wrong(f"for {bits} bits and a largest magnitude of {largest:.3f} the scale should be {truth:.5g}, "
                        f"and you have {scale:.5g}")
        compare(codes, made.codes.float(), [
            ("are the codes cut off towards zero? Round to the nearest", (x / truth).trunc()),
            ("are the codes rounded down? Round to the nearest", (x / truth).floor()),
            ("those are the numbers that come back; the codes are not multiplied again",
             made.dequantize()),
            ("do codes begin at 0? Symmetric ones are negative for negative numbers", made.codes.float() + top),
            ("do codes begin at 0? Symmetric ones are negative for negative numbers", made.codes.float() + top + 1),
            ("has every code lost its sign?", made.codes.float().abs()),
        ])
    return "codes and scale are llm_core's for 8, 4 and 3 bits, and no number is off by more than half a step"


def _affine(x: Tensor, bits: int, stretch: bool = True, clamp: bool = True, turn: float = -1.0, steps: int = 0,
            whole: bool = True) -> tuple[Tensor, float, float]:
    """Codes, scale and zero point, with one thing that may be wrong."""
    low, high, steps = x.min(), x.max(), steps or 2**bits - 1
    if stretch:
        low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / steps
    zero = turn * low / scale
    zero = zero.round() if whole else zero
    codes = (x / scale).round() + zero
    return codes.clamp(0, 2**bits - 1) if clamp else codes, scale.item(), zero.item()


@check
def codes_with_zero_point(function) -> str:
    """function(x [n], bits) -> codes [n], the scale and the zero point."""
    cases = [(random(12, seed=814) + 0.7, 8), (random(12, seed=815).abs() + 3, 4), (-random(12, seed=816).abs() - 1, 8)]
    sentences = (
        ("is the range stretched to include 0? Where all numbers are positive, the zero point would lie below 0, "
         "and 0 could not be written", {"stretch": False}),
        ("is the zero point's sign turned? It is -low / scale: the code that means 0", {"turn": 1.0, "clamp": False}),
        ("is the zero point's sign turned? It is -low / scale: the code that means 0", {"turn": 1.0}),
        ("the zero point is a whole number, so that 0 comes back exactly: round it", {"whole": False}),
        ("the zero point is a whole number, so that 0 comes back exactly: round it", {"whole": False, "clamp": False}),
        ("there are 2^bits codes and so 2^bits - 1 steps: is the range divided by 2^bits?", {"steps": -1}),
    )
    for x, bits in cases:
        got = _parts(function, x, bits, names="codes, scale, zero point")
        codes = tensor(lambda got=got: got[0], shape=(len(x),), names="codes [n]")
        mine = torch.cat([codes, torch.tensor([_one(got[1], "the scale"), _one(got[2], "the zero point")])])
        made = quantize(x, bits, "tensor", symmetric=False)
        truth = torch.cat([made.codes.float(), made.scale[0], made.zero_point[0].float()])
        scale = truth[-2]
        mistakes = []
        for sentence, options in sentences:
            options = options | ({"steps": 2**bits} if options.get("steps") else {})
            c, s, z = _affine(x, bits, **options)
            mistakes.append((sentence, torch.cat([c, torch.tensor([s, z])])))
        mistakes.append(("the zero point must be added to the codes",
                         torch.cat([(x / scale).round(), truth[-2:]])))
        mistakes.append(("is the zero point subtracted from the codes? They are round(x / scale) + zero point, and "
                         "it is subtracted on the way back", torch.cat([(x / scale).round() - truth[-1], truth[-2:]])))
        mistakes.append(("those are the numbers that come back, not the codes",
                         torch.cat([made.dequantize(), truth[-2:]])))
        if (mine - truth).abs().max() > 1e-5 * truth.abs().max():
            compare(mine, truth, mistakes)
    return "codes, scale and zero point are llm_core's, for numbers on both sides of 0, all above it and all below it"


@check
def kept_in_groups(function) -> str:
    """function(weight [O, I], bits, group) -> what comes back [O, I]."""
    smaller = "Does the group divide I? The last group of a row may be smaller: weight.split(group, dim=1) knows it."
    for O, I, bits, group in ((3, 32, 4, 8), (4, 21, 3, 8), (5, 6, 8, 16)):
        weight = random(O, I, seed=817) * torch.logspace(-1, 1, I)
        got = tensor(function, weight, bits, group, shape=(O, I), names="[O, I]", hints={
            "invalid for input of size": smaller, "unflatten": smaller, "must match the size": smaller},
            shape_hints={(O, I // group * group): "The numbers behind the last whole group are missing.",
                         (O * -(-I // group), group): "Put the groups of a row side by side again: [O, I]."})
        made, top = quantize(weight, bits, group), 2 ** (bits - 1) - 1
        pieces = weight.split(group, dim=1)

        def each(how, pieces=pieces) -> Tensor:
            return torch.cat([how(piece, piece.abs().amax(1, keepdim=True)) for piece in pieces], 1)

        compare(got, made.dequantize(), [
            ("do all rows share a group's scale? Each row has its own: amax(dim=1, keepdim=True)",
             torch.cat([(p / (p.abs().max() / top)).round() * (p.abs().max() / top) for p in pieces], 1)),
            ("is there one scale for each whole row?", quantize(weight, bits, "channel").dequantize()),
            ("is there one scale for the whole matrix?", quantize(weight, bits, "tensor").dequantize()),
            ("those are the codes; multiply them with their scale", made.codes.float()),
            ("nothing was rounded: that is the weight itself", weight),
            (f"is the largest code {top + 1}? It is 2^(bits - 1) - 1",
             each(lambda p, m, t=top + 1: (p / (m / t)).round() * (m / t))),
            ("are the groups taken along the outputs? They are neighbours in a row",
             quantize(weight.T.contiguous(), bits, group).dequantize().T),
            ("are the numbers cut off towards zero? Round to the nearest",
             each(lambda p, m, t=top: (p / (m / t)).trunc() * (m / t))),
            ("is the last, smaller group of a row left as it was? It is rounded with a scale of its own", torch.cat(
                [made.dequantize()[:, :I // group * group], weight[:, I // group * group:]], 1)),
        ])
    return "also where 8 does not divide 21 and where a row is shorter than a group: an outlier hurts its group alone"


@check
def two_in_a_byte(function) -> str:
    """function(codes uint8 [n], each below 16) -> uint8 [ceil(n / 2)]."""
    for n in (8, 7, 1):
        codes = torch.randint(1, 16, (n,), generator=torch.Generator().manual_seed(818)).to(torch.uint8)
        pairs = -(-n // 2)
        odd = "n may be odd: the last byte then holds one code, and 0 in its upper bits. F.pad(codes, (0, 1)) adds one."
        result = attempt(function, codes, hints={"must match the size": odd, "is invalid for input": odd,
                                                 "out of bounds": odd})
        got = tensor(lambda result=result: result, shape=(pairs,), names="[ceil(n / 2)]", shape_hints={
            (n // 2,): odd, (n,): "Two codes go into *one* byte.", (2 * pairs,): "Two codes go into *one* byte."})
        low = F.pad(codes, (0, n % 2)).float().view(-1, 2)
        half = F.pad(codes, (0, 2 * pairs - n)).float().view(2, -1)
        compare(got, pack(codes, 4).float(), [
            ("are the two halves swapped? The first code of a pair goes into the *lower* four bits",
             low[:, 0] * 16 + low[:, 1]),
            ("is the second code not shifted? The upper four bits count 16 times as much: << 4", low.sum(1)),
            ("is the second code not shifted? The upper four bits count 16 times as much: << 4",
             torch.tensor([int(a) | int(b) for a, b in low.tolist()], dtype=torch.float32)),
            ("is it shifted by 3? Four bits: << 4, or times 16", low[:, 0] + low[:, 1] * 8),
            ("is the first code put together with one from the second half? A pair are neighbours: codes[0::2] and "
             "codes[1::2]", half[0] + 16 * half[1]),
            ("do upper bits of a code get in twice?", low[:, 0] + 16 * low[:, 0]),
        ])
        if result.dtype != torch.uint8:
            raise Wrong(f"the numbers are right, and a byte is a uint8: yours are {result.dtype}, which are larger")
    return "as llm_core packs them, also 7 codes and 1: half the bytes, and nothing is lost"


def _fraction(x: Tensor, bits: int, fractions: list[float], how="squares") -> float:
    """The best fraction, by one measure of the errors."""
    top = 2 ** (bits - 1) - 1

    def error(f: float) -> float:
        scale = f * x.abs().max() / top
        off = ((x / scale).round().clamp(-top, top) * scale - x).abs()
        return {"largest": off.max(), "absolute": off.sum(), "squares": off.square().sum()}[how].item()

    return min(fractions, key=error)


@check
def best_fraction(function) -> str:
    """function(x [n], bits, fractions) -> the fraction with the smallest sum of squared errors."""
    tails = random(400, seed=819) * random(400, seed=820).exp()  # many small numbers and a few large ones
    grid = [i / 20 for i in range(2, 21)]
    cases = [(random(500, seed=821), 3, grid), (tails, 4, grid), (torch.linspace(-1, 1, 101), 8, grid),
             (random(200, seed=822), 2, grid[::-1]), (random(300, seed=823), 4, [1.0, 0.5])]
    got = [number(attempt(function, x, bits, list(fractions))) for x, bits, fractions in cases]
    wanted = [_fraction(*case) for case in cases]

    def same(other: list[float]) -> bool:
        return all(abs(a - b) < 1e-6 for a, b in zip(got, other))

    if not same(wanted):
        for sentence, options in (
            ("is it the smallest *largest* error? The sum of the squares is wanted", {"how": "largest"}),
            ("is it the sum of the magnitudes of the errors? The sum of the squares is wanted", {"how": "absolute"}),
        ):
            if same([_fraction(*case, **options) for case in cases]):
                raise Wrong(sentence)
        if same([max(fractions) for _, _, fractions in cases]):
            raise Wrong("the largest fraction is not always the best: measure the error of each")
        if same([min(fractions) for _, _, fractions in cases]):
            raise Wrong("you always take the smallest fraction. Are the codes cut off at the largest one, clamp(-top, "
                        "top), and is the error measured against x as it was? What is cut off is an error as well")
        if any(all(abs(g - f) > 1e-6 for f in fractions) for g, (_, _, fractions) in zip(got, cases)):
            raise Wrong(f"one of the fractions is wanted, as it stands in the list, and you have {got[0]:.4g}")
        i = next(i for i in range(len(cases)) if abs(got[i] - wanted[i]) > 1e-6)
        raise Wrong(f"for case {i + 1}, {cases[i][1]} bits, it should be {wanted[i]:g}, and you have {got[i]:g}")
    return (f"for normal numbers {wanted[0]:g} with 3 bits and {wanted[3]:g} with 2, and {wanted[2]:g} for even ones "
            "with 8: the fewer bits, the more is worth cutting off")
