"""One matrix in any of the formats, with any sharing of scales: what is kept of it, its bytes, and how far it is off.

A common face of integers.py and fp8.py, so that they can be held side by side. Integers keep their scales in BF16, FP8
in 32 bits, as DeepSeek-V3's files do (arXiv:2412.19437, section 3.3.2). Shapes: R rows, C columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_core.quantization import fp8
from llm_core.quantization.integers import quantize
from llm_core.validation import one_of, whole

BITS = {"int8": 8, "int6": 6, "int4": 4, "int3": 3, "int2": 2, "e4m3": 8, "e5m2": 8}  # of one code
SHARES = ("tensor", "channel", 32, 64, 128, "block")  # who has a scale together; channel: a row; block: 128 x 128


@dataclass(frozen=True)
class Kept:
    """What a format keeps of a matrix. values [R, C] in 32 bits; scales one a tile, [tiles down, tiles across]."""

    format: str
    values: Tensor
    scale: Tensor
    zero_point: Tensor | None
    tile: tuple[int, int]  # rows and columns that share a scale
    code_bytes: int

    @property
    def scale_bytes(self) -> int:
        """Bytes of scales and zero points."""
        return self.scale.nbytes + (0 if self.zero_point is None else self.zero_point.nbytes)

    @property
    def nbytes(self) -> int:
        return self.code_bytes + self.scale_bytes

    @property
    def bits_a_number(self) -> float:
        """All bytes, scales among them, in bits a number: 4 bits in groups of 32 are 4.5."""
        return 8 * self.nbytes / self.values.numel()

    def step_count(self) -> int:
        """By what the largest magnitude (with a zero point: the whole range) is divided to get the scale."""
        if self.format in fp8.FORMATS:
            return int(fp8.FORMATS[self.format].max)
        return 2 ** BITS[self.format] - 1 if self.zero_point is not None else 2 ** (BITS[self.format] - 1) - 1

    def span(self, down: int = 0, across: int = 0) -> float:
        """The largest magnitude that a tile can write; with a zero point: its whole range."""
        return self.scale[down, across].item() * self.step_count()

    def levels(self, down: int = 0, across: int = 0) -> Tensor:
        """All numbers that this format can write in one tile, ascending: 15 for int4, 253 for E4M3."""
        scale = self.scale[down, across].float()
        if self.format in fp8.FORMATS:
            codes = fp8.all_values(self.format)
            return codes[codes.isfinite()].unique() * scale
        top = self.step_count()
        if self.zero_point is None:
            return torch.arange(-top, top + 1) * scale
        return (torch.arange(top + 1) - self.zero_point[down, across].float()) * scale

    def place(self, rank: float) -> tuple[int, int]:
        """The tile whose scale has this rank among all: 0 the smallest, 0.5 the one in the middle, 1 the largest."""
        order = self.scale.flatten().float().argsort(stable=True)
        index = int(order[round(rank * (len(order) - 1))])
        return divmod(index, self.scale.shape[1])

    def vanishing(self, down: int = 0, across: int = 0) -> float:
        """The magnitude up to which numbers of a tile become 0: half of the smallest one above 0."""
        levels = self.levels(down, across)
        return levels[levels > 0].min().item() / 2


def keep(x: Tensor, format: str = "int8", per: str | int = "channel", *, symmetric: bool = True) -> Kept:
    """x [R, C] as `format` keeps it. per: one of SHARES, or any size of a group along a row.

    ValueError for what there is not: integers in blocks, FP8 with a zero point, and what quantize and quantize_tiles
    refuse.
    """
    one_of("format", format, tuple(BITS))
    if per not in SHARES and (isinstance(per, bool) or not isinstance(per, int) or per < 1):
        raise ValueError(f"a scale is shared per {', '.join(map(str, SHARES[:2]))}, group size or block, not {per!r}")
    if x.dim() != 2:
        raise ValueError(f"a matrix [rows, columns] is needed, not a tensor of shape {list(x.shape)}")
    if format not in fp8.FORMATS:
        if per == "block":
            raise ValueError("integers share a scale per tensor, row or group here, not per block of 128 x 128, which "
                             "goes with FP8; nearest: groups of 128")
        made = quantize(x, BITS[format], per, symmetric=symmetric, scale_dtype=torch.bfloat16)
        return Kept(format, made.dequantize(), made.scale, made.zero_point, _tile(x, per), made.packed.nbytes)
    if not symmetric:
        raise ValueError("FP8 has a sign of its own and no zero point; nearest: symmetric")
    tile = _tile(x, per)
    codes, scale = fp8.quantize_tiles(x, tile, format)
    return Kept(format, fp8.dequantize_tiles(codes, scale, tile), scale, None, tile, codes.nbytes)


def _tile(x: Tensor, per: str | int) -> tuple[int, int]:
    named = {"tensor": tuple(x.shape), "channel": (1, x.shape[1]), "block": fp8.WEIGHT_BLOCK}
    return named[per] if per in named else (1, per)




@dataclass(frozen=True)
class Error:
    """How far a matrix is off. Where some of it are outliers, `others` and `gone` are of all the other numbers."""

    relative: float  # |x - kept| / |x|, both as vectors
    others: float  # the same without the outliers
    worst: float  # the largest error of any number
    gone: float  # share of the others that were not 0 and became 0

    @property
    def snr_db(self) -> float:
        """Signal to noise in decibel, 10 log10 of their powers' ratio: 20 dB is an error of 10 %, 40 dB of 1 %."""
        return -20 * math.log10(self.relative) if self.relative else math.inf


