"""Attention layers against plain softmax written out, and MLA's two ways against each other."""

import pytest
import torch

from llm_core import presets
from llm_core.attention import build_attention
from llm_core.attention.causal import causal_attention, causal_mask
from llm_core.positions import rope_table
from tests.tiny_configs import build, some_ids


def by_hand(q, k, v, scale):
    """One query at a time, in 64 bits: no mask is needed where later keys are never touched."""
    B, H, T, _ = q.shape
    S, group = k.shape[2], H // k.shape[1]
    out = torch.zeros(B, H, T, v.shape[-1], dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                seen = S - T + t + 1
                keys, values = k[b, h // group, :seen].double(), v[b, h // group, :seen].double()
                out[b, h, t] = ((keys @ q[b, h, t].double()) * scale).softmax(0) @ values
    return out


@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 9), (5, 9), (9, 9)])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("v_dim", [8, 5])
def test_fused_attention_equals_softmax_by_hand(T, S, groups, v_dim):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, T, 8), torch.randn(2, groups, S, 8), torch.randn(2, groups, S, v_dim)
    torch.testing.assert_close(causal_attention(q, k, v, 0.3).double(), by_hand(q, k, v, 0.3), atol=1e-5, rtol=1e-5)


def test_the_mask_sits_at_the_bottom_right():
    assert causal_mask(1, 4).tolist() == [[True] * 4]
    assert causal_mask(2, 4).tolist() == [[True, True, True, False], [True] * 4]


@pytest.mark.parametrize("name", ["MLA", "MLA without RoPE", "DeepSeek-V3"])
def test_naive_and_absorbed_latent_attention_agree(name):
    model, ids = build(name), some_ids(2, 40)  # 40 is past YaRN's original 16
    logits = {}
    for way in (False, True):
        for block in model.blocks:
            block.attention.absorbed = way
        logits[way] = model(ids).logits
        cache = model.new_cache(2)
        in_pieces = torch.cat([model(piece, cache).logits for piece in ids.split([25, 1, 14], dim=1)], dim=1)
        torch.testing.assert_close(in_pieces, logits[way], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(logits[True], logits[False], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("q_lora_rank", [None, 10])
def test_one_layer_is_the_same_both_ways_to_1e_5(q_lora_rank):
    """At V3's proportions: 128 of content and 64 of position in a head, a latent of 512, and YaRN."""
    config = presets.get("deepseek-v3")
    config = config.replace(d_model=256, attention=config.attention.replace(n_heads=4, q_lora_rank=q_lora_rank))
    torch.manual_seed(0)
    layer = build_attention(config).eval()
    x, rope = torch.randn(2, 50, 256), rope_table(config.rope, config.rope_dim, torch.arange(5000, 5050))
    out = {}
    for way in (False, True):
        layer.absorbed = way
        out[way] = layer(x, rope)
    assert out[False].std() > 0.05
    torch.testing.assert_close(out[True], out[False], atol=1e-5, rtol=0)


def test_few_tokens_behind_cached_ones_take_the_absorbed_way():
    """Seen by the work: naive calls kv_up as a layer, absorbed reads its weight."""
    model, ids = build("MLA"), some_ids(1, 6)
    calls = []
    for block in model.blocks:
        block.attention.kv_up.register_forward_hook(lambda *_: calls.append(1))
    cache = model.new_cache(1)
    model(ids, cache)
    assert len(calls) == 3
    model(ids[:, :1], cache)
    model(ids[:, :3], cache)  # guesses to check
    assert len(calls) == 3
    model(torch.cat([ids, ids], dim=1), cache)
    assert len(calls) == 6


def test_the_rope_key_is_one_for_all_heads():
    assert build("MLA").new_cache(2, 10).layers[0]["k_rope"].shape == (2, 10, 4)


def test_fewer_key_value_heads_equal_copied_ones():
    """GQA is MHA whose key and value matrices repeat themselves within a group."""
    gqa, mha = build("GQA").blocks[0].attention, build("MHA").blocks[0].attention
    mha.load_state_dict(
        {
            **gqa.state_dict(),
            **{
                f"{n}_proj.weight": getattr(gqa, f"{n}_proj")
                .weight.view(2, 8, 32)
                .repeat_interleave(2, 0)
                .reshape(32, 32)
                for n in "kv"
            },
        }
    )
    mha.rope_layout = gqa.rope_layout
    from llm_core.positions import rope_table

    x, rope = torch.randn(2, 7, 32), rope_table(build("GQA").config.rope, 8, torch.arange(7))
    torch.testing.assert_close(gqa(x, rope), mha(x, rope), atol=1e-5, rtol=1e-5)
