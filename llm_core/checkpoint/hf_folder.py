"""A model in Hugging Face's form, in and out: a folder with config.json and safetensors files.

GPT-2, Llama, Qwen2, Mistral, Mixtral, DeepSeekMoE, DeepSeek-V2, V3 and R1, Moonlight and Kimi-K2 are read; what
transformers has a class for is written, so that it and the engines that read its folders (vLLM, SGLang) can serve it.
"""

from __future__ import annotations

import json
import reprlib
import shutil
from pathlib import Path

import torch
from torch import Tensor

from llm_core import programs
from llm_core.checkpoint.gguf_files import rows_in_halves
from llm_core.checkpoint.names import GPT2_PREFIX, IGNORED, Link, links, repeated
from llm_core.checkpoint.safetensors_files import BLOCK, SINGLE, TensorFiles, save_tensors
from llm_core.checkpoint.sizes import check_size
from llm_core.checkpoint.tokenizer_json import TOKENIZER_FILE, write_tokenizer
from llm_core.config import GroupedAttentionConfig, ModelConfig
from llm_core.hf_config import from_hf, read_json, to_hf
from llm_core.model import LanguageModel
from llm_core.tokenizer import Tokenizer
from llm_core.validation import plain, shown


def load_hf(folder: str | Path, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """The model in a folder, its parameters in `dtype`, ready to generate. Routers' selection biases stay in 32 bits.

    Tensors go one after another to their place, so memory never holds much more than the model. Everything is checked
    by the files' headers before the first number is read. V3's MTP modules are read where the files hold them (those
    that transformers writes do not: the model then has n_mtp_modules 0). FileNotFoundError or ValueError, naming file,
    tensor and expectation, if something is missing, too much, damaged, or of another kind or shape.
    """
    folder = Path(folder)
    if not dtype.is_floating_point or dtype.itemsize < 2:
        raise ValueError(f"dtype must be torch.float32, bfloat16, float16 or float64, not {dtype}")
    about = read_json(folder)
    config, kind = from_hf(about), about["model_type"]
    _check_quantization(about.get("quantization_config"))
    files = TensorFiles(folder)
    names = _plain_names(files, kind)
    if not any(name.startswith(f"model.layers.{config.n_layers}.") for name in names):
        config = config.replace(n_mtp_modules=0)
    check_size(config, files.shapes.values(), f"{folder.name}/config.json", stacked=False)
    model = LanguageModel.unfilled(config)
    empty = model.state_dict()
    plan, same = list(links(config, kind, empty)), repeated(config)
    _check_headers(files, names, plan, same, empty)

    parameters = {name for name, _ in model.named_parameters()}
    weights = {name: torch.empty(tensor.shape, dtype=dtype if name in parameters else torch.float32)
               for name, tensor in empty.items()}
    for link in plan:
        _fill(link, files, names[link.theirs], weights)
    for theirs in same.keys() & names.keys():
        for start, rows in files.pieces(names[theirs]):
            if not torch.equal(rows.to(dtype), weights[same[theirs]][start:start + len(rows)]):
                raise ValueError(f"{files.label(names[theirs])}: {theirs} must equal {same[theirs]}, which the model "
                                 "shares with it, and does not")
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _check_quantization(about: object) -> None:
    if about is None:
        return
    method = about.get("quant_method") if isinstance(about, dict) else None
    block = about.get("weight_block_size") if isinstance(about, dict) else None
    if method != "fp8" or block != [BLOCK, BLOCK]:
        raise ValueError(f"the weights are quantised by {shown(method)} in blocks of {reprlib.repr(block)}; only fp8 "
                         f"in blocks of [{BLOCK}, {BLOCK}] can be read here, or the same model in 16 bits")


def _plain_names(files: TensorFiles, kind: str) -> dict[str, str]:
    """The tables' names of the tensors -> the file's. They differ by GPT-2's prefix alone."""
    prefix = GPT2_PREFIX if kind == "gpt2" else ""
    names = {name.removeprefix(prefix): name for name in files.shapes}
    if len(names) < len(files.shapes):
        twice = next(name for name in files.shapes if prefix + name in files.shapes)
        raise ValueError(f"{files.label(twice)} holds {plain(twice)} and {plain(prefix + twice)}, which are one "
                         "tensor's names")
    return names


def _check_headers(files: TensorFiles, names: dict[str, str], plan: list[Link], same: dict[str, str],
                   empty: dict[str, Tensor]) -> None:
    missing = [link.theirs for link in plan if link.theirs not in names]
    if missing:
        raise ValueError(f"{files.label(missing[0])} lacks {len(missing)} of {len(plan)} tensors, first {missing[0]}")
    for link in plan:
        files.check(names[link.theirs], link.shape(empty))
    for theirs in same.keys() & names.keys():
        files.check(names[theirs], list(empty[same[theirs]].shape))
    known = {link.theirs for link in plan} | same.keys()
    extra = sorted(name for name in names.keys() - known if not name.endswith(IGNORED))
    if extra:
        raise ValueError(f"{files.label(names[extra[0]])} holds {len(extra)} tensors that this model has no place for, "
                         f"first {plain(names[extra[0]])}")


def _fill(link: Link, files: TensorFiles, name: str, weights: dict[str, Tensor]) -> None:
    parts = link.parts(weights)
    if link.transposed:  # rows of theirs are columns of ours
        whole = [part.T for part in parts]
        for start, rows in files.pieces(name):
            for part, its in zip(whole, rows.split([len(p) for p in parts], dim=-1), strict=True):
                part[start:start + len(rows)] = its
    elif len(parts) > 1:  # GPT-2's joined biases
        (_, rows), = files.pieces(name)
        for part, its in zip(parts, rows.split([len(p) for p in parts]), strict=True):
            part.copy_(its)
    else:
        for start, rows in files.pieces(name):
            parts[0][start:start + len(rows)] = rows


def save_hf(model: LanguageModel, folder: str | Path, tokenizer: Tokenizer | None = None,
            dtype: torch.dtype = torch.bfloat16) -> None:
    """Write a folder that transformers opens with equal logits: config.json, model.safetensors, and the tokenizer's.

    The folder must not hold anything yet; it appears whole or not at all. ValueError if it does, or if transformers
    has no model that computes the same; OSError if there is no room or no right.
    """
    folder = Path(folder)
    about = to_hf(model.config)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder.name} already holds something; give a new or an empty folder")
    if tokenizer is not None and tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(f"the tokenizer has {tokenizer.vocab_size} ids, the model a vocabulary of "
                         f"{model.config.vocab_size}: it is another model's")
    about["torch_dtype"] = str(dtype).removeprefix("torch.")
    if tokenizer is not None and tokenizer.end_of_text is not None:
        about["bos_token_id"] = about["eos_token_id"] = tokenizer.end_of_text
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        save_tensors(_published(model, about["model_type"], dtype), part / SINGLE, {"format": "pt"})
        (part / "config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        if tokenizer is not None:
            write_tokenizer(tokenizer, part / TOKENIZER_FILE, model.config.max_seq_len)
        if folder.exists():
            folder.rmdir()
        part.replace(folder)
    except OSError as problem:
        raise OSError(f"{folder} could not be written ({programs.reason(problem)}), and nothing of it was; make room, "
                      "or name another folder") from problem
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _published(model: LanguageModel, kind: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor by its published name, parameters in `dtype`, buffers in 32 bits."""
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    buffers = {name for name, _ in model.named_buffers()}
    out = {}
    for link in links(model.config, kind, weights):
        name = GPT2_PREFIX + link.theirs if kind == "gpt2" and link.theirs != "lm_head.weight" else link.theirs
        wanted = torch.float32 if link.ours[0] in buffers else dtype
        tensor = link.published(in_halves(model.config, {n: weights[n] for n in link.ours}))
        out[name] = tensor.to("cpu", wanted, copy=True).contiguous()
    return out


def in_halves(config: ModelConfig, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the rows of grouped attention's queries and keys in Llama's order, the only one files know."""
    turned = config.rope is not None and config.rope.layout == "interleaved"
    if not (turned and isinstance(config.attention, GroupedAttentionConfig)):
        return weights
    moved = {name: rows_in_halves(tensor.reshape(len(tensor), -1), config.head_dim).view(tensor.shape)
             for name, tensor in weights.items() if ".q_proj." in name or ".k_proj." in name}
    return {**weights, **moved}
