"""Mistakes inside attention: masks, rotations, scales, and what MLA shares between heads."""

from __future__ import annotations

from itertools import count

import torch
import torch.nn.functional as F
from torch import nn

from llm_core.attention.causal import causal_attention
from llm_core.config import LatentAttentionConfig, ModelConfig, YarnConfig
from llm_core.mistakes.switches import Switches, mistake
from llm_core.model import LanguageModel
from llm_core.positions import yarn_mscale


def _mla(config: ModelConfig) -> str:
    return "" if isinstance(config.attention, LatentAttentionConfig) else "latent attention (MLA)"


def _mla_with_rope(config: ModelConfig) -> str:
    return _mla(config) or ("" if config.rope else "RoPE")


def _mla_with_heads(config: ModelConfig) -> str:
    return _mla_with_rope(config) or ("" if config.attention.n_heads > 1 else "more than one head")


def _groups(config: ModelConfig) -> str:
    return "" if config.attention.kind == "GQA" else "grouped-query attention (GQA)"


def _rope(config: ModelConfig) -> str:
    return "" if config.rope else "RoPE"


def _two_pairs(config: ModelConfig) -> str:
    return _rope(config) or ("" if config.rope_dim > 2 else "RoPE on more than one pair of numbers")


def _yarn(config: ModelConfig) -> str:
    scaling = config.rope.scaling if config.rope else None
    stretched = isinstance(scaling, YarnConfig) and yarn_mscale(scaling.factor, scaling.mscale_all_dim) != 1
    return "" if stretched else "YaRN with an mscale_all_dim above 0"


@mistake("no leak", "kernels that are called with neither a mask nor is_causal")
def no_causal_mask(switches: Switches, model: LanguageModel):
    """Every token sees those after it too. In training it reads off the answer, so the loss looks wonderful."""
    for block in model.blocks:
        switches.while_running(block.attention, "causal_attention", lambda right, q, k, v, scale, dropout=0.0:
                               F.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=True))


@mistake("equal to a second implementation", "code that copies key heads by tiling them", _groups)
def key_heads_dealt_in_turn(switches: Switches, model: LanguageModel):
    """Query head h reads key head h mod G instead of h // (H / G): every head is there, beside the wrong neighbour."""

    def attend(right, q, k, v, *args):
        copies = q.shape[1] // k.shape[1]
        return right(q, k.repeat(1, copies, 1, 1), v.repeat(1, copies, 1, 1), *args)

    for block in model.blocks:
        switches.while_running(block.attention, "causal_attention", attend)


# RoPE and YaRN

@mistake("equal to a second implementation", "loaders that take DeepSeek's files for Llama's, or the other way round",
         _two_pairs)
def rope_layout_swapped(switches: Switches, model: LanguageModel):
    """Neighbours are turned as a pair where the weights mean number i and number i + half, or the other way round. At
    position 0 nothing is turned, so nothing shows."""
    for block in model.blocks:
        other = {"interleaved": "halves", "halves": "interleaved"}[block.attention.rope_layout]
        switches.swap(block.attention, "rope_layout", other)


@mistake("relative position only", "rotations written out twice, with a sign that was changed in one copy", _rope)
def keys_turned_backwards(switches: Switches, model: LanguageModel):
    """Keys are turned against the direction of the queries: scores depend on the sum of two positions, not on their
    distance."""
    for block in model.blocks:
        call = count()  # each attention turns its queries first, then its keys
        switches.while_running(block.attention, "rotate", lambda right, x, cos, sin, layout, call=call:
                               right(x, cos, -sin if next(call) % 2 else sin, layout))


@mistake("equal to a second implementation", "ports that read the YaRN settings for the rotation alone", _yarn)
def yarn_scale_forgotten(switches: Switches, model: LanguageModel):
    """Scores are scaled by 1 / sqrt(head width), without YaRN's mscale squared. A single token sees only itself, with
    share 1 under any scale: hidden at position 0."""
    for block in model.blocks:
        switches.swap(block.attention, "scale", model.config.head_dim**-0.5)


