"""The name tables against the names and shapes of published files, written down here as they are on disk."""

import pytest
import torch

from llm_core import LanguageModel, presets
from llm_core.checkpoint.names import TABLES, Link, links, repeated
from llm_core.config import (
    FeedForwardConfig,
    GroupedAttentionConfig,
    LatentAttentionConfig,
    ModelConfig,
    MoEConfig,
    RopeConfig,
)
from tests.tiny_configs import CONFIGS

TINY_MLA = ModelConfig(
    vocab_size=64, max_seq_len=32, d_model=32, n_layers=2,
    attention=LatentAttentionConfig(4, 8, 6, 4, 5, q_lora_rank=16),
    feed_forward=FeedForwardConfig(48, "swiglu"), rope=RopeConfig(),
    moe=MoEConfig(4, 2, 12, n_shared_experts=2, first_k_dense=1, scoring="sigmoid", selection_bias=True))
V3_ATTENTION = {
    "self_attn.q_a_proj.weight": [16, 32], "self_attn.q_a_layernorm.weight": [16],
    "self_attn.q_b_proj.weight": [40, 16],
    "self_attn.kv_a_proj_with_mqa.weight": [12, 32], "self_attn.kv_a_layernorm.weight": [8],
    "self_attn.kv_b_proj.weight": [44, 8], "self_attn.o_proj.weight": [32, 20], "input_layernorm.weight": [32],
    "post_attention_layernorm.weight": [32]}
V3_EXPERTS = {
    "mlp.gate.weight": [4, 32], "mlp.gate.e_score_correction_bias": [4],
    **{f"mlp.experts.{e}.{part}_proj.weight": shape for e in range(4)
       for part, shape in (("gate", [12, 32]), ("up", [12, 32]), ("down", [32, 12]))},
    "mlp.shared_experts.gate_proj.weight": [24, 32], "mlp.shared_experts.up_proj.weight": [24, 32],
    "mlp.shared_experts.down_proj.weight": [32, 24]}
DENSE = {"mlp.gate_proj.weight": [48, 32], "mlp.up_proj.weight": [48, 32], "mlp.down_proj.weight": [32, 48]}
ENDS = {"model.embed_tokens.weight": [64, 32], "model.norm.weight": [32], "lm_head.weight": [64, 32]}
MTP = {"enorm.weight": [32], "hnorm.weight": [32], "eh_proj.weight": [32, 64], "shared_head.norm.weight": [32]}


def layer(index, *groups):
    return {f"model.layers.{index}.{name}": shape for group in groups for name, shape in group.items()}


V3 = ENDS | layer(0, V3_ATTENTION, DENSE) | layer(1, V3_ATTENTION, V3_EXPERTS)
NO_Q_LORA = {"self_attn.q_proj.weight": [40, 32]} | {k: v for k, v in V3_ATTENTION.items() if ".q_" not in k}
V2_EXPERTS = {k: v for k, v in V3_EXPERTS.items() if "bias" not in k}
GROUPED = ModelConfig(
    vocab_size=64, max_seq_len=32, d_model=32, n_layers=2, attention=GroupedAttentionConfig(4, 2, qkv_bias=True),
    feed_forward=FeedForwardConfig(48, "swiglu"), rope=RopeConfig(layout="halves"))
QKVO = {"self_attn.q_proj.weight": [32, 32], "self_attn.k_proj.weight": [16, 32], "self_attn.v_proj.weight": [16, 32],
        "self_attn.o_proj.weight": [32, 32], "input_layernorm.weight": [32], "post_attention_layernorm.weight": [32]}
QKV_BIAS = {"self_attn.q_proj.bias": [32], "self_attn.k_proj.bias": [16], "self_attn.v_proj.bias": [16]}
MIXTRAL = {"block_sparse_moe.gate.weight": [4, 32],
           **{f"block_sparse_moe.experts.{e}.{part}.weight": shape for e in range(4)
              for part, shape in (("w1", [48, 32]), ("w3", [48, 32]), ("w2", [32, 48]))}}
GPT2 = {"wte.weight": [64, 32], "wpe.weight": [32, 32], "ln_f.weight": [32], "ln_f.bias": [32]} | {
    f"h.{i}.{name}": shape for i in range(2) for name, shape in {
        "ln_1.weight": [32], "ln_1.bias": [32], "attn.c_attn.weight": [32, 96], "attn.c_attn.bias": [96],
        "attn.c_proj.weight": [32, 32], "attn.c_proj.bias": [32], "ln_2.weight": [32], "ln_2.bias": [32],
        "mlp.c_fc.weight": [32, 128], "mlp.c_fc.bias": [128], "mlp.c_proj.weight": [128, 32],
        "mlp.c_proj.bias": [32]}.items()}
NO_BIAS = GROUPED.replace(attention=GroupedAttentionConfig(4, 2))

