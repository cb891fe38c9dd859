"""FP8 against tables made from the definition of the formats, and its tiles against slow loops."""

import math

import pytest
import torch

from llm_core.quantization import fp8
from llm_core.quantization.integers import relative_error

INF, NAN = float("inf"), float("nan")


def defined_values(exponent_bits: int, mantissa_bits: int) -> list[float]:
    """The 256 numbers, code by code, from the text of the format (arXiv:2209.05433, table 1)."""
    bias, values = 2 ** (exponent_bits - 1) - 1, []
    for code in range(256):
        sign = -1.0 if code & 128 else 1.0
        e, m = (code & 127) >> mantissa_bits, (code & 127) % 2**mantissa_bits
        if exponent_bits == 5 and e == 31:
            value = INF if m == 0 else NAN
        elif exponent_bits == 4 and e == 15 and m == 7:
            value = NAN
        elif e == 0:
            value = m / 2**mantissa_bits * 2.0 ** (1 - bias)
        else:
            value = (1 + m / 2**mantissa_bits) * 2.0 ** (e - bias)
        values.append(sign * value)
    return values


TABLES = {"e4m3": defined_values(4, 3), "e5m2": defined_values(5, 2)}


@pytest.mark.parametrize("name", TABLES)
def test_all_values_are_the_definitions(name):
    got, f = fp8.all_values(name), fp8.FORMATS[name]
    torch.testing.assert_close(got, torch.tensor(TABLES[name]), rtol=0, atol=0, equal_nan=True)
    finite = [v for v in TABLES[name] if math.isfinite(v)]
    assert (f.max, f.infinite) == (max(finite), name == "e5m2")
    assert min(v for v in finite if v > 0) == {"e4m3": 2**-9, "e5m2": 2**-16}[name]


@pytest.mark.parametrize("name", TABLES)
def test_rounding_is_to_the_nearest_and_to_the_even_code(name):
    positive = [(v, code) for code, v in enumerate(TABLES[name][:128]) if math.isfinite(v)]
    x = torch.rand(3000, generator=torch.Generator().manual_seed(0)) * 24 - 12
    x = torch.cat([2.0**x, torch.tensor([(a + b) / 2 for (a, _), (b, _) in zip(positive, positive[1:], strict=False)])])
    for value, got in zip(x.tolist(), fp8.to_fp8(x, name).view(torch.uint8).tolist(), strict=True):
        if value <= fp8.FORMATS[name].max:
            assert got == min(positive, key=lambda v, x=value: (abs(v[0] - x), v[1] % 2))[1]


def test_e4m3_saturates_and_e5m2_overflows():
    x = torch.tensor([448.0, 449, 463, 465, 480, 1e9, INF, -1e9, -INF, NAN])
    wanted = torch.tensor([448.0] * 7 + [-448.0] * 2 + [NAN])
    torch.testing.assert_close(fp8.to_fp8(x).float(), wanted, equal_nan=True)
    wide = fp8.Format("wide", torch.float32, 4, 3, 7, 448.0, infinite=False)  # a cast that leaves all to our clamp
    torch.testing.assert_close(fp8.to_fp8(x, wide)[3:], wanted[3:], equal_nan=True)
    x = torch.tensor([57344.0, 61439, 61440, 1e9, -1e9, INF, NAN])
    wanted = torch.tensor([57344.0, 57344, INF, INF, -INF, INF, NAN])
    torch.testing.assert_close(fp8.to_fp8(x, "e5m2").float(), wanted, equal_nan=True)


@pytest.mark.parametrize(("value", "name", "bits", "formula"), [
    (448, "e4m3", "0 1111 110", "+2^8 × (1 + 6/8) = 448"),
    (-0.3, "e4m3", "1 0101 010", "-2^-2 × (1 + 2/8) = -0.3125"),
    (0.005, "e4m3", "0 0000 011", "+2^-6 × 3/8 = 0.00585938"),
    (NAN, "e4m3", "0 1111 111", "NaN"),
    (1.0, "e5m2", "0 01111 00", "+2^0 × (1 + 0/4) = 1"),
    (1e9, "e5m2", "0 11111 00", "+inf")])
def test_bit_by_bit(value, name, bits, formula):
    got = fp8.fields(value, name)
    assert (got.bits, got.formula) == (bits, formula)


def sample(*shape, spread=3.0):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator) * torch.exp(spread * torch.randn(shape, generator=generator))


