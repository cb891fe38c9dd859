"""JSON that somebody brings, read strictly: a text means one thing to everybody, or it is refused with a sentence.

Whatever the text holds, reading it takes no more memory than its own size asks for, and no other file is opened.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llm_core.validation import shown

LONGEST_NUMBER = 40  # digits


def parse(text: str | bytes, subject: str = "this") -> Any:
    """The value that a JSON text stands for. ValueError for what readers of JSON take in different ways: a key that is
    there twice, NaN and Infinity, numbers without end, nesting without end; and for bytes that are no UTF-8."""
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        # Windows puts a mark in front of a text, which json would refuse.
        return json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_once_each, parse_constant=_refuse_constant,
                          parse_int=_int, parse_float=_float)
    except UnicodeDecodeError:
        why = "it is no text in UTF-8"
    except json.JSONDecodeError as error:
        why = f"line {error.lineno}, column {error.colno}: {error.msg}"
    except RecursionError:
        why = "it is nested far too deep"
    except ValueError as error:  # ours, from below
        why = str(error)
    raise ValueError(f"{subject} is not JSON: {why}")


def read_object(path: Path, most_bytes: int) -> dict[str, Any]:
    """The JSON object in a file. ValueError for anything else, and for a file too long to be what it is called."""
    label = label_of(path)
    size = path.stat().st_size
    if size > most_bytes:
        raise ValueError(f"{label} has {size:,} bytes, and of such a file at most {most_bytes:,} are read")
    data = parse(path.read_bytes(), label)
    if not isinstance(data, dict):
        raise ValueError(f"{label} must be a JSON object, not {shown(data)}")
    return data


def label_of(path: Path) -> str:
    """A file for a message: with its folder, but not where on this machine that is."""
    return f"{path.parent.name}/{path.name}".lstrip("/")


def inside(folder: Path, name: str) -> Path:
    """The path of a folder's file. ValueError if that is a link to a file elsewhere: a folder that somebody sends must
    not choose which of this machine's files are read.

    The hub's own cache keeps its files in blobs/, beside the snapshots that hold links to them.
    """
    path = folder / name
    if path.is_file():
        home = folder.resolve()
        homes = {home, home.parents[1] / "blobs"} if home.parent.name == "snapshots" else {home}
        if path.resolve().parent not in homes:
            raise ValueError(f"{label_of(path)} is a link to a file outside its folder, which is not followed; put the "
                             "file itself there")
    return path


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        met: set[str] = set()
        twice = next(name for name, _ in pairs if name in met or met.add(name))
        raise ValueError(f"the key {shown(twice)} is there twice, and nobody can say which of the two counts")
    return out


def _refuse_constant(name: str):
    raise ValueError(f"{name} is no number in JSON")


def _int(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} digits is no size of a model")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:LONGEST_NUMBER]} is larger than any number that can be held")
    return value
