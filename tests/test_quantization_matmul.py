"""The tensor core's sums against exact fractions, step by step, and against sums in 64 bits."""

from fractions import Fraction

import pytest
import torch

from llm_core.quantization.fp8 import dequantize_tiles, quantize_tiles, to_fp8
from llm_core.quantization.integers import relative_error
from llm_core.quantization.matmul import keep_bits, scaled_matmul, tensor_core_matmul


def cut(x: Fraction, unit: Fraction) -> Fraction:
    return int(x / unit) * unit  # int() cuts towards zero


def exponent(x: Fraction) -> int:
    e = 0
    while abs(x) >= 2:
        x, e = x / 2, e + 1
    while abs(x) < 1:
        x, e = x * 2, e - 1
    return e


def slow_dot(a: list[float], b: list[float], interval: int, bits: int, aligned: int) -> float:
    total = torch.tensor(0.0)
    for start in range(0, len(a), interval):
        register = Fraction(0)
        for s in range(start, min(start + interval, len(a)), aligned):
            pairs = [(Fraction(x), Fraction(y)) for x, y in zip(a[s:min(s + aligned, start + interval)],
                                                                b[s:min(s + aligned, start + interval)], strict=True)]
            known = [exponent(x) + exponent(y) for x, y in pairs if x and y] + [exponent(r) for r in [register] if r]
            if not known:
                continue
            unit = Fraction(2) ** (max(known) - bits + 1)
            register = cut(register, unit) + sum(cut(x * y, unit) for x, y in pairs)
            if register:
                register = cut(register, Fraction(2) ** (exponent(register) - bits + 1))
        total += float(register)
    return total.item()


@pytest.mark.parametrize(("interval", "bits", "aligned"), [(128, 14, 32), (50, 14, 32), (128, 10, 16), (1, 8, 32),
                                                           (200, 20, 7)])
def test_equal_to_exact_fractions_step_by_step(interval, bits, aligned):
    generator = torch.Generator().manual_seed(interval)
    a, b = (to_fp8(torch.randn(n, 150, generator=generator) * torch.randn(n, 150, generator=generator).exp())
            for n in (3, 2))
    a[0, 10:40], a[1] = 0, 0
    got = tensor_core_matmul(a, b, interval, bits, aligned)
    for i in range(3):
        for j in range(2):
            assert got[i, j] == slow_dot(a[i].tolist(), b[j].tolist(), interval, bits, aligned)


def test_keeping_bits_cuts_towards_zero():
    x = torch.tensor([1.0, 1 + 2**-13, 1 + 2**-14, -1 - 2**-14, 3 + 2**-12 + 2**-13, 0.0], dtype=torch.float64)
    wanted = torch.tensor([1.0, 1 + 2**-13, 1, -1, 3 + 2**-12, 0.0], dtype=torch.float64)
    assert torch.equal(keep_bits(x, 14), wanted)


def uniform(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_promotion_brings_a_sum_of_4096_back():
    """All numbers positive, so that cuts add up: 7 % without promotion, 0.05 % every 128, nothing at every product."""
    a, b = to_fp8(uniform(16, 4096, seed=0)), to_fp8(uniform(16, 4096, seed=1))
    exact = a.double() @ b.double().T
    errors = [relative_error(exact, tensor_core_matmul(a, b, n)) for n in (None, 1024, 128, 32, 4)]
    assert all(fine < coarse / 3 for coarse, fine in zip(errors, errors[1:], strict=False))
    assert 0.05 < errors[0] < 0.09 and 3e-4 < errors[2] < 7e-4
    plain = torch.zeros(16, 16)
    for a_k, b_k in zip(a.float().T, b.float().T, strict=True):
        plain += a_k[:, None] * b_k[None]
    assert torch.equal(tensor_core_matmul(a, b, 1), plain)  # the 32-bit sum, product by product
    assert relative_error(exact, plain) < 1e-6
    assert torch.equal(tensor_core_matmul(a, b, None), tensor_core_matmul(a, b, 4096))


def test_more_bits_help_where_promotion_does_not():
    a, b = to_fp8(uniform(8, 4096, seed=0)), to_fp8(uniform(8, 4096, seed=1))
    exact = a.double() @ b.double().T
    errors = [relative_error(exact, tensor_core_matmul(a, b, None, bits)) for bits in (10, 14, 18, 24)]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.3 and errors[-1] < 1e-4


def outliers():
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(32, 4096, generator=generator), torch.randn(160, 4096, generator=generator) / 64
    x[3, 1000], x[20, 77] = 1e6, -1e5  # two tokens with one enormous number each
    return x, w


def test_tiles_stand_outliers_that_one_scale_does_not():
    x, w = outliers()
    exact = x.double() @ w.double().T
    tiles = scaled_matmul(*quantize_tiles(x), *quantize_tiles(w, (128, 128)))
    (x8, x_scale), (w8, w_scale) = quantize_tiles(x, None), quantize_tiles(w, None)
    one_scale = tensor_core_matmul(x8, w8) * x_scale * w_scale
    others = [row for row in range(32) if row not in (3, 20)]
    assert 0.02 < relative_error(exact[others], tiles[others]) < 0.05
    assert relative_error(exact[others], one_scale[others]) > 0.7


def test_scaled_product_is_that_of_the_dequantised_numbers():
    x, w = outliers()
    x, w = x[:, :1000], w[:, :1000]  # 1,000 = 7 x 128 + 104; 160 = 128 + 32
    (x8, x_scale), (w8, w_scale) = quantize_tiles(x), quantize_tiles(w, (128, 128))
    exact = dequantize_tiles(x8, x_scale).double() @ dequantize_tiles(w8, w_scale, (128, 128)).double().T
    assert relative_error(exact, scaled_matmul(x8, x_scale, w8, w_scale)) < 5e-4
    assert relative_error(exact, scaled_matmul(x8, x_scale, w8, w_scale, bits=24)) < 1e-6
    with pytest.raises(ValueError, match=r"need scales of shape \[32, 8\], not \[32, 7\]"):
        scaled_matmul(x8, x_scale[:, 1:], w8, w_scale)


@pytest.mark.parametrize(("arguments", "sentence"), [
    ((torch.ones(2, 3), torch.ones(2, 4)), "must share K"),
    ((torch.ones(3), torch.ones(3)), "must share K"),
    ((torch.ones(2, 3), torch.ones(2, 3), 0), "interval must be a whole number of at least 1, not 0"),
    ((torch.ones(2, 3), torch.ones(2, 3), 128, 7), "bits must be a whole number from 8 to 24, not 7")])
def test_what_cannot_be_gets_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        tensor_core_matmul(*arguments)
