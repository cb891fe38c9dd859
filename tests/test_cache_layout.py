"""Memory: what a token leaves in the cache, what training holds, how bytes are written and how fast they are read."""

import json
from math import prod
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_core import ModelConfig, accounting, cache_layout
from llm_core.config import FeedForwardConfig, GroupedAttentionConfig, LatentAttentionConfig

REFERENCE = json.loads((Path(__file__).parent / "reference_figures.json").read_text(encoding="utf-8"))
V3, GPT2, LLAMA = (ModelConfig.preset(name) for name in ("deepseek-v3", "gpt2", "llama-3.1-8b"))


@pytest.mark.parametrize("name", REFERENCE["models"])
def test_every_preset(name):
    config, expected = ModelConfig.preset(name), REFERENCE["models"][name]
    assert cache_layout.elements_per_token(config) == expected["cache_elements_per_token"]
    assert accounting.cache_bytes_per_token(config) == expected["cache_bytes_per_token_bf16"]


def test_shapes():
    assert cache_layout.entry_shapes(GPT2) == {"k": (12, 64), "v": (12, 64)}
    assert cache_layout.entry_shapes(LLAMA) == {"k": (8, 128), "v": (8, 128)}
    assert cache_layout.entry_shapes(V3) == {"latent": (512,), "k_rope": (64,)}  # 576 a layer, not 512


def test_without_a_rope_key_there_is_only_the_latent():
    config = ModelConfig(10, 8, 4, 3, LatentAttentionConfig(2, 5, 4, 0, 4), FeedForwardConfig(8))
    assert cache_layout.entry_shapes(config) == {"latent": (5,)}
    assert accounting.cache_formula(config) == "(5 latent) numbers × 3 layers × 2 bytes = 30 bytes a token"


def test_published_figures():
    published = REFERENCE["published"]
    for name, kilobytes in published["cache_kilobytes_per_token"].items():
        if name != "source":
            assert accounting.cache_bytes_per_token(ModelConfig.preset(name)) == round(kilobytes * 1000)
    v2 = accounting.cache_bytes_per_token(ModelConfig.preset("deepseek-v2"), bits=6)
    old = accounting.cache_bytes_per_token(ModelConfig.preset("deepseek-llm-67b"))
    assert (v2, old) == (25_920, 389_120)
    assert round(100 * (1 - v2 / old), 1) == published["cache_reduction_percent_v2_against_67b"]["value"]


@given(st.integers(1, 64), st.integers(1, 100), st.integers(0, 1000), st.integers(1, 64))
def test_bytes_are_bits_rounded_up_once(batch, layers, tokens, bits):
    config = ModelConfig(10, 8, 6, layers, GroupedAttentionConfig(2, 1, head_dim=3), FeedForwardConfig(8))
    total_bits = layers * sum(prod(s) for s in cache_layout.entry_shapes(config).values()) * batch * tokens * bits
    size = accounting.cache_bytes(config, batch, tokens, bits)
    assert 8 * size - 8 < total_bits <= 8 * size


@pytest.mark.parametrize(("arguments", "sentence"), [
    ((0, 1, 16), "batch must be a whole number of at least 1, not 0"),
    ((1, -1, 16), "tokens must be a whole number of at least 0, not -1"),
    ((1, 1.5, 16), "tokens must be a whole number of at least 0, not 1.5"),
    ((1, 1, True), "bits must be a whole number of at least 1, not True"),
    ((1, 1, "16"), "bits must be a whole number of at least 1, not '16'")])
def test_errors(arguments, sentence):
    for function in (accounting.cache_bytes, accounting.cache_formula):
        with pytest.raises(ValueError) as caught:
            function(V3, *arguments)
        assert str(caught.value) == sentence


@pytest.mark.parametrize(("config", "arguments", "formula"), [
    (LLAMA, (), "2 (key and value) × 8 heads × 128 numbers × 32 layers × 2 bytes = 131,072 bytes a token"),
    (V3, (), "(512 latent + 64 rope key) numbers × 61 layers × 2 bytes = 70,272 bytes a token"),
    (V3, (1, 2**17), "(512 latent + 64 rope key) numbers × 61 layers × 131,072 tokens × 2 bytes = 9,210,691,584 bytes"),
    (GPT2, (8, 1024, 8), "2 (key and value) × 12 heads × 64 numbers × 12 layers × 1,024 tokens × 8 sequences × 1 byte "
                         "= 150,994,944 bytes"),
    (GPT2, (1, 1, 6), "2 (key and value) × 12 heads × 64 numbers × 12 layers × 6 bits ÷ 8 = 13,824 bytes a token")])
def test_formula_in_words(config, arguments, formula):
    assert accounting.cache_formula(config, *arguments) == formula


def test_formula_says_when_it_rounds():
    config = ModelConfig(10, 8, 3, 1, GroupedAttentionConfig(3, 1, head_dim=1), FeedForwardConfig(8))
    assert accounting.cache_formula(config, bits=5) == (
        "2 (key and value) × 1 head × 1 number × 1 layer × 5 bits ÷ 8 = 2 bytes a token, rounded up")


