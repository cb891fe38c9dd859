"""Train a finished model's MTP modules alone, so that they guess what this model will say, and not what the text does.

    python -m llm_core.training.drafting runs/deepseek-mini     a folder that training wrote; its files are made anew

Beside the model, a module learns which token comes next in the text. As a draft it is judged otherwise: its guess
stands where the model agrees, whether both are right or both are wrong (see acceptance). So here the model is the
teacher, frozen, and its distribution is the target: distillation (Hinton et al. 2015, arXiv:1503.02531), for drafts
DistillSpec (Zhou et al. 2023, arXiv:2310.08461). Not one of the model's own weights is touched, so it writes what it
wrote before; only more guesses stand. Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path

from llm_core import programs

with programs.starting():
    import numpy as np
    import torch
    import torch.nn.functional as F
    from torch import Tensor
    from tqdm import tqdm

    from llm_core import data, load_pretrained, pretrained, token_files, tokenizer
    from llm_core.acceptance import Acceptance
    from llm_core.model import LanguageModel
    from llm_core.training.card import machine, second_token_of, write_again
    from llm_core.training.evaluate import second_token
    from llm_core.training.loop import build_optimizer
    from llm_core.training.recipe import Recipe

RECIPE = Recipe("deepseek-mini", steps=6000, learning_rate=2e-3, final_learning_rate=3e-5, warmup_steps=50)
TOLD = ("steps", "batch_size", "context", "learning_rate", "seed")  # of the recipe, on the card


def disagreement(model: LanguageModel, token_ids: Tensor) -> Tensor:
    """How surprised the modules are by what the model says, in nats a token, the mean of all depths: token_ids [B, T].

    Row i of depth k and row i + k of the model know the same tokens, and say the same one. The cross-entropy is least
    where both distributions are one.
    """
    with torch.no_grad():
        out = model(token_ids)
        says = out.logits.float().softmax(-1)  # [B, T, V]
    losses = [F.cross_entropy(depth.logits.float().flatten(0, 1), says[:, k:].flatten(0, 1))
              for k, depth in enumerate(model.predict_ahead(out.hidden, token_ids), start=1)]
    return torch.stack(losses).mean()


def teach(model: LanguageModel, train_tokens: Tensor | np.ndarray, recipe: Recipe,
          report: Callable[[int, float], None] = lambda step, loss: None) -> None:
    """Train the MTP modules in place, on texts [N] and this recipe; report is told each step and its loss."""
    model.eval().requires_grad_(False)
    model.mtp.requires_grad_(True)
    optimizer = build_optimizer(model, recipe)
    for step in range(recipe.steps):
        ids, _ = data.batch_at(train_tokens, step, recipe.batch_size, recipe.context, recipe.seed)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        loss = disagreement(model, ids)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.mtp.parameters(), recipe.clip_norm)
        optimizer.step()
        report(step + 1, loss.item())
    model.requires_grad_(True)


def write(folder: Path, text: data.TokenText, recipe: Recipe) -> tuple[Acceptance, Acceptance]:
    """Train the modules of the model in `folder`, write its files anew; how often a guess stands, before and after.

    ValueError for a model without MTP modules.
    """
    model, began = load_pretrained(folder)[0], time.perf_counter()
    if not len(model.mtp):
        raise ValueError(f"the model in {folder} has no MTP modules that could be trained; deepseek-mini has one")
    before, curve, losses = second_token(model, text)["MTP"], [], []
    with tqdm(total=recipe.steps, unit="step", desc=folder.name) as bar:
        def report(step: int, loss: float) -> None:
            losses.append(loss)
            bar.update()
            if step % recipe.evaluate_every == 0 or step == recipe.steps:
                curve.append({"step": step, "nats": round(sum(losses) / len(losses), 4),
                              **second_token_of(second_token(model, text)["MTP"])})
                losses.clear()
                bar.write(f"step {step}: a guess is the model's likeliest token in {curve[-1]['greedy']:.1%}")

        teach(model, text.train, recipe, report)
    about = {"recipe": {name: getattr(recipe, name) for name in TOLD}, "before": second_token_of(before),
             "minutes": round((time.perf_counter() - began) / 60, 1), "curve": curve, "machine": machine()}
    return before, write_again(folder, model, text, {"drafting": about})


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m llm_core.training.drafting",
                                description="Train a finished model's MTP modules to guess what it will say.")
    p.add_argument("folder", type=Path, help="the model's folder, as training wrote it")
    p.add_argument("--data", help="what the model learned from, as for training; without it, Shakespeare's plays")
    p.add_argument("--steps", type=int, default=RECIPE.steps, help=f"default {RECIPE.steps:,}")
    p.add_argument("--threads", type=int, help="processor threads; all if not given")
    options = p.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        trained = pretrained.card(options.folder).get("recipe", {})
        recipe = dataclasses.replace(RECIPE, steps=options.steps, context=trained.get("context", RECIPE.context))
        course = tokenizer.get("course")
        text = token_files.prepare(options.data, course, options.folder / "tokens") if options.data else data.tokenized(
            data.shakespeare(), course)
        before, after = write(options.folder, text, recipe)
    except (ValueError, OSError) as error:
        print(programs.sentence(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the model is as it was", file=sys.stderr)
        return programs.STOPPED
    print(f"wrote {options.folder}: a guess is the model's likeliest token in {after.greedy:.1%}, before in "
          f"{before.greedy:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
