"""Checks of the lesson "Latent attention with rotary positions"."""

from __future__ import annotations

import math
from itertools import count

import torch
from torch import Tensor

from llm_core.attention.causal import causal_attention
from llm_core.checks.cases import numbers, whole
from llm_core.checks.core import check, compare, random, tensor
from llm_core.config import LatentAttentionConfig, ModelConfig
from llm_core.positions import rotate


@check
def kept_numbers(function) -> str:
    """function(n_layers, n_heads, nope, rope, value, rank) -> numbers that MLA keeps of one token."""
    cases = ((61, 128, 128, 64, 128, 512), (27, 16, 128, 64, 128, 512), (4, 6, 32, 16, 32, 64), (3, 8, 12, 8, 20, 48),
             (1, 1, 4, 2, 6, 7))
    numbers(function, cases, lambda L, H, n, r, v, c: L * (c + r), [
        ("that is one layer; each layer keeps a latent and a rope key of its own", lambda L, H, n, r, v, c: c + r),
        ("the latent is counted and the rope key is forgotten", lambda L, H, n, r, v, c: L * c),
        ("is the latent counted twice, for keys and for values? Both are made from the same one",
         lambda L, H, n, r, v, c: L * (2 * c + r)),
        ("is all of it counted twice? There is one latent for key and value, and values need no rope key",
         lambda L, H, n, r, v, c: 2 * L * (c + r)),
        ("is there a rope key for each head? All heads share one", lambda L, H, n, r, v, c: L * (c + H * r)),
        ("is there a latent for each head? All heads share it", lambda L, H, n, r, v, c: L * H * (c + r)),
        ("those are the expanded keys and values; MLA keeps what they are made from",
         lambda L, H, n, r, v, c: L * H * (n + r + v)),
        ("that is what MHA without a rope part would keep; MLA keeps one latent and one rope key",
         lambda L, H, n, r, v, c: L * H * (n + v)),
        ("is it in bytes? Numbers are asked for", lambda L, H, n, r, v, c: 2 * L * (c + r)),
    ], lambda L, H, n, r, v, c: f"{L} layers, {H} heads, widths {n}, {r} and {v}, a latent of {c}", whole)
    return "35,136 numbers a token for DeepSeek-V3, in 61 layers, and neither the heads nor their widths are in it"


@check
def two_part_scores(function) -> str:
    """function(q_nope [H, T, n], q_rope [H, T, r], k_nope [H, S, n], k_rope [S, r]) -> scores [H, T, S], no mask."""
    for H, T, S, n, r in ((4, 3, 7, 16, 8), (2, 5, 5, 6, 10)):
        q_nope, q_rope = random(H, T, n, seed=501), random(H, T, r, seed=502)
        k_nope, k_rope = random(H, S, n, seed=503), random(S, r, seed=504)
        got = tensor(function, q_nope, q_rope, k_nope, k_rope, shape=(H, T, S), names="[H, T, S]", shape_hints={
            (H, S, T): "Queries go down and keys across: is the product the wrong way round?",
            (T, S): "Are the heads added up? Each has scores of its own.",
            (T, H, S): "The heads come first.",
            (H, T, n + r): "Those are the joined queries; multiply them with the keys."}, hints={
            "must match": "k_rope has no heads: [S, r]. Broadcasting, or expand(H, S, r), gives it to each of them.",
            "same number of dimensions": "k_rope has no heads: expand(H, S, r) before it is joined to k_nope.",
            "expected size": "A key is transposed with .mT (or transpose(-2, -1)) before the product."})
        content, position = q_nope @ k_nope.mT, q_rope @ k_rope.mT
        root = math.sqrt(n + r)
        joined = torch.cat([q_nope, q_rope], -1) @ torch.cat([k_nope, k_rope.expand(H, S, r)], -1).mT
        compare(got, joined / root, [
            ("content is divided by √n and position by √r; together they are one product over n + r numbers, and have "
             "one scale", content / math.sqrt(n) + position / math.sqrt(r)),
            ("is the scale applied? The sum is divided by the root of n + r", content + position),
            ("is it divided by √n? A head's query has n + r numbers", (content + position) / math.sqrt(n)),
            ("is it divided by √r? A head's query has n + r numbers", (content + position) / math.sqrt(r)),
            ("is it divided by √n + √r? It should be the root of the sum", (content + position)
             / (math.sqrt(n) + math.sqrt(r))),
            ("is it divided by n + r? It should be its root", (content + position) / (n + r)),
            ("only the content is divided by the root of n + r", content / root + position),
            ("only the position is divided by the root of n + r", content + position / root),
            ("the position part is missing", content / root),
            ("the content part is missing", position / root),
            ("the parts are multiplied; a product over joined vectors is a *sum* of two products",
             content * position / root),
            ("is the softmax taken already? Scores are asked for", (joined / root).softmax(-1)),
        ])
    return "one scale over both parts, equal to the product of joined vectors; the rope key has no heads"


