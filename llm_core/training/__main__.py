"""Train a mini, or the whole grid, and write its weights and card. Stopped, however roughly, the same command goes on.

    python -m llm_core.training --model gpt-mini             into runs/gpt-mini
    python -m llm_core.training --model grid                 all models of the grid
    python -m llm_core.training --model gpt-mini --data my_texts/
    python -m llm_core.training --retrain-all                the shipped files, made again
    torchrun --nproc-per-node 4 -m llm_core.training …       the same in four processes, see ranks.py
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path

from llm_core import programs

with programs.starting():
    import torch
    from tqdm import tqdm

    from llm_core import data, presets, pretrained, token_files, tokenizer
    from llm_core.training.card import PROMPTS, bits, sample, write_grid, write_mini
    from llm_core.training.log import Log
    from llm_core.training.loop import Result, train
    from llm_core.training.ranks import Ranks, gathered, lost, start
    from llm_core.training.recipe import RECIPES, Recipe

SETTINGS = ("steps", "batch_size", "context", "learning_rate", "warmup_steps", "evaluate_every", "seed", "accumulate",
            "mtp_weight", "precision")  # of the recipe, that the command line may change


def read(source: str | None, folder: Path, ranks: Ranks) -> data.TokenText:
    """The text to learn from: the plays, or any source, whose tokens are kept in the folder."""
    course = tokenizer.get("course")
    if source is None:
        return data.tokenized(data.shakespeare(), course)
    if not ranks.first:
        ranks.agree("")  # the first one makes the files
        return token_files.prepare(source, course, folder)
    problem = ""
    try:
        return _prepare(source, course, folder)
    except (ValueError, OSError) as error:
        problem = str(error)
        raise
    finally:
        if ranks.size > 1:
            with contextlib.suppress(OSError):
                ranks.agree(problem)


def _prepare(source: str, course: tokenizer.Tokenizer, folder: Path) -> data.TokenText:
    with tqdm(unit="B", unit_scale=True, desc="reading text", leave=False) as bar:
        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
        return token_files.prepare(source, course, folder, progress)


def train_one(recipe: Recipe, text: data.TokenText, folder: Path, checkpoint_every: int, ranks: Ranks) -> Result:
    """Train with a progress bar; a line and a sample for each look at held-out text. Log and checkpoints: in folder."""
    held_out = data.windows(text.held_out, recipe.context)
    with tqdm(total=recipe.steps, unit="step", desc=recipe.preset, disable=not ranks.first) as bar:
        def report(row: dict) -> None:
            if not ranks.first:
                return
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
                     checkpoint_every=checkpoint_every, ranks=ranks)


def run(model: str, text: data.TokenText, out: Path, work: Path, changes: dict, checkpoint_every: int,
        ranks: Ranks) -> None:
    """Train into the folder `work`, and write what is to be kept into `out`."""
    names = presets.grid_names() if model == pretrained.GRID else [model]
    recipes = [dataclasses.replace(RECIPES[name], **changes) for name in names]
    done = [(recipe, train_one(recipe, text, work / recipe.preset if len(names) > 1 else work, checkpoint_every, ranks))
            for recipe in recipes]
    for _, result in done:
        result.model = gathered(result.model, ranks)
    if not ranks.first:
        return
    before = bits(out / "card.json")
    if model == pretrained.GRID:
        write_grid(out, done, text)
    else:
        write_mini(out, *done[0], text, Log(work / "log.csv").rows())
    print(f"wrote {out}")
    for name, now in bits(out / "card.json").items():
        if name in before:
            print(f"{name}: {now} bits per byte, before {before[name]}: {now / before[name] - 1:+.2%}")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m llm_core.training", description="Train a small model.")
    p.add_argument("--model", choices=[*RECIPES, pretrained.GRID])
    p.add_argument("--data", help="a .txt, .md or .jsonl file, a folder of them, or hf:OWNER/NAME, a dataset on the "
                                  "Hugging Face hub; without it, Shakespeare's plays")
    p.add_argument("--out", type=Path, help="folder to write; runs/MODEL if not given")
    p.add_argument("--threads", type=int, help="processor threads; all if not given")
    p.add_argument("--parallel", default="ddp", help="under torchrun: ddp, every process holds the model (default); "
                                                     "fsdp, it is split between them; experts, its experts are")
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
    ranks = Ranks()
    try:
        ranks = start(options.parallel)
        for recipe in RECIPES.values():  # says so, before anything is read or written, if the settings cannot be
            dataclasses.replace(recipe, **changes)
        if options.retrain_all:
            from llm_core.training import drafting  # a program of its own, with a beginning of its own

            text = read(options.data, Path("runs") / "retrain" / "tokens", ranks)
            for model in (*presets.mini_names(), pretrained.GRID):
                work = Path("runs") / "retrain" / model
                run(model, text, pretrained.FOLDER / model, work, changes, options.checkpoint_every, ranks)
                if ranks.first and model == drafting.RECIPE.preset:
                    drafting.write(pretrained.FOLDER / model, text, drafting.RECIPE)
        else:
            out = options.out or Path("runs") / options.model
            text = read(options.data, out / "tokens", ranks)
            run(options.model, text, out, out, changes, options.checkpoint_every, ranks)
    except (ValueError, OSError) as error:
        if ranks.first:
            if isinstance(error, OSError) and error.errno and not error.filename:  # a file that was open already
                error.filename = str(options.out or "runs")
            print(programs.sentence(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if ranks.first:
            print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return programs.STOPPED
    except RuntimeError as error:
        if ranks.size == 1 or not lost(error):
            raise
        print(f"process {ranks.rank} of {ranks.size}: another process of this run is gone, so it ends; the same "
              "command goes on from the last checkpoint", file=sys.stderr, flush=True)
        return 1
    ranks.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
