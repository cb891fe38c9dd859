"""RoPE pair by pair, against llm_core.positions' real rotation and against closed forms."""

import math

import pytest
import torch

from llm_core import presets, turning
from llm_core.config import Llama3RopeConfig, RopeConfig, YarnConfig
from llm_core.positions import rope_table, rotate, softmax_scale

V3, LLAMA = presets.get("deepseek-v3"), presets.get("llama-3.1-8b")


def test_pairs_are_the_closed_form():
    turned = turning.pairs(RopeConfig(10_000.0), 64)
    assert [pair.index for pair in turned] == list(range(32))
    for pair in turned:
        assert pair.speed == pair.plain == pytest.approx(10_000 ** (-2 * pair.index / 64), rel=1e-6)
        assert pair.wavelength == pytest.approx(2 * math.pi * 10_000 ** (pair.index / 32), rel=1e-6)
        assert (pair.share, pair.zone) == (1, "kept")
    assert turned[0].angle(3) == pytest.approx(3) and turned[0].angle(7) == pytest.approx(7 - 2 * math.pi)


def test_zones_of_deepseek_v3_by_hand():
    """arXiv:2309.00071, section 3.2: i(beta) = d ln(L / 2 pi beta) / 2 ln theta, rounded outward."""
    def index(beta):
        return 64 * math.log(4096 / (2 * math.pi * beta)) / (2 * math.log(10_000))

    kept, slowed = math.floor(index(32)), math.ceil(index(1))
    turned = turning.pairs(V3.rope, 64)
    assert turning.zones(turned) == {"kept": (0, kept), "in between": (kept + 1, slowed - 1),
                                     "interpolated": (slowed, 31)} == {"kept": (0, 10), "in between": (11, 22),
                                                                       "interpolated": (23, 31)}
    assert turned[15].share == pytest.approx(1 - 5 / 13 * (1 - 1 / 40), abs=1e-6)
    assert turned[31].wavelength == pytest.approx(40 * turned[31].plain_wavelength, rel=1e-6)


def test_zones_of_llama_follow_the_turns():
    for pair in turning.pairs(LLAMA.rope, 128):
        turns = 8192 / pair.plain_wavelength
        assert pair.zone == ("kept" if turns >= 4 else "interpolated" if turns <= 1 else "in between")
    assert turning.zones(turning.pairs(presets.get("kimi-k2").rope, 64)).keys() == {"kept", "interpolated"}  # no ramp
    assert turning.zones(turning.pairs(RopeConfig(scaling=YarnConfig(1.0, 64)), 8)) == {"kept": (0, 3)}


@pytest.mark.parametrize("name", ["deepseek-v3", "llama-3.1-8b", "kimi-k2", "qwen2.5-72b"])
def test_scaled_rope_makes_a_models_own(name):
    rope = presets.get(name).rope
    s = rope.scaling
    if isinstance(s, YarnConfig):
        given = ("yarn", s.factor, s.original_max_seq_len, s.beta_fast, s.beta_slow, s.mscale)
    elif isinstance(s, Llama3RopeConfig):
        given = ("llama3", s.factor, s.original_max_seq_len, s.high_freq_factor, s.low_freq_factor)
    else:
        given = ("none",)
    assert turning.scaled_rope(rope.theta, rope.layout, *given) == rope


@pytest.mark.parametrize("rope", [V3.rope, LLAMA.rope], ids=["interleaved", "halves"])
@pytest.mark.parametrize("kind", turning.VECTORS)
def test_contributions_sum_to_the_score_of_really_turned_vectors(rope, kind):
    """Against rope_table and rotate, with each pair laid down where the layout wants it."""
    width, m, n = 16, 37, 12
    turned, (query, key) = turning.pairs(rope, width), turning.example_vectors(kind, width)
    adds = turning.contributions(query, key, turned, m, n)

    def laid(vector, at):
        a, b = vector.real.float(), vector.imag.float()
        x = torch.stack([a, b], -1).flatten() if rope.layout == "interleaved" else torch.cat([a, b])
        return rotate(x[None, None, None], *rope_table(rope, width, torch.tensor([at])), rope.layout).flatten()

    real = (laid(query, m) * laid(key, n)).sum().item()
    assert adds.sum().item() == pytest.approx(real, abs=1e-4)
    assert turning.score_in_32_bits(rope, query, key, m, n) == pytest.approx(real, abs=1e-6)
    scores, envelope = turning.scores_by_distance(query, key, turned, [m - n])
    assert scores[0] == pytest.approx(adds.sum().item(), abs=1e-9) and abs(scores[0]) <= envelope[0] + 1e-9


