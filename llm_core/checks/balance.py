"""Checks of the lesson "Keeping the experts busy"."""

from __future__ import annotations

import torch
from torch import Tensor

from llm_core import balancing
from llm_core.checks.cases import number, numbers
from llm_core.checks.core import Wrong, attempt, check, compare, random, tensor
from llm_core.config import MoEConfig
from llm_core.moe import Router, Routing


def _choices(N: int, K: int, E: int, seed: int, lean: float = 1.0) -> tuple[Tensor, Tensor]:
    """scores [N, E], which sum to one and lean to the first experts, and the K best of each token [N, K]."""
    scores = (random(N, E, seed=seed) - lean * torch.arange(E) / E).softmax(-1)
    return scores, scores.topk(K, dim=-1).indices


@check
def uneven_by(function) -> str:
    """function(experts [N, K], n_experts) -> MaxVio."""
    cases = [(_choices(N, K, E, seed)[1] % used, E) for N, K, E, used, seed in
             ((20, 2, 6, 6, 661), (12, 1, 5, 3, 662), (9, 3, 8, 8, 663))]

    def load(experts, E):
        return experts.flatten().bincount(minlength=E).double()

    def of(say):
        return lambda experts, E: float(say(load(experts, E)))

    numbers(function, cases, lambda experts, E: balancing.max_violation(load(experts, E)), [
        ("are experts left out of the mean that nobody chose? Give bincount a minlength",
         of(lambda n: n.max() / n[:int(n.nonzero().max()) + 1].mean() - 1)),
        ("are experts left out of the mean that nobody chose? They count, with a load of 0",
         of(lambda n: n.max() / n[n > 0].mean() - 1)),
        ("take 1 away: in balance MaxVio is 0, not 1", of(lambda n: n.max() / n.mean())),
        ("divide by the mean load", of(lambda n: n.max() - n.mean())),
        ("that is the largest load; how far above the mean is it, measured in means?", of(lambda n: n.max())),
        ("is it divided by the largest load? Divide by the mean", of(lambda n: 1 - n.mean() / n.max())),
        ("that compares the busiest with the idlest; compare it with the mean",
         of(lambda n: (n.max() - n.min()) / n.mean())),
        ("that asks for the idlest expert; MaxVio asks for the busiest", of(lambda n: 1 - n.min() / n.mean())),
        ("that is the squared coefficient of variation, which asks all experts; MaxVio asks for the busiest alone",
         of(lambda n: n.var(correction=0) / n.mean() ** 2)),
        ("are only first choices counted? All K visits count",
         lambda experts, E: balancing.max_violation(load(experts[:, :1], E))),
    ], lambda experts, E: f"{len(experts)} tokens with {experts.shape[1]} of {E} experts", number)
    return "0 in balance, E / K - 1 when one expert is visited by every token: 31 for DeepSeek-V3's 256 and 8"


