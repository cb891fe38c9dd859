"""The model that copies: its task has one right answer, its file does what its card says, and training makes it."""

from dataclasses import replace

import pytest
import torch

from llm_core import LanguageModel, accounting, load_pretrained, pretrained
from llm_core.config import Llama3RopeConfig, ModelConfig, RopeConfig, YarnConfig
from llm_core.training import copying

FOLDER = pretrained.FOLDER / "copying"


@pytest.fixture(scope="module")
def model():
    return load_pretrained(FOLDER)[0]


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(("length", "pairs"), [(64, 16), (96, 24), (1024, 24), (40, 1)])
def test_a_text_tells_each_pair_once_and_asks_it_once(length, pairs, listed):
    ids, targets, back = copying.texts(5, length, pairs, seed=1, listed=listed)
    assert ids.shape == targets.shape == back.shape == (5, length)
    for row, target, far in zip(ids, targets, back):
        asked = (target >= 0).nonzero().flatten()
        assert asked.tolist() == list(range(length - 2 * pairs, length, 2))
        assert len(set(row[asked].tolist())) == pairs and (row[asked] < copying.KEYS).all()
        told = asked - far[asked]
        assert (row[told] == row[asked]).all() and (row[told + 1] == target[asked]).all()
        assert (row[asked + 1] == target[asked]).all() and (told + 1 < length - 2 * pairs).all()
        assert ((row >= copying.KEYS) & (row < 2 * copying.KEYS)).sum() == (row < copying.KEYS).sum() == 2 * pairs
        told = told.sort().values
        assert (told.diff() >= 2).all() and (not listed or (told.diff() == 2).all())


def test_texts_are_the_same_for_a_seed_and_others_for_another():
    one, again, other = (copying.texts(2, 128, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize(("length", "pairs"), [(95, 24), (100, 25), (100, 0)])
def test_pairs_that_do_not_fit_are_refused(length, pairs):
    with pytest.raises(ValueError, match="pairs, told and asked"):
        copying.texts(1, length, pairs)


def test_answers_counts_only_what_is_asked():
    ids, targets, _ = copying.texts(2, 64, 4)
    perfect = {tuple(row.tolist()): target for row, target in zip(ids, targets)}

    def model(ids):
        wanted = perfect[tuple(ids[0].tolist())].clamp(min=0)
        wanted[-2] = 63  # the last question of each text is answered wrongly
        return torch.nn.functional.one_hot(wanted, 64).float()[None]

    assert copying.answers(model, ids, targets).tolist() == [True, True, True, False] * 2


def test_the_file_is_what_its_card_says(model):
    card = pretrained.card(FOLDER)
    assert model.config == copying.CONFIG == ModelConfig.from_dict(card["config"])
    assert card["parameters"] == accounting.count_parameters(model.config).total == sum(
        p.numel() for p in model.parameters())
    assert (FOLDER / "model.safetensors").stat().st_size < 400_000
    assert card["curve"][-1]["step"] == card["steps"] and card["curve"][-1]["loss"] < 0.05
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert page == copying.page(card)


@pytest.mark.parametrize("listed", [False, True])
def test_it_answers_at_the_length_that_it_was_trained_for(model, listed):
    for length in (128, copying.CONTEXT):
        ids, targets, _ = copying.texts(4, length, seed=2, listed=listed)
        assert copying.answers(lambda ids: model(ids).logits, ids, targets).float().mean() > 0.97


def stretched(model, rope):
    longer = LanguageModel(model.config.replace(rope=rope, max_seq_len=4 * copying.CONTEXT)).eval()
    longer.load_state_dict(model.state_dict())
    return lambda ids: longer(ids).logits


def test_beyond_it_the_lessons_findings_hold(model):
    base = copying.CONFIG.rope.theta
    ways = {"plain": RopeConfig(base), "NTK": RopeConfig(base * 4 ** (32 / 30)),
            "YaRN": RopeConfig(base, scaling=YarnConfig(4.0, copying.CONTEXT)),
            "interpolated": RopeConfig(base, scaling=Llama3RopeConfig(4.0, copying.CONTEXT, 1e9, 2e9))}
    right = {}
    for listed in (False, True):
        ids, targets, _ = copying.texts(4, 4 * copying.CONTEXT, seed=11, listed=listed)
        for name, rope in ways.items():
            right[name, listed] = copying.answers(stretched(model, rope), ids, targets).float().mean().item()
    assert right["plain", False] < 0.6 and right["interpolated", True] < 0.5
    assert min(right["interpolated", False], right["NTK", False], right["NTK", True]) > 0.8
    assert min(right["YaRN", False], right["YaRN", True]) > 0.9


def test_training_learns_writes_and_loads(tmp_path):
    """A few steps on short texts: the loss falls, later stages follow, and the folder is a model that loads."""
    said = []
    short = {"seed": 3, "stages": ((24, 2, 4), (32, 2, 4)), "last": replace(copying.RECIPE, steps=20), "most": 40}
    model, curve, seconds = copying.train(**short, report=said.append)
    assert [(row["step"], row["length"]) for row in curve] == [(20, 24), (40, 24), (60, 32)]
    assert curve[-1]["loss"] < curve[0]["loss"] and len(said) == 3 and seconds > 0
    again, same, _ = copying.train(**short, report=said.append)
    assert same == curve and all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))
    copying.write(tmp_path, model, curve, seconds, 3)
    loaded, none = load_pretrained(tmp_path)
    assert none is None and loaded.config == copying.CONFIG
    assert torch.equal(loaded.final_norm.weight, model.final_norm.weight.bfloat16().float())
    card = pretrained.card(tmp_path)
    assert card["recipe"]["seed"] == 3 and card["steps"] == 60 and card["right"]["scattered"] < 0.5
