"""Checks of the lesson on long contexts: a wrong answer gets its own hint, a right one may be written otherwise."""

import math

import torch

from llm_core.config import Llama3RopeConfig, ModelConfig, RopeConfig, YarnConfig
from llm_core.positions import inverse_frequencies


def danger(width, theta, trained, turn=2 * math.pi, exponent=2):
    return [i for i in range(width // 2) if trained * theta ** (-exponent * i / width) < turn]


def plain(width, theta):
    return theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)


def yarn(width, theta, factor, original, fast, slow, down=math.floor, up=math.ceil, turn=2 * math.pi, least=0,
         flipped=False, clamp=True, step=False):
    def index(beta):
        return width * math.log(original / (turn * beta)) / (2 * math.log(theta))

    first, last = max(down(index(fast)), least), min(up(index(slow)), width - 1)
    i = torch.arange(width // 2, dtype=torch.float64)
    slowed = (i - first) / max(last - first, 0.001)
    slowed = slowed.clamp(0, 1) if clamp else slowed
    slowed = (i >= last).double() if step else slowed
    slowed = 1 - slowed if flipped else slowed
    return plain(width, theta) * (1 - slowed + slowed / factor)


def by_turns(width, theta, factor, original, fast, slow):
    speeds = plain(width, theta)
    turns = original * speeds / (2 * math.pi)
    kept = ((turns - slow) / max(fast - slow, 0.001)).clamp(0, 1)
    return speeds * kept + speeds / factor * (1 - kept)


def m(factor, k=1.0, log=math.log):
    return 0.1 * k * log(factor) + 1 if factor > 1 else 1.0


def stretch(config, tokens, factor=None, original=None, length=None, **yarn):
    scaling = YarnConfig(factor or tokens / config.max_seq_len, original or config.max_seq_len, **yarn)
    return config.replace(max_seq_len=length or tokens, rope=config.rope.replace(scaling=scaling))


WRONG = {
    "pairs_in_danger": [
        (lambda w, t, n: [i for i in range(w // 2) if i not in danger(w, t, n)], "safe"),
        (lambda w, t, n: danger(w, t, n, turn=1), "1 radian"),
        (lambda w, t, n: danger(w, t, n, turn=360), "360"),
        (lambda w, t, n: danger(w, t, n, turn=math.pi), "half a turn"),
        (lambda w, t, n: danger(w, t, n, exponent=1), "2 missing"),
        (lambda w, t, n: [i + 1 for i in danger(w, t, n)], "counted from 1"),
        (lambda w, t, n: [2 * i for i in danger(w, t, n)], "pair i has two"),
        (lambda w, t, n: danger(w, t, 4096), "length fixed"),
        (lambda w, t, n: danger(w, 10_000.0, n), "theta fixed"),
        (lambda w, t, n: danger(w, t, n)[::-1], "in order"),
        (lambda w, t, n: len(danger(w, t, n)), "one number"),
        (lambda w, t, n: torch.arange(w // 2) > 3, "whole numbers"),
        (lambda w, t, n: [1], "it should be"),
    ],
    "base_for_pair": [
        (lambda t, w, f, i: t * f ** (w / (w - 2)), "last pair"),
        (lambda t, w, f, i: t * f, "simply multiplied"),
        (lambda t, w, f, i: t * f ** (w / i), "2 missing"),
        (lambda t, w, f, i: t * f ** (2 * i / w), "upside down"),
        (lambda t, w, f, i: t * f ** (-w / (2 * i)), "larger base is slower"),
        (lambda t, w, f, i: t * f ** (w / (2 * i + 2)), "counted from 1"),
        (lambda t, w, f, i: f ** (w / (2 * i)), "multiply it with theta"),
        (lambda t, w, f, i: t ** (-2 * i / w) / f, "the base is wanted"),
        (lambda t, w, f, i: 3.0, "it should be"),
        (lambda t, w, f, i: True, "a number is needed"),
    ],
    "yarn_speeds": [
        (lambda w, t, *a: plain(w, t), "nothing is slowed"),
        (lambda w, t, f, *a: plain(w, t) / f, "plain interpolation"),
        (lambda *a: yarn(*a, flipped=True), "ramp the wrong way round"),
        (lambda w, t, f, *a: yarn(w, t, 1 / f, *a), "multiplied by the factor"),
        (lambda *a: yarn(*a, down=float, up=float), "not rounded"),
        (lambda *a: yarn(*a, up=math.floor), "both bounds rounded down"),
        (lambda *a: yarn(*a, down=math.ceil, up=math.floor), "rounded the wrong way"),
        (lambda *a: yarn(*a, turn=1), "2 pi missing"),
        (lambda w, t, f, o, *a: yarn(w, t, f, o * f, *a), "stretched context"),
        (lambda *a: yarn(*a, clamp=False), "unclamped"),
        (by_turns, "number of turns"),
        (lambda *a: yarn(*a, least=-99), "below 0"),
        (lambda *a: yarn(*a, step=True), "no ramp"),
        (lambda *a: yarn(*a).repeat(2), "not for each number"),
        (lambda *a: yarn(*a) / 0 if a[4] == 1 else yarn(*a), "numbers do not"),
        (lambda *a: 1 / 0 if a[4] == 1 else yarn(*a), "at least 0.001"),
    ],
    "yarn_softmax_scale": [
        (lambda d, f, k: d**-0.5 * m(f, k), "only once"),
        (lambda d, f, k: d**-0.5, "m is missing"),
        (lambda d, f, k: m(f, k) ** 2, "squared alone"),
        (lambda d, f, k: d**0.5 / m(f, k) ** 2, "are divided; multiply"),
        (lambda d, f, k: d**-0.5 / m(f, k) ** 2, "makes them larger"),
        (lambda d, f, k: m(f, k) ** 2 / d, "root missing"),
        (lambda d, f, k: d**-0.5 * m(f) ** 2, "mscale ignored"),
        (lambda d, f, k: d**-0.5 * m(f, k, math.log10) ** 2, "natural one"),
        (lambda d, f, k: d**-0.5 * (0.1 * k * math.log(f) + 1) ** 2, "1 or less"),
        (lambda d, f, k: d**-0.5 * (k * m(f) if f > 1 else 1) ** 2, "all of m"),
        (lambda d, f, k: 0.135234, "head_dim 64"),
    ],
    "stretch_with_yarn": [
        (lambda c, n: c, "as it was"),
        (lambda c, n: c.replace(max_seq_len=n), "no YaRN"),
        (lambda c, n: c.replace(max_seq_len=n, rope=c.rope.replace(scaling=Llama3RopeConfig(4.0, 8192))), "no YaRN"),
        (lambda c, n: stretch(c, n).rope, "back into the whole"),
        (lambda c, n: "yarn", "a ModelConfig is needed"),
        (lambda c, n: stretch(c, n, length=c.max_seq_len), "refuses longer"),
        (lambda c, n: stretch(c, n, length=n + 1), "max_seq_len should be"),
        (lambda c, n: stretch(c, n, original=n), "the new one"),
        (lambda c, n: stretch(c, n, original=4096), "was trained with"),
        (lambda c, n: stretch(c, n, factor=float(n // c.max_seq_len)), "need not be whole"),
        (lambda c, n: stretch(c, n, factor=c.max_seq_len / n), "other way round"),
        (lambda c, n: stretch(c, n, factor=float(n)), "ratio of two contexts"),
        (lambda c, n: stretch(c, n, factor=40.0), "the factor is"),
        (lambda c, n: stretch(c, n).replace(n_layers=2), "something else"),
        (lambda c, n: c.replace(max_seq_len=n, rope=RopeConfig(scaling=stretch(c, n).rope.scaling)), "forgets them"),
        (lambda c, n: stretch(c, n, beta_fast=8.0), "betas"),
    ],
}


RIGHT = {
    "pairs_in_danger": [
        danger,
        lambda w, t, n: tuple(danger(w, t, n)),
        lambda w, t, n: (n * plain(w, t) < 2 * math.pi).nonzero().flatten(),
        lambda w, t, n: range(w // 2 - len(danger(w, t, n)), w // 2),
    ],
    "base_for_pair": [
        lambda t, w, f, i: (t ** (-2 * i / w) / f) ** (-w / (2 * i)),
        lambda t, w, f, i: torch.tensor(math.exp(math.log(t) + math.log(f) * w / 2 / i)),
    ],
    "yarn_speeds": [
        yarn,
        lambda w, t, f, o, fast, slow: inverse_frequencies(RopeConfig(t, scaling=YarnConfig(f, o, fast, slow)), w),
    ],
    "yarn_softmax_scale": [lambda d, f, k: torch.tensor(m(f, k) ** 2 / math.sqrt(d))],
    "stretch_with_yarn": [
        stretch,
        lambda c, n: ModelConfig.from_dict(stretch(c, n).to_dict()),
    ],
}
