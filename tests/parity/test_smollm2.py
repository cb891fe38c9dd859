"""SmolLM2 against transformers, which reads the same GGUF file by its own code; its tokenizer against `tokenizers`."""

import pytest
import tokenizers
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from llm_core import generate, load_pretrained, pretrained
from llm_core.checkpoint.gguf_files import _Header, _open
from llm_core.tokenizer import data_folder

PACKAGE, FILE, *_ = pretrained.PACKAGED[pretrained.SMOLLM2]


@pytest.fixture(scope="module")
def ours():
    return load_pretrained(pretrained.SMOLLM2)


def read_by_transformers(path):
    """from_pretrained(gguf_file=…) does the same, and asks for one more package."""
    config = hf.LlamaConfig(**load_gguf_checkpoint(path)["config"])
    with torch.device("meta"):
        model = hf.LlamaForCausalLM(config)
    tensors = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)["tensors"]
    model = hf.LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected
    model.tie_weights()
    return model.eval()


@pytest.mark.slow
def test_logits_and_greedy_text_equal_transformers(ours):
    model, tokenizer = ours
    theirs = read_by_transformers(str(data_folder(PACKAGE) / FILE))
    ids = torch.tensor([tokenizer.encode("The capital of France is Paris, and the river that runs through it is the")])
    with torch.no_grad():
        wanted, got = theirs(ids).logits, model(ids).logits
        assert wanted.std() > 1
        torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-4)
        text = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    assert torch.equal(generate(model, ids, 12), text)


@pytest.fixture(scope="module")
def reference():
    """As the published tokenizer.json has it: digits cut off one by one, then GPT-2's pattern, then the merges."""
    path = data_folder(PACKAGE) / FILE
    header = _Header(_open(path), FILE)
    merges = [tuple(pair.split(" ")) for pair in header.get("tokenizer.ggml.merges", list)]
    vocabulary = {token: id for id, token in enumerate(header.get("tokenizer.ggml.tokens", list))}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    return tokenizer


AWKWARD = ["", " ", "a  b", "in 1984  7", "x\n\n 42\t", "it's DON'T we'll'5", "3.14", "\n1", " \n", "a\x04b", "[\x06:",
           "²½ ٣", "naïve café", "日本語",
           "👩‍👩‍👧‍👦!", "e\u0301", "\u00a0\u2003x", "x \r\n y", "def f(x):\n    return x+1"]


@pytest.mark.parametrize("text", AWKWARD)
def test_ids_of_awkward_texts(ours, reference, text):
    assert ours[1].encode(text) == reference.encode(text).ids


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs", "Cn"))))
def test_ids_of_any_text(ours, reference, text):
    assert ours[1].encode(text) == reference.encode(text).ids


@settings(max_examples=300, deadline=None)
@given(text=st.text("ab 1٢\n\t'.", max_size=30))
def test_ids_around_digits_and_spaces(ours, reference, text):
    assert ours[1].encode(text) == reference.encode(text).ids
