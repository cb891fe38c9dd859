"""A product with one row as a sum of weighted rows, by the kernel that torch has for embeddings.

x W, with W [I, O], is x_1 times the first row of W, plus x_2 times the second, and so on. `embedding_bag` was made to
average embeddings: it makes many such sums ("bags") in one call, from whichever rows they name, and shares them among
the cores. So the experts that a token chose take one call, and so do heads with a matrix each. Every bag reads its rows
anew: right for a few tokens, wrong for many.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor


def weighted_rows(matrix: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """N sums of I rows, each times its weight: matrix [R, O], places [N, I] of 0 .. R - 1, weights [N, I] -> [N, O]."""
    return F.embedding_bag(places, matrix, per_sample_weights=weights, mode="sum")


@functools.lru_cache(maxsize=64)
def runs(count: int, length: int, step: int) -> Tensor:
    """The places of `count` runs of rows, [count, length]: run n begins at n * step."""
    with torch.inference_mode(False):  # kept, so it must serve outside of inference mode too
        return torch.arange(count, device="cpu")[:, None] * step + torch.arange(length, device="cpu")
