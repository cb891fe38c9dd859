"""The ladder's ends are the real models, each step swaps one thing, and every figure is the config's own."""

from dataclasses import fields
from itertools import combinations

import pytest

from llm_core import accounting, ladder, plots, presets

NAMES = [step.name for step in ladder.STEPS]


def test_its_ends_are_the_real_models():
    assert ladder.climb("gpt2")[0].config == presets.get("gpt2")
    top = ladder.climb("deepseek-v3")[-1]
    assert top.config == presets.get("deepseek-v3")
    assert (top.total, top.active, top.mtp, top.cache) == (671026404352, 37552282624, 11610067968, 70272)


def test_the_start_at_v3s_width_is_gpt2s_architecture_in_plain_arithmetic():
    """GPT-2's layer has 12 d^2 weights and 13 d biases and norms; then tables, and the last norm."""
    start, d, layers = ladder.climb("deepseek-v3")[0], 7168, 61
    assert start.total == layers * (12 * d * d + 13 * d) + (50257 + 1024) * d + 2 * d
    assert start.cache == 2 * d * layers * 2


@pytest.mark.parametrize("size", ladder.sizes())
def test_each_step_swaps_one_part_and_adds_up(size):
    rungs = ladder.climb(size)
    assert [rung.step.name for rung in rungs[1:]] == NAMES
    allowed = {"rmsnorm": {"norm", "norm_eps"}, "no-biases": {"attention", "feed_forward"},
               "yarn": {"rope", "max_seq_len"}}
    for below, rung in zip(rungs, rungs[1:]):
        changed = {f.name for f in fields(rung.config)
                   if getattr(rung.config, f.name) != getattr(below.config, f.name)}
        assert changed and (len(changed) == 1 or changed == allowed[rung.step.name])
        n = accounting.count_parameters(rung.config)
        assert (rung.total, rung.active, rung.mtp) == (n.total, n.active, n.mtp)
        assert rung.total == below.total + rung.added_total and rung.cache == below.cache + rung.added_cache
        assert rung.active == below.active + rung.added_active and rung.mtp == below.mtp + rung.added_mtp
    assert {rung.config.d_model for rung in rungs} == {rungs[0].config.d_model}


@pytest.mark.parametrize("size", ladder.sizes())
def test_the_steps_move_what_their_sentences_say(size):
    rung = {r.step.name: r for r in ladder.climb(size)[1:]}
    d, layers = rung["rope"].config.d_model, rung["rope"].config.n_layers
    assert rung["rope"].added_total == -1024 * d
    assert rung["rmsnorm"].added_total == -(2 * layers + 1) * d  # a bias of each norm
    assert rung["vocabulary"].added_total == (129280 - 50257) * d
    assert rung["own-head"].added_total == 129280 * d
    assert [name for name, r in rung.items() if r.added_cache] == ["gqa", "mla"]
    assert all(rung[name].added_cache < 0 for name in ("gqa", "mla"))
    for name in ("large-experts",):
        assert rung[name].added_total > rung[name].added_active > 0
    assert rung["fine-experts"].added_active < 0
    for name in ("sigmoid", "mtp", "yarn"):
        assert rung[name].added_total == rung[name].added_active == 0
    assert [name for name, r in rung.items() if r.added_mtp] == ["mtp"]


@pytest.mark.parametrize("size", ladder.sizes())
def test_any_steps_can_be_left_out(size):
    for some in [*combinations(NAMES, 1), *combinations(NAMES, 2), NAMES]:
        rungs = ladder.climb(size, some)
        assert [rung.step.name for rung in rungs[1:]] == [name for name in NAMES if name not in some]
    assert ladder.climb(size, NAMES)[-1].config == ladder.climb(size)[0].config
    alone = ladder.climb(size, ["mla"])
    assert [r for r in alone[1:] if r.step.name == "query-latent"][0].config.attention.kind == "GQA"


def test_what_is_not_there_is_said():
    with pytest.raises(ValueError, match="size must be one of gpt2, deepseek-v3, not 'llama'"):
        ladder.climb("llama")
    with pytest.raises(ValueError, match="a step to leave out must be one of rope, .*, not 'moe'"):
        ladder.climb("gpt2", ["moe"])


def test_waterfalls_begin_where_the_last_bar_ended():
    rungs = ladder.climb("deepseek-v3")
    bar = plots.parameter_waterfall(rungs, 8).data[0]
    assert list(bar.x)[1:-1] == [r.added_mtp or r.added_total for r in rungs[1:]]
    assert list(bar.base)[1:-1] == [r.total if r.added_mtp else b.total + (b.mtp if r.added_mtp else 0)
                                    for b, r in zip(rungs, rungs[1:])]
    assert bar.x[0] == rungs[0].total and bar.x[-1] == rungs[8].total
    cache = plots.cache_waterfall(rungs, 14).data[0]
    assert list(cache.x)[1:-1] == [r.added_cache for r in rungs[1:]]
    assert cache.customdata[-1] == "70.3 kB" and cache.customdata[7] == "−1.50 MB" and cache.customdata[9] == "0"
