"""Checks of the lesson "Real checkpoints"."""

from __future__ import annotations

import torch
from torch import Tensor

from llm_core.checks.cases import numbers, whole
from llm_core.checks.core import Wrong, attempt, check, compare, random, tensor

_OURS = {"self_attn.kv_a_proj_with_mqa.weight": "attention.kv_down.weight",
         "self_attn.kv_b_proj.weight": "attention.kv_up.weight",
         "self_attn.o_proj.weight": "attention.o_proj.weight",
         "input_layernorm.weight": "attention_norm.weight"}


@check
def our_name(function) -> str:
    """function(a tensor's name in a DeepSeek file) -> its name in llm_core."""
    for number in ("0", "7", "60"):
        for rest, ours in _OURS.items():
            theirs, wanted = f"model.layers.{number}.{rest}", f"blocks.{number}.{ours}"
            hints = {rest: "Is that name in your dictionary, without the layer's number?"}
            got = attempt(function, theirs, hints=hints)
            if not isinstance(got, str):
                raise Wrong(f"a name is a string, and yours is a {type(got).__name__}")
            if got == wanted:
                continue
            if got == wanted.replace("kv_down", "kv_up") or got == wanted.replace("kv_up", "kv_down"):
                raise Wrong("are down and up confused? kv_a makes the latent (down), kv_b the keys and values from it")
            if not got.startswith("blocks."):
                raise Wrong(f"our layers are called blocks.NUMBER; for {theirs} you have {got}")
            if got.split(".")[1] != number:
                raise Wrong(f"the layer is {number}, and yours says {got.split('.')[1]}: "
                            "has the number more than one digit?")
            if got + ".weight" == wanted:
                raise Wrong("the name ends with .weight in both")
            raise Wrong(f"for {theirs} it should be {wanted}, and you have {got}")
    return "the same table, with more rows, opens V3's 671 billion parameters"


@check
def converted_bytes(function) -> str:
    """function(n_layers, kv_heads, pairs, rank, bits) -> bytes of a token in the cache."""
    cases = ((30, 3, 16, 96, 16), (32, 32, 8, 256, 16), (61, 1, 32, 512, 8), (4, 2, 3, 10, 4))
    numbers(function, cases, lambda L, G, p, r, b: L * (r + 2 * G * p) * b // 8, [
        ("a pair is two numbers", lambda L, G, p, r, b: L * (r + G * p) * b // 8),
        ("each key-value head has a rope key of its own here", lambda L, G, p, r, b: L * (r + 2 * p) * b // 8),
        ("the latent is there once, for all heads", lambda L, G, p, r, b: L * G * (r + 2 * p) * b // 8),
        ("the latent is missing", lambda L, G, p, r, b: L * 2 * G * p * b // 8),
        ("the rope keys are missing", lambda L, G, p, r, b: L * r * b // 8),
        ("each layer keeps its own", lambda L, G, p, r, b: (r + 2 * G * p) * b // 8),
        ("those are numbers, or bits? 8 bits are a byte", lambda L, G, p, r, b: L * (r + 2 * G * p)),
        ("those are bits; 8 of them are a byte", lambda L, G, p, r, b: L * (r + 2 * G * p) * b),
        ("the 16 bits are written in: use `bits`", lambda L, G, p, r, b: L * (r + 2 * G * p) * 2),
        ("is it counted twice, for keys and values? The latent serves both",
         lambda L, G, p, r, b: 2 * L * (r + 2 * G * p) * b // 8),
    ], lambda L, G, p, r, b: f"{L} layers, {G} key-value heads, {p} pairs, a latent of {r} and {b} bits", whole)
    return "11,520 bytes for SmolLM2 with 16 pairs and a latent of 96, half of its 23,040"


def _turned(x: Tensor, angles: Tensor, interleaved: bool = False) -> Tensor:
    a, b = (x[:, 0::2], x[:, 1::2]) if interleaved else x.chunk(2, dim=-1)
    out = a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()
    return torch.stack(out, -1).flatten(1) if interleaved else torch.cat(out, -1)


@check
def turn_some(function) -> str:
    """function(x [T, d], angles [T, d / 2], pairs) -> x with the first pairs turned, in halves."""
    for T, d, pairs in ((5, 12, 4), (3, 8, 1), (4, 6, 3)):
        x, angles = random(T, d, seed=801), 3 * random(T, d // 2, seed=802)
        got = tensor(function, x, angles, pairs, shape=(T, d), names="[T, d]", shape_hints={
            (T, 2 * pairs): "The pairs that stand still belong to the result too."}, hints={
            "must match": "cos and sin are [T, d / 2], as wide as one half of x."})
        first, last = angles.clone(), angles.clone()
        first[:, pairs:] = 0
        last[:, :d // 2 - pairs] = 0
        rest = angles.clone()
        rest[:, :pairs] = 0
        lost = _turned(x, first)
        lost[:, pairs:d // 2] = lost[:, d // 2 + pairs:] = 0
        compare(got, _turned(x, first), [
            ("nothing is turned", x),
            ("all pairs are turned", _turned(x, angles)),
            ("are those the other pairs? The first ones, the fast, should turn", _turned(x, rest)),
            ("are those the last pairs? The first ones, the fast, should turn", _turned(x, last)),
            ("are pairs neighbours here? Number i belongs with i + d/2", _turned(x, first, interleaved=True)),
            ("it turns the other way", _turned(x, -first)),
            ("the pairs that stand still are lost: they stay as they were", lost),
        ])
    return "the first pairs turn, the rest are content now"


@check
def queries_for_one_key(function) -> str:
    """function(q_rope [H, r], G) -> [H, G r]: each head's query in its group's place."""
    for H, G, r in ((9, 3, 4), (8, 2, 6), (4, 4, 2)):
        q = random(H, r, seed=803)
        got = tensor(function, q, G, shape=(H, G * r), names="[H, G r]", shape_hints={
            (H, G, r): "The keys are put side by side: flatten the last two.",
            (G, H * r): "Each query head is a row.", (H, r): "The joined key is G * r numbers wide."})
        heads = torch.arange(H)

        def placed(groups, H=H, G=G, r=r, q=q, heads=heads):
            wide = torch.zeros(H, G, r)
            wide[heads, groups] = q
            return wide

        right = placed(heads // (H // G))
        compare(got, right.flatten(1), [
            ("is the query in every place? Then a head adds the scores of all key heads", q.repeat(1, G)),
            ("every head reads the first key: head h belongs to h // (H / G)", placed(0 * heads).flatten(1)),
            ("are the heads dealt out in turn? Neighbours share a key: h // (H / G), not h % G",
             placed(heads % G).flatten(1)),
            ("the numbers are in the wrong order: a group's r numbers stand together", right.mT.flatten(1)),
            ("the right places, but they hold something other than the query",
             (right != 0).float().flatten(1)),
        ])
    return "one key for all heads: this is DeepSeek's form, and its layer would run it"
