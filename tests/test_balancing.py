"""Balance losses against loops written from the papers' formulas, and capacity against a queue."""

import math

import pytest
import torch
from torch import nn

from llm_core import balancing
from llm_core.config import MoEConfig
from llm_core.moe import Experts, Router, Routing
from tests.tiny_configs import build, some_ids

E, K, N = 8, 3, 24
SIGMOID = {"scoring": "sigmoid", "norm_topk_prob": True, "selection_bias": True}


def routed(seed=0, requires_grad=False, n_tokens=N, **fields) -> Routing:
    """A router's answer to random tokens."""
    torch.manual_seed(seed)
    router = Router(6, MoEConfig(E, K, 4, **fields))
    nn.init.normal_(router.weight)
    if router.selection_bias is not None:
        router.selection_bias.normal_()
    with torch.set_grad_enabled(requires_grad):
        return router(torch.randn(n_tokens, 6))


def chosen(routing: Routing) -> list[list[int]]:
    return routing.experts.tolist()


# How uneven

def test_load_counts_places():
    for routing in (routed(), routed(1, **SIGMOID)):
        wanted = [sum(row.count(e) for row in chosen(routing)) for e in range(E)]
        assert balancing.load(routing).tolist() == wanted and sum(wanted) == N * K
        assert balancing.shares(routing).tolist() == pytest.approx([n / (N * K) for n in wanted])


def test_max_violation_of_loads_that_one_can_do_in_the_head():
    assert balancing.max_violation(torch.tensor([5, 5, 5, 5])) == 0
    assert balancing.max_violation(torch.tensor([4, 2, 1, 1])) == 1  # twice the mean of 2
    everybody_to_the_same = Routing(torch.tensor([[0, 1, 2]] * N), torch.ones(N, K), torch.ones(N, E))
    assert balancing.max_violation(balancing.load(everybody_to_the_same)) == pytest.approx(E / K - 1)
    with pytest.raises(ValueError, match="no load to compare"):
        balancing.max_violation(torch.zeros(4))


# Losses

def by_formula(routing: Routing) -> tuple[list[float], list[float]]:
    """f_i and P_i, a sum over tokens each."""
    n, scores = len(routing.scores), routing.scores.tolist()
    f = [E / (K * n) * sum(i in row for row in chosen(routing)) for i in range(E)]
    return f, [sum(row[i] for row in scores) / n for i in range(E)]


@pytest.mark.parametrize("fields", [{}, SIGMOID])
def test_expert_and_device_level_losses(fields):
    routing = routed(**fields)
    f, p = by_formula(routing)
    assert balancing.expert_balance_loss(routing).item() == pytest.approx(sum(a * b for a, b in zip(f, p)), rel=1e-5)
    wanted = 0.0
    for first in range(0, E, 2):  # 4 devices of 2 experts
        wanted += (f[first] + f[first + 1]) / 2 * (p[first] + p[first + 1])
    assert balancing.device_balance_loss(routing, 4).item() == pytest.approx(wanted, rel=1e-5)
    one_expert_a_device = balancing.device_balance_loss(routing, E)
    assert one_expert_a_device.item() == pytest.approx(balancing.expert_balance_loss(routing).item(), rel=1e-5)


