"""What a config accepts, what it refuses and with which sentence, and that presets and plain dicts are faithful."""

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_core import ModelConfig, presets
from llm_core.config import (
    FeedForwardConfig,
    GroupedAttentionConfig,
    LatentAttentionConfig,
    Llama3RopeConfig,
    MoEConfig,
    RopeConfig,
    YarnConfig,
)
from llm_core.validation import nearest_divisors

V3 = ModelConfig.preset("deepseek-v3")
GPT2 = ModelConfig.preset("gpt2")
YARN, LLAMA3 = YarnConfig(40.0, 4096), Llama3RopeConfig(8.0, 8192)
PARTS = (GPT2, V3, GPT2.attention, V3.attention, V3.feed_forward, V3.moe, V3.rope, YARN, LLAMA3)
ALL_PRESETS = [*presets.names(), *presets.grid_names()]


# Each sentence that a config can answer with

REFUSED = [
    # the model
    (GPT2, {"vocab_size": 0}, "vocab_size must be a whole number of at least 1, not 0"),
    (GPT2, {"max_seq_len": "1024"}, "max_seq_len must be a whole number of at least 1, not '1024'"),
    (GPT2, {"d_model": 768.0}, "d_model must be a whole number of at least 1, not 768.0"),
    (GPT2, {"n_layers": True}, "n_layers must be a whole number of at least 1, not True"),
    (GPT2, {"n_mtp_modules": -1}, "n_mtp_modules must be a whole number of at least 0, not -1"),
    (GPT2, {"attention": None}, "attention must be GroupedAttentionConfig or LatentAttentionConfig, not None"),
    (GPT2, {"feed_forward": 3072}, "feed_forward must be FeedForwardConfig, not 3072"),
    (GPT2, {"moe": "yes"}, "moe must be MoEConfig or None, not 'yes'"),
    (GPT2, {"rope": 10000.0}, "rope must be RopeConfig or None, not 10000.0"),
    (GPT2, {"norm": "batchnorm"}, "norm must be one of layernorm, rmsnorm, not 'batchnorm'"),
    (GPT2, {"norm_eps": 0}, "norm_eps must be a finite number above 0, not 0"),
    (GPT2, {"init_std": math.nan}, "init_std must be a finite number above 0, not nan"),
    (GPT2, {"tie_embeddings": 1}, "tie_embeddings must be True or False, not 1"),
    (GPT2, {"dropout": 1.0}, "dropout must be below 1, not 1.0: it is the share of numbers set to zero"),
    (GPT2, {"attention_dropout": -0.1}, "attention_dropout must be a finite number of at least 0, not -0.1"),
    (GPT2, {"d_model": 1600, "attention": GroupedAttentionConfig(48)},
     "n_heads 48 does not divide d_model 1600 and head_dim is not given; nearest: 40, 50"),
    (GPT2, {"d_model": 7}, "n_heads 12 does not divide d_model 7 and head_dim is not given; nearest: 7"),
    (GPT2, {"rope": RopeConfig(), "attention": GroupedAttentionConfig(12, head_dim=63)},
     "rope turns pairs of numbers, so its width must be even, not 63; nearest: 62, 64"),
    (V3, {"rope": None}, "qk_rope_head_dim is 64 but rope is None; give a RopeConfig, or set it to 0"),
    (V3, {"attention": V3.attention.replace(qk_rope_head_dim=0)},
     "qk_rope_head_dim is 0, so rope has nothing to turn; give it an even width, or set rope to None"),
    # attention
    (GPT2.attention, {"n_kv_heads": 5}, "n_kv_heads 5 does not divide n_heads 12; nearest: 4, 6"),
    (GPT2.attention, {"n_kv_heads": 24}, "n_kv_heads 24 does not divide n_heads 12; nearest: 12"),
    (GPT2.attention, {"head_dim": 0}, "head_dim must be a whole number of at least 1, not 0"),
    (GPT2.attention, {"qkv_bias": "yes"}, "qkv_bias must be True or False, not 'yes'"),
    (GPT2.attention, {"output_bias": None}, "output_bias must be True or False, not None"),
    (V3.attention, {"kv_lora_rank": 0}, "kv_lora_rank must be a whole number of at least 1, not 0"),
    (V3.attention, {"qk_rope_head_dim": -2}, "qk_rope_head_dim must be a whole number of at least 0, not -2"),
    (V3.attention, {"q_lora_rank": 0}, "q_lora_rank must be a whole number of at least 1, not 0"),
    # feed-forward and experts
    (V3.feed_forward, {"activation": "relu"}, "activation must be one of gelu, swiglu, not 'relu'"),
    (V3.feed_forward, {"bias": 0}, "bias must be True or False, not 0"),
    (V3.moe, {"scoring": "tanh"}, "scoring must be one of softmax, sigmoid, not 'tanh'"),
    (V3.moe, {"group_score": "mean"}, "group_score must be one of max, top2, not 'mean'"),
    (V3.moe, {"routed_scaling_factor": -1}, "routed_scaling_factor must be a finite number above 0, not -1"),
    (V3.moe, {"n_shared_experts": -1}, "n_shared_experts must be a whole number of at least 0, not -1"),
    (V3.moe, {"n_expert_groups": 7}, "n_expert_groups 7 does not divide n_routed_experts 256; nearest: 4, 8"),
    (V3.moe, {"n_limited_groups": 9}, "n_limited_groups 9 is more than n_expert_groups 8"),
    (V3.moe, {"n_experts_per_token": 129},
     "n_experts_per_token 129 is more than the 128 experts a token may choose from (4 of 8 groups)"),
    (V3.moe, {"n_expert_groups": 256, "n_limited_groups": 8}, 'group_score "top2" needs at least 2 experts in a group; '
                                                              '"max" would do'),
    # positions
    (V3.rope, {"theta": 1.0}, "theta must be above 1, not 1.0; 10000 is usual"),
    (V3.rope, {"layout": "quarters"}, "layout must be one of interleaved, halves, not 'quarters'"),
    (V3.rope, {"scaling": 40.0}, "scaling must be YarnConfig or Llama3RopeConfig or None, not 40.0"),
    (YARN, {"factor": math.inf}, "factor must be a finite number above 0, not inf"),
    (YARN, {"original_max_seq_len": 0}, "original_max_seq_len must be a whole number of at least 1, not 0"),
    (LLAMA3, {"high_freq_factor": 1.0}, "high_freq_factor 1.0 must be above low_freq_factor 1.0"),
    # names
    (GPT2, {"n_layer": 12}, "ModelConfig has no field 'n_layer'; nearest: n_layers"),
    (V3.moe, {"n_experts_per_tok": 8}, "MoEConfig has no field 'n_experts_per_tok'; nearest: n_experts_per_token"),
]


