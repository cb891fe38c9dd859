"""The peer, transformers, and our model with the very same weights: read from the folder that the peer writes."""

from __future__ import annotations

import tempfile

import torch
import transformers as hf

from llm_core.checkpoint.hf_folder import load_hf
from llm_core.model import LanguageModel

NO_ENDS = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}


def gpt2() -> tuple[torch.nn.Module, LanguageModel]:
    """GPT-2 124M with random weights: speed does not depend on what they say."""
    return pair(hf.GPT2LMHeadModel, hf.GPT2Config(**NO_ENDS))


def deepseek() -> tuple[torch.nn.Module, LanguageModel]:
    """DeepSeek-V3 in small: 8 layers, the first of them dense, 16 experts in 4 groups."""
    return pair(hf.DeepseekV3ForCausalLM, hf.DeepseekV3Config(
        vocab_size=8192, hidden_size=512, num_hidden_layers=8, num_attention_heads=16, num_key_value_heads=16,
        q_lora_rank=256, kv_lora_rank=128, qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64,
        intermediate_size=1536, moe_intermediate_size=256, n_routed_experts=16, n_shared_experts=1,
        num_experts_per_tok=4, n_group=4, topk_group=2, first_k_dense_replace=1, max_position_embeddings=16384,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, **NO_ENDS))


def pair(kind: type, config) -> tuple[torch.nn.Module, LanguageModel]:
    torch.manual_seed(0)
    theirs = kind(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = load_hf(folder).eval()
    return theirs, ours


def ids(model: LanguageModel, tokens: int) -> torch.Tensor:
    """A text of random tokens, the same each time: [1, tokens]."""
    return torch.randint(0, model.config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(0))
