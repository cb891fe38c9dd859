"""V3's selection bias at work: it flattens the load, moves in training alone, is saved, and only selects."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llm_core import LanguageModel, balancing
from llm_core.config import MoEConfig
from llm_core.moe import Experts, Router
from tests.tiny_configs import CONFIGS, build, some_ids

E = 8
SIGMOID = {"scoring": "sigmoid", "norm_topk_prob": True, "selection_bias": True}


def test_the_bias_flattens_the_load_step_by_step():
    torch.manual_seed(0)
    router, x = Router(6, MoEConfig(E, 2, 4, **SIGMOID)), torch.randn(400, 6) + torch.tensor([2.0, 0, 0, 0, 0, 0])
    nn.init.normal_(router.weight)
    loads = balancing.even_out(router, x, 300, 0.01)
    violation = [balancing.max_violation(row) for row in loads]
    assert loads.shape == (301, E) and loads.sum(-1).tolist() == [800] * 301
    assert violation[0] > 1.5 and max(violation[250:]) < 0.2
    first_moves = torch.sign(100 - loads[0])  # overloaded experts go down, the others up, all by the same step
    other = copy.deepcopy(router)
    other.selection_bias.zero_()
    balancing.even_out(other, x, 1, 0.01)
    torch.testing.assert_close(other.selection_bias, 0.01 * first_moves)
    with pytest.raises(ValueError, match="no selection bias"):
        balancing.even_out(Router(6, MoEConfig(E, 2, 4)), x, 1, 0.01)


def train_toy(balance: str, seed: int, steps: int = 300) -> tuple[list[float], float]:
    """Four experts, one a token, learn to roll four numbers by the place of the largest. One expert starts ahead.

    MaxVio at each step (3 is the worst there is), and the error at the end.
    """
    torch.manual_seed(seed)
    router = Router(4, MoEConfig(4, 1, 8, scoring="sigmoid", selection_bias=balance == "bias"))
    experts = Experts(4, 4, 8)
    for weight in [*router.parameters(), *experts.parameters()]:
        nn.init.normal_(weight, std=0.3)
    with torch.no_grad():
        router.weight[0] += 1
    x = torch.randn(256, 4) + 1
    target = 2 * torch.stack([row.roll(int(row.argmax())) for row in x])
    optimizer = torch.optim.Adam([*router.parameters(), *experts.parameters()], lr=0.01)
    violation = []
    for _ in range(steps):
        routing = router(x)
        violation.append(balancing.max_violation(balancing.load(routing)))
        error = F.mse_loss(experts(x, routing), target)
        loss = error + balancing.sequence_balance_loss(routing, 1) if balance == "loss" else error
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        router.update_bias(routing.experts, 0.01)
    return violation, error.item()


@pytest.mark.parametrize("seed", [0, 2])
def test_without_balance_the_router_stays_collapsed_and_with_loss_or_bias_it_does_not(seed):
    late, error = {}, {}
    for how in ("none", "loss", "bias"):
        violation, error[how] = train_toy(how, seed)
        assert violation[0] > 2.5
        late[how] = sum(violation[-100:]) / 100
    assert late["none"] > 2.5 and late["loss"] < 0.6 and late["bias"] < 0.6, late
    assert error["loss"] < error["none"] and error["bias"] < error["none"], error  # idle experts learn nothing


@pytest.mark.parametrize("training", [False, True])
def test_forward_never_moves_the_bias(training):
    model, ids = build("DeepSeek-V3").train(training), some_ids()
    before = copy.deepcopy(model.state_dict())
    out = model(ids)
    out.logits.sum().backward()
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    model.update_router_biases(out.routing, 0.01)
    moved = {key for key, tensor in model.state_dict().items() if not torch.equal(before[key], tensor)}
    assert moved == {f"blocks.{i}.feed_forward.router.selection_bias" for i in (1, 2)}


def test_the_bias_is_saved_and_comes_back():
    model, ids = build("DeepSeek-V3"), some_ids()
    fresh = LanguageModel(CONFIGS["DeepSeek-V3"]).eval()
    fresh.load_state_dict(model.state_dict())
    for a, b in zip(model(ids).routing, fresh(ids).routing, strict=True):
        assert torch.equal(a.experts, b.experts)
    for block in fresh.blocks[1:]:
        block.feed_forward.router.selection_bias.zero_()
    assert any(not torch.equal(a.experts, b.experts) for a, b in zip(model(ids).routing, fresh(ids).routing))


def test_the_bias_only_selects():
    """The same number on all biases changes neither who is chosen nor how much it counts; no gradient reaches it."""
    model, ids = build("DeepSeek-V3"), some_ids()
    before = model(ids)
    for block in model.blocks[1:]:
        block.feed_forward.router.selection_bias += 3
    after = model(ids)
    torch.testing.assert_close(after.logits, before.logits, atol=1e-4, rtol=1e-4)
    for a, b in zip(before.routing, after.routing, strict=True):
        torch.testing.assert_close(a.weights.sum(-1), torch.full((len(ids.flatten()),), 2.5))
        assert torch.equal(a.experts.sort(-1).values, b.experts.sort(-1).values)
