"""config.json out, for the models that transformers has a class for."""

from __future__ import annotations

from typing import Any

from llm_core.config import LatentAttentionConfig, Llama3RopeConfig, ModelConfig, MoEConfig, yarn_mscale


def to_hf(config: ModelConfig) -> dict[str, Any]:
    """The config.json with which transformers computes the same. ValueError if it has no class that does.

    Grouped attention with interleaved rope is written as Llama's, whose halves hold the same numbers in another order:
    save_hf moves the rows of the query and key matrices. Of an MLA without experts transformers has no class of its
    own; it is a deepseek_v3 all of whose layers are dense.
    """
    v3 = isinstance(config.attention, LatentAttentionConfig) and config.moe and config.moe.scoring == "sigmoid"
    _need(v3 or not config.n_mtp_modules, "only files of V3's kind have a place for MTP modules; leave them out "
          "(n_mtp_modules=0)")
    if isinstance(config.attention, LatentAttentionConfig):
        out = _write_mla(config)
    elif config.rope is None:
        out = _write_gpt2(config)
    else:
        out = _write_llama(config)
    shared = {"vocab_size": config.vocab_size, "tie_word_embeddings": config.tie_embeddings,
              "initializer_range": config.init_std, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    return {**out, **shared}


def _need(condition: bool, reason: str) -> None:
    if not condition:
        raise ValueError(f"this model cannot be written for transformers: {reason}")


def _write_gpt2(config: ModelConfig) -> dict[str, Any]:
    a, ff = config.attention, config.feed_forward
    _need(config.norm == "layernorm" and ff.activation == "gelu" and ff.bias and a.qkv_bias and a.output_bias
          and a.kind == "MHA" and config.moe is None and a.n_heads * config.head_dim == config.d_model,
          "with learned positions it knows GPT-2 only, which has LayerNorm, GELU, biases everywhere and MHA whose "
          "heads make up d_model")
    return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_positions": config.max_seq_len,
            "n_embd": config.d_model, "n_layer": config.n_layers, "n_head": a.n_heads, "n_inner": ff.d_ff,
            "activation_function": "gelu_new", "layer_norm_epsilon": config.norm_eps, "resid_pdrop": config.dropout,
            "embd_pdrop": config.dropout, "attn_pdrop": config.attention_dropout}


def _write_frame(config: ModelConfig, kind: str, class_name: str) -> dict[str, Any]:
    _need(config.norm == "rmsnorm" and config.feed_forward.activation == "swiglu",
          f"a model of type {kind} has RMSNorm and SwiGLU")
    return {"architectures": [f"{class_name}ForCausalLM"], "model_type": kind, "hidden_act": "silu",
            "hidden_size": config.d_model, "num_hidden_layers": config.n_layers,
            "num_attention_heads": config.attention.n_heads, "intermediate_size": config.feed_forward.d_ff,
            "max_position_embeddings": config.max_seq_len, "rms_norm_eps": config.norm_eps,
            "attention_dropout": config.attention_dropout, "rope_theta": config.rope.theta,
            "rope_scaling": _write_scaling(config)}


def _write_llama(config: ModelConfig) -> dict[str, Any]:
    a, moe, bias = config.attention, config.moe, config.feed_forward.bias
    both = a.qkv_bias and a.output_bias
    _need(a.qkv_bias or not a.output_bias, "Llama's kin have no bias at the output of attention alone")
    _need(config.d_model % a.n_heads == 0, f"it wants n_heads to divide d_model, and {config.d_model} / {a.n_heads} is "
          "no whole number")
    if moe is not None:
        plain = MoEConfig(moe.n_routed_experts, moe.n_experts_per_token, moe.d_expert, norm_topk_prob=True)
        _need(moe == plain, "experts beside grouped attention it knows as Mixtral's only: softmax, renormalised, in "
              "every layer, none shared")
        _need(not a.qkv_bias, "Mixtral has no biases")
        out = {**_write_frame(config, "mixtral", "Mixtral"), "num_local_experts": moe.n_routed_experts,
               "num_experts_per_tok": moe.n_experts_per_token, "intermediate_size": moe.d_expert,
               "sliding_window": None}
    elif a.qkv_bias and not both:
        _need(not bias and config.head_dim * a.n_heads == config.d_model,
              "biases on query, key and value alone it knows as Qwen2's, whose heads make up d_model and whose "
              "feed-forward has none")
        out = {**_write_frame(config, "qwen2", "Qwen2"), "use_sliding_window": False}
    else:
        out = {**_write_frame(config, "llama", "Llama"), "attention_bias": both, "mlp_bias": bias}
    return {**out, "num_key_value_heads": a.kv_heads, "head_dim": config.head_dim}


