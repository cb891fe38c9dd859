"""Mistakes with files and figures, with the last step from logits to a token, and with FP8."""

from __future__ import annotations

import torch

from llm_core import cache_layout
from llm_core.config import LatentAttentionConfig, ModelConfig
from llm_core.mistakes.switches import Switches, mistake
from llm_core.model import LanguageModel
from llm_core.quantization import fp8
from llm_core.sampling import Sampler


def _tied(config: ModelConfig) -> str:
    return "" if config.tie_embeddings else "a head that is tied to the embedding"


def _rope_key(config: ModelConfig) -> str:
    mla = isinstance(config.attention, LatentAttentionConfig) and config.attention.qk_rope_head_dim
    return "" if mla else "latent attention (MLA) with a rope key"


def _square(config: ModelConfig) -> str:
    grouped = not isinstance(config.attention, LatentAttentionConfig) and config.rope is None
    square = grouped and config.attention.n_heads * config.head_dim == config.d_model
    return "" if square else "GPT-2's attention, whose output matrix is square"


# Files and figures

@mistake("as recorded", "loaders of GPT-2's files, which keep matrices the other way round than torch", _square)
def square_matrix_not_transposed(switches: Switches, model: LanguageModel):
    """GPT-2's matrices are stored [in, out]. Forget to transpose, and all that are not square are refused by their
    shape; attention's output matrix is square, and slips in."""
    for block in model.blocks:
        weight = block.attention.o_proj.weight
        switches.callback(weight.data.copy_, weight.data.clone())
        weight.data.copy_(weight.data.T.clone())


@mistake("formula = tensors, parameters", "counts over a file in which the head is listed too", _tied)
def tied_head_counted_twice(switches: Switches, model: LanguageModel):
    """The head is the token embedding, one tensor, and is added to the sum a second time: 163 M for GPT-2's 124 M."""

    def parameters(right, recurse=True):
        yield from right(recurse)
        yield model.token_embedding.weight

    switches.wrap(model, "parameters", parameters)


@mistake("formula = tensors, cache", "calculators of cache sizes", _rope_key)
def rope_key_not_counted(switches: Switches, model: LanguageModel):
    """The cache is counted as the latent alone, without the rope key: 512 numbers a layer for DeepSeek's 576."""
    switches.wrap(cache_layout, "elements_per_token", lambda right, config:
                  config.n_layers * config.attention.kv_lora_rank)


# Sampling

@mistake("temperature 0 = argmax", "samplers that divide by the temperature, whatever it is", of_model=False)
def temperature_zero_divides(switches: Switches, model: LanguageModel | None):
    """Logits are divided by a temperature of 0: infinity over infinity, and no token can be drawn."""
    switches.wrap(Sampler, "__call__", lambda right, self, logits:
                  torch.multinomial((logits / self.temperature).softmax(-1), 1, generator=self.generator)[:, 0])


@mistake("top_k above the vocabulary = all", "samplers that hand top_k on to topk", of_model=False)
def top_k_not_limited(switches: Switches, model: LanguageModel | None):
    """The k-th largest logit is asked for where there are fewer than k: it stops with an error."""

    def probabilities(right, self, logits):
        if self.top_k is not None:
            logits.topk(self.top_k)
        return right(self, logits)

    switches.wrap(Sampler, "probabilities", probabilities)


# FP8

@mistake("FP8 keeps 3 bits of each number", "simulations of FP8 by rounding to whole steps", of_model=False)
def fp8_by_rounding_to_integers(switches: Switches, model: LanguageModel | None):
    """The scaled numbers are rounded to evenly spaced steps, as INT8 has them. FP8's steps grow with the number, which
    is what keeps the small ones."""
    step = fp8.E4M3.max / 127
    switches.wrap(fp8, "to_fp8", lambda right, x, format=fp8.E4M3: (x / step).round() * step)


@mistake("FP8 takes sizes that 128 does not divide", "kernels and loaders tried on round sizes", of_model=False)
def fp8_blocks_must_divide(switches: Switches, model: LanguageModel | None):
    """The number of blocks is size // 128, so that the rows and columns that stand over have no scale."""
    switches.wrap(fp8, "tiles_of", lambda right, size, tile: size // tile)
