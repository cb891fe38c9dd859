"""Small folders in Hugging Face's form for the tests, and the ways to change them."""

import json

import torch
from safetensors.torch import load_file, save_file

from llm_core import LanguageModel

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def wide(config, seed=0):
    torch.manual_seed(seed)
    model = LanguageModel(config).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():  # biases, norms and router biases too
            tensor += torch.randn(tensor.shape) * 0.2
    return model


def change(folder, edit):
    tensors = load_file(folder / FILE)
    edit(tensors)
    save_file(tensors, folder / FILE)


def configure(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def shard(folder, parts=3):
    """The same tensors in several files, and their index."""
    tensors = load_file(folder / FILE)
    (folder / FILE).unlink()
    weight_map = {name: f"model-{i % parts:05d}.safetensors" for i, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        save_file({name: t for name, t in tensors.items() if weight_map[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return weight_map


def same(a, b):
    assert a.state_dict().keys() == b.state_dict().keys()
    return all(torch.equal(t, b.state_dict()[name]) for name, t in a.state_dict().items())
