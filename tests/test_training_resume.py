"""A run that is stopped, however roughly, goes on exactly; checkpoints are whole or not there."""

import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm_core import data, presets
from llm_core.training import checkpoints
from llm_core.training.log import Log
from llm_core.training.loop import train
from llm_core.training.recipe import Recipe

# Dropout, experts, a router bias and two MTP modules: everything that a state has to hold.
CONFIG = presets.get("deepseek-mini").replace(d_model=32, n_layers=2, n_mtp_modules=1, dropout=0.1)
CONFIG = CONFIG.replace(attention=CONFIG.attention.replace(n_heads=2, kv_lora_rank=16, q_lora_rank=None))
RECIPE = Recipe("deepseek-mini", steps=24, batch_size=4, context=24, learning_rate=1e-2, warmup_steps=4,
                evaluate_every=8)
TEXT = (torch.arange(3000) * 7) % 60
HELD_OUT = data.windows(TEXT[:150], 24)


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    monkeypatch.setattr("llm_core.training.loop.presets.get", lambda name: CONFIG)


class Stop(Exception):
    pass


def go(folder, recipe=RECIPE, stop_at=None, every=5):
    def report(row):
        if row["step"] == stop_at:
            raise Stop

    return train(recipe, TEXT, HELD_OUT, 150, report, folder=folder, checkpoint_every=every)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing stops: its curve, log and weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llm_core.training.loop.presets.get", lambda name: CONFIG)
        folder = tmp_path_factory.mktemp("whole")
        return go(folder), without_time(Log(folder / "log.csv").rows())


def without_time(rows):
    return [{**row, "seconds": 0} for row in rows]


def same(result, log_path, whole):
    wanted, log = whole
    assert result.curve == wanted.curve and result.best_step == wanted.best_step
    assert without_time(Log(log_path).rows()) == log
    for a, b in zip(result.model.state_dict().values(), wanted.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("stops", [[3], [5], [8], [13], [23], [6, 6, 12, 19]])
def test_resume_goes_on_exactly_from_any_step(tmp_path, whole, stops):
    for step in stops:
        with pytest.raises(Stop):
            go(tmp_path, stop_at=step)
        torch.manual_seed(random.randrange(10**6))  # the next process knows nothing of this one's random numbers
    same(go(tmp_path), tmp_path / "log.csv", whole)


def test_resume_of_a_run_that_is_complete_changes_nothing(tmp_path, whole):
    go(tmp_path)
    same(go(tmp_path), tmp_path / "log.csv", whole)


def test_resume_needs_all_that_a_state_holds(tmp_path, whole):
    """Leave out one thing, and the curve must show it: otherwise the tests above prove nothing."""
    with pytest.raises(Stop):
        go(tmp_path / "a", stop_at=11)
    for number, missing in enumerate(("random/", "optimizer/", "model/blocks.1.feed_forward.router.selection_bias")):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "a", folder)
        tensors, facts = checkpoints.latest(folder / "checkpoints")
        fresh = train_state_of_a_new_run()
        spoilt = {name: fresh.get(name, torch.zeros_like(t)) if name.startswith(missing) else t
                  for name, t in tensors.items()}
        checkpoints.save(folder / "checkpoints", 10, spoilt, facts)
        assert go(folder).curve != whole[0].curve, missing


def train_state_of_a_new_run():
    torch.manual_seed(12345)
    return {"random/0": torch.get_rng_state()}


def test_resume_after_kill_9_at_any_moment(tmp_path, whole):
    """A process of its own, killed again and again wherever it happens to be, writing included."""
    code = f"""if True:
        import sys; sys.path.insert(0, {os.getcwd()!r})
        import torch; torch.set_num_threads(1)
        from pathlib import Path
        from tests import test_training_resume as t
        import llm_core.training.loop as loop
        loop.presets.get = lambda name: t.CONFIG
        t.go(Path({str(tmp_path)!r}), every=1)
        print("done")
    """
    chance = random.Random(0)
    for attempt in range(40):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        began = checkpoints.steps(tmp_path / "checkpoints")
        if attempt < 4:  # wait until it has got further, then a moment that is anybody's guess
            end = time.monotonic() + 60
            while checkpoints.steps(tmp_path / "checkpoints") == began and process.poll() is None \
                    and time.monotonic() < end:
                time.sleep(0.005)
            time.sleep(chance.random() * 0.1)
            process.kill()
        if "done" in process.communicate(timeout=120)[0]:
            break
    assert attempt >= 4
    same(go(tmp_path, every=1), tmp_path / "log.csv", whole)


def test_resume_takes_the_one_before_where_the_last_is_spoilt(tmp_path, whole):
    with pytest.raises(Stop):
        go(tmp_path, stop_at=11)
    assert checkpoints.steps(tmp_path / "checkpoints") == [5, 10]
    last, = (tmp_path / "checkpoints" / "step-00000010").glob("*.safetensors")
    last.write_bytes(last.read_bytes()[:1000])
    same(go(tmp_path), tmp_path / "log.csv", whole)


