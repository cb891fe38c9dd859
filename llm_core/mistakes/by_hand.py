"""The model once more, written in another way, to compare with: one token after the other, in 64 bits, no cache.

It shares the weights with the real one and as little else as possible: rotations are complex multiplications, attention
loops over heads and tokens and touches no later key, so that it needs no mask, experts are picked from sorted lists. It
is slow, and easy to hold against the papers' formulas. Shapes: T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core.config import LatentAttentionConfig, ModelConfig, MoEConfig, RopeConfig, YarnConfig
from llm_core.model import LanguageModel
from llm_core.positions import inverse_frequencies

Weights = dict[str, Tensor]


def logits(model: LanguageModel, token_ids: Tensor) -> Tensor:
    """token_ids [B, T] -> logits [B, T, V] in 64 bits, from the model's weights and config alone."""
    weights = {name: tensor.detach().double() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    return torch.stack([_text(model.config, weights, ids) for ids in token_ids])


def _text(config: ModelConfig, w: Weights, ids: Tensor) -> Tensor:
    x = w["token_embedding.weight"][ids]  # [T, D]
    if config.rope is None:
        x = x + w["position_embedding.weight"][: len(ids)]
    attention = _latent_attention if isinstance(config.attention, LatentAttentionConfig) else _grouped_attention
    for layer in range(config.n_layers):
        block = _inside(w, f"blocks.{layer}.")
        x = x + attention(config, _inside(block, "attention."), _norm(config, block, "attention_norm", x))
        normed, feed_forward = _norm(config, block, "feed_forward_norm", x), _inside(block, "feed_forward.")
        if layer < config.n_dense_layers:
            x = x + _feed_forward(feed_forward, normed)
        else:
            x = x + torch.stack([_experts(config.moe, feed_forward, token) for token in normed])
    head = w["token_embedding.weight" if config.tie_embeddings else "output_head.weight"]
    return _norm(config, w, "final_norm", x) @ head.T


def _inside(w: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): tensor for name, tensor in w.items() if name.startswith(prefix)}


def _norm(config: ModelConfig, w: Weights, name: str, x: Tensor) -> Tensor:
    if config.norm == "rmsnorm":
        return _rms(x, w[f"{name}.weight"], config.norm_eps)
    centred = x - x.mean(-1, keepdim=True)
    return _rms(centred, w[f"{name}.weight"], config.norm_eps) + w[f"{name}.bias"]


def _rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / ((x * x).mean(-1, keepdim=True) + eps).sqrt() * weight


def _linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def _mscale(yarn: YarnConfig, m: float) -> float:
    return 1 + 0.1 * m * math.log(yarn.factor) if yarn.factor > 1 else 1.0


