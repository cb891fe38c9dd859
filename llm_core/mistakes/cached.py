"""Mistakes of cached decoding: the model is right when it reads all at once, and wrong when it goes on from a cache."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core.attention import LatentAttention
from llm_core.mistakes.switches import Switches, mistake
from llm_core.model import LanguageModel


def _more_than_one_layer(config) -> str:
    return "" if config.n_layers > 1 else "more than one layer"


def _top_left(q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float = 0.0) -> Tensor:
    mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()  # row i sees columns 0 .. i
    return F.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=True)


def _top_left_of(scores: Tensor) -> Tensor:
    """The same for MLA's absorbed way, which makes its scores itself: [..., T, S]."""
    return scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)


@mistake("cached = uncached", "models that pass is_causal=True to a kernel whose triangle starts at the top left")
def mask_top_left(switches: Switches, model: LanguageModel):
    """The causal mask starts at the first key: one new token, which should see the whole cache, sees one entry."""
    for block in model.blocks:
        switches.while_running(block.attention, "causal_attention", lambda right, *args: _top_left(*args))
        if isinstance(block.attention, LatentAttention):
            switches.while_running(block.attention, "without_future", lambda right, scores: _top_left_of(scores))


@mistake("two chunks = one", "models that set is_causal only where more than one token is new")
def mask_top_left_for_chunks(switches: Switches, model: LanguageModel):
    """Single tokens get no mask, as they should, but several new ones get the triangle at the top left: decoding is
    right, and so is a prompt in one piece; only a prompt in two pieces is not."""

    def attend(right, q, k, v, *args):
        return (_top_left if q.shape[2] > 1 else right)(q, k, v, *args)

    def hide(right, scores):
        return (_top_left_of if scores.shape[-2] > 1 else right)(scores)

    for block in model.blocks:
        switches.while_running(block.attention, "causal_attention", attend)
        if isinstance(block.attention, LatentAttention):
            switches.while_running(block.attention, "without_future", hide)


@mistake("cached = uncached", "caches that keep one position for all layers", _more_than_one_layer)
def first_layer_moves_the_position(switches: Switches, model: LanguageModel):
    """The first layer moves the shared position as soon as it has written, so the others write one step too far."""

    def first(right, x, rope, cache=None):
        out = right(x, rope, cache)
        if cache is not None:
            cache._cache.length += x.shape[1]
        return out

    def last(right, x, rope, cache=None):
        out = right(x, rope, cache)
        if cache is not None:
            cache._cache.length -= x.shape[1]  # the model moves it again, and in the end it has moved once
        return out

    switches.wrap(model.blocks[0], "forward", first)
    switches.wrap(model.blocks[-1], "forward", last)


@mistake("cached = uncached", "generation loops that number the tokens of each call from 0")
def positions_start_again(switches: Switches, model: LanguageModel):
    """Positions are counted from 0 in every call, so each cached token thinks that it is the first."""
    if model.config.rope is None:
        switches.wrap(model.position_embedding, "forward", lambda right, positions: right(positions - positions[0]))
    else:
        switches.while_running(model, "rope_table", lambda right, rope, width, positions:
                               right(rope, width, positions - positions[0]))


@mistake("second call = first", "models that keep the cache as a part of themselves")
def cache_kept_between_calls(switches: Switches, model: LanguageModel):
    """A new text gets the cache of the one before, with all that stands in it."""
    kept = {}

    def new_cache(right, batch=1, max_tokens=None):
        if batch not in kept:
            kept[batch] = right(batch)
        return kept[batch]

    switches.wrap(model, "new_cache", new_cache)


@mistake("a call in between changes nothing", "models that count positions in a variable of their own")
def any_call_moves_the_cache(switches: Switches, model: LanguageModel):
    """The length of the cache is a counter inside the model, and calls that use no cache move it too."""
    seen = []

    def forward(right, token_ids, cache=None, **options):
        if cache is not None:
            seen[:] = [cache]
        elif seen:
            seen[0].length += token_ids.shape[1]
        return right(token_ids, cache, **options)

    switches.wrap(model, "forward", forward)


@mistake("past the context is refused", "models that compare the table of positions with the new tokens alone")
def context_checked_without_the_cache(switches: Switches, model: LanguageModel):
    """Whether a text still fits is asked of the new tokens, not of those in the cache and the new ones together."""
    switches.wrap(model, "check_ids", lambda right, token_ids, start, cache: right(token_ids, 0, cache))