@pytest.mark.parametrize("format", ["e4m3", "e5m2"])
@pytest.mark.parametrize(("shape", "tile"), [((576, 300), (128, 128)), ((5, 300), (1, 128)), ((3, 7), (128, 128)),
                                             ((2, 3, 130), (1, 128)), ((10, 12), (3, 5)), ((10, 12), None)])
def test_tiles_equal_a_slow_loop(shape, tile, format):
    x = sample(*shape)
    codes, scale = fp8.quantize_tiles(x, tile, format)
    got = fp8.dequantize_tiles(codes, scale, tile)
    flat, codes, out = x.view(-1, shape[-1]), codes.view(-1, shape[-1]), got.view(-1, shape[-1])
    rows, columns = tile or flat.shape
    assert list(scale.shape) == [math.ceil(flat.shape[0] / rows), math.ceil(flat.shape[1] / columns)]
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            place = (slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns))
            largest = flat[place].abs().max().item()
            assert scale[i, j].item() == pytest.approx(largest / fp8.FORMATS[format].max, rel=1e-6)
            assert torch.equal(codes[place].float(), (flat[place] / scale[i, j]).to(codes.dtype).float())
            assert torch.equal(out[place], codes[place].float() * scale[i, j])
    half = 2.0 ** -(fp8.FORMATS[format].mantissa_bits + 1)  # of the space between two numbers, for normal ones
    normal = (codes.float().abs() >= 2.0 ** (1 - fp8.FORMATS[format].bias))
    assert ((out - flat).abs() <= half * 1.001 * torch.maximum(flat.abs(), out.abs()))[normal].all()


def test_blocks_of_deepseeks_files():
    """A real size that 128 does not divide: kv_a_proj_with_mqa of DeepSeek-V2-Lite is [576, 2048]."""
    codes = fp8.to_fp8(sample(576, 2048, spread=1.0))
    scale_inv = torch.rand(5, 16, generator=torch.Generator().manual_seed(1))
    got = fp8.dequantize_blocks(codes, scale_inv)
    for r in (0, 127, 128, 511, 512, 575):
        for c in (0, 127, 128, 2047):
            assert got[r, c] == codes[r, c].float() * scale_inv[r // 128, c // 128]
    assert torch.equal(got, fp8.dequantize_tiles(codes, scale_inv, (128, 128)))
    half = fp8.dequantize_blocks(codes, scale_inv, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and torch.equal(half, got.bfloat16())
    with pytest.raises(ValueError, match=r"\[576, 2048\] in blocks of 128 x 128 needs scales of shape \[5, 16\], not "):
        fp8.dequantize_blocks(codes, scale_inv[:4])


def test_scales_that_are_powers_of_two():
    x = sample(8, 512)
    x[0, :128] = 448 * 2.0**-3  # its scale is a power of two already
    plain, power = fp8.quantize_tiles(x)[1], fp8.quantize_tiles(x, power_of_two=True)[1]
    assert torch.equal(torch.frexp(power).mantissa, torch.full_like(power, 0.5))
    assert (power >= plain).all() and (power < 2 * plain).all() and power[0, 0] == plain[0, 0] == 2.0**-3


def test_tiles_of_zeros_and_what_cannot_be():
    codes, scale = fp8.quantize_tiles(torch.zeros(2, 200), power_of_two=True)
    assert torch.equal(scale, torch.ones(2, 2)) and torch.equal(codes.float(), torch.zeros(2, 200))
    for bad in (torch.tensor([[1.0, NAN]]), torch.tensor([[INF]])):
        with pytest.raises(ValueError, match="holds NaN or inf"):
            fp8.quantize_tiles(bad)
    with pytest.raises(ValueError, match="is empty"):
        fp8.quantize_tiles(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="a tile's columns must be a whole number of at least 1, not 0"):
        fp8.quantize_tiles(torch.ones(2, 2), (1, 0))
    with pytest.raises(ValueError, match="format must be one of e4m3, e5m2, not 'e3m4'"):
        fp8.to_fp8(torch.ones(2), "e3m4")


def test_tiles_keep_an_outlier_to_itself():
    x = torch.randn(64, 1024, generator=torch.Generator().manual_seed(0))
    x[5, 40] = 1e6
    others = torch.arange(64) != 5
    per_tensor = fp8.dequantize_tiles(*fp8.quantize_tiles(x, None), None)
    tiles = fp8.dequantize_tiles(*fp8.quantize_tiles(x))
    assert relative_error(x[others], per_tensor[others]) > 0.7  # nearly all became 0
    assert 0.02 < relative_error(x[others], tiles[others]) < 0.03
    assert 0.02 < relative_error(x[5, 128:], tiles[5, 128:]) < 0.03
