"""Folders in Hugging Face's form: what is saved comes back, in every way to store it; MTP modules; writing."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm_core import load_pretrained, presets
from llm_core.checkpoint.hf_folder import load_hf, save_hf
from llm_core.hf_config import to_hf
from tests.small_folders import FILE, change, same, shard, wide
from tests.tiny_configs import CONFIGS, build, some_ids

WRITABLE = [name for name in CONFIGS if name not in ("MLA without RoPE", "MHA", "MQA")]


@pytest.mark.parametrize("name", WRITABLE)
def test_what_is_saved_comes_back(tmp_path, name):
    model = wide(CONFIGS[name])
    save_hf(model, tmp_path / "f", dtype=torch.float32)
    assert same(load_hf(tmp_path / "f"), model) and not load_hf(tmp_path / "f").training


@pytest.mark.parametrize("name", ["MHA", "MQA"])
def test_grouped_attention_in_interleaved_pairs_is_saved_in_halves(tmp_path, name):
    biased = CONFIGS[name].attention.replace(qkv_bias=True)
    model = wide(CONFIGS[name].replace(attention=biased))
    save_hf(model, tmp_path / "f", dtype=torch.float32)
    loaded = load_hf(tmp_path / "f")
    assert loaded.config.rope.layout == "halves" and not same(loaded, model)
    torch.testing.assert_close(loaded(some_ids()).logits, model(some_ids()).logits)


def test_gpt2_names_with_and_without_their_prefix(tmp_path):
    model = wide(CONFIGS["GPT-2"])
    save_hf(model, tmp_path / "f", dtype=torch.float32)
    names = load_file(tmp_path / "f" / FILE).keys()
    assert "transformer.h.0.attn.c_attn.weight" in names and "lm_head.weight" not in names
    tensors = {name.removeprefix("transformer."): t for name, t in load_file(tmp_path / "f" / FILE).items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 64, 64).tril()  # old files hold the triangle, which is no weight
    save_file(tensors, tmp_path / "f" / FILE)
    assert same(load_hf(tmp_path / "f"), model)
    tensors["transformer.wte.weight"] = torch.zeros(61, 32)
    save_file(tensors, tmp_path / "f" / FILE)
    with pytest.raises(ValueError, match="holds wte.weight and transformer.wte.weight, which are one"):
        load_hf(tmp_path / "f")


def test_shards_hold_the_same(folder):
    assert len(set(shard(folder).values())) == 3
    assert same(load_hf(folder), build("DeepSeek-V3"))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_sixteen_bits_in_and_out(tmp_path, stored):
    model = wide(CONFIGS["DeepSeek-V3"])
    save_hf(model, tmp_path / "f", dtype=stored)
    tensors = load_file(tmp_path / "f" / FILE)
    biases = {name for name, t in tensors.items() if t.dtype == torch.float32}
    assert biases == {f"model.layers.{i}.mlp.gate.e_score_correction_bias" for i in (1, 2)}
    assert json.loads((tmp_path / "f" / "config.json").read_text())["torch_dtype"] == str(stored).partition(".")[2]
    loaded = load_hf(tmp_path / "f")
    for name, tensor in model.state_dict().items():
        rounded = tensor if "selection_bias" in name else tensor.to(stored).float()
        assert torch.equal(loaded.state_dict()[name], rounded), name
    low = load_hf(tmp_path / "f", dtype=torch.bfloat16)
    assert {p.dtype for p in low.parameters()} == {torch.bfloat16}
    assert {b.dtype for b in low.buffers()} == {torch.float32}
    for wrong in (torch.int64, torch.float8_e4m3fn):
        with pytest.raises(ValueError, match="dtype must be"):
            load_hf(tmp_path / "f", dtype=wrong)


# MTP -----------------------------------------------------------------------------------------------------------------

@pytest.fixture
def mtp(tmp_path):
    model = wide(CONFIGS["DeepSeek-V3"].replace(n_mtp_modules=2))
    save_hf(model, tmp_path / "mtp", dtype=torch.float32)
    return tmp_path / "mtp", model


def test_mtp_modules_are_the_layers_behind_the_last(mtp):
    folder, model = mtp
    names = load_file(folder / FILE).keys()
    assert "model.layers.4.mlp.experts.7.up_proj.weight" in names and "model.layers.3.eh_proj.weight" in names
    assert same(load_hf(folder), model)


def test_repeated_embedding_and_head_must_be_the_models(mtp):
    folder, model = mtp
    head = {f"model.layers.{i}.shared_head.head.weight": model.output_head.weight.detach().clone() for i in (3, 4)}
    embedding = {f"model.layers.{i}.embed_tokens.weight": model.token_embedding.weight.detach().clone() for i in (3, 4)}
    change(folder, lambda t: t.update(head | embedding))  # as V3's own file has them
    assert same(load_hf(folder), model)
    change(folder, lambda t: t["model.layers.4.shared_head.head.weight"][60, 31].add_(1))
    with pytest.raises(ValueError, match="layers.4.shared_head.head.weight must equal output_head.weight"):
        load_hf(folder)


def test_a_file_without_mtp_gives_a_model_without(mtp):
    folder, model = mtp
    change(folder, lambda t: [t.pop(name) for name in [*t] if name.startswith(("model.layers.3.", "model.layers.4."))])
    loaded = load_hf(folder)
    assert loaded.config == model.config.replace(n_mtp_modules=0)
    assert torch.equal(loaded(some_ids()).logits, model(some_ids()).logits)


def test_half_of_an_mtp_module_is_a_fault(mtp):
    change(mtp[0], lambda t: t.pop("model.layers.4.eh_proj.weight"))
    with pytest.raises(ValueError, match="lacks 1 of .* tensors, first model.layers.4.eh_proj.weight"):
        load_hf(mtp[0])


def test_a_tied_head_that_is_there_all_the_same(tmp_path):
    model = wide(CONFIGS["GQA"].replace(tie_embeddings=True))
    save_hf(model, tmp_path / "f", dtype=torch.float32)
    change(tmp_path / "f", lambda t: t.update({"lm_head.weight": model.token_embedding.weight.detach().clone()}))
    assert same(load_hf(tmp_path / "f"), model)
    change(tmp_path / "f", lambda t: t.update({"lm_head.weight": torch.zeros(61, 32)}))
    with pytest.raises(ValueError, match="lm_head.weight must equal token_embedding.weight"):
        load_hf(tmp_path / "f")


# Out -----------------------------------------------------------------------------------------------------------------

def test_a_folder_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    model = build("GQA")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="full already holds something"):
        save_hf(model, tmp_path / "full")
    with pytest.raises(ValueError, match="cannot be written for transformers"):
        save_hf(build("MLA without RoPE"), tmp_path / "none")
    with pytest.raises(ValueError, match="another model's"):
        save_hf(model, tmp_path / "none", load_pretrained("gpt-mini")[1])

    def full_disk(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("llm_core.checkpoint.hf_folder.save_tensors", full_disk)
    (tmp_path / "empty").mkdir()
    for name in ("none", "empty"):
        with pytest.raises(OSError, match="no space left"):
            save_hf(model, tmp_path / name)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "full"] and not any((tmp_path / "empty").iterdir())
    save_hf(model, tmp_path / "empty")
    assert sorted(p.name for p in (tmp_path / "empty").iterdir()) == ["config.json", FILE]


def test_the_command_writes_a_mini_and_says_what_is_wrong(tmp_path, capsys):
    from llm_core.checkpoint.__main__ import main

    assert main(["deepseek-mini", str(tmp_path / "out")]) == 0
    assert "wrote out: config.json, model.safetensors, tokenizer.json, tokenizer_config.json" in capsys.readouterr().out
    model, tokenizer = load_pretrained(tmp_path / "out")
    shipped, course = load_pretrained("deepseek-mini")
    used = shipped.config.replace(dropout=0.0, init_std=0.02)  # how it was trained is not in the file
    assert same(model, shipped) and model.config == used
    assert tokenizer.ranks == course.ranks and tokenizer.end_of_text == course.end_of_text
    assert main(["deepseek-mini", str(tmp_path / "out")]) == 1 and "already holds something" in capsys.readouterr().err
    assert main(["deepseek-mimi", str(tmp_path / "new")]) == 1 and "nearest: deepseek-mini" in capsys.readouterr().err


def test_presets_that_cannot_be_saved_are_few():
    refused = []
    for name in [*presets.names(), *presets.grid_names()]:
        try:
            to_hf(presets.get(name))
        except ValueError:
            refused.append(name)
    assert refused == ["gpt3-xl", "gpt3-13b", "deepseek-moe-16b"]
