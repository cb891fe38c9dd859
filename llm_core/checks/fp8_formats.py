"""Checks of the lesson "FP8: formats, tiles, sums"."""

from __future__ import annotations

import math

import torch

from llm_core.checks.cases import number, numbers, whole
from llm_core.checks.core import Wrong, attempt, check, compare, random, tensor
from llm_core.quantization import fp8
from llm_core.quantization.matmul import accumulate, scaled_matmul


def _value(code: int, bias: int = 7, subnormal: bool = True, one: bool = True, parts: int = 8, sign: bool = True,
           usual: bool = False) -> float:
    """An E4M3 number from its code, with one thing that may be wrong. usual: subnormal numbers are right."""
    e, m = code >> 3 & 15, code & 7
    if e == 0 and subnormal:
        size = 2.0**-6 * m / 8 if usual else 2.0 ** (1 - bias) * m / parts
    else:
        size = 2.0 ** (e - bias) * (one + m / parts)
    return -size if code >> 7 and sign else size


@check
def e4m3_value(function) -> str:
    """function(code) -> the value of an E4M3 number."""
    truth = fp8.all_values("e4m3").tolist()  # torch's own reading of the bytes 0 to 255
    got = [number(attempt(function, code)) for code in range(256)]

    def same(other: list[float]) -> bool:
        return all(a == b or a != a and b != b for a, b in zip(got, other))

    if same(truth):
        return "all 256 codes, as torch reads them; the largest is 448, the smallest above 0 is 2^-9"
    if not any(math.isnan(value) for value in got) and same([480.0 if c == 127 else -480.0 if c == 255 else truth[c]
                                                             for c in range(256)]):
        raise Wrong("codes 127 and 255 (all bits after the sign set) are no numbers: return math.nan there")
    for sentence, options in (
        ("is the bias 8? It is 7: exponent 7 means 2 to the 0", {"bias": 8}),
        ("is the exponent's bias missing? The power is 2 to the e - 7", {"bias": 0}),
        ("at exponent 0 the rule changes: 2^-6 x m / 8, without the 1", {"subnormal": False}),
        ("where is the 1? A number is its power times (1 + m / 8)", {"one": False}),
        ("three bits of mantissa are eighths, not sevenths", {"parts": 7}),
        ("is the sign forgotten? It is the highest bit, code >> 7", {"sign": False}),
    ):
        for usual in (False, True):
            other = [_value(c, **options, usual=usual) for c in range(256)]
            if same(other) or same([math.nan if c & 127 == 127 else value for c, value in enumerate(other)]):
                raise Wrong(sentence)
    code = next(c for c in range(256) if got[c] != truth[c] and truth[c] == truth[c] or (got[c] != got[c]) != (
        truth[c] != truth[c]))
    raise Wrong(f"for code {code}, bits {code >> 7} {code >> 3 & 15:04b} {code & 7:03b}, it should be {truth[code]:g}, "
                f"and you have {got[code]:g}")


