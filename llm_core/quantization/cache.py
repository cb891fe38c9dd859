"""A cache whose entries are kept in 8, 6 or 4 bits: the same interface, fewer bytes, a small error in what is read.

DeepSeek-V2 serves with 6 bits an entry on average (arXiv:2405.04434, section 3.2.3).
Shapes: B batch, T new tokens, S all tokens, d an entry's width (a head's, the latent's or the rope key's).
"""

from __future__ import annotations

import torch
from torch import Tensor

from llm_core.cache import Cache, LayerCache
from llm_core.cache_layout import entry_shapes
from llm_core.config import ModelConfig
from llm_core.quantization.integers import Quantized, check, quantize
from llm_core.quantization.packing import packed_bytes

SCALE_BITS = 16  # a scale is a bf16 number


class QuantizedCache(Cache):
    """Each vector of an entry (a token's key or value of one head, its latent, its rope key) has a scale of its own.

    So a token's entries never depend on other tokens, and are written once. Symmetric codes, packed side by side.
    nbytes counts codes and scales; accounting.cache_bytes(config, batch, tokens, bits, scale_bits=16) is the formula.
    Tokens read themselves quantised too, so reading a prompt in pieces gives what reading it at once does.
    """

    def __init__(self, config: ModelConfig, batch: int, max_tokens: int, bits: int = 8, *, device="cpu"):
        check(bits, "channel")
        self.bits, self.max_tokens, self.length = bits, max_tokens, 0
        self.layers: list[dict[str, Tensor]] = []
        for _ in range(config.n_layers):
            layer = {}
            for name, (*heads, width) in entry_shapes(config).items():
                layer[name] = torch.zeros(batch, max_tokens, *heads, packed_bytes(width, bits), dtype=torch.uint8,
                                          device=device)
                layer[f"{name}_scale"] = torch.zeros(batch, max_tokens, *heads, 1, dtype=torch.bfloat16, device=device)
            self.layers.append(layer)

    def layer(self, index: int) -> LayerCache:
        return _QuantizedLayerCache(self, self.layers[index])


class _QuantizedLayerCache(LayerCache):
    def append(self, **new: Tensor) -> dict[str, Tensor]:
        """Quantise new entries [B, T, ..., d] behind those held; all entries [B, S, ..., d] come back as numbers."""
        start, bits, out = self._cache.length, self._cache.bits, {}
        for name, entries in new.items():
            packed, scale = self._tensors[name], self._tensors[f"{name}_scale"]
            end, width = start + entries.shape[1], entries.shape[-1]
            made = quantize(entries, bits, "channel", scale_dtype=torch.bfloat16)
            packed[:, start:end] = made.packed.view(packed[:, start:end].shape)
            scale[:, start:end] = made.scale.view(scale[:, start:end].shape)
            held = packed[:, :end]
            shape = torch.Size((*held.shape[:-1], width))
            all_of_it = Quantized(held.reshape(-1, held.shape[-1]), scale[:, :end].reshape(-1, 1), None, shape, bits,
                                  "channel")
            out[name] = all_of_it.dequantize().to(entries.dtype)
        return out
