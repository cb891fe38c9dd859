"""Others' config.json: every published one is its preset, old and new spellings, and hostile ones get a sentence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_core import presets
from llm_core.config import GroupedAttentionConfig, LatentAttentionConfig, ModelConfig, RopeConfig, YarnConfig
from llm_core.hf_config import to_hf

GPT2 = {"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_ctx": 1024, "n_embd": 768, "n_layer": 12,
        "n_head": 12, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-05, "resid_pdrop": 0.1,
        "initializer_range": 0.02}


def gpt2(n_embd, n_layer, n_head):
    return {**GPT2, "n_embd": n_embd, "n_layer": n_layer, "n_head": n_head}


def llama(hidden, layers, heads, kv, ff, vocab, context, eps, kind="llama", **more):
    return {"model_type": kind, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv, "intermediate_size": ff, "vocab_size": vocab, "hidden_act": "silu",
            "max_position_embeddings": context, "rms_norm_eps": eps, "tie_word_embeddings": False, **more}


LLAMA31 = {"rope_theta": 500000.0, "rope_scaling": {
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3"}}
MLA = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "moe_layer_freq": 1,
       "attention_bias": False, "rope_theta": 10000}


def yarn(**more):
    return {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 4096, **more}


V2_YARN = yarn(mscale=0.707, mscale_all_dim=0.707)
V2_LITE = llama(2048, 27, 16, 16, 10944, 102400, 163840, 1e-6, "deepseek_v2", **{
    **MLA, "q_lora_rank": None, "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6,
    "first_k_dense_replace": 1, "moe_intermediate_size": 1408, "n_group": 1, "topk_group": 1, "topk_method": "greedy",
    "scoring_func": "softmax", "norm_topk_prob": False, "routed_scaling_factor": 1.0, "rope_scaling": V2_YARN})
V3 = llama(7168, 61, 128, 128, 18432, 129280, 163840, 1e-6, "deepseek_v3", **{
    **MLA, "q_lora_rank": 1536, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8,
    "first_k_dense_replace": 3, "moe_intermediate_size": 2048, "n_group": 8, "topk_group": 4, "ep_size": 1,
    "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": True, "routed_scaling_factor": 2.5,
    "rope_scaling": yarn(), "num_nextn_predict_layers": 1, "quantization_config": {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}})
# What was published, by the keys of the published files (models.json names the source of each).
PUBLISHED = {
    "gpt2": GPT2, "gpt2-medium": gpt2(1024, 24, 16), "gpt2-large": gpt2(1280, 36, 20), "gpt2-xl": gpt2(1600, 48, 25),
    "llama-2-7b": llama(4096, 32, 32, 32, 11008, 32000, 4096, 1e-5, rope_scaling=None),
    "llama-3.1-8b": llama(4096, 32, 32, 8, 14336, 128256, 131072, 1e-5, **LLAMA31),
    "llama-3.1-70b": llama(8192, 80, 64, 8, 28672, 128256, 131072, 1e-5, **LLAMA31),
    "llama-3.1-405b": llama(16384, 126, 128, 8, 53248, 128256, 131072, 1e-5, **LLAMA31),
    "qwen2.5-72b": llama(8192, 80, 64, 8, 29568, 152064, 131072, 1e-6, "qwen2", rope_theta=1000000.0,
                         sliding_window=131072, use_sliding_window=False, max_window_layers=80),
    "deepseek-llm-67b": llama(8192, 95, 64, 8, 22016, 102400, 4096, 1e-6, rope_theta=10000.0),
    "smollm2-135m": {**llama(576, 30, 9, 3, 1536, 49152, 8192, 1e-5, rope_theta=100000), "tie_word_embeddings": True},
    "mixtral-8x7b": llama(4096, 32, 32, 8, 14336, 32000, 32768, 1e-5, "mixtral", num_local_experts=8,
                          num_experts_per_tok=2, rope_theta=1000000.0, sliding_window=None),
    "deepseek-moe-16b": llama(2048, 28, 16, 16, 10944, 102400, 4096, 1e-6, "deepseek", n_routed_experts=64,
                              n_shared_experts=2, num_experts_per_tok=6, moe_intermediate_size=1408, moe_layer_freq=1,
                              first_k_dense_replace=1, norm_topk_prob=False, scoring_func="softmax",
                              rope_theta=10000, rope_scaling=None),
    "deepseek-v2-lite": V2_LITE,
    "deepseek-v2": {**V2_LITE, "hidden_size": 5120, "num_hidden_layers": 60, "num_attention_heads": 128,
                    "num_key_value_heads": 128, "intermediate_size": 12288, "q_lora_rank": 1536,
                    "n_routed_experts": 160, "moe_intermediate_size": 1536, "n_group": 8, "topk_group": 3,
                    "topk_method": "group_limited_greedy", "routed_scaling_factor": 16.0},
    "deepseek-v3": V3, "deepseek-r1": V3,
    "moonlight-16b-a3b": {**V3, "hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16,
                          "num_key_value_heads": 16, "intermediate_size": 11264, "q_lora_rank": None,
                          "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6,
                          "first_k_dense_replace": 1, "moe_intermediate_size": 1408, "n_group": 1, "topk_group": 1,
                          "routed_scaling_factor": 2.446, "vocab_size": 163840, "max_position_embeddings": 8192,
                          "rope_theta": 50000.0, "rope_scaling": None, "rms_norm_eps": 1e-05,
                          "num_nextn_predict_layers": 0},
    "kimi-k2": {**V3, "model_type": "kimi_k2", "num_attention_heads": 64, "num_key_value_heads": 64,
                "n_routed_experts": 384, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
                "routed_scaling_factor": 2.827, "vocab_size": 163840, "max_position_embeddings": 131072,
                "rope_theta": 50000.0, "rms_norm_eps": 1e-5, "num_nextn_predict_layers": 0,
                "rope_scaling": yarn(factor=32.0, beta_fast=1.0)}}
MISTRAL = llama(4096, 32, 32, 8, 14336, 32768, 32768, 1e-5, "mistral", rope_theta=1e6, sliding_window=None)


def without(data, *keys):
    return {k: v for k, v in data.items() if k not in keys}


@pytest.mark.parametrize("name", [n for n in presets.names() if not n.startswith("gpt3") and "mini" not in n])
def test_every_published_config_is_its_preset(name):
    assert ModelConfig.from_hf(PUBLISHED[name]) == presets.get(name)


def test_file_folder_and_dict_say_the_same(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(V3))
    for source in (tmp_path, str(tmp_path), tmp_path / "config.json", V3):
        assert ModelConfig.from_hf(source) == presets.get("deepseek-v3")


@pytest.mark.parametrize("change", [
    {"rope_scaling": without(yarn(), "type") | {"rope_type": "yarn"}},
    {"rope_scaling": yarn(rope_type="yarn")},
    {"rope_scaling": None, "rope_parameters": without(yarn(), "type") | {"rope_type": "yarn", "rope_theta": 10000.0}},
    {"rope_theta": None, "rope_scaling": yarn(rope_theta=10000)},
    {"rope_scaling": without(yarn(), "beta_fast", "beta_slow")},
    {"model_type": "kimi_k2"}, {"topk_method": None}, {"scoring_func": None}, {"norm_topk_prob": None}])
def test_other_spellings_of_the_same(change):
    assert ModelConfig.from_hf({**V3, **change}) == presets.get("deepseek-v3")


def test_what_transformers_5_writes_beside_the_sizes():
    new = {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}, "head_dim": 128}
    assert ModelConfig.from_hf({**without(MISTRAL, "rope_theta"), **new}) == ModelConfig.from_hf(MISTRAL)
    assert ModelConfig.from_hf(MISTRAL).rope == RopeConfig(1e6, layout="halves")


def test_yarn_of_llamas_kin_scales_cos_and_sin_alone():
    """Qwen2.5's way to 128k: its card adds these keys. transformers multiplies cos and sin by 0.1 ln 4 + 1."""
    scaling = {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}
    config = ModelConfig.from_hf({**PUBLISHED["qwen2.5-72b"], "rope_scaling": scaling})
    assert config.rope.scaling == YarnConfig(4.0, 32768, mscale=1.0, mscale_all_dim=0.0)
    told = ModelConfig.from_hf({**PUBLISHED["qwen2.5-72b"], "rope_scaling": {**scaling, "attention_factor": 1.2}})
    assert told.rope.scaling.mscale == pytest.approx(0.2 / (0.1 * 1.3862943611))