PUBLISHED = {
    "deepseek_v3": (TINY_MLA, "deepseek_v3", V3),
    "deepseek_v3 with two MTP modules": (TINY_MLA.replace(n_mtp_modules=2), "deepseek_v3", V3 | layer(
        2, V3_ATTENTION, V3_EXPERTS, MTP) | layer(3, V3_ATTENTION, V3_EXPERTS, MTP)),
    "deepseek_v2": (TINY_MLA.replace(moe=TINY_MLA.moe.replace(selection_bias=False)), "deepseek_v2",
                    ENDS | layer(0, V3_ATTENTION, DENSE) | layer(1, V3_ATTENTION, V2_EXPERTS)),
    "deepseek_v2 without q_lora": (
        TINY_MLA.replace(moe=TINY_MLA.moe.replace(selection_bias=False),
                         attention=TINY_MLA.attention.replace(q_lora_rank=None)), "deepseek_v2",
        ENDS | layer(0, NO_Q_LORA, DENSE) | layer(1, NO_Q_LORA, V2_EXPERTS)),
    "deepseek": (NO_BIAS.replace(moe=MoEConfig(4, 2, 12, n_shared_experts=2, first_k_dense=1)), "deepseek",
                 ENDS | layer(0, QKVO, DENSE) | layer(1, QKVO, V2_EXPERTS)),
    "llama": (NO_BIAS, "llama", ENDS | layer(0, QKVO, DENSE) | layer(1, QKVO, DENSE)),
    "mistral": (NO_BIAS, "mistral", ENDS | layer(0, QKVO, DENSE) | layer(1, QKVO, DENSE)),
    "qwen2": (GROUPED, "qwen2", ENDS | layer(0, QKVO, QKV_BIAS, DENSE) | layer(1, QKVO, QKV_BIAS, DENSE)),
    "mixtral": (NO_BIAS.replace(moe=MoEConfig(4, 2, 48)), "mixtral",
                ENDS | layer(0, QKVO, MIXTRAL) | layer(1, QKVO, MIXTRAL)),
    "gpt2": (CONFIGS["GPT-2"].replace(vocab_size=64, max_seq_len=32, n_layers=2), "gpt2", GPT2)}


@pytest.mark.parametrize("family", PUBLISHED)
def test_the_table_gives_every_published_name_and_shape(family):
    config, kind, published = PUBLISHED[family]
    weights = LanguageModel.unfilled(config).state_dict()
    table = list(links(config, kind, weights))
    assert {link.theirs: link.shape(weights) for link in table} == published
    assert len(table) == len(published)


@pytest.mark.parametrize("family", PUBLISHED)
def test_each_number_of_ours_has_one_place(family):
    config, kind, _ = PUBLISHED[family]
    weights = {name: torch.zeros(tensor.shape) for name, tensor in LanguageModel.unfilled(config).state_dict().items()}
    for link in links(config, kind, weights):
        for part in link.parts(weights):
            part += 1
    assert all((tensor == 1).all() for tensor in weights.values())


def test_gpt2s_matrices_are_turned_over_and_joined():
    weights = {f"{name}_proj.weight": torch.randn(4, 3) for name in "qkv"}
    link = Link("c_attn.weight", tuple(weights), transposed=True)
    x = torch.randn(3)
    out = x @ link.published(weights)  # as GPT-2's Conv1D multiplies
    torch.testing.assert_close(out, torch.cat([w @ x for w in weights.values()]))


def test_v3_itself_by_its_published_counts():
    """The whole model: 61 layers, MTP as layer 61; 671,026,404,352 parameters and 14,848 biases, MTP 11,610,068,224."""
    config = presets.get("deepseek-v3")
    weights = LanguageModel.unfilled(config).state_dict()
    sizes = {link.theirs: torch.Size(link.shape(weights)).numel() for link in links(config, "deepseek_v3", weights)}
    mtp = {name for name in sizes if name.startswith("model.layers.61.")}
    assert sum(size for name, size in sizes.items() if name not in mtp) == 671_026_404_352 + 58 * 256
    assert sum(sizes[name] for name in mtp) == 11_610_067_968 + 256
    assert repeated(config) == {"model.layers.61.embed_tokens.weight": "token_embedding.weight",
                                "model.layers.61.shared_head.head.weight": "output_head.weight"}


def test_what_a_file_has_no_place_for_is_named():
    config = CONFIGS["DeepSeek-V3"]
    weights = LanguageModel.unfilled(config).state_dict()
    with pytest.raises(ValueError, match="type llama has no place for blocks.0.attention.kv_down.weight"):
        list(links(config, "llama", weights))


def test_the_tables_read_backwards_too():
    for table in TABLES.values():
        ours = [name for names in table.values() for name in ([names] if isinstance(names, str) else names)]
        assert len(ours) == len(set(ours))
