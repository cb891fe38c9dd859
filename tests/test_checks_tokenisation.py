"""Known wrong answers to the exercises of the lesson "Tokenisation", and right ones that look different."""

import codecs
from collections import Counter
from itertools import pairwise

import torch

from llm_core import checks
from llm_core.checks import tokenisation as own
from tests.test_checks import verdict

NAMES = [name for name, home in checks._HOME.items() if home == "tokenisation"]


def pairs(words, of=pairwise, by=None):
    counts = Counter()
    for ids, times in words.items():
        for pair in of(ids):
            counts[pair] += by or times
    return counts


def joined(ids, pair, new, skip=2, last=True):
    out, i = [], 0
    while i < len(ids) - (not last):
        found = tuple(ids[i:i + 2]) == pair
        out.append(new if found else ids[i])
        i += skip if found else 1
    return out


def joined_at_end(ids, pair, new):  # another right way: look at what was written last
    out = []
    for id in ids:
        if out and (out[-1], id) == pair:
            out[-1] = new
        else:
            out.append(id)
    return out


def first_only(ids, pair, new):
    i = next((i for i in range(len(ids)) if tuple(ids[i:i + 2]) == pair), None)
    return ids if i is None else [*ids[:i], new, *ids[i + 2:]]


def overlapping(ids, pair, new):
    return [new if tuple(ids[i:i + 2]) == pair else ids[i] for i in range(len(ids) - 1)]


def merged(word, ranks, key=None, pick=min, rounds=None):
    parts = [word[i:i + 1] for i in range(len(word))]
    while True:
        at = [i for i in range(len(parts) - 1) if parts[i] + parts[i + 1] in ranks]
        if not at or rounds == 0:
            return [ranks[part] for part in parts]
        i = pick(at, key=key or (lambda i: ranks[parts[i] + parts[i + 1]]))
        parts[i:i + 2] = [parts[i] + parts[i + 1]]
        rounds = rounds and rounds - 1


def merged_everywhere(word, ranks):  # another right way: all places of the earliest merge in one round
    parts = [bytes([byte]) for byte in word]
    while known := [ranks[a + b] for a, b in pairwise(parts) if a + b in ranks]:
        out = []
        for part in parts:
            if out and ranks.get(out[-1] + part) == min(known):
                out[-1] += part
            else:
                out.append(part)
        parts = out
    return torch.tensor([ranks[part] for part in parts], dtype=torch.long)


def longest(word, ranks):
    ids = []
    while word:
        size = next(n for n in range(len(word), 0, -1) if word[:n] in ranks)
        ids, word = [*ids, ranks[word[:size]]], word[size:]
    return ids


def written(tokens):
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(token) for token in tokens]


def waits(tokens):
    out, pending = [], b""
    for token in tokens:
        pending += token
        try:
            out.append(pending.decode())
            pending = b""
        except UnicodeDecodeError:
            out.append("")
    return out


def chat(messages, words, encode=None, between="\n", after="\n", clean=str, marks=(1, 1)):
    ids = []
    for role, text in messages:
        ids += [words.special["<|im_start|>"]] * marks[0]
        ids += (encode or words.encode)(role + between + clean(text))
        ids += [words.special["<|im_end|>"]] * marks[1] + words.encode(after)
    return ids


def as_string(messages):
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in messages)


