"""Checks of the lesson on the cache: wrong answers get a hint, and right ones may be written otherwise."""

import math

import torch

from llm_core import accounting
from tests.test_checks import verdict


def without(prompt, new):
    return sum(range(prompt, prompt + new))


def with_cache(prompt, new):
    return prompt + new - 1 if new else 0


def cache(L, G, d, B, S, bits):
    return 2 * L * G * d * B * S * bits // 8


def attend(q, k, v, past, mask="bottom right", order=1, scale=0.5):
    """The solution, with one thing that may be wrong. order -1: new keys before old ones."""
    if past is not None:
        k, v = (torch.cat([old, new][::order], dim=1) for old, new in zip(past, (k, v)))
    T, S = q.shape[1], k.shape[1]
    shift = {"bottom right": S - T, "top left": 0, "none": S}[mask]
    hidden = ~torch.ones(T, S).tril(shift).bool()
    return (q @ k.mT * scale).masked_fill(hidden, -torch.inf).softmax(-1) @ v, (k, v)


def square_mask(q, k, v, past):
    """A mask of new by new tokens, against all keys."""
    k, v = (new if past is None else torch.cat([old, new], 1) for new, old in zip((k, v), past or (0, 0)))
    hidden = torch.ones(q.shape[1], q.shape[1]).triu(1).bool()
    return (q @ k.mT * 0.5).masked_fill(hidden, -torch.inf).softmax(-1) @ v, (k, v)


def sees_all_when_cached(q, k, v, past):
    return attend(q, k, v, past, mask="bottom right" if past is None else "none")


def past_alone(q, k, v, past):
    """A new token sees the past, and not itself; reading at once is right."""
    out, new = attend(q, k, v, past)
    return (out if past is None else (q @ past[0].mT * 0.5).softmax(-1) @ past[1]), new


def overwriting(q, k, v, past):
    """Writes behind what is kept, in the same list: right, until a past is used twice."""
    past = [] if past is None else past
    past.append((k, v))
    k, v = (torch.cat([pair[i] for pair in past], dim=1) for i in (0, 1))
    return attend(q, k, v, None)[0] if len(past) == 1 else attend(q, k, v, (k[:, :0], v[:, :0]))[0], past


def forgetting(q, k, v, past):
    return attend(q, k, v, None)


