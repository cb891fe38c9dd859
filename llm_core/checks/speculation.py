"""Checks of the lesson "Speculative decoding"."""

from __future__ import annotations

import torch
from torch import Tensor

from llm_core.acceptance import expected_tokens, overlap
from llm_core.checks.cases import judge, number, numbers, whole_numbers
from llm_core.checks.core import Wrong, attempt, check, compare, random, tensor


@check
def tokens_of_pass(function) -> str:
    """function(guesses, says) -> the tokens that a greedy pass adds."""
    cases = (([5, 6, 7], [5, 6, 9, 4]), ([5, 6], [5, 6, 8]), ([1, 2, 3], [4, 2, 3, 9]), ([], [7]), ([3, 3], [3, 4, 3]))

    def kept(guesses, says):
        return next((i for i, guess in enumerate(guesses) if guess != says[i]), len(guesses))

    judge(function, cases, lambda g, s: g[:kept(g, s)] + [s[kept(g, s)]], [
        ("the model's own token is missing: each pass adds one, also when no guess stands",
         lambda g, s: g[:kept(g, s)]),
        ("are all guesses taken, unverified? Then the draft writes", lambda g, s: g + [s[-1]]),
        ("are right guesses behind a wrong one kept? They were made behind a token that is not there",
         lambda g, s: [a for a, b in zip(g, s) if a == b] + [s[kept(g, s)]]),
        ("the model's answers behind a wrong guess do not count: they were given behind it", lambda g, s: list(s)),
        ("behind the last guess stands one more token for nothing, if all stand",
         lambda g, s: g[:kept(g, s)] + ([s[kept(g, s)]] if kept(g, s) < len(g) else [])),
        ("is the wrong guess itself kept? The model's token takes its place",
         lambda g, s: g[:kept(g, s) + 1] if kept(g, s) < len(g) else g + [s[-1]]),
        ("is the *last* answer taken? The one at the place of the first wrong guess is the model's own",
         lambda g, s: g[:kept(g, s)] + [s[-1]]),
    ], whole_numbers)
    return "at least one token a pass, and n + 1 if all guesses stand"


def _some(seed: int, n: int = 1, v: int = 6) -> tuple[Tensor, Tensor]:
    p, q = random(2, n, v, seed=seed).mul(2).softmax(-1)
    q[:, 1] = 0  # a token that the draft never proposes
    return p, q / q.sum(-1, keepdim=True)


def _to_one(t: Tensor) -> Tensor:
    return t / t.sum()


@check
def replacement(function) -> str:
    """function(p [V], q [V]) -> what to draw from after a rejection [V]."""
    for seed in (721, 722, None):
        p, q = (t[0] for t in _some(seed or 723))
        q = p.clone() if seed is None else q
        owed = (p - q).clamp(min=0)
        truth = p if seed is None else owed / owed.sum()
        got = tensor(function, p, q, shape=(len(p),), names="[V]")
        if seed is None and got.isnan().any():
            raise Wrong("if p equals q nothing is owed, and the sum is 0: return p then")
        compare(got, truth, [
            ("that is p again: what the draft has delivered already would come too often", p),
            ("it should sum to 1: divide by the sum", owed),
            ("is it the other way round? Owed is what p has beyond q", _to_one((q - p).clamp(min=0))),
            ("differences below 0 are not owed: clamp them", p - q),
            ("is the amount taken without its sign? Tokens with q > p are owed nothing", _to_one((p - q).abs())),
            ("that is what comes through the draft; owed is the rest of p", _to_one(torch.minimum(p, q))),
            ("is a softmax taken? Owed is a difference already; divide by its sum", owed.softmax(-1)),
        ])
    return "so each token comes with min(p, q) + (p - q) where that is above 0: p"


