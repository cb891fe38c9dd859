"""RoPE and its stretched forms, against complex numbers and closed forms."""

import math

import pytest
import torch

from llm_core import presets
from llm_core.config import Llama3RopeConfig, RopeConfig, YarnConfig
from llm_core.positions import inverse_frequencies, rope_table, rotate, softmax_scale


@pytest.mark.parametrize("layout", ["interleaved", "halves"])
def test_rotation_is_multiplication_of_complex_numbers(layout):
    torch.manual_seed(0)
    x, positions = torch.randn(2, 5, 3, 8), torch.arange(7, 12)
    got = rotate(x, *rope_table(RopeConfig(), 8, positions), layout)
    angles = positions[:, None].double() * 10000.0 ** (-torch.arange(0, 8, 2).double() / 8)
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]
    as_pairs = (
        x.double().unflatten(-1, (4, 2))
        if layout == "interleaved"
        else x.double().unflatten(-1, (2, 4)).transpose(-1, -2)
    )
    turned = torch.view_as_real(torch.view_as_complex(as_pairs.contiguous()) * turn)
    wanted = turned.flatten(-2) if layout == "interleaved" else turned.transpose(-1, -2).flatten(-2)
    torch.testing.assert_close(got.double(), wanted, atol=1e-5, rtol=1e-5)


def test_scores_depend_on_the_distance_alone():
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(m, n):
        def at(x, p):
            return rotate(x, *rope_table(RopeConfig(), 16, torch.tensor([p])), "interleaved")

        return (at(q, m) * at(k, n)).sum().item()

    assert score(3, 1) == pytest.approx(score(103, 101), abs=1e-4)
    assert abs(score(3, 1) - score(3, 2)) > 1e-3


def test_the_two_layouts_differ():
    x = torch.randn(1, 4, 1, 8, generator=torch.Generator().manual_seed(0))
    table = rope_table(RopeConfig(), 8, torch.arange(4))
    a, b = rotate(x, *table, "interleaved"), rotate(x, *table, "halves")
    assert torch.equal(a[:, 0], b[:, 0])  # position 0 turns nothing: a test with one token would see no difference
    assert (a[:, 1:] - b[:, 1:]).abs().max() > 0.1


def test_yarn_keeps_fast_pairs_and_divides_slow_ones():
    plain = inverse_frequencies(RopeConfig(), 64)
    yarn = inverse_frequencies(RopeConfig(scaling=YarnConfig(40.0, 4096)), 64)
    turns = 4096 * plain / (2 * math.pi)
    assert torch.equal(yarn[turns > 32], plain[turns > 32])
    assert torch.allclose(yarn[turns < 1], plain[turns < 1] / 40)
    assert (yarn[1:] <= yarn[:-1]).all() and (yarn <= plain).all() and (yarn >= plain / 40 - 1e-9).all()


def test_llama3_keeps_fast_pairs_and_divides_slow_ones():
    plain = inverse_frequencies(RopeConfig(500000.0), 128)
    scaled = inverse_frequencies(RopeConfig(500000.0, scaling=Llama3RopeConfig(8.0, 8192)), 128)
    turns = 8192 * plain / (2 * math.pi)
    assert torch.equal(scaled[turns > 4], plain[turns > 4])
    assert torch.allclose(scaled[turns < 1], plain[turns < 1] / 8)


def test_softmax_scale_of_deepseek():
    assert softmax_scale(presets.get("deepseek-v3")) == pytest.approx(0.135234, abs=1e-6)
    assert softmax_scale(presets.get("deepseek-v2")) == pytest.approx(192**-0.5 * 1.26080**2, abs=1e-6)
    assert softmax_scale(presets.get("gpt2")) == 0.125


def test_cos_and_sin_take_the_ratio_of_the_mscales():
    def at_zero(y):
        return rope_table(RopeConfig(scaling=y), 8, torch.tensor([0]))[0][0, 0].item()

    assert at_zero(YarnConfig(40.0, 4096)) == 1.0
    wanted = (0.1 * math.log(40) + 1) / (0.0707 * math.log(40) + 1)
    assert at_zero(YarnConfig(40.0, 4096, mscale=1.0, mscale_all_dim=0.707)) == pytest.approx(wanted, abs=1e-6)
    assert at_zero(YarnConfig(40.0, 4096, mscale_all_dim=0.0)) == pytest.approx(0.1 * math.log(40) + 1, abs=1e-6)


@pytest.mark.parametrize("scaling, slower", [
    (YarnConfig(10**20, 4096), 1e20), (YarnConfig(10**20, 10**25), 1), (Llama3RopeConfig(10**20, 4), 1e20),
    (Llama3RopeConfig(10**20, 10**25), 1)])
def test_stretched_beyond_64_bits(scaling, slower):
    """Whole numbers of any size may stand in a config. The slowest pair is stretched, or has turned often enough."""
    plain, stretched = (inverse_frequencies(RopeConfig(scaling=s), 8)[-1].item() for s in (None, scaling))
    assert stretched == pytest.approx(plain / slower, rel=1e-5)
