"""Checks of the lesson "The key-value cache: its good and its bad side": tokens, bytes and users, counted."""

from __future__ import annotations

import math
from collections.abc import Callable

from llm_core import accounting
from llm_core.checks.cases import numbers, whole
from llm_core.checks.core import Wrong, attempt, check
from llm_core.config import ModelConfig


@check
def tokens_read(function) -> str:
    """function(prompt, new) -> tokens that go through the model without a cache, and with one."""
    right = [_reads(prompt, new) for prompt, new in _SIZES]
    got = []
    for prompt, new in _SIZES:
        answer = attempt(function, prompt, new)
        if not isinstance(answer, (tuple, list)) or len(answer) != 2:
            raise Wrong("two numbers are needed: return without, with_cache")
        got.append(tuple(whole(n, "two whole numbers are needed") for n in answer))
    if [pair[::-1] for pair in got] == right:
        raise Wrong("the two are the wrong way round: without a cache comes first")
    for i, name, whys in ((0, "without", _WITHOUT), (1, "with_cache", _WITH)):
        mine, truth = [pair[i] for pair in got], [pair[i] for pair in right]
        if mine != truth:
            prompt, new, have, need = next((*size, a, b) for size, a, b in zip(_SIZES, mine, truth) if a != b)
            why = next((sentence for sentence, wrong in whys if mine == [wrong(p, n) for p, n in _SIZES]), "")
            raise Wrong(f"for a prompt of {prompt:,} and {new:,} new tokens {name} should be {need:,}, and you have "
                        f"{have:,}. {why}".rstrip())
    without, with_cache = right[-1]
    return f"behind a prompt of 100, 1,000 tokens cost {without:,} readings without a cache and {with_cache:,} with it"


_SIZES = ((5, 20), (7, 1), (1, 6), (4, 0), (100, 1000))


def _reads(prompt: int, new: int) -> tuple[int, int]:
    return sum(prompt + i for i in range(new)), prompt + new - 1 if new else 0


