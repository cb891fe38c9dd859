"""Checks of the lesson "Integer, binary and sinusoidal positions"."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from llm_core.checks.core import Wrong, attempt, check, compare, random, tensor


@check
def position_bits(function) -> str:
    """function(positions [T], n) -> [T, n]: the n lowest bits, the lowest first."""
    for positions, n in ((torch.arange(16), 4), (torch.tensor([6, 0, 37, 255, 1000]), 6), (torch.tensor([5]), 3)):
        T = len(positions)
        got = tensor(function, positions, n, shape=(T, n), names="[T, n]", shape_hints={
            (n, T): "A row should be a position, a column a bit.",
            (T,): "That is one number for each position; n bits are wanted.",
            (T * n,): "The bits of all positions stand in one row; [T, n] is wanted."},
            hints={"must match the size": "positions[:, None] makes a column of them; then a row of bits fits beside."})
        powers = 2 ** torch.arange(n)
        right = torch.tensor([[int(bit) for bit in f"{p:064b}"[::-1][:n]] for p in positions.tolist()])
        compare(got, right, [
            ("the highest bit comes first; the lowest is wanted first", right.flip(1)),
            ("what is left after the division is a whole number; only its lowest bit is wanted: % 2",
             positions[:, None] // powers),
            ("is it the rest of a division by 2^i? Bit i is (p // 2^i) % 2", positions[:, None] % powers),
            ("is it divided by 2 i instead of 2^i? Each bit is twice as slow as the one before",
             positions[:, None] // (2 * torch.arange(n)).clamp(min=1) % 2),
            ("bits are counted from 0: bit 0 is p % 2", positions[:, None] // (2 * powers) % 2),
            ("0 has become -1; bits are 0 and 1 here", 2 * right - 1),
            ("the division leaves fractions; // rounds down", positions[:, None] / powers % 2),
        ])
    return "bit 0 changes at every step, bit i at every 2^i-th; larger positions keep their lowest bits"


def _table(positions: Tensor, D: int, base: float = 10_000.0, *, factor: float = 2, first: int = 0, sign: int = -1,
           order: tuple[str, str] = ("sin", "cos"), degrees: bool = False) -> Tensor:
    """The truth, or one that is wrong in one way: [T, D], pairs side by side."""
    exponents = sign * factor * torch.arange(D // 2, dtype=torch.float64) / D
    angles = (positions.double() + first)[:, None] * base**exponents
    if degrees:
        angles = angles.deg2rad()
    return torch.stack([getattr(angles, name)() for name in order], dim=-1).flatten(1)


@check
def sinusoidal_table(function) -> str:
    """function(positions [T], D, base) -> [T, D], sine and cosine side by side."""
    for positions, D, base in ((torch.arange(12), 8, 10_000.0), (torch.tensor([7, 0, 300]), 6, 500.0),
                               (torch.tensor([3]), 2, 10_000.0)):
        T = len(positions)
        got = tensor(function, positions, D, base, shape=(T, D), names="[T, D]", shape_hints={
            (T, D // 2): "That is one number for each pair; sine and cosine are wanted.",
            (T, 2 * D): "There are D / 2 pairs, so i goes from 0 to D / 2 - 1.",
            (T, D // 2, 2): "Pairs stand apart; flatten(1) puts them side by side.",
            (T, 2, D // 2): "Pairs stand apart; put the two in the last dimension, then flatten(1).",
            (D, T): "A row should be a position."},
            hints={"must match the size": "positions[:, None] makes a column of them; a row of speeds fits beside.",
                   "Integers to negative integer powers": "Use float(base), or a tensor of exponents that are "
                                                          "floating-point numbers."})

        def wrong(positions=positions, D=D, base=base, **how) -> Tensor:
            return _table(positions, D, base, **how)

        right = wrong()
        others = [
            ("sine and cosine are swapped: the sine comes first", wrong(order=("cos", "sin"))),
            ("the exponent is i / D; it is 2i / D, so that the last pair is almost base times as slow as the first",
             wrong(factor=1)),
            ("is the exponent 4i / D? In base^(-2i / D), i counts the pairs: 0, 1, 2 …, or 2i is 0, 2, 4 …",
             wrong(factor=4)),
            ("are later pairs faster? The exponent is negative: base^(-2i / D)", wrong(sign=1)),
            ("positions are counted from 0: `positions` holds them as they are", wrong(first=1)),
            ("are the angles taken as degrees? They are radians", wrong(degrees=True)),
            ("is base 10,000 always? It is given", wrong(base=10_000.0)),
            ("first all sines, then all cosines: here the two of a pair stand side by side",
             torch.cat([right[:, 0::2], right[:, 1::2]], dim=1)),
            ("where are the cosines? Each speed has both", wrong(order=("sin", "sin"))),
            ("where are the sines? Each speed has both", wrong(order=("cos", "cos"))),
            ("every number has a speed of its own here; sine and cosine of a pair share theirs", _unpaired(
                positions, D, base)),
            ("does every row stand for 0, 1, 2 …? `positions` may be any", wrong(positions=torch.arange(T))),
        ]
        compare(got, right, others)
    return "equal to an independent table for two bases; every row has the length √(D / 2)"


def _unpaired(positions: Tensor, D: int, base: float) -> Tensor:
    """sin at even numbers j and cos at odd ones, each with base^(-j / D)."""
    angles = positions.double()[:, None] * base ** (-torch.arange(D, dtype=torch.float64) / D)
    return torch.where(torch.arange(D) % 2 == 0, angles.sin(), angles.cos())


@check
def shift_matrix(function) -> str:
    """function(k, D) -> M [D, D] with M @ PE(p) = PE(p + k)."""
    for k, D in ((3, 8), (-2, 6), (0, 4), (50, 16)):
        got = tensor(function, k, D, shape=(D, D), names="[D, D]", shape_hints={
            (2, 2): "That is the block of one pair; every pair has its own.",
            (D // 2, 2, 2): "Those are the blocks; put them along the diagonal of one matrix.",
            (D // 2, D // 2): "Every pair has two numbers, so two rows and two columns."})
        truth = _blocks(k, D)
        compare(got, truth, [
            ("it moves backwards: M @ PE(p) is PE(p - k). Which of the two sines is negative?", truth.T),
            ("both sines have the same sign, so this is no rotation: one of them is negative", _blocks(k, D, lower=1)),
            ("both sines have the same sign, so this is no rotation: one of them is negative",
             _blocks(k, D, lower=-1, upper=-1)),
            ("all pairs turn by the same angle; pair i turns by k 10000^(-2i / D)", _blocks(k, D, factor=0)),
            ("the exponent is i / D; pair i turns by k 10000^(-2i / D)", _blocks(k, D, factor=1)),
            ("cosines and sines have changed places: for k = 0 the matrix must change nothing",
             _blocks(k, D, swapped=True)),
            ("are the sines missing? Without them nothing turns", _blocks(k, D, lower=0, upper=0)),
            ("are the pairs number i and number i + D / 2? Here they stand side by side", _halves(truth)),
            ("that changes nothing: where is k?", torch.eye(D)),
            ("is this a shift by 1? It should be by k", _blocks(1, D)),
        ])
        code = _table(torch.tensor([0, 1, 40]), D).float()
        if not torch.allclose(code @ got.T, _table(torch.tensor([0, 1, 40]) + k, D).float(), atol=1e-4):
            raise Wrong("M @ PE(p) is not PE(p + k) for p = 0, 1 and 40")
    return "it moves every position by k, forwards and backwards, and knows nothing of p"


def _blocks(k: float, D: int, *, upper: float = 1, lower: float = -1, factor: float = 2,
            swapped: bool = False) -> Tensor:
    angles = [k * 10_000.0 ** (-factor * i / D) for i in range(D // 2)]
    pairs = [(math.cos(a), math.sin(a)) for a in angles]
    if swapped:
        pairs = [(s, c) for c, s in pairs]
    return torch.block_diag(*[torch.tensor([[c, upper * s], [lower * s, c]]) for c, s in pairs])


def _halves(M: Tensor) -> Tensor:
    """The same turns, for a table with all sines first."""
    order = torch.cat([torch.arange(0, len(M), 2), torch.arange(1, len(M), 2)])
    return M[order][:, order]


@check
def score_parts(function) -> str:
    """function(x [T, D], p [T, D], W_q [D, d], W_k [D, d]) -> [4, T, T]."""
    T, D, d = 5, 6, 4
    x, p, W_q, W_k = random(T, D, seed=401), random(T, D, seed=402), random(D, d, seed=403), random(D, d, seed=404)
    turned = "A product of queries and keys is q @ k.T, [T, T]."
    got = tensor(function, x, p, W_q, W_k, shape=(4, T, T), names="[4, T, T]", shape_hints={
        (T, T): "That is their sum, or one of them; all four are wanted, torch.stack puts them on top of each other.",
        (T, T, 4): "Put the four in front: torch.stack(…, dim=0).",
        (4 * T, T): "torch.cat puts them below each other; torch.stack makes a new dimension.",
        (2, 2, T, T): "Nearly: flatten(0, 1) makes one dimension of the four.",
        (2, T, T): "Two kinds of queries times two kinds of keys make four."},
        hints={"cannot be multiplied": turned, "must match the size": turned})
    queries, keys = (x @ W_q, p @ W_q), (x @ W_k, p @ W_k)
    right = torch.stack([q @ k.T for q in queries for k in keys])
    root = math.sqrt(d)
    swapped = torch.stack([(a @ W_k) @ (b @ W_q).T for a in (x, p) for b in (x, p)])
    only_q = torch.stack([(a @ W_q) @ (b @ W_q).T for a in (x, p) for b in (x, p)])
    compare(got, right, [
        ("the two in the middle are swapped: word-position has the word in the *query*", right[[0, 2, 1, 3]]),
        ("the order is turned round: word-word comes first", right.flip(0)),
        ("rows and columns are swapped: row m is query m", right.transpose(1, 2)),
        ("are queries and keys swapped? W_q makes the queries", swapped),
        ("W_q is used for queries and for keys", only_q),
        ("the scores are scaled; no scale is asked for here", right / root),
        ("is the softmax applied? The four sum to the scores, before any softmax", right.softmax(-1)),
        ("is each of them the whole score? The words and the positions are to be kept apart",
         right.sum(0).expand(4, T, T)),
    ])
    return "the four sum to the scores, and only the last of them knows nothing but positions"


_D = 6


def _mix(x: Tensor, *, causal: bool = False) -> Tensor:
    scores = x @ random(_D, _D, seed=405) @ x.T / 2
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape).triu(1).bool(), -torch.inf)
    return scores.softmax(-1) @ x


def _placed(x: Tensor) -> Tensor:
    return x + _table(torch.arange(len(x)), x.shape[1]).float()


def _late(x: Tensor) -> Tensor:
    """Nothing is added to the first 32 tokens."""
    return _mix(x + (torch.arange(len(x)) >= 32).float()[:, None])


def _inside_pairs(x: Tensor) -> Tensor:
    """Mean of tokens 0 and 1, of 2 and 3 …: a swap within a pair does not show; a last one without partner stays."""
    even = len(x) // 2 * 2
    return torch.cat([x[:even].view(-1, 2, x.shape[1]).mean(1).repeat_interleave(2, 0), x[even:]])


_BLIND = [("attention without mask", _mix), ("a layer that works on each token alone", torch.tanh),
          ("the mean of all tokens for each", lambda x: x.mean(0, keepdim=True).expand_as(x)),
          ("a layer that returns what it gets", lambda x: x),
          ("attention without mask whose numbers are large", lambda x: 20 * _mix(x))]
_NOT_BLIND = [
    ("attention with positions added", lambda x: _mix(_placed(x)), ""),
    ("causal attention", lambda x: _mix(x, causal=True), "Are the outputs of all tokens compared?"),
    ("a layer in which each token sees the one before it", lambda x: x + x.roll(1, 0), "Is the shuffle a mere "
     "rotation of the text, or are there only two tokens?"),
    ("a layer that numbers the tokens", lambda x: x + torch.arange(len(x))[:, None], ""),
    ("a layer that turns the text round", lambda x: x.flip(0), "Is the shuffle a mere reversal?"),
    ("a layer that joins tokens in pairs", _inside_pairs, "A swap of two neighbours is not enough."),
    ("a layer whose positions begin to matter at token 32", _late, "Are only short texts tried?"),
    ("a layer in which only the last number of each token knows its position",
     lambda x: torch.cat([x[:, :-1], x[:, -1:] + torch.arange(len(x))[:, None] / 20], 1),
     "Are all numbers of a token compared?"),
]


@check
def order_blind(function) -> str:
    """function(layer, D) -> True if layer([T, D]) gives the same outputs, shuffled, for shuffled tokens."""
    for name, layer in _BLIND:
        if not _says(function, layer):
            raise Wrong(f"{name} is blind to order, and yours says it is not. Compare layer(x[shuffle]) with "
                        "layer(x)[shuffle], and allow for rounding")
    for name, layer, hint in _NOT_BLIND:
        if _says(function, layer):
            raise Wrong(f"{name} knows the order, and yours takes it for blind. {hint}".rstrip())
    return f"it tells {len(_BLIND)} blind layers from {len(_NOT_BLIND)} that know the order, such as causal attention"


def _says(function: Callable, layer: Callable) -> bool:
    answer = attempt(function, layer, _D)
    if isinstance(answer, Tensor) and answer.numel() == 1 and answer.dtype == torch.bool:
        answer = bool(answer)
    if not isinstance(answer, bool):
        raise Wrong(f"True or False is wanted, and your function returned a {type(answer).__name__}")
    return answer
