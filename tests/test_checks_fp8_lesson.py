"""Checks of the lesson on training in FP8: wrong answers get a hint, right ones may be written otherwise."""

import math

import torch

from llm_core.quantization.fp8 import dequantize_tiles, quantize_tiles, to_fp8


def kept(t, tile=(1, 128), format="e4m3"):
    return dequantize_tiles(*quantize_tiles(t, tile, format), tile)


def transposed_codes(dy, x):
    """Codes are turned round and their scales are not."""
    codes, scales = quantize_tiles(dy)
    return dequantize_tiles(codes.T, scales) @ x


def history(largest, steps, own=False, first=1.0, pick=max, by=448):
    return [first if t == 0 and not own else pick(largest[max(0, t - steps + own):t + own]) / by
            for t in range(len(largest))]


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "three_products": [
        (lambda x, w, dy: (x @ w.T, dy @ w, x.T @ dy), "none of them turned round"),
        (lambda x, w, dy: (dy @ w, x @ w.T, dy.T @ x), "in the order y, dx, dW"),
        (lambda x, w, dy: (x @ w, dy @ w, dy.T @ x), "what is summed over must stand inside"),
        (lambda x, w, dy: (x @ w.T, dy @ w.T, dy.T @ x), "what is summed over must stand inside"),
        (lambda x, w, dy: (x @ (w if w.shape[0] == w.shape[1] else w.T), dy @ w, dy.T @ x), "kept as [O, I]"),
        (lambda x, w, dy: (x @ w.T, dy @ (w.T if w.shape[0] == w.shape[1] else w), dy.T @ x),
         "in dx the weight is not"),
        (lambda x, w, dy: (x @ w.T, dy @ w, (dy.T @ x).T if x.shape[1] == dy.shape[1] else dy.T @ x),
         "Outputs come first"),
        (lambda x, w, dy: (x @ w.T, dy @ w, dy.T @ x / len(x)), "dW is a sum"),
        (lambda x, w, dy: x @ w.T, "three results"),
        (lambda x, w, dy: (x @ w.T, dy @ w), "three results"),
    ],
    "fp8_weight_gradient": [
        (lambda dy, x: dy.T @ x, "nothing is rounded"),
        (lambda dy, x: kept(dy).T @ kept(x), "must lie along the sum"),
        (lambda dy, x: kept(dy.T) @ kept(x), "x along its inputs"),
        (lambda dy, x: kept(dy).T @ kept(x.T).T, "dy along its outputs"),
        (lambda dy, x: kept(dy.T) @ x, "x is not"),
        (lambda dy, x: dy.T @ kept(x.T).T, "dy is not"),
        (lambda dy, x: kept(dy.T, None) @ kept(x.T, None).T, "one scale for the whole"),
        (lambda dy, x: kept(dy.T, (128, 128)) @ kept(x.T, (128, 128)).T, "Those are for weights"),
        (lambda dy, x: kept(dy.T, format="e5m2") @ kept(x.T).T, "are the gradients in E5M2"),
        (lambda dy, x: kept(dy.T, format="e5m2") @ kept(x.T, format="e5m2").T, "is everything in E5M2"),
        (lambda dy, x: kept(dy.T @ x), "is the *result* rounded"),
        (lambda dy, x: (kept(dy.T) @ kept(x.T).T).T, "Is it turned round?"),
        (lambda dy, x: kept(dy.T) @ kept(x.T), "must stand inside"),
        (transposed_codes, "Are codes turned round"),
        (lambda dy, x: to_fp8(dy.T).float() @ to_fp8(x.T).float().T, "the numbers do not"),
    ],
    "power_of_two_scale": [
        (lambda v: 2.0 ** math.floor(math.log2(v / 448)), "rounded down"),
        (lambda v: 2.0 ** round(math.log2(v / 448)), "*nearest*"),
        (lambda v: v / 448, "not a power of two"),
        (lambda v: 1 / 2.0 ** math.ceil(math.log2(v / 448)), "1 / s"),
        (lambda v: 2.0 ** math.ceil(math.log2(v)), "is 448 forgotten"),
        (lambda v: math.ceil(math.log2(v / 448)), "that is the exponent"),
        (lambda v: 2.0 ** (math.floor(math.log2(v / 448)) + 1), "fits exactly"),
        (lambda v: 2.0 ** math.ceil(math.log2(v / 57344)), "E5M2"),
        (lambda v: 2.0 ** math.ceil(math.log2(v / 127)), "8-bit integers"),
        (lambda v: 2.0 ** math.ceil(math.log2(v / 256)), "is it 256"),
        (lambda v: "1", "a number is needed"),
        (lambda v: 1.0, "for a largest number of"),
    ],
    "delayed_scales": [
        (lambda v, h: history(v, h, own=True), "That is online scaling"),
        (lambda v, h: [max(v[max(0, t - h):t + 1]) / 448 for t in range(len(v))], "look at itself as well"),
        (lambda v, h: history(v, len(v)), "is every earlier step remembered"),
        (lambda v, h: history(v, 1), "only the step before"),
        (lambda v, h: history(v, h + 1), "one step too many"),
        (lambda v, h: [1.0, *history(v, max(1, h - 1))[1:]], "one step too few"),
        (lambda v, h: history(v, h, by=1), "divide them by 448"),
        (lambda v, h: history(v, h, pick=min), "the minimum"),
        (lambda v, h: history(v, h, pick=lambda part: sum(part) / len(part)), "the mean"),
        (lambda v, h: history(v, h, first=v[0] / 448), "its scale is 1.0"),
        (lambda v, h: history(v, h, first=1 / 448), "undivided"),
        (lambda v, h: [1.0, *(1 / s for s in history(v, h)[1:])], "448 / maximum"),
        (lambda v, h: history(v, h)[1:], "one scale a step"),
        (lambda v, h: [max(v[max(0, t - h):t]) / 448 for t in range(len(v))], "no earlier ones"),
        (lambda v, h: 1.0, "a list of scales"),
        (lambda v, h: [1.0] * len(v), "should have the scale"),
    ],
    "whole_speedup": [
        (lambda s, t: s * t + 1 - s, "Add up *times*"),
        (lambda s, t: s / t + 1 - s, "the time it takes now"),
        (lambda s, t: t / s if s else 1.0, "forgotten"),
        (lambda s, t: t, "as if everything"),
        (lambda s, t: 1 / (s + (1 - s) / t), "the *rest*"),
        (lambda s, t: 1.0, "for a share of"),
    ],
}


