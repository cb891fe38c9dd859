"""The cache: what earlier tokens left behind, so that a new token need not compute it again."""

from __future__ import annotations

import torch
from torch import Tensor

from llm_core.cache_layout import elements_per_token, entry_shapes
from llm_core.config import ModelConfig
from llm_core.validation import whole


class Cache:
    """Room for `max_tokens` tokens of `batch` texts, one set of tensors a layer, laid out by cache_layout.

    `length` counts the tokens held. Layers write behind it, and only the model moves it, once all layers have written:
    a layer that moved it early would show the next layer tokens it has not seen.
    ValueError if the memory cannot be had, or for numbers that count nothing.
    """

    def __init__(self, config: ModelConfig, batch: int, max_tokens: int, *, dtype=torch.float32, device="cpu"):
        whole("batch", batch)
        whole("max_tokens", max_tokens, least=0)
        shapes = entry_shapes(config)
        self.max_tokens = max_tokens
        self.length = 0
        try:
            self.layers: list[dict[str, Tensor]] = [
                {name: torch.zeros(batch, max_tokens, *shape, dtype=dtype, device=device)
                 for name, shape in shapes.items()}
                for _ in range(config.n_layers)
            ]
        except (RuntimeError, TypeError):  # no such memory, or a size beyond 64 bits
            size = batch * max_tokens * elements_per_token(config) * dtype.itemsize
            raise ValueError(f"a cache for {max_tokens:,} tokens takes {size:,} bytes, which cannot be had here; give "
                             "max_tokens, or fewer") from None

    def layer(self, index: int) -> LayerCache:
        return LayerCache(self, self.layers[index])

    def advance(self, tokens: int) -> None:
        """Called by the model when every layer has written its `tokens` new entries."""
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Keep the first `length` positions, forget the rest."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot keep {length} positions of a cache that holds {self.length}")
        self.length = length

    def check_room(self, tokens: int) -> None:
        if self.length + tokens > self.max_tokens:
            raise ValueError(f"the cache has room for {self.max_tokens} tokens and holds {self.length}; "
                             f"{tokens} more do not fit, {self.max_tokens - self.length} would")

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, full or not."""
        return sum(t.nbytes for layer in self.layers for t in layer.values())


class LayerCache:
    """One layer's view of the cache."""

    def __init__(self, cache: Cache, tensors: dict[str, Tensor]):
        self._cache, self._tensors = cache, tensors

    def append(self, **new: Tensor) -> dict[str, Tensor]:
        """Write new entries [B, T, ...] behind those held; all entries [B, S, ...] come back, S = length + T."""
        start, out = self._cache.length, {}
        for name, entries in new.items():
            stored = self._tensors[name]
            end = start + entries.shape[1]
            stored[:, start:end] = entries
            out[name] = stored[:, :end].to(entries.dtype)
        return out
