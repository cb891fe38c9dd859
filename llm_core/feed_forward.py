"""The dense feed-forward network: each token on its own, out to d_ff numbers and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from llm_core.linear import Linear


class FeedForward(nn.Module):
    """GELU (GPT-2, in its tanh form): down(gelu(up x)). SwiGLU (Shazeer 2020): down(silu(gate x) * up x)."""

    def __init__(self, d_model: int, d_ff: int, activation: str, bias: bool = False):
        super().__init__()
        if activation == "swiglu":
            self.gate = Linear(d_model, d_ff, bias=bias)
        self.up = Linear(d_model, d_ff, bias=bias)
        self.down = Linear(d_ff, d_model, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        if self.activation == "swiglu":
            gate, up = self._read(x)
            return self.down(F.silu(gate) * up)
        return self.down(F.gelu(self.up(x), approximate="tanh"))

    def _read(self, x: Tensor) -> Sequence[Tensor]:
        return self.gate(x), self.up(x)
