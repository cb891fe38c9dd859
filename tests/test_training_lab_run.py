"""The training lab's process: it tells what the run in this process tells, and nothing of it is ever left behind."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from llm_core import load_pretrained
from llm_core.training.lab import run as running
from llm_core.training.lab.desk import Desk
from llm_core.training.lab.learning import learn
from llm_core.training.lab.plan import Settings
from llm_core.training.lab.record import new_record
from llm_core.training.lab.run import KILLED, ROOT, Run
from llm_core.training.lab.turns import Turns

TINY = Settings(n_layers=1, d_model=32, n_heads=2, context=32, batch_size=4, learning_rate=1e-2)
OWN = "".join(f"{n} green bottles hanging on the wall,\nand if one green bottle should fall,\n" for n in range(80))
PATIENCE = 120  # seconds for a process to start, on a machine that is busy with other tests


def heard(run, until="", step=0):
    """All news up to its end, or until one of that kind, of that step or a later one."""
    out, end = [], time.monotonic() + PATIENCE
    while not run.over and time.monotonic() < end:
        out += run.news()
        if until and any(message["kind"] == until and message.get("step", 0) >= step for message in out):
            break
        time.sleep(0.05)
    return out


def gone(pid: int, seconds: float = 30) -> bool:
    """Whether the process ends within the time; a zombie has ended."""
    stat, end = Path(f"/proc/{pid}/stat"), time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes under /proc")


def test_a_run_in_its_process_and_after_one_that_was_killed(tmp_path):
    killed = Run(TINY, "own", OWN, 3, tmp_path)
    killed.process.kill()
    assert heard(killed) == [{"kind": "problem", "sentence": KILLED}]
    killed.close()
    run, here, steps = Run(TINY, "own", OWN, 100, tmp_path), [], itertools.count()
    messages = heard(run, "mark", step=10)
    run.stop()
    run.stop()
    messages += heard(run)
    done = messages[-1]
    assert done["kind"] == "done" and done["why"] == "stopped" and run.process.returncode == 0
    learn(TINY, "own", OWN, 100, here.append, lambda: next(steps) >= 10)
    losses, own = ({m["step"]: m["loss"] for m in all_ if m["kind"] == "mark"} for all_ in (messages, here))
    assert list(own) == [1, 2, 5, 10] and all(losses[step] == pytest.approx(own[step], rel=1e-5) for step in own)
    assert [p.name for p in run.folder.iterdir()] == [done["file"]]
    with zipfile.ZipFile(run.folder / done["file"]) as file:
        file.extractall(tmp_path / "opened")
    assert load_pretrained(tmp_path / "opened" / TINY.file_name)[0].config.d_model == 32
    run.close()
    assert [p.name for p in tmp_path.iterdir()] == ["opened"]


def test_a_problem_comes_as_a_sentence(tmp_path):
    run = Run(TINY, "own", "too short", 5, tmp_path)
    assert "needs at least 2,000" in heard(run)[-1]["sentence"]
    run.close()


@needs_proc
def test_close_ends_it_at_once(tmp_path):
    run = Run(TINY, "own", OWN, 100, tmp_path)
    heard(run, until="started")
    run.close()
    assert gone(run.process.pid, 5) and list(tmp_path.iterdir()) == []


@needs_proc
def test_nobody_asks_any_more(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "ABSENT", 1.0)
    run = Run(TINY, "own", OWN, 100, tmp_path)
    heard(run, until="started")
    end = time.monotonic() + 30
    while run.folder.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert gone(run.process.pid, 5) and not run.folder.exists()


@needs_proc
@pytest.mark.parametrize("how", ["killed", "ended"])
def test_the_process_ends_with_the_one_that_started_it(tmp_path, how):
    code = f"""if True:
        import os, sys, time
        from llm_core.training.lab.plan import Settings
        from llm_core.training.lab.run import Run
        run = Run(Settings(), "plays", "", 100, __import__("pathlib").Path(sys.argv[1]))
        print(run.process.pid, flush=True)
        while not any(m["kind"] == "started" for m in run.news()):
            time.sleep(0.05)
        print("started", flush=True)
        time.sleep(100 if {how == "killed"} else 0)
    """
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
    child = int(parent.stdout.readline())
    assert parent.stdout.readline() == "started\n"
    if how == "killed":
        parent.send_signal(signal.SIGKILL)
    parent.wait(30)
    assert gone(child) and list(tmp_path.iterdir()) == []


# The desk

def test_a_desk_lets_one_train_and_clears_up(tmp_path):
    desk = Desk(Turns(at_once=1, waiting=1), tmp_path)
    desk.enter("a")
    with pytest.raises(ValueError, match="trains or waits already"):
        desk.enter("a")
    desk.enter("b")
    assert [desk.place("a"), desk.place("b")] == [0, 1]
    with pytest.raises(ValueError, match="1 trains and 1 wait already"):
        desk.enter("c")
    with pytest.raises(ValueError, match="wait already|wait here already"):
        desk.whole_run("program", TINY, new_record(TINY, 5))
    run = desk.start("a", TINY, "own", OWN, 100)
    desk.leave("a")  # the page was closed
    assert run.process.poll() is not None and desk.place("b") == 0 and list(tmp_path.iterdir()) == []
    desk.stop("b")
    assert desk.stopped("b")
    desk.finish("b")
    assert len(desk.turns) == 0 and desk.stopped("b")
    with pytest.raises(ValueError, match="your place in the line was given up"):
        desk.place("b")
    with pytest.raises(ValueError, match="the page was closed"):
        desk.start("b", TINY, "own", OWN, 100)
    assert list(tmp_path.iterdir()) == []
    desk.close()


def test_a_file_stays_until_its_time_is_up(tmp_path):
    desk = Desk(Turns(), tmp_path, kept=1.0)
    desk.enter("a")
    run = desk.start("a", TINY, "own", OWN, 1)
    file = heard(run)[-1]["file"]
    desk.finish("a")
    assert (run.folder / file).is_file()
    end = time.monotonic() + 20
    while run.folder.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not run.folder.exists()


def test_what_an_earlier_server_left_is_deleted_when_it_is_old(tmp_path):
    for name, age in (("training-lab-old", 7200), ("training-lab-new", 10), ("other", 7200)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    Desk(Turns(), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "training-lab-new"]


def test_a_whole_run_for_a_program(tmp_path):
    desk = Desk(Turns(), tmp_path)
    record = desk.whole_run("program", TINY, new_record(TINY, 5))
    assert record.done["why"] == "time" and record.verdict == "learned" and list(tmp_path.iterdir()) == []
    json.dumps(record.to_dict())
