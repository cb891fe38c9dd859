"""How speeds are compared: in one process, A B A B, each warmed up, medians; and what the machine could do at best."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache

import torch


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleaved(calls: dict[str, Callable[[], object]], rounds: int = 7, warm_up: int = 2) -> dict[str, float]:
    """Median seconds of each call. They take turns, so that a machine that grows slower slows all of them."""
    for _ in range(warm_up):
        for call in calls.values():
            call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(seconds(call))
    return {name: statistics.median(times) for name, times in taken.items()}


@cache
def bandwidth() -> float:
    """Bytes a second that this machine reads from memory: the sum of 1 GiB, the best of five."""
    block = torch.ones(2**28)
    return block.nbytes / min(seconds(block.sum) for _ in range(5))


@cache
def peak(dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of a large square product, the best of five."""
    n = 2048
    a, b = torch.ones(n, n, dtype=dtype), torch.ones(n, n, dtype=dtype)
    return 2 * n**3 / min(seconds(lambda: a @ b) for _ in range(5))
