"""Checks of the lesson "What V3's training took"."""

from __future__ import annotations

import math

from llm_core import accounting
from llm_core.checks.cases import number, numbers, whole
from llm_core.checks.core import Wrong, attempt, check
from llm_core.config import ModelConfig


@check
def run_flops(function) -> str:
    """function(active, scores, tokens) -> operations of a training run."""
    cases = ((37_000_000_000, 10_000_000_000, 1000), (124, 7, 3), (10**9, 0, 10**6), (5, 10**6, 2))
    numbers(function, cases, lambda n, s, d: (6 * n + 3 * s) * d, [
        ("is the backward pass forgotten? It costs twice the forward pass", lambda n, s, d: (2 * n + s) * d),
        ("is that the backward pass alone, or one no dearer than the forward pass? Forward 1, backward 2: three in all",
         lambda n, s, d: (4 * n + 2 * s) * d),
        ("the rule of thumb leaves scores and values out; here they are wanted", lambda n, s, d: 6 * n * d),
        ("scores and values have a backward pass as well: 3 times their forward pass",
         lambda n, s, d: (6 * n + s) * d),
        ("are scores and values taken six times? `scores` are operations already, and not weights",
         lambda n, s, d: 6 * (n + s) * d),
        ("a weight costs a multiplication *and* an addition: 2 operations a token in the forward pass",
         lambda n, s, d: 3 * (n + s) * d),
        ("is that one token? There are `tokens` of them", lambda n, s, d: 6 * n + 3 * s),
        ("`scores` are for one token, and yours do not grow with the tokens", lambda n, s, d: 6 * n * d + 3 * s),
    ], lambda n, s, d: f"{n:,} active parameters, {s:,} operations of scores and {d:,} tokens")
    v3 = ModelConfig.preset("deepseek-v3")
    a_token = accounting.training_flops(v3, 4096, 4096).per_token
    return f"for DeepSeek-V3 in texts of 4,096 tokens that is {a_token / 1e9:.0f} billion operations a token"


@check
def utilisation_of(function) -> str:
    """function(flops, hours, peak) -> from 0 to 1."""
    cases = ((3.6e18, 1.0, 2e15), (1.5e24, 1e6, 1e15), (7.2e15, 4.0, 5e11))
    numbers(function, cases, lambda f, h, p: f / (h * 3600 * p), [
        ("an hour has 3,600 seconds, and the peak is a second's", lambda f, h, p: f / (h * p)),
        ("an hour has 3,600 seconds, and yours has 60", lambda f, h, p: f / (h * 60 * p)),
        ("are hours divided by 3,600? They are to become seconds, which are more", lambda f, h, p: f / (h / 3600 * p)),
        ("is it upside down? What was done, over what could have been done", lambda f, h, p: h * 3600 * p / f),
        ("that is in per cent; here 1 is the peak", lambda f, h, p: 100 * f / (h * 3600 * p)),
        ("that is operations a second; divide by the peak", lambda f, h, p: f / (h * 3600)),
    ], lambda f, h, p: f"{f:.2g} operations in {h:g} hours and a peak of {p:.2g}", number)
    return "a result above 1 would say that operations, hours or peak are not what they are taken for"


def _three(values) -> list[float]:
    if not isinstance(values, (tuple, list)) or len(values) != 3:
        raise Wrong("three numbers are needed, as a tuple: GPU hours, days, dollars")
    return [number(value) for value in values]


