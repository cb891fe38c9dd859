"""Multi-head, grouped-query and multi-query attention: one layer, told apart by its number of key-value heads.

Shapes: B batch, T new tokens, S all tokens (cached and new), H query heads, G key-value heads, d head width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from llm_core.attention.causal import causal_attention
from llm_core.cache import LayerCache
from llm_core.config import ModelConfig
from llm_core.linear import Linear
from llm_core.positions import rotate, softmax_scale


class GroupedAttention(nn.Module):
    """H query heads share G key-value heads (Ainslie et al. 2023). G = H: MHA; G = 1: MQA (Shazeer 2019)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        a = config.attention
        self.n_heads, self.kv_heads, self.head_dim = a.n_heads, a.kv_heads, config.head_dim
        self.rope_layout = config.rope.layout if config.rope else None
        self.scale = softmax_scale(config)
        self.dropout = config.attention_dropout
        self.q_proj = Linear(config.d_model, self.n_heads * self.head_dim, bias=a.qkv_bias)
        self.k_proj = Linear(config.d_model, self.kv_heads * self.head_dim, bias=a.qkv_bias)
        self.v_proj = Linear(config.d_model, self.kv_heads * self.head_dim, bias=a.qkv_bias)
        self.o_proj = Linear(self.n_heads * self.head_dim, config.d_model, bias=a.output_bias)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor] | None, cache: LayerCache | None = None) -> Tensor:
        """x [B, T, D] -> [B, T, D]. rope: cos and sin [T, d / 2] of the new tokens' positions."""
        B, T, _ = x.shape
        q, k, v = self._project(x, rope)
        if cache is not None:
            held = cache.append(k=k, v=v)
            k, v = held["k"], held["v"]  # [B, S, G, d]
        out = causal_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), self.scale,
                               self.dropout if self.training else 0.0)  # [B, H, T, d]
        return self.o_proj(out.transpose(1, 2).reshape(B, T, -1))

    def queries_and_keys(self, x: Tensor, rope: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """What scores are made of, to look at: q [B, H, T, d] and k [B, G, T, d], turned by their positions."""
        q, k, _ = self._project(x, rope)
        return q.transpose(1, 2), k.transpose(1, 2)

    def _project(self, x: Tensor, rope: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """q [B, T, H, d], k and v [B, T, G, d], q and k turned by their positions."""
        B, T, _ = x.shape
        q, k, v = (t.view(B, T, -1, self.head_dim) for t in self._read(x))
        if rope is not None:
            q, k = rotate(q, *rope, self.rope_layout), rotate(k, *rope, self.rope_layout)
        return q, k, v

    def _read(self, x: Tensor) -> Sequence[Tensor]:
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)
