"""How many bytes the cache of keys and values takes. The shapes come from cache_layout, from which it is allocated."""

from __future__ import annotations

from math import prod

from llm_core import cache_layout
from llm_core.config import LatentAttentionConfig, ModelConfig
from llm_core.validation import instance_of, whole


def cache_bytes_per_token(config: ModelConfig, bits: int = 16, scale_bits: int = 0) -> int:
    """Bytes that one token leaves in the cache, all layers together, at `bits` bits a number.

    Main model only: extra MTP layers keep a cache of their own. scale_bits counts the scales of a quantised cache, as
    in cache_bytes. A part of a byte is rounded up. ValueError for bits that are no whole number of at least 1.
    """
    return cache_bytes(config, batch=1, tokens=1, bits=bits, scale_bits=scale_bits)


def cache_bytes(config: ModelConfig, batch: int, tokens: int, bits: int = 16, scale_bits: int = 0) -> int:
    """Bytes of the cache for `batch` sequences of `tokens` tokens each; rounded up to whole bytes once, at the end.

    scale_bits above 0: a quantised cache, in which each vector (a token's key or value of one head, its latent, its
    rope key) has a scale of that many bits, and is packed into whole bytes of its own (quantization.cache has 16).
    ValueError for a batch below 1, tokens below 0 or bits below 1, and for anything that is not a whole number.
    """
    _check(config, batch, tokens, bits)
    whole("scale_bits", scale_bits, least=0)
    if scale_bits:
        a_layer = sum(prod(heads) * -(-(width * bits + scale_bits) // 8)
                      for *heads, width in cache_layout.entry_shapes(config).values())
        return config.n_layers * batch * tokens * a_layer
    return -(-cache_layout.elements_per_token(config) * batch * tokens * bits // 8)  # minus twice rounds up, exactly


def cache_formula(config: ModelConfig, batch: int = 1, tokens: int = 1, bits: int = 16) -> str:
    """The arithmetic behind cache_bytes with this config's numbers in it, in one line.

    "2 (key and value) × 8 heads × 128 numbers × 32 layers × 2 bytes = 131,072 bytes a token"
    """
    total = cache_bytes(config, batch, tokens, bits)
    shapes = cache_layout.entry_shapes(config)
    if isinstance(config.attention, LatentAttentionConfig):
        names = {"latent": "latent", "k_rope": "rope key"}
        widths = " + ".join(f"{shape[0]:,} {names[name]}" for name, shape in shapes.items())
        factors = [f"({widths}) numbers"]
    else:
        heads, width = shapes["k"]
        factors = ["2 (key and value)", _of(heads, "head"), _of(width, "number")]
    factors.append(_of(config.n_layers, "layer"))
    if tokens != 1 or batch != 1:
        factors.append(_of(tokens, "token"))
    if batch != 1:
        factors.append(_of(batch, "sequence"))
    size = _of(bits // 8, "byte") if bits % 8 == 0 else f"{_of(bits, 'bit')} ÷ 8"
    rounded = ", rounded up" if cache_layout.elements_per_token(config) * batch * tokens * bits % 8 else ""
    per = " a token" if tokens == 1 and batch == 1 else ""
    return f"{' × '.join(factors)} × {size} = {total:,} bytes{per}{rounded}"


def _check(config: ModelConfig, batch: int, tokens: int, bits: int) -> None:
    instance_of("config", config, (ModelConfig,))
    whole("batch", batch)
    whole("tokens", tokens, least=0)
    whole("bits", bits)


def _of(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
