"""The training lab without its process: what may be set, the run itself, what is kept of it, and the line."""

import dataclasses
import itertools
import json
import zipfile

import pytest
import torch

from llm_core import LanguageModel, data, load_pretrained, tokenizer
from llm_core.hf_config import to_hf
from llm_core.training.evaluate import bits_per_byte
from llm_core.training.lab import texts
from llm_core.training.lab.learning import learn
from llm_core.training.lab.plan import LIMITS, MOST_FLOPS, MOST_PARAMETERS, Settings, plan
from llm_core.training.lab.record import Record, new_record, recorded
from llm_core.training.lab.turns import Turns

TINY = Settings(n_layers=1, d_model=32, n_heads=2, context=32, batch_size=4, learning_rate=1e-2)
RHYME = "".join(f"{n} green bottles hanging on the wall,\nand if one green bottle should fall,\n" for n in range(80))


def clock(step: float = 0.05):
    """A clock that goes on by the same at each look, so that a run has the same number of steps on any machine."""
    ticks = itertools.count()
    return lambda: step * next(ticks)


def told(settings=TINY, seconds=5.0, own=RHYME, **options):
    out = []
    learn(settings, "own", own, seconds, out.append, clock=clock(), **options)
    return out


def of(kind, messages):
    return [message for message in messages if message["kind"] == kind]


# What may be set

KINDS = [("gpt2", "MHA", "dense"), *itertools.product(["deepseek"], ["MHA", "GQA", "MLA"], ["dense", "moe"])]


@pytest.mark.parametrize("block, attention, feed_forward", KINDS)
def test_what_is_counted_is_what_is_built_and_can_be_written(block, attention, feed_forward):
    settings = Settings(block, attention, feed_forward)
    planned = plan(settings, 60)
    model = LanguageModel(settings.config())
    assert planned.parameters == sum(p.numel() for p in model.parameters())
    assert planned.training_bytes == 16 * planned.parameters
    gpt = plan(Settings(), 60)
    assert abs(planned.active_parameters / gpt.active_parameters - 1) < 0.1  # a fair comparison
    assert planned.flops_per_step == pytest.approx(6 * planned.active_parameters * planned.tokens_per_step, rel=0.1)
    assert planned.steps == round(60 / planned.seconds_per_step)
    for layers, width, heads in itertools.product((1, 6), range(32, 193, 16), (2, 4, 8)):
        to_hf(dataclasses.replace(settings, n_layers=layers, d_model=width, n_heads=heads).config())


def test_the_largest_that_is_offered_is_the_largest_that_fits():
    asked = Settings("deepseek", "GQA", "moe", n_layers=5, d_model=160)
    with pytest.raises(ValueError, match="4,867,040 parameters.* 3,200,000.*nearest: 3 layers or a width of 128"):
        plan(asked, 60)
    for name, fits, too_much in (("n_layers", 3, 4), ("d_model", 128, 144)):
        assert plan(dataclasses.replace(asked, **{name: fits}), 60).parameters <= MOST_PARAMETERS
        with pytest.raises(ValueError, match="parameters"):
            plan(dataclasses.replace(asked, **{name: too_much}), 60)
    large = {"n_layers": 6, "d_model": 192, "context": 128}
    with pytest.raises(ValueError, match="FLOPs, more than 40.0 B.*nearest: a batch of 16"):
        plan(Settings(**large, batch_size=32), 60)
    assert plan(Settings(**large, batch_size=16), 60).flops_per_step <= MOST_FLOPS


@pytest.mark.parametrize("changes, sentence", [
    ({"n_layers": 7}, "n_layers goes from 1 to 6, and was 7; nearest: 6"),
    ({"d_model": 16}, "d_model goes from 32 to 192, and was 16; nearest: 32"),
    ({"batch_size": 2.5}, "batch_size must be a whole number from 1 to 32, not 2.5"),
    ({"attention": "MLA"}, "GPT-2's block has MHA and one dense network, not MLA and a dense network; choose DeepSeek"),
    ({"block": "deepseek", "attention": "GQA", "n_heads": 3}, "n_heads 3 is odd; nearest: 2, 4"),
    ({"n_heads": 5}, "n_heads 5 does not divide d_model 96"),
    ({"learning_rate": 5.0}, "learning_rate must be one of 0.0003, 0.001"),
    ({"block": "gpt3"}, "block must be one of gpt2, deepseek"),
    ({"seed": -1}, "seed goes from 0 to 9999"),
])
def test_what_cannot_be_is_a_sentence(changes, sentence):
    with pytest.raises(ValueError) as said:
        Settings(**changes)
    assert sentence in str(said.value)


def test_a_class_has_a_shorter_limit():
    with pytest.raises(ValueError, match="seconds goes from 5 to 20, and was 60; nearest: 20"):
        plan(Settings(), 60, 20)


