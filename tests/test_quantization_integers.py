"""Integer quantization against torch's own fake-quantization, a slow loop in plain Python, and closed-form bounds."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_core import load_pretrained
from llm_core.quantization.integers import quantize, relative_error
from llm_core.quantization.packing import pack, packed_bytes, unpack


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(2, 8), st.integers(1, 40), st.integers(1, 3), st.integers(0, 99))
def test_packed_codes_are_the_bits_side_by_side(bits, n, rows, seed):
    codes = torch.randint(0, 2**bits, (rows, n), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    packed = pack(codes, bits)
    for row, got in zip(codes.tolist(), packed.tolist(), strict=True):
        long = sum(code << (bits * i) for i, code in enumerate(row))  # one long number, the first code lowest
        assert got == list(long.to_bytes(-(-n * bits // 8), "little"))
    assert packed.shape[-1] == packed_bytes(n, bits)
    assert torch.equal(unpack(packed, bits, n), codes)


@pytest.mark.parametrize("bits", range(2, 9))
def test_symmetric_rounding_is_torchs(bits):
    x, top = numbers(24, 40), 2 ** (bits - 1) - 1
    scale = x.abs().max() / top
    wanted = torch.fake_quantize_per_tensor_affine(x, scale, torch.tensor(0, dtype=torch.int32), -top, top)
    torch.testing.assert_close(quantize(x, bits, "tensor").dequantize(), wanted)
    scales = x.abs().amax(1) / top
    wanted = torch.fake_quantize_per_channel_affine(x, scales, torch.zeros(24, dtype=torch.int32), 0, -top, top)
    torch.testing.assert_close(quantize(x, bits, "channel").dequantize(), wanted)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_asymmetric_rounding_is_torchs(bits):
    x, top = numbers(24, 40) + 0.7, 2**bits - 1
    low, high = x.amin(1).clamp(max=0), x.amax(1).clamp(min=0)
    scales = (high - low) / top
    wanted = torch.fake_quantize_per_channel_affine(x, scales, (-low / scales).round().int(), 0, 0, top)
    made = quantize(x, bits, "channel", symmetric=False)
    torch.testing.assert_close(made.dequantize(), wanted)
    assert made.codes.min() >= 0 and made.codes.max() <= top and made.zero_point.dtype == torch.uint8


def test_groups_equal_a_slow_loop_and_the_last_may_be_smaller():
    x, bits, g = numbers(3, 2, 11), 4, 4
    made = quantize(x, bits, g)
    assert made.scale.shape == (6, 3) and made.codes.shape == x.shape
    got = made.dequantize().view(6, 11)
    for r, row in enumerate(x.view(6, 11).tolist()):
        for start in range(0, 11, g):
            group = row[start:start + g]
            scale = max(map(abs, group)) / 7
            for i, value in enumerate(group):
                assert got[r, start + i].item() == pytest.approx(round(value / scale) * scale, abs=1e-6)


def test_a_tie_goes_to_the_even_step():
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 127.0])  # scale 1
    assert quantize(x, 8, "tensor").codes.tolist() == [0, 2, 2, 0, -2, -2, 127]


@given(st.integers(2, 8), st.sampled_from(["tensor", "channel", 5, 8, 100]), st.booleans(), st.integers(0, 50),
       st.sampled_from([torch.float32, torch.bfloat16]))
def test_the_error_is_at_most_half_a_step(bits, per, symmetric, seed, scale_dtype):
    x = numbers(4, 21, seed=seed) * 10 ** ((seed - 25) / 3) + seed % 3
    made = quantize(x, bits, per, symmetric=symmetric, scale_dtype=scale_dtype)
    step = made.scale.float()
    step = step.repeat_interleave(per, 1)[:, :21] if isinstance(per, int) else step
    assert ((made.dequantize() - x).abs() <= step * 0.5001).all()


@given(st.integers(2, 8), st.booleans(), st.integers(0, 50))
def test_zero_stays_zero_and_minus_x_gets_minus_the_codes(bits, symmetric, seed):
    x = numbers(4, 12, seed=seed) + 3 * (seed % 3)
    x[:, 5] = 0
    assert (quantize(x, bits, 4, symmetric=symmetric).dequantize()[:, 5] == 0).all()
    assert torch.equal(quantize(-x, bits, 4).codes, -quantize(x, bits, 4).codes)


@pytest.mark.parametrize("symmetric", [True, False])
def test_groups_of_zeros_stay_zeros(symmetric):
    x = torch.zeros(2, 8)
    x[0, 4:] = 1
    made = quantize(x, 4, 4, symmetric=symmetric)
    assert torch.equal(made.dequantize()[:, :4], torch.zeros(2, 4))
    assert made.scale[:, 0].tolist() == [1, 1] and made.codes[:, :4].unique().tolist() == [0]
    assert torch.isfinite(quantize(x * 1e-44, 8, "tensor", symmetric=symmetric).dequantize()).all()


def test_bytes_count_scales_and_zero_points():
    x = numbers(6, 70)
    assert quantize(x, 8, "tensor").nbytes == 6 * 70 + 4
    assert quantize(x, 4, 32).nbytes == 6 * 35 + 6 * 3 * 4
    assert quantize(x, 4, 32, scale_dtype=torch.bfloat16).nbytes == 6 * 35 + 6 * 3 * 2
    assert quantize(x, 6, "channel", symmetric=False).nbytes == 6 * 53 + 6 * (4 + 1)  # 70 * 6 bits = 52.5 bytes


def test_an_outlier_costs_those_who_share_its_scale():
    x = numbers(64, 256)
    x[3, 7] = 200.0  # fifty times the largest of the others
    errors = {per: (quantize(x, 8, per).dequantize() - x).norm() / (x.norm() ** 2 - 200**2).sqrt()
              for per in ("tensor", "channel", 32)}
    assert 0.3 < errors["tensor"] < 0.6  # a step is 1.6 wide: most numbers become 0
    assert 0.03 < errors["channel"] < 0.08 and errors[32] < 0.025
    others = [row for row in range(64) if row != 3]
    assert relative_error(x[others], quantize(x, 8).dequantize()[others]) < 0.008


@pytest.mark.parametrize("name", ["gpt-mini", "deepseek-mini"])
def test_a_bit_less_doubles_the_error_of_real_weights(name):
    weight = load_pretrained(name)[0].blocks[1].attention.o_proj.weight.detach()
    errors = [relative_error(weight, quantize(weight, bits, 32).dequantize()) for bits in range(8, 3, -1)]
    for fine, coarse in zip(errors, errors[1:], strict=False):
        assert 1.9 < coarse / fine < 2.4
    assert 0.004 < errors[0] < 0.007 and 0.07 < errors[-1] < 0.12


@pytest.mark.parametrize(("arguments", "sentence"), [
    ((torch.ones(2), 1), "bits must be a whole number from 2 to 8, not 1"),
    ((torch.ones(2), 9), "not 9"), ((torch.ones(2), 4.0), "not 4.0"), ((torch.ones(2), True), "not True"),
    ((torch.ones(2), 8, 0), "per must be tensor, channel, or the size of a group, at least 1, not 0"),
    ((torch.ones(2), 8, "row"), "not 'row'"),
    ((torch.ones(2).int(),), "only floating-point numbers can be quantised, not torch.int32"),
    ((torch.ones(2, 0),), "nothing to quantise in a tensor of shape"),
    ((torch.tensor([1.0, float("nan")]),), "holds NaN or inf"),
    ((torch.tensor([1.0, float("inf")]),), "holds NaN or inf")])
def test_what_cannot_be_gets_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        quantize(*arguments)


def test_scales_in_float16_are_refused():
    with pytest.raises(ValueError, match="float32 or bfloat16, not torch.float16"):
        quantize(torch.ones(2), scale_dtype=torch.float16)
