"""Integer quantization: a number becomes one of 2^bits evenly spaced steps, and a scale says how wide a step is.

Symmetric: x is about scale * code. Asymmetric: x is about scale * (code - zero point) (Jacob et al. 2018, section 2.1,
arXiv:1712.05877). Shapes: R rows (all dimensions but the last), n numbers in a row, G groups in a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core.quantization.packing import pack, unpack


@dataclass(frozen=True)
class Quantized:
    """Packed codes uint8 [R, bytes], scales [R, G] ([1, 1] if one for all), zero points alike (None: symmetric)."""

    packed: Tensor
    scale: Tensor
    zero_point: Tensor | None
    shape: torch.Size
    bits: int
    per: str | int

    @property
    def codes(self) -> Tensor:
        """The codes as whole numbers, int16 in the shape of the original: -127 … 127, or 0 … 255 where asymmetric."""
        codes = unpack(self.packed, self.bits, self.shape[-1]).short()
        return (codes if self.zero_point is not None else codes - 2 ** (self.bits - 1)).view(self.shape)

    def dequantize(self) -> Tensor:
        """The numbers that the codes stand for, in 32 bits, in the shape of the original."""
        codes = self.codes.view(-1, self.shape[-1]).float()  # [R, n]
        if self.zero_point is not None:
            codes = codes - _spread(self.zero_point.float(), codes, self.per)
        return (codes * _spread(self.scale.float(), codes, self.per)).view(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of packed codes, scales and zero points together."""
        return self.packed.nbytes + self.scale.nbytes + (0 if self.zero_point is None else self.zero_point.nbytes)


def quantize(x: Tensor, bits: int = 8, per: str | int = "channel", *, symmetric: bool = True,
             scale_dtype: torch.dtype = torch.float32) -> Quantized:
    """x [..., n] in `bits` bits a number (2 to 8), rounded to the nearest step, to the even one of two.

    per: who shares a scale. "tensor": all; "channel": each row, that is, each output of a weight [out, in]; a number g:
    each g neighbours in a row, the last group of a row being smaller where g does not divide n.
    Symmetric codes run from -(2^(bits-1) - 1) to 2^(bits-1) - 1: in 8 bits -127 … 127. Code -128 stays unused, so that
    x and -x always get opposite codes, and the largest magnitude lands on a step whichever sign it has. Asymmetric
    codes run from 0 to 2^bits - 1 over the range of the numbers, stretched to include 0, so that 0 stays exactly 0.
    The error is at most half a step. A group of zeros has scale 1. scale_dtype: float32 or bfloat16; scales are rounded
    up to it, and the codes chosen for the scale as it is stored. ValueError for what cannot be quantised.
    """
    check(bits, per)
    _check(x, scale_dtype)
    rows = x.detach().reshape(-1, x.shape[-1]).float()  # [R, n]
    groups = _groups(rows, per)  # [R, G, g]
    if symmetric:
        top, low = 2 ** (bits - 1) - 1, -(2 ** (bits - 1) - 1)
        width = groups.abs().amax(-1) / top
    else:
        top, low = 2**bits - 1, 0
        smallest = groups.amin(-1).clamp(max=0)
        width = (groups.amax(-1).clamp(min=0) - smallest) / top
    scale = width.to(scale_dtype)  # [R, G]
    up = torch.nextafter(scale, torch.full_like(scale, torch.inf))
    scale = torch.where(scale < width, up, scale)  # a scale rounded down would leave the largest number out of range
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = None if symmetric else (-smallest / scale.float()).round().clamp(0, top)
    codes = (rows / _spread(scale.float(), rows, per)).round()
    if zero is not None:
        codes = codes + _spread(zero, rows, per)
    stored = codes.clamp(low, top) + (2 ** (bits - 1) if symmetric else 0)  # a byte has no sign
    return Quantized(pack(stored.to(torch.uint8), bits), scale, None if zero is None else zero.to(torch.uint8), x.shape,
                     bits, per)


def _groups(rows: Tensor, per: str | int) -> Tensor:
    """[R, n] -> [R, G, g]. Where g does not divide n the last group is filled up with zeros, which change no range."""
    if per == "tensor":
        return rows.reshape(1, 1, -1)
    g = rows.shape[1] if per == "channel" else per
    return F.pad(rows, (0, -rows.shape[1] % g)).unflatten(1, (-1, g))


def _spread(values: Tensor, rows: Tensor, per: str | int) -> Tensor:
    """One value a group [R, G] -> something that multiplies [R, n]."""
    return values.repeat_interleave(per, dim=1)[:, :rows.shape[1]] if isinstance(per, int) else values


def check(bits: int, per: str | int) -> None:
    """ValueError for widths and granularities that there are not."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
        raise ValueError(f"bits must be a whole number from 2 to 8, not {bits!r}")
    if per not in ("tensor", "channel") and (isinstance(per, bool) or not isinstance(per, int) or per < 1):
        raise ValueError(f"per must be tensor, channel, or the size of a group, at least 1, not {per!r}")


def _check(x: Tensor, scale_dtype: torch.dtype) -> None:
    if scale_dtype not in (torch.float32, torch.bfloat16):  # float16 would overflow beyond 65,504
        raise ValueError(f"scales are kept in float32 or bfloat16, not {scale_dtype}")
    if not x.is_floating_point():
        raise ValueError(f"only floating-point numbers can be quantised, not {x.dtype}")
    if x.dim() == 0 or x.numel() == 0:
        raise ValueError(f"there is nothing to quantise in a tensor of shape {list(x.shape)}")
    if not all_finite(x):
        raise ValueError("the tensor holds NaN or inf, for which there is no step")


def all_finite(x: Tensor) -> bool:
    """No NaN and no inf in x, which has at least one number. A NaN anywhere is the smallest and the largest, too."""
    return bool(torch.stack(x.aminmax()).isfinite().all())


def relative_error(x: Tensor, approximation: Tensor) -> float:
    """|x - approximation| / |x|, both as vectors: 0.01 is an error of 1 % of the signal's own size."""
    return ((x.double() - approximation.double()).norm() / x.double().norm()).item()