def _turned(W: Tensor, speeds: Tensor, distance: float, layout: str = "interleaved") -> Tensor:
    """R(distance) W: each column of W [d, c] turned."""
    angles = distance * speeds[None]
    return rotate(W.T[None, :, None], angles.cos(), angles.sin(), layout)[0, :, 0].T


@check
def matrix_for_distance(function) -> str:
    """function(W_q [d, D], W_uk [d, c], speeds [d / 2], distance) -> M [D, c], so that x M latent is the score."""
    for d, D, c, distance in ((8, 6, 5, 3), (4, 7, 9, 40), (6, 6, 6, 1)):
        W_q, W_uk = random(d, D, seed=505), random(d, c, seed=506)
        speeds = 100.0 ** (-torch.arange(0, d, 2) / d)
        got = tensor(function, W_q, W_uk, speeds, distance, shape=(D, c), names="[D, c]", shape_hints={
            (c, D): "x stands on the left and the latent on the right: [D, c].",
            (d, c): "That is the turned matrix of the key; the query's matrix is still to be absorbed.",
            (d, d): "Is that the turn alone? The two matrices belong to its left and its right."}, hints={
            "shapes cannot be multiplied": "W_q is [d, D]: transposed, it stands at the left.",
            "must match": "speeds has one number for each pair, so d / 2. W_uk has d rows: rows 0, 2, 4, … are the "
                          "first numbers of the pairs, rows 1, 3, 5, … the second."})
        compare(got, _relative(W_q, W_uk, speeds, distance), [
            ("the turn goes the other way. The key stands `distance` places *before* the query: R(j − i) is "
             "R(−distance)", W_q.T @ _turned(W_uk, speeds, distance)),
            ("nothing is turned, or both are turned alike and the turns cancel: that is right at distance 0 alone",
             W_q.T @ W_uk),
            ("are pairs taken in halves, number i with number i + d/2? Here neighbours are a pair",
             W_q.T @ _turned(W_uk, speeds, -distance, "halves")),
            ("are pairs taken in halves (number i with number i + d/2), and turned the other way?",
             W_q.T @ _turned(W_uk, speeds, distance, "halves")),
            ("are all pairs turned at the speed of the first? Each has its own",
             W_q.T @ _turned(W_uk, speeds[:1].expand(d // 2), -distance)),
            ("is it turned by one place? Turn by `distance` places", W_q.T @ _turned(W_uk, speeds, -1)),
            ("is the turn applied twice, to both matrices? Query and key differ by one turn of `distance` places",
             W_q.T @ _turned(W_uk, speeds, -2 * distance)),
        ])
    return "one matrix absorbs query, turn and key, for this distance alone; for the next distance it is another one"


def _relative(W_q: Tensor, W_uk: Tensor, speeds: Tensor, distance: int) -> Tensor:
    """By another path: query at place 1000, key before it, each turned by its own place, for all unit vectors."""
    W_q, W_uk, speeds = W_q.double(), W_uk.double(), speeds.double()
    return (_turned(W_q, speeds, 1000).T @ _turned(W_uk, speeds, 1000 - distance)).float()


@check
def absorbed_step(function) -> str:
    """function(q_nope [H, n], q_rope [H, r], latent [S, c], k_rope [S, r], W_uk [H, n, c], W_uv [H, v, c]) -> [H, v]"""
    for H, S, n, r, c, v in ((4, 7, 6, 2, 9, 5), (3, 5, 8, 4, 8, 8)):
        q_nope, q_rope, latent, k_rope = (random(*shape, seed=510 + i) for i, shape in enumerate(
            ((H, n), (H, r), (S, c), (S, r))))
        W_uk, W_uv = random(H, n, c, seed=514) / 2, random(H, v, c, seed=515)
        got = tensor(function, q_nope, q_rope, latent, k_rope, W_uk, W_uv, shape=(H, v), names="[H, v]", shape_hints={
            (H, c): "Those are the mixed latents; W_uv takes each head's to its value.",
            (H, S): "Those are the scores or shares; they mix the latents, and W_uv takes the mix to a value.",
            (H * v,): "The heads are joined; here they stay apart.",
            (v,): "Are the heads added up? Each has a result of its own.",
            (H, H, v): "Does each head meet the matrices of all heads? einsum must keep h on both sides.",
            (v, H): "The heads come first.",
            (1, H, v): "There is one token, and no dimension for it."})
        k = torch.cat([torch.einsum("sc,hnc->hsn", latent, W_uk), k_rope.expand(H, S, r)], -1)  # [H, S, n + r]
        values = torch.einsum("sc,hvc->hsv", latent, W_uv)
        query = torch.cat([q_nope, q_rope], -1)
        truth = causal_attention(query[None, :, None], k[None], values[None], (n + r)**-0.5)[0, :, 0]
        content, position = torch.einsum("hn,hsn->hs", q_nope, k[..., :n]), q_rope @ k_rope.T

        def result(scores: Tensor, values=values) -> Tensor:
            return torch.einsum("hs,hsv->hv", scores.softmax(-1), values)

        root = math.sqrt(n + r)
        first_key = torch.einsum("hn,nc,sc->hs", q_nope, W_uk[0], latent)
        compare(got, truth, [
            ("is it divided by the root of c + r, the width of the absorbed query? Absorption must change nothing: the "
             "scale stays 1 / √(n + r)", result((content + position) / math.sqrt(c + r))),
            ("is it divided by √n? The scale is 1 / √(n + r)", result((content + position) / math.sqrt(n))),
            ("content and position are scaled apart; one scale, 1 / √(n + r), for both",
             result(content / math.sqrt(n) + position / math.sqrt(r))),
            ("is it divided by √c? The scale stays 1 / √(n + r)", result((content + position) / math.sqrt(c))),
            ("is the scale applied? It is 1 / √(n + r)", result(content + position)),
            ("the position part is missing: q_rope with k_rope", result(content / root)),
            ("the content part is missing: q_nope with the latents", result(position / root)),
            ("does every head use head 0's W_uk? Keep h in the einsum, on both sides",
             result((first_key + position) / root)),
            ("does every head use head 0's W_uv? Keep h in the einsum, on both sides",
             result((content + position) / root, values[:1].expand(H, S, v))),
            ("is the softmax missing?", torch.einsum("hs,hsv->hv", (content + position) / root, values)),
            ("is the softmax taken over the heads? Each head shares out 1 over the tokens",
             torch.einsum("hs,hsv->hv", ((content + position) / root).softmax(0), values)),
        ])
    return "equal to expanding every key and value, and it never built one"


_TABLES = ((512, 128, 64, 128), (64, 32, 16, 32), (256, 64, 32, 64), (128, 96, 32, 32))  # rank, nope, rope, value


def _sized(rank: int, nope: int, rope: int, value: int, heads: int) -> ModelConfig:
    mini = ModelConfig.preset("deepseek-mini")
    return mini.replace(attention=LatentAttentionConfig(heads, rank, nope, rope, value, q_lora_rank=96))


def _crosses(config: ModelConfig, S: int, *, square: bool = False, old: bool = False) -> int:
    """The least T for which naive is cheaper, by the formula alone. The keyword ones make the mistakes."""
    a = config.attention
    c, n, r, v = a.kv_lora_rank, a.qk_nope_head_dim, a.qk_rope_head_dim, a.v_head_dim
    for T in count(1):
        total = S + T if old else S
        pairs = T * total if square else T * (2 * total - T + 1) / 2
        naive = total * c * (n + v) + pairs * (n + r + v)
        if naive < T * c * (n + v) + pairs * (2 * c + r):
            return T


@check
def new_tokens_for_naive(function) -> str:
    """function(config, context) -> the least number of new tokens for which the naive way needs fewer FLOPs."""
    v3 = ModelConfig.preset("deepseek-v3")
    configs = [v3] + [_sized(*sizes, heads=H) for sizes, H in zip(_TABLES[1:], (6, 4, 5))]
    cases = [(config, S) for config in configs for S in (1, 60, 700, 30_000)]

    def limit(config, S):
        a = config.attention
        both = a.qk_nope_head_dim + a.v_head_dim
        return math.ceil(a.kv_lora_rank * both / (2 * a.kv_lora_rank - both))

    numbers(function, cases, _crosses, [
        ("that is the last T for which absorbed is the cheaper one; the first for which naive is cheaper is wanted",
         lambda config, S: _crosses(config, S) - 1),
        ("is `context` taken as the old tokens? The new ones are in it already",
         lambda config, S: _crosses(config, S, old=True)),
        ("does each new token look at all of the context? They are causal: T (2 context − T + 1) / 2 pairs",
         lambda config, S: _crosses(config, S, square=True)),
        ("that is the limit for very long contexts; short ones cross earlier", limit),
        ("is the limit cut to the context? Short contexts cross earlier, search for it",
         lambda config, S: min(limit(config, S), S)),
        ("is it 171 for every model? It depends on the widths of heads and latent", lambda config, S: 171),
        ("that is the whole context; naive is cheaper much earlier", lambda config, S: S),
        ("the search begins at 1 token: with an empty cache even a single one is cheaper the naive way",
         lambda config, S: max(2, _crosses(config, S))),
    ], lambda config, S: f"a latent of {config.attention.kv_lora_rank}, heads of {config.attention.qk_nope_head_dim} + "
                         f"{config.attention.qk_rope_head_dim} and a context of {S:,}", whole)
    return ("DeepSeek-V3 crosses at 171 new tokens for a context of 30,000; neither the number of heads nor that of "
            "layers matters")