@check
def draft_quality(function) -> str:
    """function(p [N, V], q [N, V]) -> share of equal likeliest tokens, mean overlap."""
    for seed, n in ((731, 40), (732, 7)):
        p, q = _some(seed, n, 4)
        result = attempt(function, p, q)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise Wrong("two numbers are needed: return same, overlap")
        got, truth = [number(value) for value in result], overlap(p, q)
        right = truth.greedy, truth.expected

        def near(a: float, b: float) -> bool:
            return abs(a - b) < 1e-5

        if near(got[0], right[1]) and near(got[1], right[0]):
            raise Wrong("the two are the wrong way round: likeliest tokens first")
        if not near(got[0], right[0]):
            why = "that is a number of places, not their share" if near(got[0], n * right[0]) else ""
            raise Wrong(f"the likeliest tokens agree in {right[0]:.4g} of the places, and you have {got[0]:.4g}. "
                        f"{why}".rstrip())
        if near(got[1], right[1]):
            continue
        for sentence, wrong in (
            ("that is the sum over all places; the mean is wanted", n * right[1]),
            ("is it the product? Two draws that agree are something else than a guess that stands",
             (p * q).sum(-1).mean()),
            ("that is what does *not* stand", 1 - right[1]),
            ("is it p / q, clamped, without weighing by q? A guess x is made with probability q(x)",
             (p / q).clamp(max=1).nan_to_num().mean()),
            ("is the mean also taken over the vocabulary? Add up over tokens, then take the mean over places",
             torch.minimum(p, q).mean()),
            ("that is the chance for the draft's likeliest token alone; guesses are drawn",
             (p / q).clamp(max=1).gather(1, q.argmax(-1, keepdim=True)).mean()),
        ):
            if near(got[1], float(wrong)):
                raise Wrong(sentence)
        raise Wrong(f"a drawn guess stands with {right[1]:.4g} on average, and you have {got[1]:.4g}")
    return "as llm_core measures it: 78.5 % and 83.8 % for deepseek-mini's module, 35.6 % and 46.6 % for a table"


@check
def best_gamma(function) -> str:
    """function(alpha, c) -> the number of guesses, 0 to 20, with the largest speed-up."""
    cases = ((0.8, 0.05), (0.67, 0.3), (0.3, 0.5), (0.95, 0.01), (0.5, 0.0), (0.3, 0.35))

    def best(tokens, cost=lambda g, c: 1 + g * c, least=0):
        return lambda alpha, c: max(range(least, 21), key=lambda g: round(tokens(alpha, g) / cost(g, c), 12))

    numbers(function, cases, best(expected_tokens), [
        ("0 guesses are allowed: if none pays, write plainly", best(expected_tokens, least=1)),
        ("are costs left out? Each guess costs c", best(expected_tokens, lambda g, c: 1)),
        ("does each pass bring 1 + gamma alpha? Guesses behind a wrong one do not count", best(lambda a, g: 1 + g * a)),
        ("is the model's own token missing? A pass brings 1 + alpha + …", best(
            lambda a, g: expected_tokens(a, g) - 1)),
        ("that is the chance that *all* stand; shorter runs count too", best(lambda a, g: 1 + g * a**g)),
        ("does one guess cost as much as all? The cost is 1 + gamma c",
         best(expected_tokens, lambda g, c: 1 + (g > 0) * c)),
        ("is the pass itself forgotten in the cost?", best(expected_tokens, lambda g, c: g * c + 1e-9)),
    ], lambda alpha, c: f"alpha {alpha:g} and c {c:g}")
    return "5 guesses at alpha 0.8 and c 0.05; none at all at alpha 0.3 and c 0.5"


@check
def comes_out_as(function) -> str:
    """function(p [V], q [V], instead [V]) -> the distribution of the first token."""
    for seed in (753, 752, 751):
        p, q = (t[0] for t in _some(seed))
        owed = (p - q).clamp(min=0)
        instead = (owed / owed.sum(), p, random(6, seed=seed).softmax(-1))[seed - 751]
        accepted = torch.minimum(p, q)
        got = tensor(function, p, q, instead, shape=(6,), names="[V]")
        compare(got, accepted + (1 - accepted.sum()) * instead, [
            ("that is p. It comes out so only with the right replacement; use the `instead` that you are given", p),
            ("what happens after a rejection is missing", accepted),
            ("is `instead` not weighed by the chance of a rejection?", accepted + instead),
            ("that is weighed by the chance of *acceptance*", accepted + accepted.sum() * instead),
            ("is the chance of acceptance not weighed by q? A guess x is made with probability q(x)",
             (p / q).clamp(max=1).nan_to_num(1.0) + (1 - accepted.sum()) * instead),
            ("is every guess taken? Then q comes out", q),
            ("a rejection of x does not bring x: after any rejection the token is drawn from `instead`",
             accepted + (q - accepted) * instead),
        ], nan="Where q is 0 nothing is proposed, and p / q is no number: min(p, q) needs no division.")
    return "with what is owed it is p exactly; drawn from p afresh it leans to what the draft likes"
