"""Multi-head latent attention (MLA): the cache holds one latent and one rope key a token, whatever the number of heads.

DeepSeek-V2, arXiv:2405.04434, section 2.1; V3, arXiv:2412.19437, section 2.1.1. Two ways to the same result:
naive expands each cached latent into keys and values of all heads; absorbed moves the expansion to the query's side.
Shapes: B batch, T new tokens, S all tokens, H heads, n = qk_nope, r = qk_rope, v = v_head width, c = kv_lora_rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_core.attention.causal import causal_attention, without_future
from llm_core.cache import LayerCache
from llm_core.config import ModelConfig
from llm_core.linear import Linear, by_head
from llm_core.norms import RMSNorm
from llm_core.positions import rotate, softmax_scale

LATENT_NORM_EPS = 1e-6  # DeepSeek's code uses this on the latents, whatever norm_eps the rest of the model has
FEW = 8  # one token, or some guesses to check: expanding what is cached would cost more than they do


class LatentAttention(nn.Module):
    """`absorbed` True or False chooses the way; None: absorbed for up to FEW tokens behind cached ones, else naive."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        a = config.attention
        self.n_heads, self.latent_dim = a.n_heads, a.kv_lora_rank
        self.nope_dim, self.rope_dim, self.v_dim = a.qk_nope_head_dim, a.qk_rope_head_dim, a.v_head_dim
        self.rope_layout = config.rope.layout if config.rope else None
        self.scale = softmax_scale(config)
        self.dropout = config.attention_dropout
        self.absorbed: bool | None = None
        query_width = self.n_heads * a.qk_head_dim
        if a.q_lora_rank is None:
            self.q_proj = Linear(config.d_model, query_width, bias=False)
        else:
            self.q_down = Linear(config.d_model, a.q_lora_rank, bias=False)
            self.q_norm = RMSNorm(a.q_lora_rank, LATENT_NORM_EPS)
            self.q_up = Linear(a.q_lora_rank, query_width, bias=False)
        self.kv_down = Linear(config.d_model, self.latent_dim + self.rope_dim, bias=False)
        self.kv_norm = RMSNorm(self.latent_dim, LATENT_NORM_EPS)
        self.kv_up = Linear(self.latent_dim, self.n_heads * (self.nope_dim + self.v_dim), bias=False)
        self.o_proj = Linear(self.n_heads * self.v_dim, config.d_model, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor] | None, cache: LayerCache | None = None) -> Tensor:
        """x [B, T, D] -> [B, T, D]. rope: cos and sin [T, r / 2] of the new tokens' positions."""
        B, T, _ = x.shape
        q_nope, q_rope, latent, k_rope = self._project(x, rope)
        if cache is not None:
            held = cache.append(latent=latent, **({"k_rope": k_rope} if self.rope_dim else {}))
            latent = held["latent"]  # [B, S, c]
            k_rope = held.get("k_rope", latent[..., :0])  # [B, S, r]
        absorbed = T <= FEW and T < latent.shape[1] if self.absorbed is None else self.absorbed
        attend = self._attend_absorbed if absorbed else self._attend_naive
        out = attend(q_nope, q_rope, latent, k_rope, self.dropout if self.training else 0.0)  # [B, H, T, v]
        return self.o_proj(out.transpose(1, 2).reshape(B, T, -1))

    def queries_and_keys(self, x: Tensor, rope: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """What scores are made of, to look at: q and k, both [B, H, T, n + r], content first, then position."""
        q_nope, q_rope, latent, k_rope = self._project(x, rope)
        k, _ = self._expand(latent, k_rope)
        return torch.cat([q_nope, q_rope], dim=-1).transpose(1, 2), k.transpose(1, 2)

    def _project(self, x: Tensor, rope: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q_nope [B, T, H, n] and q_rope [B, T, H, r]; what is cached: latent [B, T, c], k_rope [B, T, r]."""
        B, T, _ = x.shape
        q, kv = self._read(x)
        if hasattr(self, "q_up"):
            q = self.q_up(self.q_norm(q))
        q_nope, q_rope = q.view(B, T, self.n_heads, -1).split([self.nope_dim, self.rope_dim], dim=-1)
        latent, k_rope = kv.split([self.latent_dim, self.rope_dim], dim=-1)
        if rope is not None:
            q_rope = rotate(q_rope, *rope, self.rope_layout)
            k_rope = rotate(k_rope[:, :, None], *rope, self.rope_layout)[:, :, 0]  # one key for all heads
        return q_nope, q_rope, self.kv_norm(latent), k_rope

    def _read(self, x: Tensor) -> Sequence[Tensor]:
        """Queries, or what they are made of, and latent with rope key: all that is read from the stream itself."""
        return (self.q_proj if hasattr(self, "q_proj") else self.q_down)(x), self.kv_down(x)

    def _expand(self, latent: Tensor, k_rope: Tensor) -> tuple[Tensor, Tensor]:
        """Keys [B, S, H, n + r] and values [B, S, H, v] of all heads from what is cached."""
        B, S, _ = latent.shape
        k_nope, v = self.kv_up(latent).view(B, S, self.n_heads, -1).split([self.nope_dim, self.v_dim], dim=-1)
        return torch.cat([k_nope, k_rope[:, :, None].expand(-1, -1, self.n_heads, -1)], dim=-1), v

    def _attend_naive(self, q_nope, q_rope, latent, k_rope, dropout) -> Tensor:
        """Expand every latent into keys and values, then attend as any multi-head attention does."""
        k, v = self._expand(latent, k_rope)
        q = torch.cat([q_nope, q_rope], dim=-1)  # [B, T, H, n + r]
        return causal_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), self.scale, dropout)

    def _attend_absorbed(self, q_nope, q_rope, latent, k_rope, dropout) -> Tensor:
        """Attend in the latent space: q (W c) = (q W) c. All heads read one key: the latent, the rope key beside it.

        Plain products, not the fused kernel: for one key that leaves all but one thread idle.
        """
        B, T, H, _ = q_nope.shape
        w_k, w_v = self.kv_up.weight.view(H, -1, self.latent_dim).split([self.nope_dim, self.v_dim], dim=1)
        q_latent = by_head(q_nope.transpose(1, 2) * self.scale, w_k).flatten(1, 2)  # [B, H T, c]
        q_rope = (q_rope.transpose(1, 2) * self.scale).flatten(1, 2)  # [B, H T, r]
        scores = torch.baddbmm(k_rope @ q_rope.mT, latent, q_latent.mT)  # both products added: [B, S, H T]
        scores = scores.mT.contiguous().view(B, H, T, -1)  # [B, H, T, S]
        shares = without_future(scores).softmax(dim=-1)
        if dropout:
            shares = F.dropout(shares, dropout)
        mixed = (latent.mT @ shares.flatten(1, 2).mT).mT.view(B, H, T, -1)  # [B, H, T, c]
        return by_head(mixed, w_v.mT)