def test_communication_loss_counts_a_token_once_for_each_device():
    routing, devices, most = routed(n_expert_groups=4, n_limited_groups=2), 4, 2
    _, p = by_formula(routing)
    wanted = 0.0
    for d in range(devices):
        sent = sum(any(e // 2 == d for e in row) for row in chosen(routing))
        wanted += devices / (most * N) * sent * (p[2 * d] + p[2 * d + 1])
    assert balancing.communication_balance_loss(routing, devices, most).item() == pytest.approx(wanted, rel=1e-5)


def test_switch_is_the_case_of_one_expert_a_token():
    torch.manual_seed(0)
    router = Router(6, MoEConfig(E, 1, 4))
    nn.init.normal_(router.weight)
    routing = router(torch.randn(N, 6))
    first = routing.scores.argmax(-1)
    wanted = E * sum((first == e).float().mean() * routing.scores[:, e].mean() for e in range(E))
    torch.testing.assert_close(balancing.expert_balance_loss(routing), wanted)


@pytest.mark.parametrize("fields", [{}, SIGMOID, {**SIGMOID, "n_expert_groups": 4, "n_limited_groups": 2}])
def test_sequence_wise_loss_of_v3(fields):
    """Eqs 17 to 20, for each text apart: f by the K best scores (no bias, no groups), P of normalised scores."""
    routing, batch = routed(**fields), 4
    texts = torch.tensor(routing.scores.tolist(), dtype=torch.float64).view(batch, N // batch, E)
    losses = []
    for text in texts:
        f, p = [0.0] * E, [0.0] * E
        for s in text.tolist():
            for i in range(E):
                better = sum(other > s[i] for other in s)
                f[i] += (better < K) * E / (K * len(text))
                p[i] += s[i] / sum(s) / len(text)
        losses.append(sum(a * b for a, b in zip(f, p)))
    assert balancing.sequence_balance_loss(routing, batch).item() == pytest.approx(sum(losses) / batch, rel=1e-5)


def test_a_text_that_leans_to_one_side_pays_where_the_batch_is_even():
    """Two texts, each to its own half of the experts: even over the batch, uneven in each sequence."""
    scores = torch.full((8, 4), 0.01)
    scores[:4, :2], scores[4:, 2:] = 0.49, 0.49
    routing = Routing(scores.topk(2).indices, scores.topk(2).values, scores)
    assert balancing.expert_balance_loss(routing).item() == pytest.approx(1.0)
    assert balancing.sequence_balance_loss(routing, 1).item() == pytest.approx(1.0)
    assert balancing.sequence_balance_loss(routing, 2).item() == pytest.approx(2 * 0.98)


def test_balance_costs_one_and_collapse_the_most():
    """Softmax scores: 1 when all are used alike, E / K when the same K get everything with all the score."""
    even = torch.arange(E).repeat(K).view(-1, K)  # each expert K times
    flat = torch.full((len(even), E), 1 / E)
    assert balancing.expert_balance_loss(Routing(even, flat.gather(1, even), flat)).item() == pytest.approx(1)
    alone = torch.zeros(N, E)
    alone[:, :K] = 1 / K
    to_three = Routing(torch.tensor([[0, 1, 2]] * N), torch.full((N, K), 1 / K), alone)
    assert balancing.expert_balance_loss(to_three).item() == pytest.approx(E / K)


def test_importance_loss_is_variance_over_squared_mean():
    routing = routed(**SIGMOID)
    given = [0.0] * E
    for experts, weights in zip(chosen(routing), routing.weights.tolist()):
        for e, w in zip(experts, weights):
            given[e] += w
    assert balancing.importance(routing).tolist() == pytest.approx(given, rel=1e-5)
    mean = sum(given) / E
    wanted = sum((g - mean) ** 2 for g in given) / E / mean**2
    assert balancing.importance_loss(routing).item() == pytest.approx(wanted, rel=1e-4)


def test_importance_does_not_see_how_many_tokens_come():
    """One sure token and nine unsure ones weigh the same: the load is 1 against 9, and importance calls it even."""
    experts = torch.tensor([[0]] + [[1]] * 9)
    routing = Routing(experts, torch.tensor([[0.9]] + [[0.1]] * 9), torch.ones(10, 2))
    assert balancing.importance_loss(routing).item() == pytest.approx(0, abs=1e-10)
    assert balancing.max_violation(balancing.load(routing)) == pytest.approx(0.8)


@pytest.mark.parametrize("loss", [
    balancing.expert_balance_loss, balancing.importance_loss, lambda r: balancing.device_balance_loss(r, 4),
    lambda r: balancing.communication_balance_loss(r, 4, 2), lambda r: balancing.sequence_balance_loss(r, 2)])
def test_downhill_is_more_even(loss):
    """Fifty steps of gradient descent on the loss alone bring the largest load down."""
    torch.manual_seed(0)
    router, x = Router(6, MoEConfig(E, 2, 4)), torch.randn(64, 6) + torch.tensor([2.0, 0, 0, 0, 0, 0])
    nn.init.normal_(router.weight, std=0.5)
    before = balancing.max_violation(balancing.load(router(x)))
    optimizer = torch.optim.SGD(router.parameters(), lr=0.3)
    for _ in range(50):
        optimizer.zero_grad()
        loss(router(x)).backward()
        optimizer.step()
    assert balancing.max_violation(balancing.load(router(x))) < 0.6 * before


# Capacity

def test_capacity_is_rounded_up():
    assert balancing.capacity(100, 8, 2) == 25
    assert balancing.capacity(10, 4, 2, 1.25) == math.ceil(6.25) == 7
    assert balancing.capacity(10, 10, 1, 1.1) == 2
    assert balancing.capacity(100, 10, 1, 1.1) == 11  # 100 * 1.1 is 110.00000000000001


def queue(routing: Routing, room: int, best_first: bool) -> list[list[bool]]:
    """Places come to their expert one after another until it is full."""
    places = [(k, n) for k in range(K) for n in range(N)]
    if best_first:
        places.sort(key=lambda place: -routing.weights[place[1], place[0]].item())
    taken, kept = [0] * E, [[False] * K for _ in range(N)]
    for k, n in places:
        e = int(routing.experts[n, k])
        if taken[e] < room:
            taken[e], kept[n][k] = taken[e] + 1, True
    return kept


@pytest.mark.parametrize("best_first", [False, True])
@pytest.mark.parametrize("room", [1, 5, 9, 24])
def test_who_is_dropped(room, best_first):
    routing = routed(2)
    kept = balancing.within_capacity(routing, room, best_first=best_first)
    assert kept.tolist() == queue(routing, room, best_first)
    dropped = balancing.drop_overflow(routing, room, best_first=best_first)
    assert torch.equal(dropped.weights > 0, kept) and torch.equal(dropped.weights[kept], routing.weights[kept])
    assert (kept.sum() == N * K) == (room >= balancing.load(routing).max())


def test_a_token_dropped_by_all_its_experts_adds_nothing():
    torch.manual_seed(0)
    experts = Experts(2, 6, 4)
    for weight in experts.parameters():
        nn.init.normal_(weight)
    routing = Routing(torch.zeros(3, 1, dtype=torch.long), torch.ones(3, 1), torch.ones(3, 2))
    out = experts(torch.randn(3, 6), balancing.drop_overflow(routing, 2))
    assert (out.abs().sum(-1) > 0).tolist() == [True, True, False]  # the last to come finds it full


def test_no_capacity_in_the_model():
    """All tokens to the same experts, ten times what a capacity factor of 1 would take: nobody is dropped."""
    model = build("DeepSeek-V3")
    for block in model.blocks[1:]:
        block.feed_forward.router.selection_bias.copy_(torch.tensor([9.0, 9, 9, 0, 0, 0, 0, 0]))
    text = some_ids(1, 40)
    routing = model(text).routing[0]
    assert balancing.load(routing).max() == 40 > 2 * balancing.capacity(40, 8, 3)
    alone = model(text[:, :1]).logits
    torch.testing.assert_close(model(text).logits[:, :1], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("call", "says"), [
    (lambda r: balancing.device_balance_loss(r, 3), "devices 3 does not divide the number of experts 8"),
    (lambda r: balancing.sequence_balance_loss(r, 5), "batch 5 does not divide the number of tokens 24"),
    (lambda r: balancing.within_capacity(r, 0), "room must be a whole number of at least 1"),
    (lambda r: balancing.capacity(10, 4, 2, 0.0), "factor must be a finite number above 0")])
def test_what_cannot_be_gets_a_sentence(call, says):
    with pytest.raises(ValueError, match=says):
        call(routed())
