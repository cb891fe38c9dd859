"""config.json in: what each family calls the sizes of a model, and what it leaves out.

Where a key is missing, the family's published default holds: tie_word_embeddings true for gpt2, else false; n_inner 4 *
n_embd; num_key_value_heads (llama) num_attention_heads; rope_theta 10,000 (mixtral 1,000,000); hidden_act silu;
sliding_window none (mistral 4,096); YaRN's beta_fast 32, beta_slow 1, mscale 1, mscale_all_dim 0; scoring_func,
topk_method and norm_topk_prob: softmax, greedy, false (V2) and sigmoid, noaux_tc, true (V3);
num_nextn_predict_layers 0. Every other key must be there. Dropout and initializer_range speak of training, not of
the model, and are not read.

Where transformers and DeepSeek's own code read a checkpoint differently, DeepSeek's reading is taken:
- V2's norm_topk_prob: transformers ignores it. In DeepSeek's code the chosen weights are then made to sum to one
  *instead* of being scaled. (No published V2 sets it.)
- mscale without mscale_all_dim: transformers drops it and takes 1; DeepSeek's code multiplies cos and sin by it.
- V3's scoring_func and topk_method: transformers knows one of each; others are read here as DeepSeek's code means them.
They agree on every published checkpoint. rope is in interleaved pairs on disk for V2 and V3, in halves for the others.
"""

from __future__ import annotations

import math
from pathlib import Path

from llm_core.config import (
    FeedForwardConfig,
    GroupedAttentionConfig,
    LatentAttentionConfig,
    Llama3RopeConfig,
    ModelConfig,
    MoEConfig,
    RopeConfig,
    YarnConfig,
    yarn_mscale,
)
from llm_core.hf_config.keys import REQUIRED, Keys, read_json
from llm_core.validation import shown


def from_hf(source: str | Path | dict) -> ModelConfig:
    """The config that a config.json describes: the file, a folder that holds it, or its content as a dict.

    FileNotFoundError if there is none; ValueError naming the key that is missing, wrong, or not expressible here.
    """
    return read_hf(source)[0]


def read_hf(source: str | Path | dict) -> tuple[ModelConfig, list[str]]:
    """The same, and the keys that were not read."""
    data = source if isinstance(source, dict) else read_json(source)
    kind = data.get("model_type")
    if not isinstance(kind, str) or kind not in _FAMILIES:
        given = "lacks model_type" if kind is None else f"has model_type {shown(kind)}, which is not known here"
        why = f" ({_BEYOND[kind]})" if isinstance(kind, str) and kind in _BEYOND else ""
        raise ValueError(f"the config {given}{why}; known are {', '.join(_FAMILIES)}")
    keys = Keys(data, kind)
    return _FAMILIES[kind](keys), keys.unread()


def _gpt2(k: Keys) -> ModelConfig:
    k.only("activation_function", "gelu_new", "gelu_pytorch_tanh")  # two names for the tanh form
    k.only("scale_attn_weights", True)
    k.only("scale_attn_by_inverse_layer_idx", False)
    k.only("add_cross_attention", False)
    d_model = k.whole("n_embd")
    return ModelConfig(
        vocab_size=k.whole("vocab_size"), max_seq_len=k.whole("n_positions"), d_model=d_model,
        n_layers=k.whole("n_layer"),
        attention=GroupedAttentionConfig(k.whole("n_head"), qkv_bias=True, output_bias=True),
        feed_forward=FeedForwardConfig(k.whole("n_inner", 4 * d_model), "gelu", bias=True),
        norm="layernorm", norm_eps=k.real("layer_norm_epsilon"), tie_embeddings=k.flag("tie_word_embeddings", True))


def _sizes(k: Keys) -> dict:
    """What Llama, Qwen2, Mistral, Mixtral and DeepSeek call by the same names."""
    k.only("hidden_act", "silu", "swish")
    return {
        "vocab_size": k.whole("vocab_size"), "max_seq_len": k.whole("max_position_embeddings"),
        "d_model": k.whole("hidden_size"), "n_layers": k.whole("num_hidden_layers"),
        "norm_eps": k.real("rms_norm_eps"), "tie_embeddings": k.flag("tie_word_embeddings", False)}


