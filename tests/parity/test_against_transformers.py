"""Our logits against transformers', tiny random models, positions past 0 and past YaRN's original context."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from llm_core import LanguageModel, generate
from llm_core.config import (
    FeedForwardConfig,
    GroupedAttentionConfig,
    LatentAttentionConfig,
    Llama3RopeConfig,
    ModelConfig,
    MoEConfig,
    RopeConfig,
    YarnConfig,
)
from tests.parity import names

V, T = 96, 48
BASE = {"vocab_size": V, "max_seq_len": 128, "d_model": 32, "n_layers": 3}
SWIGLU = FeedForwardConfig(48, "swiglu")
HF_BASE = {
    "vocab_size": V,
    "max_position_embeddings": 128,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 0.707,
    "mscale_all_dim": 0.707,
    "rope_theta": 10000.0,
}
HF_MLA = {
    **HF_BASE,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "moe_intermediate_size": 20,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}


def gpt2():
    theirs = hf.GPT2LMHeadModel(
        hf.GPT2Config(
            vocab_size=V, n_positions=128, n_embd=32, n_layer=3, n_head=4, bos_token_id=None, eos_token_id=None
        )
    )
    ours = ModelConfig(
        **BASE,
        attention=GroupedAttentionConfig(4, qkv_bias=True, output_bias=True),
        feed_forward=FeedForwardConfig(128, "gelu", bias=True),
        norm="layernorm",
        norm_eps=1e-5,
        tie_embeddings=True,
    )
    return theirs, ours, lambda state: names.gpt2(state, 3)


def llama(tied=False, scaling=None, rope=None):
    theirs = hf.LlamaForCausalLM(
        hf.LlamaConfig(
            **HF_BASE, num_key_value_heads=2, tie_word_embeddings=tied, **({"rope_parameters": rope} if rope else {})
        )
    )
    ours = ModelConfig(
        **BASE,
        attention=GroupedAttentionConfig(4, 2),
        feed_forward=SWIGLU,
        tie_embeddings=tied,
        rope=RopeConfig(layout="halves", scaling=scaling),
    )
    return theirs, ours, lambda state: names.llama_and_deepseek(state, tied)


def llama31():
    return llama(
        scaling=Llama3RopeConfig(8.0, 64),
        rope={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
            "rope_theta": 10000.0,
        },
    )


def qwen2():
    theirs = hf.Qwen2ForCausalLM(hf.Qwen2Config(**HF_BASE, num_key_value_heads=2, tie_word_embeddings=False))
    ours = ModelConfig(
        **BASE,
        attention=GroupedAttentionConfig(4, 2, qkv_bias=True),
        feed_forward=SWIGLU,
        rope=RopeConfig(layout="halves"),
    )
    return theirs, ours, names.llama_and_deepseek


def mixtral():
    theirs = hf.MixtralForCausalLM(
        hf.MixtralConfig(
            **HF_BASE,
            num_key_value_heads=2,
            num_local_experts=8,
            num_experts_per_tok=2,
            sliding_window=None,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        )
    )
    ours = ModelConfig(
        **BASE,
        attention=GroupedAttentionConfig(4, 2),
        feed_forward=SWIGLU,
        rope=RopeConfig(layout="halves"),
        moe=MoEConfig(8, 2, 48, norm_topk_prob=True),
    )
    return theirs, ours, names.llama_and_deepseek


def deepseek_v2(q_lora_rank):
    theirs = hf.DeepseekV2ForCausalLM(
        hf.DeepseekV2Config(
            **HF_MLA,
            q_lora_rank=q_lora_rank,
            n_group=4,
            topk_group=2,
            topk_method="group_limited_greedy",
            routed_scaling_factor=16.0,
            norm_topk_prob=False,
            rope_parameters=YARN,
            tie_word_embeddings=False,
        )
    )
    moe = MoEConfig(
        8, 3, 20, n_shared_experts=2, first_k_dense=1, n_expert_groups=4, n_limited_groups=2, routed_scaling_factor=16.0
    )
    return theirs, _mla(q_lora_rank, moe), names.llama_and_deepseek


def deepseek_v3(norm_topk_prob):
    theirs = hf.DeepseekV3ForCausalLM(
        hf.DeepseekV3Config(
            **HF_MLA,
            q_lora_rank=12,
            n_group=4,
            topk_group=2,
            routed_scaling_factor=2.5,
            norm_topk_prob=norm_topk_prob,
            rope_parameters=YARN,
            tie_word_embeddings=False,
        )
    )
    moe = MoEConfig(
        8,
        3,
        20,
        n_shared_experts=2,
        first_k_dense=1,
        scoring="sigmoid",
        norm_topk_prob=norm_topk_prob,
        routed_scaling_factor=2.5,
        selection_bias=True,
        n_expert_groups=4,
        n_limited_groups=2,
        group_score="top2",
    )
    return theirs, _mla(12, moe), names.llama_and_deepseek


def _mla(q_lora_rank, moe):
    return ModelConfig(
        **BASE,
        attention=LatentAttentionConfig(4, 16, 8, 8, 12, q_lora_rank),
        feed_forward=SWIGLU,
        moe=moe,
        rope=RopeConfig(scaling=YarnConfig(4.0, 16, mscale=0.707, mscale_all_dim=0.707)),
    )


FAMILIES = {
    "gpt2": gpt2,
    "llama": llama,
    "llama tied": lambda: llama(tied=True),
    "llama 3.1": llama31,
    "qwen2": qwen2,
    "mixtral": mixtral,
    "deepseek-v2": lambda: deepseek_v2(12),
    "deepseek-v2 without q_lora": lambda: deepseek_v2(None),
    "deepseek-v3": lambda: deepseek_v3(True),
    "deepseek-v3 unnormalised": lambda: deepseek_v3(False),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_greedy_tokens_equal_transformers(family, seed):
    torch.manual_seed(seed)
    theirs, config, rename = FAMILIES[family]()
    theirs = theirs.eval().float()
    with torch.no_grad():
        for p in theirs.parameters():  # wide enough that attention and routing matter
            p.normal_(std=0.2) if p.dim() > 1 else p.add_(torch.randn_like(p) * 0.2)
        for name, b in theirs.named_buffers():
            if name.endswith("e_score_correction_bias"):
                b.normal_(std=0.2)
    ours = LanguageModel(config).eval()
    ours.load_state_dict(rename(theirs.state_dict()))
    ids = torch.randint(0, V, (2, T))
    with torch.no_grad():
        wanted, got = theirs(ids).logits, ours(ids).logits
    assert wanted.std() > 0.3  # the comparison means something
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        text = ids[:, :8]
        for _ in range(12):  # the reference reads everything again at each step
            text = torch.cat([text, theirs(text).logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(generate(ours, ids[:, :8], 12), text)
