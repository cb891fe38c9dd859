"""A pasted config.json: strict JSON, every bad one a sentence, and what is not read is told."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_core import ModelConfig, presets
from llm_core.hf_config import MOST_BYTES, read_pasted, to_hf

V3 = presets.get("deepseek-v3")


def text(**changes):
    return json.dumps({**to_hf(V3), **changes})


@pytest.mark.parametrize("name", ["gpt2", "llama-3.1-8b", "mixtral-8x7b", "deepseek-v2", "deepseek-v3", "kimi-k2"])
def test_what_we_write_is_read_again(name):
    config = presets.get(name)
    written = json.dumps(to_hf(config))
    assert read_pasted(written).config == read_pasted(written.encode()).config == config
    assert read_pasted("\ufeff" + written).config == config
    assert read_pasted(written).unknown == ()


@pytest.mark.parametrize("name", presets.names())
def test_our_own_form_is_read_too(name):
    pasted = read_pasted(json.dumps(presets.get(name).to_dict()))
    assert pasted.config == presets.get(name) and pasted.remark == ""


def test_what_is_not_read_is_told():
    pasted = read_pasted(text(quantization_config={"quant_method": "fp8"}, index_topk=2048, transformers_version="5"))
    assert pasted.config == V3
    assert set(pasted.unknown) == {"index_topk"} and "transformers_version" in pasted.harmless
    assert "Not known here, so if they add tensors, the count misses those: index_topk." in pasted.remark
    assert "few bits" in pasted.remark
    many = read_pasted(text(**{f"strange_{i}": i for i in range(50)}))
    assert len(many.unknown) == 50 and len(many.remark) < 800 and "…" in many.remark
    inner = read_pasted(text(rope_scaling={**to_hf(V3)["rope_scaling"], "speed": 3}))
    assert inner.unknown == ("rope_scaling.speed",)


@pytest.mark.parametrize(("given", "sentence"), [
    ("", "nothing here"), ("  \n", "nothing here"), ("{", "not JSON: line 1, column 2"), ("[1]", "not a list"),
    ("3", "in curly brackets, not 3"), ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
    ('{"rope_scaling": {"b": 1, "b": 1}}', "the key 'b' is there twice"),
    ('{"a": NaN}', "NaN is no number in JSON"), ('{"a": -Infinity}', "-Infinity is no number"),
    ('{"a": 1e999}', "1e999 is larger than any number"), ('{"a": ' + "9" * 5000 + "}", "a number of 5000 digits"),
    ("[" * 150_000, "nested far too deep"), ('{"a":' * 30_000, "nested far too deep"),
    ('{"type": "ModelConfig", "moe": ' * 900 + "1" + "}" * 900, ""),  # for some Pythons too deep
    ("x" * (MOST_BYTES + 1), f"at most {MOST_BYTES:,} are read"), (b"\xff\xfe{}", "no text in UTF-8"),
    ("import os", "not JSON"), ("\ud800", "not JSON"),
    (text(model_type="qwen3"), "it has a norm on each head's query and key, which ModelConfig lacks"),
    (text(model_type="mamba"), "model_type 'mamba', which is not known here; known are gpt2"),
    (text(num_hidden_layers=0), "num_hidden_layers must be a whole number from 1"),
    (text(num_hidden_layers=10**12), "num_hidden_layers must be a whole number from 1"),
    (text(n_group=7), "n_expert_groups 7 does not divide n_routed_experts 256"),
    (json.dumps(V3.to_dict() | {"max_seq_len": 2**31}), "max_seq_len must be at most 2147483647, not 2147483648"),
    ('{"type": "ModelConfig", "moe": {"d_expert": ' + "9" * 39 + "}}", "d_expert must be at most"),
    ('{"type": "ModelConfig"}', "ModelConfig lacks vocab_size"), ('{"type": "os.system"}', "lacks model_type")])
def test_each_bad_one_gets_a_sentence(given, sentence):
    with pytest.raises(ValueError) as caught:
        read_pasted(given)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 400


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
                    max_leaves=8)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(to_hf(V3))), JSON)
def test_any_value_at_any_key_is_read_or_refused_in_words(key, value):
    try:
        assert isinstance(read_pasted(text(**{key: value})).config, ModelConfig)
    except ValueError as problem:
        assert str(problem)