@pytest.mark.parametrize(("n", "text"), [
    (0, "0"), (999, "999"), (1000, "1.00 K"), (9_994, "9.99 K"), (9_996, "10.0 K"), (124_439_808, "124 M"),
    (999_499, "999 K"), (999_500, "1.00 M"), (999_999_999, "1.00 B"), (671_026_404_352, "671 B"),
    (37_552_282_624, "37.6 B"), (1_026_408_209_408, "1.03 T"), (12_345 * 10**12, "12,345 T"), (23.456, "23.5"),
    (0.01234, "0.0123"), (-2_222_208, "-2.22 M")])
def test_human_count(n, text):
    assert accounting.human_count(n) == text


@pytest.mark.parametrize(("n", "text"), [
    (0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (70_272, "70.3 kB (68.6 KiB)"),
    (9_210_691_584, "9.21 GB (8.58 GiB)"), (10**9, "1.00 GB (0.931 GiB)"), (2**30, "1.07 GB (1.00 GiB)"),
    (1_342_052_808_704, "1.34 TB (1.22 TiB)")])
def test_human_bytes(n, text):
    assert accounting.human_bytes(n) == text


@pytest.mark.parametrize(("text", "n"), [("4096", 4096), ("128k", 131_072), ("128K", 131_072), ("1M", 1_048_576),
                                         ("131,072", 131_072), (" 1_000 ", 1000)])
def test_parse_tokens(text, n):
    assert accounting.parse_tokens(text) == n


@pytest.mark.parametrize("text", ["", "0", "-5", "k", "1.5k", "128kb", "lots", "1e6", "²", "9" * 5000])
def test_parse_tokens_says_what_would_do(text):
    with pytest.raises(ValueError, match="written like 4096, 128k or 1M") as caught:
        accounting.parse_tokens(text)
    assert len(str(caught.value)) < 140


def test_training_memory():
    memory = accounting.training_memory(ModelConfig.preset("llama-2-7b"))
    assert memory.total == 16 * 6_738_415_616 and memory.adam_moments == 8 * 6_738_415_616
    assert accounting.training_memory(V3, 8, 32, 32, 16).total == (1 + 4 + 4 + 4) * (671_026_404_352 + 11_610_067_968)
    with pytest.raises(ValueError, match="master_bits must be a whole number of at least 0, not -1"):
        accounting.training_memory(V3, master_bits=-1)


def test_decoding_bound_by_hand():
    slow = accounting.Hardware("round numbers", bytes_per_second=1e9, flops_per_second=1e15)
    bound = accounting.decode_bound(GPT2, slow, batch=2, context=100)
    # Every weight but the position table (looked up; the token table is the head and is read), and 2 caches of 100.
    assert bound.weight_bytes == 2 * (124_439_808 - 1024 * 768)
    assert bound.cache_bytes == 2 * 100 * 36_864
    assert bound.limited_by == "memory"
    assert bound.tokens_per_second == pytest.approx(2e9 / (bound.weight_bytes + bound.cache_bytes))
    fast = accounting.Hardware("a memory without limits", bytes_per_second=1e30, flops_per_second=1e9)
    bound = accounting.decode_bound(GPT2, fast, batch=2, context=100)
    # 12 layers of (4 + 8) d^2 and the head, for each token; scores and values of 100 tokens.
    assert bound.flops == 2 * 2 * (12 * 12 * 768**2 + 50257 * 768 + 12 * 2 * 100 * 768)
    assert bound.limited_by == "compute" and bound.tokens_per_second == pytest.approx(2e9 / bound.flops)


def test_one_sequence_reads_the_active_experts_and_many_read_all():
    h100 = accounting.HARDWARE["h100"]
    one = accounting.decode_bound(V3, h100, weight_bits=8)
    assert one.weight_bytes == REFERENCE["models"]["deepseek-v3"]["activated"]["rule_no_input_embedding"]
    two = accounting.decode_bound(V3, h100, batch=2, weight_bits=8)
    routed = accounting.count_parameters(V3).by_part["routed experts"]
    # Two tokens of 8 experts out of 256, independent: 16 less the 8 x 8 / 256 that they share.
    assert two.weight_bytes - one.weight_bytes == pytest.approx(routed * (8 - 0.25) / 256, abs=1)
    crowd = accounting.decode_bound(V3, h100, batch=100_000, weight_bits=8)
    assert crowd.weight_bytes == 671_026_404_352 - 129_280 * 7168
    with pytest.raises(ValueError, match="bytes_per_second must be a finite number above 0, not 0"):
        accounting.Hardware("none", 0, 1)
    with pytest.raises(ValueError, match="hardware must be Hardware, not 'h100'"):
        accounting.decode_bound(V3, "h100")


def test_shares_and_ratios_as_people_read_them():
    assert [accounting.percent(*pair) for pair in ((1, 3), (1, 10**6), (0, 3))] == ["33.3 %", "<0.1 %", "0.0 %"]
    ratios = [accounting.times(*pair) for pair in ((3, 2), (0, 2), (2, 0), (5392 * 7, 7))]
    assert ratios == ["1.5 ×", "–", "–", "5,392 ×"] and accounting.ratio(3, 2) == "1.5"
