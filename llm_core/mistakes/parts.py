"""Checks of a model's parts: what is counted and saved, experts, sampling, speculation, FP8.

Shapes: N tokens, E experts, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core import accounting, generation, sampling, speculative
from llm_core.drafts import Proposal
from llm_core.mistakes.checks import Failed, check, need, same, some_ids
from llm_core.model import LanguageModel
from llm_core.moe import MoE, Routing
from llm_core.quantization import fp8

# Counting

@check("formula = tensors, parameters")
def parameters_are_as_counted(model):
    """The count from the config is the sum over the model's tensors."""
    counted, real = accounting.count_parameters(model.config), sum(p.numel() for p in model.parameters())
    if counted.total + counted.mtp != real:
        raise Failed(f"{counted.total + counted.mtp:,} by formula, {real:,} in tensors")


@check("formula = tensors, cache")
def cache_is_as_counted(model):
    """The cache's bytes from the config are the bytes of the cache's tensors."""
    bits = 8 * model.token_embedding.weight.element_size()
    counted, real = accounting.cache_bytes(model.config, 2, 5, bits=bits), model.new_cache(2, 5).nbytes
    if counted != real:
        raise Failed(f"{counted:,} bytes by formula, {real:,} in tensors")


@check("all is saved")
def all_is_saved(model):
    """Every number that the model computes with, biases of routers included, is among those that a file would keep."""
    kept = model.state_dict()
    lost = [name for name, _ in [*model.named_parameters(), *model.named_buffers()] if name not in kept]
    if lost:
        raise Failed(f"{len(lost)} are not, first {lost[0]}")


# Experts

def moe_layers(model: LanguageModel) -> list[MoE]:
    return [module for module in model.modules() if isinstance(module, MoE)]


@check("gates ignore the bias")
def gates_ignore_the_bias(model):
    """The same number taken from every selection bias changes neither who is chosen nor the gate weights."""
    routers = [layer.router for layer in moe_layers(model) if layer.router.selection_bias is not None]
    need(bool(routers), "there is no selection bias")
    x = torch.randn(64, model.config.d_model, generator=torch.Generator().manual_seed(0))
    for router in routers:
        before, bias = router(x), router.selection_bias.clone()
        try:
            router.selection_bias -= 2
            after = router(x)
        finally:
            router.selection_bias.copy_(bias)
        same(_spread(after), _spread(before))


def _spread(routing: Routing) -> Tensor:
    """Gate weights by expert, 0 for those not chosen: [N, E]. The order of the chosen is gone."""
    return torch.zeros_like(routing.scores).scatter(1, routing.experts, routing.weights)


@check("underflow gives no NaN")
def underflow_gives_no_nan(model):
    """Scores so small that all of them round to 0: gate weights are numbers all the same."""
    need(bool(moe_layers(model)), "there are no experts")
    for layer in moe_layers(model):
        weight = layer.router.weight.clone()
        try:
            layer.router.weight.fill_(-1e4)
            weights = layer.router(torch.ones(3, model.config.d_model)).weights
        finally:
            layer.router.weight.copy_(weight)
        if not weights.isfinite().all():
            raise Failed("NaN or infinity comes out")


@check("reading changes nothing")
def reading_changes_nothing(model):
    """Every parameter and buffer is after a forward pass what it was before."""
    before = {name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    model(some_ids(model))
    moved = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()]
             if not torch.equal(tensor, before[name])]
    if moved:
        raise Failed(f"{len(moved)} tensors have moved, first {moved[0]}")


# Sampling and speculation

@check("temperature 0 = argmax", of_model=False)
def temperature_zero_is_argmax(model):
    """Temperature 0 takes the likeliest token."""
    logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(0))
    if not torch.equal(sampling.Sampler(0)(logits), logits.argmax(-1)):
        raise Failed("another token comes out")


@check("top_k above the vocabulary = all", of_model=False)
def top_k_above_the_vocabulary_is_all(model):
    """More tokens asked for than there are: all of them stay."""
    logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(0))
    same(sampling.Sampler(1.0, top_k=50).probabilities(logits), logits.softmax(-1))


class _PoorDraft:
    """Guesses token 0, always."""

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size

    def propose(self, text, hidden, count, sampler):
        return Proposal([0] * count, F.one_hot(torch.zeros(count, dtype=torch.long), self.vocab_size).float())


@check("speculation = plain greedy")
def speculation_equals_plain_greedy(model):
    """Greedy, with a draft that mostly guesses wrong: token for token what the model writes alone."""
    prompt = some_ids(model, 1, max(1, min(6, model.config.max_seq_len // 2)))
    plain = generation.generate(model, prompt, 8)[0, prompt.shape[1]:].tolist()
    passes = speculative.speculate(model, prompt, 8, _PoorDraft(model.config.vocab_size), gamma=3)
    if [token for one in passes for token in one.tokens] != plain:
        raise Failed("another text comes out")


@check("speculation keeps the distribution", of_model=False)
def speculation_keeps_the_distribution(model):
    """600 draws with a draft that is far off: each token as often as the model alone would draw it."""
    p, q = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]]), torch.tensor([[0.1, 0.3, 0.6]])
    sampler, counts, n = sampling.Sampler(1.0, seed=0), torch.zeros(3), 600
    for _ in range(n):
        guess = int(sampler.draw(q))
        accepted, token = speculative.verify(p, q, [guess], sampler)
        counts[guess if accepted else token] += 1
    off = (counts / n - p[0]).abs().max().item()
    if off > 0.1:  # five standard deviations of a share of one half
        raise Failed(f"a share is off by {off:.1g}")


# FP8

@check("FP8 keeps 3 bits of each number", of_model=False)
def fp8_keeps_three_bits(model):
    """E4M3 is off by at most 1/16 of each number, large or small: a floating-point format, unlike an integer."""
    x = torch.logspace(-2, 2, 128)[None]  # within one tile, four powers of ten
    back = fp8.dequantize_tiles(*fp8.quantize_tiles(x))
    worst = ((back - x).abs() / x).max().item()
    if worst > 2**-4 + 1e-6:
        raise Failed(f"off by {worst:.2g} of a number")


@check("FP8 takes sizes that 128 does not divide", of_model=False)
def fp8_takes_any_size(model):
    """A weight of 130 x 200: the last blocks are smaller, and every number comes back."""
    x = torch.randn(130, 200, generator=torch.Generator().manual_seed(0))
    back = fp8.dequantize_tiles(*fp8.quantize_tiles(x, fp8.WEIGHT_BLOCK), fp8.WEIGHT_BLOCK)
    if back.shape != x.shape or (back - x).abs().max() > 0.2:
        raise Failed("numbers are lost")
