"""Checkpoints of a run: whole or not at all, and the last good one always there.

A checkpoint is a folder, step-00000500, with tensors.safetensors and facts.json. It is written under another name,
forced to the disk, and only then given its own; whatever stops the program in between leaves the one before untouched.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

KEPT = 2  # the last one, and one more in case a disk spoils it
NAME = re.compile(r"step-(\d{8})")


def save(folder: Path, step: int, tensors: dict[str, Tensor], facts: dict) -> None:
    """Write folder/step-…, then drop all but the last KEPT. OSError with a sentence if there is no room or no right."""
    place, part = folder / f"step-{step:08d}", folder / "part"
    try:
        shutil.rmtree(part, ignore_errors=True)  # of a run that was stopped while it wrote
        part.mkdir(parents=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part / "tensors.safetensors")
        (part / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        for path in (part / "tensors.safetensors", part / "facts.json", part):
            _to_disk(path)
        shutil.rmtree(place, ignore_errors=True)  # a damaged one of this name
        part.rename(place)
        _to_disk(folder)
    except (OSError, safetensors.SafetensorError) as problem:
        shutil.rmtree(part, ignore_errors=True)
        raise OSError(f"the checkpoint of step {step:,} could not be written to {folder} ({_reason(problem)}); "
                      f"{_last_good(folder)}") from None
    for old in steps(folder)[:-KEPT]:
        shutil.rmtree(folder / f"step-{old:08d}", ignore_errors=True)


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that are there, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for path in folder.iterdir() if (match := NAME.fullmatch(path.name)))


def latest(folder: Path) -> tuple[dict[str, Tensor], dict] | None:
    """Tensors and facts of the newest checkpoint that can be read; None if there is none at all.

    ValueError if there are some and none can be read.
    """
    found = steps(folder)
    for step in reversed(found):
        place = folder / f"step-{step:08d}"
        try:
            facts = json.loads((place / "facts.json").read_text(encoding="utf-8"))
            return load_file(place / "tensors.safetensors"), facts
        except (OSError, ValueError, safetensors.SafetensorError):
            continue  # spoilt on the disk: the one before will do
    if found:
        raise ValueError(f"none of the {len(found)} checkpoints in {folder} can be read; "
                         "delete the folder to begin anew")
    return None


def _to_disk(path: Path) -> None:
    """fsync: what the system still keeps in memory goes to the disk. Windows knows it for files alone."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(problem: Exception) -> str:
    """What went wrong, in the system's own words. safetensors' writer hands the system's number on in its text."""
    number = getattr(problem, "errno", None)
    if number is None and (match := re.search(r"os error (\d+)", str(problem))):
        number = int(match[1])
    return os.strerror(number) if number in errno.errorcode else str(problem)


def _last_good(folder: Path) -> str:
    found = steps(folder)
    return f"the last good one, of step {found[-1]:,}, is untouched" if found else "there is none yet"
