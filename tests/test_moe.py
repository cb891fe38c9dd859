"""Router and experts against a loop over tokens, written out from the papers' formulas."""

import pytest
import torch
import torch.nn.functional as F

from llm_core import accounting
from llm_core.config import MoEConfig
from llm_core.moe import Router
from tests.tiny_configs import CONFIGS, build, some_ids


def router(x=None, bias=None, **fields):
    torch.manual_seed(0)
    moe = MoEConfig(**{"n_routed_experts": 8, "n_experts_per_token": 2, "d_expert": 4, **fields})
    made = Router(6, moe)
    torch.nn.init.normal_(made.weight)
    if bias is not None:
        made.selection_bias.copy_(bias)
    return made, torch.randn(50, 6)


@pytest.mark.parametrize("name", ["DeepSeek-V2", "DeepSeek-V3"])
def test_experts_equal_a_loop_over_tokens(name):
    layer = build(name).blocks[2].feed_forward
    x = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))
    got, routing = layer(x)
    for n, token in enumerate(x.flatten(0, 1)):
        wanted = layer.shared(token)
        for e, weight in zip(routing.experts[n], routing.weights[n], strict=True):
            hidden = F.silu(layer.experts.gate[e] @ token) * (layer.experts.up[e] @ token)
            wanted = wanted + weight * (layer.experts.down[e] @ hidden)
        torch.testing.assert_close(got.flatten(0, 1)[n], wanted, atol=1e-4, rtol=1e-4)


def test_softmax_router_of_v2_and_mixtral():
    made, x = router(routed_scaling_factor=16.0)
    scores = F.linear(x, made.weight).softmax(-1)
    best = scores.topk(2)
    torch.testing.assert_close(made(x).weights, best.values * 16)
    made, _ = router(norm_topk_prob=True)
    logits = F.linear(x, made.weight)
    torch.testing.assert_close(made(x).weights, logits.gather(1, best.indices).softmax(-1))  # softmax over the chosen


def test_the_bias_selects_and_has_no_part_in_the_weights():
    bias = torch.tensor([5.0, 5.0, 0, 0, 0, 0, 0, 0])
    made, x = router(bias=bias, scoring="sigmoid", selection_bias=True, norm_topk_prob=True, routed_scaling_factor=2.5)
    routing = made(x)
    assert routing.experts.sort(-1).values.tolist() == [[0, 1]] * 50
    scores = F.linear(x, made.weight).sigmoid().gather(1, routing.experts)
    torch.testing.assert_close(routing.weights, 2.5 * scores / scores.sum(-1, keepdim=True))


@pytest.mark.parametrize("rating", ["max", "top2"])
def test_only_experts_of_the_best_groups_are_chosen(rating):
    made, x = router(
        n_expert_groups=4,
        n_limited_groups=2,
        group_score=rating,
        scoring="sigmoid",
        selection_bias=True,
        bias=-torch.rand(8, generator=torch.Generator().manual_seed(1)) - 1,
    )  # all biased scores negative
    biased = F.linear(x, made.weight).sigmoid() + made.selection_bias
    for n, chosen in enumerate(made(x).experts.tolist()):
        pairs = [biased[n, 2 * g : 2 * g + 2].tolist() for g in range(4)]
        rate = sorted(range(4), key=lambda g: -(max(pairs[g]) if rating == "max" else sum(pairs[g])))
        allowed = [e for g in rate[:2] for e in (2 * g, 2 * g + 1)]
        assert sorted(chosen) == sorted(sorted(allowed, key=lambda e: -biased[n, e])[:2])


def test_underflow_gives_zeros_not_nan():
    made, x = router(scoring="sigmoid", norm_topk_prob=True, selection_bias=True)
    with torch.no_grad():
        made.weight.fill_(-1e4)
    assert torch.equal(made(x.abs()).weights, torch.zeros(50, 2))


def test_bias_update_moves_towards_balance_and_outside_forward_only():
    made, x = router(scoring="sigmoid", selection_bias=True)
    made.train()
    made(x)
    assert torch.equal(made.selection_bias, torch.zeros(8))
    made.update_bias(torch.tensor([[0, 0], [0, 1], [0, 2], [3, 4]]), 0.5)  # 4, 1, 1, 1, 1, 0, 0, 0: the mean is 1
    assert made.selection_bias.tolist() == [-0.5, 0, 0, 0, 0, 0.5, 0.5, 0.5]
    for _ in range(400):
        made.update_bias(made(x).experts, 0.005)
    load = made(x).experts.flatten().bincount(minlength=8)
    assert load.min() >= 9 and load.max() <= 16  # 100 places, 8 experts: 12.5 each


def test_bias_is_saved_with_the_model_and_is_no_parameter():
    model = build("DeepSeek-V3")
    keys = [k for k in model.state_dict() if k.endswith("selection_bias")]
    assert len(keys) == 2 and not any(k in dict(model.named_parameters()) for k in keys)


def test_no_token_is_dropped_however_uneven_the_load():
    model = build("DeepSeek-V3")
    layer = model.blocks[1].feed_forward
    layer.router.selection_bias.copy_(torch.tensor([9.0, 9, 0, 0, 0, 0, 0, 0]))  # two experts get every token
    x = torch.randn(1, 30, 32)
    together, routing = layer(x)
    assert routing.experts.flatten().bincount(minlength=8)[:2].tolist() == [30, 30]
    alone = torch.cat([layer(x[:, i : i + 1])[0] for i in range(30)], dim=1)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_active_parameters_are_those_that_get_a_gradient_from_one_token():
    """Run one token, count what its loss reaches: a second road to the active count."""
    model = build("DeepSeek-V3")
    out = model(some_ids(1, 1))
    out.logits.sum().backward()
    used = 0
    for key, p in model.named_parameters():
        if ".experts." in key:
            used += sum(p[e].numel() for e in range(8) if p.grad[e].abs().sum() > 0)
        else:
            used += p.numel()
    assert used == accounting.count_parameters(CONFIGS["DeepSeek-V3"]).active