def test_only_the_distance_counts():
    turned, (query, key) = turning.pairs(V3.rope, 64), turning.example_vectors(turning.APART, 64)
    scores = [turning.contributions(query, key, turned, m, m - 60).sum().item() for m in (60, 61, 5000, 163_839)]
    assert max(scores) - min(scores) < 1e-8
    assert abs(turning.contributions(query, key, turned, 61, 0).sum().item() - scores[0]) > 0.1
    before, after = turning.scores_by_distance(query, key, turned, [-60, 60])[0]
    assert abs(before - after) > 0.1  # a score knows the direction


def test_the_envelope_is_the_largest_over_a_common_turn():
    turned, (query, key) = turning.pairs(RopeConfig(100.0), 8), turning.example_vectors(turning.APART, 8)
    angles = torch.linspace(0, 2 * math.pi, 20_001, dtype=torch.float64)
    at = torch.polar(torch.ones(4, dtype=torch.float64), torch.tensor([9 * pair.speed for pair in turned]).double())
    best = ((query * key.conj() * at).sum() * torch.polar(torch.ones_like(angles), angles)).real.max().item()
    assert turning.scores_by_distance(query, key, turned, [9])[1][0] == pytest.approx(best, rel=1e-6)


def test_vectors_are_what_they_are_called():
    query, key = turning.example_vectors(turning.ALIKE, 8)
    assert query.tolist() == key.tolist() == [1, 1, 1, 1]
    query, key = turning.example_vectors(turning.SAME, 8)
    assert torch.equal(query, key) and not torch.equal(query, turning.example_vectors(turning.APART, 8)[1])
    assert torch.equal(query, turning.example_vectors(turning.SAME, 8)[0])
    with pytest.raises(ValueError, match="vectors must be one of alike"):
        turning.example_vectors("twins", 8)


@pytest.mark.parametrize("layout", ["interleaved", "halves"])
def test_partners_are_those_that_turn_together(layout):
    """Turn one number alone: it may only reach itself and its partner."""
    cos, sin = rope_table(RopeConfig(100.0), 8, torch.tensor([3]))
    for a, b in turning.partners(8, layout):
        x = torch.zeros(1, 1, 1, 8)
        x[..., a] = 1
        assert rotate(x, cos, sin, layout).flatten().nonzero().flatten().tolist() == sorted((a, b))
    with pytest.raises(ValueError, match="layout must be one of"):
        turning.partners(8, "thirds")


def test_the_scale_is_written_with_its_numbers():
    assert turning.scale_formula(V3) == ("1 / √192 × m² = 0.072169 × 1.36889² = 0.135234, "
                                         "m = 0.1 × 1 × ln 40 + 1 = 1.36889")
    assert turning.scale_formula(LLAMA) == f"1 / √128 = {softmax_scale(LLAMA):.6f}"
    assert turning.scale_formula(presets.get("gpt2")) == "1 / √64 = 0.125000"


def test_spread_goes_from_one_to_the_end():
    found = turning.spread(163_839)
    assert found[0] == 1 and found[-1] == 163_839 and found == sorted(set(found)) and 100 < len(found) <= 160
    assert turning.spread(1) == [1]


@pytest.mark.parametrize(("call", "sentence"), [
    (lambda: turning.pairs(RopeConfig(), 63), "rope_dim must be even, .* not 63; nearest: 62, 64"),
    (lambda: turning.pairs(RopeConfig(), 10_000), "at most 4,096, not 10,000; nearest: 4,096"),
    (lambda: turning.pairs(RopeConfig(), 0), "rope_dim must be a whole number of at least 2, not 0"),
    (lambda: turning.pairs(turning.scaled_rope(1e30, scaling="yarn", factor=1e30, original=1), 64),
     "a base of 1e.30 makes pair 31 so slow"),
    (lambda: turning.pairs(RopeConfig(1e300), 64), "theta must be from 1e-30 to 1e30, not 1e.300"),
    (lambda: turning.scaled_rope(1e4, scaling="ntk"), "scaling must be one of none, yarn, llama3, not 'ntk'"),
    (lambda: turning.scaled_rope(1e4, scaling="yarn", fast=1, slow=32), "cannot begin at 1 turns .* end at 32"),
    (lambda: turning.scaled_rope(1.0), "theta must be above 1")])
def test_what_cannot_be_is_said(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