# The texts

def test_the_last_tenth_of_a_text_is_held_out():
    made = texts.corpus("own", RHYME)
    assert made.train[0] + made.held_out[0] == RHYME
    assert len(made.held_out[0]) == pytest.approx(len(RHYME) / 10, abs=80)
    scene = texts.corpus("scene")
    assert len(scene.train[0] + scene.held_out[0]) == 6000 and scene.train[0] in data.shakespeare().train[0]
    assert texts.corpus("plays") is data.shakespeare()


@pytest.mark.parametrize("own, sentence", [
    ("too short", "the text has 9 characters and needs at least 2,000"),
    (" " * 5000, "the text has 0 characters"),
    ("a" * 200_001, "the text has 200,001 characters and may have 200,000"),
    ("The king is dead. " * 120 + "\ud800", "half of a surrogate pair"),
])
def test_a_text_that_will_not_do_is_a_sentence(own, sentence):
    with pytest.raises(ValueError, match=sentence):
        told(own=own)


def test_a_text_of_few_tokens_is_a_sentence():
    with pytest.raises(ValueError, match="a context of 32 needs 33 and 8: paste more"):
        texts.as_tokens(data.Corpus("x", ["A word."], ["More"]), tokenizer.get("course"), 32)


def test_bytes_are_those_of_the_held_out_text():
    words, text = tokenizer.get("course"), texts.corpus("own", RHYME).held_out[0]
    ids = torch.tensor(words.encode(text))
    inputs, targets, n_bytes = texts.held_out_windows(ids, words, 32)
    assert n_bytes == len(text.encode()) - len(words.token_bytes(int(ids[0])))  # the first has nothing before it
    plays = data.tokens(data.shakespeare(), words)[1]
    inputs, targets, n_bytes = texts.held_out_windows(plays, words, 64)
    assert inputs.numel() == 4096 and (targets != -100).sum() > 2000
    assert 2.3 < n_bytes / (targets != -100).sum() < 3.1  # the whole held-out part has 2.72 bytes a token


# The run

def test_the_same_seed_gives_the_same_losses_and_a_short_run_begins_a_long_one():
    runs = [told(), told(), told(seconds=8.0), told(dataclasses.replace(TINY, seed=1))]
    losses = [{m["step"]: m["loss"] for m in of("mark", run)} for run in runs]
    assert losses[0] == losses[1] and len(losses[0]) >= 5
    assert len(losses[2]) > len(losses[0]) and losses[2].items() >= losses[0].items()
    assert losses[3][1] != losses[0][1]
    assert of("look", runs[0]) == of("look", runs[1]) and of("sample", runs[0]) == of("sample", runs[1])


def test_it_learns_and_tells_of_it():
    run = told(seconds=12.0)
    assert [run[0]["kind"], run[-1]["kind"]] == ["started", "done"]
    looks = of("look", run)
    assert looks[0]["step"] == 1 and looks[0]["bits_per_byte"] == pytest.approx(run[0]["blind"], abs=0.15)
    assert looks[-1]["bits_per_byte"] < 0.6 * looks[0]["bits_per_byte"]
    done = run[-1]
    assert done["why"] == "time" and done["seconds"] >= 12 and done["file"] == ""
    assert done["best_bits_per_byte"] == min(look["bits_per_byte"] for look in looks)
    samples = of("sample", run)
    assert samples[0]["step"] == 1 and len(samples) >= 3 and all(s["text"] for s in samples)
    json.dumps(run)
    progress = of("progress", run)
    assert [p["step"] for p in progress] == sorted({p["step"] for p in progress})