@check
def tile_scales(function) -> str:
    """function(x [R, C]) -> scales of tiles of 1 x 128 [R, ceil(C / 128)]."""
    for R, C in ((4, 256), (3, 300), (2, 7)):
        x = random(R, C, seed=811)
        x[0, :128] = 0
        x[1] *= -3  # the largest magnitude may stand at a negative number
        _, truth = fp8.quantize_tiles(x, fp8.ACTIVATION_TILE)
        got = tensor(function, x, shape=tuple(truth.shape), names="[R, number of tiles]", shape_hints={
            (R, C // 128): "Is the last, narrower tile left out? The number of tiles is rounded up.",
            (R, C): "One scale a tile is wanted, not one a number.", (R,): "One scale a tile, not one a row.",
            (R, 1): "One scale a tile, not one a row."})
        pieces = x.split(128, dim=1)

        def of(reduce, most=448.0, empty=1.0, pieces=pieces):
            scales = torch.stack([reduce(piece) for piece in pieces], dim=1) / most
            return torch.where(scales == 0, empty, scales)

        largest = lambda piece: piece.abs().amax(dim=1)
        compare(got, truth, [
            ("a tile of zeros needs scale 1: by 0 nothing can be divided", of(largest, empty=0.0)),
            ("is the largest *magnitude* taken? A negative number may be the largest: take abs() first",
             of(lambda piece: piece.amax(dim=1))),
            ("that is how one scales INT8, by 127. E4M3's largest number is 448", of(largest, most=127.0)),
            ("those are the largest magnitudes; divide by 448", of(largest, most=1.0)),
            ("that is E5M2's largest number; E4M3's is 448", of(largest, most=57344.0)),
            ("one over the scale is returned; x is divided by the scale", 1 / truth),
        ])
    return "as llm_core finds them, online: from the numbers themselves, with no history"


@check
def fp8_bytes(function) -> str:
    """function(rows, columns) -> bytes of FP8 codes and their blocks' 32-bit scales."""
    cases = ((7168, 2048), (576, 7168), (129, 127), (1, 1))

    def of_file(rows, columns):
        codes, scales = fp8.tiles_of(rows, 128), fp8.tiles_of(columns, 128)
        return rows * columns + 4 * codes * scales

    numbers(function, cases, of_file, [
        ("are the last, smaller blocks left out? Round the number of blocks up", lambda r, c: r * c + 4 * (r // 128) * (
            c // 128)),
        ("is a scale taken as one byte? It has 32 bits",
         lambda r, c: r * c + fp8.tiles_of(r, 128) * fp8.tiles_of(c, 128)),
        ("is a scale taken as 32 bytes? It has 32 bits", lambda r, c: r * c + 32 * fp8.tiles_of(r, 128) * fp8.tiles_of(
            c, 128)),
        ("where are the scales?", lambda r, c: r * c),
        ("a code is one byte, not two", lambda r, c: 2 * r * c + 4 * fp8.tiles_of(r, 128) * fp8.tiles_of(c, 128)),
        ("those are tiles of 1 x 128; a weight has blocks of 128 x 128",
         lambda r, c: r * c + 4 * r * fp8.tiles_of(c, 128)),
        ("are blocks counted by the number of weights alone? Rows and columns are cut apart",
         lambda r, c: r * c + 4 * -(-r * c // 128**2)),
    ], lambda r, c: f"{r:,} x {c:,}", lambda value: whole(value, "a whole number of bytes is needed"))
    return "the scales of V3's matrix of 576 x 7,168 take 1,120 bytes beside 4,128,768 of codes"


@check
def smallest_kept(function) -> str:
    """function(largest) -> the magnitude below which everything becomes 0, with one scale for all."""
    cases = ((448.0,), (1.0,), (100_000.0,), (0.03,))
    numbers(function, cases, lambda largest: 2.0**-10 * largest / 448, [
        ("that is the smallest number above 0; what lies over half of it is rounded up to it",
         lambda m: 2.0**-9 * m / 448),
        ("where is the scale? The largest number becomes 448, and all others shrink with it", lambda m: 2.0**-10),
        ("is it multiplied by 448? The scale is largest / 448", lambda m: 2.0**-10 * m * 448),
        ("is it divided by `largest`? A larger outlier makes the border higher", lambda m: 2.0**-10 * 448 / m),
        ("that is the smallest number with a full mantissa; below it come the subnormal ones",
         lambda m: 2.0**-6 * m / 448),
        ("that is half of the smallest number with a full mantissa; below it come the subnormal ones",
         lambda m: 2.0**-7 * m / 448),
        ("that is INT8's border, half a step of largest / 127", lambda m: m / 127 / 2),
        ("is the scale missing its 448? The largest number becomes 448, not 1", lambda m: 2.0**-10 * m),
    ], lambda largest: f"a largest magnitude of {largest:g}", number)
    return "beside an outlier of 100,000 everything below 0.218 becomes 0: a normal number of size 1 does so at 17 %"


@check
def promoted_product(function) -> str:
    """function(a [M, K], a_scale, b [N, K], b_scale, core) -> [M, N], promoted every 128 products."""
    for M, N, K in ((5, 140, 300), (3, 4, 256)):
        a, a_scale = fp8.quantize_tiles(random(M, K, seed=812) * torch.logspace(-1, 0, K), fp8.ACTIVATION_TILE)
        b, b_scale = fp8.quantize_tiles(random(N, K, seed=813) * torch.logspace(0, -1, N)[:, None], fp8.WEIGHT_BLOCK)
        a, b, asked = a.float(), b.float(), []

        def core(a_part, b_part, asked=asked):
            asked.append(a_part.shape[1])
            return accumulate(a_part, b_part)

        truth = scaled_matmul(a, a_scale, b, b_scale)
        got = tensor(function, a, a_scale, b, b_scale, core, shape=(M, N), names="[M, N]", hints={
            "must match the size": "A block's scale serves 128 rows of b: repeat_interleave(128), then cut to N."})
        wide, tall = a_scale.repeat_interleave(128, 1)[:, :K], b_scale.repeat_interleave(128, 0)[:N]
        first = tall[:, :1].T
        if not asked:
            raise Wrong("the core was not used: it is the tensor core that multiplies, piece by piece")
        if any(width > 128 for width in asked):
            raise Wrong("the core was given more than 128 columns at once: promote after every 128")
        if got.abs().max() > 1e6 * truth.abs().max():
            raise Wrong("are numbers divided by their scales? Codes are multiplied by them")
        compare(got, truth, [
            ("the scales are missing", sum(accumulate(*p) for p in zip(a.split(128, 1), b.split(128, 1)))),
            ("are b's scales missing?", sum(accumulate(*p) * wide[:, 128 * i, None] for i, p in enumerate(
                zip(a.split(128, 1), b.split(128, 1))))),
            ("are a's scales missing?", sum(accumulate(*p) * tall[:, i] for i, p in enumerate(
                zip(a.split(128, 1), b.split(128, 1))))),
            ("is every piece scaled as the first one? Each has scales of its own", sum(
                accumulate(*p) for p in zip(a.split(128, 1), b.split(128, 1))) * wide[:, :1] * first),
            ("is the last piece left out? K need not be a multiple of 128", sum(
                accumulate(*p) * wide[:, 128 * i, None] * tall[:, i] for i, p in enumerate(
                    zip(a[:, :K // 128 * 128].split(128, 1), b[:, :K // 128 * 128].split(128, 1))))),
        ])
    return "equal to llm_core's; V3 promotes at the same places at which its tiles end"
