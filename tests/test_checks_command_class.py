"""`python -m llm_core.checks status` and `export`: what notebooks say, whoever wrote them, read and never run."""

import ast
import csv
import os
import re
import sys
import time
from pathlib import Path

import pytest

from llm_core.checks.workbook import class_table, files, results
from tests.small_course import CHECK, DONE, PLACE, STUB, asker, book, code, lesson, make_course, prose, write

CODE = Path(__file__).resolve().parents[1] / "llm_core" / "checks"


@pytest.fixture
def course(tmp_path):
    return make_course(tmp_path)


@pytest.fixture
def ask(course, capsys):
    return asker(course, capsys)


def states(folder: Path, *more: str) -> tuple[str, list[str]]:
    found, remarks = results.results(folder, [results.Exercise(name, name, STUB) for name in ("double", *more)])
    return found["double"], remarks


ERROR = {"output_type": "error", "ename": "NameError", "evalue": "", "traceback": []}


@pytest.mark.parametrize(("answer", "check", "state"), [
    (code(DONE, 1), code(CHECK, 2, "right: yes"), "solved"),
    (code(DONE, 1), code(CHECK, 2, "not yet: no"), "not yet"),
    (code(STUB, 1), code(CHECK, 2, "not solved yet"), "not solved yet"),
    (code(DONE, 1), code(f"{CHECK} # mine", 2, "a print of the learner\nright: yes"), "solved"),
    (code(f"import math\n\n{DONE}", 1), code(f"double(3)\n{CHECK}", 2, "6\nright: yes"), "solved"),
    (code("double = lambda x: 2 * x", 1), code(CHECK, 2, "right: yes"), "solved"),
    (code("from mine import double", 1), code(CHECK, 2, "right: yes"), "solved"),
    (prose("the function is in the check's cell"), code(f"{DONE}\n{CHECK}", 2, "right: yes"), "solved"),
    (code(DONE, 3), code(CHECK, 2, "right: yes"), "changed since it was run"),
    (code(DONE, 3), code(CHECK, 2, "not solved yet"), "changed since it was run"),
    (code(DONE), code(CHECK, 2, "right: yes"), "changed since it was run"),
    (code(DONE, 1), code(CHECK, None, "right: yes"), "changed since it was run"),
    (code(STUB, 1), code(CHECK, 2, "right: yes"), "changed since it was run"),
    (prose("the function is gone"), code(CHECK, 2, "right: yes"), "changed since it was run"),
    (code("double == 3", 1), code(CHECK, 2, "right: yes"), "changed since it was run"),
    (code(DONE, True), code(CHECK, 2, "right: yes"), "changed since it was run"),
    (code(DONE, 1), code(CHECK, 2), "not run"),
    (code(STUB), code(CHECK), "not run"),
    (code(DONE, 1), {**code(CHECK, 2), "outputs": [ERROR]}, "stopped with an error"),
    (code("1", 1), {**code(CHECK, 2), "outputs": [ERROR]}, "stopped with an error"),  # the function's cell was not run
    (code(DONE, 1), code(CHECK, 2, "something else"), "stopped with an error"),
    (code(DONE, 1), code(CHECK, 2, "right: yes\nand then more"), "stopped with an error"),
    (code(DONE, 1), {**code(CHECK, 2), "outputs": {"text": 1}}, "not run"),
    (code(DONE, 1), {**code(CHECK, 2), "outputs": [7, {**code("", 1, "a")["outputs"][0], "text": 7}]}, "not run"),
    (code(DONE, 1), code("print('right: yes')", 2, "right: yes"), "missing"),
    (code(DONE, 1), code(f"print('right: yes') # {CHECK}", 2, "right: yes"), "missing"),
    (code(DONE, 1), code("checks.double(other)", 2, "right: yes"), "missing"),
    (code(DONE, 1), code(f"if False:\n    {CHECK}\nprint('right: yes')", 2, "right: yes"), "missing"),
])
def test_what_a_notebook_says_about_an_exercise(answer, check, state, tmp_path):
    write(tmp_path / "any name.ipynb", book(prose("text"), answer, check, prose("text")))
    assert states(tmp_path) == (state, [])


