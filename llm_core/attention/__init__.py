"""Attention behind one interface: forward(x [B, T, D], rope, layer_cache) -> [B, T, D]."""

from __future__ import annotations

from torch import nn

from llm_core.attention.grouped import GroupedAttention
from llm_core.attention.latent import LatentAttention
from llm_core.config import LatentAttentionConfig, ModelConfig

__all__ = ["GroupedAttention", "LatentAttention", "build_attention"]


def build_attention(config: ModelConfig) -> nn.Module:
    """The layer that config.attention describes."""
    return LatentAttention(config) if isinstance(config.attention, LatentAttentionConfig) else GroupedAttention(config)
