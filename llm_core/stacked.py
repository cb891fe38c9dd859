"""A copy of a model for decoding, in which matrices that read the same rows are stacked into one.

A token that is decoded spends much of its time in starting operations. One product with a tall matrix is started once
and reads memory in one long run, so inference engines stack what training keeps apart: queries, keys and values; the
gate and up matrices of SwiGLU; MLA's two ways down. The numbers are the same, and so is what comes out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_core.attention import GroupedAttention, LatentAttention
from llm_core.feed_forward import FeedForward
from llm_core.linear import Linear
from llm_core.moe import Experts, products


class StackedGroupedAttention(GroupedAttention):
    def _read(self, x: Tensor) -> Sequence[Tensor]:
        return self.stacked(x).split([self.n_heads * self.head_dim, *[self.kv_heads * self.head_dim] * 2], dim=-1)


class StackedLatentAttention(LatentAttention):
    def _read(self, x: Tensor) -> Sequence[Tensor]:
        both, kv = self.stacked(x), self.latent_dim + self.rope_dim
        return both.split([both.shape[-1] - kv, kv], dim=-1)


class StackedFeedForward(FeedForward):
    def _read(self, x: Tensor) -> Sequence[Tensor]:
        return self.stacked(x).chunk(2, dim=-1)


class StackedExperts(Experts):
    """gate_up [E, 2 I, D] in place of gate and up."""

    @property
    def gate(self) -> Tensor:
        return self.gate_up[:, :self.down.shape[2]]

    @property
    def up(self) -> Tensor:
        return self.gate_up[:, self.down.shape[2]:]

    def _gated(self, experts: Sequence[int], shares: Sequence[Tensor]) -> Tensor:
        gate, up = products(self.gate_up, experts, shares).chunk(2, dim=-1)
        return F.silu(gate) * up


def stack_for_decoding(model: nn.Module) -> nn.Module:
    """A copy of a model, or of a part of one, for inference, in evaluation mode.

    Quantise it afterwards, if at all; save and train the model itself.
    """
    stacked = copy.deepcopy(model)
    for module in list(stacked.modules()):
        if type(module) is GroupedAttention:
            _stack(module, StackedGroupedAttention, "q_proj", "k_proj", "v_proj")
        elif type(module) is LatentAttention:
            _stack(module, StackedLatentAttention, "q_proj" if hasattr(module, "q_proj") else "q_down", "kv_down")
        elif type(module) is FeedForward and module.activation == "swiglu":
            _stack(module, StackedFeedForward, "gate", "up")
        elif type(module) is Experts:
            gate_up = torch.cat([module.gate.detach(), module.up.detach()], dim=1)
            del module.gate, module.up
            module.gate_up = nn.Parameter(gate_up)
            module.__class__ = StackedExperts
    return stacked.eval().requires_grad_(False)


def _stack(module: nn.Module, kind: type, *names: str) -> None:
    """Put one layer, `stacked`, in place of those named, which read the same rows."""
    layers = [getattr(module, name) for name in names]
    weights = [layer.weight.detach() for layer in layers]
    new = Linear(weights[0].shape[1], sum(map(len, weights)), bias=layers[0].bias is not None, device="meta")
    new.weight = nn.Parameter(torch.cat(weights))
    if new.bias is not None:
        new.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]))
    for name in names:
        delattr(module, name)
    module.stacked, module.__class__ = new, kind
