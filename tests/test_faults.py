"""Killed, interrupted, without room, rights or network: a plain sentence, and nothing saved is lost or half-written.

More of it stands beside what it is about: test_training_resume.py, test_training_lab_run.py, test_checks_command.py.
"""

import os
import shutil
import signal
import socket
import sys

import pytest

from llm_core import load_pretrained
from llm_core.training import checkpoints
from tests.faulty import NAMESPACE, ROOT, contents, in_read_only, last_line, needs_mounts, on_full_disk, run
from tests.small_course import PLACE, lesson, make_course, write
from tests.test_training_lab_run import gone, needs_proc

VERSE = "".join(f"{n} green bottles hanging on the wall,\nand if one green bottle should fall,\n" for n in range(300))
TRAIN = ("-m", "llm_core.training", "--model", "gpt-mini", "--batch-size", "1", "--context", "32", "--warmup-steps",
         "1", "--checkpoint-every", "1")

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text(VERSE)
    return str(tmp_path / "text.txt")


# Killed --------------------------------------------------------------------------------------------------------------

def killed(work, tmp_path, least):
    """The folders that the work leaves when it is killed here or there, and last the one where it was not."""
    (tmp_path / "before").mkdir(exist_ok=True)
    done = run("-m", "tests.killed_program", work, str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > least
    return [tmp_path / str(number) for number in range(1, int(done.stdout) + 1)]


@needs_fork
def test_an_export_that_is_killed_leaves_all_or_nothing(tmp_path):
    *stopped, whole = (contents(folder) for folder in killed("export", tmp_path, least=4))
    for found in stopped:
        out = {name: data for name, data in found.items() if name.startswith("out/")}
        assert out in ({}, whole)
    assert any(name.startswith("out.part/") for found in stopped for name in found)  # it was killed in the middle, too


@needs_fork
@pytest.mark.parametrize("work", ["lessons", "table"])
def test_a_learners_files_are_whole_wherever_the_command_is_killed(work, tmp_path, capsys):
    from llm_core.checks.__main__ import main

    course, before = make_course(tmp_path), tmp_path / "before"
    main(["start", str(before / "mine"), "--course", str(course)])
    main(["export", str(before / "mine"), "--out", str(before / "class.csv"), "--course", str(course)])
    mine = lesson(more="My own words.")
    write(before / "mine" / PLACE, mine)
    write(course / PLACE, lesson(more="Better."))
    write(course / "GLOSSARY.md", b"more terms")
    write(course / "03_third" / "03_more.ipynb", lesson(3, "more"))
    if work == "table":
        solved = (before / "class.csv").read_bytes().replace(b"not run", b"solved")
        (before / "class.csv").write_bytes(solved)
    old = contents(before)
    *stopped, whole = (contents(folder) for folder in killed(work, tmp_path, least=1))
    for found in stopped:
        assert found["mine/" + PLACE] == mine
        for name, data in found.items():
            if not name.endswith(".part"):
                assert data in (old.get(name), whole.get(name)) or name.endswith(".course-copy.json"), name
        assert old.keys() <= found.keys()
    main(["start", str(tmp_path / "1" / "mine"), "--course", str(course)])  # it goes on
    assert contents(tmp_path / "1")["mine/GLOSSARY.md"] == b"more terms"


@needs_fork
def test_a_trained_models_files_are_whole_wherever_their_writing_is_killed(tmp_path):
    old = {"model.safetensors": b"old weights", "card.json": b"{}", "README.md": b"old words"}
    for name, data in old.items():
        write(tmp_path / "before" / name, data)
    *stopped, whole = (contents(folder) for folder in killed("card", tmp_path, least=3))
    for found in stopped:
        assert all(found[name] in (old[name], whole[name]) for name in old)


@needs_proc
def test_the_lab_killed_while_it_saves_leaves_nothing(tmp_path):
    """The server is killed just when its process has begun to write the model's file."""
    code = f"""if True:
        import os, signal, time
        from pathlib import Path
        from llm_core.training.lab.plan import Settings
        from llm_core.training.lab.run import Run
        run = Run(Settings(), "own", {VERSE[:4000]!r}, 1, Path("."))
        print(run.process.pid, flush=True)
        while not (run.folder / "written").exists():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = run("-c", code, cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL and gone(int(done.stdout)) and list(tmp_path.iterdir()) == []


# Ctrl+C --------------------------------------------------------------------------------------------------------------

@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no such signal to one process")
@pytest.mark.parametrize("program, at", [
    ("llm_core.training", "torch.nn"), ("llm_core.checkpoint", "torch.nn"), ("llm_core.checkpoint", "llm_core.model"),
    ("llm_core.checks", "llm_core.checks.workbook.results"), ("apps", "gradio.blocks"),
    ("apps.rope_lab", "gradio.blocks"), ("apps.rope_lab", "apps.common")])
def test_ctrl_c_while_a_program_starts(program, at, tmp_path):
    done = run("-m", program, cwd=tmp_path, FAULT=f"SIGINT import {at}")
    assert (done.returncode, last_line(done), list(tmp_path.iterdir())) == (130, "stopped", [])


def test_ctrl_c_while_it_exports(tmp_path):
    done = run("-m", "llm_core.checkpoint", "gpt-mini", "out", cwd=tmp_path, FAULT="SIGINT open out.part/config.json")
    assert (done.returncode, last_line(done)) == (130, "stopped; out was not written")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_it_copies_lessons(tmp_path):
    course = make_course(tmp_path)
    done = run("-m", "llm_core.checks", "start", "mine", "--course", str(course), cwd=tmp_path,
               FAULT="SIGINT os.rename .part 3")
    assert done.returncode == 130 and "What was written is whole; run it again to go on" in last_line(done)
    written = contents(tmp_path / "mine")
    assert written and not any(name.endswith(".part") for name in written)
    assert run("-m", "llm_core.checks", "start", "mine", "--course", str(course), cwd=tmp_path).returncode == 0


def test_ctrl_c_while_it_writes_a_checkpoint(tmp_path, text):
    out = tmp_path / "out"
    command = (*TRAIN, "--steps", "3", "--data", text, "--out", str(out))
    done = run(*command, cwd=tmp_path, FAULT="SIGINT open part/facts.json 3")  # written, forced to disk; written
    assert done.returncode == 130 and "the same command goes on from the last checkpoint" in last_line(done)
    assert checkpoints.steps(out / "checkpoints") == [1]
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 0 and "going on from step 1" in done.stderr + done.stdout
    load_pretrained(out)


# No room, no right ---------------------------------------------------------------------------------------------------

@needs_mounts
@pytest.mark.parametrize("size, words", [
    ("16k", "out cannot be used (No space left on device); make room on that disk"),
    ("36m", "out cannot be used (No space left on device); make room on that disk")])
def test_training_on_a_full_disk(size, words, tmp_path, text):
    old = {"card.json": b'{"bits_per_byte": 1}', "README.md": b"old words", "model.safetensors": b"old weights"}
    for name, data in old.items():
        write(tmp_path / "before" / "out" / name, data)
    done = on_full_disk(*TRAIN, "--steps", "1", "--data", text, "--out", "out", size=size, tmp_path=tmp_path,
                        holds=tmp_path / "before")
    assert done.returncode == 2 and words in last_line(done), last_line(done)
    found = contents(tmp_path / "kept" / "out")
    assert {name: found.get(name) for name in old} == old and not any(name.endswith(".part") for name in found)


@needs_mounts
def test_an_export_to_a_full_disk(tmp_path):
    done = on_full_disk("-m", "llm_core.checkpoint", "gpt-mini", "out", size="1m", tmp_path=tmp_path)
    assert (done.returncode, last_line(done)) == (1, (
        "out could not be written (No space left on device), and nothing of it was; make room, or name another folder"))
    assert list((tmp_path / "kept").iterdir()) == []


@needs_mounts
def test_a_learners_work_on_a_full_disk(tmp_path, capsys):
    from llm_core.checks.__main__ import main

    course, before = make_course(tmp_path), tmp_path / "before"
    main(["start", str(before / "mine"), "--course", str(course)])
    mine = lesson(more="My own words. " * 5000)
    write(before / "mine" / PLACE, mine)
    write(course / PLACE, lesson(more="Better." * 20000))
    main(["export", str(before / "mine"), "--out", str(before / "class.csv"), "--course", str(course)])
    write(before / "filler", os.urandom(400_000))
    old = contents(before)
    size = str(4096 * (1 + sum(-(-len(data) // 4096) for data in old.values())))  # a block more than it holds
    for command in (["start", "mine"], ["export", "mine", "--out", "class.csv"]):
        if command[0] == "export":
            size = str(int(size) - 4096)
        done = on_full_disk("-m", "llm_core.checks", *command, "--course", str(course), size=size, tmp_path=tmp_path,
                            holds=before)
        assert done.returncode == 2 and "could not be written (No space left on device)" in last_line(done)
        assert contents(tmp_path / "kept") == old
    main(["start", str(tmp_path / "kept" / "mine"), "--course", str(course)])  # there is room again
    found = contents(tmp_path / "kept" / "mine")
    assert found[PLACE] == mine and found[PLACE.replace(".ipynb", ".new.ipynb")] == (course / PLACE).read_bytes()


@needs_mounts
def test_the_labs_run_on_a_full_disk(tmp_path):
    code = f"""if True:
        import time
        from pathlib import Path
        from llm_core.training.lab.plan import Settings
        from llm_core.training.lab.run import Run
        run, news = Run(Settings(n_layers=1, d_model=32, n_heads=2), "own", {VERSE[:4000]!r}, 1, Path(".")), []
        while not run.over:
            news += run.news()
            time.sleep(0.05)
        print(news[-1]["sentence"])
        run.close()
    """
    done = on_full_disk("-c", code, size="60k", tmp_path=tmp_path)
    assert done.stdout.startswith("the model was trained, and its file could not be written (No space left on device)")
    assert list((tmp_path / "kept").iterdir()) == []


@needs_mounts
@pytest.mark.parametrize("command, code, words", [
    ((*TRAIN, "--data", str(ROOT / "README.md")), 2, "(Read-only file system); name a folder that can be written to"),
    (("-m", "llm_core.checkpoint", "gpt-mini", "out"), 1, "out could not be written (Read-only file system)"),
    (("-m", "llm_core.checks", "start"), 2, "could not be written (Read-only file system)"),
    (("-m", "llm_core.checks", "export", "."), 2, "class.csv could not be written (Read-only file system)")])
def test_a_home_that_cannot_be_written_to(command, code, words, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    if "export" in command:
        shutil.copy(lesson_of_the_course(), home)
    done = in_read_only(*command, folder=home, HOME=str(home))
    assert (done.returncode, words in last_line(done)) == (code, True), done.stderr[-500:]


def lesson_of_the_course():
    from tests.test_checks import LESSONS

    return LESSONS[0]


@needs_mounts
def test_where_no_folder_takes_temporary_files(tmp_path):
    """tempfile tries TMPDIR, /tmp, /var/tmp, /usr/tmp and the current folder."""
    hide = 'for d in /tmp /var/tmp; do mount --bind /proc "$d" || exit 99; done; cd /proc && exec "$@"'
    python = os.path.realpath(sys.executable)
    if python.startswith(("/tmp/", "/var/tmp/")) or str(sys.prefix).startswith(("/tmp/", "/var/tmp/")):
        pytest.skip("Python itself lies there")
    done = run("-m", "apps", cwd=tmp_path, before=[*NAMESPACE, "sh", "-c", hide, "-"], TMPDIR="/proc")
    assert done.returncode == 2 and "No usable temporary directory found" in last_line(done)


# No network ----------------------------------------------------------------------------------------------------------

LOAD = """if True:
    from llm_core import load_pretrained, token_files
    for load, name in ((load_pretrained, "owner/name"), (token_files.find, "hf:owner/name")):
        try:
            load(name)
        except FileNotFoundError as problem:
            print(problem)
"""


def test_a_network_that_says_nothing(tmp_path):
    """The hub's address is there, and never answers: huggingface_hub itself would wait for ever."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}", "HF_HUB_OFFLINE": "0",
               "HF_HOME": str(tmp_path), "HF_HUB_ETAG_TIMEOUT": "1"}
        done = run("-c", LOAD, cwd=tmp_path, **hub)
        assert "owner/name could not be had: the hub cannot be reached" in done.stdout, done.stderr[-500:]
        assert "the dataset owner/name could not be had" in done.stdout


@needs_mounts
def test_no_network_at_all(tmp_path):
    done = run("-c", LOAD, cwd=tmp_path, before=[*NAMESPACE, "--net"], HF_HUB_OFFLINE="0", HF_HOME=str(tmp_path))
    assert "owner/name could not be had: the hub cannot be reached" in done.stdout, done.stderr[-500:]
