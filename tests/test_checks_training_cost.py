"""Checks of the lesson on what V3's training took: wrong answers get a hint, right ones may be written otherwise."""

import torch

from llm_core import ModelConfig, accounting

total = accounting.cache_bytes_per_token


def is_mla(config):
    return config.attention.kind == "MLA"


def payment(f, p, u, g, d, hours=None, days=None, dollars=None):
    h = f / (p * u) / 3600
    return (h if hours is None else hours(h), h / g / 24 if days is None else days(h),
            h * d if dollars is None else dollars(h))


def held(e, o, p, x):
    return o / p + e / p / x


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "run_flops": [
        (lambda n, s, d: (2 * n + s) * d, "is the backward pass forgotten"),
        (lambda n, s, d: (4 * n + 2 * s) * d, "three in all"),
        (lambda n, s, d: 6 * n * d, "leaves scores and values out"),
        (lambda n, s, d: (6 * n + s) * d, "a backward pass as well"),
        (lambda n, s, d: 6 * (n + s) * d, "operations already"),
        (lambda n, s, d: 3 * (n + s) * d, "*and* an addition"),
        (lambda n, s, d: 6 * n + 3 * s, "is that one token"),
        (lambda n, s, d: 6 * n * d + 3 * s, "do not grow with the tokens"),
        (lambda n, s, d: n * s * d, "it should be"),
        (lambda n, s, d: "6ND", "a whole number"),
    ],
    "utilisation_of": [
        (lambda f, h, p: f / (h * p), "3,600 seconds, and the peak"),
        (lambda f, h, p: f / (h * 60 * p), "yours has 60"),
        (lambda f, h, p: f / (h / 3600 * p), "are hours divided"),
        (lambda f, h, p: h * 3600 * p / f, "upside down"),
        (lambda f, h, p: 100 * f / (h * 3600 * p), "in per cent"),
        (lambda f, h, p: f / (h * 3600), "divide by the peak"),
        (lambda f, h, p: 0.4, "it should be"),
    ],
    "bill": [
        (lambda f, p, u, g, d: payment(f, p, u, g, d, hours=lambda h: 3600 * h), "those are seconds"),
        (lambda f, p, u, g, d: payment(f, p, u, g, d, hours=lambda h: h * u), "is the utilisation forgotten"),
        (lambda f, p, u, g, d: payment(f, p, u, g, d, hours=lambda h: h * u * u), "divide by it"),
        (lambda f, p, u, g, d: payment(f, p, u, g, d, hours=lambda h: h / g), "hours on the clock; GPU hours"),
        (lambda f, p, u, g, d: payment(f, p, u, g, d, hours=lambda h: h * g), "each does a part"),
        (lambda f, p, u, g, d: payment(f, p, u, g, d, days=lambda h: h / 24), "at the same time"),
        (lambda f, p, u, g, d: payment(f, p, u, g, d, days=lambda h: h / g), "a day has 24"),
        (lambda f, p, u, g, d: payment(f, p, u, g, d, days=lambda h: h / g * 24), "they are multiplied"),
        (lambda f, p, u, g, d: payment(f, p, u, g, d, days=lambda h: h * g / 24), "fewer days"),
        (lambda f, p, u, g, d: payment(f, p, u, g, d, dollars=lambda h: h / g * d), "whatever the number of GPUs"),
        (lambda f, p, u, g, d: payment(f, p, u, g, d, dollars=lambda h: h * g * d), "paid twice"),
        (lambda f, p, u, g, d: payment(f, p, u, g, d, dollars=lambda h: h / g / 24 * d), "are days multiplied"),
        (lambda f, p, u, g, d: payment(f, p, u, g, d, dollars=lambda h: h / d), "divided by"),
        (lambda f, p, u, g, d: payment(f, p, u, g, d)[0], "three numbers"),
        (lambda f, p, u, g, d: payment(f, p, u, g, d, dollars=lambda h: 5.0), "the dollars should be"),
        (lambda f, p, u, g, d: (1.0, 2.0, None), "a number is needed"),
    ],
    "bytes_on_a_gpu": [
        (lambda e, o, g, p, x: 6 * held(e, o, p, x), "are the optimiser states forgotten"),
        (lambda e, o, g, p, x: 14 * held(e, o, p, x), "held by every GPU"),
        (lambda e, o, g, p, x: 14 * (e + o) / g, "divides only the optimiser states"),
        (lambda e, o, g, p, x: 6 * (e + o) / p / x + 8 * (e + o) / g, "everything else in a stage"),
        (lambda e, o, g, p, x: 6 * (e + o) / p + 8 * (e + o) / g, "are the experts not divided"),
        (lambda e, o, g, p, x: 6 * (o / p + e / x) + 8 * (e + o) / g, "the experts, too"),
        (lambda e, o, g, p, x: 6 * (o + e / p / x) + 8 * (e + o) / g, "everything else, too"),
        (lambda e, o, g, p, x: 4 * held(e, o, p, x) + 8 * (e + o) / g, "gradients have 4 bytes"),
        (lambda e, o, g, p, x: 6 * held(e, o, p, x) + 12 * (e + o) / g, "2 bytes each"),
        (lambda e, o, g, p, x: 6 * held(e, o, p, x) + 6 * (e + o) / g, "one of the two means"),
        (lambda e, o, g, p, x: 6 * held(e, o, p, x) + 4 * (e + o) / g, "master weights forgotten"),
        (lambda e, o, g, p, x: 6 * held(e, o, p, x) + 8 * e / g, "of the experts alone"),
        (lambda e, o, g, p, x: 6 * held(e, o, p, x) + 8 * held(e, o, p, x) / g, "once more"),
        (lambda e, o, g, p, x: 80e9, "it should be"),
    ],
    "cache_on_a_gpu": [
        (lambda c, g: total(c) // min(g, c.attention.n_heads if is_mla(c) else c.attention.kv_heads),
         "read by every head"),
        (lambda c, g: total(c) // g, "two things"),
        (lambda c, g: total(c) if is_mla(c) else total(c) // g, "further than one key-value head"),
        (lambda c, g: total(c), "is nothing divided"),
        (lambda c, g: total(c) if is_mla(c) else total(c) // c.attention.kv_heads, "always divided"),
        (lambda c, g: accounting.cache_bytes_per_gpu(c, g) * g, "the sum over all GPUs"),
        (lambda c, g: accounting.cache_bytes_per_gpu(c, g) // 2, "taken as 1 byte"),
        (lambda c, g: accounting.cache_bytes_per_gpu(c, g) * 2, "taken as 4 bytes"),
        (lambda c, g: total(c) / 7, "a whole number of bytes"),
        (lambda c, g: 70_272, "it should be"),
    ],
}
RIGHT = {
    "run_flops": [
        lambda n, s, d: 3 * d * (2 * n + s),
        lambda n, s, d: sum([2 * n * d, 4 * n * d, s * d, 2 * s * d]),
    ],
    "utilisation_of": [
        lambda f, h, p: f / 3600 / h / p,
        lambda f, h, p: torch.tensor(f / (h * 3600 * p), dtype=torch.float64),
    ],
    "bill": [
        payment,
        lambda f, p, u, g, d: list(payment(f, p, u, g, d)),
    ],
    "bytes_on_a_gpu": [
        lambda e, o, g, p, x: round(6 * held(e, o, p, x) + 8 * (e + o) / g, 2),
        lambda e, o, g, p, x: (2 + 4) * (o * x + e) / (p * x) + (4 + 2 * 2) * (o + e) / g,
    ],
    "cache_on_a_gpu": [
        accounting.cache_bytes_per_gpu,
        lambda c, g: total(c) if is_mla(c) else total(c) / c.attention.kv_heads * max(1, c.attention.kv_heads // g),
    ],
}


def test_the_figures_in_the_last_sentences_are_true():
    v3 = ModelConfig.preset("deepseek-v3")
    flops = accounting.training_flops(v3, 14_800 * 10**9, 4096).model
    hours, days, dollars = payment(flops, 989e12, 0.391, 2048, 2)
    assert round(hours / 1e3, -1) == 2660 and round(days) == 54 and round(dollars / 1e6, 1) == 5.3
    one_stage = accounting.training_memory_per_gpu(v3, accounting.Layout(2048, 16, 64))
    assert round(one_stage.total / 1e9) == 13
