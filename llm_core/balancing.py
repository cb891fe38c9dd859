"""Keeping the experts busy: how uneven their load is, and the ways to even it out.

A router that is left alone soon sends everything to a few experts: who is chosen learns, and who learns is chosen.
Here are the ways out, in the order in which they were found: a loss on the gates' sums, a loss on load and scores, a
capacity that cuts off what is too much, and V3's bias, which is `Router.update_bias` in moe.py.

All losses come without their factor alpha. Add alpha times them to the training loss; only the scores carry a gradient,
since counting is no function that one could follow downhill.
Shapes: N tokens (all of a batch in one row), E routed experts, K chosen by a token, G devices.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core.moe import Router, Routing
from llm_core.validation import divides, real, whole

# How uneven is it?

def load(routing: Routing) -> Tensor:
    """How many tokens each expert got: [E], whole numbers that sum to N * K."""
    return routing.experts.flatten().bincount(minlength=routing.scores.shape[-1])


def shares(routing: Routing) -> Tensor:
    """The load as parts of all places: [E], sums to 1."""
    return load(routing) / routing.experts.numel()


def max_violation(counts: Tensor) -> float:
    """MaxVio = (largest load - mean load) / mean load; 0 is balance, E / K - 1 the worst (arXiv:2408.15664, section 4).

    counts [E]: the load of one batch, or the sum over many ("global" in the paper). ValueError if nobody was chosen.
    """
    counts = counts.double()
    if counts.numel() == 0 or counts.sum() <= 0:
        raise ValueError("no token was sent to any expert, so there is no load to compare; route at least one")
    return (counts.max() / counts.mean() - 1).item()


# Losses

def importance(routing: Routing) -> Tensor:
    """The sum of the gate weights that each expert was given: [E] (Shazeer et al. 2017, arXiv:1701.06538, section 4).

    It carries a gradient, through the weights.
    """
    return torch.zeros_like(routing.scores[0]).index_add(0, routing.experts.flatten(), routing.weights.flatten())


def importance_loss(routing: Routing) -> Tensor:
    """The squared coefficient of variation (variance / mean^2) of the experts' importance; 0 when all are equal.

    It evens out what the gates hand out, not how many tokens come: one token at 0.9 weighs as much as nine at 0.1.
    """
    given = importance(routing)
    return given.var(correction=0) / given.mean() ** 2


def expert_balance_loss(routing: Routing) -> Tensor:
    """Sum over experts of f_i * P_i: load times mean score (DeepSeekMoE, arXiv:2401.06066, section 3.3).

    f_i = E / (K * N) * the tokens that chose i: 1 in balance. P_i: the mean score of i. With softmax scores the loss is
    1 in balance and at most E / K. For K = 1 it is the Switch Transformer's (arXiv:2101.03961, section 2.2);
    transformers takes K times as much for Mixtral; GShard (arXiv:2006.16668, 2.2) 1 / E^2, of the first choice alone.

    With sigmoid scores P_i does not sum to 1: a router can then shrink this loss by scoring every expert lower, and
    balance nothing. Divide each token's scores by their sum first, as V3's sequence loss does (2412.19437, 2.1.2).
    """
    frequency, score = _frequency_and_score(routing)
    return (frequency * score).sum()


def device_balance_loss(routing: Routing, devices: int) -> Tensor:
    """The same over groups of E / G experts that share a device: mean of f, sum of P (V2, arXiv:2405.04434, 2.2.3).

    Devices may be even while the experts on one are not, which leaves the router freer.
    """
    frequency, score = _frequency_and_score(routing)
    return (_on_devices(frequency, devices).mean(-1) * _on_devices(score, devices).sum(-1)).sum()


def communication_balance_loss(routing: Routing, devices: int, devices_per_token: int) -> Tensor:
    """How evenly devices *receive* tokens (V2, 2.2.3); a token with two experts on a device is sent there once.

    f''_i = G / (M * N) * the tokens sent to device i, M = devices_per_token the most devices that a token may go to.
    """
    whole("devices_per_token", devices_per_token)
    _, score = _frequency_and_score(routing)
    per_device = _on_devices(score, devices)  # [G, E / G]
    target = routing.experts // per_device.shape[1]  # the device of each place: [N, K]
    sent = F.one_hot(target, devices).amax(dim=1).sum(dim=0)  # [G]
    received = sent * devices / (devices_per_token * len(target))
    return (received * per_device.sum(-1)).sum()


def sequence_balance_loss(routing: Routing, batch: int) -> Tensor:
    """V3's complementary loss: balance within each text, averaged over the batch (arXiv:2412.19437, eqs 17-20).

    The N tokens are `batch` texts of N / batch each. Two things differ from expert_balance_loss: scores are made to sum
    to one for each token, as sigmoids do not; and, as the paper prints it, f counts the K best by *score*, whoever the
    bias and the groups let through. V3's alpha is 0.0001: only a text that leans far to one side should feel it.
    """
    whole("batch", batch)
    divides("batch", batch, "the number of tokens", len(routing.scores))
    scores = routing.scores.view(batch, -1, routing.scores.shape[-1])  # [B, T, E]
    n_experts, k = scores.shape[-1], routing.experts.shape[-1]
    best = torch.zeros_like(scores).scatter(-1, scores.topk(k, dim=-1).indices, 1.0)  # [B, T, E]
    frequency = best.mean(dim=1) * n_experts / k  # [B, E]
    share = (scores / (scores.sum(dim=-1, keepdim=True) + 1e-20)).mean(dim=1)
    return (frequency * share).sum(dim=-1).mean()


def _frequency_and_score(routing: Routing) -> tuple[Tensor, Tensor]:
    """f [E], 1 for an even share, and P [E], the mean score."""
    return shares(routing) * routing.scores.shape[-1], routing.scores.mean(dim=0)


def _on_devices(values: Tensor, devices: int) -> Tensor:
    """[E] -> [G, E / G]: neighbours share a device."""
    whole("devices", devices)
    divides("devices", devices, "the number of experts", len(values))
    return values.view(devices, -1)


# Capacity, for teaching: what it costs to cut off. Never in use: a text's answer would depend on its neighbours.

def capacity(tokens: int, n_experts: int, n_experts_per_token: int, factor: float = 1.0) -> int:
    """The most tokens an expert takes: ceil(K * N / E * factor). factor 1 has no room for the least unevenness."""
    for name, value in (("tokens", tokens), ("n_experts", n_experts), ("n_experts_per_token", n_experts_per_token)):
        whole(name, value)
    real("factor", factor)
    return math.ceil(n_experts_per_token * tokens * factor / n_experts - 1e-9)  # 1.1 * 10 is a hair above 11


def within_capacity(routing: Routing, room: int, *, best_first: bool = False) -> Tensor:
    """Which places [N, K] an expert still takes when it has room for `room` tokens; the others are dropped.

    In the order of GShard (arXiv:2006.16668, algorithm 1): first all first choices, token by token, then the second
    ones. So the end of a text suffers. best_first: by gate weight instead, largest first, as V2 drops in training
    (arXiv:2405.04434, 2.2.4; there it is a device that has the room).
    """
    whole("room", room)
    experts = routing.experts.T.flatten()  # all first choices, then all second ones: [K * N]
    turn = torch.arange(len(experts), device=experts.device)
    if best_first:
        turn = routing.weights.T.flatten().argsort(descending=True, stable=True)
    queue = F.one_hot(experts[turn], routing.scores.shape[-1])  # [K * N, E]
    ahead = (queue.cumsum(0) * queue).sum(-1) - 1  # how many stand before each in its expert's queue
    taken = torch.empty_like(experts, dtype=torch.bool)
    taken[turn] = ahead < room
    return taken.view(routing.experts.shape[1], -1).T  # [N, K]


def drop_overflow(routing: Routing, room: int, *, best_first: bool = False) -> Routing:
    """The routing with gate weight 0 for places beyond `room`: a token dropped by all its experts passes unchanged."""
    taken = within_capacity(routing, room, best_first=best_first)
    return Routing(routing.experts, routing.weights * taken, routing.scores)


# V3's bias

@torch.no_grad()
def even_out(router: Router, x: Tensor, steps: int, speed: float) -> Tensor:
    """Move the selection bias `steps` times on the same tokens x [N, D], and watch the load: [steps + 1, E].

    Row 0 is the load before the first step. The router's weights, and so its scores, stay as they are: what flattens
    the load here is the bias alone. ValueError if the router has none.
    """
    if router.selection_bias is None:
        raise ValueError("this router has no selection bias to move; its config needs selection_bias=True")
    loads = [load(router(x))]
    for _ in range(steps):
        router.update_bias(router(x).experts, speed)
        loads.append(load(router(x)))
    return torch.stack(loads)
