"""Codes of 2 to 8 bits side by side in whole bytes, so that their size is real and not just counted."""

from __future__ import annotations

from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor


def packed_bytes(n: int, bits: int) -> int:
    """Bytes of a row of n codes; its last byte may be partly unused."""
    return -(-n * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """uint8 codes [..., n], each below 2^bits -> uint8 [..., packed_bytes(n, bits)]. The first code is the lowest bits.

    Four bits: two codes in a byte. Six bits: four codes in three bytes, where whole codes and whole bytes meet.
    """
    if bits == 8:
        return codes
    n = codes.shape[-1]
    together, in_bytes = 8 // gcd(bits, 8), bits // gcd(bits, 8)  # so many codes fill so many bytes
    groups = F.pad(codes, (0, -n % together)).unflatten(-1, (-1, together)).long()  # [..., groups, together]
    words = (groups << (bits * torch.arange(together))).sum(-1, keepdim=True)  # at most 56 bits: they fit in 64
    out = (words >> (8 * torch.arange(in_bytes))) & 255  # [..., groups, in_bytes]
    return out.to(torch.uint8).flatten(-2)[..., :packed_bytes(n, bits)].contiguous()


def unpack(packed: Tensor, bits: int, n: int) -> Tensor:
    """The inverse: uint8 [..., packed_bytes(n, bits)] -> uint8 codes [..., n]."""
    if bits == 8:
        return packed
    together, in_bytes = 8 // gcd(bits, 8), bits // gcd(bits, 8)
    groups = F.pad(packed, (0, -packed.shape[-1] % in_bytes)).unflatten(-1, (-1, in_bytes)).long()
    words = (groups << (8 * torch.arange(in_bytes))).sum(-1, keepdim=True)
    codes = (words >> (bits * torch.arange(together))) & (2**bits - 1)  # [..., groups, together]
    return codes.to(torch.uint8).flatten(-2)[..., :n]
