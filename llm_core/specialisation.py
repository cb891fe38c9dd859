"""Do experts have a subject? How much a token's id tells about the experts that it is sent to, and chance beside it.

N tokens, K experts chosen for each. In bits: 0 if the id tells nothing, at most log2 of the number of experts.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mutual_information(tokens: Tensor, experts: Tensor) -> float:
    """I(token; expert) in bits, from counts: tokens [N] are ids, experts [N, K] those that were chosen.

    Each of the N x K choices counts as one pair. From few tokens the figure is too large, as each rare id was sent
    somewhere: hold it beside `by_chance`. ValueError if the shapes do not fit.
    """
    if tokens.dim() != 1 or experts.dim() != 2 or len(tokens) != len(experts) or not len(tokens):
        raise ValueError(f"tokens [N] and experts [N, K] are needed, N at least 1, not {list(tokens.shape)} and "
                         f"{list(experts.shape)}")
    _, ids = tokens.unique(return_inverse=True)
    n_experts = int(experts.max()) + 1
    pairs = (ids[:, None] * n_experts + experts).flatten()
    counts = pairs.bincount(minlength=(int(ids.max()) + 1) * n_experts).view(-1, n_experts).double()
    joint = counts / counts.sum()
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    there = joint > 0
    return max(0.0, (joint[there] * (joint[there] / apart[there]).log2()).sum().item())  # rounding may give -1e-17


def by_chance(tokens: Tensor, experts: Tensor, seed: int = 0, draws: int = 4) -> float:
    """What mutual_information would be if ids had nothing to do with experts: the mean over shuffled ids, in bits."""
    draw = torch.Generator().manual_seed(seed)
    shuffled = (tokens[torch.randperm(len(tokens), generator=draw)] for _ in range(draws))
    return sum(mutual_information(ids, experts) for ids in shuffled) / draws
