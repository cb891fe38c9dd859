"""The trained models behind the sliders: which point lies where, which trained ones are near, and what a step changed.

The sliders move in finer steps than models were trained. Parameters and cache are exact everywhere, since they come
from the config; text and quality exist at the trained points alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llm_core import accounting, cache_layout, presets
from llm_core.config import ModelConfig
from llm_core.validation import one_of, whole

WIDTH_STEP = 8
WIDTHS = tuple(range(min(presets.GRID_WIDTHS), max(presets.GRID_WIDTHS) + 1, WIDTH_STEP))  # what the slider offers
LAYERS = tuple(range(min(presets.GRID_LAYERS), max(presets.GRID_LAYERS) + 1))
LUCK = 0.05  # bits per byte: with one seed each, a smaller difference says nothing about which model is better


@dataclass(frozen=True)
class Point:
    """A place on the sliders, trained or not. ValueError, with the nearest places, if the sliders do not stop there."""

    width: int
    layers: int
    attention: str

    def __post_init__(self):
        one_of("attention", self.attention, presets.GRID_ATTENTIONS)
        for name, value, allowed in (("width", self.width, WIDTHS), ("layers", self.layers, LAYERS)):
            whole(name, value)
            if value not in allowed:
                near = sorted(sorted(allowed, key=lambda a, value=value: abs(a - value))[:2])
                raise ValueError(f"{name} cannot be {value}; it goes from {allowed[0]} to {allowed[-1]} in steps of "
                                 f"{allowed[1] - allowed[0]}, nearest: {', '.join(map(str, near))}")

    @property
    def trained(self) -> bool:
        return self.width in presets.GRID_WIDTHS and self.layers in presets.GRID_LAYERS

    @property
    def name(self) -> str:
        """The name of the preset, and of the trained model if there is one."""
        return presets.grid_name(self.width, self.layers, self.attention)

    @property
    def config(self) -> ModelConfig:
        return presets.tiny(self.width, self.layers, self.attention)

    def __str__(self) -> str:
        return f"{self.attention}, width {self.width}, {_layers(self.layers)}"


def trained_points() -> list[Point]:
    """Every point at which a model was trained, in the order of presets.grid_names()."""
    return [Point(width, layers, kind) for kind in presets.GRID_ATTENTIONS
            for width in presets.GRID_WIDTHS for layers in presets.GRID_LAYERS]


def nearest(point: Point) -> list[Point]:
    """The trained points around this one, nearest first; the point itself, alone, where it is trained.

    They keep its attention. Of width and of layers they take the trained values next to it on both sides, so there are
    at most four. Near is meant in factors: from 48, a width of 96 is as far as one of 24.
    """
    around = [Point(width, layers, point.attention) for width in _both_sides(point.width, presets.GRID_WIDTHS)
              for layers in _both_sides(point.layers, presets.GRID_LAYERS)]
    return sorted(around, key=lambda other: _distance(point, other))


def not_trained(point: Point) -> str:
    """The sentence for a point between the trained ones."""
    near = " · ".join(map(str, nearest(point)))
    return (f"{point} was not trained, so there is no text and no quality to show; parameters and cache are exact all "
            f"the same. Nearest are: {near}.")


def cached_numbers(point: Point) -> int:
    """Numbers that one token leaves in the cache of one layer."""
    return cache_layout.elements_per_token(point.config) // point.layers


def compare(before: Point, after: Point, bits_before: float | None = None, bits_after: float | None = None) -> str:
    """What a step from one point to another changed, and why. Bits per byte are of held-out text; None where unknown.

    A difference in quality below LUCK is called what it may be: luck, since each model was trained once.
    """
    if before == after:
        keeps = f"This is {after}, which keeps {_numbers(cached_numbers(after))} a token and layer."
        return f"{keeps} {_quality(after, after, None, bits_after)}".strip()
    text = [*_why(before, after), _cost(before, after), _quality(before, after, bits_before, bits_after)]
    return " ".join(sentence for sentence in text if sentence)


def _why(before: Point, after: Point) -> list[str]:
    """A sentence for each slider that moved: what it does to the cache or to the weights."""
    out = []
    if before.attention != after.attention or before.width != after.width:
        old, new = cached_numbers(before), cached_numbers(after)
        if before.attention != after.attention and before.width == after.width:
            out.append(f"{after.attention} keeps {_numbers(new)} a token and layer where {before.attention} keeps "
                       f"{old:,}: {_KEPT[after.attention]}.")
        elif before.attention == after.attention:
            out.append(f"At width {after.width} {after.attention} keeps {_numbers(new)} a token and layer, at width "
                       f"{before.width} it kept {old:,}, since {_WIDER[after.attention]}.")
        else:
            out.append(f"{after.attention} at width {after.width} keeps {_numbers(new)} a token and layer where "
                       f"{before.attention} at width {before.width} keeps {old:,}: {_KEPT[after.attention]}.")
    if before.layers != after.layers:
        out.append(f"{_layers(after.layers)} instead of {before.layers}: each layer has its own weights and cache.")
    return out


_KEPT = {
    "MHA": "a key and a value for each of its 4 heads",
    "GQA": "a key and a value for 2 groups of heads, not for each of the 4 heads",
    "MLA": "one latent for all heads together and one small rope key, from which keys and values are made again",
}
_WIDER = {
    "MHA": "the keys and values of its heads together are as wide as the model",
    "GQA": "the keys and values of its groups grow with the model's width",
    "MLA": "the latent is half as wide as the model, while the rope key stays at 8",
}


def _cost(before: Point, after: Point) -> str:
    old, new = (accounting.cache_bytes_per_token(p.config) for p in (before, after))
    old_n, new_n = (accounting.count_parameters(p.config).total for p in (before, after))
    cache = (f"the cache stays at {new:,} bytes a token" if old == new
             else f"the cache goes from {old:,} to {new:,} bytes a token")
    return f"In all, {cache}, and the parameters go from {old_n:,} to {new_n:,}."


def _quality(before: Point, after: Point, old: float | None, new: float | None) -> str:
    if not after.trained or new is None:
        return ""
    if not before.trained or old is None:
        return f"Held-out text takes {new:.2f} bits per byte."
    start = f"Held-out text takes {new:.2f} bits per byte against {old:.2f}"
    difference = round(abs(new - old), 4)  # cards have four digits; without rounding 2.35 - 2.30 is a little off 0.05
    if difference < LUCK:
        return f"{start}: one seed each, so a difference this small may be luck."
    better = "better" if new < old else "worse"
    return f"{start}: {better} by {difference:.2f}, more than the few hundredths that another seed tends to change."


def _both_sides(value: int, trained: tuple[int, ...]) -> list[int]:
    below, above = [n for n in trained if n <= value], [n for n in trained if n >= value]
    return sorted({*below[-1:], *above[:1]})


def _distance(a: Point, b: Point) -> float:
    return abs(math.log(a.width / b.width)) + abs(math.log(a.layers / b.layers))


def _layers(n: int) -> str:
    return f"{n} layer" + ("" if n == 1 else "s")


def _numbers(n: int) -> str:
    return f"{n:,} number" + ("" if n == 1 else "s")