def users(config, memory, context, weight=2, of="total", least=0):
    left = memory - weight * getattr(accounting.count_parameters(config), of)
    return max(least, left // accounting.cache_bytes(config, 1, context))


def endings_scored(model, prompt, endings, collect=torch.sum, rows_of=torch.log_softmax, back=True, first=True,
                   last=False, room=None):
    held = model.new_cache(1, room or model.config.max_seq_len)
    start = model(torch.tensor([prompt]), held).logits[0, -1:]
    scores = []
    for ending in endings:
        rows, read = start, ending if last else ending[:-1]
        if read:
            rows = torch.cat([start, model(torch.tensor([read]), held).logits[0]])
            if back:
                held.truncate(len(prompt))
        chances = rows_of(rows, -1)[range(len(ending)), ending]
        scores.append(collect(chances if first else chances[1:]))
    return torch.stack(scores)


def without_cache(model, prompt, endings):
    out = []
    for ending in endings:
        rows = model(torch.tensor([prompt + ending])).logits[0].log_softmax(-1)[len(prompt) - 1:-1]
        out.append(rows[range(len(ending)), ending].sum())
    return torch.stack(out)


def prompt_each_time(model, prompt, endings):
    return torch.cat([endings_scored(model, prompt, [ending]) for ending in endings])


def next_row(model, prompt, endings):
    out = []
    for ending in endings:
        rows = model(torch.tensor([prompt + ending])).logits[0].log_softmax(-1)[len(prompt):]
        out.append(rows[range(len(ending)), ending].sum())
    return torch.stack(out)


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "tokens_read": [
        (lambda p, n: without(p, n), "two numbers"),
        (lambda p, n: (without(p, n) / 2 + 0.25, 1), "two whole numbers"),
        (lambda p, n: (with_cache(p, n), without(p, n)), "wrong way round"),
        (lambda p, n: (without(p, n + 1), with_cache(p, n)), "Is the last token read too"),
        (lambda p, n: (without(0, n), with_cache(p, n)), "Is the prompt forgotten"),
        (lambda p, n: (p * n, with_cache(p, n)), "grows with each step"),
        (lambda p, n: (without(p + 1, n), with_cache(p, n)), "one token more than the prompt"),
        (lambda p, n: (n * (p + n), with_cache(p, n)), "as it is by then"),
        (lambda p, n: (n * (p + n - 1), with_cache(p, n)), "as it is by then"),
        (lambda p, n: (with_cache(p, n), with_cache(p, n)), "That is how it is with a cache"),
        (lambda p, n: (without(p, n), p + n), "Is the last token read too"),
        (lambda p, n: (without(p, n), p + n if n else 0), "Is the last token read too"),
        (lambda p, n: (without(p, n), p + n - 1), "nothing need be read"),
        (lambda p, n: (without(p, n), n), "Who reads the prompt"),
        (lambda p, n: (without(p, n), max(n - 1, 0)), "Who reads the prompt"),
        (lambda p, n: (without(p, n), p * n), "not again at each step"),
        (lambda p, n: (without(p, n), with_cache(p, n) + 9), "should be 24, and you have 33"),
    ],
    "cache_bytes_by_hand": [
        (lambda *a: cache(*a) // 2, "a key and a value"),
        (lambda *a: cache(*a) // 2 * 3, "are queries kept"),
        (lambda *a: cache(*a) * 8, "those are bits"),
        (lambda L, G, d, B, S, bits: cache(L, G, d, B, S, 8), "those are numbers"),
        (lambda L, G, d, B, S, bits: cache(L, G, d, B, S, 16), "as 2 bytes"),
        (lambda L, G, d, B, S, bits: cache(L, G, d, B, S, 32), "as 4 bytes"),
        (lambda L, G, d, B, S, bits: cache(1, G, d, B, S, bits), "one layer"),
        (lambda L, G, d, B, S, bits: cache(L, G, d, 1, S, bits), "one text"),
        (lambda L, G, d, B, S, bits: cache(L, G, d, B, 1, bits), "for one token"),
        (lambda L, G, d, B, S, bits: cache(L, 1, d, B, S, bits), "that is one head"),
        (lambda L, G, d, B, S, bits: cache(L, G, 1, B, S, bits), "width of a head"),
        (lambda L, G, d, B, S, bits: cache(L, G, d, B, S * S, bits), "square of the tokens"),
        (lambda *a: cache(*a) + 7, "it should be 9,663,676,416, and you have 9,663,676,423"),
        (lambda *a: cache(*a) + 0.5, "a whole number of bytes"),
        (lambda *a: "9 GB", "a whole number of bytes"),
    ],
    "attend_with_past": [
        (lambda q, k, v, past: attend(q, k, v, past, mask="none"), "is the mask on"),
        (lambda q, k, v, past: attend(q, k, v, past, scale=1.0), "is the scale applied"),
        (lambda q, k, v, past: attend(q, k, v, past, mask="top left"), "starts at the top left"),
        (forgetting, "new tokens see only each other"),
        (sees_all_when_cached, "must be hidden"),
        (lambda q, k, v, past: attend(q, k, v, past, order=-1), "stand before the old ones"),
        (past_alone, "sees the past, and not itself"),
        (overwriting, "leave the old one as it was"),
        (lambda q, k, v, past: attend(q, k, v, past)[0], "two things are needed"),
        (lambda q, k, v, past: (attend(q, k, v, past)[0], None), "nothing is kept"),
        (lambda q, k, v, past: (attend(q, k, v, past)[0].mT, (k, v)), "one row for each *new* token"),
        (lambda q, k, v, past: ("out", (k, v)), "a str"),
        (lambda q, k, v, past: attend(q, k, v, (past[0], past[1])), "At the beginning past is None"),
        (square_mask, "the mask is [T, S]"),
        (lambda q, k, v, past: (attend(q, k, v, past)[0] + (past is not None), attend(q, k, v, past)[1]), "numbers do"),
    ],
    "users_that_fit": [
        (lambda *a: users(*a, least=-math.inf), "and not negative"),
        (lambda *a: users(*a, weight=0), "where are the weights"),
        (lambda *a: users(*a, weight=1), "2 bytes, not 1"),
        (lambda *a: users(*a, weight=4), "not 4"),
        (lambda c, m, t: max(0, -((2 * accounting.count_parameters(c).total - m) // accounting.cache_bytes(c, 1, t))),
         "rounded up"),
        (lambda *a: users(*a, of="active"), "only the active"),
        (lambda c, m, t: users(c, m, 1), "single token"),
        (lambda c, m, t: m // (2 * accounting.count_parameters(c).total + accounting.cache_bytes(c, 1, t)),
         "of their own"),
        (lambda c, m, t: (m - 2 * accounting.count_parameters(c).total) / accounting.cache_bytes(c, 1, t), "// rounds"),
        (lambda *a: users(*a) + 1, "it should be 59, and you have 60"),
    ],
    "score_endings": [
        (lambda *a: endings_scored(*a, collect=torch.mean), "is the mean taken"),
        (lambda *a: endings_scored(*a).exp(), "are the probabilities multiplied"),
        (lambda *a: endings_scored(*a, rows_of=torch.softmax), "are the probabilities summed"),
        (lambda *a: -endings_scored(*a), "the sign is turned"),
        (lambda *a: endings_scored(*a, first=False), "first token of each ending is missing"),
        (lambda *a: endings_scored(*a, collect=lambda chances: chances[0]), "only the first token"),
        (next_row, "it has just read"),
        (lambda *a: endings_scored(*a, rows_of=lambda rows, dim: rows), "log_softmax"),
        (lambda *a: endings_scored(*a, back=False), "goes back to the prompt"),
        (without_cache, "read more than once"),
        (prompt_each_time, "read more than once"),
        (lambda *a: endings_scored(*a, last=True), "need not be read"),
        (lambda *a: endings_scored(*a, room=8), "has the longest room"),
        (lambda model, prompt, endings: model(torch.tensor(prompt)), "ids must be [1, T]"),
        (lambda model, prompt, endings: [model(torch.tensor([e[:-1]]).long()) for e in endings], "needs no reading"),
        (lambda *a: endings_scored(*a).argmax(), "a number for each ending"),
        (lambda *a: endings_scored(*a).tolist()[:2], "a number for each ending"),
        (lambda *a: endings_scored(*a) * 2, "numbers do not"),
    ],
}


def token_by_token(q, k, v, past):
    """No mask at all: each new token is attended to on its own, in 64 bits."""
    keys, values = ([], []) if past is None else (list(past[0]), list(past[1]))
    rows = []
    for t in range(q.shape[1]):
        keys.append(k[:, t].double())
        values.append(v[:, t].double())
        shares = torch.stack([(q[:, t].double() * key).sum(-1) / 2 for key in keys], dim=-1).softmax(-1)
        rows.append(sum(shares[:, i:i + 1] * value for i, value in enumerate(values)))
    return torch.stack(rows, dim=1), {0: keys, 1: values}


def remember_everything(q, k, v, past):
    """The past in another form: queries and all, read again each time."""
    q, k, v = (new if past is None else torch.cat([old, new], 1) for new, old in zip((q, k, v), past or (0, 0, 0)))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return [out[:, (0 if past is None else past[0].shape[1]):], (q, k, v)]


RIGHT = {
    "tokens_read": [
        lambda p, n: [n * p + n * (n - 1) / 2, 0.0 if n == 0 else p + n - 1],
        lambda p, n: (torch.tensor(without(p, n)), with_cache(p, n)),
    ],
    "cache_bytes_by_hand": [
        lambda L, G, d, B, S, bits: 2 * L * G * d * B * S * (bits / 8),
        lambda L, G, d, B, S, bits: L * (G * d + G * d) * B * S * (bits // 8),
    ],
    "attend_with_past": [
        attend,
        token_by_token,
        remember_everything,
    ],
    "users_that_fit": [
        users,
        lambda *a: float(users(*a)),
    ],
    "score_endings": [
        endings_scored,
        lambda *a: endings_scored(*a).tolist(),
        lambda *a: endings_scored(*a).double(),
        lambda *a: list(endings_scored(*a, room=9)),
    ],
}


def test_what_a_right_answer_is_told(capsys):
    assert "599,500 readings without a cache and 1,099 with it" in verdict(
        "tokens_read", lambda p, n: (without(p, n), with_cache(p, n)), capsys)
    assert "with 12 tokens read; without a cache it would have been 31" in verdict(
        "score_endings", endings_scored, capsys)
