"""Reading what anybody may have written, and writing whole or not at all."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from llm_core.programs import reason, write_whole

LARGEST = 20_000_000  # bytes of a notebook; a lesson has 0.1 million, and what is read takes about 25 times its size
MOST_CELLS = 2_000  # of a notebook; a lesson has a hundred
MOST = 20_000  # files and folders of one learner
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # what moves a terminal's cursor, or breaks a line


class Trouble(Exception):
    """What went wrong, as a sentence for the reader."""


def plain(said: str) -> str:
    """A text that somebody else may have chosen, as it can be shown on one line."""
    return CONTROL.sub(" ", said)


def read(path: Path, name: str = "", follow_links: bool = False) -> bytes:
    """The bytes of an ordinary file of at most LARGEST bytes. Trouble for all else: links, pipes, devices, giants."""
    name = name or str(path)
    try:
        kind = (path.stat() if follow_links else path.lstat()).st_mode
        if stat.S_ISLNK(kind):
            raise Trouble(f"{name} is a link, and links are not followed")
        if not stat.S_ISREG(kind):  # opening a pipe would wait for ever
            raise Trouble(f"{name} is not an ordinary file")
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as problem:
        raise Trouble(f"{name} could not be read ({reason(problem)})") from None
    if len(data) > LARGEST:
        raise Trouble(f"{name} has more than {LARGEST // 10**6} MB, which is too large for a lesson; "
                      "clear its outputs, and run it again")
    return data


def parse(data: bytes, name: str) -> dict:
    """A notebook in format 4 with well-formed cells. Trouble for anything else that the bytes may be."""
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except ValueError:  # also UnicodeDecodeError, and a number of thousands of digits
        raise Trouble(f"{name} is not a notebook: it is damaged, or not JSON at all") from None
    except (RecursionError, MemoryError):
        raise Trouble(f"{name} is not a notebook: it is nested too deeply") from None
    if not isinstance(found, dict) or not isinstance(found.get("cells"), list) or found.get("nbformat") != 4:
        raise Trouble(f"{name} is not a notebook that is known here: format 4, with a list of cells, is needed")
    if len(found["cells"]) > MOST_CELLS:
        raise Trouble(f"{name} has more than {MOST_CELLS:,} cells, which is no lesson")
    for number, cell in enumerate(found["cells"], 1):
        if not isinstance(cell, dict) or not isinstance(cell.get("cell_type"), str) or not _is_text(cell.get("source")):
            raise Trouble(f"{name} is not a notebook: its cell {number} has no type or no text")
    return found


def _is_text(value) -> bool:
    return isinstance(value, str) or isinstance(value, list) and all(isinstance(line, str) for line in value)


def text(value) -> str:
    """A text as notebooks hold it, a string or a list of lines; "" for anything else."""
    return value if isinstance(value, str) else "".join(value) if _is_text(value) else ""


def below(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Files under a folder in a fixed order, without hidden ones and without following linked folders.

    Trouble if there are more than MOST of them.
    """
    seen, stopped = 0, []
    for place, folders, files in os.walk(folder, onerror=stopped.append):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        seen += len(folders) + len(files)
        if seen > MOST:
            raise Trouble(f"{folder} has more than {MOST:,} files, which is no folder of lessons")
        for name in sorted(files):
            if not name.startswith(".") and name.endswith(suffix):
                yield Path(place, name)
    if stopped:
        raise Trouble(f"{stopped[0].filename} could not be read ({reason(stopped[0])})")


def write(path: Path, data: bytes, new_folders: bool = False) -> None:
    """Write a file whole, or leave what was there. Trouble with a sentence if there is no room or no right."""
    try:
        if new_folders:
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as problem:
        raise Trouble(f"{path} could not be written ({reason(problem)}); what was there before is as it was") from None