def _llama(k: Keys, window: int | None = None, theta: float = 10000.0, **changes) -> ModelConfig:
    """Llama; with qkv_bias Qwen2; with a window Mistral; with experts Mixtral and DeepSeek's first MoE."""
    sizes = _sizes(k)
    _refuse_window(k, sizes["max_seq_len"], window)
    biased = k.kind == "llama" and k.flag("attention_bias", False)
    n_heads = k.whole("num_attention_heads")
    n_kv_heads = k.whole("num_key_value_heads", n_heads if k.kind == "llama" else REQUIRED)
    head_dim = k.whole("head_dim", None)
    if head_dim is not None and head_dim * n_heads == sizes["d_model"]:
        head_dim = None  # as it would be anyway
    attention = GroupedAttentionConfig(n_heads, n_kv_heads, head_dim, qkv_bias=biased or k.kind == "qwen2",
                                       output_bias=biased)
    mlp_bias = k.flag("mlp_bias", False) if k.kind == "llama" else False
    return ModelConfig(**sizes, attention=attention, rope=_rope(k, "halves", theta),
                       feed_forward=FeedForwardConfig(k.whole("intermediate_size"), "swiglu", bias=mlp_bias), **changes)


def _refuse_window(k: Keys, context: int, default: int | None) -> None:
    """Attention here looks at everything before it. A window that is never filled changes nothing; any other does."""
    if k.kind == "qwen2" and not k.flag("use_sliding_window", False):
        return
    if k.kind not in ("qwen2", "mistral", "mixtral"):
        return
    window = k.whole("sliding_window", None if k.names("sliding_window") else default, least=0)
    if window is not None and window < context:
        raise ValueError(f"sliding_window is {window} and the context {context}: attention here has no window and "
                         "would compute something else; a config with sliding_window null can be read")


def _mixtral(k: Keys) -> ModelConfig:
    moe = MoEConfig(k.whole("num_local_experts"), k.whole("num_experts_per_tok"), k.whole("intermediate_size"),
                    norm_topk_prob=True)
    return _llama(k, theta=1e6, moe=moe)


def _deepseek(k: Keys) -> ModelConfig:
    sizes, n_heads = _sizes(k), k.whole("num_attention_heads")
    k.only("attention_bias", False)
    k.only("num_key_value_heads", n_heads)  # MLA has no groups: the key only repeats the number of heads
    attention = LatentAttentionConfig(
        n_heads, kv_lora_rank=k.whole("kv_lora_rank"), qk_nope_head_dim=k.whole("qk_nope_head_dim"),
        qk_rope_head_dim=k.whole("qk_rope_head_dim"), v_head_dim=k.whole("v_head_dim"),
        q_lora_rank=k.whole_or_null("q_lora_rank"))
    layout = "interleaved" if k.flag("rope_interleave", True) else "halves"
    return ModelConfig(**sizes, attention=attention, rope=_rope(k, layout, latent=True), moe=_experts(k),
                       feed_forward=FeedForwardConfig(k.whole("intermediate_size"), "swiglu"),
                       n_mtp_modules=k.whole("num_nextn_predict_layers", 0, least=0))


