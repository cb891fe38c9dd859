"""Experts spread over ranks: each rank keeps a part of every layer's experts, and tokens travel to theirs and back.

GShard, arXiv:2006.16668, section 3; DeepSeek-V3 trains so over 64 ranks (arXiv:2412.19437, section 3.2). How many
tokens go where differs from step to step, so the exchange is an all-to-all of uneven parts.
Shapes: N tokens of this rank, K chosen, E experts, R ranks, D width, M tokens that came here.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_to_all_single

from llm_core.model import LanguageModel
from llm_core.moe import Experts, Routing


class SpreadExperts(Experts):
    """A rank's E / R experts, under the same names: gate and up [E / R, I, D], down [E / R, D, I]."""

    def __init__(self, whole: Experts, rank: int, size: int):
        nn.Module.__init__(self)
        self.size = size
        for name, weight in whole.named_parameters():
            part = nn.Parameter(weight.detach().chunk(size)[rank].clone())
            # Its gradient comes from all ranks' tokens, each rank's loss being the mean of its own: the mean of these.
            part.register_hook(lambda gradient: gradient / size)
            setattr(self, name, part)

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """x [N, D] -> [N, D]. All ranks must call it together."""
        here, K = len(self.gate), routing.experts.shape[1]
        chosen = routing.experts.flatten()  # [N * K]
        order = chosen.argsort(stable=True)  # places of expert 0, then of expert 1, …: so of rank 0, then of rank 1, …
        token = order // K
        going = chosen.bincount(minlength=here * self.size).view(self.size, here)  # [R, E / R] tokens for each expert
        coming = torch.empty_like(going)
        dist.all_to_all_single(coming, going)  # row r: what rank r sends to my experts
        out, back = going.sum(1).tolist(), coming.sum(1).tolist()
        came = _exchange(x[token], back, out)  # [M, D], by sender, and of each sender by expert
        expert = torch.arange(here, device=x.device).repeat(self.size).repeat_interleave(coming.flatten())  # [M]
        by_expert = expert.argsort(stable=True)
        done = self._run(came[by_expert], coming.sum(0).tolist())
        returned = _exchange(torch.zeros_like(done).index_copy(0, by_expert, done), out, back)  # [N * K, D]
        weighted = returned * routing.weights.flatten()[order, None]
        return torch.zeros_like(x, dtype=weighted.dtype).index_add(0, token, weighted).to(x.dtype)

    def _run(self, x: Tensor, counts: list[int]) -> Tensor:
        """x [M, D], sorted by expert, through the experts here. Those without tokens run on none, for the gradient."""
        networks = zip(x.split(counts), self.gate.unbind(), self.up.unbind(), self.down.unbind(), strict=True)
        return torch.cat([F.linear(F.silu(F.linear(t, g)) * F.linear(t, u), d) for t, g, u, d in networks])


def _exchange(x: Tensor, receive: list[int], send: list[int]) -> Tensor:
    """Rows of x to the ranks, `send` of them to each, and as many back as `receive` says. The gradient goes back so."""
    return all_to_all_single(x.new_empty(sum(receive), x.shape[1]), x.contiguous(), receive, send)


def spread_experts(model: LanguageModel, rank: int, size: int) -> list[str]:
    """Keep this rank's part of all experts; the names of the parameters that are now different on each rank.

    ValueError if there are no experts, or not as many for each rank.
    """
    layers = [(name, module) for name, module in model.named_modules() if type(module) is Experts]
    if not layers:
        raise ValueError("this model has no experts to spread over processes; ddp or fsdp would do")
    n_experts = len(layers[0][1].gate)
    if n_experts % size:
        raise ValueError(f"{n_experts} experts cannot be shared evenly by {size} processes; as many processes as "
                         f"divide {n_experts} would do")
    for name, module in layers:
        model.set_submodule(name, SpreadExperts(module, rank, size))
    return [f"{name}.{part}" for name, _ in layers for part in ("gate", "up", "down")]
