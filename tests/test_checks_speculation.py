"""Answers to the exercises of the lesson on speculative decoding."""

import torch


def run(guesses, says):
    kept = 0
    while kept < len(guesses) and guesses[kept] == says[kept]:
        kept += 1
    return kept


def added(guesses, says):
    return guesses[:run(guesses, says)] + [says[run(guesses, says)]]


def owed(p, q):
    left = (p - q).clamp(min=0)
    return p if left.sum() == 0 else left / left.sum()


def norm(t):
    return t / t.sum()


def quality(p, q, same=lambda t: t.mean(), stands=lambda p, q: torch.minimum(p, q).sum(-1).mean()):
    return same((p.argmax(-1) == q.argmax(-1)).float()), stands(p, q)


def best(alpha, c, tokens=lambda a, g: sum(a**i for i in range(g + 1)), cost=lambda g, c: 1 + g * c, least=0):
    return max(range(least, 21), key=lambda g: round(tokens(alpha, g) / cost(g, c), 12))


def first(p, q, instead):
    return torch.minimum(p, q) + (1 - torch.minimum(p, q).sum()) * instead


WRONG = {
    "tokens_of_pass": [
        (lambda g, s: g[:run(g, s)], "own token is missing"),
        (lambda g, s: g + [s[-1]], "unverified"),
        (lambda g, s: [a for a, b in zip(g, s) if a == b] + [s[run(g, s)]], "behind a wrong one kept"),
        (lambda g, s: list(s), "do not count"),
        (lambda g, s: added(g, s) if run(g, s) < len(g) else list(g), "for nothing"),
        (lambda g, s: g[:run(g, s) + 1] if run(g, s) < len(g) else g + s[-1:], "wrong guess itself"),
        (lambda g, s: g[:run(g, s)] + s[-1:], "*last* answer"),
        (lambda g, s: len(g), "a list of ids"),
    ],
    "replacement": [
        (lambda p, q: p, "p again"),
        (lambda p, q: p if torch.equal(p, q) else (p - q).clamp(min=0), "sum to 1"),
        (lambda p, q: owed(q, p), "other way round"),
        (lambda p, q: p - q, "below 0"),
        (lambda p, q: norm((p - q).abs()), "without its sign"),
        (lambda p, q: norm(torch.minimum(p, q)), "through the draft"),
        (lambda p, q: (p - q).clamp(min=0).softmax(-1), "softmax"),
        (lambda p, q: norm((p - q).clamp(min=0)), "nothing is owed"),
    ],
    "draft_quality": [
        (lambda p, q: quality(p, q)[::-1], "wrong way round"),
        (lambda p, q: quality(p, q, torch.sum), "not their share"),
        (lambda p, q: quality(p, q, stands=lambda p, q: torch.minimum(p, q).sum()), "sum over all places"),
        (lambda p, q: quality(p, q, stands=lambda p, q: (p * q).sum(-1).mean()), "product"),
        (lambda p, q: quality(p, q, stands=lambda p, q: 1 - torch.minimum(p, q).sum(-1).mean()), "*not* stand"),
        (lambda p, q: quality(p, q, stands=lambda p, q: torch.minimum(p, q).mean()), "over the vocabulary"),
        (lambda p, q: quality(p, q)[0], "two numbers"),
    ],
    "best_gamma": [
        (lambda a, c: best(a, c, least=1), "0 guesses"),
        (lambda a, c: best(a, c, cost=lambda g, c: 1), "left out"),
        (lambda a, c: best(a, c, lambda a, g: 1 + g * a), "1 + gamma alpha"),
        (lambda a, c: best(a, c, lambda a, g: sum(a**i for i in range(1, g + 1))), "own token"),
        (lambda a, c: best(a, c, lambda a, g: 1 + g * a**g), "*all* stand"),
        (lambda a, c: best(a, c, cost=lambda g, c: 1 + (g > 0) * c), "as much as all"),
        (lambda a, c: best(a, c) + 0.5, "whole number"),
    ],
    "comes_out_as": [
        (lambda p, q, r: torch.minimum(p, q), "after a rejection is missing"),
        (lambda p, q, r: torch.minimum(p, q) + r, "not weighed by the chance of a rejection"),
        (lambda p, q, r: torch.minimum(p, q) + torch.minimum(p, q).sum() * r, "*acceptance*"),
        (lambda p, q, r: q, "q comes out"),
        (lambda p, q, r: torch.minimum(p, q) + (q - torch.minimum(p, q)) * r, "does not bring x"),
        (lambda p, q, r: first(p, q, owed(p, q)), "that is p"),
        (lambda p, q, r: q * (p / q * q / q) + (1 - torch.minimum(p, q).sum()) * r, "no number"),
    ],
}
RIGHT = {
    "tokens_of_pass": [added, lambda g, s: tuple(added(g, s)), lambda g, s: torch.tensor(added(g, s))],
    "replacement": [owed, lambda p, q: owed(p.double(), q.double())],
    "draft_quality": [quality, lambda p, q: [float(value) for value in quality(p, q)]],
    "best_gamma": [best, lambda a, c: float(best(a, c))],
    "comes_out_as": [first, lambda p, q, r: torch.minimum(p, q) + (q - torch.minimum(p, q)).sum() * r],
}
