"""Counts against figures reached another way: models built elsewhere, sums by hand, and torch's own counter."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from llm_core import ModelConfig, accounting, presets
from llm_core.config import (
    FeedForwardConfig,
    GroupedAttentionConfig,
    LatentAttentionConfig,
    MoEConfig,
    RopeConfig,
)

REFERENCE = json.loads((Path(__file__).parent / "reference_figures.json").read_text(encoding="utf-8"))
MODELS = REFERENCE["models"]
V3 = ModelConfig.preset("deepseek-v3")


# Real models

def test_every_real_preset_has_a_reference():
    ours = {"gpt-mini", "deepseek-mini", "smollm2-135m"}  # counted by their own tensors, in other tests
    assert set(MODELS) == set(presets.names()) - ours - {"deepseek-r1"}  # r1 is v3 by another name
    assert ModelConfig.preset("deepseek-r1") == V3


@pytest.mark.parametrize("name", MODELS)
def test_totals_and_active_counts(name):
    expected, counted = MODELS[name], accounting.count_parameters(ModelConfig.preset(name))
    assert counted.total == expected["total"]
    assert counted.active == expected["activated"]["rule_all"]
    assert counted.active_no_input_embedding == expected["activated"]["rule_no_input_embedding"]
    assert counted.active_no_embed_no_head == expected["activated"]["rule_no_embed_no_head"]
    assert counted.mtp == expected.get("mtp_unique", 0)
    assert counted.mtp_active == expected.get("mtp_active", 0)
    assert counted.mtp_router_biases == expected.get("mtp_router_biases", 0)


@pytest.mark.parametrize("name", [name for name in MODELS if "by_group_when_built" in MODELS[name]])
def test_parts_agree_with_the_model_that_was_built(name):
    built, counted = MODELS[name]["by_group_when_built"], accounting.count_parameters(ModelConfig.preset(name))
    part = {**dict.fromkeys(accounting.PARTS, 0), **counted.by_part}
    assert part["token embedding"] + part["position embedding"] == built["embed"]
    assert part["routed experts"] == built.get("routed_experts", 0)
    assert part["output head"] == built.get("head", 0)
    assert counted.router_biases == MODELS[name]["router_biases_when_built"]


@pytest.mark.parametrize("name", [name for name in MODELS if "n_moe_layers" in MODELS[name]])
def test_experts(name):
    config, expected = ModelConfig.preset(name), MODELS[name]
    assert config.n_moe_layers == expected["n_moe_layers"]
    one_layer = sum(accounting.per_layer(config, "moe")["routed experts"].values())
    assert one_layer == config.moe.n_routed_experts * expected["parameters_of_one_expert"]


def test_the_figures_that_the_course_names():
    counted = accounting.count_parameters(V3)
    assert (counted.total, counted.router_biases) == (671_026_404_352, 14_848)
    assert (counted.active, counted.active_no_input_embedding) == (37_552_282_624, 36_625_603_584)
    assert counted.mtp == 11_610_067_968
    assert accounting.count_parameters(ModelConfig.preset("gpt2")).total == 124_439_808


def test_mtp_module_part_by_part():
    size = {"attention": 0, "moe": 0, "norms": 0}
    by_name = {row.name: row.total for row in accounting.mtp_rows(V3)}
    for row in accounting.mtp_rows(V3):
        if row.part == "attention" or row.name in ("q_norm", "kv_norm"):
            size["attention"] += row.total
        elif row.part in ("router", "routed experts", "shared experts"):
            size["moe"] += row.total
    expected = MODELS["deepseek-v3"]["mtp_breakdown"]
    assert size["attention"] == expected["attention"]
    assert size["moe"] == expected["moe_incl_router"]
    assert by_name["attention_norm"] + by_name["feed_forward_norm"] == expected["block_norms"]
    assert by_name["enorm"] + by_name["hnorm"] == expected["enorm_hnorm"]
    assert by_name["eh_proj"] == expected["eh_proj"]
    assert by_name["final_norm"] == expected["shared_head_norm"]
    layer_alone = sum(sum(names.values()) for names in accounting.per_layer(V3, "moe").values())
    assert layer_alone == REFERENCE["published"]["mtp_layer_without_eh_proj"]["value"]


# Sums by hand

TINY_MOE = ModelConfig(
    vocab_size=10, max_seq_len=8, d_model=4, n_layers=3, norm="layernorm", rope=RopeConfig(),
    attention=LatentAttentionConfig(2, kv_lora_rank=3, qk_nope_head_dim=2, qk_rope_head_dim=2, v_head_dim=5,
                                    q_lora_rank=6),
    feed_forward=FeedForwardConfig(7, activation="gelu", bias=True), n_mtp_modules=2,
    moe=MoEConfig(4, 2, 3, n_shared_experts=2, first_k_dense=1, selection_bias=True))


def test_a_tiny_model_by_hand():
    counted = accounting.count_parameters(TINY_MOE)
    # q_down 6x4, q_up 8x6, kv_down 5x4, kv_up 14x3, o_proj 4x10
    attention = 24 + 48 + 20 + 42 + 40
    layer_norms = 2 * (4 + 4) + 6 + 3  # two LayerNorms with bias, and RMSNorms on the latents, which have none
    assert counted.by_part == {
        "token embedding": 40, "attention": 3 * attention, "dense feed-forward": (7 * 4 + 7) + (4 * 7 + 4),
        "routed experts": 2 * 4 * 3 * 12, "shared experts": 2 * 3 * 24, "router": 2 * 16,
        "norms": 3 * layer_norms + 8, "output head": 40}
    assert counted.active == counted.total - 2 * 2 * 36  # two MoE layers, two of four experts not chosen
    module = attention + layer_norms + 4 * 36 + 72 + 16 + 3 * 8 + 32  # + enorm, hnorm, final norm; + eh_proj 4x8
    assert counted.mtp == 2 * module
    assert (counted.router_biases, counted.mtp_router_biases) == (2 * 4, 2 * 4)


def test_gpt2_layer_by_hand():
    layer = accounting.per_layer(ModelConfig.preset("gpt2"))
    assert layer["attention"] == {name: n for p in "qkvo" for name, n in
                                  ((f"{p}_proj", 768 * 768), (f"{p}_proj.bias", 768))}
    assert layer["dense feed-forward"] == {"up": 2359296, "up.bias": 3072, "down": 2359296, "down.bias": 768}
    assert sum(layer["norms"].values()) == 4 * 768


def test_no_rope_means_learned_positions_also_for_mla():
    heads = LatentAttentionConfig(2, 3, 2, 0, 5)
    config = ModelConfig(10, 8, 4, 1, heads, FeedForwardConfig(7))
    assert accounting.count_parameters(config).by_part["position embedding"] == 32


def test_per_layer_errors():
    with pytest.raises(ValueError, match='kind "moe" needs a config with experts'):
        accounting.per_layer(ModelConfig.preset("gpt2"), "moe")
    with pytest.raises(ValueError, match="kind must be one of dense, moe, not 'sparse'"):
        accounting.per_layer(V3, "sparse")
    with pytest.raises(ValueError, match="config must be ModelConfig, not 'gpt2'"):
        accounting.count_parameters("gpt2")


@st.composite
def configs(draw):
    size = st.integers(1, 40)
    heads, even = draw(size), st.integers(1, 20).map(lambda n: 2 * n)
    if draw(st.booleans()):
        attention = LatentAttentionConfig(heads, draw(size), draw(size), draw(even), draw(size),
                                          draw(st.none() | size))
    else:
        attention = GroupedAttentionConfig(heads, draw(st.sampled_from([1, heads])), draw(even), draw(st.booleans()),
                                           draw(st.booleans()))
    moe = None
    if draw(st.booleans()):
        experts = draw(size)
        moe = MoEConfig(experts, draw(st.integers(1, experts)), draw(size), draw(st.integers(0, 3)),
                        draw(st.integers(0, 8)), selection_bias=draw(st.booleans()))
    return ModelConfig(
        draw(size), draw(size), draw(size), draw(st.integers(1, 6)), attention, moe=moe, rope=RopeConfig(),
        feed_forward=FeedForwardConfig(draw(size), draw(st.sampled_from(["gelu", "swiglu"])), draw(st.booleans())),
        norm=draw(st.sampled_from(["layernorm", "rmsnorm"])), tie_embeddings=draw(st.booleans()),
        n_mtp_modules=draw(st.integers(0, 2)))


@given(configs())
@settings(max_examples=150, deadline=None)
def test_parts_sum_and_layers_add_up(config):
    counted = accounting.count_parameters(config)
    assert sum(counted.by_part.values()) == counted.total
    assert sum(counted.active_by_part.values()) == counted.active
    assert all(counted.by_part.values())
    assert list(counted.by_part) == [part for part in accounting.PARTS if part in counted.by_part]
    assert counted.active_no_embed_no_head < counted.active_no_input_embedding <= counted.active <= counted.total
    # The layers one by one, as a model would build them.
    layers = 0
    for index in range(config.n_layers):
        kind = "moe" if config.moe and index >= config.moe.first_k_dense else "dense"
        layers += sum(sum(names.values()) for names in accounting.per_layer(config, kind).values())
    final_norm = config.d_model * (2 if config.norm == "layernorm" else 1)
    tables = config.vocab_size * config.d_model * (1 if config.tie_embeddings else 2)
    assert counted.total == layers + final_norm + tables
    untied = accounting.count_parameters(config.replace(tie_embeddings=False))
    tied = accounting.count_parameters(config.replace(tie_embeddings=True))
    assert untied.total - tied.total == config.vocab_size * config.d_model
    assert untied.active_no_input_embedding == tied.active == tied.active_no_input_embedding
    assert untied.active_no_embed_no_head == tied.active_no_embed_no_head


def test_a_billion_layers_cost_nothing():
    start = time.perf_counter()
    deep = V3.replace(n_layers=10**9)
    counted = accounting.count_parameters(deep)
    accounting.cache_bytes(deep, 1, 10**9)
    accounting.forward_flops(deep, 10**6)
    assert time.perf_counter() - start < 1
    per_layer = sum(sum(names.values()) for names in accounting.per_layer(V3, "moe").values())
    assert counted.total == 671_026_404_352 + (10**9 - 61) * per_layer


# FLOPs

def torch_counts(config, context, absorbed):
    """FLOPs of one new token in one MLA layer, as torch counts them while plain matrix products run."""
    a, d = config.attention, config.d_model
    h, nope, rope, c, v = a.n_heads, a.qk_nope_head_dim, a.qk_rope_head_dim, a.kv_lora_rank, a.v_head_dim
    x, latents, rope_keys = torch.ones(1, d), torch.ones(context, c), torch.ones(context, rope)
    with FlopCounterMode(display=False) as counter:
        q = (x @ torch.ones(d, h * (nope + rope))).view(h, 1, nope + rope)
        x @ torch.ones(d, c + rope)  # kv_down
        if absorbed:
            q_latent = q[..., :nope] @ torch.ones(h, nope, c)
            scores = torch.cat([q_latent, q[..., nope:]], -1) @ torch.cat([latents, rope_keys], -1).T.expand(h, -1, -1)
            mixed = (scores @ latents.expand(h, -1, -1)) @ torch.ones(h, c, v)
        else:
            keys_values = (latents @ torch.ones(c, h * (nope + v))).view(context, h, nope + v).transpose(0, 1)
            keys = torch.cat([keys_values[..., :nope], rope_keys.expand(h, -1, -1)], -1)
            mixed = (q @ keys.mT) @ keys_values[..., nope:]
        mixed.reshape(1, h * v) @ torch.ones(h * v, d)
    return counter.get_total_flops()


@pytest.mark.parametrize("absorbed", [False, True])
@pytest.mark.parametrize("context", [1, 37])
def test_mla_flops_are_what_torch_counts(context, absorbed):
    config = ModelConfig(10, 64, 12, 1, LatentAttentionConfig(3, 7, 4, 2, 5), FeedForwardConfig(8), rope=RopeConfig())
    parts = accounting.forward_flops(config, 1, context, absorbed).by_part
    counted = parts["attention projections"] + parts["attention scores and values"]
    assert counted == torch_counts(config, context, absorbed)
    assert parts["dense feed-forward"] == 2 * 2 * 12 * 8 and parts["output head"] == 2 * 12 * 10


@given(configs(), st.integers(1, 9), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_flops_of_many_tokens_are_the_sum_of_single_ones(config, tokens, cached):
    whole = accounting.forward_flops(config, tokens, cached + tokens)
    singles = [accounting.forward_flops(config, 1, cached + i + 1) for i in range(tokens)]
    rebuilt = "attention projections" if config.attention.kind == "MLA" else None  # once a call, not once a token
    for part in whole.by_part:
        if part != rebuilt:
            assert whole.by_part[part] == sum(single.by_part[part] for single in singles)
    assert whole.total == sum(whole.by_part.values())


def test_flops_say_what_cannot_be():
    with pytest.raises(ValueError, match="context 3 is less than the 4 new tokens.*nearest: 4"):
        accounting.forward_flops(V3, 4, 3)
    with pytest.raises(ValueError, match=r"needs latent attention \(MLA\), and this config has MHA"):
        accounting.forward_flops(ModelConfig.preset("gpt2"), 1, 3, absorbed=True)


# The command

def command(*arguments):
    return subprocess.run([sys.executable, "-m", "llm_core.accounting", *arguments], capture_output=True,
                          encoding="utf-8", env={**os.environ, "PYTHONIOENCODING": "utf-8"}, timeout=60)


def test_the_command_prints_one_table():
    done = command("deepseek-v3", "--context", "128k")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(row) for row in cells} == {3} and len({len(line) for line in lines}) == 1
    by_label = {row[0]: row[1:] for row in cells}
    # Every figure in the table, read back, is the one that the reference has.
    parts = [int(by_label[part][0].replace(",", "")) for part in accounting.PARTS if part in by_label]
    assert sum(parts) == MODELS["deepseek-v3"]["total"]
    for figure in ("671,026,404,352 (671 B)", "37,552,282,624 (37.6 B)", "36,625,603,584 (36.6 B)",
                   "35,698,924,544 (35.7 B)", "11,610,067,968 (11.6 B)", " 14,848 ", "70,272 bytes",
                   "131,072 tokens", "9,210,691,584 bytes", "9.21 GB (8.58 GiB)"):
        assert figure in done.stdout


def test_the_command_with_batch_and_bits():
    done = command("deepseek-v2", "--context", "1M", "--batch", "3", "--bits", "6")
    assert done.returncode == 0
    assert "25,920 bytes" in done.stdout  # 34,560 numbers at 6 bits
    assert "1,048,576 tokens × 3 sequences (the model's limit is 163,840)" in done.stdout


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["deepseek-v9"], "no preset is called 'deepseek-v9'; nearest: deepseek-v"),
    (["gpt2", "--context", "banana"], "a number of tokens is written like 4096, 128k or 1M"),
    (["gpt2", "--context", "-5"], "at least 1, not '-5'"),
    (["gpt2", "--bits", "0"], "--bits must be a whole number of at least 1, not '0'"),
    (["gpt2", "--batch", "two"], "--batch must be a whole number of at least 1, not 'two'"),
    (["gpt2", "--colour"], "unrecognized arguments: --colour"),
    ([], "the following arguments are required: name")])
def test_the_command_answers_bad_input_with_one_sentence(arguments, sentence, capsys):
    from llm_core.accounting.__main__ import main

    assert main(arguments) == 2
    said = capsys.readouterr()
    assert sentence in said.err and said.err.count("\n") == 1 and said.out == ""


def test_the_command_leaves_code_2_and_no_traceback():
    done = command("nosuch")
    assert done.returncode == 2 and done.stdout == ""
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1
