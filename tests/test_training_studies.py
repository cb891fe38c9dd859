"""The studies: arms that differ in one thing, files that hold what their configs say, a run that comes out the same."""

import dataclasses
import json
import statistics

import pytest
import torch

from llm_core import accounting, data, presets
from llm_core.config import ModelConfig
from llm_core.training import studies
from llm_core.training.recipe import Recipe

RECORDED = [path.stem for path in sorted(studies.RECORDED.glob("*.json"))]


def differences(a: dict, b: dict, path: str = "") -> set[str]:
    """Names of the fields in which two configs differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return set().union(*(differences(a.get(k), b.get(k), f"{path}.{k}") for k in a.keys() | b.keys()))
    return set() if a == b else {path.strip(".")}


@pytest.mark.parametrize(("study", "fields"), [
    ("attention", {"attention.n_kv_heads"}), ("latent", {"attention.kv_lora_rank"}), ("balancing", set()),
    ("precision", set())])
def test_arms_differ_in_one_thing(study, fields):
    arms = list(studies.STUDIES[study].values())
    for arm in arms[1:]:
        assert differences(arms[0].config.to_dict(), arm.config.to_dict()) == fields
        changed = {key for key in {**arm.changes, **arms[0].changes}
                   if arm.changes.get(key) != arms[0].changes.get(key)}
        assert changed == ({"balancing": {"bias_update_speed"}, "precision": {"precision"}}.get(study, set()))
    recipes = [dataclasses.asdict(studies.recipe_of(study, name, 0)) for name in studies.STUDIES[study]]
    keys = {key for key in recipes[0] if any(recipe[key] != recipes[0][key] for recipe in recipes)}
    assert keys - {"preset", "bias_update_speed", "precision"} == set()


def test_the_two_architectures_are_about_as_large_for_a_token():
    gpt, deepseek = (accounting.count_parameters(arm.config) for arm in studies.STUDIES["architecture"].values())
    assert gpt.active / deepseek.active == pytest.approx(1, abs=0.15)


def test_every_study_says_what_it_asks():
    assert studies.ABOUT.keys() == studies.STUDIES.keys()
    assert all(len(arms) > 1 for arms in studies.STUDIES.values())


@pytest.mark.parametrize("study", RECORDED)
def test_a_recorded_study_is_that_of_the_code(study):
    recorded = studies.load(study)
    assert recorded["arms"].keys() == studies.STUDIES[study].keys()
    assert recorded["command"] == f"python -m llm_core.training.studies {study}"
    for name, about in recorded["arms"].items():
        config = studies.STUDIES[study][name].config
        assert ModelConfig.from_dict(about["config"]) == config
        counts = accounting.count_parameters(config)
        assert (about["parameters"], about["active_parameters"]) == (counts.total, counts.active)
        assert about["cache_bytes_per_token"] == accounting.cache_bytes_per_token(config)
        recipe = dataclasses.asdict(studies.recipe_of(study, name, 0))
        assert about["recipe"] == json.loads(json.dumps(recipe))
        assert [run["seed"] for run in about["runs"]] == list(studies.SEEDS)
        bits = [run["bits_per_byte"] for run in about["runs"]]
        assert about["mean"] == pytest.approx(statistics.fmean(bits), abs=1e-4)
        assert about["spread"] == pytest.approx(max(bits) - min(bits), abs=1e-4)
        for run in about["runs"]:
            assert [row["step"] for row in run["curve"]][-1] == recipe["steps"]
            assert min(row["bits_per_byte"] for row in run["curve"]) == run["bits_per_byte"]
            assert ("max_violation" in run) == (config.moe is not None)
    assert studies.table(recorded).count("\n") == 3 + len(recorded["arms"])


def test_a_study_is_done_and_done_again_exactly(tmp_path, monkeypatch):
    small = studies.STUDIES["balancing"]["with the bias"].config.replace(d_model=32, n_layers=2)
    monkeypatch.setitem(studies.STUDIES, "balancing", {
        "with the bias": studies.Arm(small), "without": studies.Arm(small, {"bias_update_speed": 0.0})})
    monkeypatch.setattr(studies, "recipe_of", lambda study, arm, seed: Recipe(
        arm, steps=100, batch_size=4, context=16, learning_rate=1e-2, warmup_steps=2, evaluate_every=50, seed=seed,
        **studies.STUDIES[study][arm].changes))
    text = (torch.arange(5000) * 3) % 50
    monkeypatch.setattr(studies.data, "tokenized", lambda corpus, course: data.TokenText("c", text, text[:200], 200))
    monkeypatch.setattr(studies, "STEPS", 100)
    first = studies.record("balancing", tmp_path / "a", seeds=(0, 1))
    for arm in first["arms"].values():
        assert [run["seed"] for run in arm["runs"]] == [0, 1] and arm["runs"][0] != arm["runs"][1]
        assert [step for step, _ in arm["runs"][0]["max_violation"]] == [50, 100]
    with_it, without = (arm["runs"][0]["max_violation"] for arm in first["arms"].values())
    assert with_it != without
    again = studies.record("balancing", tmp_path / "b", seeds=(0, 1))
    for name, arm in first["arms"].items():
        for one, other in zip(arm["runs"], again["arms"][name]["runs"]):
            assert {**one, "minutes": 0} == {**other, "minutes": 0}


def test_the_command_lists_and_says_what_is_missing(capsys, monkeypatch, tmp_path):
    assert studies.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in studies.STUDIES)
    monkeypatch.setattr(studies, "RECORDED", tmp_path)
    with pytest.raises(FileNotFoundError, match="the study latent is not recorded; do it: python -m llm_core.training"):
        studies.load("latent")
    with pytest.raises(ValueError, match="no study is called 'x'; there are attention, latent"):
        studies.load("x")
    assert presets.COURSE_VOCAB == studies.STUDIES["latent"]["d_c = 8"].config.vocab_size
