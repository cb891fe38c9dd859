"""A model that has learned one thing: to say again what stood behind a word the last time. `python -m` trains it anew.

The task has a right answer at any length: pairs of a key and a value are told once, among noise; at the end the keys
come again in another order, and behind each its value must be said. Keys differ within a text, so nothing is
ambiguous. The lesson on long contexts measures positions with it: course/04_rope/03_long_context.ipynb.

Training begins with short texts, where the way to do it is found quickly.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from llm_core import accounting
from llm_core.config import FeedForwardConfig, GroupedAttentionConfig, ModelConfig, RopeConfig
from llm_core.model import LanguageModel
from llm_core.pretrained import FOLDER
from llm_core.pretrained.store import load_weights, save_weights
from llm_core.training.recipe import Recipe

KEYS, NOISE = 24, 16  # ids: 24 keys, then 24 values, then 16 that mean nothing
CONTEXT = 1024  # the longest text of the training
# A model of two blocks: the first can look one token back, the second can find a key again. Its slowest pair turns
# 0.67 radians over 1,024 tokens; DeepSeek-V3's turns 0.55 over its original 4,096.
CONFIG = ModelConfig(
    vocab_size=2 * KEYS + NOISE, max_seq_len=CONTEXT, d_model=64, n_layers=2,
    attention=GroupedAttentionConfig(2), feed_forward=FeedForwardConfig(64, activation="swiglu"),
    rope=RopeConfig(2500.0), tie_embeddings=True, init_std=0.1)
# (tokens in a text, pairs in it, texts in a step); the next one begins when 20 steps have cost less than LEARNED.
STAGES = ((64, 16, 40), (128, 24, 24), (256, 24, 16), (512, 24, 8), (CONTEXT, 24, 6))
LEARNED, MOST = 0.15, 4000  # nats an answer, mean of 20 steps; and the steps after which a stage ends in any case
RECIPE = Recipe("copying", steps=200, batch_size=6, context=CONTEXT, learning_rate=3e-3, warmup_steps=1,
                weight_decay=0.01)  # the last stage
STEADY = replace(RECIPE, final_learning_rate=RECIPE.learning_rate, warmup_steps=100)  # those before it


def texts(count: int, length: int, pairs: int = KEYS, seed: int = 0, listed: bool = False
          ) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids [count, length], targets (the value to say, or -100), and how far back each pair was told (or 0).

    The last 2 * pairs tokens ask for the pairs in another order; a key's target is its value, the next token.
    Before that the pairs stand scattered, or, if `listed`, side by side at a random place, as in a phone book.
    ValueError if the pairs, told once and asked once, do not fit.
    """
    if not 1 <= pairs <= KEYS or length < 4 * pairs:
        raise ValueError(f"{pairs} pairs, told and asked, need {4 * pairs} tokens (1 to {KEYS} pairs), not {length}")
    draw, told = torch.Generator().manual_seed(seed), length - 2 * pairs  # where the questions begin
    ids = torch.randint(2 * KEYS, 2 * KEYS + NOISE, (count, length), generator=draw)
    targets, back = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row in range(count):
        keys = torch.randperm(KEYS, generator=draw)[:pairs]
        values = torch.randint(KEYS, 2 * KEYS, (pairs,), generator=draw)
        if listed:
            places = torch.randint(told - 2 * pairs + 1, (1,), generator=draw) + 2 * torch.arange(pairs)
        else:  # room for both tokens of a pair: choose among fewer places, then push each apart by one
            places = torch.randperm(told - pairs, generator=draw)[:pairs].sort().values + torch.arange(pairs)
        ids[row, places], ids[row, places + 1] = keys, values
        order = torch.randperm(pairs, generator=draw)
        asked = told + 2 * torch.arange(pairs)
        ids[row, asked], ids[row, asked + 1] = keys[order], values[order]
        targets[row, asked], back[row, asked] = values[order], asked - places[order]
    return ids, targets, back


@torch.no_grad()
def answers(model: Callable[[Tensor], Tensor], ids: Tensor, targets: Tensor) -> Tensor:
    """Which questions are answered rightly, text by text: true or false, [questions]. model: ids [1, T] -> logits."""
    return torch.cat([model(row[None])[0, right >= 0].argmax(-1) == right[right >= 0]
                      for row, right in zip(ids, targets)])


