"""Checks of the lesson on self-attention: wrong answers get their own hint, and right ones may be written otherwise."""

import math

import torch
import torch.nn.functional as F

from tests.test_checks import verdict

ROOT = 2.0  # of the width of a query in the check of self_attention_by_hand


def attend(x, W_q, W_k, W_v, scale=1 / ROOT, dim=-1):
    return ((x @ W_q) @ (x @ W_k).T * scale).softmax(dim) @ (x @ W_v)


def total(shares):
    return torch.special.entr(shares).sum(-1)


def matrices(q, k, v, size=20.0):
    """W_q, W_k and W_v of one column each, from what name, verb, pronoun and number contribute."""
    return size * torch.tensor([q]).T, torch.tensor([k]).T, torch.tensor([v]).T


NAME, VERB, PRONOUN, NUMBER = torch.eye(4).tolist()

# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "stable_softmax": [
        (lambda s: s.exp() / s.exp().sum(-1, keepdim=True), "e to them is infinite"),
        (lambda s: (s - s.max()).exp() / (s - s.max()).exp().sum(-1, keepdim=True), "not the largest of all"),
        (lambda s: s.softmax(-2), "which dimension"),
        (lambda s: s.softmax(0), "which dimension"),
        (lambda s: s.flatten().softmax(0).view(s.shape), "each row on its own should"),
        (lambda s: (s - s.amax(-1, keepdim=True)).exp(), "where is the division"),
        (lambda s: s.exp(), "where is the division"),
        (lambda s: (s - s.amax(-1, keepdim=True)).exp() / (s - s.amax(-1, keepdim=True)).exp().amax(-1, keepdim=True),
         "where is the division"),
        (lambda s: s / s.sum(-1, keepdim=True), "First e is raised"),
        (lambda s: s.log_softmax(-1), "logarithm of the softmax"),
        (lambda s: 2**s / (2**s).sum(-1, keepdim=True), "It should be e"),
        (lambda s: s - s.max(dim=-1, keepdim=True), "Take .values"),
        (lambda s: s - s.max(-1).values, "keepdim=True"),
        (lambda s: s.amax(-1, keepdim=True), "one number a row"),
        (lambda s: s * s.softmax(-1), "numbers do not"),
        (lambda s: s.masked_fill(s.isinf(), 0).softmax(-1), "numbers do not"),
        (lambda s: (s * (s > -torch.inf)).softmax(-1), "NaN"),
        (lambda s: s.clamp(-50, 50).softmax(-1), "numbers do not"),
    ],
    "self_attention_by_hand": [
        (lambda *a: attend(*a, scale=1.0), "is the scale applied?"),
        (lambda *a: attend(*a, scale=1.0) / ROOT, "is the scale applied before the softmax?"),
        (lambda *a: attend(*a, scale=0.25), "divided by d?"),
        (lambda *a: attend(*a, scale=2.0), "multiplied by the root"),
        (lambda *a: attend(*a, scale=6**-0.5), "Not the width of x"),
        (lambda *a: attend(*a, scale=3**-0.5), "Not that of a value"),
        (lambda *a: attend(*a, scale=5**-0.5), "Not the number of tokens"),
        (lambda *a: attend(*a, dim=0), "which dimension"),
        (lambda *a: attend(*a, dim=0, scale=1.0), "and the scores are not scaled"),
        (lambda x, q, k, v: attend(x, k, q, v), "queries and keys swapped"),
        (lambda x, q, k, v: attend(x, q, q, v), "A query meets keys"),
        (lambda x, q, k, v: attend(x, k, k, v), "A query meets keys"),
        (lambda x, q, k, v: attend(x, torch.eye(6), torch.eye(6), v), "the tokens' own vectors compared"),
        (lambda x, q, k, v: attend(x, torch.eye(6), torch.eye(6), v, 6**-0.5), "the tokens' own vectors compared"),
        (lambda x, q, k, v: (x @ q) @ (x @ k).T / ROOT @ (x @ v), "where is the softmax"),
        (lambda x, q, k, v: x @ v, "who looks at whom"),
        (lambda x, q, k, v: ((x @ q) @ (x @ k).T / ROOT).flatten().softmax(0).view(5, 5) @ (x @ v), "each row on its"),
        (lambda x, q, k, v: F.scaled_dot_product_attention(x @ q, x @ k, x @ v, is_causal=True), "a causal mask?"),
        (lambda x, q, k, v: ((x @ q) @ (x @ k).T / ROOT).softmax(-1), "multiply the shares with the values"),
        (lambda x, q, k, v: ((x @ q) @ (x @ k).T / ROOT).softmax(-1) @ (x @ k), "made of values"),
        (lambda x, q, k, v: ((x @ q) @ (x @ k).T / ROOT).softmax(-1) @ x, "The values are: x @ W_v"),
        (lambda x, q, k, v: attend(x, q, k, v).T, "a row should be a token"),
        (lambda x, q, k, v: (x @ q.T), "so x @ W does it"),
        (lambda x, q, k, v: (x @ q) @ (x @ k), "k is turned"),
        (lambda x, q, k, v: attend(x, q, k, v, 0.5), "numbers do not"),  # another d: the second case sees it
    ],
    "tokens_looked_at": [
        (total, "the entropy itself"),
        (lambda s: -total(s), "this is minus the entropy"),
        (lambda s: (-total(s)).exp(), "is the minus missing"),
        (lambda s: (total(s) / math.log(2)).exp(), "to base 2, and the power"),
        (lambda s: 2**total(s), "power to base 2"),
        (lambda s: torch.special.entr(s).mean(-1).exp(), "averaged"),
        (lambda s: (-s.log().sum(-1)).exp(), "not multiplied with the share"),
        (lambda s: 1 / s.square().sum(-1), "another way to count"),
        (lambda s: 1 / s.amax(-1), "the largest share"),
        (lambda s: (-(s * s.log()).sum(-1)).exp(), "0 times minus infinity"),
        (lambda s: (-(s * (s + 1e-3).log()).sum(-1)).exp(), "numbers do not"),
        (lambda s: (-((s + 1e-7) * (s + 1e-7).log()).sum(-1)).exp() + (s == 0).sum(-1), "add nothing"),
        (torch.special.entr, "the sum over a row"),
        (lambda s: total(s)[..., None].exp(), "without keepdim"),
        (lambda s: torch.special.entr(s).sum(1).exp(), "the shares of one row"),
        (lambda s: torch.special.entr(s).sum().exp(), "one for each row"),
    ],
    "attention_flops": [
        (lambda T, D: 8 * T * D * D, "two numbers are needed"),
        (lambda T, D: (4 * T * T * D, 8 * T * D * D), "wrong way round"),
        (lambda T, D: (4 * T * D * D, 2 * T * T * D), "both are half"),
        (lambda T, D: (6 * T * D * D, 4 * T * T * D), "Is the output's matrix counted"),
        (lambda T, D: (2 * T * D * D, 4 * T * T * D), "That is one matrix"),
        (lambda T, D: (8 * D * D, 4 * T * T * D), "Each of the T tokens"),
        (lambda T, D: (8 * T * D * D, 2 * T * T * D), "Half is missing"),
        (lambda T, D: (8 * T * D * D, 2 * T * (T + 1) * D), "causal mask"),
        (lambda T, D: (8 * T * D * D, 4 * T * D * D), "T x T of them"),
        (lambda T, D: (8 * T * D * D, 4 * T * T), "a sum over D"),
        (lambda T, D: (8 * T * D * D / 3, 4 * T * T * D), "whole numbers"),
        (lambda T, D: (8 * T * D * D + 1, 4 * T * T * D), "should be 2,560, and you have 2,561"),
    ],
    "pronoun_finds_name": [
        (lambda: matrices(NAME, PRONOUN, NUMBER), "queries and keys swapped"),
        (lambda: matrices(PRONOUN, NAME, NUMBER, size=2.0), "too soft"),
        (lambda: matrices(PRONOUN, NAME, NUMBER, size=6.0), "too soft"),
        (lambda: matrices(PRONOUN, NAME, NAME), "hand"),
        (lambda: matrices(PRONOUN, NAME, [0, 0, 0, 2.0]), "W_v picks one"),
        (lambda: matrices(PRONOUN, PRONOUN, NUMBER), "look at pronouns"),
        (lambda: matrices(PRONOUN, VERB, NUMBER), "look at verbs"),
        (lambda: matrices(PRONOUN, NAME, NUMBER, size=-20.0), "a sign is wrong"),
        (lambda: matrices(NUMBER, NUMBER, NUMBER), "which is missing"),
        (lambda: matrices(PRONOUN, NAME, NUMBER)[:2], "three tensors"),
        (lambda: (torch.zeros(3, 1), torch.zeros(4, 1), torch.zeros(4, 1)), "a row for each of a token's 4 numbers"),
        (lambda: (torch.zeros(4, 2), torch.zeros(4, 1), torch.zeros(4, 1)), "equally wide"),
        (lambda: (torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(4, 2)), "a value is one number"),
        (lambda: matrices(PRONOUN, NAME, NUMBER, size=math.inf), "infinity"),
    ],
}