def _experts(k: Keys) -> MoEConfig | None:
    """DeepSeek's experts; None where all layers are dense, which a config may say in two ways."""
    k.only("moe_layer_freq", 1)
    n_layers, first = k.whole("num_hidden_layers"), k.whole("first_k_dense_replace", least=0)
    n_routed = k.whole_or_null("n_routed_experts")
    if n_routed is None or (first >= n_layers and not k.whole("num_nextn_predict_layers", 0, least=0)):
        return None
    v3 = k.kind in ("deepseek_v3", "kimi_k2")
    method = k.only("topk_method", "greedy", "group_limited_greedy", "noaux_tc", default="noaux_tc" if v3 else "greedy")
    grouped = method != "greedy"
    normalised = k.flag("norm_topk_prob", v3)
    scaling = k.real("routed_scaling_factor", 1.0 if k.kind == "deepseek" else REQUIRED)
    return MoEConfig(
        n_routed, k.whole("num_experts_per_tok"), k.whole("moe_intermediate_size"),
        n_shared_experts=k.whole("n_shared_experts", 0, least=0), first_k_dense=first,
        scoring=k.only("scoring_func", "softmax", "sigmoid", default="sigmoid" if v3 else "softmax"),
        norm_topk_prob=normalised, routed_scaling_factor=1.0 if normalised and not v3 else scaling,
        selection_bias=method == "noaux_tc", group_score="top2" if method == "noaux_tc" else "max",
        n_expert_groups=k.whole("n_group") if grouped else 1,
        n_limited_groups=k.whole("topk_group") if grouped else 1)


def _rope(k: Keys, layout: str, theta: float = 10000.0, latent: bool = False) -> RopeConfig:
    """rope_scaling, or rope_parameters as transformers 5 writes it, which holds rope_theta too."""
    s = k.part("rope_scaling") or k.part("rope_parameters") or Keys({}, k.kind)
    if s.holds_parts():
        raise ValueError("the config gives each kind of layer a rope of its own; one for all can be read here")
    for place in (k, s):
        if place.real("partial_rotary_factor", 1.0) != 1:
            raise ValueError("partial_rotary_factor is not 1: only whole heads can be turned here")
    theta = s.real("rope_theta", k.real("rope_theta", theta))
    kind = s.only("rope_type" if s.has("rope_type") else "type", "default", "yarn", "llama3")
    scaling = {"default": lambda s: None, "yarn": lambda s: _yarn(s, latent), "llama3": _llama3}[kind](s)
    return RopeConfig(theta, layout, scaling)


def _llama3(s: Keys) -> Llama3RopeConfig:
    return Llama3RopeConfig(s.real("factor"), s.whole("original_max_position_embeddings"), s.real("low_freq_factor"),
                            s.real("high_freq_factor"))


def _yarn(s: Keys, latent: bool) -> YarnConfig:
    """MLA scales the softmax by mscale_all_dim squared. Llama's kin scale nothing but cos and sin, by one number."""
    s.only("truncate", True)
    factor = s.real("factor")
    mscale, all_dim = s.real("mscale", 1.0), s.real("mscale_all_dim", 0.0)
    size = s.real("attention_factor", None)  # what cos and sin are multiplied by, in plain words
    if not latent:
        if size is None:
            size = yarn_mscale(factor, mscale) / yarn_mscale(factor, all_dim) if mscale and all_dim else None
        mscale, all_dim = 1.0, 0.0
    if size is not None:
        size *= yarn_mscale(factor, all_dim)
        if factor <= 1 or size < 1:
            raise ValueError(f"attention_factor cannot be expressed at factor {factor:g}; it is usually left out")
        mscale = (size - 1) / (0.1 * math.log(factor))
    return YarnConfig(factor, s.whole("original_max_position_embeddings"), s.real("beta_fast", 32.0),
                      s.real("beta_slow", 1.0), mscale, all_dim)


_FAMILIES = {
    "gpt2": _gpt2, "llama": _llama, "qwen2": lambda k: _llama(k, window=4096),
    "mistral": lambda k: _llama(k, window=4096), "mixtral": _mixtral,
    "deepseek": lambda k: _llama(k, moe=_experts(k)),  # DeepSeekMoE 16B: Llama's attention
    "deepseek_v2": _deepseek, "deepseek_v3": _deepseek, "kimi_k2": _deepseek}
# What keeps a well-known family out: its sizes could be read, but the count would miss tensors.
_NORMS = "it has a norm on each head's query and key, which ModelConfig lacks"
_BEYOND = {"qwen3": _NORMS, "qwen3_moe": _NORMS,
           "deepseek_v32": "it has an indexer that chooses which tokens are attended, which ModelConfig lacks"}
