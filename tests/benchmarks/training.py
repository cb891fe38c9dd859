"""Steps of training: the textbook's, in fp32 with AdamW as torch gives it, beside ours, in bf16 with fused AdamW."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F

from llm_core import LanguageModel, data, load_pretrained, presets
from llm_core.accounting import count_parameters, training_flops
from llm_core.data import batch_at, tokenized
from llm_core.training.loop import build_optimizer, train_step
from llm_core.training.recipe import RECIPES, Recipe
from tests.benchmarks import peers
from tests.benchmarks.measuring import interleaved, peak
from tests.benchmarks.results import Row

CURVE = Recipe("gpt-mini", steps=200, batch_size=4, context=128, warmup_steps=20)
PART = 20  # steps whose mean loss is compared


def rows() -> Iterator[Row]:
    yield from step_rows()
    yield curve_row()
    yield minis_row()


def step_rows() -> Iterator[Row]:
    config, recipe = presets.get("gpt2"), Recipe("gpt2", 1000, batch_size=4, context=256, precision="bf16")
    torch.manual_seed(0)
    textbook, ours = LanguageModel(config).train(), LanguageModel(config).train()
    plain, fused = torch.optim.AdamW(textbook.parameters()), build_optimizer(ours, recipe)
    text = peers.ids(ours, 4 * 257).view(4, 257)
    x, y = text[:, :-1].contiguous(), text[:, 1:].contiguous()

    def textbook_step() -> None:
        plain.zero_grad()
        F.cross_entropy(textbook(x).logits.flatten(0, 1), y.flatten()).backward()
        plain.step()

    t = interleaved({"textbook": textbook_step, "ours": lambda: train_step(ours, fused, x, y, recipe, 0)}, 5, 1)
    limit = training_flops(config, 1024, 256).total / peak(torch.bfloat16)
    yield Row("training step of GPT-2 124M, 4 x 256 tokens, over the textbook's", t["textbook"] / t["ours"], 1.6, 1.9,
              f"{1024 / t['ours']:.0f} against {1024 / t['textbook']:.0f} tokens/s; at peak {1024 / limit:.0f}")


def curve_row() -> Row:
    """The same batches in the same order: what 16 bits change."""
    text = tokenized(data.shakespeare(), load_pretrained("gpt-mini")[1])
    losses = {}
    for precision in ("fp32", "bf16"):
        recipe = dataclasses.replace(CURVE, precision=precision)
        torch.manual_seed(0)
        model = LanguageModel(presets.get(recipe.preset)).train()
        optimizer = build_optimizer(model, recipe)
        batches = (batch_at(text.train, step, recipe.batch_size, recipe.context, 0) for step in range(recipe.steps))
        losses[precision] = torch.tensor([train_step(model, optimizer, *batch, recipe, step).loss
                                          for step, batch in enumerate(batches)]).view(-1, PART).mean(dim=1)
    off = (losses["bf16"] / losses["fp32"] - 1).abs().max().item() * 100
    return Row("loss of gpt-mini over 200 steps, bf16 off from fp32 at most", off, 1, None,
               f"means of {PART} steps; the last {losses['bf16'][-1]:.3f} against {losses['fp32'][-1]:.3f} nats",
               at_most=True, unit="%")


def minis_row() -> Row:
    """By the recipe that the shipped ones were trained with. DeepSeek's module for tokens ahead is left out."""
    steps, active = {}, {}
    for name in ("gpt-mini", "deepseek-mini"):
        config = presets.get(name).replace(n_mtp_modules=0)
        recipe = RECIPES[name]
        torch.manual_seed(0)
        model = LanguageModel(config).train()
        optimizer, ids = build_optimizer(model, recipe), peers.ids(model, 8 * 257).view(8, 257)
        steps[name] = partial(train_step, model, optimizer, ids[:, :-1], ids[:, 1:].contiguous(), recipe, 0)
        active[name] = count_parameters(config).active
    t = interleaved(steps, rounds=9)
    return Row("training step of deepseek-mini, over gpt-mini's", t["deepseek-mini"] / t["gpt-mini"], 1.5, None,
               f"{1000 * t['deepseek-mini']:.0f} against {1000 * t['gpt-mini']:.0f} ms for 8 x 256 tokens in fp32; "
               f"active parameters {active['deepseek-mini'] / 1e6:.2f} M and {active['gpt-mini'] / 1e6:.2f} M",
               at_most=True)
