"""The ways of latent attention, against formulas by hand, a layer's own products, and searches one by one."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from llm_core import accounting, presets
from llm_core.attention import latent
from llm_core.cache import Cache
from llm_core.config import LatentAttentionConfig
from llm_core.positions import rope_table

V3 = presets.get("deepseek-v3")


def small(H=3, c=12, n=8, r=4, v=6, layers=2, **more):
    attention = LatentAttentionConfig(H, c, n, r, v, **more)
    return presets.tiny(48, layers, "MLA").replace(attention=attention)


CONFIGS = {"plain": small(), "queries squeezed": small(q_lora_rank=10), "wide values": small(v=40, c=8),
           "one number": small(c=1, n=1, v=1), "V3": V3}


def test_v3_as_lesson_05_2_counts_it():
    """Multiply-adds of one layer at 131,072 tokens, where torch's own counter agreed in the lesson."""
    found = {way: accounting.attention_step(V3, 1, 131072, way) for way in accounting.WAYS}
    assert {way: step.flops // 2 // 61 for way, step in found.items()} == {
        "rebuild": 2_204_391_964_672, "keep": 5_385_486_336, "absorb": 18_270_388_224}
    assert {way: round(step.flops_per_byte) for way, step in found.items()} == {
        "rebuild": 29_198, "keep": 1, "absorb": 242}
    assert found["absorb"].cache_read == 131072 * 70272 and found["keep"].cache_read == 131072 * 40960 * 2 * 61
    arithmetic, memory = found["absorb"].seconds(accounting.HARDWARE["h100"])
    assert (round(1e6 * arithmetic / 61), round(1e6 * memory / 61)) == (37, 45)
    assert [accounting.rebuilt_from(V3, n) for n in (256, 1024, 4096, 131072)] == [119, 157, 168, 171]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("tokens, context", [(1, 1), (1, 50), (7, 7), (7, 50)])
def test_a_step_by_hand(name, tokens, context):
    config = CONFIGS[name]
    a, T, S = config.attention, tokens, context
    H, c, n, r, v = a.n_heads, a.kv_lora_rank, a.qk_nope_head_dim, a.qk_rope_head_dim, a.v_head_dim
    pairs = sum(S - T + i + 1 for i in range(T))
    by_hand = {"rebuild": S * c * (n + v) + pairs * (n + r + v), "keep": T * c * (n + v) + pairs * (n + r + v),
               "absorb": T * c * (n + v) + pairs * (c + r + c)}
    whole = {way: accounting.forward_flops(config, T, S, absorbed=way == "absorb").total
             for way in ("rebuild", "absorb")}
    for way, multiply_adds in by_hand.items():
        flops = 2 * H * config.n_layers * multiply_adds
        assert accounting.attention_step(config, T, S, way).flops == flops
        assert accounting.step_formula(config, T, S, way).endswith(f"= {flops:,} FLOPs")
        if way != "keep":
            assert accounting.way_flops(config, T, S, way, whole_model=True) == whole[way]
    assert accounting.attention_step(config, T, S, "keep", 8).cache_read == S * H * (n + r + v) * config.n_layers
    assert accounting.attention_step(config, T, S, "absorb", 8).cache_read == S * (c + r) * config.n_layers


@pytest.mark.parametrize("way", ["rebuild", "absorb"])
def test_a_step_is_what_a_real_layer_multiplies(way, monkeypatch):
    config = small(layers=1)
    layer, S = latent.LatentAttention(config).eval(), 20
    layer.absorbed = way == "absorb"
    cache = Cache(config, 1, S)

    def step(T):
        places = torch.arange(cache.length, cache.length + T)
        out = layer(torch.randn(1, T, 48), rope_table(config.rope, 4, places), cache.layer(0))
        cache.advance(T)
        return out

    # Torch's fused attention is one product to the counter, of which it knows no size; this is the same in two.
    monkeypatch.setattr(latent, "causal_attention",
                        lambda q, k, v, scale, dropout: (scale * q @ k.mT).softmax(-1) @ v)
    step(S - 1)
    with FlopCounterMode(display=False) as counter:  # not in no_grad: there, some products are made in other ways
        step(1)
    shared = sum(p.numel() for name, p in layer.named_parameters() if "norm" not in name and "kv_up" not in name)
    assert counter.get_total_flops() == 2 * shared + accounting.attention_step(config, 1, S, way).flops


@pytest.mark.parametrize("name", CONFIGS)
def test_crossings_are_those_found_one_by_one(name):
    config = CONFIGS[name]

    def saved(tokens, context):
        naive, absorbed = (accounting.forward_flops(config, tokens, context, absorbed=way).total
                           for way in (False, True))
        return naive - absorbed

    for tokens in (1, 2, 5, 9):
        first = next((n for n in range(tokens, 61) if saved(tokens, n) > 0), None)
        assert accounting.absorbed_from(config, tokens, most=60) == first
    for context in (1, 2, 20, 60):
        first = next((n for n in range(1, context + 1) if saved(n, context) < 0), None)
        assert accounting.rebuilt_from(config, context) == first


def test_where_ways_never_cross():
    assert accounting.absorbed_from(V3, 171) is None and accounting.absorbed_from(V3, 170) == 21973
    assert accounting.rebuilt_from(CONFIGS["wide values"], 50) is None  # a latent below half of key and value
    assert accounting.absorbed_from(CONFIGS["wide values"]) == 1


def test_shapes_hold_v3s_numbers():
    shapes = {what: (rebuilt, absorbed) for what, rebuilt, absorbed in accounting.shapes_of_a_step(V3, 4096)}
    assert shapes["scored against"] == ("keys [4,096, 128, 192], rebuilt: latents × W_uk",
                                        "what was read, as it is: [4,096, 576]")
    assert shapes["result"] == ("[128, 128]", "[128, 512] × W_uv → [128, 128]")


@pytest.mark.parametrize("call, sentence", [
    (lambda: accounting.attention_step(presets.get("gpt2"), 1, 1, "absorb"), "this config has MHA, which"),
    (lambda: accounting.absorbed_from(presets.get("llama-3.1-8b")), "this config has GQA"),
    (lambda: accounting.attention_step(V3, 1, 1, "naive"), "way must be one of rebuild, keep, absorb"),
    (lambda: accounting.attention_step(V3, 3, 2, "keep"), "context 2 is less than the 3 new tokens"),
])
def test_what_cannot_be_is_said(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
