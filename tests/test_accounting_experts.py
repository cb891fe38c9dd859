"""Mixtures of experts counted, against sets that are really listed, and against figures from the papers."""

from itertools import combinations as sets
from math import comb, log10

import pytest

from llm_core import accounting, presets
from llm_core.accounting import experts
from llm_core.config import MoEConfig
from llm_core.model import LanguageModel


@pytest.mark.parametrize("E, K, G, M", [(8, 3, 4, 2), (8, 2, 1, 1), (9, 4, 3, 2), (12, 4, 4, 3), (8, 3, 4, 4),
                                        (6, 2, 3, 1), (6, 1, 6, 2)])
def test_ways_and_groups_are_those_of_sets_that_are_listed(E, K, G, M):
    moe = MoEConfig(E, K, 8, n_expert_groups=G, n_limited_groups=M)
    touched = [len({e // (E // G) for e in chosen}) for chosen in sets(range(E), K)]
    assert experts.combinations(moe) == sum(n <= M for n in touched)
    assert experts.combinations(moe, limited=False) == len(touched)
    assert experts.groups_by_chance(moe) == pytest.approx(sum(touched) / len(touched))


def test_the_paper_s_own_example():
    """DeepSeekMoE, arXiv:2401.06066, section 3.1: 16 experts, 2 chosen, cut in 4."""
    moe = MoEConfig(16, 2, 32)
    assert experts.combinations(moe) == 120
    assert experts.combinations(experts.finer(moe, 4)) == 4_426_165_368


@pytest.mark.parametrize("name", ["mixtral-8x7b", "deepseek-v2", "deepseek-v3", "deepseek-mini"])
def test_finer_experts_hold_and_use_the_same_but_for_the_router(name):
    config = presets.get(name)
    fine = config.replace(moe=experts.finer(config.moe, 4))
    before, after = accounting.count_parameters(config), accounting.count_parameters(fine)
    rows = 3 * config.moe.n_routed_experts * config.d_model * config.n_moe_layers  # 3 E more rows in each router
    assert after.total - before.total == after.active - before.active == rows
    assert after.by_part["routed experts"] == before.by_part["routed experts"]
    assert after.by_part.get("shared experts") == before.by_part.get("shared experts")


def test_what_cannot_be_cut_is_said():
    with pytest.raises(ValueError, match="pieces 3 does not divide d_expert 2048; nearest: 2, 4"):
        experts.finer(presets.get("deepseek-v3").moe, 3)
    with pytest.raises(ValueError, match="no layer with experts"):
        experts.expert_sizes(presets.get("gpt2"))


def test_sizes_of_the_mini_are_those_of_its_tensors():
    config = presets.get("deepseek-mini")
    n, model = experts.expert_sizes(config), LanguageModel(config)
    layer = model.blocks[-1].feed_forward
    held = sum(p.numel() for p in layer.parameters())
    one = sum(p[0].numel() for p in layer.experts.parameters())
    assert (n.held, n.one, n.layers) == (held, one, 3)
    assert n.used == held - (8 - 3) * one
    assert n.parameters.total - n.parameters.active == 3 * (8 - 3) * one


def test_sizes_of_deepseek_v3():
    n = experts.expert_sizes(presets.get("deepseek-v3"))
    assert (n.one, n.layers) == (3 * 7168 * 2048, 58)
    assert (n.ways, n.ways_free) == (71_614_201_382_880, comb(256, 8))  # counted another way in lesson 06.3
    assert round(n.groups, 2) == 5.29 and n.parameters.active / n.parameters.total == pytest.approx(0.05596, abs=1e-5)
    assert 9 < n.flops_all / n.flops < 11
    text = "\n".join(experts.expert_formula(presets.get("deepseek-v3")))
    for figure in ("44,040,192", "11,320,164,352", "398,196,736", "37,552,282,624", "71,614,201,382,880"):
        assert figure in text


def test_powers_by_pieces():
    moe = presets.get("deepseek-v2").moe
    found = experts.power_by_pieces(moe)
    assert list(found) == [1, 2, 4, 8, 16]
    assert found[1] == round(log10(experts.combinations(moe)), 2)
    assert list(experts.power_by_pieces(moe.replace(d_expert=12))) == [1, 2, 4]


@pytest.mark.parametrize("n, text", [(28, "28"), (409_663_695_276_000, "409,663,695,276,000"), (10**15, "1.00 × 10^15"),
                                     (93_343_021_201_262_177_400, "9.33 × 10^19"), (10**400, "1.00 × 10^400"),
                                     (9_999 * 10**396, "1.00 × 10^400"), (314 * 10**3998, "3.14 × 10^4000")])
def test_numbers_of_any_size_in_words(n, text):
    assert experts.in_words(n) == text
