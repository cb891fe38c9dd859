"""A copy of a model for decoding: matrices that read the same rows stacked into one, and some of them laid down turned.

A token that is decoded spends much of its time in starting operations. One product with a tall matrix is started once
and reads memory in one long run, so inference engines stack what training keeps apart: queries, keys and values; the
gate and up matrices of SwiGLU; MLA's two ways down. Turned, as [inputs, outputs], a matrix can be read row by row, and
all experts that a token chose in one call (see weighted_rows). The numbers are the same, and so is what comes out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_core.attention import GroupedAttention, LatentAttention
from llm_core.feed_forward import FeedForward
from llm_core.linear import Linear, plain_inference
from llm_core.model import LanguageModel
from llm_core.moe import Experts, Routing
from llm_core.weighted_rows import runs, weighted_rows

FEW = 32  # tokens; with top 6 of 16 experts, sorting them by expert begins to win here
TURNED = 2**16, 2**20  # a matrix with fewer numbers is soon read anyhow, one with more no faster (two cores)
PARTS = 8  # of a turned matrix, so that many cores have something to read


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
    """gate_up [E, D, 2 I] and down_turned [E, I, D] in place of gate, up and down."""

    @property
    def gate(self) -> Tensor:
        return self.gate_up.mT[:, :self.down_turned.shape[1]]

    @property
    def up(self) -> Tensor:
        return self.gate_up.mT[:, self.down_turned.shape[1]:]

    @property
    def down(self) -> Tensor:
        return self.down_turned.mT

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """x [N, D] -> [N, D]"""
        if len(x) > FEW or not plain_inference(x, self.gate_up):
            return super().forward(x, routing)
        K = routing.experts.shape[1]
        gate, up = _chosen(self.gate_up, routing.experts, x.repeat_interleave(K, dim=0)).chunk(2, dim=-1)  # [N K, I]
        hidden = F.silu(gate) * up * routing.weights.view(-1, 1)
        return _chosen(self.down_turned, routing.experts, hidden).view(len(x), K, -1).sum(dim=1)

    def _each(self, experts: Sequence[int], shares: Sequence[Tensor]) -> Tensor:
        gate, up = _products(self.gate_up, experts, shares).chunk(2, dim=-1)  # [sum of n, I]
        return _products(self.down_turned, experts, (F.silu(gate) * up).split([len(share) for share in shares]))


def _chosen(stack: Tensor, experts: Tensor, x: Tensor) -> Tensor:
    """Each row of x [N K, I] times the matrix of its expert: stack [E, I, O], experts [N, K] -> [N K, O]."""
    I, O = stack.shape[1:]
    return weighted_rows(stack.view(-1, O), experts.view(-1, 1) * I + runs(1, I, I), x)


def _products(stack: Tensor, experts: Sequence[int], shares: Sequence[Tensor]) -> Tensor:
    """What moe.products makes, from a turned stack [E, I, O]."""
    return torch.cat([share @ stack[e] for e, share in zip(experts, shares, strict=True)])


class TurnedLinear(Linear):
    """A layer whose weight lies as [I, O]."""

    @property
    def weight(self) -> Tensor:
        return self.turned.mT  # [O, I]

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]"""
        I, O = self.turned.shape
        if x.numel() != I or not plain_inference(x, self.turned):
            return F.linear(x, self.weight, self.bias)
        places = runs(PARTS, I // PARTS, I // PARTS)  # one token: a sum for each part of the rows, and their sum
        out = weighted_rows(self.turned, places, x.reshape(places.shape)).sum(dim=0).view(*x.shape[:-1], O)
        return out if self.bias is None else out + self.bias


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
            gate_up, down = torch.cat([module.gate.detach(), module.up.detach()], dim=1), module.down.detach()
            del module.gate, module.up, module.down
            module.gate_up, module.down_turned = (nn.Parameter(w.mT.contiguous()) for w in (gate_up, down))
            module.__class__ = StackedExperts
    for name, module in stacked.named_modules():
        # kv_up stays: MLA's absorbed way takes its matrix apart.
        if type(module) is Linear and not name.endswith("kv_up") and _is_turned(module.weight):
            weight = module.weight.detach()
            del module.weight
            module.turned, module.__class__ = nn.Parameter(weight.T.contiguous()), TurnedLinear
    if isinstance(stacked, LanguageModel) and stacked.config.tie_embeddings:
        table = stacked.token_embedding.weight.detach()  # [V, D], and the head
        if _is_turned(table):  # it keeps its shape: looked up it costs the same, and BLAS reads it faster as the head
            stacked.token_embedding.weight = nn.Parameter(table.T.contiguous().T)
    return stacked.eval().requires_grad_(False)


def _is_turned(weight: Tensor) -> bool:
    return TURNED[0] <= weight.numel() <= TURNED[1] and weight.shape[1] % PARTS == 0


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