def test_the_nearest_function_above_is_the_one_that_was_checked(tmp_path):
    early, late = code("def double(x): pass", 1), code(DONE)
    write(tmp_path / "a.ipynb", book(early, late, code(CHECK, 2, "right: yes")))
    assert states(tmp_path)[0] == results.CHANGED  # the lesson's own, further up, is not the answer
    write(tmp_path / "a.ipynb", book(code(STUB, 1), code(DONE, 2), code(CHECK, 3, "right: yes"), code(STUB, 9)))
    assert states(tmp_path)[0] == results.SOLVED  # nor is one further down


def test_the_best_of_several_copies_counts(tmp_path):
    write(tmp_path / "a.ipynb", lesson(answer=code(DONE, 1), check=code(CHECK, 2, "right: yes")))
    write(tmp_path / "a.new.ipynb", lesson())
    assert states(tmp_path) == ("solved", [])  # one that an update put there is no second answer
    write(tmp_path / "0.new-2.ipynb", lesson())
    assert states(tmp_path) == ("solved", [])
    write(tmp_path / "sub" / "b.ipynb", lesson())
    write(tmp_path / ".ipynb_checkpoints" / "c.ipynb", b"{")
    found, remarks = states(tmp_path)
    assert found == "solved" and remarks == ["some exercises are in several notebooks, of which the best counts"]


def big_number() -> bytes:
    return lesson().replace(b'"execution_count": 1', b'"execution_count": ' + b"9" * 6000)


