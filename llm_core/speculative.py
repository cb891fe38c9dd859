"""Speculative decoding: a draft guesses some tokens, the model checks them in one pass, and none counts unchecked.

Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023, 2302.01318. A pass over a few tokens costs about as much as a
pass over one, since both read all weights from memory. The text that comes out follows the very distribution that the
model alone would follow; with greedy sampling it is the same text, token for token (two logits that differ by no more
than rounding aside: a pass over several tokens rounds otherwise than several passes).

p is the model's distribution and q the draft's, as in the first paper, both shaped by the same sampler.
Shapes: T tokens of one text, n guesses, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_core.drafts import Draft, ModelDraft, MTPDraft, Proposal
from llm_core.generation import as_batch
from llm_core.model import LanguageModel
from llm_core.sampling import Sampler, greedy


@dataclass
class Pass:
    """One pass of the model. tokens: the text it added, which is accepted guesses and then a token of the model's own.

    drafted: the guesses that it checked. The first `accepted` of them are the first of `tokens`, the next was rejected,
    and those after it were guessed in vain. (If stop_token was among the accepted ones, the text ends there.)
    passes: how many there were so far, this one included. The first reads the prompt and checks no guess.
    """

    tokens: list[int]
    drafted: list[int]
    accepted: int
    passes: int


def verify(p: Tensor, q: Tensor, drafted: Sequence[int], sampler: Sampler) -> tuple[int, int]:
    """How many guesses stand, and the token that follows them (2211.17192, algorithm 1).

    p [n + 1, V]: the model's distribution at each guess, and one more behind the last. q [n, V]: the draft's.
    """
    for i, x in enumerate(drafted):
        # The draft proposes x with probability q(x), the model would with p(x). If q(x) <= p(x), the draft proposes x
        # too seldom, never too often: take it. If q(x) > p(x), take it only p(x) / q(x) of the time. So x comes through
        # the draft with probability q(x) min(1, p(x) / q(x)) = min(q(x), p(x)).
        chance = (p[i, x] / q[i, x]).item()
        if chance >= 1 or (chance > 0 and torch.rand((), generator=sampler.generator).item() < chance):
            continue
        # Rejected. What x still lacks is p(x) - min(q(x), p(x)) = max(0, p(x) - q(x)): draw from just that, made to sum
        # to 1. It must not be p, which would favour again what the draft has already delivered.
        residual = (p[i] - q[i]).clamp(min=0)
        if residual.sum() == 0:  # p = q up to rounding, so nothing is lacking
            residual = p[i]
        return i, int(sampler.draw((residual / residual.sum())[None]))
    # All stand. The pass has also shown what follows the last guess: one more token for nothing.
    return len(drafted), int(sampler.draw(p[len(drafted)][None]))


def speculate(model: LanguageModel, token_ids: Tensor | Sequence[int], max_new_tokens: int,
              draft: Draft | LanguageModel | None = None, sampler: Sampler = greedy, *, gamma: int = 4,
              stop_token: int | None = None) -> Iterator[Pass]:
    """Yield a Pass at a time until there are max_new_tokens, the context is full, or stop_token came: as `stream` does.

    draft None: the model's own MTP modules. A LanguageModel drafts too, if it has the same vocabulary. gamma: the most
    guesses a pass (the paper's letter); a draft may make fewer. The draws are others than `stream` makes with the same
    seed; what they follow is the same.
    ValueError for an empty or too long prompt, more than one text, no draft, or another vocabulary.
    """
    text = as_batch(token_ids)
    if len(text) != 1:
        raise ValueError(f"speculation runs on one text at a time, since each would accept another number of guesses; "
                         f"this batch has {len(text)}: call it once for each")
    if text.shape[1] == 0:
        raise ValueError("the prompt is empty; give at least one token to go on from")
    for name, value, least in (("max_new_tokens", max_new_tokens, 0), ("gamma", gamma, 1)):
        if value < least:
            raise ValueError(f"{name} must be {least} or more, not {value}")
    T, context = text.shape[1], model.config.max_seq_len
    if T > context:
        raise ValueError(f"the prompt has {T} tokens, the model's context holds {context}; keep the last {context}")
    room = min(T + max_new_tokens, context)
    if draft is None:
        draft = MTPDraft(model, room)
    elif isinstance(draft, LanguageModel):
        draft = ModelDraft(draft, min(room, draft.config.max_seq_len))
    theirs, ours = getattr(draft, "vocab_size", model.config.vocab_size), model.config.vocab_size
    if theirs != ours:
        raise ValueError(f"the draft's vocabulary has {theirs} entries and the model's {ours}; "
                         "both must be the same, since p(x) and q(x) are of the same token x")
    return _passes(model, text[0], min(max_new_tokens, context - T + 1), room, draft, sampler, gamma, stop_token)


def _passes(model, text, left, room, draft, sampler, gamma, stop_token) -> Iterator[Pass]:
    """left: tokens still to come. The last one can be picked when the context is full, but not read."""
    cache, passes, weight = model.new_cache(1, room), 0, model.token_embedding.weight
    hidden = weight.new_empty(1, room, model.config.d_model)  # of the tokens read, as many as the cache holds
    nothing = Proposal([], weight.new_empty(0, len(weight)))
    with evaluating(model, draft):
        while left > 0:
            with torch.inference_mode():
                # Every pass brings a token of the model's own, so more than left - 1 guesses would be wasted.
                count = min(gamma, left - 1) if passes else 0
                start = cache.length
                guess = draft.propose(text, hidden[:, :start], count, sampler) if count else nothing
                n = len(guess.tokens)
                unread = torch.cat([text[start:], text.new_tensor(guess.tokens)])
                out = model(unread[None], cache, last_only=n == 0)
                hidden[:, start:cache.length] = out.hidden
                p = sampler.probabilities(out.logits[0, -n - 1:])  # [n + 1, V]
                accepted, token = verify(p, guess.q, guess.tokens, sampler)
                cache.truncate(cache.length - (n - accepted))  # forget the rejected; the new token is not read yet
            tokens, passes = [*guess.tokens[:accepted], token], passes + 1
            left -= len(tokens)
            if stop_token in tokens:
                tokens, left = tokens[:tokens.index(stop_token) + 1], 0
            text = torch.cat([text, text.new_tensor(tokens)])
            yield Pass(tokens, guess.tokens, min(accepted, len(tokens)), passes)


@contextmanager
def evaluating(model: LanguageModel, draft: Draft | None = None) -> Iterator[None]:
    """No dropout meanwhile, neither in the model nor in the draft's; afterwards as it was."""
    models = {m: m.training for m in (model, getattr(draft, "model", None)) if m is not None}
    try:
        for m in models:
            m.eval()
        yield
    finally:
        for m, was_training in models.items():
            m.train(was_training)