@check
def switch_loss(function) -> str:
    """function(scores [N, E], experts [N, K]) -> the sum of f and P, a number."""
    cases = [_choices(N, K, E, seed, lean) for N, K, E, seed, lean in
             ((16, 1, 4, 664, 2.0), (10, 2, 6, 665, 3.0), (15, 3, 8, 666, 1.0))]

    def visits(scores, experts):
        return experts.flatten().bincount(minlength=scores.shape[1]).double()

    def of(scale, score=lambda s, e: s.mean(0)):
        def loss(s, e):
            (N, E), K = s.shape, e.shape[1]
            return (visits(s, e) * scale(N, E, K) * score(s.double(), e)).sum().item()
        return loss

    def even(N, E, K):
        return E / (K * N)

    def of_choosers(s, e):
        chose = [(e == i).any(-1) for i in range(s.shape[1])]
        return torch.stack([column[who].sum() / max(who.sum(), 1) for column, who in zip(s.T, chose)])

    def first_only(s, e):
        return of(even)(s, e[:, :1])

    def right(s, e):
        return balancing.expert_balance_loss(Routing(e, s.gather(1, e), s.double())).item()

    numbers(function, cases, right, [
        ("where is K? In balance every expert gets K N / E visits", of(lambda N, E, K: E / N)),
        ("where is E? An even share is 1 / E of the visits, so multiply by E", of(lambda N, E, K: 1 / (K * N))),
        ("divide the visits by K N, not by N alone, and multiply by E", of(lambda N, E, K: 1 / N)),
        ("is the load a bare count? Make it 1 in balance: times E, over K N", of(lambda N, E, K: 1)),
        ("are the scores summed? P is their mean over the tokens", of(even, lambda s, e: s.sum(0))),
        ("is P the mean over those tokens that chose the expert? It is the mean over all tokens",
         of(even, of_choosers)),
        ("is P counted from the choices, too? Then nothing carries a gradient: take the mean of the scores",
         of(even, lambda s, e: visits(s, e) / e.numel())),
        ("is f made of scores, too? f is counted", lambda s, e: (s.mean(0) ** 2).sum().item() * s.shape[1]),
        ("are only first choices counted? All K visits count", first_only),
    ], lambda s, e: f"{len(s)} tokens with {e.shape[1]} of {s.shape[1]} experts", number)
    scores, experts = cases[1]
    with torch.enable_grad():
        leaf = scores.clone().requires_grad_(True)
        loss = attempt(lambda s, e: function(s, e), leaf, experts)
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise Wrong("the number is right, but it carries no gradient: return a tensor made of the scores, not item()")
    return "1 in balance; the gradient flows through P alone, and f says how hard it pushes"


@check
def choose_with_bias(function) -> str:
    """function(scores [N, E], bias [E], k) -> experts [N, k], weights [N, k], as V3."""
    for N, E, k in ((6, 8, 3), (5, 4, 1), (4, 6, 2)):
        scores, bias = random(N, E, seed=670 + k).sigmoid(), 0.5 * random(E, seed=680 + k)
        result = attempt(function, scores, bias, k)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise Wrong("two results are needed: return experts, weights")
        experts, weights = result
        if isinstance(experts, Tensor) and experts.is_floating_point():
            raise Wrong("experts come first, and are whole numbers: topk gives values first, then indices")
        router = Router(E, MoEConfig(E, k, 8, scoring="sigmoid", norm_topk_prob=True, selection_bias=True))
        router.weight.copy_(torch.eye(E))
        router.selection_bias.copy_(bias)
        truth = router(scores.logit())
        biased = scores + bias
        got = tensor(lambda experts=experts: experts, shape=(N, k), names="experts [N, k]")
        compare(got, truth.experts.float(), [
            ("is the bias left out? It decides who is chosen", scores.topk(k).indices.float()),
            ("is the bias taken away? Add it: a positive one helps an expert", (scores - bias).topk(k).indices.float()),
            ("is the score multiplied by the bias? Add it", (scores * bias).topk(k).indices.float()),
            ("the right experts, but best first, please", truth.experts.flip(-1).float()),
            ("are the worst chosen? Take the largest", biased.topk(k, largest=False).indices.float())])
        own, both = scores.gather(1, truth.experts), biased.gather(1, truth.experts)
        got = tensor(lambda weights=weights: weights, shape=(N, k), names="weights [N, k]", shape_hints={
            (N, E): "Only the chosen experts have a weight: gather them."})
        compare(got, truth.weights, [
            ("is the bias in the gate weights? It only selects: gather from the scores",
             both / both.sum(-1, keepdim=True)),
            ("is the bias in the gate weights? It only selects; and they should sum to 1", both),
            ("a token's weights should sum to 1: divide by their sum", own),
            ("are they divided by the sum over all experts? Divide by the sum of the chosen ones",
             own / scores.sum(-1, keepdim=True)),
            ("is that a softmax of the chosen scores? Divide them by their sum", own.softmax(-1)),
            ("is that a softmax of biased scores? Divide the bare scores by their sum", both.softmax(-1)),
            ("are the weights in another order than the experts?", (own / own.sum(-1, keepdim=True)).flip(-1)),
        ])
    return "the bias decides who is chosen, and nobody sees it in the gate weights"


