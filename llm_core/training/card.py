"""What stands beside trained weights: card.json for programs, README.md for people. Figures are the stored file's."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from llm_core import accounting, data, presets, pretrained, tokenizer
from llm_core.acceptance import Acceptance
from llm_core.generation import generate
from llm_core.hf_config import read_object
from llm_core.model import LanguageModel
from llm_core.pretrained.store import load_weights, save_weights
from llm_core.programs import write_whole
from llm_core.sampling import Sampler
from llm_core.training.evaluate import bits_per_byte, second_token
from llm_core.training.recipe import Recipe

if TYPE_CHECKING:  # importing the loop takes a second that the site does not have
    from llm_core.training.loop import Result

PROMPTS = ("ROMEO:\n", "A true friend", "The king is dead")
SAMPLE_TOKENS, TEMPERATURE, TOP_K, SAMPLE_SEED = 80, 0.8, 50, 1
FIRST_STEPS = 200  # of the log are kept on the card, so that anybody can see within minutes whether a run goes alike


def sample(model: LanguageModel, prompt: str) -> str:
    course = tokenizer.get("course")
    ids = generate(model, course.encode(prompt), SAMPLE_TOKENS, Sampler(TEMPERATURE, TOP_K, seed=SAMPLE_SEED))
    return course.decode(ids[0].tolist())


def machine() -> str:
    """Where it was trained: "x86_64, torch 2.13.0, threads: 1"."""
    return f"{platform.machine()}, torch {torch.__version__.split('+')[0]}, threads: {torch.get_num_threads()}"


def describe(model: LanguageModel, recipe: Recipe, result: Result, text: data.TokenText, log: Sequence[dict] = ()
             ) -> dict:
    """The card of one model, measured on the model as read back from its file. log: rows of its training's log."""
    counts = accounting.count_parameters(model.config)
    about = {
        "config": model.config.to_dict(),
        "tokenizer": tokenizer.get("course").name,
        "corpus": text.name,
        "recipe": asdict(recipe),
        "parameters": counts.total,
        "active_parameters": counts.active,
        "mtp_parameters": counts.mtp,
        "tokens_read": recipe.tokens,
        "epochs": round(recipe.tokens / len(text.train), 2),
        "best_step": result.best_step,
        "minutes": round(result.seconds / 60, 1),
        "machine": machine(),
        "held_out_bytes": text.held_out_bytes,
        "bits_per_byte": round(bits_per_byte(model, *data.windows(text.held_out, recipe.context),
                                             text.held_out_bytes), 4),
        "samples": [sample(model, prompt) for prompt in PROMPTS],
        "curve": result.curve,
        "first_steps": [{name: row[name] for name in ("step", "loss", "mtp_loss", "gradient_norm")}
                        for row in log if row["step"] <= FIRST_STEPS],
    }
    if len(model.mtp):
        about["second_token"] = {name: second_token_of(a) for name, a in second_token(model, text).items()}
    return about


def second_token_of(a: Acceptance) -> dict:
    return {"greedy": round(a.greedy, 3), "expected": round(a.expected, 3), "positions": a.positions}


def write_mini(folder: Path, recipe: Recipe, result: Result, text: data.TokenText, log: Sequence[dict] = ()) -> None:
    """model.safetensors, card.json and README.md of one model. log: rows of its training's log."""
    save_weights(folder / "model.safetensors", {"": result.model})
    stored = load_weights(folder / "model.safetensors", result.model.config)
    about = describe(stored, recipe, result, text, log)
    _write_json(folder / "card.json", about)
    write_whole(folder / "README.md", mini_card(recipe.preset, about).encode())


def write_again(folder: Path, model: LanguageModel, text: data.TokenText, more: dict) -> Acceptance:
    """The same files again, for a model whose MTP modules have changed and nothing else; `more` is for its card.

    How often a guess of the stored module stands."""
    about = {**read_object(folder / "card.json", pretrained.MOST_CARD_BYTES), **more}
    save_weights(folder / "model.safetensors", {"": model})
    found = second_token(load_weights(folder / "model.safetensors", model.config), text)
    about["second_token"] = {name: second_token_of(a) for name, a in found.items()}
    _write_json(folder / "card.json", about)
    write_whole(folder / "README.md", mini_card(about["recipe"]["preset"], about).encode())
    return found["MTP"]


def write_grid(folder: Path, runs: list[tuple[Recipe, Result]], text: data.TokenText) -> None:
    """The same for many models in one file."""
    save_weights(folder / "model.safetensors", {recipe.preset: result.model for recipe, result in runs})
    models = {}
    for recipe, result in runs:
        stored = load_weights(folder / "model.safetensors", result.model.config, recipe.preset)
        models[recipe.preset] = describe(stored, recipe, result, text)
    _write_json(folder / "card.json", {"models": models})
    write_whole(folder / "README.md", grid_card(models).encode())