def tokens_one_by_one(dy, x):
    a, b = kept(dy.T).double(), kept(x.T).double()
    return torch.stack([(a[:, None] * b[None])[o].sum(-1) for o in range(len(a))])


RIGHT = {
    "three_products": [
        lambda x, w, dy: [torch.einsum("ni,oi->no", x, w), torch.einsum("no,oi->ni", dy, w),
                          torch.einsum("no,ni->oi", dy, x)],
        lambda x, w, dy: (x.double() @ w.T.double(), dy @ w, (x.T @ dy).T),
    ],
    "fp8_weight_gradient": [
        tokens_one_by_one,
        lambda dy, x: (kept(x.T) @ kept(dy.T).T).T,
    ],
    "power_of_two_scale": [
        lambda v: next(2.0**e for e in range(-60, 60) if v / 2.0**e <= 448),
        lambda v: torch.tensor(2.0 ** math.ceil(math.log2(v / 448))),
    ],
    "delayed_scales": [
        history,
        lambda v, h: torch.tensor(history(v, h)),
        lambda v, h: tuple(history(v, h)),
    ],
    "whole_speedup": [
        lambda s, t: t / (s + t * (1 - s)),
        lambda s, t: torch.tensor(1 / (s / t + 1 - s)),
    ],
}


def test_the_figures_in_the_last_sentences_are_true():
    assert round(1 / (0.85 / 2 + 0.15), 2) == 1.74 and round(1 / 0.1) == 10
    assert history([1.0, 1.0, 1.0, 40.0], 3)[-1] * 448 / 40 == 1 / 40