def apart(messages, words):
    special, encode = words.special, words.encode
    return [id for role, text in messages for id in (
        special["<|im_start|>"], *encode(role), *encode("\n"), *encode(text), special["<|im_end|>"], *encode("\n"))]


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "token_pairs": [
        (lambda w: pairs(w, by=1), "brings each of its pairs 5 times"),
        (lambda w: pairs(w, lambda ids: set(pairwise(ids))), "counted once a word"),
        (lambda w: pairs(w, lambda ids: set(pairwise(ids)), by=1), "And how often does each word occur"),
        (lambda w: pairs(w, lambda ids: pairwise(ids[:-1])), "last pair"),
        (lambda w: pairs(w, lambda ids: pairwise(ids[1:])), "first pair"),
        (lambda w: pairs(w, lambda ids: zip(ids[::2], ids[1::2])), "Each id but the last"),
        (lambda w: pairs(w, lambda ids: map(tuple, map(sorted, pairwise(ids)))), "is the order lost"),
        (lambda w: pairs(w, lambda ids: pairwise(ids[::-1])), "turned round"),
        (lambda w: Counter(pairwise([id for ids, n in w.items() for id in ids * n])), "span two words?"),
        (lambda w: Counter(pairwise([id for ids in w for id in ids])), "span two words? And how often"),
        (lambda w: {p: n for ids, n in w.items() for p in pairwise(ids)}, "overwritten"),
        (lambda w: pairs(w, lambda ids: [(7, 7)] if ids == (7, 7, 7) else pairwise(ids)), "stands twice: at"),
        (lambda w: pairs(w).most_common(), "most_common"),
        (lambda w: pairs(w, lambda ids: ids), "should be pairs of ids"),
        (lambda w: {p: str(n) for p, n in pairs(w).items()}, "should be numbers"),
        (lambda w: {p: n + 1 for p, n in pairs(w).items()}, "it should be"),
        (lambda w: "text", "a dict is needed"),
    ],
    "join_pair": [
        (lambda ids, pair, new: ids, "nothing was joined"),
        (first_only, "only the first occurrence"),
        (lambda *a: joined(*a, skip=1), "step by 2"),
        (lambda *a: joined(*a, skip=3), "not by 3"),
        (lambda *a: joined(*a, last=False), "is the last id lost"),
        (lambda ids, pair, new: joined(ids[::-1], pair[::-1], new)[::-1], "from left to right"),
        (lambda ids, pair, new: own._either_order(ids, pair, new), "order of the pair lost"),
        (lambda ids, pair, new: [id for id in joined(ids, pair, None) if id is not None], "nothing was put in"),
        (lambda ids, pair, new: [new if ids[i] == pair[0] and ids[i + 1] == pair[1] else ids[i]
                                 for i in range(len(ids))], "run past the last id"),
        (overlapping, "it should be"),
        (lambda ids, pair, new: "9 3 9", "a list of ids is needed"),
        (lambda ids, pair, new: [float(id) for id in joined(ids, pair, new)], "whole numbers, and yours holds a float"),
        (lambda ids, pair, new: [joined(ids, pair, new)], "+= would add"),
    ],
    "encode_word": [
        (lambda w, r: merged(w, r, key=lambda i: i), "leftmost"),
        (lambda w, r: merged(w, r, key=lambda i: i, pick=max), "rightmost"),
        (lambda w, r: merged(w, r, pick=max), "largest rank"),
        (lambda w, r: merged(w, r, pick=lambda at, key: min(at[::-1], key=key)), "the left one goes first"),
        (longest, "longest entry taken that fits? That"),
        (lambda w, r: own._longest(w, r, backwards=True), "from the end"),
        (lambda w, r: merged(w, r, rounds=1), "only one pair was joined"),
        (lambda w, r: [r[bytes([byte])] for byte in w], "single bytes"),
        (lambda w, r: [r[w]], "not in ranks was looked up"),
        (lambda w, r: [w[i:i + 1] for i in range(len(w))], "look each up in ranks"),
        (lambda w, r: [r[w[0] + w[1:2]]], "word[i] is a number"),
        (lambda w, r: [min(())], "the word is done"),
        (lambda w, r: merged(w, r)[::-1], "it should be"),
    ],
    "show_as_written": [
        (lambda tokens: [token.decode(errors="replace") for token in tokens], "each token decoded alone"),
        (lambda tokens: [token.decode(errors="ignore") for token in tokens], "errors='ignore'"),
        (lambda tokens: [token.decode() for token in tokens], "keep the bytes that are not whole yet"),
        (lambda tokens: ["".join(written(tokens)[:i + 1]) for i in range(len(tokens))], "Only what is new"),
        (waits, "only the rest waits"),
        (lambda tokens: [piece for piece in written(tokens) if piece], "as many strings as tokens"),
        (lambda tokens: [token.decode("latin-1") for token in tokens], "Latin-1"),
        (lambda tokens: [""] * (len(tokens) - 1) + [b"".join(tokens).decode()] if tokens else [], "shown at the end"),
        (lambda tokens: b"".join(tokens).decode(), "one string"),
        (lambda tokens: list(tokens), "should hold strings"),
        (lambda tokens: 5, "a list of strings"),
        (lambda tokens: [piece.upper() for piece in written(tokens)], "it should be"),
    ],
    "chat_ids": [
        (lambda m, w: w.encode(as_string(m)), "encoded as text"),
        (lambda m, w: own._trusting(as_string(m)), "what a user typed became a control signal: the user ends"),
        (lambda m, w: chat(m, w, encode=own._trusting), "what a user typed became a control signal"),
        (lambda m, w: chat(m, w, clean=lambda t: t.replace("<|im_end|>", "").replace("<|im_start|>", "")), "taken out"),
        (lambda m, w: chat(m, w, after=""), "after <|im_end|>"),
        (lambda m, w: chat(m, w, between=""), "between role and text is missing"),
        (lambda m, w: chat(m, w, between=" "), "not a space"),
        (lambda m, w: chat(m, w, between=": "), "not a colon"),
        (lambda m, w: chat([("", text) for _, text in m], w, between=""), "where is the role"),
        (lambda m, w: chat(m, w, marks=(0, 1)), "<|im_start|> is missing"),
        (lambda m, w: chat(m, w, marks=(1, 0)), "<|im_end|> is missing"),
        (apart, "encode them as one text"),
        (lambda m, w: chat(m[-1:], w), "only the last message"),
        (lambda m, w: chat(m[:1], w), "only the first message"),
        (lambda m, w: [*chat(m, w), w.special["<|endoftext|>"]], "<|endoftext|> is not asked for"),
        (lambda m, w: as_string(m), "returned a str"),
        (lambda m, w: [chat([one], w) for one in m], "+= would add"),
        (lambda m, w: chat(m[::-1], w), "it should be"),
    ],
}

