"""`python -m llm_core.checks student`: lessons without their solutions; and the real lessons, through each command."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from llm_core import checks
from llm_core.checks.__main__ import main
from llm_core.checks.workbook import results
from tests.small_course import PLACE, asker, book, code, contents, lesson, make_course, prose, write


@pytest.fixture
def course(tmp_path):
    return make_course(tmp_path)


@pytest.fixture
def ask(course, capsys):
    return asker(course, capsys)


def sources(data: bytes, kind: str) -> list[str]:
    return [cell["source"] for cell in nbformat.reads(data.decode(), 4).cells if cell["cell_type"] == kind]


@pytest.mark.parametrize("hints", [True, False])
def test_a_handout_has_no_solutions(hints, ask, tmp_path):
    ask("student", tmp_path / "out", *([] if hints else ["--without-hints"]))
    data = contents(tmp_path / "out")[PLACE]
    nbformat.validate(nbformat.reads(data.decode(), 4))
    assert "(★, 5 min)".encode() in data  # as notebooks are saved: a reader of the file sees the letters
    text = "\n".join(sources(data, "markdown"))
    assert "Solution" not in text and "x + x" not in text and "Many others" not in text
    assert ("<summary>Hint</summary>\n\nTwice." in text) == hints
    assert text.count("<details>") == text.count("</details>") == hints
    assert text.endswith("## 7. See it\n\nSoon.")
    words = "solutions are" if hints else "hints and solutions are"
    assert f"## 6. Exercises\n\n*This copy was made for a class: {words} not in it.*\n\nDo them." in text


def test_a_handout_is_refreshed_as_a_working_copy_is(ask, course, tmp_path):
    ask("student", tmp_path / "out")
    write(course / PLACE, lesson(more="Better."))
    assert f"updated: {PLACE}." in ask("student", tmp_path / "out")
    said = ask("start", tmp_path / "out", code=2)  # it would bring the solutions in
    assert "was made by `student`" in said and b"Solution" not in contents(tmp_path / "out")[PLACE]
    assert "was made by `student`" in ask("student", tmp_path / "out", "--without-hints", code=2)


@pytest.mark.parametrize(("text", "left"), [
    ("a\n\n<details><summary>Solution</summary>\n<details><summary>Why</summary>b</details></details>\n\nd", "a\n\nd"),
    ("<details open>\n<summary> Solution </summary>b</details>\n\nd", "d"),
    ("<DETAILS><SUMMARY>solution</SUMMARY>b</DETAILS> d", "d"),
    ("<details><summary>More</summary>b <details><summary>Solution</summary>c</details></details>",
     "<details><summary>More</summary>b\n\n</details>"),
    ("<details><summary>More</summary>Solution</details>", "<details><summary>More</summary>Solution</details>"),
    ("<details><summary>Solution</summary>b</details>", None),
])
def test_folds_are_cut_whole(text, left, ask, course, tmp_path):
    write(course / PLACE, book(prose(text), code("1", 1)))
    ask("student", tmp_path / "out")
    assert sources(contents(tmp_path / "out")[PLACE], "markdown") == ([left] if left else [])


@pytest.mark.parametrize("text", ["<details><summary>Solution</summary>b", "<summary>Solution</summary>b</details>"])
def test_a_fold_without_an_end_stops_a_handout(text, ask, course, tmp_path):
    write(course / PLACE, book(prose(text)))
    assert "it cannot be told where a solution ends" in ask("student", tmp_path / "out", code=2)
    assert PLACE not in contents(tmp_path / "out")


# The real course

COURSE = Path(__file__).resolve().parents[1] / "course"
FIRST = "01_architecture/01_journey_of_a_token.ipynb"


def test_every_exercise_of_the_course_is_known():
    assert {e.name for lesson in results.lessons(COURSE) for e in lesson.exercises} == set(checks.__all__)


@pytest.mark.parametrize("more", [[], ["--without-hints"]])
def test_the_real_lessons_as_a_handout(more, tmp_path):
    assert main(["student", str(tmp_path / "out"), *more]) == 0
    for path in sorted((tmp_path / "out").glob("*/*.ipynb")):
        mine = json.loads(path.read_bytes())
        whole = json.loads((COURSE / path.relative_to(tmp_path / "out")).read_bytes())
        nbformat.validate(nbformat.read(path, 4))
        assert [c for c in mine["cells"] if c["cell_type"] == "code"] == [
            c for c in whole["cells"] if c["cell_type"] == "code"]  # so it runs as the lesson does, outputs kept
        text = "\n".join("".join(c["source"]) for c in mine["cells"] if c["cell_type"] == "markdown")
        folded = "\n".join("".join(c["source"]) for c in whole["cells"] if c["cell_type"] == "markdown")
        solutions = re.findall(r"<summary>Solution</summary>\s*```python\n(.*?)```", folded, re.DOTALL)
        assert solutions and not any(solution in text for solution in solutions)
        assert "<summary>Solution" not in text and text.count("<summary>Hint") == (0 if more else len(solutions))
        assert re.findall(r"^#+ .*$", text, re.MULTILINE) == re.findall(r"^#+ .*$", re.sub(
            r"```.*?```", "", folded, flags=re.DOTALL), re.MULTILINE)


def test_the_first_lesson_solved_and_not(tmp_path, capsys):
    assert main(["start", str(tmp_path / "mine")]) == 0
    path = tmp_path / "mine" / FIRST
    notebook = json.loads(path.read_bytes())
    cells = {"".join(cell["source"]): cell for cell in notebook["cells"]}
    stub, check = cells["def layer_norm(x, weight, bias):\n    ..."], cells["checks.layer_norm(layer_norm)"]
    stub["source"] = "def layer_norm(x, weight, bias):\n    return F.layer_norm(x, weight.shape, weight, bias)"
    check["outputs"][0]["text"] = ["right: the same as PyTorch's\n"]
    path.write_text(json.dumps(notebook), encoding="utf-8")
    capsys.readouterr()
    assert main(["status", str(tmp_path / "mine")]) == 0
    said = capsys.readouterr().out
    assert "1.1 The journey of a token: 1 of 5 solved (" in said
    assert "2. layer norm from memory (layer_norm): solved" in said and "(count_gpt): not solved yet" in said