@check
def next_bias(function) -> str:
    """function(bias [E], experts [N, K], gamma) -> the bias after one step [E]."""
    for N, K, E, gamma in ((20, 2, 6, 0.1), (12, 1, 5, 0.01), (16, 1, 4, 0.5)):
        experts = _choices(N, K, E, seed=690 + E, lean=2.0)[1]
        experts[experts == E - 1] = 0  # the last expert is chosen by nobody
        if E == 4:  # one expert has exactly the mean
            experts = torch.tensor([0] * 8 + [1] * 4 + [2] * 4)[:, None]
        bias = random(E, seed=691)
        router = Router(3, MoEConfig(E, K, 8, scoring="sigmoid", selection_bias=True))
        router.selection_bias.copy_(bias)
        router.update_bias(experts, gamma)
        load = experts.flatten().bincount(minlength=E).float()
        off = load.mean() - load
        got = tensor(function, bias, experts, gamma, shape=(E,), names="[E]", shape_hints={
            (int(experts.max()) + 1,): "Experts that nobody chose need a step, too: give bincount a minlength."},
            hints={"must match the size": "Experts that nobody chose need a step, too: give bincount a minlength."})
        compare(got, router.selection_bias, [
            ("the sign is turned round: who has too much goes down", bias - gamma * off.sign()),
            ("is the step as large as the difference? Only its sign is used", bias + gamma * off),
            ("is the step as large as the difference? Only its sign is used", bias + gamma * off / load.mean()),
            ("that is the step; add it to the bias", gamma * off.sign()),
            ("is the step without gamma?", bias + off.sign()),
            ("are the loads compared with 0 or with 1? Compare with the mean load", bias - gamma * load.sign()),
            ("is the median taken? Compare with the mean load", bias + gamma * (load.median() - load).sign()),
            ("an expert with exactly the mean stays where it is", bias + gamma * torch.where(off >= 0, 1.0, -1.0)),
            ("an expert with exactly the mean stays where it is", bias + gamma * torch.where(off > 0, 1.0, -1.0)),
            ("do only the overloaded move? The underloaded go up", bias - gamma * (off < 0)),
            ("do only the underloaded move? The overloaded go down", bias + gamma * (off > 0)),
        ])
    return "by gamma up or down, however large the difference; DeepSeek-V3 took 0.001, and 0 at the end"


@check
def finds_place(function) -> str:
    """function(experts [N, K], room) -> [N, K] of True and False."""
    for N, K, E, room in ((8, 2, 4, 3), (10, 3, 5, 4), (6, 1, 3, 2), (5, 2, 4, 9)):
        scores, experts = _choices(N, K, E, seed=700 + N, lean=2.0)

        def by(experts, room, scores=scores):
            return balancing.within_capacity(Routing(experts, scores.gather(1, experts), scores), room)

        def token_by_token(experts, room, E=E):
            queue = torch.nn.functional.one_hot(experts.flatten(), E)
            return ((queue.cumsum(0) * queue).sum(-1) <= room).view_as(experts)

        truth = by(experts, room)
        backwards = by(experts.flip(0), room).flip(0)
        got = tensor(function, experts, room, shape=(N, K), names="[N, K]", shape_hints={
            (K, N): "Turn it back: [N, K], a row for each token.",
            (N * K,): "Give it the shape of experts: view(K, N), then turn it.",
            (N,): "Each of the K visits has its own answer."})
        compare(got, truth.float(), [
            ("True where the visit takes place, False where it is dropped", 1 - truth.float()),
            ("there is room for `room` tokens; is one too few let in?", by(experts, max(room - 1, 1)).float()),
            ("there is room for `room` tokens; is one too many let in?", by(experts, room + 1).float()),
            ("is the order token by token? All first choices come before the second ones",
             token_by_token(experts, room).float()),
            ("does the end of the text come first? The order is that of the text", backwards.float()),
            ("do the second choices come first?", by(experts.flip(1), room).flip(1).float()),
            ("is the room counted anew for second choices? An expert has `room` places in all",
             torch.cat([by(experts[:, k:k + 1], room, scores) for k in range(K)], 1).float()),
        ])
    return "the end of the text pays; with room for all, nobody is dropped"
