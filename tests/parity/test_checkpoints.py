"""What save_hf writes, as transformers reads it: models, tokenizer, shards; and the way back."""

import json

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_core import LanguageModel, generate, load_pretrained, tokenizer
from llm_core.checkpoint.hf_folder import load_hf, save_hf
from llm_core.checkpoint.tokenizer_json import write_tokenizer
from llm_core.config import GroupedAttentionConfig, MoEConfig, RopeConfig, YarnConfig
from tests.parity.families import FAMILIES, widen
from tests.tiny_configs import CONFIGS, some_ids

GQA, V2, V3 = CONFIGS["GQA"], CONFIGS["DeepSeek-V2"], CONFIGS["DeepSeek-V3"]


def yarn(config, *mscales):
    return config.replace(rope=config.rope.replace(scaling=YarnConfig(4.0, 16, 32.0, 1.0, *mscales)))


WRITTEN = {
    "gpt2": CONFIGS["GPT-2"],
    "llama": GQA,
    "llama from interleaved pairs": CONFIGS["MQA"],
    "llama with biases": GQA.replace(attention=GroupedAttentionConfig(4, 2, qkv_bias=True, output_bias=True)),
    "llama with YaRN, softmax scaled": yarn(GQA, 0.7, 0.4),
    "llama, wide heads": GQA.replace(attention=GroupedAttentionConfig(4, 2, head_dim=12)),
    "qwen2 from interleaved pairs": CONFIGS["MHA"].replace(attention=GroupedAttentionConfig(4, 2, qkv_bias=True)),
    "mixtral": GQA.replace(moe=MoEConfig(8, 2, 24, norm_topk_prob=True)),
    "deepseek_v2": V2,
    "deepseek_v2, only mscale": yarn(V2, 0.7, 0.0),
    "deepseek_v3": V3,
    "deepseek_v3, tied": V3.replace(tie_embeddings=True, rope=RopeConfig()),
    "deepseek_v3, mscale not mscale_all_dim": yarn(V3, 0.7, 0.4),
    "deepseek_v3 in halves": V3.replace(rope=RopeConfig(layout="halves")),
    "dense MLA": CONFIGS["MLA"]}


def read_by_transformers(folder):
    model, report = hf.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    return model.eval()


@torch.no_grad()
def difference(ours, folder, ids):
    wanted = ours(ids).logits
    assert wanted.std() > 0.3
    return (read_by_transformers(folder)(ids).logits - wanted).abs().max().item()


@pytest.mark.parametrize("name", WRITTEN)
def test_transformers_opens_what_is_saved(tmp_path, name):
    torch.manual_seed(0)
    ours = widen(LanguageModel(WRITTEN[name]))
    with torch.no_grad():
        for key, buffer in ours.named_buffers():
            if key.endswith("selection_bias"):
                buffer.normal_(std=0.2)
    save_hf(ours, tmp_path / "f", dtype=torch.float32)
    assert difference(ours, tmp_path / "f", some_ids(tokens=40)) < 1e-4


@pytest.mark.parametrize("name", ["gpt-mini", "deepseek-mini", "tiny-mha-w24-l1", "tiny-gqa-w48-l3", "tiny-mla-w96-l3"])
def test_transformers_opens_the_shipped_models(tmp_path, name):
    ours, course = load_pretrained(name)
    save_hf(ours, tmp_path / name, course)  # bf16, as they ship
    ids = torch.tensor([course.encode("ROMEO:\nA true friend accepts you, and " * 8)[:80]])
    theirs = hf.AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype=torch.float32).eval()
    with torch.no_grad():
        assert (theirs(ids).logits - ours(ids).logits).abs().max() < 1e-4
        text = theirs.generate(ids, max_new_tokens=12, do_sample=False, attention_mask=torch.ones_like(ids))
    assert torch.equal(generate(ours, ids, 12), text) and theirs.config.eos_token_id == course.end_of_text


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    out = {}
    for name in ("course", "gpt2"):
        folder = tmp_path_factory.mktemp(name)
        write_tokenizer(tokenizer.get(name), folder / "tokenizer.json", 256)
        out[name] = hf.PreTrainedTokenizerFast.from_pretrained(folder)
    return out


@pytest.mark.parametrize("name", ["course", "gpt2"])
def test_transformers_reads_the_vocabulary(theirs, name):
    ours, them = tokenizer.get(name), theirs[name]
    assert len(them) == ours.vocab_size and them.eos_token_id == ours.end_of_text and them.model_max_length == 256
    text = "ROMEO: But soft! it's naïve, 日本語 in 1984 \n\n  a\tb"
    assert them(text).input_ids == ours.encode(text) and them.decode(ours.encode(text)) == text
    assert them("<|endoftext|>").input_ids == [ours.end_of_text] != ours.encode("<|endoftext|>")


@pytest.mark.parametrize("name", ["course", "gpt2"])
@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs", "Cn"))) | st.text("the andTHE',.\n", max_size=60))
def test_ids_of_any_text(theirs, name, text):
    if "<|" not in text:
        assert theirs[name](text).input_ids == tokenizer.get(name).encode(text)


def test_transformers_own_shards_are_read(tmp_path):
    torch.manual_seed(0)
    theirs = widen(FAMILIES["DeepSeek-V3 (YaRN)"]())
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(set(json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"].values())) > 3
    ids = torch.randint(0, 96, (1, 40))
    with torch.no_grad():
        torch.testing.assert_close(load_hf(tmp_path)(ids).logits, theirs(ids).logits, atol=1e-4, rtol=1e-4)