def _write_mla(config: ModelConfig) -> dict[str, Any]:
    a, moe = config.attention, config.moe
    _need(config.rope is not None, "its MLA has a rope key; this one has none")
    _need(not config.feed_forward.bias, "DeepSeek's feed-forward has no biases")
    v2 = moe is not None and moe.scoring == "softmax"
    if moe is None:  # the numbers of experts below are never looked at
        moe = MoEConfig(8, 1, config.feed_forward.d_ff, n_shared_experts=1, first_k_dense=config.n_layers,
                        group_score="top2")
    elif v2:
        _need(not moe.norm_topk_prob and not moe.selection_bias and moe.group_score == "max",
              "softmax scores it knows as V2's: no renormalisation, no selection bias, a group rated by its best")
    else:
        _need(moe.selection_bias and moe.group_score == "top2",
              "sigmoid scores it knows as V3's: a selection bias, a group rated by its two best")
    _need(moe.n_shared_experts > 0, "its DeepSeek models have at least one shared expert")
    _need(not v2 or config.rope.layout == "interleaved", "its V2 has rope in interleaved pairs")
    _need(not v2 or config.d_model % a.n_heads == 0, "of V2 it wants n_heads to divide d_model")
    grouped = moe.n_expert_groups > 1
    kind = "deepseek_v2" if v2 else "deepseek_v3"
    out = {**_write_frame(config, kind, "DeepseekV2" if v2 else "DeepseekV3"), "attention_bias": False,
           "num_key_value_heads": a.n_heads, "q_lora_rank": a.q_lora_rank, "kv_lora_rank": a.kv_lora_rank,
           "qk_nope_head_dim": a.qk_nope_head_dim, "qk_rope_head_dim": a.qk_rope_head_dim, "v_head_dim": a.v_head_dim,
           "moe_intermediate_size": moe.d_expert, "n_routed_experts": moe.n_routed_experts,
           "n_shared_experts": moe.n_shared_experts, "num_experts_per_tok": moe.n_experts_per_token,
           "first_k_dense_replace": moe.first_k_dense, "moe_layer_freq": 1, "n_group": moe.n_expert_groups,
           "topk_group": moe.n_limited_groups, "norm_topk_prob": moe.norm_topk_prob, "scoring_func": moe.scoring,
           "topk_method": ("group_limited_greedy" if grouped else "greedy") if v2 else "noaux_tc",
           "routed_scaling_factor": moe.routed_scaling_factor}
    return out if v2 else {**out, "rope_interleave": config.rope.layout == "interleaved",
                           "num_nextn_predict_layers": config.n_mtp_modules}


def _write_scaling(config: ModelConfig) -> dict[str, Any] | None:
    s = config.rope.scaling
    if s is None:
        return None
    if isinstance(s, Llama3RopeConfig):
        return {"rope_type": "llama3", "factor": s.factor, "low_freq_factor": s.low_freq_factor,
                "high_freq_factor": s.high_freq_factor, "original_max_position_embeddings": s.original_max_seq_len}
    out = {"type": "yarn", "rope_type": "yarn", "factor": s.factor, "beta_fast": s.beta_fast, "beta_slow": s.beta_slow,
           "original_max_position_embeddings": s.original_max_seq_len}
    if not isinstance(config.attention, LatentAttentionConfig):
        # All of a head is turned, so scaling the softmax and scaling cos and sin come to one: s(mscale) is left.
        return out if s.mscale == 1 else {**out, "attention_factor": yarn_mscale(s.factor, s.mscale)}
    out |= {"mscale": s.mscale, "mscale_all_dim": s.mscale_all_dim}
    if (s.mscale and s.mscale_all_dim) or (s.mscale == 1 and not s.mscale_all_dim):
        return out
    return {**out, "attention_factor": yarn_mscale(s.factor, s.mscale) / yarn_mscale(s.factor, s.mscale_all_dim)}
