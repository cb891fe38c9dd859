"""A class as a CSV file: a row a learner, a column an exercise.

Comma, quotes where needed, UTF-8 with a byte order mark: Excel takes a file without the mark for an old Windows code
page and spoils "Zoë"; LibreOffice, Google Sheets, Numbers and pandas read it with the mark just as well.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from pathlib import Path

from llm_core.checks.workbook import files, results
from llm_core.checks.workbook.copies import MANIFEST
from llm_core.checks.workbook.files import Trouble

FIRST = ["learner", "solved", "of"]
TOTAL = "all learners"
FORMULA = tuple("=+-@＝＋－＠")  # what a spreadsheet would calculate instead of show


def learners(folders: list[Path], lessons: list[results.Lesson]) -> dict[str, Path]:
    """Name -> folder. A folder that holds no lessons itself is taken for the parent of learners' folders.

    Hidden folders and links in a parent are left out.
    """
    found: list[Path] = []
    topics = {lesson.place.split("/")[0] for lesson in lessons}
    for folder in folders:
        if not folder.is_dir():
            raise Trouble(f"there is no folder {folder}")
        try:
            inside = sorted(folder.iterdir())
        except OSError as problem:
            raise Trouble(f"{folder} could not be read ({files.reason(problem)})") from None
        own = any(p.suffix == ".ipynb" or p.name == MANIFEST or p.name in topics and p.is_dir() for p in inside)
        children = [] if own else [p for p in inside if p.is_dir() and not p.is_symlink()
                                   and not p.name.startswith((".", "__"))]
        if not own and not children:
            raise Trouble(f"{folder} holds neither lessons nor learners' folders")
        found += [folder] if own else children
    return _named([Path(os.path.abspath(folder)) for folder in found])


def _named(folders: list[Path]) -> dict[str, Path]:
    """A folder's name, with as much of the path before it as tells it from the others, and the folder."""
    parts = dict.fromkeys(folders, 1)
    while True:
        names = {folder: "/".join(folder.parts[-count:]) for folder, count in parts.items()}
        often = Counter(names.values())
        alike = [folder for folder, name in names.items() if often[name] > 1 and parts[folder] < len(folder.parts)]
        if not alike:
            return {name: folder for folder, name in names.items()}
        for folder in alike:
            parts[folder] += 1


def rows(people: dict[str, Path], lessons: list[results.Lesson]) -> list[list[str | int]]:
    """The table with its heading, its last row the totals. A column an exercise: its state in words."""
    exercises = [exercise for lesson in lessons for exercise in lesson.exercises]
    columns = [f"{lesson.number} {exercise.name}" for lesson in lessons for exercise in lesson.exercises]
    table: list[list[str | int]] = [[*FIRST, *columns, "remarks"]]
    solved = Counter()
    for name, folder in people.items():
        try:
            states, remarks = results.results(folder, exercises)
        except Trouble as problem:
            states, remarks = dict.fromkeys((e.name for e in exercises), results.MISSING), [str(problem)]
        right = [e.name for e in exercises if states[e.name] == results.SOLVED]
        solved.update(right)
        table.append([name, len(right), len(exercises), *(states[e.name] for e in exercises), "; ".join(remarks)])
    table.append([TOTAL, sum(solved.values()), len(exercises) * len(people), *(solved[e.name] for e in exercises), ""])
    return table


def as_csv(table: list[list[str | int]], separator: str = ",") -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=separator, lineterminator="\n").writerows([[_cell(v) for v in row] for row in table])
    return b"\xef\xbb\xbf" + out.getvalue().encode("utf-8", errors="replace")


def _cell(value: str | int) -> str | int:
    """A value that a spreadsheet shows and never calculates."""
    if isinstance(value, int):
        return value
    shown = files.plain(value)
    return f"'{shown}" if shown.lstrip().startswith(FORMULA) else shown


def save(table: list[list[str | int]], out: Path, separator: str = ",") -> None:
    """Write the table. A file of that name is replaced only if it is such a table itself. Trouble otherwise."""
    if os.path.lexists(out):
        start = files.read(out, follow_links=True).decode("utf-8-sig", errors="replace")
        if not re.match(r"learner[,;]solved[,;]of[,;\n]", start):
            raise Trouble(f"{out} is there already and is no class table; give another name with --out")
    files.write(out, as_csv(table, separator))
