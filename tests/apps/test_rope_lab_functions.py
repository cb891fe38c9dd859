"""The RoPE lab without a browser: what it says of a change, each model's own values, what programs can ask."""

import pytest

from apps import rope_lab, rope_state
from llm_core import presets, turning
from llm_core.config import YarnConfig


def test_a_change_is_said_with_its_reason():
    values = rope_state.state(None)[0]

    def said(**changes):
        before = rope_lab.draw(None, *values.values())[-1]
        return rope_lab.draw(before, *{**values, **changes}.values())[2]

    assert "position went from 40 to 41: its pairs turn on, each at its own speed: pair 0 turned by 57.3°" in said(m=41)
    assert "The base went from 10,000 to 1,000,000: a larger base slows" in said(theta=1e6)
    assert "1,000,000^(−2i / 64)" in said(theta=1e6)
    assert "The move of both went from 0 to 5: all arrows turn" in said(shift=5)
    assert "scaling went from yarn to llama3: fast pairs" in said(scaling="llama3", fast=4)
    assert "went from" not in said(preset="llama-3.1-8b") and "went from" not in said()


def test_every_models_own_values_make_that_model():
    for name in rope_state.MODELS:
        own = rope_state.own_values(name)
        assert rope_state.config_of({"preset": name, **own}) == presets.get(name), name
        for key in own.keys() & rope_state.LIMITS.keys():
            assert rope_state.LIMITS[key][0] <= own[key] <= rope_state.LIMITS[key][1], (name, key)
    with pytest.raises(ValueError, match="gpt2 has no rotary positions; models that have: llama-2-7b"):
        rope_state.own_values("gpt2")


def test_what_programs_can_ask():
    found = rope_lab.rope_pairs()
    assert found["zones"] == {"kept": [0, 10], "in between": [11, 22], "interpolated": [23, 31]}
    assert found["softmax_scale"] == pytest.approx(0.135234, abs=1e-6) and len(found["pairs"]) == 32
    other = rope_lab.rope_pairs("llama-2-7b", base=20_000.0, rope_dim=64, scaling="yarn", factor=2)
    turned = turning.pairs(presets.get("llama-2-7b").rope.replace(theta=20_000.0, scaling=YarnConfig(2, 4096)), 64)
    assert [pair["radians_a_token"] for pair in other["pairs"]] == [pair.speed for pair in turned]
    yarn = rope_lab.rope_pairs("llama-3.1-8b", scaling="yarn")["zones"]  # with YaRN's own turns, 32 and 1
    rope = presets.get("llama-3.1-8b").rope.replace(scaling=YarnConfig(8.0, 8192))
    assert yarn == {zone: list(ends) for zone, ends in turning.zones(turning.pairs(rope, 128)).items()}
    one, same = (rope_lab.rope_score(m, m - 40, vectors=turning.APART) for m in (60, 1060))
    assert one["score"] == pytest.approx(same["score"]) == pytest.approx(sum(one["by_pair"])) and one["distance"] == 40
    for call, sentence in ((lambda: rope_lab.rope_pairs("gpt2"), "preset must be one of llama-2-7b"),
                           (lambda: rope_lab.rope_pairs(rope_dim=7), "must be even, not 7"),
                           (lambda: rope_lab.rope_pairs(base=-1), "theta must be a finite number above 0"),
                           (lambda: rope_lab.rope_score(-1, 0), "m must be a whole number of at least 0"),
                           (lambda: rope_lab.rope_score(0, 1 << 30), "n goes up to 1,048,575"),
                           (lambda: rope_lab.rope_score(vectors="x"), "vectors must be one of")):
        with pytest.raises(ValueError, match=sentence):
            call()
