"""When a second row is free: against decode_bound, the model's own tensors, sums by hand, and what V3 published."""

from dataclasses import replace

import pytest

from llm_core import LanguageModel, accounting, presets
from llm_core.accounting import HARDWARE, speculative_bound
from tests.tiny_configs import CONFIGS

H100, V3, LLAMA = HARDWARE["h100"], presets.get("deepseek-v3"), presets.get("llama-3.1-70b")


@pytest.mark.parametrize("name", ["gpt2", "llama-3.1-70b", "mixtral-8x7b", "deepseek-v2-lite", "deepseek-v3"])
@pytest.mark.parametrize("batch, context", [(1, 1), (7, 300), (512, 1000)])
def test_the_plain_step_is_decode_bounds(name, batch, context):
    config = presets.get(name)
    whole = accounting.decode_bound(config, H100, batch, context)
    got = speculative_bound(config, H100, 1, batch, context)
    assert got.plain_seconds == pytest.approx(batch / whole.tokens_per_second, rel=1e-12)


def test_two_rows_share_weights_and_cache():
    """Llama by hand: the same weights, a cache longer by one token, and twice the arithmetic."""
    one = accounting.decode_bound(LLAMA, H100, 8, 1000)
    got = speculative_bound(LLAMA, H100, 1, 8, 1000)
    a_token = accounting.cache_bytes_per_token(LLAMA)
    assert got.checking_seconds == pytest.approx((one.weight_bytes + 8 * 1001 * a_token) / 3.35e12, rel=1e-12)
    assert got.limited_by == "memory"
    slow = replace(H100, flops_per_second=1e12)  # arithmetic counts now
    flops = 8 * (accounting.forward_flops(LLAMA, 1, 1000).total + accounting.forward_flops(LLAMA, 1, 1001).total)
    got = speculative_bound(LLAMA, slow, 1, 8, 1000)
    assert got.checking_seconds == pytest.approx(flops / 1e12, rel=1e-12) and got.limited_by == "compute"


def test_a_single_texts_second_row_reads_experts_of_its_own():
    """V3, one text: 8 of 256 experts in each of 58 layers; a second row reads 8 - 8 * 8 / 256 more, as expected."""
    expert = 3 * 7168 * 2048
    more = 58 * (8 - 8 * 8 / 256) * expert * 2 + accounting.cache_bytes_per_token(V3)
    got = speculative_bound(V3, H100)
    assert (got.checking_seconds - got.plain_seconds) * 3.35e12 == pytest.approx(more, rel=1e-9)


@pytest.mark.parametrize("name", ["GQA", "DeepSeek-V3"])
def test_the_draft_reads_the_modules_own_tensors(name):
    """One text: every matrix of a real module once, of its experts the chosen ones, and the head."""
    config = CONFIGS[name].replace(n_mtp_modules=1)
    model, moe = LanguageModel(config), config.moe
    share = moe.n_experts_per_token / moe.n_routed_experts if moe else 1
    numbers = sum(p.numel() * (share if ".experts." in name else 1) for name, p in model.mtp.named_parameters())
    numbers += config.vocab_size * config.d_model
    norms = 2 * config.d_model  # enorm and hnorm, which a bound of matrices leaves out
    got = speculative_bound(config, H100).guessing_seconds * H100.bytes_per_second
    assert got == pytest.approx(2 * (numbers - norms) + accounting.cache_bytes_per_token(config.replace(n_layers=1)),
                                rel=1e-9)


def test_v3_gains_little_from_few_texts_and_what_was_published_from_many():
    low, high = accounting.V3_ACCEPTED
    gains = {n: speculative_bound(V3, H100, 1, n, 4096).speed_up(low) for n in (1, 4, 32, 128, 512)}
    assert list(gains.values()) == pytest.approx([1.17, 1.06, 1.36, 1.79, 1.82], abs=0.015)
    assert gains[128] < accounting.V3_SPEED_UP + 0.01 < speculative_bound(V3, H100, 1, 512, 4096).speed_up(high)
    dense = {n: speculative_bound(LLAMA, H100, 1, n, 1024).speed_up(low) for n in (1, 4, 32, 128, 512)}
    assert all(dense[n] > 1.79 for n in (1, 4, 32, 128)) and dense[512] < 1.2


def test_speed_up_by_hand():
    got = speculative_bound(V3, H100, 3, 128, 4096)
    cost = (got.checking_seconds + got.guessing_seconds) / got.plain_seconds
    assert 1 + got.c == pytest.approx(cost) and got.c == pytest.approx(got.rows_cost + got.guessing_cost)
    assert got.speed_up(0.5) == pytest.approx((1 + 0.5 + 0.25 + 0.125) / cost)
    assert got.speed_up(0) == pytest.approx(1 / cost) and got.speed_up(1) == pytest.approx(4 / cost)
    one = speculative_bound(V3, H100, 1, 128, 4096)
    assert got.guessing_seconds == pytest.approx(3 * one.guessing_seconds)


@pytest.mark.parametrize("p", [-0.1, 1.01, float("nan"), "much"])
def test_a_share_is_between_0_and_1(p):
    with pytest.raises(ValueError, match="p "):
        speculative_bound(V3, H100).speed_up(p)


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_sizes_are_whole_and_at_least_1(sizes):
    with pytest.raises(ValueError, match="must be a whole number of at least 1, not 0"):
        speculative_bound(V3, H100, *sizes)
