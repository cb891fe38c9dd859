"""Where the tensors of transformers' models go in ours. Each map takes their state dict and returns ours."""

from __future__ import annotations

import torch
from torch import Tensor


def gpt2(theirs: dict[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """GPT-2 stores its matrices transposed (Conv1D) and query, key and value side by side."""
    t = {name.removeprefix("transformer."): tensor for name, tensor in theirs.items()}
    ours = {
        "token_embedding.weight": t["wte.weight"],
        "position_embedding.weight": t["wpe.weight"],
        "final_norm.weight": t["ln_f.weight"],
        "final_norm.bias": t["ln_f.bias"],
    }
    for i in range(n_layers):
        h, b = f"h.{i}.", f"blocks.{i}."
        for kind in ("weight", "bias"):
            ours[f"{b}attention_norm.{kind}"] = t[f"{h}ln_1.{kind}"]
            ours[f"{b}feed_forward_norm.{kind}"] = t[f"{h}ln_2.{kind}"]
            for name, part in zip("qkv", t[f"{h}attn.c_attn.{kind}"].chunk(3, dim=-1), strict=True):
                ours[f"{b}attention.{name}_proj.{kind}"] = part.T if kind == "weight" else part
            for here, there in (
                ("attention.o_proj", "attn.c_proj"),
                ("feed_forward.up", "mlp.c_fc"),
                ("feed_forward.down", "mlp.c_proj"),
            ):
                tensor = t[f"{h}{there}.{kind}"]
                ours[f"{b}{here}.{kind}"] = tensor.T if kind == "weight" else tensor
    return ours


_RENAMED = {
    "model.embed_tokens": "token_embedding",
    "model.norm": "final_norm",
    "lm_head": "output_head",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "feed_forward_norm",
    "self_attn": "attention",
    "q_a_proj": "q_down",
    "q_a_layernorm": "q_norm",
    "q_b_proj": "q_up",
    "kv_a_proj_with_mqa": "kv_down",
    "kv_a_layernorm": "kv_norm",
    "kv_b_proj": "kv_up",
    "shared_experts": "shared",
    "mlp.gate.e_score_correction_bias": "feed_forward.router.selection_bias",
    "mlp.gate.weight": "feed_forward.router.weight",
    "gate_proj": "gate",
    "up_proj": "up",
    "down_proj": "down",
    "gate_up": "gate_up_proj",  # what the line above made of the stacked one
    "mlp": "feed_forward",
    "model.layers": "blocks",
}


def llama_and_deepseek(theirs: dict[str, Tensor], tied: bool = False) -> dict[str, Tensor]:
    """Llama, Qwen2, Mixtral, DeepSeek-V2 and V3, as they stand in memory: experts stacked, gate rows above up rows."""
    ours = {}
    for name, tensor in theirs.items():
        if "rotary" in name or (tied and name.startswith("lm_head")):
            continue
        for there, here in _RENAMED.items():
            name = name.replace(there, here)
        if name.endswith("experts.gate_up_proj"):
            gate, up = tensor.chunk(2, dim=1)
            stem = name.removesuffix("gate_up_proj")
            ours[stem + "gate"], ours[stem + "up"] = gate, up
        else:
            ours[name] = tensor
    return {name: tensor.detach().clone().to(torch.float32) for name, tensor in ours.items()}