def test_dense_deepseek_and_layouts():
    dense = ModelConfig.from_hf({**V3, "first_k_dense_replace": 61, "num_nextn_predict_layers": 0})
    assert dense.moe is None and ModelConfig.from_hf({**V3, "n_routed_experts": None}).moe is None
    assert ModelConfig.from_hf({**V3, "rope_interleave": False}).rope.layout == "halves"
    normalised = ModelConfig.from_hf({**PUBLISHED["deepseek-v2"], "norm_topk_prob": True}).moe
    assert normalised.norm_topk_prob and normalised.routed_scaling_factor == 1.0


def test_biases():
    biased = ModelConfig.from_hf({**PUBLISHED["llama-2-7b"], "attention_bias": True, "mlp_bias": True})
    assert biased.attention == GroupedAttentionConfig(32, 32, qkv_bias=True, output_bias=True)
    assert biased.feed_forward.bias


OPTIONAL = {"tie_word_embeddings", "hidden_act", "rope_theta", "rope_scaling", "activation_function", "n_ctx",
            "resid_pdrop", "initializer_range", "sliding_window", "use_sliding_window", "max_window_layers",
            "moe_layer_freq", "attention_bias", "num_key_value_heads", "topk_method", "scoring_func",
            "norm_topk_prob", "n_shared_experts", "num_nextn_predict_layers", "quantization_config", "ep_size"}
