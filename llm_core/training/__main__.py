"""Train a mini, or the whole grid, and write its weights and card. Stopped, however roughly, the same command goes on.

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

from llm_core import data, presets, pretrained, token_files, tokenizer
from llm_core.training.card import PROMPTS, sample, write_grid, write_mini
from llm_core.training.loop import Result, train
from llm_core.training.recipe import RECIPES, Recipe

SETTINGS = ("steps", "batch_size", "context", "learning_rate", "warmup_steps", "evaluate_every", "seed", "accumulate",
            "mtp_weight", "precision")  # of the recipe, that the command line may change


def read(source: str | None, folder: Path) -> data.TokenText:
    """The text to learn from: the plays, or any source, whose tokens are kept in the folder."""
    course = tokenizer.get("course")
    if source is None:
        return data.tokenized(data.shakespeare(), course)
    with tqdm(unit="B", unit_scale=True, desc="reading text", leave=False) as bar:
        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
        return token_files.prepare(source, course, folder, progress)


def train_one(recipe: Recipe, text: data.TokenText, folder: Path, checkpoint_every: int) -> Result:
    """Train with a progress bar; a line and a sample for each look at held-out text. Log and checkpoints: in folder."""
    held_out = data.windows(text.held_out, recipe.context)
    with tqdm(total=recipe.steps, unit="step", desc=recipe.preset) as bar:
        def report(row: dict) -> None:
            if bar.n == 0 and row["step"] > 1:
                bar.initial = row["step"] - 1  # a run that goes on: its speed counts from here
                bar.write(f"{recipe.preset}: going on from step {bar.initial}")
                bar.update(bar.initial)
            bar.update(row["step"] - bar.n)
            if "bits_per_byte" in row:
                bar.write(f"{recipe.preset}: step {row['step']}, {row['seconds']} s, training loss {row['train_loss']} "
                          f"nats a token, held out {row['bits_per_byte']} bits per byte")
                with (folder / "samples.txt").open("a", encoding="utf-8", newline="\n") as file:
                    file.write(f"--- step {row['step']}\n{sample(row['model'], PROMPTS[0])}\n\n")
        return train(recipe, text.train, held_out, text.held_out_bytes, report, folder=folder,
                     checkpoint_every=checkpoint_every)


def run(model: str, text: data.TokenText, out: Path, work: Path, changes: dict, checkpoint_every: int) -> None:
    """Train into the folder `work`, and write what is to be kept into `out`."""
    if model == pretrained.GRID:
        recipes = [dataclasses.replace(RECIPES[name], **changes) for name in presets.grid_names()]
        write_grid(out, [(recipe, train_one(recipe, text, work / recipe.preset, checkpoint_every))
                         for recipe in recipes], text)
    else:
        recipe = dataclasses.replace(RECIPES[model], **changes)
        write_mini(out, recipe, train_one(recipe, text, work, checkpoint_every), text)
    print(f"wrote {out}")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m llm_core.training", description="Train a small model.")
    p.add_argument("--model", choices=[*RECIPES, pretrained.GRID])
    p.add_argument("--data", help="a .txt, .md or .jsonl file, a folder of them, or hf:OWNER/NAME, a dataset on the "
                                  "Hugging Face hub; without it, Shakespeare's plays")
    p.add_argument("--out", type=Path, help="folder to write; runs/MODEL if not given")
    p.add_argument("--threads", type=int, help="processor threads; all if not given")
    p.add_argument("--checkpoint-every", type=int, default=200, help="steps between two checkpoints (default 200)")
    p.add_argument("--retrain-all", action="store_true", help="make the shipped files again, in their place")
    settings = p.add_argument_group("what the recipe may have otherwise")
    kinds = {field.name: {"int": int, "float": float, "str": str}[field.type] for field in dataclasses.fields(Recipe)
             if field.name in SETTINGS}
    for name in SETTINGS:
        settings.add_argument(f"--{name.replace('_', '-')}", type=kinds[name])
    return p


def main(arguments: list[str] | None = None) -> int:
    p = parser()
    options = p.parse_args(arguments)
    if not options.model and not options.retrain_all:
        p.error("name a --model, or --retrain-all")
    if options.checkpoint_every < 1:
        p.error(f"--checkpoint-every must be at least 1, not {options.checkpoint_every}")
    if options.threads:
        torch.set_num_threads(options.threads)
    changes = {key: value for key in SETTINGS if (value := getattr(options, key)) is not None}
    try:
        for recipe in RECIPES.values():  # says so, before anything is read or written, if the settings cannot be
            dataclasses.replace(recipe, **changes)
        if options.retrain_all:
            text = read(options.data, Path("runs") / "retrain" / "tokens")
            for model in (*presets.mini_names(), pretrained.GRID):
                work = Path("runs") / "retrain" / model
                run(model, text, pretrained.FOLDER / model, work, changes, options.checkpoint_every)
        else:
            out = options.out or Path("runs") / options.model
            run(options.model, read(options.data, out / "tokens"), out, out, changes, options.checkpoint_every)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