def test_resume_takes_the_one_before_where_the_last_lacks_a_tensor(tmp_path, whole):
    with pytest.raises(Stop):
        go(tmp_path, stop_at=11)
    last, = (tmp_path / "checkpoints" / "step-00000010").glob("*.safetensors")
    tensors = load_file(last)
    del tensors["model/final_norm.weight"]
    save_file(tensors, last)
    same(go(tmp_path), tmp_path / "log.csv", whole)


def test_resume_never_sees_a_checkpoint_that_is_not_on_the_disk_yet(tmp_path, monkeypatch):
    """It gets its name only when all of it has been forced to the disk; then nothing is left of the other name."""
    forced, really = [], checkpoints._to_disk

    def force(path):
        forced.append((path.name, checkpoints.steps(tmp_path)))
        really(path)

    monkeypatch.setattr(checkpoints, "_to_disk", force)
    checkpoints.save(tmp_path, 5, {"a": torch.ones(3)}, {})
    *files, part, folder = forced
    assert {name.split(".")[-1] for name, _ in files} == {"json", "safetensors"} and len(files) == 2
    assert all(there == [] for _, there in [*files, part]) and part[0] == "part"
    assert folder == (tmp_path.name, [5])
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


def test_resume_refuses_what_is_another_run(tmp_path):
    with pytest.raises(Stop):
        go(tmp_path, stop_at=11)
    with pytest.raises(ValueError, match="holds a run with learning_rate 0.01, and this one has 0.02; go on with"):
        go(tmp_path, dataclasses.replace(RECIPE, learning_rate=0.02))
    with pytest.raises(ValueError, match="holds a run on another text"):
        train(RECIPE, TEXT + 1, HELD_OUT, 150, folder=tmp_path)
    for step in (5, 10):
        (tmp_path / "checkpoints" / f"step-{step:08d}" / "facts.json").write_text("{")
    with pytest.raises(ValueError, match="none of the 2 checkpoints .* can be read; delete the folder to begin anew"):
        go(tmp_path)


def test_resume_keeps_the_last_good_one_when_the_disk_is_full(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 5, {"a": torch.ones(3)}, {"step": 5})

    def full(part, tensors, ranks):
        (part / "shard-00001-model-00001-of-00001.safetensors").write_bytes(b"half a")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "_write", full)
    with pytest.raises(OSError, match=r"step 10 could not be written to .* \(No space left on device\); the last good "
                                      "one, of step 5, is untouched"):
        checkpoints.save(tmp_path, 10, {"a": torch.zeros(3)}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]
    tensors, facts = checkpoints.latest(tmp_path)
    assert torch.equal(tensors["a"], torch.ones(3)) and facts == {"step": 5}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
def test_resume_says_the_systems_reason(tmp_path):
    """The writer's own error, when the system lets no file grow beyond 8 kB."""
    code = f"""if True:
        import resource, sys; sys.path.insert(0, {os.getcwd()!r})
        import torch
        from pathlib import Path
        from llm_core.training import checkpoints
        checkpoints.save(Path({str(tmp_path)!r}), 5, {{"a": torch.ones(3)}}, {{}})
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        try:
            checkpoints.save(Path({str(tmp_path)!r}), 10, {{"a": torch.zeros(30000)}}, {{}})
        except OSError as problem:
            print(problem)
    """
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "(File too large); the last good one, of step 5, is untouched" in said
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


def test_resume_in_a_place_that_is_no_folder_is_a_sentence(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(OSError, match="the checkpoint of step 5 could not be written to .* there is none yet"):
        go(tmp_path)


def test_resume_keeps_two_checkpoints(tmp_path):
    go(tmp_path)
    assert checkpoints.steps(tmp_path / "checkpoints") == [20, 24]
    facts = json.loads((tmp_path / "checkpoints" / "step-00000024" / "facts.json").read_text())
    assert facts["recipe"]["steps"] == 24 and facts["step"] == 24


def test_the_log_is_a_table_that_forgets_what_will_come_again(tmp_path):
    log = Log(tmp_path / "log.csv")
    row = {"loss": 3.5, "mtp_loss": "", "learning_rate": "1e-3", "gradient_norm": 1.0, "max_violation": "",
           "tokens": 7, "seconds": 0.1}
    log.rewind(0)
    for step in (10, 20, 30):
        log.write({"step": step, **row})
    with (tmp_path / "log.csv").open("a") as file:
        file.write("40,3.")  # the crash came in the middle of a line
    assert [r["step"] for r in log.rows()] == [10, 20, 30]
    log.rewind(20)
    assert [r["step"] for r in log.rows()] == [10, 20] and log.rows()[0]["learning_rate"] == 0.001
    Log(None).rewind(3)
    assert Log(None).rows() == []