def bits(card: Path) -> dict[str, float]:
    """Held-out bits per byte of the models on a card.json; nothing if there is none."""
    if not card.is_file():
        return {}
    about = json.loads(card.read_text(encoding="utf-8"))
    models = about.get("models", {about.get("recipe", {}).get("preset", ""): about})
    return {name: model["bits_per_byte"] for name, model in models.items()}


def _write_json(path: Path, about: dict) -> None:
    write_whole(path, (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())


def mini_card(name: str, about: dict) -> str:
    """The card as a page to read."""
    recipe = about["recipe"]
    samples = "\n\n".join(f"```text\n{text}\n```" for text in about["samples"])
    mtp = f"; {about['mtp_parameters']:,} more in its MTP module" if about["mtp_parameters"] else ""
    ahead = "\n" + second_token_table(about["second_token"], about.get("drafting")) if "second_token" in about else ""
    again = f"`python -m llm_core.training --model {name}`"
    if "drafting" in about:
        again += f", then `python -m llm_core.training.drafting runs/{name}`"
    return f"""# {name}

{presets.description(name)}

| | |
|---|---|
| parameters | {about['parameters']:,} in all, {about['active_parameters']:,} active for a token{mtp} |
| held out | **{about['bits_per_byte']} bits per byte** on the last 5 % of each document \
({about['held_out_bytes']:,} bytes), of the stored bf16 file |
| data | {about['corpus']}, {about['tokens_read']:,} tokens read, {about['epochs']} times through |
| training | {recipe['steps']:,} steps of {recipe['batch_size']} x {recipe['context']} tokens, best weights at step \
{about['best_step']:,}; AdamW at {recipe['learning_rate']:g}, seed {recipe['seed']} |
| time | {about['minutes']} minutes ({about['machine']}) |
| again | {again} |
{ahead}
Held-out text is read in windows of {recipe['context']} tokens that overlap by half; each token is scored once.

What it writes (temperature {TEMPERATURE}, top-k {TOP_K}, seed {SAMPLE_SEED}, first {SAMPLE_TOKENS} tokens, not chosen):

{samples}
"""


def second_token_table(measured: dict[str, dict], drafting: dict | None = None) -> str:
    """drafting: what training.drafting did, if anything; the module's shares before it stand in a row of their own."""
    if drafting:
        measured = {"MTP": measured["MTP"], "MTP, untaught": drafting["before"], **measured}
    rows = "\n".join(f"| {name} | {a['greedy']:.1%} | {a['expected']:.1%} |" for name, a in measured.items())
    alone = f"""
The module was trained beside the model, on what the text says next. Then it was taught, alone, to say what the model
says: {drafting['recipe']['steps']:,} steps of {drafting['recipe']['batch_size']} x {drafting['recipe']['context']} \
tokens, {drafting['minutes']} minutes, by `llm_core/training/drafting.py`.
The model's own weights stayed as they were.
""" if drafting else ""
    return f"""Its MTP module guesses the token after the next one. How often such a guess would stand, at \
{measured['MTP']['positions']:,} places of
held-out text, the true text always given; below it guessers that have learned nothing but counts:

| who guesses | the model's likeliest token | accepted when drawn at temperature 1 |
|---|---|---|
{rows}
{alone}"""


def grid_card(models: dict[str, dict]) -> str:
    first = next(iter(models.values()))
    rows = "\n".join(f"| {name} | {m['parameters']:,} | {accounting.cache_bytes_per_token(presets.get(name)):,} | "
                     f"{m['bits_per_byte']} | {m['minutes']} |" for name, m in models.items())
    return f"""# The grid behind the sliders

{len(models)} small models in one file. Data, tokens ({first['tokens_read']:,} each), seed and recipe are the same;
only width, layers and attention differ. One seed each: a difference of a few hundredths of a bit may be luck.

| model | parameters | cache bytes a token (bf16) | held-out bits per byte | minutes |
|---|---|---|---|---|
{rows}

Made by `python -m llm_core.training --model grid` ({first['machine']}).
"""


def minis_table() -> str:
    """The README's table of the minis, from their cards."""
    rows = ["| model | parameters | active | cache bytes a token (bf16) | tokens read | minutes | bits per byte |",
            "|---|---|---|---|---|---|---|"]
    for name in presets.mini_names():
        about = pretrained.card(name)
        cached = accounting.cache_bytes_per_token(presets.get(name))
        rows.append(f"| [{name}](llm_core/pretrained/{name}/README.md) | {about['parameters']:,} | "
                    f"{about['active_parameters']:,} | {cached:,} | {about['tokens_read']:,} | {about['minutes']} | "
                    f"{about['bits_per_byte']} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(minis_table())