_WITHOUT = [
    ("Is the last token read too? Nobody needs what it would say.", lambda p, n: sum(p + i for i in range(n + 1))),
    ("Is the prompt forgotten? Every step reads it again.", lambda p, n: n * (n - 1) // 2),
    ("The text grows with each step: prompt, prompt + 1, and so on.", lambda p, n: p * n),
    ("Does the first step read one token more than the prompt?", lambda p, n: sum(p + i for i in range(1, n + 1))),
    ("Each step reads the text as it is by then, not as long as it is in the end.", lambda p, n: n * (p + n)),
    ("Each step reads the text as it is by then, not as long as it is in the end.", lambda p, n: n * (p + n - 1)),
    ("That is how it is with a cache.", lambda p, n: _reads(p, n)[1]),
]
_WITH = [
    ("Is the last token read too? Nobody needs what it would say.", lambda p, n: p + n),
    ("Is the last token read too? Nobody needs what it would say.", lambda p, n: p + n if n else 0),
    ("When nothing is written, nothing need be read.", lambda p, n: p + n - 1),
    ("Who reads the prompt? It must go through the model once.", lambda p, n: n),
    ("Who reads the prompt? It must go through the model once.", lambda p, n: max(n - 1, 0)),
    ("The prompt is read once, and not again at each step.", lambda p, n: p * n),
]


@check
def cache_bytes_by_hand(function) -> str:
    """function(n_layers, n_kv_heads, head_dim, batch, tokens, bits) -> bytes of the cache."""
    cases = ((96, 96, 128, 1, 2048, 16), (32, 8, 128, 3, 100, 16), (30, 3, 64, 2, 7, 32), (4, 2, 8, 1, 5, 8))

    def without(*factors: str, times: int = 2) -> Callable:
        """The formula with 1 in place of some factors."""
        def wrong(L, G, d, B, S, bits):
            of = {"layers": L, "heads": G, "width": d, "texts": B, "tokens": S, "bits": bits, "byte": 1 / 8}
            return times * round(math.prod(value for name, value in of.items() if name not in factors))
        return wrong

    numbers(function, cases, lambda L, G, d, B, S, bits: accounting.cache_bytes(_grouped(L, G, d), B, S, bits), [
        ("half is missing: there is a key and a value", without(times=1)),
        ("are queries kept too? Nobody asks for an old query", without(times=3)),
        ("those are bits; a byte has 8", without("byte")),
        ("those are numbers; each takes bits / 8 bytes", without("bits", "byte")),
        ("is every number taken as 2 bytes? It has bits / 8", without("bits", "byte", times=4)),
        ("is every number taken as 4 bytes? It has bits / 8", without("bits", "byte", times=8)),
        ("that is one layer; every layer has a cache of its own", without("layers")),
        ("that is one text; every text of the batch has a cache of its own", without("texts")),
        ("that is for one token", without("tokens")),
        ("that is one head; each key-value head keeps its own", without("heads")),
        ("is the width of a head missing? A key is head_dim numbers", without("width")),
        ("does the cache grow with the square of the tokens? Shares do, and they are not kept",
         lambda L, G, d, B, S, bits: 2 * L * G * d * B * S * S * bits // 8),
    ], lambda L, G, d, B, S, bits: f"{L} layers, {G} heads of {d}, {B} texts of {S:,} tokens, {bits} bits",
        lambda value: whole(value, "a whole number of bytes is needed"))
    return "as llm_core counts and allocates them. GPT-3's whole context of 2,048 tokens takes 9.66 GB (9.00 GiB)"


def _grouped(n_layers: int, n_kv_heads: int, head_dim: int) -> ModelConfig:
    base = ModelConfig.preset("llama-3.1-8b")
    attention = base.attention.replace(n_heads=n_kv_heads, n_kv_heads=n_kv_heads, head_dim=head_dim)
    return base.replace(n_layers=n_layers, attention=attention)


@check
def users_that_fit(function) -> str:
    """function(config, memory, context) -> how many texts fit beside the weights."""
    llama, gpt3, v3 = (ModelConfig.preset(name) for name in ("llama-3.1-8b", "gpt3-175b", "deepseek-v3"))
    cases = ((llama, 80 * 10**9, 8192), (gpt3, 640 * 10**9, 2048), (v3, 80 * 10**9, 4096), (llama, 24 * 10**9, 131_072),
             (v3, 1500 * 10**9, 131_072))

    def users(config, memory, context, weight=2, least=0, up=0, of="total"):
        each = accounting.cache_bytes(config, 1, context)
        left = memory - weight * getattr(accounting.count_parameters(config), of)
        return max(least, (left + up * (each - 1)) // each)

    need = numbers(function, cases, users, [
        ("where not even the weights fit, the answer is 0, and not negative", lambda *a: users(*a, least=-(10**9))),
        ("where are the weights? They take 2 bytes for each parameter", lambda *a: users(*a, weight=0)),
        ("a parameter takes 2 bytes, not 1", lambda *a: users(*a, weight=1)),
        ("a parameter takes 2 bytes here, not 4", lambda *a: users(*a, weight=4)),
        ("is it rounded up? The last user does not fit", lambda *a: users(*a, up=1)),
        ("are only the active parameters counted? All experts must be in memory", lambda *a: users(*a, of="active")),
        ("is that the cache of a single token? Each user has `context` of them", lambda c, m, t: users(c, m, 1)),
        ("is every user given weights of their own? They are there once", lambda c, m, t: m // (
            2 * accounting.count_parameters(c).total + accounting.cache_bytes(c, 1, t))),
    ], lambda c, m, t: f"{m / 1e9:,.0f} GB and {t:,} tokens each",
        lambda value: whole(value, "a whole number of users is needed (// rounds down)"))
    return (f"{need[0]} users of 8,192 tokens with Llama 3.1 8B on 80 GB, {need[1]} of 2,048 with GPT-3 on 640 GB, and "
            "with DeepSeek-V3 on 80 GB none: its weights alone do not fit")
