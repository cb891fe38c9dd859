"""Is a config about the tensors that lie beside it? Asked before a model is set up, which takes time and memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod

from llm_core import accounting
from llm_core.config import ModelConfig


def check_size(config: ModelConfig, shapes: Collection[Sequence[int]], label: str, stacked: bool = True) -> None:
    """ValueError if a config describes a far larger model than files hold. Smaller differences are named later.

    label: the file that describes the model. Tensors are compared too, as ten thousand layers of a few numbers each are
    few numbers and yet ten thousand modules. A file may hold query, key and value as one tensor, hence three for one.
    stacked: the files hold all experts of a layer in one tensor, as our own do.
    """
    rows = accounting.rows(config) + accounting.mtp_rows(config)
    held = sum(map(prod, shapes))
    described = sum(row.total for row in rows)
    if described > 100 * max(held, 1):
        raise ValueError(f"{label} describes a model of {described:,} parameters, and the files hold {held:,} numbers")
    apart = sum(row.copies for row in rows if not (stacked and row.part == "routed experts"))
    if apart > 3 * len(shapes):
        raise ValueError(f"{label} describes a model of {apart:,} tensors, and the files hold {len(shapes):,}")
