"""A working copy of the lessons, which an update of the course refreshes without touching a learner's work.

A hidden file in the copy, MANIFEST, keeps two hashes of each file as the course last gave it: of its bytes, and of a
notebook's words, which are its cells without their outputs. So a notebook that was run but not changed counts as
untouched, and a course that only ran a lesson again has not changed it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import quote

from llm_core.checks.workbook import files
from llm_core.checks.workbook.files import Trouble

MANIFEST = ".course-copy.json"
LINK = re.compile(r"(\]\()(\.\.?/[^)\s\"\\#?]+)")  # a link to a file, in Markdown or in a notebook's JSON
Marks = dict[str, str]  # {"bytes": hash, "words": hash}


def copy(course: Path, folder: Path, made_by: str, change: Callable[[bytes, str], bytes]) -> Iterator[str]:
    """Bring folder up to date with course, and yield a line for each file that something was done with, or kept.

    made_by: the command, so that two commands do not work on one folder. change(bytes, name): what a notebook becomes
    on its way. Trouble if something cannot be read or written; what was written before that stays, and is remembered.
    """
    known, beside = _manifest(folder, made_by)
    before = json.dumps([known, beside])
    same, current = 0, set()
    try:
        for source in files.below(course):
            place = source.relative_to(course).as_posix()
            current.add(place)
            new = _prepared(files.read(source, follow_links=True), PurePosixPath(place), course, folder, change)
            line = _one(folder, place, new, known, beside)
            if line:
                yield line
            else:
                same += 1
    finally:
        if json.dumps([known, beside]) != before:
            about = f"Written by python -m llm_core.checks {made_by}. It tells your work from the course's."
            manifest = {"about": about, "made_by": made_by, "files": known, "beside": beside}
            files.write(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    for place in sorted(known.keys() - current):
        if (folder / place).exists():
            yield f"left: {place}. It is no longer part of the course, and stays as it is"
    if same:
        yield f"{same} {'file is as it was' if same == 1 else 'files are as they were'}"


def _one(folder: Path, place: str, new: bytes, known: dict[str, Marks], beside: dict[str, Marks]) -> str:
    """Do what one file needs, and remember it; a line about it, "" if it is as it was."""
    path, was, now = folder / place, known.get(place), marks(new)
    if not os.path.lexists(path):
        files.write(path, new, new_folders=True)
        known[place] = now
        return f"back: {place}. It was gone" if was else f"new: {place}"
    mine = _marks_of(path)
    if mine["bytes"] == now["bytes"]:
        known[place] = now
        return ""
    if was and _untouched(mine, was):
        if now == was:
            return ""  # run by the learner, and not changed by anybody
        files.write(path, new, new_folders=True)
        known[place] = now
        return f"updated: {place}"
    if was and now["words"] == was["words"]:
        return f"yours: {place}. You changed it, and the course did not"
    if mine["words"] == now["words"]:
        known[place] = now
        return ""  # the learner took over the new one, and ran it
    name = _beside(folder, place, new, beside)
    known[place] = now  # not before: if it could not be written, the next start must not think it was given
    who = "you and the course changed it" if was else "it was there before"
    return f"kept: {place}, as {who}. The course's new one is beside it: {name}"


def _beside(folder: Path, place: str, new: bytes, beside: dict[str, Marks]) -> str:
    """Put the new one beside the learner's, as NAME.new.ipynb, without touching one that was changed; its name."""
    path, number = PurePosixPath(place), 1
    while True:
        name = f"{path.stem}.new{'' if number == 1 else f'-{number}'}{path.suffix}"
        there = str(path.with_name(name))
        old = _marks_of(folder / there) if os.path.lexists(folder / there) else None
        if old is None or (there in beside and _untouched(old, beside[there])) or old == marks(new):
            files.write(folder / there, new)
            beside[there] = marks(new)
            return name
        number += 1


def marks(data: bytes) -> Marks:
    """Two hashes: of all bytes, and of a notebook's cells without their outputs. Equal ones for what is no notebook."""
    whole = hashlib.sha256(data).hexdigest()
    try:
        cells = files.parse(data, "")["cells"]
    except Trouble:
        return {"bytes": whole, "words": whole}
    words = json.dumps([[cell["cell_type"], files.text(cell["source"]), cell.get("attachments")] for cell in cells])
    return {"bytes": whole, "words": hashlib.sha256(words.encode()).hexdigest()}


def _marks_of(path: Path) -> Marks:
    """Of a file in the copy. One that cannot be read, or has grown too large, is like nothing that the course gave."""
    try:
        return marks(files.read(path, follow_links=True))
    except Trouble:
        return {"bytes": "", "words": ""}


def _untouched(mine: Marks, was: Marks) -> bool:
    return mine["bytes"] == was["bytes"] or mine["words"] == was["words"]


def _manifest(folder: Path, made_by: str) -> tuple[dict[str, Marks], dict[str, Marks]]:
    """What the course last gave this folder; nothing where that file is missing or damaged, so that all is kept."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}, {}
    try:
        found = json.loads(files.read(path))
    except (Trouble, ValueError, RecursionError):
        return {}, {}
    found = found if isinstance(found, dict) else {}
    other = found.get("made_by")
    if isinstance(other, str) and other != made_by:
        raise Trouble(f"{folder} was made by `{other}`, and `{made_by}` would mix two kinds of lessons in it; "
                      f"give it another folder, or use `{other}` again")
    return _marks_in(found.get("files")), _marks_in(found.get("beside"))


def _marks_in(value) -> dict[str, Marks]:
    return {place: marks for place, marks in (value if isinstance(value, dict) else {}).items()
            if isinstance(marks, dict) and marks.keys() == {"bytes", "words"}}


def _prepared(data: bytes, place: PurePosixPath, course: Path, folder: Path, change: Callable[[bytes, str], bytes]
              ) -> bytes:
    """A file as it will stand in folder: changed, and its links out of the course aimed at the same files as before."""
    if place.suffix == ".ipynb":
        data = change(data, str(place))
    if place.suffix not in (".md", ".ipynb"):
        return data

    def aimed(match: re.Match) -> str:
        target = Path(os.path.normpath(course / place.parent / match[2]))
        if target.is_relative_to(course) or not target.exists():
            return match[0]
        try:
            way = os.path.relpath(target, folder / place.parent)
        except ValueError:  # on another drive of Windows
            return match[0]
        return match[1] + quote(PurePath(way).as_posix())

    return LINK.sub(aimed, data.decode("utf-8")).encode("utf-8")
