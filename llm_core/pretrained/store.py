"""Weights to and from safetensors files. Nothing is unpickled; a file that does not fit is named, not half-loaded."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llm_core.checkpoint.safetensors_files import save_tensors
from llm_core.checkpoint.sizes import check_size
from llm_core.config import ModelConfig
from llm_core.hf_config import inside
from llm_core.model import LanguageModel
from llm_core.validation import plain


def save_weights(path: Path, models: dict[str, LanguageModel]) -> None:
    """Write models into one file, in bf16 (buffers as they are), as "MODEL/tensor", or "tensor" where MODEL is ""."""
    tensors = {}
    for name, model in models.items():
        prefix = f"{name}/" if name else ""
        parameters = {key for key, _ in model.named_parameters()}
        for key, tensor in model.state_dict().items():
            dtype = torch.bfloat16 if key in parameters else tensor.dtype
            tensors[prefix + key] = tensor.detach().to(dtype).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")  # whole or not at all: a file that is cut off never takes the good one's place
    try:
        save_tensors(tensors, part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def load_weights(path: Path, config: ModelConfig, name: str = "") -> LanguageModel:
    """A model in 32 bits with the weights of a file that save_weights wrote, ready to generate.

    FileNotFoundError or ValueError, naming file, tensor and expectation, if it is missing, cut off or does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"the weight file {path.parent.name}/{path.name} is missing; train it again, or get it "
                                "from the project's repository")
    label, prefix = f"{path.parent.name}/{path.name}", f"{name}/" if name else ""
    try:
        with safe_open(inside(path.parent, path.name), framework="pt") as file:
            held = {key.removeprefix(prefix): file.get_slice(key).get_shape() for key in file.keys()
                    if key.startswith(prefix)}
            check_size(config, held.values(), f"{path.parent.name}/card.json")
            model = LanguageModel.unfilled(config)
            wanted = {key: tensor.shape for key, tensor in model.state_dict().items()}
            model.load_state_dict(_read(file, prefix, wanted, held, label), assign=True)
    except SafetensorError as error:
        raise ValueError(f"{label} is damaged or cut off ({plain(str(error))}); get it again, or train it "
                         "again") from None
    return model.eval()


def _read(file, prefix: str, wanted: dict[str, torch.Size], held: dict[str, list[int]],
          label: str) -> dict[str, Tensor]:
    missing, extra = sorted(wanted.keys() - held.keys()), sorted(held.keys() - wanted.keys())
    if missing:
        raise ValueError(f"{label} lacks {len(missing)} of {len(wanted)} tensors, first {prefix}{missing[0]}")
    if extra:
        raise ValueError(f"{label} holds {len(extra)} tensors that this model has no place for, "
                         f"first {plain(prefix + extra[0])}")
    tensors = {}
    for key, shape in wanted.items():
        if torch.Size(held[key]) != shape:
            raise ValueError(f"{label}: {prefix}{key} has shape {plain(str(held[key]))}, the model needs {list(shape)}")
        tensor = file.get_tensor(prefix + key)
        if not tensor.is_floating_point():
            raise ValueError(f"{label}: {prefix}{key} holds {tensor.dtype}, not floating-point numbers")
        tensors[key] = tensor.float()
    return tensors
