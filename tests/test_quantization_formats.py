"""One matrix in any format, and one number in FP8: against loops, against the formats' own definition, by hand."""

import math

import pytest
import torch

from llm_core.quantization import formats, fp8, one_number
from llm_core.quantization.formats import SHARES, error, error_map, keep, with_outliers

X = torch.randn(150, 200, generator=torch.Generator().manual_seed(3))  # no multiples of 128


def value_of(code: int, exponent_bits: int, mantissa_bits: int) -> float:
    """A code's number by the formats' definition (arXiv:2209.05433, table 1); NaN and inf are None."""
    bias, e = 2 ** (exponent_bits - 1) - 1, code >> mantissa_bits & (2**exponent_bits - 1)
    m, sign = code & (2**mantissa_bits - 1), -1.0 if code >> 7 else 1.0
    if (exponent_bits, e) == (5, 31) or (exponent_bits, e, m) == (4, 15, 7):
        return None
    share = m / 2**mantissa_bits
    return sign * (2.0 ** (1 - bias) * share if e == 0 else 2.0 ** (e - bias) * (1 + share))


NUMBERS = {name: sorted({value_of(c, *bits) + 0.0 for c in range(256) if value_of(c, *bits) is not None})
           for name, bits in (("e4m3", (4, 3)), ("e5m2", (5, 2)))}


def by_loop(x, format, rows, columns):
    """Tile by tile, each number to the nearest of the tile's levels."""
    out = torch.empty_like(x)
    for i in range(0, x.shape[0], rows):
        for j in range(0, x.shape[1], columns):
            tile = x[i:i + rows, j:j + columns]
            if format in NUMBERS:
                levels = torch.tensor(NUMBERS[format]) * (tile.abs().max() / max(NUMBERS[format]))
            else:
                top = 2 ** (int(format[3:]) - 1) - 1
                scale = (tile.abs().max() / top).bfloat16().float()
                if scale * top < tile.abs().max():  # BF16 rounded it down
                    scale = torch.nextafter(scale.bfloat16(), torch.tensor(9e9).bfloat16()).float()
                levels = torch.arange(-top, top + 1) * scale
            out[i:i + rows, j:j + columns] = levels[(tile[..., None] - levels).abs().argmin(-1)]
    return out


@pytest.mark.parametrize("format", formats.BITS)
@pytest.mark.parametrize("per", SHARES)
def test_every_format_and_sharing_against_a_loop(format, per):
    if per == "block" and format not in fp8.FORMATS:
        with pytest.raises(ValueError, match="nearest: groups of 128"):
            keep(X, format, per)
        return
    tile = {"tensor": (150, 200), "channel": (1, 200), "block": (128, 128)}.get(per) or (1, per)
    kept = keep(X, format, per)
    assert kept.tile == tile
    different = (kept.values - by_loop(X, format, *tile)).abs() > 1e-6
    assert different.float().mean() < 2e-3  # of two levels equally near, either may be taken
    down, across = math.ceil(150 / tile[0]), math.ceil(200 / tile[1])
    assert list(kept.scale.shape) == [down, across]
    codes = 150 * math.ceil(200 * formats.BITS[format] / 8)
    assert (kept.code_bytes, kept.scale_bytes) == (codes, down * across * (4 if format in fp8.FORMATS else 2))
    assert kept.bits_a_number == 8 * (kept.code_bytes + kept.scale_bytes) / 30000


def test_a_zero_point_serves_numbers_of_one_sign():
    x = X.relu()
    plain, shifted = keep(x, "int4", 64), keep(x, "int4", 64, symmetric=False)
    assert error(x, shifted.values).relative < 0.6 * error(x, plain.values).relative
    assert shifted.scale_bytes == 3 * plain.scale.numel()  # two bytes of scale, one of zero point
    assert (shifted.values[x == 0] == 0).all() and len(shifted.levels()) == 16
    with pytest.raises(ValueError, match="FP8 has a sign of its own"):
        keep(x, "e4m3", 64, symmetric=False)


@pytest.mark.parametrize(("format", "count", "symmetric"), [
    ("int8", 255, True), ("int4", 15, True), ("int2", 3, True), ("int3", 8, False), ("e4m3", 253, True),
    ("e5m2", 247, True)])
def test_levels_are_all_that_can_be_written(format, count, symmetric):
    kept = keep(X, format, 64, symmetric=symmetric)
    levels = kept.levels(2, 1)
    assert len(levels) == count and (levels.diff() > 0).all()
    written = kept.values[2, 64:128]
    assert (written[:, None] - levels).abs().min(dim=1).values.max() < 1e-6
    if symmetric:
        assert math.isclose(kept.span(2, 1), levels.max().item(), rel_tol=1e-6)


@pytest.mark.parametrize("format", ["int8", "int3", "e4m3", "e5m2"])
def test_what_vanishes_and_what_does_not(format):
    border = keep(torch.tensor([[1.0, 0.0]]), format, "tensor").vanishing()
    for share, gone in ((0.99, True), (1.01, False)):
        assert (keep(torch.tensor([[1.0, share * border]]), format, "tensor").values[0, 1] == 0) == gone