DAMAGED = {
    "not JSON": b"{", "empty": b"", "binary": b"\xff\xfe\x00\x01", "a list": b"[]", "a number": b"7",
    "deep": b"[" * 200_000 + b"]" * 200_000, "deep objects": b'{"a":' * 200_000, "no cells": b'{"nbformat": 4}',
    "cells of a kind": b'{"nbformat": 4, "cells": {"a": 1}}', "old": b'{"nbformat": 3, "cells": [], "worksheets": []}',
    "a cell that is none": b'{"nbformat": 4, "cells": [3]}', "no type": b'{"nbformat": 4, "cells": [{"source": ""}]}',
    "no source": b'{"nbformat": 4, "cells": [{"cell_type": "code"}]}', "a huge number": big_number(),
    "odd source": b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": [["checks.double(double)"]]}]}',
    "too large": lesson() + b" " * files.LARGEST, "many cells": book(*[prose("a")] * (files.MOST_CELLS + 1)),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_notebook_gives_a_sentence(data, ask, tmp_path):
    write(tmp_path / "mine" / "01_first" / "bad.ipynb", data)
    write(tmp_path / "mine" / "good.ipynb", lesson(2, "triple"))
    said = ask("status", tmp_path / "mine")
    assert said.count("Note: 01_first/bad.ipynb ") == 1 and "Traceback" not in said
    assert "twice as much (double): missing" in said and "(triple): not solved yet" in said
    ask("export", tmp_path / "mine", "--out", tmp_path / "class.csv")
    assert "01_first/bad.ipynb" in read_table(tmp_path / "class.csv")[1][-1]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes in folders, and asks for rights to make links")
def test_links_and_pipes_are_not_opened(tmp_path):
    write(tmp_path / "secret" / "a.ipynb", lesson(answer=code(DONE, 1), check=code(CHECK, 2, "right: yes")))
    mine = tmp_path / "mine"
    mine.mkdir()
    os.mkfifo(mine / "pipe.ipynb")
    (mine / "link.ipynb").symlink_to(tmp_path / "secret" / "a.ipynb")
    (mine / "folder").symlink_to(tmp_path / "secret")
    found, remarks = states(mine)
    assert found == "missing" and len(remarks) == 2
    assert "link.ipynb is a link" in remarks[0] and "pipe.ipynb is not an ordinary file" in remarks[1]


def test_a_hostile_notebook_takes_no_time(tmp_path):
    many = 300_000
    sources = ["\n" * many + "def", " " * many, f"{CHECK}{' ' * many}x", f"checks.double({' ' * many}double",
               f"double{' ' * many}{':' * many}", "double: " * (many // 8), f"checks.{'a' * many}",
               "import " + "double " * (many // 7)]
    write(tmp_path / "a.ipynb", book(*[code(source, 1, "a") for source in sources],
                                     *[code(CHECK, 2, "right: yes")] * (files.MOST_CELLS - len(sources))))
    start = time.process_time()
    assert states(tmp_path) == ("solved", [])  # the last but the checks imports it
    assert time.process_time() - start < 5


def test_status_names_each_exercise_once(ask, tmp_path):
    ask("start", tmp_path / "mine")
    write(tmp_path / "mine" / PLACE, lesson(answer=code(DONE, 3), check=code(CHECK, 2, "right: yes")))
    write(tmp_path / "mine" / "02_second" / "02_triple.ipynb", lesson(
        2, "triple", answer=code("triple = 3", 1), check=code("checks.triple(triple)", 2, "right: yes")))
    assert ask("status", tmp_path / "mine").splitlines() == [
        "1.1 The lesson: 0 of 1 solved (01_first/01_double.ipynb)",
        "   1. twice as much (double): changed since it was run",
        "2.2 The lesson: 1 of 1 solved (02_second/02_triple.ipynb)",
        "   1. twice as much (triple): solved",
        "In all, 1 of 2 exercises are solved.",
        "Where something was changed since it was run: restart the kernel, run all cells, and save."]


def test_status_without_a_folder_says_how_to_get_one(ask, tmp_path):
    assert "start" in ask("status", tmp_path / "nowhere", code=2)
    (tmp_path / "empty").mkdir()
    said = ask("status", tmp_path / "empty")
    assert "missing" in said and "there is no notebook" in said


def test_too_many_files_give_a_sentence(ask, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST", 6)
    for number in range(7):
        write(tmp_path / "many" / f"{number}.txt", b"")
    assert "no folder of lessons" in ask("status", tmp_path / "many", code=2)


def test_nobodys_code_is_run(ask, tmp_path):
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')\n{DONE}"
    write(tmp_path / "ann" / "a.ipynb", lesson(answer=code(trap, 1), check=code(CHECK, 2, "right: yes")))
    write(tmp_path / "ann" / "01_first" / "__init__.py", trap.encode())
    ask("status", tmp_path / "ann")
    ask("export", tmp_path / "ann", "--out", tmp_path / "class.csv")
    assert not (tmp_path / "ran").exists()
    for path in [CODE / "__main__.py", *(CODE / "workbook").glob("*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        names |= {alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
        assert not names & {"exec", "eval", "compile", "__import__", "import_module", "runpy", "pickle", "subprocess"}


# export

def read_table(path: Path) -> list[list[str]]:
    data = path.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf") and b"\r" not in data
    return list(csv.reader(data.decode("utf-8-sig").splitlines()))


SOLVED = lesson(answer=code(DONE, 1), check=code(CHECK, 2, "right: yes"))


def test_a_class_is_a_row_a_learner_with_totals(ask, tmp_path):
    write(tmp_path / "class" / "Zoë" / "my-course" / PLACE, SOLVED)
    write(tmp_path / "class" / "ben" / "flat.ipynb", lesson(answer=code(DONE, 1), check=code(CHECK, 2, "not yet: no")))
    (tmp_path / "class" / "cem").mkdir()
    (tmp_path / "class" / "__MACOSX").mkdir()
    write(tmp_path / "class" / "list.txt", b"")
    said = ask("export", tmp_path / "class", "--out", tmp_path / "class.csv")
    assert read_table(tmp_path / "class.csv") == [
        ["learner", "solved", "of", "1.1 double", "2.2 triple", "remarks"],
        ["Zoë", "1", "2", "solved", "missing", ""],
        ["ben", "0", "2", "not yet", "missing", ""],
        ["cem", "0", "2", "missing", "missing", "there is no notebook"],
        ["all learners", "1", "6", "1", "0", ""]]
    assert "has 3 learners and 2 exercises; 1 of 6 are solved." in said and "Note: cem: there is no notebook." in said


def test_several_folders_and_names_that_are_alike(ask, tmp_path):
    for name in ("ann", "ben"):
        write(tmp_path / name / "my-course" / PLACE, SOLVED)
    write(tmp_path / "group" / "cem" / PLACE, SOLVED)
    folders = [tmp_path / "ann" / "my-course", tmp_path / "ben" / "my-course", tmp_path / "group"]
    ask("export", *folders, folders[0], "--out", tmp_path / "class.csv")
    table = read_table(tmp_path / "class.csv")
    assert [row[0] for row in table] == ["learner", "ann/my-course", "ben/my-course", "cem", "all learners"]
    assert table[-1][1:3] == ["3", "6"]


def test_a_working_copy_from_before_a_topic_was_renamed_is_one_learner(ask, tmp_path):
    write(tmp_path / "ann" / "01_its_old_name" / "01_double.ipynb", SOLVED)
    write(tmp_path / "ann" / ".course-copy.json", b"{}")
    ask("export", tmp_path / "ann", "--out", tmp_path / "class.csv")
    assert read_table(tmp_path / "class.csv")[1][:4] == ["ann", "1", "2", "solved"]


@pytest.mark.skipif(os.name == "nt", reason="Windows asks for rights to make links")
def test_a_link_among_the_learners_is_left_out(ask, tmp_path):
    write(tmp_path / "other" / PLACE, SOLVED)
    write(tmp_path / "class" / "ann" / PLACE, lesson())
    (tmp_path / "class" / "ben").symlink_to(tmp_path / "other")
    ask("export", tmp_path / "class", "--out", tmp_path / "class.csv")
    assert [row[0] for row in read_table(tmp_path / "class.csv")] == ["learner", "ann", "all learners"]


@pytest.mark.skipif(os.name == "nt", reason="Windows allows fewer names")
@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r=1", "＝1", "=1\n=2", '=1","=2'])
def test_no_name_becomes_a_formula(name, ask, tmp_path):
    write(tmp_path / "class" / name / f"{name}.ipynb", b"{")
    ask("export", tmp_path / "class", "--out", tmp_path / "class.csv")
    table = read_table(tmp_path / "class.csv")
    shown = re.sub(r"[\t\r\n]", " ", name)
    assert len(table) == 3 and table[1][0] == f"'{shown}"
    assert table[1][-1].startswith(f"'{shown}.ipynb is not a notebook")


def test_ordinary_names_stay_as_they_are():
    for name in ("Ann-Marie", "o'neil", "7", "José =", "李雷"):
        assert class_table._cell(name) == name


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_a_name_that_is_no_text_and_one_that_moves_the_cursor(ask, tmp_path):
    write(tmp_path / "class" / os.fsdecode(b"a\xff") / "a.ipynb", b"{")
    write(tmp_path / "class" / "b\x1b[2J" / "a.ipynb", b"{")
    said = ask("export", tmp_path / "class", "--out", tmp_path / "class.csv")
    assert "\x1b" not in said and [row[0] for row in read_table(tmp_path / "class.csv")][1:3] == ["a?", "b [2J"]


def test_semicolons_for_spreadsheets_that_write_1_5(ask, tmp_path):
    write(tmp_path / "ann" / PLACE, SOLVED)
    ask("export", tmp_path / "ann", "--out", tmp_path / "class.csv", "--semicolons")
    assert (tmp_path / "class.csv").read_text(encoding="utf-8-sig").splitlines()[1] == "ann;1;2;solved;missing;"


def test_only_a_class_table_is_replaced(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "ann" / PLACE, lesson())
    ask("export", "ann")
    write(tmp_path / "ann" / PLACE, SOLVED)
    ask("export", "ann")
    assert read_table(tmp_path / "class.csv")[1][1] == "1"
    write(tmp_path / "grades.csv", b"name,grade\nann,1\n")
    assert "is no class table" in ask("export", "ann", "--out", "grades.csv", code=2)
    assert (tmp_path / "grades.csv").read_bytes() == b"name,grade\nann,1\n"


def test_folders_that_hold_nobody(ask, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, words in (("empty", "neither lessons nor learners"), ("no", "there is no folder")):
        assert words in ask("export", tmp_path / name, "--out", tmp_path / "class.csv", code=2)
    assert "could not be written" in ask("export", tmp_path, "--out", tmp_path / "no" / "class.csv", code=2)
    assert not (tmp_path / "no").exists()
