"""Mistakes of multi-token prediction and of speculative decoding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from llm_core import speculative
from llm_core.config import ModelConfig
from llm_core.mistakes.switches import Switches, mistake
from llm_core.model import LanguageModel


def _mtp(config: ModelConfig) -> str:
    return "" if config.n_mtp_modules else "MTP modules"


# Multi-token prediction

@mistake("no leak in MTP", "modules that call a block without the mask which the model makes for its own", _mtp)
def mtp_without_mask(switches: Switches, model: LanguageModel):
    """The extra block sees the whole text. In training it looks up the token that it should guess."""
    for module in model.mtp:
        switches.while_running(module.block.attention, "causal_attention", lambda right, q, k, v, scale, dropout=0.0:
                               F.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=True))


@mistake("formula = tensors, parameters", "loaders that give each module what its files list", _mtp)
def mtp_with_embedding_of_its_own(switches: Switches, model: LanguageModel):
    """Each module has a copy of the token embedding instead of the main model's: it costs memory, and drifts apart in
    training."""
    for module in model.mtp:
        copy = nn.Embedding.from_pretrained(model.token_embedding.weight.detach().clone(), freeze=False)
        switches.swap(module, "token_embedding", copy)


# Speculation

@mistake("speculation = plain greedy", "decoders that trust their draft")
def drafts_accepted_unverified(switches: Switches, model: LanguageModel):
    """All guesses are taken as they come. It is very fast, and it is the draft that writes."""
    switches.wrap(speculative, "verify", lambda right, p, q, drafted, sampler:
                  (len(drafted), int(sampler.draw(p[len(drafted)][None]))))


@mistake("speculation keeps the distribution", "decoders that draw afresh after a rejection")
def rejected_drawn_from_the_model(switches: Switches, model: LanguageModel):
    """After a rejection the token is drawn from p instead of from what p has beyond q: tokens that the draft likes come
    too often. Greedy text is right, so greedy tests see nothing."""

    def verify(right, p, q, drafted, sampler):
        for i, x in enumerate(drafted):
            if torch.rand((), generator=sampler.generator) >= p[i, x] / q[i, x]:
                return i, int(sampler.draw(p[i][None]))
        return len(drafted), int(sampler.draw(p[len(drafted)][None]))

    switches.wrap(speculative, "verify", verify)


@mistake("speculation = plain greedy", "decoders that roll the text back and forget the cache")
def rejected_stay_in_the_cache(switches: Switches, model: LanguageModel):
    """The cache keeps the guesses that were rejected, so that the next pass goes on behind a text nobody wrote."""

    def new_cache(right, *args):
        cache = right(*args)
        cache.truncate = lambda length: None
        return cache

    switches.wrap(model, "new_cache", new_cache)
