"""Weights to and from safetensors files. Nothing is unpickled; a file that does not fit is named, not half-loaded."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llm_core.checkpoint.safetensors_files import save_tensors
from llm_core.config import ModelConfig
from llm_core.model import LanguageModel


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
    model = LanguageModel.unfilled(config)
    wanted = {key: tensor.shape for key, tensor in model.state_dict().items()}
    model.load_state_dict(_read(path, f"{name}/" if name else "", wanted), assign=True)
    return model.eval()


def _read(path: Path, prefix: str, wanted: dict[str, torch.Size]) -> dict[str, Tensor]:
    label = f"{path.parent.name}/{path.name}"
    try:
        with safe_open(path, framework="pt") as file:
            held = {key.removeprefix(prefix) for key in file.keys() if key.startswith(prefix)}
            missing, extra = sorted(wanted.keys() - held), sorted(held - wanted.keys())
            if missing:
                raise ValueError(f"{label} lacks {len(missing)} of {len(wanted)} tensors, first {prefix}{missing[0]}")
            if extra:
                raise ValueError(f"{label} holds {len(extra)} tensors that this model has no place for, "
                                 f"first {prefix}{extra[0]}")
            tensors = {}
            for key, shape in wanted.items():
                tensor = file.get_tensor(prefix + key)
                if tensor.shape != shape:
                    raise ValueError(f"{label}: {prefix}{key} has shape {list(tensor.shape)}, "
                                     f"the model needs {list(shape)}")
                if not tensor.is_floating_point():
                    raise ValueError(f"{label}: {prefix}{key} holds {tensor.dtype}, not floating-point numbers")
                tensors[key] = tensor.float()
            return tensors
    except SafetensorError as error:
        raise ValueError(f"{label} is damaged or cut off ({error}); get it again, or train it again") from None
