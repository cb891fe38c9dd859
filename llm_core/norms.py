"""The two norms: LayerNorm (GPT-2) and RMSNorm (Llama, DeepSeek)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimension (Zhang and Sennrich 2019, arXiv:1910.07467).

    Unlike LayerNorm it subtracts no mean and adds no bias. Any shape [..., width] in, the same out.
    """

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # Squares of small 16-bit numbers lose most of their digits, so the mean is taken in 32 bits.
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


def build_norm(kind: str, width: int, eps: float) -> nn.Module:
    return nn.LayerNorm(width, eps=eps) if kind == "layernorm" else RMSNorm(width, eps)