def error(x: Tensor, kept: Tensor, outliers: Tensor | None = None) -> Error:
    """x and what was kept of it, [R, C]; outliers: a mask [R, C] of numbers that `others` and `gone` leave out."""
    ordinary = torch.ones_like(x, dtype=torch.bool) if outliers is None else ~outliers
    apart, size = x.double() - kept.double(), x.double()
    gone = ((kept == 0) & (x != 0) & ordinary).sum().double() / ordinary.sum()
    others = apart.where(ordinary, 0.0).norm() / size.where(ordinary, 0.0).norm()
    return Error((apart.norm() / size.norm()).item(), others.item(), apart.abs().max().item(), gone.item())


def error_map(x: Tensor, kept: Tensor, outliers: Tensor | None = None, most: int = 48) -> Tensor:
    """Where the error is: the relative error within each cell of at most `most` x `most` cells, outliers left out.

    A cell covers as many rows and columns as make the cells equal; a cell of zeros that were kept has error 0.
    """
    whole("most", most)
    ordinary = torch.ones_like(x) if outliers is None else (~outliers).to(x.dtype)
    down, across = (max(n for n in range(1, min(size, most) + 1) if size % n == 0) for size in x.shape)

    def power(t: Tensor) -> Tensor:
        return (t * ordinary).double().square().reshape(down, x.shape[0] // down, across, -1).sum(dim=(1, 3))

    noise, signal = power(x - kept), power(x)
    return torch.where(signal > 0, (noise / signal.clamp(min=1e-300)).sqrt(), 0.0)


def with_outliers(x: Tensor, size: float, count: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A copy of x [R, C] in which `count` numbers are `size` times as large as the typical one (the root mean square).

    Their places come from the seed and are in different rows where there are enough; every second one is negative.
    Also the mask [R, C] of these places. size 0: none are put in.
    """
    if not 0 <= size < math.inf:
        raise ValueError(f"the size of outliers must be a finite number of at least 0, not {size!r}")
    out, mask = x.detach().clone(), torch.zeros_like(x, dtype=torch.bool)
    if size:
        draw = torch.Generator().manual_seed(seed)
        rows = torch.randperm(x.shape[0], generator=draw)[:count]
        columns = torch.randint(x.shape[1], (len(rows),), generator=draw)
        signs = torch.tensor([1.0, -1.0]).repeat(len(rows))[:len(rows)]
        out[rows, columns] = signs * size * x.square().mean().sqrt()
        mask[rows, columns] = True
    return out, mask


def reach(x: Tensor, outliers: Tensor) -> float:
    """Four times the root mean square of the numbers that are no outliers: nearly all of them lie within."""
    return 4 * (x.where(~outliers, 0.0).square().sum() / (~outliers).sum()).sqrt().item()
