"""Softmax attention that cannot look ahead, by torch's fused kernel. All attention layers end here."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_mask(new: int, total: int, device=None) -> Tensor:
    """True where a token may look: [T, S], the T new tokens being the last of S. Row i sees columns 0 .. S - T + i.

    The triangle sits at the bottom right: a mask anchored at the top left would show one new token only the first key.
    """
    return torch.ones(new, total, dtype=torch.bool, device=device).tril(diagonal=total - new)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float = 0.0) -> Tensor:
    """softmax(scale * q k^T) v, each new token seeing itself and what came before.

    q [B, H, T, d], k [B, G, S, d], v [B, G, S, d_v] -> [B, H, T, d_v]. Query head h reads key head h // (H / G).
    """
    new, total = q.shape[2], k.shape[2]
    wide, narrow = q.shape[-1], v.shape[-1]
    if narrow < wide:  # the fused kernel wants one width; zeros in the values change nothing and are cut off again
        v = F.pad(v, (0, wide - narrow))
    mask = None if new in (1, total) else causal_mask(new, total, q.device)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=new == total > 1, dropout_p=dropout,
                                         scale=scale, enable_gqa=q.shape[1] != k.shape[1])
    return out[..., :narrow]


def attention_shares(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Who looks at whom: the softmax that the fused kernel keeps to itself, written out. Each row sums to 1.

    q [B, H, T, d], k [B, G, S, d], the T being the last of the S tokens -> [B, H, T, S], 0 for what comes later.
    """
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)  # a key for each query head: [B, H, S, d]
    return without_future(q @ k.transpose(-2, -1) * scale).softmax(dim=-1)  # [B, H, T, S]


def without_future(scores: Tensor) -> Tensor:
    """Scores [..., T, S] with -inf where a token would look at a later one. A single token is the last of all."""
    T, S = scores.shape[-2:]
    return scores if T == 1 else scores.masked_fill(~causal_mask(T, S, scores.device), -torch.inf)
