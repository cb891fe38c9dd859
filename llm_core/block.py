"""The transformer block: attention, then feed-forward, each behind a norm and added to the stream that runs past it."""

from __future__ import annotations

from torch import Tensor, nn

from llm_core.attention import build_attention
from llm_core.cache import LayerCache
from llm_core.config import ModelConfig
from llm_core.feed_forward import FeedForward
from llm_core.moe import MoE, Routing
from llm_core.norms import build_norm


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)), the latter being experts where the config says so."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        ff = config.feed_forward
        self.attention_norm = build_norm(config.norm, config.d_model, config.norm_eps)
        self.attention = build_attention(config)
        self.feed_forward_norm = build_norm(config.norm, config.d_model, config.norm_eps)
        if layer < config.n_dense_layers:
            self.feed_forward = FeedForward(config.d_model, ff.d_ff, ff.activation, ff.bias)
        else:
            self.feed_forward = MoE(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor] | None,
                cache: LayerCache | None = None) -> tuple[Tensor, Routing | None]:
        """x [B, T, D] -> the same shape, and the routing if this block has experts."""
        x = x + self.dropout(self.attention(self.attention_norm(x), rope, cache))
        out, routing = self.feed_forward(self.feed_forward_norm(x)), None
        if isinstance(self.feed_forward, MoE):
            out, routing = out
        return x + self.dropout(out), routing
