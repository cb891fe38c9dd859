"""Checks of a model as a whole: reading in pieces, and reaching the same result by another way.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import torch

from llm_core.config import LatentAttentionConfig
from llm_core.mistakes import by_hand
from llm_core.mistakes.checks import Failed, as_noted, check, need, same, some_ids
from llm_core.positions import rope_table

# Reading in pieces

@check("shapes fit")
def shapes_fit(model):
    """Logits come out, a row for each token. The check that most projects begin with, and that sees next to nothing."""
    ids = some_ids(model)
    if model(ids).logits.shape != (*ids.shape, model.config.vocab_size):
        raise Failed("another shape comes out")


@check("cached = uncached")
def cached_equals_uncached(model):
    """Token by token with a cache: the same logits as reading all at once without."""
    ids, cache = some_ids(model), model.new_cache(2)
    same(torch.cat([model(ids[:, i:i + 1], cache).logits for i in range(ids.shape[1])], dim=1), model(ids).logits)


@check("two chunks = one")
def two_chunks_equal_one(model):
    """A prompt read in two pieces with a cache: the same logits as in one."""
    ids, cache = some_ids(model), model.new_cache(2)
    need(ids.shape[1] > 3, "the context is too short")
    pieces = ids.split([ids.shape[1] // 2, ids.shape[1] - ids.shape[1] // 2], dim=1)
    same(torch.cat([model(piece, cache).logits for piece in pieces], dim=1), model(ids).logits)


@check("second call = first")
def second_call_equals_first(model):
    """The same prompt, each time with a new cache, twice: the same logits."""
    ids = some_ids(model, tokens=5)
    first = model(ids, model.new_cache(2)).logits
    same(model(ids, model.new_cache(2)).logits, first)


@check("a call in between changes nothing")
def a_call_in_between_changes_nothing(model):
    """Reading another text without a cache, while one is in use: the cached text goes on as if nothing had been."""
    ids, cache = some_ids(model, tokens=8), model.new_cache(2)
    need(ids.shape[1] > 3, "the context is too short")
    model(ids[:, :3], cache)
    model(some_ids(model, 1, 2))
    same(model(ids[:, 3:], cache).logits, model(ids).logits[:, 3:])


@check("past the context is refused")
def past_the_context_is_refused(model):
    """When the context is full, one more token gets a ValueError: no crash, and no answer from positions never seen."""
    cache = model.new_cache(2, model.config.max_seq_len + 4)
    cache.length = model.config.max_seq_len
    try:
        model(some_ids(model, tokens=1), cache)
    except ValueError:
        return
    raise Failed("it answers as if nothing were amiss")


@check("no leak")
def no_leak(model):
    """Another last token: nothing changes for the tokens before it."""
    ids = some_ids(model)
    need(ids.shape[1] > 1, "the context is too short")
    other = torch.cat([ids[:, :-1], (ids[:, -1:] + 1) % model.config.vocab_size], dim=1)
    same(model(other).logits[:, :-1], model(ids).logits[:, :-1])


@check("no leak in MTP")
def no_leak_in_mtp(model):
    """Another last token: nothing changes for the rows of the MTP modules that have not read it."""
    ids = some_ids(model)
    need(len(getattr(model, "mtp", ())) > 0, "there are no MTP modules")
    need(ids.shape[1] > len(model.mtp) + 1, "the context is too short")
    other = torch.cat([ids[:, :-1], (ids[:, -1:] + 1) % model.config.vocab_size], dim=1)
    for a, b in zip(model.predict_ahead(model(other).hidden, other), model.predict_ahead(model(ids).hidden, ids)):
        same(a.logits[:, :-1], b.logits[:, :-1])


@check("together = alone")
def together_equals_alone(model):
    """Texts read in one batch: each gets the logits that it gets alone."""
    ids = some_ids(model, batch=4)
    same(model(ids).logits, torch.cat([model(row[None]).logits for row in ids]))


# The same by another way

@check("naive = absorbed")
def naive_equals_absorbed(model):
    """MLA's two ways to one result."""
    need(isinstance(model.config.attention, LatentAttentionConfig), "there is no latent attention")
    ids, ways, out = some_ids(model), [block.attention.absorbed for block in model.blocks], []
    try:
        for way in (True, False):
            for block in model.blocks:
                block.attention.absorbed = way
            out.append(model(ids).logits)
    finally:
        for block, way in zip(model.blocks, ways, strict=True):
            block.attention.absorbed = way
    same(*out)


@check("relative position only")
def relative_position_only(model):
    """All tokens of a text 100 places later: under RoPE attention gives the same, since only distances count."""
    config = model.config
    need(config.rope is not None, "there is no RoPE")
    x = torch.randn(2, 8, config.d_model, generator=torch.Generator().manual_seed(0))
    for block in model.blocks:
        here, later = (block.attention(x, rope_table(config.rope, config.rope_dim, torch.arange(at, at + 8)))
                       for at in (0, 100))
        same(later, here)


@check("equal to a second implementation")
def equal_to_a_second_implementation(model):
    """The same weights in a model that is written another way, one token at a time: the same logits."""
    ids = some_ids(model, batch=1)
    same(model(ids).logits, by_hand.logits(model, ids))


@check("the same, at position 0 only")
def equal_at_position_zero(model):
    """As before, but each text is one token long. A single token has nowhere to look, so this sees little of attention
    and nothing of positions."""
    ids = some_ids(model, batch=1, tokens=8).T
    same(model(ids).logits, by_hand.logits(model, ids))


@check("as recorded")
def as_recorded(model):
    """The logits that were noted when all was well: as comparing with the numbers that a model's makers published."""
    same(model(some_ids(model)).logits, as_noted(model))