@pytest.mark.parametrize(("part", "changes", "sentence"), REFUSED, ids=[sentence[:40] for _, _, sentence in REFUSED])
def test_refused_with_a_sentence(part, changes, sentence):
    with pytest.raises(ValueError) as caught:
        part.replace(**changes)
    assert str(caught.value) == sentence


def test_the_nearest_that_it_names_do_work():
    for heads in (40, 50):
        assert GPT2.replace(d_model=1600, attention=GroupedAttentionConfig(heads)).head_dim == 1600 // heads


@given(st.integers(1, 5000), st.integers(1, 6000))
@settings(max_examples=300)
def test_nearest_divisors(value, wanted):
    near = nearest_divisors(value, wanted)
    divisors = [n for n in range(1, value + 1) if value % n == 0]
    assert set(near) <= set(divisors) and near == sorted(near)
    if min(abs(n - wanted) for n in divisors) < 1000 and wanted <= value:
        assert min(abs(n - wanted) for n in near) == min(abs(n - wanted) for n in divisors)


# Whatever it is given

JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-10, 300), st.integers(), st.floats(), st.complex_numbers(),
    st.text(max_size=12), st.binary(max_size=4), st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2), st.sampled_from(PARTS),
    st.sampled_from([int, object(), (), {1}, 2**64]))


@given(st.sampled_from(PARTS), st.data())
@settings(max_examples=600)
def test_anything_else_is_a_value_error_and_nothing_but(part, data):
    names = [field.name for field in dataclasses.fields(part)]
    changes = data.draw(st.dictionaries(st.sampled_from(names), JUNK, min_size=1, max_size=3))
    try:
        changed = part.replace(**changes)
    except ValueError as problem:
        assert len(str(problem)) > 20  # a sentence
    else:
        assert type(changed) is type(part) and all(getattr(changed, name) is changes[name] for name in changes)


