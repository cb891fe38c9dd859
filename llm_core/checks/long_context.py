"""Checks of the lesson "Long context: interpolation, NTK, YaRN"."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from llm_core.checks.cases import number, numbers
from llm_core.checks.core import Wrong, attempt, check, compare, tensor
from llm_core.config import ModelConfig, RopeConfig, YarnConfig
from llm_core.positions import inverse_frequencies, softmax_scale


def _list_of_ids(result) -> list[int]:
    if isinstance(result, Tensor) and result.dim() == 1 and not result.is_floating_point() and \
            result.dtype != torch.bool:
        result = result.tolist()
    if isinstance(result, (int, float)) and not isinstance(result, bool):
        raise Wrong(f"a list of the pairs' indices is needed, and you have one number, {result}")
    if isinstance(result, range):
        result = list(result)
    if not isinstance(result, (list, tuple)) or any(isinstance(i, bool) or not isinstance(i, int) for i in result):
        raise Wrong("a list of the pairs' indices, whole numbers, is needed")
    return list(result)


@check
def pairs_in_danger(function) -> str:
    """function(width, theta, trained) -> indices of the pairs that make less than one turn in training."""
    cases = ((64, 10_000.0, 4096), (32, 2500.0, 1024), (64, 100_000.0, 8192), (8, 100.0, 1000))
    got = [_list_of_ids(attempt(function, *case)) for case in cases]

    def below(turns: Callable) -> list[list[int]]:
        return [[i for i in range(width // 2) if turns(theta, i, width, trained) < 1]
                for width, theta, trained in cases]

    def turns(theta: float, i: int, width: int, trained: int) -> float:
        return trained * theta ** (-2 * i / width) / (2 * math.pi)

    need = below(turns)
    if got == need:
        v3, ours, smol, _ = map(len, need)
        return (f"{v3} of 32 in DeepSeek-V3, {ours} of 16 in the lesson's model, {smol} of 32 in SmolLM2, each "
                "at its trained length")
    seen = [[i for i in range(case[0] // 2) if i not in rows] for case, rows in zip(cases, need)]
    for sentence, wrong in (
        ("those are the pairs that are safe: a pair is in danger if it did not come round", seen),
        ("is a full turn taken as 1 radian? It is 2 pi", below(lambda *a: turns(*a) * 2 * math.pi)),
        ("is a full turn taken as 360? The angles are radians, and a turn is 2 pi",
         below(lambda *a: turns(*a) * 2 * math.pi / 360)),
        ("is half a turn enough for you? A full one is 2 pi", below(lambda *a: 2 * turns(*a))),
        ("is the 2 missing in the exponent? Pair i turns by theta ** (-2i / width)",
         below(lambda theta, i, width, trained: trained * theta ** (-i / width) / (2 * math.pi))),
        ("are pairs counted from 1? The fastest is pair 0", [[i + 1 for i in rows] for rows in need]),
        ("those are indices of numbers in the head; pair i has two", [[2 * i for i in rows] for rows in need]),
        ("is the training's length fixed in your function? It is given",
         below(lambda theta, i, width, trained: turns(theta, i, width, 4096))),
        ("is theta fixed at 10,000 in your function? It is given",
         below(lambda theta, i, width, trained: turns(10_000.0, i, width, trained))),
    ):
        if got == wrong:
            raise Wrong(sentence)
    case, mine, right = next((c, g, n) for c, g, n in zip(cases, got, need) if g != n)
    if sorted(mine) == right:
        raise Wrong("the right pairs; put them in order, from fast to slow")
    raise Wrong(f"for a width of {case[0]}, theta {case[1]:,.0f} and {case[2]:,} tokens it should be "
                f"{right or 'none'}, and you have {str(mine)[:80]}")


@check
def base_for_pair(function) -> str:
    """function(theta, width, factor, i) -> the base that slows pair i by factor."""
    numbers(function, ((10_000.0, 64, 40.0, 20), (2500.0, 32, 4.0, 9), (2500.0, 32, 4.0, 15), (100.0, 8, 2.0, 1)),
             lambda theta, width, factor, i: theta * factor ** (width / (2 * i)), [
        ("that is the base for the last pair; here pair i is wanted", lambda t, w, f, i: t * f ** (w / (w - 2))),
        ("is the base simply multiplied by the factor? A pair's speed is a root of the base", lambda t, w, f, i: t * f),
        ("is the 2 missing? Pair i has the exponent -2i / width", lambda t, w, f, i: t * f ** (w / i)),
        ("is the exponent upside down? It is width / 2i", lambda t, w, f, i: t * f ** (2 * i / w)),
        ("is the base made smaller? A larger base is slower", lambda t, w, f, i: t * f ** (-w / (2 * i))),
        ("are pairs counted from 1? The first is pair 0", lambda t, w, f, i: t * f ** (w / (2 * (i + 1)))),
        ("that is the factor by which the base grows; multiply it with theta", lambda t, w, f, i: f ** (w / (2 * i))),
        ("that is the pair's new speed; the base is wanted", lambda t, w, f, i: t ** (-2 * i / w) / f),
    ], lambda theta, width, factor, i: f"theta {theta:,.0f}, width {width}, factor {factor:g} and pair {i}", number)
    return "pair i turns just as slowly as wished, and for the last pair it is the NTK-aware base"


@check
def yarn_speeds(function) -> str:
    """function(width, theta, factor, original, beta_fast, beta_slow) -> speeds, [width / 2]."""
    cases = ((64, 10_000.0, 40.0, 4096, 32.0, 1.0), (32, 2500.0, 4.0, 1024, 32.0, 1.0),
             (64, 50_000.0, 32.0, 4096, 1.0, 1.0), (32, 100.0, 8.0, 64, 32.0, 1.0))
    names = ("DeepSeek-V3", "the lesson's model", "Kimi-K2", "a model with all pairs on the ramp or behind it")
    for name, (width, theta, factor, original, fast, slow) in zip(names, cases):
        got = tensor(function, width, theta, factor, original, fast, slow, shape=(width // 2,), names="[width / 2]",
                     hints={"division by zero": "Where both bounds are one pair the ramp is empty: at least 0.001."},
                     shape_hints={(width,): "A speed for each pair, not for each number."})
        truth = inverse_frequencies(RopeConfig(theta, scaling=YarnConfig(factor, original, fast, slow)), width)
        i = torch.arange(width // 2, dtype=torch.float64)
        speeds = theta ** (-2 * i / width)
        turns = original * speeds / (2 * math.pi)

        def index(beta: float, tokens: float) -> float:
            return width * math.log(tokens / (2 * math.pi * beta)) / (2 * math.log(theta))  # noqa: B023

        def ramp(first: float, last: float) -> Tensor:
            return ((i - first) / max(last - first, 0.001)).clamp(0, 1)  # noqa: B023

        def blend(slowed: Tensor) -> Tensor:
            return speeds * (1 - slowed) + speeds / factor * slowed  # noqa: B023

        first, last = (index(beta, original) for beta in (fast, slow))
        low, high = max(math.floor(first), 0), min(math.ceil(last), width - 1)
        right = ramp(low, high)
        longer = ramp(max(math.floor(index(fast, original * factor)), 0),
                      min(math.ceil(index(slow, original * factor)), width - 1))
        mistakes = [
            ("those are the plain speeds; nothing is slowed", speeds),
            ("all pairs are slowed alike, which is plain interpolation. The fast ones should be kept", speeds / factor),
            ("is the ramp the wrong way round? Fast pairs, with small i, are kept", blend(1 - right)),
            ("is the slow part multiplied by the factor? It is divided",
             speeds * (1 - right) + speeds * factor * right),
            ("are the bounds not rounded? The first down, the last up",
             blend(ramp(max(first, 0), min(last, width - 1)))),
            ("are both bounds rounded down? The last goes up", blend(ramp(low, min(math.floor(last), width - 1)))),
            ("are the bounds rounded the wrong way? The first down, the last up",
             blend(ramp(max(math.ceil(first), 0), min(math.floor(last), width - 1)))),
            ("is the 2 pi missing in the index?", blend(ramp(max(math.floor(index(fast / (2 * math.pi), original)), 0),
                                                            min(math.ceil(index(slow / (2 * math.pi), original)),
                                                                width - 1)))),
            ("is the stretched context taken for the original one?", blend(longer)),
            ("is the ramp left unclamped? Beyond its ends it must stay at 0 and 1",
             blend((i - low) / max(high - low, 0.001))),
            ("does the ramp run along the number of turns, as in the paper? Here it runs along the pair's index, as in "
             "DeepSeek's code", blend(1 - ((turns - slow) / max(fast - slow, 0.001)).clamp(0, 1))),
            ("may `first` be below 0? Then the ramp begins outside of the head; it is at least 0",
             blend(ramp(math.floor(first), high))),
            ("is there no ramp? Between the bounds it goes over step by step", blend((i >= high).double())),
            ("is there no ramp? Between the bounds it goes over step by step", blend((i > low).double())),
        ]
        compare(got / truth, torch.ones(width // 2),  # by ratio, for speeds span five powers of ten
                [(f"{name}: {sentence}", wrong.float() / truth) for sentence, wrong in mistakes])
    return "for four models, DeepSeek-V3's and Kimi-K2's among them"


@check
def yarn_softmax_scale(function) -> str:
    """function(head_dim, factor, mscale) -> what scores are multiplied by."""
    v3 = ModelConfig.preset("deepseek-v3")
    cases = ((192, 40.0, 1.0), (64, 16.0, 0.707), (128, 1.0, 1.0), (32, 4.0, 0.0), (32, 0.5, 1.0))

    def m(factor: float, mscale: float) -> float:
        return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0

    numbers(function, cases, lambda d, f, k: softmax_scale(v3) if (d, f, k) == cases[0] else d**-0.5 * m(f, k) ** 2, [
        ("m stands there only once. Queries and keys each get one, so it is m squared",
         lambda d, f, k: d**-0.5 * m(f, k)),
        ("m is missing", lambda d, f, k: d**-0.5),
        ("the scale is m squared alone; 1 / sqrt(head_dim) is missing", lambda d, f, k: m(f, k) ** 2),
        ("those are the factors by which scores are divided; multiply", lambda d, f, k: d**0.5 / m(f, k) ** 2),
        ("are scores divided by m squared? YaRN makes them larger", lambda d, f, k: d**-0.5 / m(f, k) ** 2),
        ("is head_dim's root missing? It is 1 / sqrt(head_dim)", lambda d, f, k: m(f, k) ** 2 / d),
        ("is mscale ignored? It stands before the logarithm", lambda d, f, k: d**-0.5 * m(f, 1.0) ** 2),
        ("is the logarithm to the base 10? It is the natural one",
         lambda d, f, k: d**-0.5 * (0.1 * k * math.log10(f) + 1 if f > 1 else 1) ** 2),
        ("a factor of 1 or less stretches nothing: m is 1 there", lambda d, f, k: d**-0.5 * (
            0.1 * k * math.log(f) + 1) ** 2),
        ("does mscale multiply all of m? It stands before the logarithm alone: 0.1 * mscale * ln(factor) + 1",
         lambda d, f, k: d**-0.5 * (k * (0.1 * math.log(f) + 1) if f > 1 else 1.0) ** 2),
    ], lambda d, f, k: f"head_dim {d}, factor {f:g} and mscale {k:g}", number)
    return f"DeepSeek-V3's is {softmax_scale(v3):.6f}"


@check
def stretch_with_yarn(function) -> str:
    """function(config, tokens) -> the config with YaRN for that many tokens."""
    for name, tokens in (("smollm2-135m", 32_768), ("smollm2-135m", 12_000)):
        config = ModelConfig.preset(name)
        was = config.max_seq_len
        got = attempt(function, config, tokens)
        if isinstance(got, (RopeConfig, YarnConfig)):
            raise Wrong("that is one part; put it back into the whole, as in config.replace(rope=…)")
        if not isinstance(got, ModelConfig):
            raise Wrong(f"a ModelConfig is needed, and your function returned a {type(got).__name__}")
        yarn = got.rope.scaling if got.rope else None
        if got == config:
            raise Wrong("the config is as it was. replace gives a changed copy; return it")
        if not isinstance(yarn, YarnConfig):
            raise Wrong("there is no YaRN in it: rope.scaling should be a YarnConfig")
        if got.max_seq_len == was:
            raise Wrong(f"max_seq_len is still {was:,}, so the model refuses longer texts")
        if got.max_seq_len != tokens:
            raise Wrong(f"max_seq_len should be {tokens:,}, and it is {got.max_seq_len:,}")
        if yarn.original_max_seq_len != was:
            new = " That is the new one." if yarn.original_max_seq_len == tokens else ""
            raise Wrong(f"the original context is {was:,}, what the model was trained with, and you have "
                        f"{yarn.original_max_seq_len:,}.{new}")
        if not math.isclose(yarn.factor, tokens / was):
            why = {tokens // was: " It need not be whole: / and not //.", was / tokens: " It is the other way round.",
                   tokens: " It is a ratio of two contexts."}.get(yarn.factor, "")
            raise Wrong(f"from {was:,} to {tokens:,} tokens the factor is {tokens / was:g}, and you have "
                        f"{yarn.factor:g}.{why}")
        if got.replace(max_seq_len=was, rope=config.rope) != config:
            raise Wrong("something else has changed too; only max_seq_len and rope.scaling should")
        if got.rope.theta != config.rope.theta or got.rope.layout != config.rope.layout:
            raise Wrong("rope's theta or layout has changed: a new RopeConfig forgets them, "
                        "config.rope.replace(scaling=…) keeps them")
        if (yarn.beta_fast, yarn.beta_slow, yarn.mscale, yarn.mscale_all_dim) != (32.0, 1.0, 1.0, 1.0):
            raise Wrong("leave YaRN's betas and mscales as they are by default")
    return "SmolLM2 for 32,768 tokens, by its config alone. Whether it *finds* anything there must be measured"
