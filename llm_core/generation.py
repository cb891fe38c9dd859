"""Text from a model: one forward pass a token, each reading only the new token when there is a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_core.model import LanguageModel
from llm_core.sampling import greedy


@dataclass
class Step:
    """One token for each text of the batch: token [B], the logits it was picked from [B, V], positions cached."""

    token: Tensor
    logits: Tensor
    cached: int


def as_batch(token_ids: Tensor | Sequence[int]) -> Tensor:
    """[T] or a list becomes a batch of one, [1, T]."""
    ids = torch.as_tensor(token_ids, dtype=torch.long)
    return ids[None] if ids.dim() == 1 else ids


def stream(model: LanguageModel, token_ids: Tensor | Sequence[int], max_new_tokens: int,
           sampler: Callable[[Tensor], Tensor] = greedy, *, use_cache: bool = True, prefill_chunk: int | None = None,
           stop_token: int | None = None) -> Iterator[Step]:
    """Yield up to max_new_tokens steps; ends early when the context is full or every text has produced stop_token.

    use_cache False reads the whole text again for each token. prefill_chunk: read the prompt in pieces of this many
    tokens; the result is the same. ValueError for an empty prompt or one longer than the context.
    """
    text = as_batch(token_ids)
    if text.shape[1] == 0:
        raise ValueError("the prompt is empty; give at least one token to go on from")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be 0 or more, not {max_new_tokens}")
    if prefill_chunk is not None and prefill_chunk < 1:
        raise ValueError(f"prefill_chunk must be at least 1, not {prefill_chunk}")
    context = model.config.max_seq_len
    if text.shape[1] > context:
        raise ValueError(f"the prompt has {text.shape[1]} tokens, the model's context holds {context}; "
                         f"keep the last {context}")
    return _steps(model, text, min(max_new_tokens, context - text.shape[1] + 1), sampler, use_cache,
                  prefill_chunk, stop_token)


def _steps(model, text, steps, sampler, use_cache, prefill_chunk, stop_token) -> Iterator[Step]:
    # A token can still be picked when the context is full; it just cannot be read any more.
    cache = model.new_cache(len(text), min(text.shape[1] + steps, model.config.max_seq_len)) if use_cache else None
    unread = text
    done = torch.zeros(len(text), dtype=torch.bool)
    was_training = model.training
    model.eval()
    try:
        for _ in range(steps):
            with torch.inference_mode():
                if cache is None:
                    logits = model(text, last_only=True).logits
                else:
                    for piece in unread.split(prefill_chunk or unread.shape[1], dim=1):
                        logits = model(piece, cache, last_only=True).logits
                token = sampler(logits[:, -1])  # [B]
            yield Step(token, logits[:, -1], 0 if cache is None else cache.length)
            done |= token == stop_token if stop_token is not None else False
            if done.all():
                return
            unread = token[:, None]
            text = torch.cat([text, unread], dim=1)
    finally:
        model.train(was_training)


def generate(model: LanguageModel, token_ids: Tensor | Sequence[int], max_new_tokens: int,
             sampler: Callable[[Tensor], Tensor] = greedy, **options) -> Tensor:
    """The prompt and what follows it, [B, T + new]. Options as for `stream`."""
    text = as_batch(token_ids)
    new = [step.token[:, None] for step in stream(model, text, max_new_tokens, sampler, **options)]
    return torch.cat([text, *new], dim=1)
