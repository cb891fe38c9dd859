"""Mixture of experts: a router sends each token to a few of many small feed-forward networks.

DeepSeekMoE, arXiv:2401.06066; DeepSeek-V2, 2405.04434, section 2.2; V3, 2412.19437, section 2.1.2.
Shapes: N tokens (all of a batch in one row), D width, E routed experts, K chosen, I an expert's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_core.config import ModelConfig, MoEConfig
from llm_core.feed_forward import FeedForward
from llm_core.linear import linear


@dataclass
class Routing:
    """What a router decided: experts [N, K], their gate weights [N, K], and every expert's score [N, E], unbiased."""

    experts: Tensor
    weights: Tensor
    scores: Tensor


FEW = 4  # so few tokens hardly share an expert, and sorting them costs more than it brings


class Router(nn.Module):
    """Scores every expert for every token, and picks K.

    The selection bias of V3 (a buffer: moved by `update_bias`, never by the gradient) decides who is chosen, and has no
    part in the gate weights. Scores are computed in 32 bits.
    """

    def __init__(self, d_model: int, moe: MoEConfig):
        super().__init__()
        self.moe = moe
        self.weight = nn.Parameter(torch.empty(moe.n_routed_experts, d_model))
        if moe.selection_bias:
            self.register_buffer("selection_bias", torch.zeros(moe.n_routed_experts))
        else:
            self.selection_bias = None

    def forward(self, x: Tensor) -> Routing:
        """x [N, D] -> Routing"""
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self.forward(x.float())
        logits = linear(x.float(), self.weight.float())  # [N, E]
        scores = logits.softmax(dim=-1) if self.moe.scoring == "softmax" else logits.sigmoid()
        selection = scores if self.selection_bias is None else scores + self.selection_bias
        experts = self._open_groups_only(selection).topk(self.moe.n_experts_per_token, dim=-1).indices  # [N, K]
        weights = scores.gather(1, experts)
        if self.moe.norm_topk_prob:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)  # all underflowed: 0, not 0 / 0
        return Routing(experts, weights * self.moe.routed_scaling_factor, scores)

    def _open_groups_only(self, selection: Tensor) -> Tensor:
        """Only the best n_limited_groups stay open; the others get -inf, since 0 would beat a negative biased score."""
        if self.moe.n_expert_groups == 1:
            return selection
        groups = selection.view(len(selection), self.moe.n_expert_groups, -1)  # [N, groups, E / groups]
        if self.moe.group_score == "max":
            rating = groups.amax(dim=-1)
        else:
            rating = groups.topk(2, dim=-1).values.sum(dim=-1)
        best = rating.topk(self.moe.n_limited_groups, dim=-1).indices
        is_open = torch.zeros_like(rating, dtype=torch.bool).scatter(1, best, True)  # [N, groups]
        return groups.masked_fill(~is_open[..., None], float("-inf")).view_as(selection)

    @torch.no_grad()
    def update_bias(self, experts: Tensor, speed: float) -> None:
        """V3's balancing without an auxiliary loss: overloaded experts -speed, underloaded ones +speed.

        experts: what this router chose in one training step, [N, K]. Called by the training loop, outside forward.
        """
        if self.selection_bias is None:
            return
        load = experts.flatten().bincount(minlength=self.moe.n_routed_experts).float()  # tokens an expert
        self.selection_bias += speed * torch.sign(load.mean() - load)


class Experts(nn.Module):
    """E SwiGLU networks, their matrices stacked: gate and up [E, I, D], down [E, D, I]."""

    def __init__(self, n_experts: int, d_model: int, d_expert: int):
        super().__init__()
        self.gate = nn.Parameter(torch.empty(n_experts, d_expert, d_model))
        self.up = nn.Parameter(torch.empty(n_experts, d_expert, d_model))
        self.down = nn.Parameter(torch.empty(n_experts, d_model, d_expert))

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """x [N, D] -> [N, D]: each token's chosen experts, weighted and summed. No token is ever dropped."""
        if len(x) <= FEW:
            places = [(e, x[i:i + 1]) for i, chosen in enumerate(routing.experts.tolist()) for e in chosen]
            out = self._each(*zip(*places)).view(*routing.weights.shape, -1) * routing.weights[..., None]  # [N, K, D]
            return out.sum(dim=1).to(x.dtype)
        chosen, k = routing.experts.flatten(), routing.experts.shape[1]  # [N * K]
        order = chosen.argsort(stable=True)  # places of expert 0, then of expert 1, …
        token = order // k  # the token each place belongs to
        places = chosen.bincount(minlength=routing.scores.shape[1]).tolist()
        used = [e for e, n in enumerate(places) if n]
        shares = x[token].split([places[e] for e in used])  # a piece [n_e, D] for each expert in use
        out = self._each(used, shares)
        out = out * routing.weights.flatten()[order, None]  # [N * K, D]
        return torch.zeros_like(x, dtype=out.dtype).index_add(0, token, out).to(x.dtype)

    def _each(self, experts: Sequence[int], shares: Sequence[Tensor]) -> Tensor:
        """What each expert makes of its tokens, one below the other: shares [n, D] each -> [sum of n, D].

        Only the products are made one by one; what lies between them is one step for all.
        """
        gated = F.silu(products(self.gate, experts, shares)) * products(self.up, experts, shares)  # [sum of n, I]
        return products(self.down, experts, gated.split([len(share) for share in shares]))


def products(stack: Tensor, experts: Sequence[int], shares: Sequence[Tensor]) -> Tensor:
    """Each share [n, in] times its expert's matrix of the stack [E, out, in], one below the other: [sum of n, out]."""
    if torch.is_grad_enabled() and stack.requires_grad:
        # At once: of matrices picked one by one, each would get a gradient as large as the whole stack.
        stack = stack.unbind()
    return torch.cat([linear(share, stack[e]) for e, share in zip(experts, shares, strict=True)])


class MoE(nn.Module):
    """Router, routed experts, and shared experts that every token uses. The residual is the block's, not added here."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        moe = config.moe
        self.router = Router(config.d_model, moe)
        self.experts = Experts(moe.n_routed_experts, config.d_model, moe.d_expert)
        if moe.n_shared_experts:
            self.shared = FeedForward(config.d_model, moe.n_shared_experts * moe.d_expert, "swiglu")
        else:
            self.shared = None

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """x [B, T, D] -> the same shape, and where each of the N = B * T tokens went."""
        flat = x.reshape(-1, x.shape[-1])  # [N, D]
        routing = self.router(flat)
        out = self.experts(flat, routing)
        if self.shared is not None:
            out = out + self.shared(flat)
        return out.view_as(x), routing
