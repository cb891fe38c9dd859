"""Checks of the lesson "Training in FP8"."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from llm_core.checks.cases import number, numbers
from llm_core.checks.core import Wrong, attempt, check, compare, random, tensor
from llm_core.quantization.fp8 import dequantize_tiles, quantize_tiles
from llm_core.quantization.fp8_training import fp8_linear

_TURN = "The shapes tell which one to turn round with .T: what is summed over must stand inside."


@check
def three_products(function) -> str:
    """function(x [N, I], weight [O, I], dy [N, O]) -> y [N, O], dx [N, I], dW [O, I]."""
    for N, I, O in ((5, 4, 3), (4, 4, 4)):
        x, weight, dy = random(N, I, seed=801), random(O, I, seed=802), random(N, O, seed=803)
        got = attempt(function, x, weight, dy, hints={"must have the same size": _TURN, "cannot be multiplied": _TURN,
                                                      "size mismatch": _TURN})
        if not isinstance(got, (tuple, list)) or len(got) != 3:
            raise Wrong("three results are needed, as a tuple: y, dx, dW")
        x, weight = x.requires_grad_(), weight.requires_grad_()
        with torch.enable_grad():
            y = torch.nn.functional.linear(x, weight)
        dx, dw = torch.autograd.grad(y, (x, weight), dy)  # torch's own, not ours
        x, weight = x.detach(), weight.detach()
        square = N == I == O  # there a matrix that is not turned round fits all the same
        parts = (("y [N, O]", y.detach(), "the weight is kept as [O, I]: in y it is turned round", (x, weight)),
                 ("dx [N, I]", dx, "in dx the weight is not turned round: [N, O] times [O, I]", (dy, weight.T)),
                 ("dW [O, I]", dw, "is dW turned round? Outputs come first, as in the weight", (x.T, dy)))
        for (name, truth, sentence, (left, right)), mine in zip(parts, got):
            part = tensor(lambda mine=mine: mine, shape=tuple(truth.shape), names=name, shape_hints=dict.fromkeys(
                ((N, O), (N, I), (O, I), (O, N), (I, N), (I, O)),
                "Are the results in the order y, dx, dW, and none of them turned round?"))
            compare(part, truth, [*([(sentence, left @ right)] if square else []), (
                f"{name[:2].strip()} is a sum, and yours is divided by the number of tokens", truth / N)])
    return "equal to torch's own gradients; each costs 2 N I O operations, so a step is three forward passes"


def _kept(t: Tensor, tile: tuple[int, int] | None = (1, 128), format: str = "e4m3") -> Tensor:
    return dequantize_tiles(*quantize_tiles(t, tile, format), tile)


@check
def fp8_weight_gradient(function) -> str:
    """function(dy [N, O], x [N, I]) -> dW [O, I], both rounded in tiles along the tokens."""
    for N, O, I in ((300, 7, 5), (129, 3, 6)):
        grow = torch.logspace(-3, 3, N)[torch.randperm(N, generator=torch.Generator().manual_seed(804))]
        dy, x = random(N, O, seed=805) * grow[:, None], random(N, I, seed=806)
        got = tensor(function, dy, x, shape=(O, I), names="[O, I]", shape_hints={
            (I, O): "Is it turned round? Outputs come first, as in the weight."},
            hints={"must have the same size": _TURN, "cannot be multiplied": _TURN, "size mismatch": _TURN,
                   "need scales of shape": "Are codes turned round, and their scales not? Turn the numbers "
                                           "round, before or after."})
        _scaled_compare(got, _kept(dy.T) @ _kept(x.T).T, [
            ("nothing is rounded here: this is the product in 32 bits", dy.T @ x),
            ("the tiles lie along outputs and inputs. They must lie along the sum, which runs over tokens: turn both "
             "round *before* they are rounded", _kept(dy).T @ _kept(x)),
            ("dy is rounded along tokens, and x along its inputs", _kept(dy.T) @ _kept(x)),
            ("x is rounded along tokens, and dy along its outputs", _kept(dy).T @ _kept(x.T).T),
            ("dy is rounded, and x is not", _kept(dy.T) @ x),
            ("x is rounded, and dy is not", dy.T @ _kept(x.T).T),
            ("is there one scale for the whole tensor? A tile has 128 numbers", _kept(dy.T, None) @ _kept(x.T, None).T),
            ("are there blocks of 128 x 128? Those are for weights; a tile is 1 x 128",
             _kept(dy.T, (128, 128)) @ _kept(x.T, (128, 128)).T),
            ("are the gradients in E5M2? V3 takes E4M3 for all", _kept(dy.T, format="e5m2") @ _kept(x.T).T),
            ("is everything in E5M2? V3 takes E4M3", _kept(dy.T, format="e5m2") @ _kept(x.T, format="e5m2").T),
            ("is the *result* rounded? Its two factors are", _kept(dy.T @ x)),
        ])
    weight = torch.zeros(3, 6, requires_grad=True)
    with torch.enable_grad():
        y = fp8_linear(_kept(x), weight)
    library = torch.autograd.grad(y, weight, dy)[0]  # rounds x along inputs first, as a forward pass has done
    _scaled_compare(tensor(function, dy, _kept(x), shape=(3, 6), names="[O, I]"), library, [])
    return "tiles along tokens, and equal to what llm_core's layer gives for the gradient of its weights"


def _scaled_compare(got: Tensor, truth: Tensor, mistakes: list) -> None:
    """As compare, for results that are far from 1."""
    size = truth.abs().max()
    compare(got / size, truth / size, [(sentence, wrong / size) for sentence, wrong in mistakes])


@check
def power_of_two_scale(function) -> str:
    """function(largest) -> the smallest power of two s with largest / s <= 448."""
    cases = [(v,) for v in (448.0, 449.0, 896.0, 1.0, 0.003, 3.5, 100_000.0, 447.0, 7.0, 1e-6)]

    def right(largest: float, how=math.ceil, most: float = 448.0) -> float:
        return 2.0 ** how(math.log2(largest / most))

    numbers(function, cases, right, [
        ("is it rounded down? Then largest / s is above 448 and is cut off",
         lambda v: right(v, math.floor)),
        ("is it rounded to the *nearest* power? Where that is below, the largest number is cut off",
         lambda v: right(v, round)),
        ("that scale is exact, and not a power of two", lambda v: v / 448),
        ("that is what the numbers are multiplied with, 1 / s", lambda v: 1 / right(v)),
        ("is 448 forgotten? The largest number may become 448, not 1", lambda v: right(v, most=1.0)),
        ("that is the exponent; the scale is 2 to that power", lambda v: math.ceil(math.log2(v / 448))),
        ("where largest / 448 is a power of two already, it fits exactly, and no further one is needed",
         lambda v: 2.0 ** (math.floor(math.log2(v / 448)) + 1)),
        ("is it E5M2's largest number, 57,344? Here it is E4M3's, 448", lambda v: right(v, most=57_344.0)),
        ("is it 127? That is the largest of 8-bit integers; E4M3's is 448", lambda v: right(v, most=127.0)),
        ("is it 256? E4M3's largest number is 448", lambda v: right(v, most=256.0)),
    ], lambda v: f"a largest number of {v:g}", number)
    return "448 needs 1, and 449 needs 2: a tile then uses at least the upper half of E4M3's range"


@check
def delayed_scales(function) -> str:
    """function(largest, history) -> a scale for each step, from earlier steps alone."""
    cases = (([4.0, 8.0, 2.0, 1.0, 1.0, 1.0, 40.0, 1.0], 3), ([1.0, 2.0, 3.0], 1), ([5.0], 4),
             ([9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0], 2))

    def scales(largest, history, start=0, end=0, first=1.0, how=max, by=448.0):
        return [how(largest[max(0, t - history + start):t + end]) / by if t or end else first
                for t in range(len(largest))]

    def in_words(values) -> list[float]:
        if isinstance(values, Tensor) and values.dim() == 1:
            values = values.tolist()
        if not isinstance(values, (list, tuple)):
            raise Wrong(f"a list of scales is needed, one a step, and you have a {type(values).__name__}")
        return [number(v) for v in values]

    mistakes = [
        ("does step t look at itself? That is online scaling; delayed scaling knows only earlier steps",
         lambda v, h: scales(v, h, 1, 1)),
        ("does step t look at itself as well? Delayed scaling knows only earlier steps",
         lambda v, h: scales(v, h, 0, 1)),
        ("is every earlier step remembered? Only the last `history` ones are", lambda v, h: scales(v, len(v))),
        ("is only the step before looked at? The maximum of the last `history` ones is wanted",
         lambda v, h: scales(v, 1)),
        ("is one step too few remembered?", lambda v, h: [1.0, *scales(v, max(1, h - 1))[1:]]),
        ("is one step too many remembered?", lambda v, h: scales(v, h + 1)),
        ("the maxima are there; divide them by 448", lambda v, h: scales(v, h, by=1.0)),
        ("the minimum of the history would cut off almost everything; take its maximum",
         lambda v, h: scales(v, h, how=min)),
        ("is it the mean of the history? The maximum is wanted",
         lambda v, h: scales(v, h, how=lambda part: sum(part) / len(part))),
        ("in the first step nothing is known: its scale is 1.0",
         lambda v, h: scales(v, h, first=v[0] / 448)),
        ("in the first step nothing is known: its scale is 1.0, undivided", lambda v, h: scales(v, h, first=1 / 448)),
        ("a scale is the maximum / 448, and you have 448 / maximum",
         lambda v, h: [1.0, *(1 / s for s in scales(v, h)[1:])]),
    ]
    got = [in_words(attempt(function, list(v), h, hints={"empty": "The first step has no earlier ones."}))
           for v, h in cases]
    close = [_close(mine, scales(*case)) for mine, case in zip(got, cases)]
    if not all(close):
        for sentence, wrong in mistakes:
            if all(_close(mine, wrong(*case)) for mine, case in zip(got, cases)):
                raise Wrong(sentence)
        v, h = cases[close.index(False)]
        mine = got[close.index(False)]
        if len(mine) != len(v):
            raise Wrong(f"one scale a step is needed: {len(v)} here, and you have {len(mine)}")
        t = next(t for t in range(len(v)) if not _close(mine[t:t + 1], scales(v, h)[t:t + 1]))
        raise Wrong(f"for {v} and a history of {h}, step {t} (counted from 0) should have the scale "
                    f"{scales(v, h)[t]:.5g}, and you have {mine[t]:.5g}")
    return "and where 40 comes after 1, 1, 1, its scale was made for 1: the outlier is cut to a fortieth"


def _close(a: list[float], b: list[float]) -> bool:
    return len(a) == len(b) and all(math.isclose(x, y, rel_tol=1e-5) for x, y in zip(a, b))


@check
def whole_speedup(function) -> str:
    """function(share, times) -> how many times as fast the whole is."""
    cases = ((0.5, 2.0), (0.85, 2.0), (1.0, 3.0), (0.0, 5.0), (0.9, 1000.0), (0.3, 0.5))
    numbers(function, cases, lambda s, t: 1 / (s / t + 1 - s), [
        ("speeds are added up by their shares. Add up *times*: the slow part takes as long as before",
         lambda s, t: s * t + 1 - s),
        ("that is the time it takes now; how many times as fast is it?", lambda s, t: s / t + 1 - s),
        ("is the part that stays as it is forgotten?", lambda s, t: t / s if s else 1.0),
        ("is it as if everything became faster?", lambda s, t: t),
        ("is the *rest* made faster, instead of the part?", lambda s, t: 1 / (s + (1 - s) / t)),
    ], lambda s, t: f"a share of {s:g} that becomes {t:g} times as fast", number)
    return "with 85 % in FP8, twice as fast there, the whole is 1.74 times as fast; and 90 % at no cost at all give 10"
