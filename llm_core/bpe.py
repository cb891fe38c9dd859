"""Byte-pair encoding from nothing: how a text becomes the integers that a model reads.

Three steps, each a few lines below:
1. `split` cuts a text into words, each with the space before it, so that no token ever spans two words.
2. `train_bpe` starts from the 256 bytes and, again and again, makes one new token of the pair seen most often.
3. `BPE.encode` replays those merges on a new text, the oldest first.

Starting from bytes rather than letters, no text is ever unknown: any Unicode is some sequence of those 256
(Sennrich et al. 2016, arXiv:1508.07909, for the merges; Radford et al. 2019, the GPT-2 paper, section 2.2, for bytes).
This is written to be read. tokenizer.py runs the same ranks with tiktoken, which is far faster and gives equal ids.
(What counts as a letter grows with each version of Unicode. `regex` and tiktoken may know different versions: a letter
younger than the older of the two can be cut from its word in one and not in the other. It comes back all the same.)
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise

import regex  # the standard library's re knows no \p{L}, "any letter of any script"

GPT2_PATTERN = (
    r"'(?:s|t|re|ve|m|ll|d)"    # English endings: it's, don't, we're
    r"| ?\p{L}+"                # or letters, with the space before them
    r"| ?\p{N}+"                # or digits
    r"| ?[^\s\p{L}\p{N}]+"      # or anything else that is not a space
    r"|\s++$"                   # or all the spaces at the end of the text
    r"|\s+(?!\S)"               # or a run of spaces, leaving the last one to the word that follows
    r"|\s"                      # or the one that is left, if it is a line break, say, and so belongs to no word
)
_WORDS = regex.compile(GPT2_PATTERN)

Pair = tuple[int, int]


def split(text: str) -> list[str]:
    """The words of a text by GPT-2's pattern. Joined together they are the text again."""
    return _WORDS.findall(text)


def _merge(ids: list[int], pair: Pair, new: int) -> list[int]:
    """Replace each occurrence of `pair`, from left to right, by the one id `new`."""
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def train_bpe(text: str | Iterable[str], vocab_size: int) -> dict[bytes, int]:
    """Learn a vocabulary: {token's bytes: rank}. The 256 single bytes come first, then one token a merge, in order.

    text: one document or several. vocab_size: entries wanted, at least 256; fewer come out when every word is whole.
    Of pairs seen equally often the one with the smaller ids wins, so the same text gives the same vocabulary anywhere.
    """
    if isinstance(vocab_size, bool) or not isinstance(vocab_size, int) or vocab_size < 256:
        raise ValueError(f"vocab_size must be a whole number of at least 256, one for each byte, not {vocab_size!r}")
    documents = [text] if isinstance(text, str) else text
    counts = Counter(word for document in documents for word in split(document))
    words = [list(word.encode("utf-8")) for word in counts]  # each distinct word once, with how often it occurs
    times = list(counts.values())

    pair_count: Counter[Pair] = Counter()
    found_in: defaultdict[Pair, set[int]] = defaultdict(set)  # the words that may hold a pair
    for w, ids in enumerate(words):
        for pair in pairwise(ids):
            pair_count[pair] += times[w]
            found_in[pair].add(w)

    # The heap's top is the most frequent pair. A count that changed is pushed again; old entries are skipped when met.
    heap = [(-count, pair) for pair, count in pair_count.items()]
    heapq.heapify(heap)
    tokens = [bytes([byte]) for byte in range(256)]
    rank_of = {token: rank for rank, token in enumerate(tokens)}
    while len(tokens) < vocab_size and heap:
        count, pair = heapq.heappop(heap)
        if -count != pair_count[pair] or not count:
            continue
        token = tokens[pair[0]] + tokens[pair[1]]
        new = rank_of.setdefault(token, len(tokens))  # th + e and t + he are the same token, whichever came first
        if new == len(tokens):
            tokens.append(token)
        changed = set()
        for w in found_in.pop(pair):  # only the words that held the pair: this is what makes training quick
            before, after = words[w], _merge(words[w], pair, new)
            for old in pairwise(before):
                pair_count[old] -= times[w]
                changed.add(old)
            for now in pairwise(after):
                pair_count[now] += times[w]
                found_in[now].add(w)
                changed.add(now)
            words[w] = after
        for other in changed:
            if pair_count[other]:
                heapq.heappush(heap, (-pair_count[other], other))
    return rank_of


class BPE:
    """Encode and decode with learned ranks. A special token such as <|endoftext|> is ordinary text here."""

    def __init__(self, ranks: dict[bytes, int]):
        missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
        if missing:
            raise ValueError(f"the ranks lack {len(missing)} of the 256 single bytes, so not every text has ids")
        self.ranks = dict(ranks)
        self.token_of = {rank: token for token, rank in ranks.items()}
        # The same words come again and again, so a word's ids are kept.
        self._encode_word = lru_cache(maxsize=2**16)(self._merge_word)

    def _merge_word(self, word: bytes) -> tuple[int, ...]:
        parts = [word[i:i + 1] for i in range(len(word))]
        while len(parts) > 1:
            # The pair that was learned first is joined first: later merges were learned on its result.
            rank, i = min((self.ranks.get(parts[i] + parts[i + 1], float("inf")), i) for i in range(len(parts) - 1))
            if rank == float("inf"):
                break
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        return tuple(self.ranks[part] for part in parts)

    def encode(self, text: str) -> list[int]:
        """Text to token ids."""
        return [token for word in split(text) for token in self._encode_word(word.encode("utf-8"))]

    def decode(self, ids: Iterable[int]) -> str:
        """Token ids to text. A character cut in half shows as U+FFFD, the replacement character."""
        return b"".join(self.token_of[token] for token in ids).decode("utf-8", errors="replace")
