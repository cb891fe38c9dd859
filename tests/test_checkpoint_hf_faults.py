"""Folders in Hugging Face's form that are damaged, lie, or lead elsewhere: each fault is named."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm_core.checkpoint.hf_folder import load_hf
from tests.small_folders import FILE, INDEX, change, configure, shard

NORM, EXPERT = "model.norm.weight", "model.layers.1.mlp.experts.5.up_proj.weight"


@pytest.mark.parametrize(("edit", "said"), [
    (lambda t: t.pop(EXPERT), f"v3/model.safetensors lacks 1 of .* tensors, first {EXPERT}"),
    (lambda t: t.update({"model.layers.9.x": torch.zeros(1)}), "holds 1 tensors .* no place for, first model.layers.9"),
    (lambda t: t.update({EXPERT: torch.zeros(32, 12)}), rf"{EXPERT} has shape \[32, 12\], the model needs \[12, 32\]"),
    (lambda t: t.update({NORM: torch.zeros(())}), r"model.norm.weight has shape \[\], the model needs \[32\]"),
    (lambda t: t.update({NORM: torch.zeros(32, dtype=torch.int32)}), "model.norm.weight is stored as I32, and only"),
    (lambda t: t.update({NORM: torch.zeros(32, dtype=torch.float64)}), "is stored as F64"),
    (lambda t: t.clear(), "lacks .* of .* tensors|the files hold 0 numbers")])
@pytest.mark.parametrize("sharded", [False, True])
def test_what_does_not_fit_is_named(folder, edit, said, sharded):
    change(folder, edit)
    if sharded and load_file(folder / FILE):
        shard(folder)
        said = said.replace("v3/model.safetensors", "v3/model.safetensors.index.json")
    with pytest.raises(ValueError, match=said):
        load_hf(folder)


def test_cut_off_files_and_lying_headers_are_named(folder):
    good = (folder / FILE).read_bytes()
    length = int.from_bytes(good[:8], "little")
    header = json.loads(good[8:8 + length])
    for size in (0, 4, 100, len(good) // 2, len(good) - 1):
        (folder / FILE).write_bytes(good[:size])
        with pytest.raises(ValueError, match="v3/model.safetensors is damaged or cut off"):
            load_hf(folder)
    lies = [{NORM: {**header[NORM], "shape": [64]}}, {NORM: {**header[NORM], "data_offsets": [0, 2**60]}},
            {NORM: {**header[NORM], "dtype": "F16"}}, {NORM: {**header[NORM], "shape": [-32]}},
            {NORM: {**header[NORM], "data_offsets": header[EXPERT]["data_offsets"]}}, {NORM: 3}]
    for lie in lies:
        text = json.dumps({**header, **lie}).encode()
        (folder / FILE).write_bytes(len(text).to_bytes(8, "little") + text + good[8 + length:])
        with pytest.raises(ValueError, match="v3/model.safetensors is damaged or cut off"):
            load_hf(folder)
    (folder / FILE).write_bytes(b"\xff" * 8 + good[8:])
    with pytest.raises(ValueError, match="is damaged or cut off"):
        load_hf(folder)


@pytest.mark.parametrize("file", ["../other.safetensors", "/tmp/x.safetensors", "..\\x.safetensors", "a/b.safetensors",
                                  "model.bin", "", ".safetensors", "C:x.safetensors", "x.safetensors\n"])
def test_an_index_leads_nowhere_else(folder, file):
    weight_map = shard(folder)
    weight_map[NORM] = file
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match="index.json names the file .*; only a safetensors file beside it"):
        load_hf(folder)


def test_an_index_and_its_shards_agree(folder):
    weight_map = shard(folder)
    gone = folder / weight_map[NORM]
    other = next(file for file in sorted(set(weight_map.values())) if file != gone.name)
    whole = gone.read_bytes()
    gone.unlink()
    with pytest.raises(FileNotFoundError, match=f"v3/{gone.name} is missing, which model.safetensors.index.json names"):
        load_hf(folder)
    gone.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=f"v3/{gone.name} is damaged or cut off"):
        load_hf(folder)
    gone.write_bytes(whole)
    (folder / INDEX).write_text(json.dumps({"weight_map": {**weight_map, NORM: other}}))
    with pytest.raises(ValueError, match=f"index.json says that {NORM} is in {other}, which lacks it"):
        load_hf(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    save_file(load_file(folder / other) | {NORM: torch.ones(32)}, folder / other)
    with pytest.raises(ValueError, match=f"{NORM} is in v3/model-.* and in v3/model-"):
        load_hf(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}',
                                  '{"weight_map": {"a": 1}}', "[" * 100_000])
def test_a_damaged_index_is_named(folder, text):
    shard(folder)
    (folder / INDEX).write_text(text)
    with pytest.raises(ValueError, match="index.json is no index of tensors"):
        load_hf(folder)


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_never_opened(folder, pickle):
    (folder / FILE).rename(folder / pickle)
    with pytest.raises(ValueError, match=f"{pickle}, a pickle: opening one can run any code, so it is not read"):
        load_hf(folder)
    (folder / pickle).unlink()
    with pytest.raises(FileNotFoundError, match="v3 holds neither model.safetensors nor"):
        load_hf(folder)


def test_a_config_of_another_size_is_refused_before_it_is_built(folder):
    configure(folder, num_hidden_layers=2**31 - 1)
    with pytest.raises(ValueError, match="describes a model of .* parameters, and the files hold"):
        load_hf(folder)
    configure(folder, num_hidden_layers=4)
    with pytest.raises(ValueError, match="lacks .* first model.layers.3."):
        load_hf(folder)
    configure(folder, num_hidden_layers=2)
    with pytest.raises(ValueError, match="no place for, first model.layers.2."):
        load_hf(folder)