@check
def bill(function) -> str:
    """function(flops, peak, utilisation, gpus, price) -> GPU hours, days, dollars."""
    cases = ((3.7e24, 1e15, 0.4, 2048, 2.0), (7.2e20, 1e15, 0.5, 8, 3.5), (1e18, 3e12, 1.0, 1, 0.1))

    def right(f, p, u, g, d):
        hours = f / (p * u) / 3600
        return [hours, hours / g / 24, hours * d]

    got = [_three(attempt(function, *case)) for case in cases]
    for place, name, mistakes in (
        (0, "GPU hours", [
            ("those are seconds; an hour has 3,600", lambda f, p, u, g, d: f / (p * u)),
            ("is the utilisation forgotten? No run reaches the peak", lambda f, p, u, g, d: f / p / 3600),
            ("a low utilisation makes the hours *more*: divide by it", lambda f, p, u, g, d: f / p * u / 3600),
            ("those are the hours on the clock; GPU hours are those of all GPUs together",
             lambda f, p, u, g, d: f / (p * u) / 3600 / g),
            ("more GPUs do not make more GPU hours: each does a part of the work",
             lambda f, p, u, g, d: f / (p * u) / 3600 * g)]),
        (1, "days", [
            ("GPU hours are of all GPUs together; they work at the same time",
             lambda *c: right(*c)[0] / 24),
            ("those are hours on the clock; a day has 24", lambda *c: right(*c)[0] / c[3]),
            ("a day has 24 hours, and they are multiplied", lambda *c: right(*c)[0] / c[3] * 24),
            ("more GPUs make it fewer days", lambda *c: right(*c)[0] * c[3] / 24)]),
        (2, "dollars", [
            ("the price is for one GPU and one hour: dollars are GPU hours times price, whatever the number of GPUs",
             lambda *c: right(*c)[0] / c[3] * c[4]),
            ("are the GPUs paid twice? GPU hours are of all of them already", lambda *c: right(*c)[0] * c[3] * c[4]),
            ("are days multiplied with the price of an hour?", lambda *c: right(*c)[1] * c[4]),
            ("is the price divided by?", lambda *c: right(*c)[0] / c[4])])):
        mine, wanted = [values[place] for values in got], [right(*case)[place] for case in cases]
        if _close(mine, wanted):
            continue
        for sentence, wrong in mistakes:
            if _close(mine, [wrong(*case) for case in cases]):
                raise Wrong(f"{name}: {sentence}")
        i = next(i for i in range(len(cases)) if not _close(mine[i:i + 1], wanted[i:i + 1]))
        raise Wrong(f"for {cases[i]} the {name} should be {wanted[i]:,.6g}, and you have {mine[i]:,.6g}")
    return "V3's operations at 39.1 % of 989 TFLOPS are 2.66 million hours, 54 days, 5.3 million dollars, as published"


def _close(a: list[float], b: list[float]) -> bool:
    return all(math.isclose(x, y, rel_tol=1e-5) for x, y in zip(a, b))


@check
def bytes_on_a_gpu(function) -> str:
    """function(experts, others, gpus, pipeline, expert_parallel) -> bytes."""
    cases = ((654_000_000_000, 17_000_000_000, 2048, 16, 64), (6400, 3200, 64, 2, 8), (0, 1000, 10, 1, 1),
             (9000, 900, 18, 3, 3))

    def held(e, o, p, x):
        return o / p + e / p / x

    numbers(function, cases, lambda e, o, g, p, x: 6 * held(e, o, p, x) + 8 * (e + o) / g, [
        ("are the optimiser states forgotten? Master weights and two means: 8 bytes for every parameter, on some GPU",
         lambda e, o, g, p, x: 6 * held(e, o, p, x)),
        ("ZeRO-1 divides the states among all GPUs, and yours are held by every GPU",
         lambda e, o, g, p, x: 14 * held(e, o, p, x)),
        ("are weights and gradients divided among all GPUs, too? ZeRO-1 divides only the optimiser states",
         lambda e, o, g, p, x: 14 * (e + o) / g),
        ("only experts are divided by expert_parallel; everything else in a stage is on each of its GPUs",
         lambda e, o, g, p, x: 6 * (e + o) / p / x + 8 * (e + o) / g),
        ("are the experts not divided? A GPU has one of expert_parallel parts of them",
         lambda e, o, g, p, x: 6 * (e + o) / p + 8 * (e + o) / g),
        ("the experts, too, are dealt to the stages of the pipeline",
         lambda e, o, g, p, x: 6 * (o / p + e / x) + 8 * (e + o) / g),
        ("everything else, too, is dealt to the stages of the pipeline",
         lambda e, o, g, p, x: 6 * (o + e / p / x) + 8 * (e + o) / g),
        ("gradients have 4 bytes here, and yours 2", lambda e, o, g, p, x: 4 * held(e, o, p, x) + 8 * (e + o) / g),
        ("the two means have 2 bytes each here, and yours 4",
         lambda e, o, g, p, x: 6 * held(e, o, p, x) + 12 * (e + o) / g),
        ("is one of the two means forgotten?", lambda e, o, g, p, x: 6 * held(e, o, p, x) + 6 * (e + o) / g),
        ("are the master weights forgotten?", lambda e, o, g, p, x: 6 * held(e, o, p, x) + 4 * (e + o) / g),
        ("are the states those of the experts alone?", lambda e, o, g, p, x: 6 * held(e, o, p, x) + 8 * e / g),
        ("the states that a GPU has are divided by `gpus` once more: all states are spread over all GPUs, once",
         lambda e, o, g, p, x: 6 * held(e, o, p, x) + 8 * held(e, o, p, x) / g),
    ], lambda e, o, g, p, x: f"{e:,} parameters in experts, {o:,} others, {g:,} GPUs, {p} stages, {x} ways", number)
    return "V3 on 2,048 GPUs: 13 GB with one stage a GPU, and weights and gradients twice with DualPipe's two"


