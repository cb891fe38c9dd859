"""How a GPU's tensor cores add up FP8 products, in too few bits, and how promotion to 32 bits mends it.

DeepSeek-V3, arXiv:2412.19437, sections 3.3.2 and 3.5.2: Hopper's cores shift 32 products to the exponent of the
largest, keep the highest 14 bits of each, and collect the sums in a register of 14 bits too; what stands below is cut
off. So every 128 products (N_C) V3 moves the register's sum to an ordinary 32-bit sum, and scales it there.
Shapes: a [M, K] and b [N, K], as in a linear layer: the product is a b^T, [M, N].
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from llm_core.quantization.fp8 import expand_scales, tiles_of
from llm_core.validation import whole

ALIGNED = 32  # products that one instruction adds at once on Hopper; 16 on Ada
BITS = 14  # of them kept, counted from the leading place of the largest
INTERVAL = 128  # N_C, the products between two promotions: four instructions
NOTHING = -200  # stands for the exponent of 0: far below that of any FP8 number


def tensor_core_matmul(a: Tensor, b: Tensor, interval: int | None = INTERVAL, bits: int = BITS,
                       aligned: int = ALIGNED) -> Tensor:
    """a [M, K] times b [N, K] transposed, added up as a tensor core does: [M, N] in 32 bits.

    a and b hold FP8 numbers, in torch's float8 types or in 32 bits. interval: products between two promotions, None for
    no promotion at all; at 1 there is nothing to cut off, and the result is the plain 32-bit sum. bits: 8 to 24; fewer
    than 8 would cut into single products.

    How it is simulated: `aligned` products and the register are shifted to the largest exponent among them (a product's
    being the sum of its factors' exponents), cut off towards zero below the place of the 14th bit, and added; the sum
    is cut to 14 bits again. That is how Khattak and Mikaitis 2025 (arXiv:2512.07004) found the cores to work. Held
    beside the results that they recorded, `accumulate` gave every bit: of 5,000 sums of 32 products on an H100, and,
    with 16 aligned and a register that is not empty at first, of 5,000 on an Ada card.
    """
    _check(a, b, interval, bits, aligned)
    total = torch.zeros(len(a), len(b))
    for a_part, b_part in _pieces(a, b, interval):
        total += accumulate(a_part, b_part, bits, aligned)
    return total


def scaled_matmul(a: Tensor, a_scale: Tensor, b: Tensor, b_scale: Tensor, interval: int = INTERVAL,
                  bits: int = BITS) -> Tensor:
    """V3's product of FP8 codes with scales, [M, N]: each promoted sum is multiplied by the two scales of its piece.

    a [M, K] in tiles of 1 x interval, scales [M, K / interval]; b [N, K] in blocks of interval x interval, scales
    [N / interval, K / interval], rounded up. fp8.quantize_tiles makes both.
    """
    _check(a, b, interval, bits, ALIGNED)
    pieces = tiles_of(a.shape[1], interval)
    a_scale = expand_scales(a_scale, (len(a), pieces), (1, 1))
    b_scale = expand_scales(b_scale, (len(b), pieces), (interval, 1))  # [N, pieces]
    total = torch.zeros(len(a), len(b))
    for i, (a_part, b_part) in enumerate(_pieces(a, b, interval)):
        total += accumulate(a_part, b_part, bits, ALIGNED) * (a_scale[:, i, None] * b_scale[None, :, i])
    return total


def keep_bits(x: Tensor, bits: int) -> Tensor:
    """x in 64 bits, cut towards zero to the highest `bits` bits of each number, its leading 1 among them."""
    unused = 53 - bits  # a 64-bit float has 53
    return (x.double().view(torch.int64) >> unused << unused).view(torch.float64)


def _pieces(a: Tensor, b: Tensor, size: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    size = size or a.shape[1]
    return zip(a.float().split(size, dim=1), b.float().split(size, dim=1), strict=True)


def accumulate(a: Tensor, b: Tensor, bits: int = BITS, aligned: int = ALIGNED,
               register: Tensor | None = None) -> Tensor:
    """What the register [M, N] (empty if not given) holds after all products of a and b, in 32 bits."""
    a, b = a.double(), b.double()
    register = torch.zeros(len(a), len(b), dtype=torch.float64) if register is None else register.double()
    for a_few, b_few in zip(a.split(aligned, dim=1), b.split(aligned, dim=1), strict=True):
        products = a_few[:, None] * b_few[None]  # [M, N, 32]
        largest = (_exponent(a_few)[:, None] + _exponent(b_few)[None]).amax(-1)
        largest = torch.maximum(largest, _exponent(register))
        unit = torch.ldexp(torch.ones_like(register), largest - (bits - 1))  # what the lowest place kept is worth
        units = (products / unit[..., None]).trunc().sum(-1) + (register / unit).trunc()
        register = keep_bits(units * unit, bits)
    return register.float()


def _exponent(x: Tensor) -> Tensor:
    """e of x = ±1.… × 2^e"""
    return torch.where(x == 0, NOTHING, torch.frexp(x).exponent - 1)  # frexp has ±0.1… × 2^(e + 1)


def _check(a: Tensor, b: Tensor, interval: int | None, bits: int, aligned: int) -> None:
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"a [M, K] and b [N, K] must share K, not have the shapes {list(a.shape)} and {list(b.shape)}")
    if interval is not None:
        whole("interval", interval)
    whole("aligned", aligned)
    if isinstance(bits, bool) or not isinstance(bits, int) or not 8 <= bits <= 24:
        raise ValueError(f"bits must be a whole number from 8 to 24, not {bits!r}")
