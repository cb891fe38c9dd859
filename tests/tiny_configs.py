"""Small models of every kind, for tests: weights wide enough that attention, positions and routing all matter."""

from __future__ import annotations

import torch

from llm_core import LanguageModel
from llm_core.config import (
    FeedForwardConfig,
    GroupedAttentionConfig,
    LatentAttentionConfig,
    ModelConfig,
    MoEConfig,
    RopeConfig,
    YarnConfig,
)

_BASE = {"vocab_size": 61, "max_seq_len": 64, "d_model": 32, "n_layers": 3}
_FF = FeedForwardConfig(40, "swiglu")
_MLA = LatentAttentionConfig(4, kv_lora_rank=12, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6, q_lora_rank=10)
_MOE = MoEConfig(
    8,
    3,
    12,
    n_shared_experts=1,
    first_k_dense=1,
    scoring="sigmoid",
    norm_topk_prob=True,
    routed_scaling_factor=2.5,
    selection_bias=True,
    n_expert_groups=4,
    n_limited_groups=2,
    group_score="top2",
)

CONFIGS = {
    "GPT-2": ModelConfig(
        **_BASE,
        attention=GroupedAttentionConfig(4, qkv_bias=True, output_bias=True),
        feed_forward=FeedForwardConfig(128, "gelu", bias=True),
        norm="layernorm",
        tie_embeddings=True,
    ),
    "MHA": ModelConfig(**_BASE, attention=GroupedAttentionConfig(4), feed_forward=_FF, rope=RopeConfig()),
    "GQA": ModelConfig(
        **_BASE, attention=GroupedAttentionConfig(4, 2), feed_forward=_FF, rope=RopeConfig(layout="halves")
    ),
    "MQA": ModelConfig(**_BASE, attention=GroupedAttentionConfig(4, 1), feed_forward=_FF, rope=RopeConfig()),
    "MLA": ModelConfig(**_BASE, attention=_MLA.replace(q_lora_rank=None), feed_forward=_FF, rope=RopeConfig()),
    "MLA without RoPE": ModelConfig(**_BASE, attention=_MLA.replace(qk_rope_head_dim=0), feed_forward=_FF),
    "DeepSeek-V2": ModelConfig(
        **_BASE,
        attention=_MLA,
        feed_forward=_FF,
        rope=RopeConfig(scaling=YarnConfig(4.0, 16)),
        moe=MoEConfig(
            8,
            2,
            12,
            n_shared_experts=2,
            first_k_dense=1,
            routed_scaling_factor=16.0,
            n_expert_groups=4,
            n_limited_groups=2,
        ),
    ),
    "DeepSeek-V3": ModelConfig(
        **_BASE, attention=_MLA, feed_forward=_FF, rope=RopeConfig(scaling=YarnConfig(4.0, 16)), moe=_MOE
    ),
}


def build(name: str, seed: int = 0, std: float = 0.2) -> LanguageModel:
    torch.manual_seed(seed)
    model = LanguageModel(CONFIGS[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=std)
        for key, buffer in model.named_buffers():
            if key.endswith("selection_bias"):
                buffer.normal_(std=0.2)
    return model


def some_ids(batch: int = 2, tokens: int = 20, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, _BASE["vocab_size"], (batch, tokens), generator=torch.Generator().manual_seed(seed))
