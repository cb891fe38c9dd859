"""Checkpoints of a run: whole or not at all, and the last good one always there.

A checkpoint is a folder, step-00000500, with facts.json and a safetensors file from each rank. Each rank writes the
parts of tensors that it holds, and reads those that it needs, from whichever file has them, so four ranks' checkpoint
opens in one and the other way round: PyTorch's torch.distributed.checkpoint does that. The folder is written under
another name, forced to the disk, and only then given its own; whatever stops the program in between leaves the one
before untouched.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import safetensors
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader, HuggingFaceStorageWriter

from llm_core.checkpoint.safetensors_files import system_error
from llm_core.training.ranks import ALONE, Ranks

KEPT = 2  # the last one, and one more in case a disk spoils it
NAME = re.compile(r"step-(\d{8})")
Sizes = dict[str, Tensor]  # what a checkpoint holds, as tensors without numbers (device "meta")

logging.getLogger("torch.distributed.checkpoint").setLevel(logging.ERROR)


def save(folder: Path, step: int, tensors: dict[str, Tensor], facts: dict, ranks: Ranks = ALONE) -> None:
    """Write folder/step-…, then drop all but the last KEPT. All ranks call it, each with its own part of the tensors.

    OSError with a sentence, on every rank, if there is no room or no right.
    """
    place, part = folder / f"step-{step:08d}", folder / "part"
    problem = _tried(_make, part) if ranks.first else ""
    problem = ranks.told(problem) or ranks.told(_tried(_write, part, tensors, ranks))
    if ranks.first and not problem:
        problem = _tried(_finish, part, place, facts)
    problem = ranks.told(problem)
    if problem:
        if ranks.first:
            shutil.rmtree(part, ignore_errors=True)
        raise OSError(f"the checkpoint of step {step:,} could not be written to {folder} ({problem}); "
                      f"{_last_good(folder)}")
    if ranks.first:
        for old in steps(folder)[:-KEPT]:
            shutil.rmtree(folder / f"step-{old:08d}", ignore_errors=True)


def _make(part: Path) -> None:
    shutil.rmtree(part, ignore_errors=True)  # of a run that was stopped while it wrote
    part.mkdir(parents=True)


def _write(part: Path, tensors: dict[str, Tensor], ranks: Ranks) -> None:
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that one process is alone, it is told
        dcp.save(tensors, storage_writer=HuggingFaceStorageWriter(str(part), save_distributed=True),
                 no_dist=ranks.size == 1)


def _read(place: Path, tensors: dict[str, Tensor], ranks: Ranks) -> None:
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        dcp.load(tensors, storage_reader=HuggingFaceStorageReader(str(place)), no_dist=ranks.size == 1)


def _finish(part: Path, place: Path, facts: dict) -> None:
    (part / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    for path in (*part.iterdir(), part):
        _to_disk(path)
    shutil.rmtree(place, ignore_errors=True)  # a damaged one of this name
    part.rename(place)
    _to_disk(place.parent)


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that are there, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for path in folder.iterdir() if (match := NAME.fullmatch(path.name)))


def latest(folder: Path, places: Callable[[Sizes, dict], dict[str, Tensor]] | None = None, ranks: Ranks = ALONE
           ) -> tuple[dict[str, Tensor], dict] | None:
    """Tensors and facts of the newest checkpoint that can be read; None if there is none at all.

    places(sizes, facts): the tensors to be filled, by name, each as this rank holds it; all of them, whole, if not
    given. ValueError if there are checkpoints and none can be read.
    """
    found = steps(folder)
    for step in reversed(found):
        place = folder / f"step-{step:08d}"
        try:
            facts, sizes = json.loads((place / "facts.json").read_text(encoding="utf-8")), _sizes(place)
        except (OSError, ValueError, safetensors.SafetensorError):
            continue  # spoilt on the disk: the one before will do
        tensors = places(sizes, facts) if places else {name: torch.empty_like(size, device="cpu")
                                                       for name, size in sizes.items()}
        try:
            _read(place, tensors, ranks)
        except CheckpointException:
            continue
        return tensors, facts
    if found:
        raise ValueError(f"none of the {len(found)} checkpoints in {folder} can be read; "
                         "delete the folder to begin anew")
    return None


def _sizes(place: Path) -> Sizes:
    about = HuggingFaceStorageReader(str(place)).read_metadata().state_dict_metadata
    return {name: torch.empty(of.size, dtype=of.properties.dtype, device="meta") for name, of in about.items()}


def _to_disk(path: Path) -> None:
    """fsync: what the system still keeps in memory goes to the disk. Windows knows it for files alone."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _tried(action: Callable, *arguments) -> str:
    """Do it; the reason if it cannot be done, else ''."""
    try:
        action(*arguments)
    except CheckpointException as problem:  # some rank's: its reason speaks for all
        return _reason(next(iter(problem.failures.values()))[0])
    except (OSError, safetensors.SafetensorError) as problem:
        return _reason(problem)
    return ""


def _reason(problem: BaseException) -> str:
    """What went wrong, in the system's own words."""
    number = getattr(system_error(problem) or problem, "errno", None)
    return os.strerror(number) if number in errno.errorcode else str(problem)


def _last_good(folder: Path) -> str:
    found = steps(folder)
    return f"the last good one, of step {found[-1]:,}, is untouched" if found else "there is none yet"
