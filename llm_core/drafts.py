"""Who guesses the next tokens cheaply, so that the model can check several in one pass (see speculative.py).

A draft is any object with the one method of `Draft`. Four are here: the model's own MTP modules, a smaller model, a
table of which token followed which, and a search for the last words earlier in the text.
Shapes: T tokens of one text, n guesses, R rows of an MTP module, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core.model import LanguageModel
from llm_core.sampling import Sampler


@dataclass
class Proposal:
    """n guesses, and for each the distribution q that it was drawn from, q [n, V]. n may be 0."""

    tokens: list[int]
    q: Tensor


class Draft(Protocol):
    def propose(self, text: Tensor, hidden: Tensor, count: int, sampler: Sampler) -> Proposal:
        """Up to `count` tokens to follow `text` [T], T at least 2, each drawn by `sampler` from what it has shaped.

        hidden [1, T - 1, D]: what the model made of every token but the last, which it has not read yet (`hidden` of
        its output). What a draft keeps between calls must not show: it follows from text and sampler what it proposes.
        """
        ...


class MTPDraft:
    """The model's own MTP modules, each a guess further. Up to n_mtp_modules guesses."""

    def __init__(self, model: LanguageModel, max_tokens: int | None = None):
        if not len(model.mtp):
            raise ValueError("this model has no MTP modules (n_mtp_modules=0); give another draft: a smaller model, "
                             "PromptLookupDraft or BigramDraft")
        self.model, self.vocab_size, self.cache = model, model.config.vocab_size, model.new_mtp_cache(1, max_tokens)
        self._read = torch.empty(0, dtype=torch.long)

    def propose(self, text: Tensor, hidden: Tensor, count: int, sampler: Sampler) -> Proposal:
        """All modules have the rows 0 .. T - 2. In row i module k reads token i + k: in its last rows a guess."""
        D, T = len(self.model.mtp), len(text)
        # A row stays only if all that its modules have read stands in the text still: i + D < known.
        known = same_start(self._read, text[:-1])
        self.cache.truncate(min(max(known - D, 0), self.cache.length))
        self._read, first = text, self.cache.length
        h = self.model.final_norm(hidden[:, first:])  # [1, R, D], rows first .. T - 2
        tokens, q = [], []
        for k in range(1, D + 1):
            ahead = self.model.predict_at_depth(k, h, text[None, first + k:], self.cache, last_only=True)  # [1, 1, V]
            q.append(sampler.probabilities(ahead.logits[:, -1]))  # [1, V]
            tokens.append(sampler.draw(q[-1]))
            text = torch.cat([text, tokens[-1]])  # the next module's last row reads this guess
            h = ahead.hidden
        self.cache.advance(T - 1 - first)
        return _proposal(tokens[:count], q[:count], self.vocab_size)


class ModelDraft:
    """Another model with the same vocabulary, usually a much smaller one, a guess a pass (Leviathan et al. 2023)."""

    def __init__(self, model: LanguageModel, max_tokens: int | None = None):
        self.model, self.vocab_size, self.cache = model, model.config.vocab_size, model.new_cache(1, max_tokens)
        self._read = torch.empty(0, dtype=torch.long)

    def propose(self, text: Tensor, hidden: Tensor, count: int, sampler: Sampler) -> Proposal:
        """No guess where the draft's own context is full."""
        tokens, q = [], []
        self.cache.truncate(min(same_start(self._read, text[:-1]), self.cache.length))
        while len(tokens) < count and len(text) <= self.cache.max_tokens:
            logits = self.model(text[None, self.cache.length:], self.cache, last_only=True).logits
            self._read = text
            q.append(sampler.probabilities(logits[:, -1]))  # [1, V]
            tokens.append(sampler.draw(q[-1]))
            text = torch.cat([text, tokens[-1]])
        return _proposal(tokens, q, self.vocab_size)


class BigramDraft:
    """What followed the last token in some training text, as often as it did there. The baseline to beat."""

    def __init__(self, token_ids: Tensor, vocab_size: int):
        """token_ids [N]: the text to count in."""
        order = token_ids[:-1].argsort(stable=True)
        self.followers = token_ids[1:][order]  # those of token 0, then those of token 1, …
        ends = token_ids[:-1].bincount(minlength=vocab_size).cumsum(0)
        self.ends, self.vocab_size = [0, *ends.tolist()], vocab_size

    def propose(self, text: Tensor, hidden: Tensor, count: int, sampler: Sampler) -> Proposal:
        """Guesses end at a token that was never followed by any."""
        tokens, q, last = [], [], int(text[-1])
        while len(tokens) < count:
            seen = self.followers[self.ends[last]:self.ends[last + 1]]
            if not len(seen):
                break
            counts = seen.bincount(minlength=self.vocab_size)
            q.append(sampler.probabilities(counts[None].float().log()))  # [1, V]; a count of 0 is a logit of -inf
            tokens.append(sampler.draw(q[-1]))
            last = int(tokens[-1])
        return _proposal(tokens, q, self.vocab_size)


class PromptLookupDraft:
    """What followed the last words of the text when they stood in it before; no model at all (Saxena 2023).

    longest: how many last tokens must be the same; where these never came before, fewer, down to one.
    """

    def __init__(self, vocab_size: int, longest: int = 3):
        self.vocab_size, self.longest = vocab_size, longest

    def propose(self, text: Tensor, hidden: Tensor, count: int, sampler: Sampler) -> Proposal:
        for n in range(min(self.longest, len(text) - 1), 0, -1):
            earlier = (text.unfold(0, n, 1)[:-1] == text[-n:]).all(dim=1).nonzero()  # where such n tokens begin
            if len(earlier):
                start = int(earlier[-1]) + n  # behind the latest of them
                found = text[start:start + count]
                # It is sure of itself: q is 1 for this token and 0 for all others, whatever the sampler.
                return Proposal(found.tolist(), F.one_hot(found, self.vocab_size).float())
        return _proposal([], [], self.vocab_size)


def same_start(a: Tensor, b: Tensor) -> int:
    """How many tokens [T] two texts share from the start."""
    n = min(len(a), len(b))
    if torch.equal(a[:n], b[:n]):  # nearly always, and soon found
        return n
    different = (a[:n] != b[:n]).nonzero()
    return int(different[0])


def _proposal(tokens: list[Tensor], q: list[Tensor], vocab_size: int) -> Proposal:
    return Proposal([int(token) for token in tokens], torch.cat(q) if q else torch.empty(0, vocab_size))
