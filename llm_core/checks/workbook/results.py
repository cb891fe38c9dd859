"""What the check cells of a folder of lessons said, and whether it still holds. Nothing is run.

A check cell stores the line that it printed: "right: …", "not yet: …", "not solved yet". That line counts as long as
the notebook itself does not speak against it. It does when
- the check cell or the cell with the function carries no number, or the function's number is the higher one: it was run
  again, or changed and not run, after the check;
- the check said "right" and the function is the empty stub, or gone.
Then the exercise is "changed since it was run". What no file can tell: a cell that was edited and not run again keeps
its number. And a notebook is a text file, whose lines can be typed by hand: a picture of progress, and no exam.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from llm_core.checks.workbook import files
from llm_core.checks.workbook.files import Trouble

SOLVED, CHANGED, NOT_YET, STOPPED, UNSOLVED, NOT_RUN, MISSING = STATES = (
    "solved", "changed since it was run", "not yet", "stopped with an error", "not solved yet", "not run", "missing")
SAID = {"right: ": SOLVED, "not yet: ": NOT_YET, "not solved yet": UNSOLVED}  # a check's line -> what it means

# Strangers' texts are searched: each pattern stays on one line, and takes time in proportion to its length.
CALL = re.compile(r"checks\.(\w+)\( *(\w+) *\)[ ;]*(?:#.*)?")
MAKES = re.compile(r"^[ \t]*(?:def[ \t]+(\w+)|(\w+)[ \t]*(?::[^=\n]*)?=(?!=)|(?:from|import)\b(.*))", re.MULTILINE)
HEADING = re.compile(r"^### Exercise (\d+) \([^)]*\): (.+)$", re.MULTILINE)
BESIDE = re.compile(r"\.new(-\d+)?")  # how a name ends that an update of the course put beside a learner's
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Exercise:
    name: str  # of its check, which no other exercise of the course has
    title: str
    stub: str


@dataclass(frozen=True)
class Lesson:
    number: str  # of the topic and in it, as its file says: "1.2"
    place: str  # in the course, "01_architecture/01_journey_of_a_token.ipynb"
    title: str
    exercises: tuple[Exercise, ...]


def lessons(course: Path) -> list[Lesson]:
    """The lessons that have exercises, in their order."""
    found = []
    for path in files.below(course, ".ipynb"):
        cells = files.parse(files.read(path, follow_links=True), path.name)["cells"]
        prose = "\n\n".join(files.text(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        calls = [(position, name) for position, cell in enumerate(cells) if (name := checked(cell))]
        titles = [match[2].strip() for match in HEADING.finditer(prose)]
        titles += [name for _, name in calls[len(titles):]]
        exercises, made = [], _made(cells, {name for _, name in calls})
        for (position, name), title in zip(calls, titles):
            answer = _answer(cells, position, made.get(name, []))
            exercises.append(Exercise(name, title, files.text(answer["source"]).strip() if answer else ""))
        if exercises:
            place = path.relative_to(course).as_posix()
            title = match[1].strip() if (match := TITLE.search(prose)) else path.stem
            found.append(Lesson(_numbered(place), place, title, tuple(exercises)))
    return found


def _numbered(place: str) -> str:
    """"01_architecture/02_tokenisation.ipynb" -> "1.2"."""
    return ".".join(str(int(match[0])) if (match := re.match(r"\d+", part)) else part for part in place.split("/"))


def results(folder: Path, exercises: list[Exercise]) -> tuple[dict[str, str], list[str]]:
    """Exercise name -> one of STATES, from all notebooks under folder, wherever they lie; and remarks, as sentences.

    Where an exercise stands in several notebooks, the best one counts.
    """
    wanted = {exercise.name: exercise for exercise in exercises}
    found: dict[str, list[str]] = {}
    remarks, answered, any_there = [], Counter(), False
    for path in files.below(folder, ".ipynb"):
        any_there = True
        place = path.relative_to(folder).as_posix()
        try:
            cells = files.parse(files.read(path, place), place)["cells"]
        except Trouble as problem:
            remarks.append(str(problem))
            continue
        here = _in_notebook(cells, wanted)
        for name, states in here.items():
            found.setdefault(name, []).extend(states)
        if not BESIDE.fullmatch(Path(path.stem).suffix):
            answered.update(here.keys())
    if not any_there:
        remarks.append("there is no notebook")
    if any(count > 1 for count in answered.values()):
        remarks.append("some exercises are in several notebooks, of which the best counts")
    return {name: min(found.get(name, [MISSING]), key=STATES.index) for name in wanted}, remarks


def _in_notebook(cells: list[dict], wanted: dict[str, Exercise]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    made = _made(cells, wanted)
    for position, cell in enumerate(cells):
        name = checked(cell)
        if name in wanted:
            found.setdefault(name, []).append(
                _state(cell, _answer(cells, position, made.get(name, [])), wanted[name].stub))
    return found


def checked(cell: dict) -> str | None:
    """The exercise whose check a cell calls in its last line: `checks.NAME(NAME)`."""
    lines = files.text(cell["source"]).strip().splitlines()
    match = CALL.fullmatch(lines[-1].strip()) if lines and cell["cell_type"] == "code" else None
    return match[1] if match and match[1] == match[2] else None


def _made(cells: list[dict], wanted: Container[str]) -> dict[str, list[int]]:
    """Name -> the code cells that define, assign or import it. wanted: the names that matter."""
    made: dict[str, list[int]] = {}
    for position, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            names = set()
            for defined, assigned, imported in MAKES.findall(files.text(cell["source"])):
                names |= {defined or assigned} if defined or assigned else set(re.findall(r"\w+", imported))
            for name in filter(wanted.__contains__, names):
                made.setdefault(name, []).append(position)
    return made


def _answer(cells: list[dict], position: int, makers: list[int]) -> dict | None:
    """The cell with the function that a check saw: the last one up to the check's cell, else the first one after it."""
    before = bisect_right(makers, position)
    return cells[makers[max(before - 1, 0)]] if makers else None


def _state(check: dict, answer: dict | None, stub: str) -> str:
    said, failed = _said(check)
    if not said and not failed:
        return NOT_RUN
    if failed:
        return STOPPED
    ran, ran_answer = _number(check), _number(answer or {})
    if ran is None or ran_answer is None or ran_answer > ran:
        return CHANGED
    state = next((state for line, state in SAID.items() if said.startswith(line)), STOPPED)
    return CHANGED if state == SOLVED and files.text(answer["source"]).strip() == stub else state


def _said(cell: dict) -> tuple[str, bool]:
    """The last line that a cell printed, and whether it ended in an error."""
    printed, failed = [], False
    outputs = cell.get("outputs")
    for output in outputs if isinstance(outputs, list) else []:
        if isinstance(output, dict) and output.get("output_type") == "stream" and output.get("name") == "stdout":
            printed.append(files.text(output.get("text")))
        failed = failed or isinstance(output, dict) and output.get("output_type") == "error"
    lines = "".join(printed).strip().splitlines()
    return lines[-1] if lines else "", failed


def _number(cell: dict) -> int | None:
    count = cell.get("execution_count")
    return count if isinstance(count, int) and not isinstance(count, bool) else None