def _turn(x: Tensor, rope: RopeConfig) -> Tensor:
    """x [T, heads, R]: a pair is a complex number, and a token's position its angle."""
    T, heads, width = x.shape
    a, b = (x[..., 0::2], x[..., 1::2]) if rope.layout == "interleaved" else (x[..., :width // 2], x[..., width // 2:])
    angle = torch.arange(T, dtype=torch.float64)[:, None] * inverse_frequencies(rope, width).double()  # [T, R / 2]
    turned = torch.complex(a, b) * torch.polar(torch.ones_like(angle), angle)[:, None]
    if isinstance(rope.scaling, YarnConfig):
        turned = turned * (_mscale(rope.scaling, rope.scaling.mscale) / _mscale(rope.scaling,
                                                                                rope.scaling.mscale_all_dim))
    # Where the halves of a pair stand makes no difference to a product of queries and keys turned alike.
    return torch.cat([turned.real, turned.imag], dim=-1)


def _attend(config: ModelConfig, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q [T, H, d], k [T, G, d], v [T, G, v] -> [T, H * v], one head and one token at a time."""
    scale = q.shape[-1] ** -0.5
    if config.rope is not None and isinstance(config.rope.scaling, YarnConfig):
        scale *= _mscale(config.rope.scaling, config.rope.scaling.mscale_all_dim) ** 2
    T, H, group = len(q), q.shape[1], q.shape[1] // k.shape[1]
    rows = []
    for t in range(T):
        for h in range(H):
            shares = torch.softmax(k[: t + 1, h // group] @ q[t, h] * scale, dim=0)
            rows.append(shares @ v[: t + 1, h // group])
    return torch.cat(rows).view(T, -1)


def _grouped_attention(config: ModelConfig, w: Weights, x: Tensor) -> Tensor:
    a, T = config.attention, len(x)
    q, k, v = (_linear(w, f"{name}_proj", x).view(T, heads, config.head_dim)
               for name, heads in (("q", a.n_heads), ("k", a.kv_heads), ("v", a.kv_heads)))
    if config.rope is not None:
        q, k = _turn(q, config.rope), _turn(k, config.rope)
    return _linear(w, "o_proj", _attend(config, q, k, v))


def _latent_attention(config: ModelConfig, w: Weights, x: Tensor) -> Tensor:
    a, T = config.attention, len(x)
    if a.q_lora_rank is None:
        q = _linear(w, "q_proj", x)
    else:
        q = _linear(w, "q_up", _rms(_linear(w, "q_down", x), w["q_norm.weight"], 1e-6))
    q = q.view(T, a.n_heads, -1)
    down = _linear(w, "kv_down", x)
    latent, k_rope = _rms(down[:, :a.kv_lora_rank], w["kv_norm.weight"], 1e-6), down[:, None, a.kv_lora_rank:]
    expanded = _linear(w, "kv_up", latent).view(T, a.n_heads, -1)
    k, v = expanded[..., :a.qk_nope_head_dim], expanded[..., a.qk_nope_head_dim:]
    if config.rope is not None:
        q = torch.cat([q[..., :a.qk_nope_head_dim], _turn(q[..., a.qk_nope_head_dim:], config.rope)], dim=-1)
        k_rope = _turn(k_rope, config.rope)
    k = torch.cat([k, k_rope.expand(-1, a.n_heads, -1)], dim=-1)  # the one rope key, for every head
    return _linear(w, "o_proj", _attend(config, q, k, v))


def _feed_forward(w: Weights, x: Tensor) -> Tensor:
    if "gate.weight" in w:
        return _linear(w, "down", F.silu(_linear(w, "gate", x)) * _linear(w, "up", x))
    return _linear(w, "down", F.gelu(_linear(w, "up", x), approximate="tanh"))


def _experts(moe: MoEConfig, w: Weights, x: Tensor) -> Tensor:
    """One token [D] through the experts it chooses, and those that all tokens use."""
    raw = w["router.weight"] @ x
    scores = (raw.sigmoid() if moe.scoring == "sigmoid" else raw.softmax(0)).tolist()
    bias = w["router.selection_bias"].tolist() if moe.selection_bias else [0.0] * len(scores)
    biased = [s + b for s, b in zip(scores, bias, strict=True)]
    size = len(scores) // moe.n_expert_groups
    groups = [range(g * size, (g + 1) * size) for g in range(moe.n_expert_groups)]
    best = 1 if moe.group_score == "max" else 2
    groups.sort(key=lambda group: -sum(sorted((biased[e] for e in group), reverse=True)[:best]))
    candidates = [e for group in groups[:moe.n_limited_groups] for e in group]
    chosen = sorted(candidates, key=lambda e: -biased[e])[:moe.n_experts_per_token]
    total = sum(scores[e] for e in chosen) if moe.norm_topk_prob else 1.0
    out = _feed_forward(_inside(w, "shared."), x) if moe.n_shared_experts else torch.zeros_like(x)
    for e in chosen:
        hidden = F.silu(w["experts.gate"][e] @ x) * (w["experts.up"][e] @ x)
        out = out + moe.routed_scaling_factor * scores[e] / total * (w["experts.down"][e] @ hidden)
    return out