def wide(size=9.0):
    """Pronouns find the name in three ways at once, beside columns that do nothing."""
    W_q, W_k = torch.zeros(4, 9), torch.zeros(4, 9)
    W_q[2, :3], W_k[0, :3] = size, size
    return W_q, W_k, torch.tensor([[0.], [0.], [0.], [1.]])


RIGHT = {
    "stable_softmax": [
        lambda s: F.softmax(s, dim=-1),
        lambda s: s.log_softmax(-1).exp(),
        lambda s: s.double().softmax(-1),
    ],
    "self_attention_by_hand": [
        lambda x, q, k, v: F.scaled_dot_product_attention(x @ q, x @ k, x @ v),
        lambda x, q, k, v: ((x @ q / q.shape[1]**0.5) @ (x @ k).T).softmax(-1) @ x @ v,
        lambda *a: F.scaled_dot_product_attention(*(a[0].double() @ W.double() for W in a[1:])),
    ],
    "tokens_looked_at": [
        lambda s: total(s).exp(),
        lambda s: (-(s * s.clamp(min=1e-12).log()).sum(-1)).exp(),
        lambda s: 2**(-(s * (s + 1e-20).log2()).sum(-1)),
        lambda s: 1 / (s**s).prod(-1),
    ],
    "attention_flops": [
        lambda T, D: (8.0 * T * D**2, 4.0 * T**2 * D),
        lambda T, D: [4 * (2 * T * D * D), 2 * (2 * T * T * D)],
    ],
    "pronoun_finds_name": [
        wide,
        lambda: matrices(PRONOUN, NAME, NUMBER, size=12.0),
        lambda: [W.int() for W in matrices(PRONOUN, NAME, NUMBER)],
        lambda: matrices(PRONOUN, [1.0, -1.0, -1.0, 0.0], NUMBER),
    ],
}


def test_what_a_right_answer_is_told(capsys):
    assert "1,536 tokens" in verdict("attention_flops", lambda T, D: (8 * T * D * D, 4 * T * T * D), capsys)
    assert "100.0 %" in verdict("pronoun_finds_name", lambda: matrices(PRONOUN, NAME, NUMBER), capsys)
