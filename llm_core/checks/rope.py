"""Checks of the lesson "Rotary positional encoding"."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from llm_core.checks.core import Wrong, attempt, check, compare, random, tensor
from llm_core.config import RopeConfig
from llm_core.positions import rope_table, rotate

_BACKWARDS = "is the turn the wrong way round? It is a cos - b sin, then a sin + b cos"
_OVERWRITTEN = ("does the second number use the first one's new value? Compute both from the old pair, and only "
                "then put them in its place")


def _mistakes(a: Tensor, b: Tensor, cos: Tensor, sin: Tensor, join: Callable) -> list[tuple[str, Tensor]]:
    """What goes wrong in turning pairs, however they are laid out. join: two halves of the result -> the result."""
    first, second = a * cos - b * sin, a * sin + b * cos
    return [
        (_BACKWARDS, join(a * cos + b * sin, b * cos - a * sin)),
        (_OVERWRITTEN, join(first, first * sin + b * cos)),
        ("are the two numbers swapped in the result? a' comes first", join(second, first)),
        ("are sine and cosine swapped?", join(a * sin - b * cos, a * cos + b * sin)),
        ("both numbers have a plus. One has a minus, or the pair would grow: a cos - b sin",
         join(a * cos + b * sin, second)),
        ("both numbers have a minus. The second has a plus: a sin + b cos", join(first, a * sin - b * cos)),
        ("both numbers have a minus. The second has a plus: a sin + b cos", join(first, b * cos - a * sin)),
        ("nothing is turned", join(a, b)),
        ("each number is multiplied by the cosine alone; the other number of its pair is missing",
         join(a * cos, b * cos)),
        ("only the first number of each pair is turned", join(first, b)),
        ("only the second number of each pair is turned", join(a, second)),
        ("is the cosine taken for one number and the sine for the other? Each needs both",
         join(a * cos, b * sin)),
    ]


@check
def turn_pairs(function) -> str:
    """function(pairs [..., 2], angles [...]) -> pairs turned, [..., 2]."""
    pairs, angles = random(4, 3, 2, seed=1), random(4, 3, seed=2) * 3
    got = tensor(function, pairs, angles, shape=(4, 3, 2), names="[..., 2]",
                 hints={"must match": "angles has one number for each pair: a = pairs[..., 0] and b = pairs[..., 1] "
                                      "have its shape."},
                 shape_hints={(2, 4, 3): "Put the two results side by side along the last dimension: dim=-1.",
                              (4, 6): "torch.cat joins the pairs of a row; torch.stack(…, dim=-1) keeps them apart.",
                              (4, 3): "Only one number of each pair came back; two are needed."})
    a, b = pairs.unbind(-1)

    def join(x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([x, y], dim=-1)

    degrees = torch.deg2rad(angles)
    truth = torch.view_as_real(torch.view_as_complex(pairs) * torch.polar(torch.ones_like(angles), angles))
    compare(got, truth, [
        *_mistakes(a, b, angles.cos(), angles.sin(), join),
        ("are the angles taken as degrees? They are in radians already",
         join(a * degrees.cos() - b * degrees.sin(), a * degrees.sin() + b * degrees.cos())),
    ])
    return "equal to multiplying by complex numbers, and every pair is as long as it was"


@check
def rope_angles(function) -> str:
    """function(cached, new, width, theta) -> angles of the new tokens, [new, width / 2]."""
    for cached, new, width, theta in ((5, 3, 8, 50.0), (0, 4, 6, 10_000.0), (1000, 1, 64, 500_000.0)):
        half = width // 2
        got = tensor(function, cached, new, width, theta, shape=(new, half), names="[new, width / 2]",
                     hints={"float' object cannot be interpreted": "width / 2 is a float; width // 2 is whole.",
                            "got float": "width / 2 is a float; width // 2 is whole."},
                     shape_hints={
                         (new, width): "That is an angle for each number; a pair shares one, so width / 2 are needed.",
                         (half, new): "A row for each token and a column for each pair, not the other way round.",
                         (cached + new, half): "Those are the cached tokens' angles too. Their keys are turned "
                                               "already; only the new tokens' are needed.",
                         (cached, half): "That is a row for each cached token; it is the new ones that turn.",
                         (half,): "That is one row; each new token needs its own.",
                         (new,): "That is one column; each pair has a speed of its own."})
        positions = torch.arange(cached, cached + new, dtype=torch.float64)
        pair = torch.arange(half, dtype=torch.float64)

        def table(at: Tensor, speed: Tensor) -> Tensor:
            return at[:, None] * speed

        speed = theta ** (-2 * pair / width)
        usual = 10_000.0 ** (-2 * pair / width)
        where = f"for {cached:,} cached and {new} new tokens: "
        compare(got, table(positions, speed), [
            (f"{where}do the new tokens start again at position 0? They stand behind the cached ones, from position "
             f"{cached:,} on", table(positions - cached, speed)),
            ("are positions counted from 1? The first token of all is position 0", table(positions + 1, speed)),
            ("are positions one too small? The cached tokens are 0 to cached - 1, so the first new one is `cached`",
             table(positions - 1, speed)),
            ("is theta fixed at 10,000 in your function? It is given", table(positions, usual)),
            ("is the 2 missing in the exponent? It is -2i / width", table(positions, theta ** (-pair / width))),
            ("is the exponent divided by width / 2 instead of width? It is -2i / width, and it stays above -1",
             table(positions, theta ** (-4 * pair / width))),
            ("does the exponent count pairs from 1? The first pair turns by 1 radian a token: i begins at 0",
             table(positions, theta ** (-2 * (pair + 1) / width))),
            ("is the exponent's minus missing? Each pair is slower than the one before", table(positions, 1 / speed)),
            ("are the pairs in the opposite order? The first is the fastest", table(positions, speed.flip(0))),
            ("is the angle multiplied by 2 pi? The speeds are radians a token already",
             table(positions, 2 * math.pi * speed)),
            ("are those the cosines? The angles themselves are wanted", table(positions, speed).cos()),
            ("are those the sines? The angles themselves are wanted", table(positions, speed).sin()),
            ("all tokens have the same angles: is the position multiplied in?", speed.expand(new, half)),
            ("are position and speed added? The angle is their product", positions[:, None] + speed),
        ])
    return "each new token goes on where the cache ends, for any width and base"


@check
def rotate_in_halves(function) -> str:
    """function(x [B, T, H, d], cos, sin [T, d / 2]) -> x turned, pairs being (i, i + d / 2)."""
    B, T, H, d = 2, 5, 3, 8
    x = random(B, T, H, d, seed=3)
    cos, sin = rope_table(RopeConfig(100.0), d, torch.arange(2, T + 2))
    lined = "The table is [T, d / 2] and x has heads behind T: cos[:, None] gives it a dimension for them."
    got = tensor(function, x, cos, sin, shape=(B, T, H, d), names="[B, T, H, d]",
                 hints={"must match": f"Do the shapes line up? {lined}"},
                 shape_hints={(B, T, H, d // 2): "Only one half came back; torch.cat puts both together.",
                              (B, T, H, d // 2, 2): "The pairs stand in a dimension of their own; here the first "
                                                    "numbers of all pairs come first: torch.cat(…, dim=-1).",
                              (2 * B, T, H, d // 2): "The halves are joined along the batch: dim=-1.",
                              (B, T, H, 2 * d): "That is twice as wide: x has two halves of d / 2 numbers each."})
    a, b = x.chunk(2, dim=-1)
    c, s = cos[:, None], sin[:, None]

    def join(one: Tensor, two: Tensor) -> Tensor:
        return torch.cat([one, two], dim=-1)

    even, odd = x[..., 0::2], x[..., 1::2]
    turned = (a * c - b * s, a * s + b * c)
    compare(got, rotate(x, cos, sin, "halves"), [
        *_mistakes(a, b, c, s, join),
        ("are neighbours taken as pairs? That is the layout \"interleaved\"; here number i goes with number i + d / 2",
         rotate(x, cos, sin, "interleaved")),
        ("the pairs are right, but the result is put together as neighbours. First all a', then all b': torch.cat",
         torch.stack(turned, dim=-1).flatten(-2)),
        ("neighbours are taken as pairs, and put together as halves. In this layout number i goes with i + d / 2",
         join(even * c - odd * s, even * s + odd * c)),
        ("do all tokens take the first row of the table? Each has its own", join(a * c[:1] - b * s[:1],
                                                                                a * s[:1] + b * c[:1])),
    ])
    return "equal to llm_core's, for all heads at once"


@check
def to_halves(function) -> str:
    """function(weight [n_heads * d, D], n_heads) -> the weight for the layout "halves"."""
    n_heads, d = 3, 8
    D = n_heads * d  # square, as in many models: a permutation of the columns has the right shape too
    weight = random(D, D, seed=4)
    got = tensor(function, weight, n_heads, shape=(D, D), names="[n_heads * d, D]",
                 hints={"view size is not compatible": "After the rows are moved, view no longer fits; reshape does.",
                        "invalid for input of size": "The rows are split: weight.view(n_heads, d, D), where d is rows "
                                                     "divided by n_heads."},
                 shape_hints={(n_heads, d, D): "The heads are still apart; reshape(n_heads * d, D) joins them.",
                              (D // 2, D): "Half of the rows is missing: the even ones come first, then the odd ones."})
    evens_first = torch.cat([torch.arange(0, d, 2), torch.arange(1, d, 2)])
    odds_first = evens_first.roll(d // 2)
    back = evens_first.argsort()
    whole = torch.cat([torch.arange(0, D, 2), torch.arange(1, D, 2)])

    def by_head(order: Tensor) -> Tensor:
        return (torch.arange(n_heads)[:, None] * d + order).flatten()

    compare(got, weight[by_head(evens_first)], [
        ("that is the weight as it was", weight),
        ("are all heads' even rows put first? Each head is converted on its own: its even rows, then its odd ones",
         weight[whole]),
        ("is that the other way round, from halves to interleaved? Row 1 must become row d / 2, and yours comes from "
         "there", weight[by_head(back)]),
        ("do the odd rows come first? A pair's first number belongs in the first half", weight[by_head(odds_first)]),
        ("are the columns permuted? Rows make a head's numbers; columns read the token's vector",
         weight[:, by_head(evens_first)]),
        ("are the columns permuted? And all heads' together; it is each head's rows",
         weight[:, whole]),
        ("is the result transposed?", weight[by_head(evens_first)].T),
        ("is only head 0 converted?", torch.cat([weight[:d][evens_first], weight[d:]])),
    ])
    q, k = (random(1, 6, D, seed=seed) for seed in (5, 6))
    cos, sin = rope_table(RopeConfig(100.0), d, torch.arange(6))

    def scores(w: Tensor, layout: str) -> Tensor:
        turned = [rotate((x @ w.T).view(1, 6, n_heads, d), cos, sin, layout).transpose(1, 2) for x in (q, k)]
        return turned[0] @ turned[1].transpose(-2, -1)

    off = (scores(got, "halves") - scores(weight, "interleaved")).abs().max().item()
    if off > 1e-3:
        raise Wrong("the rows are right, but the scores differ; is the weight changed in place?")
    return "with your weights the other layout gives the same scores at every distance"


@check
def knows_only_distance(function) -> str:
    """function(turn_query, turn_key, d) -> whether scores depend on the distance alone."""
    for turn_query, turn_key, right, sentence in _TURNS:
        got = attempt(function, turn_query, turn_key, 8)
        if isinstance(got, Tensor) and got.numel() == 1 and got.dtype == torch.bool:
            got = bool(got)
        if type(got).__name__ not in ("bool", "bool_"):
            raise Wrong(f"True or False is needed, and your function returned a {type(got).__name__}")
        if bool(got) != right:
            raise Wrong(sentence)
    return f"your test tells {sum(right for *_, right, _ in _TURNS)} right encodings from " \
           f"{sum(not right for *_, right, _ in _TURNS)} wrong ones"


def _turn(x: Tensor, angle: Tensor) -> Tensor:
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1).flatten(-2)


def _speeds(d: int) -> Tensor:
    return 100.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)


def _rope(x: Tensor, position: float) -> Tensor:
    return _turn(x, (position * _speeds(x.shape[-1])).to(x.dtype))


def _halves(x: Tensor, position: float) -> Tensor:
    d = x.shape[-1]
    order = torch.stack([torch.arange(d // 2), torch.arange(d // 2) + d // 2], dim=-1).flatten()
    return _rope(x[..., order], position)


def _added(x: Tensor, position: float) -> Tensor:
    angle = (position * _speeds(x.shape[-1])).to(x.dtype)
    return x + torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def _slowest_backwards(x: Tensor, position: float) -> Tensor:
    signs = torch.ones(x.shape[-1] // 2, dtype=torch.float64)
    signs[-1] = -1
    return _turn(x, (position * signs * _speeds(x.shape[-1])).to(x.dtype))


def _squared(x: Tensor, position: float) -> Tensor:
    return _turn(x, (0.01 * position**2 * _speeds(x.shape[-1])).to(x.dtype))


def _kept(x: Tensor, position: float) -> Tensor:
    return x


_TRUE = ("your function says False of a true rotary encoding{}. Is the comparison exact? Numbers are rounded, so "
         "compare with torch.allclose and atol=1e-2. And both positions must be moved by the same")
# A query's turn, a key's turn, whether scores depend on the distance alone, and what to say to a wrong answer.
_TURNS = [
    (_rope, _rope, True, _TRUE.format("")),
    (_halves, _halves, True, _TRUE.format(", one in the layout halves")),
    (_rope, lambda k, n: _rope(k, n + 1), True,
     "your function says False where all keys are counted from 1 and all queries from 0. That is odd, but a shift of "
     "both still changes nothing: only compare moved with unmoved"),
    (_rope, lambda k, n: _rope(k, -n), False,
     "your function says True where keys are turned backwards: the score depends on m + n. Move both positions by the "
     "same, and compare"),
    (_added, _added, False, "your function says True where positions are added instead of turned"),
    (_rope, _kept, False,
     "your function says True where only queries are turned: move both positions, and look at scores"),
    (_rope, _slowest_backwards, False,
     "your function says True where one pair of the key, the slowest, is turned backwards. Are q and k random in all d "
     "numbers, and are some of the shifts large?"),
    (_squared, _squared, False,
     "your function says True where angles grow with the square of the position. At equal positions that is not seen: "
     "try m other than n"),
]