def train(seed: int = RECIPE.seed, stages=STAGES, last: Recipe = RECIPE, most: int = MOST, report=print
          ) -> tuple[LanguageModel, list[dict], float]:
    """The trained model, its curve (step, length of the texts, mean loss of 20 steps, in nats), and the seconds."""
    from llm_core.training.loop import build_optimizer, train_step  # late: takes a second that the site does not have

    torch.manual_seed(seed)
    model = LanguageModel(CONFIG).train()
    optimizer, began, step, curve = build_optimizer(model, last), time.perf_counter(), 0, []
    for number, (length, pairs, count) in enumerate(stages, start=1):
        recipe, losses = (last if number == len(stages) else STEADY), []
        while len(losses) < (last.steps if recipe is last else most):
            ids, targets, _ = texts(count, length, pairs, seed=1_000_003 * (seed + 1) + step)
            at, step = len(losses) if recipe is last else step, step + 1
            losses.append(train_step(model, optimizer, ids, targets, recipe, at).loss)
            recent = sum(losses[-20:]) / len(losses[-20:])
            if len(losses) % 20 == 0:
                curve.append({"step": step, "length": length, "loss": round(recent, 4)})
                report(f"step {step:>4}  {length:>5} tokens a text  loss {recent:.4f}")
            if recipe is not last and len(losses) >= 20 and recent < LEARNED:
                break
    return model.eval(), curve, time.perf_counter() - began


def write(folder: Path, model: LanguageModel, curve: list[dict], seconds: float, seed: int) -> None:
    """model.safetensors, card.json and README.md; the figures are the stored file's, on texts it never saw."""
    save_weights(folder / "model.safetensors", {"": model})
    stored = load_weights(folder / "model.safetensors", CONFIG)
    right = {name: answers(lambda ids: stored(ids).logits, *texts(20, CONTEXT, seed=1, listed=listed)[:2])
             for name, listed in (("scattered", False), ("listed", True))}
    about = {"config": CONFIG.to_dict(), "parameters": accounting.count_parameters(CONFIG).total,
             "task": f"{KEYS} keys, {KEYS} values, {NOISE} tokens of noise; each pair told once and asked once",
             "recipe": {**asdict(RECIPE), "seed": seed}, "stages": [list(s) for s in STAGES], "learned": LEARNED,
             "machine": f"{platform.machine()}, torch {torch.__version__.split('+')[0]}, "
                        f"threads: {torch.get_num_threads()}",
             "steps": curve[-1]["step"], "minutes": round(seconds / 60, 1), "questions": len(right["listed"]),
             "right": {name: round(ok.float().mean().item(), 4) for name, ok in right.items()}, "curve": curve}
    (folder / "card.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8", newline="\n")
    (folder / "README.md").write_text(page(about), encoding="utf-8", newline="\n")


def page(about: dict) -> str:
    """The card as a page to read."""
    stages = ", ".join(f"{length:,}" for length, *_ in about["stages"])
    right = {name: f"**{share:.1%}** with the pairs {name}" for name, share in about["right"].items()}
    return f"""# copying

A model that has learned one thing: to say again what stood behind a word the last time. It has two blocks, and RoPE
with a base of {CONFIG.rope.theta:,.0f}.

| | |
|---|---|
| parameters | {about['parameters']:,} |
| task | {about['task']} |
| right answers | {right['scattered']}, {right['listed']}: {about['questions']} questions each, in texts of \
{CONTEXT:,} tokens that it never saw, of the stored bf16 file |
| training | {about['steps']:,} steps, on texts of {stages} tokens; the next length begins when 20 steps have cost \
less than {about['learned']} nats an answer; AdamW at {RECIPE.learning_rate:g}, seed {about['recipe']['seed']} |
| time | {about['minutes']} minutes of one busy core ({about['machine']}) |
| again | `python -m llm_core.training.copying` |

It has never seen a longer text. What happens then, and what helps: `course/04_rope/03_long_context.ipynb`.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER / "copying", help="the folder to write into")
    parser.add_argument("--seed", type=int, default=RECIPE.seed)
    torch.set_num_threads(1)
    given = parser.parse_args()
    write(given.out, *train(given.seed), given.seed)
