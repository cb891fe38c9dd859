"""`python -m llm_core.checks start`: a copy of the lessons that keeps a learner's work; and the command as a whole."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from llm_core import checks
from llm_core.checks.__main__ import main
from llm_core.checks.workbook import files
from tests.small_course import CHECK, DONE, PLACE, STUB, asker, code, contents, lesson, make_course, write

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def course(tmp_path):
    return make_course(tmp_path)


@pytest.fixture
def ask(course, capsys):
    return asker(course, capsys)


def test_start_copies_the_lessons_and_what_they_link_to(ask, course, tmp_path):
    said = ask("start", tmp_path / "mine")
    copied = contents(tmp_path / "mine")
    assert copied.keys() == {"README.md", "GLOSSARY.md", PLACE, "02_second/02_triple.ipynb", ".course-copy.json"}
    assert copied[PLACE] == (course / PLACE).read_bytes() and said.count("new: ") == 4
    assert "python -m jupyter lab --ServerApp.root_dir=" in said


def test_the_folder_is_my_course_if_none_is_named(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "root_dir=my-course\n" in ask("start") and (tmp_path / "my-course" / PLACE).is_file()
    assert "twice as much" in ask("status")


def test_started_again_it_does_nothing(ask, tmp_path):
    ask("start", tmp_path / "mine")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "mine").rglob("*")}
    assert "4 files are as they were." in ask("start", tmp_path / "mine")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "mine").rglob("*")} == before


def test_an_update_brings_new_and_changed_lessons(ask, course, tmp_path):
    ask("start", tmp_path / "mine")
    write(course / PLACE, lesson(more="Better."))
    write(course / "03_third" / "03_more.ipynb", lesson(3, "more"))
    (course / "GLOSSARY.md").unlink()
    said = ask("start", tmp_path / "mine")
    assert f"updated: {PLACE}." in said and "new: 03_third/03_more.ipynb." in said and "left: GLOSSARY.md." in said
    assert "2 files are as they were." in said and len(said.splitlines()) == 5
    assert contents(tmp_path / "mine")[PLACE] == lesson(more="Better.") and (tmp_path / "mine" / "GLOSSARY.md").exists()


def test_a_learners_work_is_never_overwritten(ask, course, tmp_path):
    mine = lesson(answer=code(DONE, 7), check=code(CHECK, 8, "right: yes"))
    ask("start", tmp_path / "mine")
    write(tmp_path / "mine" / PLACE, mine)
    assert f"yours: {PLACE}. You changed it, and the course did not." in ask("start", tmp_path / "mine")
    write(course / PLACE, lesson(more="Better."))
    said = ask("start", tmp_path / "mine")
    assert f"kept: {PLACE}, as you and the course changed it." in said and "beside it: 01_double.new.ipynb." in said
    assert contents(tmp_path / "mine")[PLACE] == mine
    beside = tmp_path / "mine" / "01_first" / "01_double.new.ipynb"
    assert beside.read_bytes() == lesson(more="Better.")
    beside.unlink()  # looked at, and not wanted
    assert f"yours: {PLACE}." in ask("start", tmp_path / "mine") and not beside.exists()


def test_a_new_one_that_was_worked_in_is_kept_too(ask, course, tmp_path):
    ask("start", tmp_path / "mine")
    write(tmp_path / "mine" / PLACE, lesson(more="Mine."))
    folder = tmp_path / "mine" / "01_first"
    for word, names in (("A.", {"01_double.new.ipynb"}), ("B.", {"01_double.new.ipynb"})):  # untouched: the newer one
        write(course / PLACE, lesson(more=word))
        ask("start", tmp_path / "mine")
        assert {path.name for path in folder.glob("*.new*")} == names
        assert (folder / "01_double.new.ipynb").read_bytes() == lesson(more=word)
    write(folder / "01_double.new.ipynb", lesson(more="Worked in."))
    write(course / PLACE, lesson(more="C."))
    assert "beside it: 01_double.new-2.ipynb." in ask("start", tmp_path / "mine")
    found = contents(folder)
    assert found["01_double.ipynb"] == lesson(more="Mine.")
    assert found["01_double.new.ipynb"] == lesson(more="Worked in.")
    assert found["01_double.new-2.ipynb"] == lesson(more="C.")


def test_running_a_lesson_is_not_changing_it(ask, course, tmp_path):
    ask("start", tmp_path / "mine")
    run = lesson(answer=code(STUB, 31), check=code(CHECK, 32, "not solved yet"))
    write(tmp_path / "mine" / PLACE, run)
    assert "4 files are as they were." in ask("start", tmp_path / "mine")
    assert contents(tmp_path / "mine")[PLACE] == run
    write(course / PLACE, lesson(more="Better."))
    assert f"updated: {PLACE}." in ask("start", tmp_path / "mine")


def test_a_course_that_ran_a_lesson_again_puts_nothing_beside(ask, course, tmp_path):
    ask("start", tmp_path / "mine")
    write(tmp_path / "mine" / PLACE, lesson(more="Mine."))
    write(course / PLACE, lesson(answer=code(STUB, 5)))
    assert f"yours: {PLACE}." in ask("start", tmp_path / "mine")
    assert not list((tmp_path / "mine").rglob("*.new*"))


def test_taking_the_new_one_over_settles_it(ask, course, tmp_path):
    ask("start", tmp_path / "mine")
    write(tmp_path / "mine" / PLACE, lesson(more="Mine."))
    write(course / PLACE, lesson(more="A."))
    ask("start", tmp_path / "mine")
    (tmp_path / "mine" / "01_first" / "01_double.new.ipynb").replace(tmp_path / "mine" / PLACE)
    assert "4 files are as they were." in ask("start", tmp_path / "mine")
    write(course / PLACE, lesson(more="B."))
    assert f"updated: {PLACE}." in ask("start", tmp_path / "mine")


def test_a_file_that_is_gone_comes_back(ask, tmp_path):
    ask("start", tmp_path / "mine")
    (tmp_path / "mine" / PLACE).unlink()
    assert f"back: {PLACE}. It was gone." in ask("start", tmp_path / "mine")
    assert contents(tmp_path / "mine")[PLACE] == lesson()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"files": [1]}', b'{"files": {"README.md": 3}}', b"[" * 10**5])
def test_without_its_list_everything_counts_as_the_learners(damage, ask, course, tmp_path):
    ask("start", tmp_path / "mine")
    write(tmp_path / "mine" / ".course-copy.json", damage)
    write(course / PLACE, lesson(more="Better."))
    said = ask("start", tmp_path / "mine")
    assert f"kept: {PLACE}, as it was there before." in said and contents(tmp_path / "mine")[PLACE] == lesson()
    assert contents(tmp_path / "mine")["01_first/01_double.new.ipynb"] == lesson(more="Better.")
    assert "3 files are as they were." in said  # equal to the course's, so nothing can be lost


def test_without_its_list_it_learns_again_what_is_the_courses(ask, course, tmp_path):
    ask("start", tmp_path / "mine")
    (tmp_path / "mine" / ".course-copy.json").unlink()
    write(tmp_path / "mine" / PLACE, lesson(answer=code(STUB, 31)))  # run, not changed
    assert "4 files are as they were." in ask("start", tmp_path / "mine")
    write(course / PLACE, lesson(more="Better."))
    write(course / "GLOSSARY.md", b"more terms")
    said = ask("start", tmp_path / "mine")
    assert f"updated: {PLACE}." in said and "updated: GLOSSARY.md." in said


def test_a_lesson_that_cannot_be_read_is_kept(ask, course, tmp_path, monkeypatch):
    ask("start", tmp_path / "mine")
    write(tmp_path / "mine" / PLACE, b"x" * 5000)
    write(course / PLACE, lesson(more="A."))
    monkeypatch.setattr(files, "LARGEST", 4000)
    assert f"kept: {PLACE}" in ask("start", tmp_path / "mine")
    assert contents(tmp_path / "mine")[PLACE] == b"x" * 5000


def test_links_go_on_working(ask, course, tmp_path):
    folder = tmp_path / "a folder" / "mine"
    ask("start", folder)
    for name, data in contents(folder).items():
        for link in re.findall(rb"\]\(([^)#]+)", data):
            assert b" " not in link  # Markdown would end the link there
            target = (folder / name).parent / unquote(link.decode())
            assert target.resolve().is_file(), (name, link)
    outside = re.search(r"\[the project\]\((.*?)\)", (folder / "README.md").read_text())[1]
    assert (folder / unquote(outside)).resolve() == course.parent / "README.md"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_or_locked_disk_gives_a_sentence_and_harms_nothing(step, number, ask, course, tmp_path, monkeypatch):
    ask("start", tmp_path / "mine")
    before = contents(tmp_path / "mine")
    write(course / PLACE, lesson(more="Better."))

    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr(os, step, refuse)
        said = ask("start", tmp_path / "mine", code=2)
        assert f"could not be written ({os.strerror(number)}); what was there before is as it was" in said
        assert contents(tmp_path / "mine") == before  # no half a file left behind either
        ask("export", tmp_path / "mine", "--out", tmp_path / "class.csv", code=2)
    assert f"updated: {PLACE}." in ask("start", tmp_path / "mine")


def test_stopped_half_way_it_goes_on(ask, course, tmp_path, monkeypatch):
    real, written = files.write, []

    def stops(path, *arguments, **more):
        if len(written) == 2 and path.suffix == ".ipynb":
            raise KeyboardInterrupt
        written.append(path)
        real(path, *arguments, **more)

    with monkeypatch.context() as broken:
        broken.setattr(files, "write", stops)
        assert "Stopped." in ask("start", tmp_path / "mine", code=130)
    write(course / "GLOSSARY.md", b"more terms")
    said = ask("start", tmp_path / "mine")
    assert "updated: GLOSSARY.md." in said and said.count("new: ") == 2 and "1 file is as it was." in said


def test_the_courses_own_folder_is_no_working_folder(ask, course, tmp_path):
    before = contents(course)
    for folder in (course, course / "mine", course.parent, tmp_path):
        assert "the course's own folder, or holds it" in ask("start", folder, code=2)
    assert "is not a folder" in ask("start", course.parent / "README.md", code=2)
    assert contents(course) == before


def test_without_lessons_it_says_where_they_come_from(tmp_path, capsys):
    for command in (["start", "x"], ["status"], ["export", "x"], ["student", "x"]):
        assert main([*command, "--course", str(tmp_path)]) == 2
        assert "pip install -e . --no-deps" in capsys.readouterr().err


# The command as a program

def run(*arguments, cwd) -> subprocess.CompletedProcess:
    """The command in a process of its own, where torch and notebook packages cannot be imported."""
    start = """if True:
        import runpy, sys
        for name in ("torch", "numpy", "plotly", "nbformat", "nbclient", "IPython"):
            sys.modules[name] = None
        runpy.run_module("llm_core.checks", run_name="__main__", alter_sys=True)
    """
    return subprocess.run([sys.executable, "-c", start, *arguments], capture_output=True, text=True, timeout=60,
                          cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"})


def test_the_command_needs_no_torch(tmp_path):
    for arguments in (["start"], ["status"], ["student", "out"], ["export", "."]):
        done = run(*arguments, cwd=tmp_path)  # on a console that can show ASCII alone
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert (tmp_path / "class.csv").is_file()


def test_help_and_mistakes(tmp_path, capsys):
    for command, words in (("", "my-course"), ("start", "NAME.new.ipynb"), ("status", "kernel"),
                           ("export", "--semicolons"), ("student", "--without-hints")):
        with pytest.raises(SystemExit) as end:
            main([*command.split(), "--help"])
        assert end.value.code == 0 and words in capsys.readouterr().out
    for arguments in ([], ["begin"], ["export"], ["student"]):
        done = run(*arguments, cwd=tmp_path)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert "usage: python -m llm_core.checks" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_an_output_that_takes_nothing_gives_a_sentence(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "llm_core.checks", "start"], stdout=full, stderr=subprocess.PIPE,
                              text=True, timeout=60, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2 and done.stderr.endswith("(No space left on device).\n")
    assert done.stderr.count("\n") == 1


# The table of checks

def test_checks_are_found_by_name_and_only_when_used():
    assert set(checks.__all__) <= set(dir(checks)) and len(set(checks.__all__)) == len(checks.__all__)
    for name in checks.__all__:
        check = getattr(checks, name)
        assert callable(check) and check.__name__ == name
    with pytest.raises(AttributeError, match="there is no check 'layernorm'; there are .*layer_norm"):
        checks.layernorm  # noqa: B018


def test_no_check_has_the_name_of_a_file():
    """An imported file becomes an attribute of its package, and would stand in the check's place."""
    assert not {path.stem for path in (ROOT / "llm_core" / "checks").iterdir()} & set(checks.__all__)