@check
def cache_on_a_gpu(function) -> str:
    """function(config, gpus) -> bytes a token on each GPU."""
    v3, llama, qwen, gpt3 = (ModelConfig.preset(name) for name in (
        "deepseek-v3", "llama-3.1-405b", "qwen2.5-72b", "gpt3-175b"))
    mqa = llama.replace(attention=llama.attention.replace(n_kv_heads=1))
    no_rope = v3.replace(attention=v3.attention.replace(qk_rope_head_dim=0), rope=None)
    cases = [(config, gpus) for config, several in (
        (v3, (1, 2, 8, 16)), (llama, (1, 2, 8, 16, 64)), (qwen, (4, 32)), (gpt3, (1, 8, 96)), (mqa, (1, 8)),
        (no_rope, (8,))) for gpus in several]
    total = accounting.cache_bytes_per_token

    def right(c, g):
        return accounting.cache_bytes_per_gpu(c, g)

    def mla(c):
        return c.attention.kind == "MLA"

    numbers(function, cases, right, [
        ("MLA's latent is read by every head: each GPU keeps all of it. Grouped attention is divided",
         lambda c, g: total(c) // min(g, 128 if mla(c) else c.attention.kv_heads)),
        ("two things: MLA's latent is not divided at all, and GQA not further than one key-value head a GPU",
         lambda c, g: total(c) // g),
        ("is it divided further than one key-value head a GPU? Beyond that heads are copied",
         lambda c, g: total(c) if mla(c) else total(c) // g),
        ("is nothing divided? In grouped attention a GPU keeps the keys and values of its own heads",
         lambda c, g: total(c)),
        ("is it always divided by the key-value heads? With fewer GPUs than heads a GPU has several",
         lambda c, g: total(c) if mla(c) else total(c) // c.attention.kv_heads),
        ("is that the sum over all GPUs? One of them is meant", lambda c, g: right(c, g) * g),
        ("is a number taken as 1 byte? It has 16 bits", lambda c, g: right(c, g) // 2),
        ("is a number taken as 4 bytes? It has 16 bits", lambda c, g: right(c, g) * 2),
    ], lambda c, g: f"{c.attention.kind} with {c.n_layers} layers on {g} GPU{'s' if g > 1 else ''}",
        lambda value: whole(value, "a whole number of bytes is needed (// divides without a rest)"))
    return "on each of 8 GPUs V3 keeps 70,272 bytes a token and Llama 3.1 405B 64,512: MLA's cache is no longer smaller"
