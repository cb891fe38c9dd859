"""What one token leaves in the cache of one layer. The cache is allocated from this, and its bytes are counted."""

from __future__ import annotations

from math import prod

from llm_core.config import LatentAttentionConfig, ModelConfig


def entry_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor that one token adds in one layer.

    Grouped attention: {"k": (n_kv_heads, head_dim), "v": (n_kv_heads, head_dim)}.
    MLA, for all heads together: {"latent": (kv_lora_rank,), "k_rope": (qk_rope_head_dim,)} (arXiv:2405.04434, 2.1.2).
    """
    a = config.attention
    if isinstance(a, LatentAttentionConfig):
        shapes = {"latent": (a.kv_lora_rank,)}
        if a.qk_rope_head_dim:
            shapes["k_rope"] = (a.qk_rope_head_dim,)
        return shapes
    return {"k": (a.kv_heads, config.head_dim), "v": (a.kv_heads, config.head_dim)}


def elements_per_token(config: ModelConfig) -> int:
    """Numbers that one token leaves in the cache, all layers together. Extra MTP layers are not counted."""
    return config.n_layers * sum(prod(shape) for shape in entry_shapes(config).values())