@mistake("equal to a second implementation", "ports that apply one YaRN factor in two places", _yarn)
def yarn_scale_on_the_rotation(switches: Switches, model: LanguageModel):
    """Cos and sin are multiplied by mscale, where they take the ratio of the two mscales: DeepSeek's ratio is 1."""
    yarn = model.config.rope.scaling
    size = yarn_mscale(yarn.factor, yarn.mscale_all_dim)
    switches.while_running(model, "rope_table", lambda right, *args: tuple(size * t for t in right(*args)))


# MLA

@mistake("naive = absorbed", "rewrites that give the rope key a head dimension, as queries have",
         _mla_with_heads)
def rope_key_per_head(switches: Switches, model: LanguageModel):
    """Each head makes a rope key of its own (here the shared one times a number that the head learns) instead of all
    reading the same. Absorbed attention reads one key for all heads, so it cannot follow."""
    for block in model.blocks:
        attention = block.attention
        own = nn.Parameter(torch.linspace(0.5, 1.5, attention.n_heads)[:, None])
        switches.swap(attention, "own_rope_key", own)

        def expand(right, latent, k_rope, own=own, nope=attention.nope_dim):
            k, v = right(latent, k_rope)
            return torch.cat([k[..., :nope], k[..., nope:] * own], dim=-1), v

        switches.wrap(attention, "_expand", expand)


@mistake("equal to a second implementation", "rewrites that score content and position in two products",
         _mla_with_rope)
def content_and_position_scaled_apart(switches: Switches, model: LanguageModel):
    """Content scores are divided by sqrt(nope) and position scores by sqrt(rope), instead of both by
    sqrt(nope + rope)."""

    def project(right, *args, attention):
        q_nope, q_rope, *rest = right(*args)
        both = attention.nope_dim + attention.rope_dim
        return q_nope * (both / attention.nope_dim) ** 0.5, q_rope * (both / attention.rope_dim) ** 0.5, *rest

    for block in model.blocks:
        switches.wrap(block.attention, "_project", lambda right, *args, attention=block.attention:
                      project(right, *args, attention=attention))


@mistake("equal to a second implementation", "rewrites from the paper's formulas, where the norm is in the text", _mla)
def latent_without_norm(switches: Switches, model: LanguageModel):
    """The latent is expanded as it comes, without the RMSNorm that stands behind kv_down."""
    for block in model.blocks:
        switches.wrap(block.attention.kv_norm, "forward", lambda right, x: x)


@mistake("formula = tensors, cache", "engines that treat MLA as multi-head attention", _mla)
def cache_of_expanded_keys(switches: Switches, model: LanguageModel):
    """Keys and values of all heads are cached instead of the latent. Every number that comes out is right, and the
    whole point is lost."""
    a = model.config.attention

    def new_cache(right, batch=1, max_tokens=None):
        cache = right(batch, max_tokens)
        for layer in cache.layers:
            like = layer["latent"]
            layer["k"] = like.new_zeros(batch, cache.max_tokens, a.n_heads, a.qk_head_dim)
            layer["v"] = like.new_zeros(batch, cache.max_tokens, a.n_heads, a.v_head_dim)
            del layer["latent"]
            layer.pop("k_rope", None)
        return cache

    def forward(right, x, rope, cache=None, *, attention):
        if cache is None:
            return right(x, rope)
        q_nope, q_rope, latent, k_rope = attention._project(x, rope)
        k, v = attention._expand(latent, k_rope)
        held = cache.append(k=k, v=v)  # [B, S, H, n + r] and [B, S, H, v]
        q = torch.cat([q_nope, q_rope], dim=-1)
        out = causal_attention(q.transpose(1, 2), held["k"].transpose(1, 2), held["v"].transpose(1, 2), attention.scale)
        return attention.o_proj(out.transpose(1, 2).flatten(2))

    switches.wrap(model, "new_cache", new_cache)
    for block in model.blocks:
        switches.wrap(block.attention, "forward", lambda right, *args, attention=block.attention:
                      forward(right, *args, attention=attention))