def test_place_finds_a_scale_by_its_rank():
    kept = keep(X, "int4", 64)
    scales = kept.scale.flatten().float().sort().values
    for rank, index in ((0, 0), (0.5, round(0.5 * (len(scales) - 1))), (1, -1)):
        assert kept.scale[kept.place(rank)].float() == scales[index]


def test_errors_by_hand():
    x, kept = torch.tensor([[3.0, 4.0], [0.0, 100.0]]), torch.tensor([[3.0, 0.0], [0.0, 97.0]])
    whole = error(x, kept)
    assert math.isclose(whole.relative, 5 / math.sqrt(10025)) and whole.worst == 4 and whole.gone == 0.25
    assert math.isclose(whole.snr_db, 10 * math.log10(10025 / 25))
    without = error(x, kept, x > 50)
    assert math.isclose(without.others, 4 / 5) and math.isclose(without.gone, 1 / 3) and without.worst == 4
    assert error(x, x).snr_db == math.inf


def test_the_map_has_each_cells_own_error():
    kept = keep(X, "int3", 64).values
    mask = torch.zeros_like(X, dtype=torch.bool)
    mask[0, 0] = True
    found = error_map(X, kept, mask)
    assert found.shape == (30, 40)  # the largest divisors of 150 and 200 up to 48
    for i, j in ((0, 0), (7, 3), (29, 39)):
        cell = slice(5 * i, 5 * i + 5), slice(5 * j, 5 * j + 5)
        x, back = X[cell].clone(), kept[cell].clone()
        if (i, j) == (0, 0):
            x[0, 0] = back[0, 0] = 0
        assert math.isclose(found[i, j].item(), ((x - back).norm() / x.norm()).item(), rel_tol=1e-5)
    assert (error_map(torch.zeros(4, 4), torch.zeros(4, 4)) == 0).all()


def test_outliers_are_where_the_mask_says():
    spoiled, mask = with_outliers(X, 32)
    assert mask.sum() == 8 and mask.any(dim=1).sum() == 8
    assert torch.equal(spoiled[~mask], X[~mask])
    assert torch.allclose(spoiled[mask].abs(), 32 * X.square().mean().sqrt().expand(8))
    assert (spoiled[mask] > 0).sum() == 4
    same, none = with_outliers(X, 0)
    assert torch.equal(same, X) and not none.any()
    with pytest.raises(ValueError, match="at least 0, not -1"):
        with_outliers(X, -1)


@pytest.mark.parametrize(("x", "format", "per", "sentence"), [
    (X, "int5", "channel", "format must be one of int8"), (X, "int4", 0, "group size or block, not 0"),
    (X, "int4", True, "not True"), (X, "e4m3", "row", "not 'row'"), (X[0], "int4", "channel", "shape"),
    (X * math.nan, "e4m3", "block", "NaN"), (X * math.nan, "int4", "tensor", "NaN")])
def test_what_cannot_be_kept_is_said(x, format, per, sentence):
    with pytest.raises(ValueError, match=sentence):
        keep(x, format, per)


@pytest.mark.parametrize("format", ["int4", "e4m3"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_none_is_found_wherever_it_stands(value, format):
    for place in (0, 1000, X.numel() - 1):
        x = X.clone()
        x.view(-1)[place] = value
        with pytest.raises(ValueError, match="NaN or inf"):
            keep(x, format, "tensor")


# One number ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("format", ["e4m3", "e5m2"])
def test_neighbours_by_the_definition(format):
    numbers = NUMBERS[format]
    assert one_number.levels(format) == numbers
    for value in (0.0, 0.1, -0.1, 1.0, -3.3, 27.0, 447.0, 1e-5, -1e-7, *numbers[::17]):
        made = one_number.look(value, format)
        here = numbers.index(made.fields.value + 0.0)
        nearest = min(abs(n - value) for n in numbers)
        assert abs(made.error) == pytest.approx(nearest)
        assert made.below == (numbers[here - 1] if here else None)
        assert made.above == (numbers[here + 1] if here + 1 < len(numbers) else None)
        assert one_number.ruler(value, format) == numbers[max(0, here - 4):here + 5]


@pytest.mark.parametrize(("value", "format", "kind", "becomes"), [
    (1.0, "e4m3", "exact", 1), (0.1, "e4m3", "rounded", 0.1015625), (0.003, "e4m3", "subnormal", 0.00390625),
    (0.0005, "e4m3", "became 0", 0), (460, "e4m3", "held at the largest", 448), (-1e30, "e4m3", "held at the largest",
    -448), (60000, "e5m2", "rounded", 57344), (61441, "e5m2", "infinite", math.inf), (0, "e5m2", "exact", 0)])
def test_what_happens_to_a_number(value, format, kind, becomes):
    made = one_number.look(value, format)
    assert (made.kind, made.fields.value) == (kind, becomes)
    if kind == "infinite":
        assert (made.below, made.above, made.error) == (57344, None, math.inf)


def test_only_finite_numbers_are_looked_at():
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="only a finite number"):
            one_number.look(value)
