"""Whose tensor is whose: the names in published files, and ours. One table for both directions.

{layer} and {expert} stand for numbers. Three things are not just renamed:
- GPT-2 keeps its matrices as [in, out], the transpose of ours ("Conv1D"), and query, key and value side by side in one.
  A square one that is not turned over fits all the same, and the model talks nonsense.
- Files hold each expert by itself; ours stacks all experts of a layer in one tensor [E, …].
- V3's file has its MTP modules as layers behind the last, with the embedding and the head, which are shared, once more.

Rows of query and key matrices are in the order of the family's RoPE layout, and stay so: it is in the config.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_core.config import ModelConfig

GPT2 = {
    "wte.weight": "token_embedding.weight",
    "wpe.weight": "position_embedding.weight",
    "h.{layer}.ln_1.weight": "blocks.{layer}.attention_norm.weight",
    "h.{layer}.ln_1.bias": "blocks.{layer}.attention_norm.bias",
    "h.{layer}.attn.c_attn.weight": (
        "blocks.{layer}.attention.q_proj.weight",
        "blocks.{layer}.attention.k_proj.weight",
        "blocks.{layer}.attention.v_proj.weight"),
    "h.{layer}.attn.c_attn.bias": (
        "blocks.{layer}.attention.q_proj.bias",
        "blocks.{layer}.attention.k_proj.bias",
        "blocks.{layer}.attention.v_proj.bias"),
    "h.{layer}.attn.c_proj.weight": "blocks.{layer}.attention.o_proj.weight",
    "h.{layer}.attn.c_proj.bias": "blocks.{layer}.attention.o_proj.bias",
    "h.{layer}.ln_2.weight": "blocks.{layer}.feed_forward_norm.weight",
    "h.{layer}.ln_2.bias": "blocks.{layer}.feed_forward_norm.bias",
    "h.{layer}.mlp.c_fc.weight": "blocks.{layer}.feed_forward.up.weight",
    "h.{layer}.mlp.c_fc.bias": "blocks.{layer}.feed_forward.up.bias",
    "h.{layer}.mlp.c_proj.weight": "blocks.{layer}.feed_forward.down.weight",
    "h.{layer}.mlp.c_proj.bias": "blocks.{layer}.feed_forward.down.bias",
    "ln_f.weight": "final_norm.weight",
    "ln_f.bias": "final_norm.bias",
    "lm_head.weight": "output_head.weight",
}
CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # the ends of the names of transposed matrices
GPT2_PREFIX = "transformer."  # some files have it before every name but lm_head's, some have it nowhere

# Llama, Qwen2, Mistral, and what Mixtral and DeepSeek share with them. A model takes the rows that it has a place for.
LLAMA = {
    "model.embed_tokens.weight": "token_embedding.weight",
    "model.layers.{layer}.input_layernorm.weight": "blocks.{layer}.attention_norm.weight",
    "model.layers.{layer}.self_attn.q_proj.weight": "blocks.{layer}.attention.q_proj.weight",
    "model.layers.{layer}.self_attn.k_proj.weight": "blocks.{layer}.attention.k_proj.weight",
    "model.layers.{layer}.self_attn.v_proj.weight": "blocks.{layer}.attention.v_proj.weight",
    "model.layers.{layer}.self_attn.o_proj.weight": "blocks.{layer}.attention.o_proj.weight",
    "model.layers.{layer}.self_attn.q_proj.bias": "blocks.{layer}.attention.q_proj.bias",
    "model.layers.{layer}.self_attn.k_proj.bias": "blocks.{layer}.attention.k_proj.bias",
    "model.layers.{layer}.self_attn.v_proj.bias": "blocks.{layer}.attention.v_proj.bias",
    "model.layers.{layer}.self_attn.o_proj.bias": "blocks.{layer}.attention.o_proj.bias",
    "model.layers.{layer}.post_attention_layernorm.weight": "blocks.{layer}.feed_forward_norm.weight",
    "model.layers.{layer}.mlp.gate_proj.weight": "blocks.{layer}.feed_forward.gate.weight",
    "model.layers.{layer}.mlp.up_proj.weight": "blocks.{layer}.feed_forward.up.weight",
    "model.layers.{layer}.mlp.down_proj.weight": "blocks.{layer}.feed_forward.down.weight",
    "model.layers.{layer}.mlp.gate_proj.bias": "blocks.{layer}.feed_forward.gate.bias",
    "model.layers.{layer}.mlp.up_proj.bias": "blocks.{layer}.feed_forward.up.bias",
    "model.layers.{layer}.mlp.down_proj.bias": "blocks.{layer}.feed_forward.down.bias",
    "model.norm.weight": "final_norm.weight",
    "lm_head.weight": "output_head.weight",
}

MIXTRAL = LLAMA | {
    "model.layers.{layer}.block_sparse_moe.gate.weight": "blocks.{layer}.feed_forward.router.weight",
    "model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight": "blocks.{layer}.feed_forward.experts.gate",
    "model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight": "blocks.{layer}.feed_forward.experts.up",
    "model.layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight": "blocks.{layer}.feed_forward.experts.down",
}

# DeepSeekMoE 16B (Llama's attention), V2, V3, R1, Kimi-K2, Moonlight.
DEEPSEEK = LLAMA | {
    "model.layers.{layer}.self_attn.q_a_proj.weight": "blocks.{layer}.attention.q_down.weight",
    "model.layers.{layer}.self_attn.q_a_layernorm.weight": "blocks.{layer}.attention.q_norm.weight",
    "model.layers.{layer}.self_attn.q_b_proj.weight": "blocks.{layer}.attention.q_up.weight",
    "model.layers.{layer}.self_attn.kv_a_proj_with_mqa.weight": "blocks.{layer}.attention.kv_down.weight",
    "model.layers.{layer}.self_attn.kv_a_layernorm.weight": "blocks.{layer}.attention.kv_norm.weight",
    "model.layers.{layer}.self_attn.kv_b_proj.weight": "blocks.{layer}.attention.kv_up.weight",
    "model.layers.{layer}.mlp.gate.weight": "blocks.{layer}.feed_forward.router.weight",
    "model.layers.{layer}.mlp.gate.e_score_correction_bias": "blocks.{layer}.feed_forward.router.selection_bias",
    "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight": "blocks.{layer}.feed_forward.experts.gate",
    "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight": "blocks.{layer}.feed_forward.experts.up",
    "model.layers.{layer}.mlp.experts.{expert}.down_proj.weight": "blocks.{layer}.feed_forward.experts.down",
    "model.layers.{layer}.mlp.shared_experts.gate_proj.weight": "blocks.{layer}.feed_forward.shared.gate.weight",
    "model.layers.{layer}.mlp.shared_experts.up_proj.weight": "blocks.{layer}.feed_forward.shared.up.weight",
    "model.layers.{layer}.mlp.shared_experts.down_proj.weight": "blocks.{layer}.feed_forward.shared.down.weight",
}

# V3's MTP module I is the file's layer n_layers + I: a block like any other, and
MTP = {
    "model.layers.{layer}.enorm.weight": "mtp.{module}.enorm.weight",
    "model.layers.{layer}.hnorm.weight": "mtp.{module}.hnorm.weight",
    "model.layers.{layer}.eh_proj.weight": "mtp.{module}.eh_proj.weight",
    "model.layers.{layer}.shared_head.norm.weight": "mtp.{module}.final_norm.weight",
}
# A file may hold one tensor twice. The second, where it is there, has to equal the first.
REPEATED = {
    "lm_head.weight": "token_embedding.weight",  # where the head is tied
    "model.layers.{layer}.embed_tokens.weight": "token_embedding.weight",
    "model.layers.{layer}.shared_head.head.weight": "output_head.weight",
}
# No weights: what old versions of transformers saved beside them. GPT-2's attn.bias is its triangle of ones.
IGNORED = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")

TABLES = {"gpt2": GPT2, "llama": LLAMA, "qwen2": LLAMA, "mistral": LLAMA, "mixtral": MIXTRAL, "deepseek": DEEPSEEK,
          "deepseek_v2": DEEPSEEK, "deepseek_v3": DEEPSEEK, "kimi_k2": DEEPSEEK}


@dataclass(frozen=True)
class Link:
    """One tensor of a file, and what it is here: our tensor, or several that it holds side by side.

    expert: which part of our stacked tensor it is. transposed: the file has it as [in, out].
    """

    theirs: str
    ours: tuple[str, ...]
    expert: int | None = None
    transposed: bool = False

    def parts(self, weights: dict[str, Tensor]) -> list[Tensor]:
        """Our tensors that it fills, as views of `weights`."""
        return [weights[name] if self.expert is None else weights[name][self.expert] for name in self.ours]

    def shape(self, weights: dict[str, Tensor]) -> list[int]:
        """The shape that it has in the file."""
        parts = self.parts(weights)
        shape = [sum(len(part) for part in parts), *parts[0].shape[1:]]
        return shape[::-1] if self.transposed else shape

    def published(self, weights: dict[str, Tensor]) -> Tensor:
        """The tensor as the file has it, made from ours."""
        parts = self.parts(weights)
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole.T if self.transposed else whole


def links(config: ModelConfig, kind: str, weights: dict[str, Tensor]) -> Iterator[Link]:
    """Every tensor that a file of this model_type must hold for a model with these weights (their shapes are enough).

    Each of our tensors is met once, or an expert at a time. ValueError if one has no place in such a file.
    """
    met = set()
    for table, layers in ((TABLES[kind], range(config.n_layers)), (_mtp_table(kind), range(config.n_mtp_modules))):
        for theirs, ours in table.items():
            for layer in layers if "{layer}" in theirs else [0]:
                place = {"layer": layer, "module": layer}
                names = tuple(name.format(**place) for name in ([ours] if isinstance(ours, str) else ours))
                if names[0] not in weights:
                    continue
                met.update(names)
                if table is not TABLES[kind]:
                    layer += config.n_layers
                for expert in range(len(weights[names[0]])) if "{expert}" in theirs else [None]:
                    yield Link(theirs.format(layer=layer, expert=expert), names, expert,
                               kind == "gpt2" and theirs.endswith(CONV1D))
    if homeless := sorted(weights.keys() - met):
        raise ValueError(f"a file of type {kind} has no place for {homeless[0]} of this model")


def _mtp_table(kind: str) -> dict[str, str]:
    """MTP's own names, and its block's, which are those of a layer."""
    block = {theirs: ours.replace("blocks.{layer}.", "mtp.{module}.block.")
             for theirs, ours in TABLES[kind].items() if "{layer}" in theirs and isinstance(ours, str)}
    return MTP | block


def repeated(config: ModelConfig) -> dict[str, str]:
    """Names that a file may hold beside the others -> our tensor that each must equal."""
    out = {}
    for theirs, ours in REPEATED.items():
        if config.tie_embeddings:
            ours = "token_embedding.weight"
        elif theirs == "lm_head.weight":
            continue
        for layer in range(config.n_layers, config.n_layers + config.n_mtp_modules) if "{layer}" in theirs else [0]:
            out[theirs.format(layer=layer)] = ours
    return out
