"""Train a mini, or the whole grid, and write its weights and card.

    python -m llm_core.training --model gpt-mini             into runs/gpt-mini
    python -m llm_core.training --model grid                 all models of the grid
    python -m llm_core.training --model gpt-mini --data my_texts/
    python -m llm_core.training --retrain-all                the shipped files, made again
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from llm_core import data, presets, pretrained, tokenizer
from llm_core.training.card import write_grid, write_mini
from llm_core.training.loop import Result, train
from llm_core.training.recipe import RECIPES, Recipe


def train_one(recipe: Recipe, corpus: data.Corpus) -> Result:
    """Train with a progress bar; a line for each look at held-out text."""
    train_tokens, held_out_tokens = data.tokens(corpus, tokenizer.get("course"))
    held_out = data.windows(held_out_tokens, recipe.context)
    with tqdm(total=recipe.steps, unit="step", desc=recipe.preset) as bar:
        def report(row: dict) -> None:
            bar.update(row["step"] - bar.n)
            bar.write(f"{recipe.preset}: step {row['step']}, {row['seconds']} s, training loss {row['train_loss']} "
                      f"nats a token, held out {row['bits_per_byte']} bits per byte")
        return train(recipe, train_tokens, held_out, data.held_out_bytes(corpus), report)


def run(model: str, corpus: data.Corpus, out: Path, changes: dict) -> None:
    if model == pretrained.GRID:
        recipes = [dataclasses.replace(RECIPES[name], **changes) for name in presets.grid_names()]
        write_grid(out, [(recipe, train_one(recipe, corpus)) for recipe in recipes], corpus)
    else:
        recipe = dataclasses.replace(RECIPES[model], **changes)
        write_mini(out, recipe, train_one(recipe, corpus), corpus)
    print(f"wrote {out}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m llm_core.training", description="Train a small model.")
    parser.add_argument("--model", choices=[*RECIPES, pretrained.GRID])
    parser.add_argument("--data", help="a text file or a folder of them; without it, Shakespeare's plays")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--out", type=Path, help="folder to write; runs/MODEL if not given")
    parser.add_argument("--threads", type=int, help="processor threads; all if not given")
    parser.add_argument("--retrain-all", action="store_true", help="make the shipped files again, in their place")
    options = parser.parse_args(arguments)
    if not options.model and not options.retrain_all:
        parser.error("name a --model, or --retrain-all")
    if options.threads:
        torch.set_num_threads(options.threads)
    changes = {key: value for key in ("steps", "seed") if (value := getattr(options, key)) is not None}
    try:
        corpus = data.read_text(options.data) if options.data else data.shakespeare()
        if options.retrain_all:
            for model in (*presets.mini_names(), pretrained.GRID):
                run(model, corpus, pretrained.FOLDER / model, changes)
        else:
            run(options.model, corpus, options.out or Path("runs") / options.model, changes)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
