"""The tensors of a folder, in one safetensors file or in many with an index, read a piece at a time.

safetensors is a header of names, types, shapes and places, then the numbers: nothing in it can run. Numbers come out
in 32 bits whatever they are stored in: F32, BF16, F16, or F8_E4M3 with a scale for each block of 128 x 128, as
DeepSeek-V3 is published (arXiv:2412.19437, section 3.3). Pieces are small, and the file is closed again behind every
few of them: a file that stays open counts as the process's memory, page for page.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llm_core.hf_config import inside, read_object
from llm_core.quantization.fp8 import dequantize_blocks
from llm_core.validation import plain, shown

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
STORED = ("F32", "BF16", "F16", "F8_E4M3")
FP8, SCALE = "F8_E4M3", "_scale_inv"  # weight and weight_scale_inv: the factor that gives the numbers back
BLOCK = 128
PIECE = 4 * 2**20  # bytes
OPEN_FOR = 16 * 2**20  # bytes, then closed and opened again
MOST_INDEX_BYTES = 16 * 2**20  # DeepSeek-V3's has 9 million


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """OSError with the system's reason if there is no room or no right."""
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as problem:
        raise system_error(problem) or problem from None


def system_error(problem: SafetensorError) -> OSError | None:
    """The system's error behind one of safetensors' own, which hands its number on in its text alone."""
    match = re.search(r"os error (\d+)", str(problem))
    return OSError(int(match[1]), os.strerror(int(match[1]))) if match else None


class TensorFiles:
    """The headers of a folder's safetensors files; numbers are read when asked for.

    shapes: name -> shape, for every tensor but scales. FileNotFoundError or ValueError, naming file and tensor, if a
    file is missing, damaged or cut off, or holds what its index does not say.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._file: dict[str, str] = {}  # the file of each tensor
        self.shapes: dict[str, list[int]] = {}
        self._stored: dict[str, str] = {}
        promised = self._index()
        for file in sorted(set(promised.values())) or [SINGLE]:
            self._read_header(file)
        for name, file in promised.items():
            if self._file.get(name) != file:
                raise ValueError(f"{self._label(INDEX)} says that {plain(name)} is in {file}, which lacks it")
        self._scales = {name: self.shapes.pop(name) for name in [*self.shapes] if name.endswith(SCALE)
                        and self._stored.get(name.removesuffix(SCALE)) == FP8}

    def _label(self, file: str) -> str:
        return f"{self.folder.name}/{file}"

    def label(self, name: str) -> str:
        """The file that holds a tensor, for messages; of one that is nowhere, where it should be."""
        return self._label(self._file.get(name) or (SINGLE if (self.folder / SINGLE).is_file() else INDEX))

    def _index(self) -> dict[str, str]:
        """Tensor -> file, from the index; empty where there is a single file."""
        if (self.folder / SINGLE).is_file():
            return {}
        label, path = self._label(INDEX), inside(self.folder, INDEX)
        if not path.is_file():
            pickles = sorted([*self.folder.glob("*.bin"), *self.folder.glob("*.pt"), *self.folder.glob("*.pth")])
            if pickles:
                raise ValueError(f"{self.folder.name} holds its weights as {pickles[0].name}, a pickle: opening one "
                                 f"can run any code, so it is not read here. Get the same model as {SINGLE}")
            raise FileNotFoundError(f"{self.folder.name} holds neither {SINGLE} nor {INDEX}")
        try:
            files = read_object(path, MOST_INDEX_BYTES).get("weight_map")
            if not (files and isinstance(files, dict) and all(isinstance(file, str) for file in files.values())):
                raise ValueError("weight_map must say the file of each tensor")
        except ValueError as error:
            raise ValueError(f"{label} is no index of tensors ({str(error).removeprefix(label).strip()})") from None
        for file in files.values():
            if not re.fullmatch(r"\w[\w.-]{0,99}\.safetensors", file):
                raise ValueError(f"{label} names the file {shown(file)}; only a safetensors file beside it can be read")
        return files

    def _open(self, file: str):
        path = inside(self.folder, file)
        if not path.is_file():
            raise FileNotFoundError(f"{self._label(file)} is missing, which {INDEX} names")
        try:
            return safe_open(path, framework="pt")
        except (SafetensorError, OSError, ValueError) as error:
            why = plain(str(error))
            raise ValueError(f"{self._label(file)} is damaged or cut off ({why}); get it again") from None

    def _read_header(self, file: str) -> None:
        with self._open(file) as opened:
            for name in opened.keys():
                if name in self._file:
                    raise ValueError(f"{plain(name)} is in {self._label(self._file[name])} and in {self._label(file)}")
                part = opened.get_slice(name)
                self._file[name], self.shapes[name] = file, part.get_shape()
                self._stored[name] = part.get_dtype()

    def check(self, name: str, shape: list[int]) -> None:
        """ValueError if a tensor that is there has another shape, or is stored in a way that cannot be read."""
        found, stored, label = self.shapes[name], self._stored[name], self.label(name)
        if stored not in STORED:
            raise ValueError(f"{label}: {name} is stored as {stored}, and only {', '.join(STORED)} can be read here")
        if found != shape:
            raise ValueError(f"{label}: {name} has shape {plain(str(found))}, the model needs {shape}")
        if stored != FP8:
            return
        blocks = [-(-size // BLOCK) for size in shape]  # the last one may be cut off
        if len(shape) != 2 or self._scales.get(name + SCALE) is None:
            raise ValueError(f"{label}: {name} is stored as {FP8} and lacks {name + SCALE}, its scales")
        if self._scales[name + SCALE] != blocks:
            raise ValueError(f"{label}: {name + SCALE} has shape {plain(str(self._scales[name + SCALE]))}, and {shape} "
                             f"in blocks of {BLOCK} x {BLOCK} needs {blocks}")
        if self._stored[name + SCALE] not in STORED[:3]:
            raise ValueError(f"{label}: {name + SCALE} is stored as {self._stored[name + SCALE]}")

    def pieces(self, name: str) -> Iterator[tuple[int, Tensor]]:
        """The numbers of a tensor, a few rows at a time: the number of the first row, and the rows in 32 bits.

        A tensor of no dimension comes as one row.
        """
        shape = self.shapes[name]
        rows = shape[0] if shape else 1
        scales = self._whole(name + SCALE) if self._stored[name] == FP8 else None
        row_bytes = max(1, 4 * torch.Size(shape[1:]).numel())
        step = max(1, PIECE // row_bytes // BLOCK) * BLOCK  # blocks are not cut
        read, file = OPEN_FOR, None
        for start in range(0, rows, step):
            if read >= OPEN_FOR:
                file, read = self._open(self._file[name]), 0
            numbers = file.get_slice(name)[start:start + step] if shape else file.get_tensor(name)[None]
            read += numbers.nbytes
            if scales is not None:
                first = start // BLOCK
                numbers = dequantize_blocks(numbers, scales[first:first + -(-len(numbers) // BLOCK)], BLOCK)
            yield start, numbers.float()
            del numbers

    def _whole(self, name: str) -> Tensor:
        with self._open(self._file[name]) as file:
            return file.get_tensor(name).float()
