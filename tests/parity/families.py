"""Tiny random models of transformers' own, one of each kind, and the whole way from their folder to our logits.

transformers writes a folder; config, names and numbers are then read from it as from any other. So what is compared is
not the model alone but all of `checkpoint` and `hf_config` too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers as hf

from llm_core import generate
from llm_core.checkpoint.hf_folder import load_hf

VOCAB, TOKENS, SEEDS = 96, 48, (0, 1, 2)
NO_ENDS = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
BASE = {
    "vocab_size": VOCAB, "max_position_embeddings": 128, "hidden_size": 32, "num_hidden_layers": 3,
    "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, **NO_ENDS}
MLA = {
    **BASE, "num_key_value_heads": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 12, "moe_intermediate_size": 20, "n_routed_experts": 8, "n_shared_experts": 2,
    "num_experts_per_tok": 3, "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2, "tie_word_embeddings": False}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64, "rope_theta": 10000.0}


def yarn(**more) -> dict:
    """An original context of 16, so that 48 tokens are far past it."""
    return {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0, **more}


V2_YARN, V3_YARN = yarn(mscale=0.707, mscale_all_dim=0.707), yarn(mscale=1.0, mscale_all_dim=1.0)


def gpt2(**more):
    return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=VOCAB, n_positions=128, n_embd=32, n_layer=3, n_head=4,
                                            **NO_ENDS, **more))


def llama(**more):
    return hf.LlamaForCausalLM(hf.LlamaConfig(**{**BASE, "tie_word_embeddings": False, **more}))


def qwen2(**more):
    return hf.Qwen2ForCausalLM(hf.Qwen2Config(**{**BASE, "tie_word_embeddings": False, **more}))


def mistral():
    return hf.MistralForCausalLM(hf.MistralConfig(**BASE, sliding_window=None, head_dim=12))


def mixtral():
    return hf.MixtralForCausalLM(hf.MixtralConfig(**BASE, num_local_experts=8, num_experts_per_tok=2))


def v2(**more):
    return hf.DeepseekV2ForCausalLM(hf.DeepseekV2Config(**{
        **MLA, "q_lora_rank": 12, "topk_method": "group_limited_greedy", "routed_scaling_factor": 16.0,
        "norm_topk_prob": False, "rope_parameters": V2_YARN, **more}))


def v3(**more):
    return hf.DeepseekV3ForCausalLM(hf.DeepseekV3Config(**{
        **MLA, "q_lora_rank": 12, "routed_scaling_factor": 2.5, "norm_topk_prob": True, "rope_parameters": V3_YARN,
        **more}))


FAMILIES: dict[str, Callable[[], torch.nn.Module]] = {
    "GPT-2": gpt2,
    "GPT-2, head of its own, n_inner 80": lambda: gpt2(tie_word_embeddings=False, n_inner=80),
    "Llama (GQA)": llama,
    "Llama, tied": lambda: llama(tie_word_embeddings=True),
    "Llama, biases everywhere": lambda: llama(attention_bias=True, mlp_bias=True),
    "Llama 3.1's rope": lambda: llama(rope_parameters=LLAMA3),
    "Mistral, heads wider than d_model / n_heads": mistral,
    "Qwen2 (biases)": qwen2,
    "Qwen2 with YaRN": lambda: qwen2(rope_parameters=yarn()),
    "Mixtral": mixtral,
    "DeepSeek-V2 (scaling 16, YaRN)": v2,
    "DeepSeek-V2-Lite (no q_lora, greedy)": lambda: v2(q_lora_rank=None, topk_method="greedy",
                                                       routed_scaling_factor=1.0),
    "DeepSeek-V3 (YaRN)": v3,
    "DeepSeek-V3, norm_topk_prob off": lambda: v3(norm_topk_prob=False),
    "DeepSeek-V3, mscale not mscale_all_dim": lambda: v3(rope_parameters=yarn(mscale=1.0, mscale_all_dim=0.5)),
    "DeepSeek-V3, YaRN without mscale": lambda: v3(rope_parameters=yarn()),
    "DeepSeek-V3, rope in halves": lambda: v3(rope_interleave=False),
    "Moonlight (no q_lora, one group, no YaRN)": lambda: v3(
        q_lora_rank=None, n_group=1, topk_group=1, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0}),
    "Kimi-K2 (one group, beta_fast 1)": lambda: v3(
        n_group=1, topk_group=1, routed_scaling_factor=2.827, rope_parameters=yarn(
            beta_fast=1.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0)),
    "DeepSeek-V3, all layers dense": lambda: v3(first_k_dense_replace=3),
}


@dataclass
class Compared:
    """difference: the largest of all logits, uncached and cached; spread: their standard deviation."""

    difference: float
    spread: float
    greedy_equal: bool


def widen(model: torch.nn.Module) -> torch.nn.Module:
    """Weights wide enough that attention, positions, biases and routing all matter."""
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.2) if p.dim() > 1 else p.add_(torch.randn_like(p) * 0.2)
        for name, b in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                b.normal_(std=0.2)
    return model.eval().float()


@torch.no_grad()
def compare(family: str, seed: int) -> Compared:
    """Our reading of transformers' model against the model itself: logits of 48 tokens, and 12 greedy ones."""
    torch.manual_seed(seed)
    theirs = widen(FAMILIES[family]())
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = load_hf(folder)
    ids = torch.randint(0, VOCAB, (2, TOKENS))
    wanted = theirs(ids).logits
    cache = ours.new_cache(batch=2)  # 20 tokens, then one at a time to 30, then the rest at once
    parts = [20, *[1] * 10, 18]
    cached = torch.cat([ours(part, cache).logits for part in ids.split(parts, dim=1)], dim=1)
    difference = max((got - wanted).abs().max().item() for got in (ours(ids).logits, cached))
    text = ids[:, :8]
    for _ in range(12):  # the reference reads everything again at each step
        text = torch.cat([text, theirs(text).logits[:, -1:].argmax(-1)], dim=1)
    return Compared(difference, wanted.std().item(), torch.equal(generate(ours, ids[:, :8], 12), text))
