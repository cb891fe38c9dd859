"""Checks of the lesson "Multi-query and grouped-query attention"."""

from __future__ import annotations

import torch
from torch import Tensor

from llm_core import accounting
from llm_core.attention.causal import causal_attention
from llm_core.checks.cases import numbers, whole
from llm_core.checks.core import check, compare, random, tensor
from llm_core.config import ModelConfig


def _heads(value) -> int:
    return whole(value, "a whole number of heads is needed (// divides without a rest)")


@check
def key_head_of(function) -> str:
    """function(head, n_heads, n_kv_heads) -> the key-value head that this query head reads."""
    sizes = ((9, 3), (6, 2), (8, 8), (12, 1), (32, 8), (12, 3))
    cases = [(h, H, G) for H, G in sizes for h in range(H)]
    numbers(function, cases, lambda h, H, G: h // (H // G), [
        ("key heads are dealt in turn, like cards (h mod G). A group's query heads are neighbours: 0 0 0 1 1 1, not "
         "0 1 0 1 0 1", lambda h, H, G: h % G),
        ("is it divided by the number of groups? Divide by the number of query heads *in* a group, H / G",
         lambda h, H, G: h // G),
        ("that is the head's place within its group; which group is it in?", lambda h, H, G: h % (H // G)),
        ("every query head reads its own key head: that is MHA, and there are only n_kv_heads of them",
         lambda h, H, G: h),
        ("every query head reads key head 0: that is MQA", lambda h, H, G: 0),
        ("heads are counted from 0, also those that are read", lambda h, H, G: h // (H // G) + 1),
        ("is the order turned round? Query head 0 reads key head 0", lambda h, H, G: G - 1 - h // (H // G)),
    ], lambda h, H, G: f"query head {h} of {H} with {G} key-value heads", _heads)
    return "SmolLM2's 9 query heads read 0 0 0 1 1 1 2 2 2; with G = H each its own, with G = 1 all read 0"


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float, hidden: bool = True) -> Tensor:
    """q, k, v [B, H, T, d], with explicit shares."""
    scores = q @ k.transpose(-2, -1) * scale
    if hidden:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
    return scores.softmax(-1) @ v


@check
def grouped_attention_by_hand(function) -> str:
    """function(q [B, H, T, d], k [B, G, T, d], v [B, G, T, d]) -> [B, H, T, d], causal."""
    B, T, d = 2, 5, 4
    copies = "Each key head serves H / G query heads: copy it with repeat_interleave, or view q as [B, G, H / G, T, d]."
    for H, G in ((6, 2), (4, 4), (3, 1)):
        q, k, v = random(B, H, T, d, seed=301), random(B, G, T, d, seed=302), random(B, G, T, d, seed=303)
        R = H // G
        got = tensor(function, q, k, v, shape=(B, H, T, d), names="[B, H, T, d]", shape_hints={
            (B, G, R, T, d): "Groups and their heads are apart; join them: reshape(B, H, T, d).",
            (B, H, T, T): "Those are the shares; multiply them with the values.",
            (B, G, T, d): "Is there one result for each key head? Every query head has one of its own.",
            (B, T, H * d): "The heads are joined already; here they stay apart.",
            (B, T, H, d): "Put the heads before the tokens: [B, H, T, d]."},
            hints={"must match the size": copies, "Expected size": copies, "must match": copies,
                   "is invalid for input of size": "The sizes of a view must multiply to what is there: H is G times "
                                                   "H / G."})
        neighbours = [t.repeat_interleave(R, dim=1) for t in (k, v)]
        dealt = [t.repeat(1, R, 1, 1) for t in (k, v)]
        root = d**-0.5
        compare(got, causal_attention(q, k, v, root), [
            ("is the mask on? The first token sees only itself, and yours looks ahead",
             _attend(q, *neighbours, root, hidden=False)),
            ("is the scale applied? Scores are divided by the root of d", _attend(q, *neighbours, 1.0)),
            ("are the scores divided by d? It should be its root", _attend(q, *neighbours, 1 / d)),
            ("are key heads dealt in turn? Neighbours share one: repeat_interleave and not repeat, and in a view of q "
             "the groups come first, [B, G, H / G, T, d]", _attend(q, *dealt, root)),
            ("the keys are right, and the values are dealt in turn: who reads key head g reads value head g",
             _attend(q, neighbours[0], dealt[1], root)),
            ("the values are right, and the keys are dealt in turn: who reads key head g reads value head g",
             _attend(q, dealt[0], neighbours[1], root)),
            ("does every query head read key head 0? That is MQA; here there are several",
             _attend(q, k[:, :1].expand(B, H, T, d), v[:, :1].expand(B, H, T, d), root)),
            ("keys and values are swapped", _attend(q, *neighbours[::-1], root)),
        ], nan="Is a whole row hidden by the mask?")
    return "6 query heads on 2, 4 on 4 and 3 on 1: one function for GQA, MHA and MQA, equal to the fused kernel"


_LAYERS = ((6, 2, 4, 5), (4, 1, 3, 7), (8, 4, 2, 3))  # query heads, key-value heads, width of a head, D


@check
def pool_heads(function) -> str:
    """function(weight [H d, D], n_heads, n_kv_heads) -> [G d, D]: each head the mean of its group."""
    for H, G, d, D in _LAYERS:
        weight, R = random(H * d, D, seed=304), H // G
        heads = weight.view(H, d, D)
        got = tensor(function, weight, H, G, shape=(G * d, D), names="[n_kv_heads * d, D]", shape_hints={
            (G, d, D): "The heads are apart; torch stores them one below the other: reshape(-1, D).",
            (H * d, D): "There are still n_heads heads, and n_kv_heads are wanted.",
            (R * d, D): "Is the mean taken over the groups, instead of within each?",
            (d, D): "That is one head; n_kv_heads are wanted.",
            (G, D): "A head is d rows, and they stay apart; only the heads of a group are averaged."},
            hints={"is invalid for input of size": "n_kv_heads, heads in a group, d and D must multiply to what weight "
                                                   "has: d is the rows divided by n_heads."})
        groups = heads.view(G, R, d, D)
        compare(got, groups.mean(1).reshape(-1, D), [
            ("the heads of a group are summed; their mean is wanted", groups.sum(1).reshape(-1, D)),
            ("that is each group's first head; the mean of all its heads is wanted", groups[:, 0].reshape(-1, D)),
            ("that is each group's last head; the mean of all its heads is wanted", groups[:, -1].reshape(-1, D)),
            ("are heads g, g + G, … averaged? A group's heads are neighbours: [G, H / G, d, D]",
             heads.view(R, G, d, D).mean(0).reshape(-1, D)),
            ("are neighbouring *rows* averaged? Row i of a head belongs with row i of the others",
             weight.view(G * d, R, D).mean(1)),
            ("every group has the mean of all heads; each has that of its own",
             heads.mean(0).repeat(G, 1)),
        ])
    return "each new head is the mean of its group, row by row; with as many groups as heads nothing would change"


@check
def as_multi_head(function) -> str:
    """function(weight [G d, D], n_heads, n_kv_heads) -> [H d, D]: the same keys for the same query heads."""
    for H, G, d, D in _LAYERS:
        weight, R = random(G * d, D, seed=305), H // G
        heads = weight.view(G, d, D)
        got = tensor(function, weight, H, G, shape=(H * d, D), names="[n_heads * d, D]", shape_hints={
            (H, d, D): "The heads are apart; torch stores them one below the other: reshape(-1, D).",
            (G * d, D): "There are still n_kv_heads heads, and n_heads are wanted.",
            (G, R, d, D): "The heads are apart; torch stores them one below the other: reshape(-1, D).",
            (G * d * H, D): "Each head is needed H / G times, not H times.",
            (G * d, D * R): "Is the last dimension copied? The heads are in the rows."},
            hints={"is invalid for input of size": "n_kv_heads, d and D must multiply to what weight has: d is "
                                                   "the rows divided by n_kv_heads."})
        compare(got, heads[torch.arange(H) // R].reshape(-1, D), [
            ("the whole matrix is repeated, so query head 1 gets key head 1. Neighbours share: repeat_interleave on "
             "whole heads", weight.repeat(R, 1)),
            ("single rows are copied, so each head holds few rows several times. Copy whole heads: view it as "
             "[n_kv_heads, d, D] first", weight.repeat_interleave(R, dim=0)),
            ("are the copies divided by their number? Each query head needs the key as it was",
             heads.repeat_interleave(R, dim=0).reshape(-1, D) / R),
            ("is the rest filled with zeros? Every query head needs a key head",
             torch.cat([weight, torch.zeros((H - G) * d, D)])),
            ("every query head has key head 0; query head h reads key head h // (H / G)", heads[:1].repeat(H, 1, 1)
             .reshape(-1, D)),
        ])
    return "MHA with these weights gives what GQA gives, number for number, and its cache is H / G times as large"


@check
def kv_heads_that_fit(function) -> str:
    """function(config, memory, batch, tokens) -> the largest n_kv_heads whose caches fit, or 0."""
    l8, l405, smol = (ModelConfig.preset(name) for name in ("llama-3.1-8b", "llama-3.1-405b", "smollm2-135m"))
    odd = l8.replace(attention=l8.attention.replace(n_heads=12, n_kv_heads=12, head_dim=128))
    cases = ((l8, 60 * 10**9, 32, 8192), (l405, 10**11, 1, 131_072), (smol, 10**8, 1, 8192), (l8, 10**9, 64, 8192),
             (l8, 10**12, 1, 8192), (odd, _bytes(odd, 7, 2, 1000), 2, 1000), (l8, _bytes(l8, 16, 3, 100), 3, 100))

    def fits(config, memory, batch, tokens, divides=True, least=0, strict=False, bits=16, smallest=False, powers=False):
        heads = config.attention.n_heads
        good = [n for n in range(1, heads + 1) if (not divides or heads % n == 0)
                and not (powers and n & (n - 1)) and _bytes(config, n, batch, tokens, bits) <= memory - strict]
        return (min if smallest else max)(good, default=least)

    def counts_alike(c, m, b, t, **wrong):  # where a batch or a length is forgotten
        return fits(c, m, wrong.get("batch", b), wrong.get("tokens", t))

    def own(c, m, b, t):
        return c.attention.kv_heads if _bytes(c, c.attention.kv_heads, b, t) <= m else 0

    numbers(function, cases, fits, [
        ("n_kv_heads must divide n_heads: no group may be larger than another", lambda *a: fits(*a, divides=False)),
        ("are only powers of two tried? Every divisor of n_heads will do", lambda *a: fits(*a, powers=True)),
        ("if not even one head fits, the answer is 0", lambda *a: fits(*a, least=1)),
        ("caches that fill the memory exactly do fit", lambda *a: fits(*a, strict=True)),
        ("the largest number that fits is wanted; the smallest is always 1", lambda *a: fits(*a, smallest=True)),
        ("every text of the batch has a cache of its own", lambda *a: counts_alike(*a, batch=1)),
        ("is that the cache of a single token? There are `tokens` of them", lambda *a: counts_alike(*a, tokens=1)),
        ("is a number taken as 4 bytes? It has 16 bits", lambda *a: fits(*a, bits=32)),
        ("is a number taken as 1 byte? It has 16 bits", lambda *a: fits(*a, bits=8)),
        ("is the config's own number of key-value heads the answer? It is what we look for", own),
        ("must there be fewer than MHA has? If its caches fit, MHA is allowed",
         lambda c, m, b, t: min(fits(c, m, b, t), c.attention.n_heads // 2)),
    ], lambda c, m, b, t: f"{c.attention.n_heads} query heads of {c.head_dim}, {c.n_layers} layers, {m / 1e9:,.3g} GB "
                          f"and {b} texts of {t:,} tokens", _heads)
    return ("32 texts of 8,192 tokens in 60 GB allow Llama 3.1 8B 8 key-value heads, which is what it has; one text of "
            "131,072 in 100 GB allows the 405B 8")


def _bytes(config: ModelConfig, n: int, batch: int, tokens: int, bits: int = 16) -> int:
    """Bytes of the caches with n key-value heads, which here need not divide the query heads."""
    attention = config.attention.replace(n_heads=n, n_kv_heads=n, head_dim=config.head_dim)
    return accounting.cache_bytes(config.replace(attention=attention), batch, tokens, bits)
