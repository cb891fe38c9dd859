"""FP8: eight bits as sign, exponent and mantissa, and the fine-grained scales that make them enough.

Formats: Micikevicius et al. 2022, arXiv:2209.05433, table 1; torch's own float8 types hold them. Tiles and blocks:
DeepSeek-V3, arXiv:2412.19437, section 3.3.2. Shapes: R rows, C columns. A tile of (rows, columns) has one scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core.quantization.integers import all_finite
from llm_core.validation import one_of, whole

ACTIVATION_TILE = (1, 128)  # a token and 128 of its numbers
WEIGHT_BLOCK = (128, 128)  # 128 outputs and 128 inputs


@dataclass(frozen=True)
class Format:
    """An 8-bit float. Exponent field e > 0: (-1)^s 2^(e - bias) (1 + m / 2^M); e = 0: (-1)^s 2^(1 - bias) m / 2^M."""

    name: str
    dtype: torch.dtype
    exponent_bits: int
    mantissa_bits: int
    bias: int
    max: float  # the largest finite value
    infinite: bool  # E5M2 keeps its last exponent for inf and NaN; E4M3 uses all of it but one code, which is NaN


E4M3 = Format("e4m3", torch.float8_e4m3fn, 4, 3, 7, 448.0, infinite=False)
E5M2 = Format("e5m2", torch.float8_e5m2, 5, 2, 15, 57344.0, infinite=True)
FORMATS = {"e4m3": E4M3, "e5m2": E5M2}


def get_format(name: str | Format) -> Format:
    if isinstance(name, Format):
        return name
    one_of("format", name, tuple(FORMATS))
    return FORMATS[name]


def to_fp8(x: Tensor, format: str | Format = E4M3) -> Tensor:
    """Round to the nearest FP8 number, to the even one of two, in torch's own float8 type.

    E4M3 has no infinity: everything beyond 448 becomes 448. (A bare cast makes NaN of it in earlier versions of torch,
    and 448 in later ones.) E5M2 overflows as the format does: what lies below 61,440, the middle between 57,344 and the
    number that would come next, is rounded down, the rest becomes inf. NaN stays NaN.
    """
    f = get_format(format)
    return (x if f.infinite else x.clamp(-f.max, f.max)).to(f.dtype)


def all_values(format: str | Format) -> Tensor:
    """The 256 numbers of a format, by code: [256] in 32 bits, NaN and inf among them."""
    return torch.arange(256, dtype=torch.uint8).view(get_format(format).dtype).float()


@dataclass(frozen=True)
class Fields:
    """The eight bits of one FP8 number, taken apart; exponent and mantissa as the fields stand there."""

    sign: int
    exponent: int
    mantissa: int
    value: float
    format: Format

    @property
    def bits(self) -> str:
        """"0 1111 110" """
        f = self.format
        return f"{self.sign} {self.exponent:0{f.exponent_bits}b} {self.mantissa:0{f.mantissa_bits}b}"

    @property
    def formula(self) -> str:
        """"+2^8 × (1 + 6/8) = 448" """
        sign, parts, top = "+-"[self.sign], 2**self.format.mantissa_bits, 2**self.format.exponent_bits - 1
        if self.value != self.value:
            return "NaN"
        if self.format.infinite and self.exponent == top:
            return f"{sign}inf"
        if self.exponent == 0:
            return f"{sign}2^{1 - self.format.bias} × {self.mantissa}/{parts} = {self.value:g}"
        return f"{sign}2^{self.exponent - self.format.bias} × (1 + {self.mantissa}/{parts}) = {self.value:g}"


def fields(value: float, format: str | Format = E4M3) -> Fields:
    """What `value` becomes in this format, bit by bit."""
    f = get_format(format)
    number = to_fp8(torch.tensor([float(value)]), f)
    code = int(number.view(torch.uint8))
    return Fields(code >> 7, code >> f.mantissa_bits & (2**f.exponent_bits - 1), code & (2**f.mantissa_bits - 1),
                  number.float().item(), f)


def tiles_of(size: int, tile: int) -> int:
    """How many tiles cover `size` numbers; the last one may be smaller."""
    return -(-size // tile)


def quantize_tiles(x: Tensor, tile: tuple[int, int] | None = ACTIVATION_TILE, format: str | Format = E4M3, *,
                   power_of_two: bool = False) -> tuple[Tensor, Tensor]:
    """x [..., C] -> FP8 codes, same shape, and scale_inv [tiles down, tiles across]: x is about codes * scale_inv.

    All dimensions but the last count as rows R. The scale of a tile is its own largest magnitude / the format's largest
    number, found as the numbers come ("online"), with no history of earlier ones. tile None: one scale for all, [1, 1].
    Sizes that the tile does not divide end in a smaller tile. A tile of zeros has scale 1.
    power_of_two: scales rounded up to a power of two, so that scaling itself rounds nothing.
    ValueError if x is empty or holds NaN or inf.
    """
    f = get_format(format)
    if x.numel() == 0 or not x.is_floating_point() or not all_finite(x):
        raise ValueError(f"FP8 codes need finite floating-point numbers, and at least one: this tensor {_fault(x)}")
    flat = x.detach().reshape(-1, x.shape[-1]).float()  # [R, C]
    rows, columns = _tile_size(tile, flat)
    padded = F.pad(flat, (0, -flat.shape[1] % columns, 0, -flat.shape[0] % rows))  # zeros never are the largest
    tiles = padded.view(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
    scale = tiles.abs().amax(dim=(1, 3)) / f.max  # [tiles down, tiles across]
    if power_of_two:
        mantissa, exponent = torch.frexp(scale)  # scale = mantissa * 2^exponent, 0.5 <= mantissa < 1
        scale = torch.ldexp(torch.ones_like(scale), exponent - (mantissa == 0.5).int()).where(scale > 0, 0)
    scale = torch.where(scale > 0, scale, 1.0)
    codes = to_fp8(flat / expand_scales(scale, flat.shape, (rows, columns)), f)
    return codes.view(x.shape), scale


def dequantize_tiles(codes: Tensor, scale_inv: Tensor, tile: tuple[int, int] | None = ACTIVATION_TILE) -> Tensor:
    """The numbers that codes [..., C] stand for, in 32 bits, the same shape."""
    flat = codes.float().reshape(-1, codes.shape[-1])
    return (flat * expand_scales(scale_inv, flat.shape, _tile_size(tile, flat))).view(codes.shape)


def dequantize_blocks(codes: Tensor, scale_inv: Tensor, block: int = 128, dtype: torch.dtype = torch.float32) -> Tensor:
    """A weight of DeepSeek's FP8 files: codes [R, C], weight_scale_inv [ceil(R / block), ceil(C / block)] -> [R, C].

    One *multiplies* with scale_inv, which is the inverse of what the weight was multiplied with. Needs no memory beyond
    the result. ValueError if the shapes do not belong together.
    """
    wanted = [tiles_of(size, block) for size in codes.shape]
    if codes.dim() != 2 or list(scale_inv.shape) != wanted:
        raise ValueError(f"a weight of shape {list(codes.shape)} in blocks of {block} x {block} needs scales of shape "
                         f"{wanted}, not {list(scale_inv.shape)}")
    out = codes.to(dtype)
    for strip, scales in zip(out.split(block), scale_inv.float(), strict=True):
        strip.mul_(scales.repeat_interleave(block)[:codes.shape[1]])  # multiplied in 32 bits, then rounded to dtype
    return out


def expand_scales(scale: Tensor, shape: tuple[int, int], tile: tuple[int, int]) -> Tensor:
    """[tiles down, tiles across] -> [R, C]: each scale repeated over its tile, what stands over cut off."""
    wanted = [tiles_of(size, side) for size, side in zip(shape, tile, strict=True)]
    if list(scale.shape) != wanted:
        raise ValueError(f"{list(shape)} numbers in tiles of {tile[0]} x {tile[1]} need scales of shape {wanted}, "
                         f"not {list(scale.shape)}")
    return scale.repeat_interleave(tile[0], 0)[:shape[0]].repeat_interleave(tile[1], 1)[:, :shape[1]]


def _tile_size(tile: tuple[int, int] | None, flat: Tensor) -> tuple[int, int]:
    if tile is None:
        return flat.shape[0], flat.shape[1]
    for name, side in zip(("rows", "columns"), tile, strict=True):
        whole(f"a tile's {name}", side)
    return tile


def _fault(x: Tensor) -> str:
    if x.numel() == 0:
        return "is empty"
    return "holds NaN or inf" if x.is_floating_point() else f"holds {x.dtype}"