FAMILIES = ["gpt2", "llama-3.1-8b", "qwen2.5-72b", "mixtral-8x7b", "deepseek-moe-16b", "deepseek-v2", "deepseek-v3"]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_missing_key_is_named(name):
    required = PUBLISHED[name].keys() - OPTIONAL - {"model_type"}
    if name in ("qwen2.5-72b", "mixtral-8x7b", "deepseek-moe-16b"):
        required |= {"num_key_value_heads"}
    assert len(required) >= 6
    for key in required:
        with pytest.raises(ValueError, match=f"lacks '{key}'"):
            ModelConfig.from_hf(without(PUBLISHED[name], key))
    for key in (PUBLISHED[name].keys() & OPTIONAL) - required:
        ModelConfig.from_hf(without(PUBLISHED[name], key))


@pytest.mark.parametrize("key", ["factor", "original_max_position_embeddings"])
def test_a_missing_key_of_the_scaling_is_named(key):
    with pytest.raises(ValueError, match=f"lacks '{key}'"):
        ModelConfig.from_hf({**V3, "rope_scaling": without(yarn(), key)})


@pytest.mark.parametrize(("data", "said"), [
    ({}, "lacks model_type; known are gpt2, llama, qwen2, mistral, mixtral, deepseek, deepseek_v2"),
    ({"model_type": "mamba"}, "model_type 'mamba', which is not known here; known are gpt2"),
    ({"model_type": ["llama"]}, "model_type a list"),
    ({**MISTRAL, "sliding_window": 4096}, "sliding_window is 4096 and the context 32768: attention here has no window"),
    (without(MISTRAL, "sliding_window"), "sliding_window is 4096"),  # transformers' default for this family
    ({**PUBLISHED["qwen2.5-72b"], "use_sliding_window": True, "sliding_window": 4096}, "has no window"),
    ({**GPT2, "activation_function": "relu"}, "activation_function is 'relu', and only 'gelu_new'"),
    ({**GPT2, "scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    ({**V3, "hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ({**V3, "moe_layer_freq": 2}, "moe_layer_freq is 2"),
    ({**V3, "num_key_value_heads": 8}, "num_key_value_heads is 8"),
    ({**V3, "attention_bias": True}, "attention_bias"),
    ({**V3, "topk_method": "lottery"}, "topk_method is 'lottery'"),
    ({**V3, "rope_scaling": {"type": "dynamic", "factor": 2}}, "type is 'dynamic', and only 'default', 'yarn'"),
    ({**V3, "rope_scaling": {"full_attention": {"rope_type": "default"}}}, "a rope of its own"),
    ({**V3, "rope_scaling": yarn(truncate=False)}, "truncate is False"),
    ({**V3, "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ({**V3, "rope_scaling": "yarn"}, "rope_scaling must be an object"),
    ({**V3, "n_group": 7}, "n_expert_groups 7 does not divide"),
    ({**V3, "hidden_size": "7168"}, "hidden_size must be a whole number from 1 to 2147483647, not '7168'"),
    ({**V3, "hidden_size": -1}, "not -1"), ({**V3, "hidden_size": True}, "not True"),
    ({**V3, "hidden_size": 10**5000}, "hidden_size .* not a number of that size"),
    ({**V3, "num_hidden_layers": 10**12}, "num_hidden_layers"), ({**V3, "rms_norm_eps": 10**400}, "rms_norm_eps"),
    ({**V3, "rms_norm_eps": float("nan")}, "rms_norm_eps must be a finite number"),
    ({**V3, "rope_theta": float("inf")}, "rope_theta"), ({**V3, "rms_norm_eps": 0}, "norm_eps"),
    ({**V3, "tie_word_embeddings": 1}, "tie_word_embeddings must be true or false"),
    (3, "a config is a path or a dict, not int"), (None, "not NoneType")])
def test_what_cannot_be_read_gets_a_sentence(data, said):
    with pytest.raises(ValueError, match=said):
        ModelConfig.from_hf(data)


@pytest.mark.parametrize("text", ["", "[1]", '"llama"', "{", "[" * 100_000, '{"model_type": ' + "9" * 5000 + "}",
                                  '{"a":' * 50_000])
def test_files_that_are_no_config(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError):
        ModelConfig.from_hf(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(ValueError, match="is not JSON"):
        ModelConfig.from_hf(tmp_path / "config.json")


def test_a_folder_without_one(tmp_path):
    for source in (tmp_path, tmp_path / "other.json", "", "\0"):
        with pytest.raises(FileNotFoundError, match="is missing; it describes the model"):
            ModelConfig.from_hf(source)


deep: list = []
for _ in range(5000):
    deep = [deep]
circle: dict = {}
circle["rope_scaling"] = circle
NONSENSE = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10), st.integers(), st.floats(), st.text(max_size=5),
    st.sampled_from([deep, circle, 10**5000, -(10**400), "yarn", b"\0", (1,), 1j, 2**31, "\ud800"]),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2), st.lists(st.integers(), max_size=2))


@given(st.data())
def test_nonsense_is_a_config_or_a_value_error(data):
    base = PUBLISHED[data.draw(st.sampled_from(FAMILIES))]
    base = {**base, **data.draw(st.dictionaries(st.sampled_from(sorted(base)), NONSENSE, max_size=3))}
    if data.draw(st.booleans()):
        keys = st.sampled_from([*yarn(), "attention_factor"])
        base["rope_scaling"] = yarn(**data.draw(st.dictionaries(keys, NONSENSE, max_size=2)))
    try:
        assert isinstance(ModelConfig.from_hf(base), ModelConfig)
    except ValueError as error:
        assert len(str(error)) < 500


# Out -----------------------------------------------------------------------------------------------------------------

NOT_IN_TRANSFORMERS = {"gpt3-xl", "gpt3-13b", "deepseek-moe-16b"}


@pytest.mark.parametrize("name", [*presets.names(), *presets.grid_names()])
def test_what_is_written_is_read_back(name):
    config = presets.get(name)
    if name in NOT_IN_TRANSFORMERS:
        with pytest.raises(ValueError, match="cannot be written for transformers"):
            to_hf(config)
        return
    written = to_hf(config)
    json.dumps(written)
    read = ModelConfig.from_hf(written)
    wanted = config.replace(dropout=0.0, init_std=0.02)  # how a model is trained is not in the file
    if isinstance(config.attention, GroupedAttentionConfig):
        heads = config.attention.replace(head_dim=None)
        if config.rope is None:
            assert written["model_type"] == "gpt2"
        else:
            wanted = wanted.replace(rope=config.rope.replace(layout="halves"))
        wanted = wanted.replace(attention=heads)
    assert read == wanted


def test_the_course_own_models_get_the_types_that_fit():
    kinds = {name: to_hf(presets.get(name))["model_type"] for name in (
        "gpt-mini", "deepseek-mini", "tiny-mha-w24-l1", "tiny-gqa-w24-l1", "tiny-mla-w24-l1")}
    assert list(kinds.values()) == ["gpt2", "deepseek_v3", "llama", "llama", "deepseek_v3"]
    assert to_hf(presets.get("tiny-mla-w24-l3"))["first_k_dense_replace"] == 3


MINI, V2, LLAMA2 = (presets.get(n) for n in ("deepseek-mini", "deepseek-v2", "llama-2-7b"))


@pytest.mark.parametrize(("config", "said"), [
    (MINI.replace(rope=None, attention=LatentAttentionConfig(6, 64, 32, 0, 32)), "rope key"),
    (MINI.replace(moe=MINI.moe.replace(n_shared_experts=0)), "at least one shared expert"),
    (MINI.replace(moe=MINI.moe.replace(selection_bias=False)), "selection bias"),
    (V2.replace(moe=V2.moe.replace(norm_topk_prob=True)), "no renormalisation"),
    (V2.replace(rope=V2.rope.replace(layout="halves")), "interleaved"),
    (LLAMA2.replace(moe=V2.moe), "Mixtral's only"),
    (LLAMA2.replace(norm="layernorm"), "RMSNorm"),
    (LLAMA2.replace(attention=GroupedAttentionConfig(33, 33, head_dim=128)), "no whole number"),
    (LLAMA2.replace(attention=GroupedAttentionConfig(32, 32, output_bias=True)), "no bias at the output"),
    (presets.get("gpt2").replace(norm="rmsnorm"), "GPT-2 only")])
def test_what_transformers_has_no_class_for_is_refused(config, said):
    with pytest.raises(ValueError, match=said):
        to_hf(config)


def test_yarn_scales_that_transformers_reads_otherwise_are_written_out():
    only_mscale = V2.replace(rope=V2.rope.replace(scaling=YarnConfig(40.0, 4096, mscale=0.5, mscale_all_dim=0.0)))
    written = to_hf(only_mscale)
    assert written["rope_scaling"]["attention_factor"] == pytest.approx(1 + 0.05 * 3.6888794541)
    assert ModelConfig.from_hf(written).rope.scaling.mscale == pytest.approx(0.5)