# Exercise -> right answers that look different from the lesson's solution.
RIGHT = {
    "token_pairs": [
        lambda w: dict(pairs(w)),
        lambda w: {**pairs(w), (99, 99): 0},
        lambda w: Counter(p for ids, n in w.items() for p in pairwise(ids) for _ in range(n)),
    ],
    "join_pair": [joined_at_end, lambda *a: tuple(joined(*a)),
                  lambda ids, pair, new: torch.tensor(joined(ids, pair, new), dtype=torch.long)],
    "encode_word": [merged, merged_everywhere, lambda w, r: tuple(own.BPE(r)._merge_word(w))],
    "show_as_written": [written, lambda tokens: tuple(written(tokens))],
    "chat_ids": [chat, lambda m, w: tuple(chat(m, w)), lambda m, w: [id for one in m for id in chat([one], w)]],
}


def test_an_answer_may_change_what_it_was_given(capsys):
    def in_place(ids, pair, new):
        i = 0
        while i < len(ids):
            if tuple(ids[i:i + 2]) == pair:
                ids[i:i + 2] = [new]
            i += 1
        return ids

    def emptied(words):
        counts = pairs(words)
        words.clear()
        return counts

    assert verdict("join_pair", in_place, capsys).startswith("right: ")
    assert verdict("join_pair", lambda *a: in_place(*a) and None, capsys) == "not solved yet"
    for _ in range(2):
        assert verdict("token_pairs", emptied, capsys).startswith("right: ")