def test_stop_ends_it_with_a_look_and_a_model(tmp_path):
    steps = itertools.count()
    run = told(seconds=100.0, stopped=lambda: next(steps) >= 30, folder=tmp_path)
    assert run[-1]["why"] == "stopped" and run[-1]["step"] == 31 == of("look", run)[-1]["step"]
    assert run[-1]["file"] == "lab-gpt2-mha-dense-1x32.zip" and (tmp_path / run[-1]["file"]).is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_opens_and_is_the_model_that_was_measured(kind, tmp_path):
    settings = dataclasses.replace(TINY, block=kind[0], attention=kind[1], feed_forward=kind[2], n_layers=2)
    run = told(settings, seconds=1.0, folder=tmp_path)
    with zipfile.ZipFile(tmp_path / run[-1]["file"]) as file:
        assert {name.rpartition("/")[2] for name in file.namelist()} - {""} == {
            "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
        file.extractall(tmp_path / "opened")
    model, words = load_pretrained(tmp_path / "opened" / settings.file_name)
    held = texts.as_tokens(texts.corpus("own", RHYME), words, 32).held_out
    found = bits_per_byte(model, *texts.held_out_windows(held, words, 32))
    assert found == pytest.approx(run[-1]["best_bits_per_byte"], abs=2e-4)


def test_a_loss_that_is_no_number_is_a_sentence():
    class Hot(Settings):
        def recipe(self):
            return dataclasses.replace(super().recipe(), learning_rate=1e30, final_learning_rate=1e30, warmup_steps=1)

    with pytest.raises(ValueError, match=r"at step \d+ the loss was no number any more: with the learning rate"):
        told(Hot(**dataclasses.asdict(TINY)))


# What is kept

def filled(looks, blind=4.0):
    record = Record("x", 128, 1000, 60)
    record.add({"kind": "started", "train_tokens": 256, "held_out_tokens": 10, "held_out_bytes": 30, "blind": blind})
    for seconds, step, bits in looks:
        record.add({"kind": "progress", "seconds": seconds, "step": step, "bits_per_byte": bits - 0.1})
        record.add({"kind": "look", "seconds": seconds, "step": step, "bits_per_byte": bits})
    return record


def test_verdicts():
    assert filled([(0, 1, 4.0)]).verdict == ""
    assert filled([(0, 1, 4.0), (1, 9, 3.0), (2, 19, 2.5)]).verdict == "learned"
    assert filled([(0, 1, 4.0), (1, 9, 3.0), (2, 19, 3.04)]).verdict == "learned"  # within noise
    assert filled([(0, 1, 4.0), (1, 9, 3.0), (2, 19, 3.5)]).verdict == "memorised"
    assert filled([(0, 1, 4.0), (1, 9, 3.0), (2, 19, 4.5)]).verdict == "memorised"
    assert filled([(0, 1, 4.0), (1, 9, 7.0), (2, 19, 6.5)]).verdict == "overshot"


def test_a_record_is_read_at_a_second_and_at_a_step():
    record = filled([(0, 1, 4.0), (1, 9, 3.0), (2, 19, 2.5)])
    assert record.look_at(seconds=1.9)[2] == 3.0 and record.look_at(step=19)[2] == 2.5
    assert record.look_at(step=0) is None
    assert (record.step, record.seconds, record.tokens, record.passes) == (19, 2, 19 * 128, 9.5)
    assert record.rows(2) == [
        {"seconds": 0, "step": 1, "tokens": 128, "flops": 1000, "training": 3.9, "held_out": 4.0},
        {"seconds": 2, "step": 19, "tokens": 2432, "flops": 19000, "training": 2.4, "held_out": 2.5}]
    assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_a_long_run_keeps_few_points():
    record = filled([(i, i + 1, 4 - i / 1000) for i in range(2000)])
    assert len(record.looks) <= 601 and record.looks[0][1] == 1 and record.looks[-1][1] == 2000
    for i in range(40):
        record.add({"kind": "sample", "step": i, "prompt": "a", "text": "b"})
    assert len(record.samples) == 12 and [record.samples[0]["step"], record.samples[-1]["step"]] == [0, 39]


def test_the_recorded_runs_are_of_todays_settings():
    runs = recorded()
    assert set(runs) == {"gpt", "deepseek"}
    for name, settings in (("gpt", Settings()), ("deepseek", Settings("deepseek", "MLA", "moe"))):
        fresh = new_record(settings, 60)
        assert (runs[name].name, runs[name].tokens_per_step, runs[name].flops_per_step, runs[name].limit) == (
            fresh.name, fresh.tokens_per_step, fresh.flops_per_step, 60)
        assert runs[name].verdict == "learned" and runs[name].best[2] < 0.6 * runs[name].started["blind"]


# The line

def test_the_line_moves_up_and_is_bounded():
    turns = Turns(at_once=1, waiting=2)
    first, second, third = (turns.join() for _ in range(3))
    assert [turns.place(n) for n in (first, second, third)] == [0, 1, 2] and len(turns) == 3
    with pytest.raises(ValueError, match="1 trains and 2 wait already; try again in a few minutes"):
        turns.join()
    turns.leave(second)
    turns.leave(second)
    assert [turns.place(first), turns.place(third)] == [0, 1]
    turns.leave(first)
    assert turns.place(third) == 0


def test_several_at_once():
    turns = Turns(at_once=2, waiting=1)
    assert [turns.place(n) for n in [turns.join() for _ in range(3)]] == [0, 0, 1]


def test_one_who_is_gone_loses_the_place():
    now = [0.0]
    turns = Turns(absent=15, clock=lambda: now[0])
    first, second = turns.join(), turns.join()
    now[0] = 10.0
    assert turns.place(second) == 1
    now[0] = 20.0
    assert turns.place(second) == 0 and len(turns) == 1
    with pytest.raises(ValueError, match="your place in the line was given up"):
        turns.place(first)


def test_limits_hold_the_defaults():
    assert all(least <= getattr(Settings(), name) <= most for name, (least, most) in LIMITS.items())