@given(st.sampled_from(["vocab_size", "d_model", "n_layers", "max_seq_len"]),
       st.one_of(st.integers(max_value=0), st.floats(), st.text(max_size=8), st.none(), st.booleans()))
def test_a_size_is_a_whole_number(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, not "):
        V3.replace(**{name: value})


# Changed copies and plain dicts

def test_replace_leaves_the_original_and_validates_the_copy():
    wider = GPT2.replace(d_model=1536)
    assert (wider.d_model, GPT2.d_model, wider.head_dim) == (1536, 768, 128)
    assert wider.replace(d_model=768) == GPT2 and hash(wider.replace(d_model=768)) == hash(GPT2)
    with pytest.raises(ValueError, match="n_heads 12 does not divide d_model 769"):
        GPT2.replace(d_model=769)
    with pytest.raises(dataclasses.FrozenInstanceError):
        GPT2.d_model = 1536


@pytest.mark.parametrize("name", ALL_PRESETS)
def test_presets_survive_json(name):
    config = ModelConfig.preset(name)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_from_dict_says_what_is_wrong():
    good = V3.to_dict()
    for changes, sentence in (
            ({"colour": 1}, "ModelConfig has no field 'colour'"),
            ({"d_model": -1}, "d_model must be a whole number of at least 1, not -1"),
            ({"type": "Model"}, "a part of a config needs a type, one of ModelConfig, .*, not 'Model'"),
            ({"type": None}, "a part of a config needs a type"),
            ({"attention": {"n_heads": 4}}, "a part of a config needs a type"),
            ({"attention": {"type": "MoEConfig", "d_expert": 4}},
             "MoEConfig lacks n_routed_experts, n_experts_per_token"),
            ({"moe": good["rope"]}, "moe must be MoEConfig or None")):
        with pytest.raises(ValueError, match=sentence):
            ModelConfig.from_dict({**good, **changes})
    for no_model in (None, 3, [], V3.moe.to_dict()):
        with pytest.raises(ValueError, match="the description must be ModelConfig, not"):
            ModelConfig.from_dict(no_model)


# What follows from the fields

def test_kinds_and_widths():
    kinds = [GroupedAttentionConfig(8).kind, GroupedAttentionConfig(8, 2).kind, GroupedAttentionConfig(8, 1).kind]
    assert (kinds, V3.attention.kind) == (["MHA", "GQA", "MQA"], "MLA")
    assert (V3.head_dim, V3.rope_dim, GPT2.head_dim) == (192, 64, 64)
    assert ModelConfig.preset("gpt3-xl").head_dim == 128  # printed so, though 24 heads of 128 are not 2,048
    assert LatentAttentionConfig(2, 8, 4, 0, 4).qk_head_dim == 4


@pytest.mark.parametrize(("moe", "dense", "experts"), [
    (None, 5, 0), (MoEConfig(4, 2, 8), 0, 5), (MoEConfig(4, 2, 8, first_k_dense=2), 2, 3),
    (MoEConfig(4, 2, 8, first_k_dense=9), 5, 0)])
def test_which_layers_have_experts(moe, dense, experts):
    config = ModelConfig(10, 8, 8, 5, GroupedAttentionConfig(2), FeedForwardConfig(8), moe=moe)
    assert (config.n_dense_layers, config.n_moe_layers) == (dense, experts)


def test_presets_by_name():
    assert ModelConfig.preset("deepseek-r1") == V3
    assert set(presets.grid_names()).isdisjoint(presets.names()) and len(presets.grid_names()) >= 8
    with pytest.raises(ValueError, match="no preset is called 'deepseek-v33'; nearest: deepseek-v3"):
        ModelConfig.preset("deepseek-v33")
    with pytest.raises(ValueError, match="attention must be one of MHA, GQA, MLA, not 'MQA'"):
        presets.tiny(24, 1, "MQA")
    with pytest.raises(AttributeError, match="llm_core has no 'LanguageModle'"):
        __import__("llm_core").LanguageModle  # noqa: B018


@pytest.mark.parametrize("wrong", [
    lambda: V3.rope.replace(theta=10**400),
    lambda: V3.replace(norm_eps=float("nan")),
    lambda: ModelConfig.from_dict({"type": []}),
    lambda: ModelConfig.preset(["gpt2"]),
    lambda: ModelConfig.preset(None),
])
def test_values_of_absurd_kinds_and_sizes_are_value_errors_too(wrong):
    with pytest.raises(ValueError):
        wrong()
