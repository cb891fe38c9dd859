"""The training loop: a batch, the loss, the gradient, one step of AdamW; now and then a look at held-out text."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core import presets
from llm_core.data import batch_at
from llm_core.model import LanguageModel
from llm_core.training.evaluate import bits_per_byte
from llm_core.training.recipe import Recipe


@dataclass
class Result:
    """The model with its best weights put back, and what was measured on the way."""

    model: LanguageModel
    best_step: int = 0
    best_bits_per_byte: float = float("inf")
    curve: list[dict] = field(default_factory=list)  # step, train_loss (nats a token), bits_per_byte (held out)
    seconds: float = 0.0


def build_optimizer(model: LanguageModel, recipe: Recipe) -> torch.optim.AdamW:
    """Weight decay on matrices only: norms and biases have no reason to be small."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": recipe.weight_decay},
                              {"params": others, "weight_decay": 0.0}],
                             lr=recipe.learning_rate, betas=recipe.betas, fused=True)


def train_step(model: LanguageModel, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor,
               recipe: Recipe, step: int) -> float:
    """One step on inputs and targets [B, T]; returns the loss before it, in nats a token."""
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate_at(step)
    out = model(inputs)
    loss = F.cross_entropy(out.logits.flatten(0, 1), targets.flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    optimizer.step()
    model.update_router_biases(out.routing, recipe.bias_update_speed)
    return loss.item()


def train(recipe: Recipe, train_tokens: Tensor, held_out: tuple[Tensor, Tensor], held_out_bytes: int,
          report: Callable[[dict], None] = lambda row: None) -> Result:
    """Train the recipe's preset. Over-fitting sets in on a small corpus, so the best weights are kept, not the last.

    train_tokens [N]; held_out: inputs and targets of data.windows. report gets each row of the curve.
    """
    torch.manual_seed(recipe.seed)
    model = LanguageModel(presets.get(recipe.preset)).train()
    optimizer = build_optimizer(model, recipe)
    result, best_weights, losses, start = Result(model), None, [], time.perf_counter()
    for step in range(recipe.steps):
        batch = batch_at(train_tokens, step, recipe.batch_size, recipe.context, recipe.seed)
        losses.append(train_step(model, optimizer, *batch, recipe, step))
        done = step + 1
        if done % recipe.evaluate_every == 0 or done == recipe.steps:
            held = bits_per_byte(model, *held_out, held_out_bytes)
            if held < result.best_bits_per_byte:
                result.best_bits_per_byte, result.best_step = held, done
                best_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            result.seconds = time.perf_counter() - start
            row = {"step": done, "train_loss": round(sum(losses) / len(losses), 4), "bits_per_byte": round(held, 4)}
            result.curve.append(row)
            report({**row, "seconds": round(result.seconds)})
            losses = []
    model.load_state_dict(best_weights)
    model.eval()
    return result
