"""Checks of the lesson "Experts and routing"."""

from __future__ import annotations

import torch

from llm_core import accounting
from llm_core.checks.cases import number, numbers, whole
from llm_core.checks.core import Wrong, attempt, check, compare, random, tensor
from llm_core.config import ModelConfig
from llm_core.specialisation import mutual_information


def _pair(result, what: str) -> tuple:
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise Wrong(f"two results are needed: return {what}")
    return result[0], result[1]


@check
def choose_experts(function) -> str:
    """function(logits [N, E], k) -> experts [N, k], weights [N, k]."""
    for N, E, k in ((5, 6, 2), (3, 8, 8), (4, 5, 1)):
        logits = 2 * random(N, E, seed=611 + k)
        experts, weights = _pair(attempt(function, logits, k), "experts, weights")
        if isinstance(experts, torch.Tensor) and experts.is_floating_point() and isinstance(
                weights, torch.Tensor) and not weights.is_floating_point():
            raise Wrong("the two are the wrong way round: topk gives values first, and wanted are experts, weights")
        order = logits.argsort(dim=-1, descending=True)[:, :k]
        got = tensor(lambda experts=experts: experts, shape=(N, k), names="experts [N, k]")
        compare(got, order.float(), [
            ("are the *worst* experts chosen? Take the largest", logits.argsort(dim=-1)[:, :k].float()),
            ("the right experts, but best first, please", order.flip(-1).float()),
            ("experts are counted from 0", order.float() + 1)])
        share = logits.softmax(dim=-1).gather(1, order)
        got = tensor(lambda weights=weights: weights, shape=(N, k), names="weights [N, k]")
        compare(got, share / share.sum(-1, keepdim=True), [
            ("the chosen weights should sum to 1 again: divide by their sum", share),
            ("those are raw results; a softmax makes shares of them", logits.gather(1, order)),
            ("is the softmax left out? Results may be negative", logits.gather(1, order) / logits.gather(1, order).sum(
                -1, keepdim=True)),
            ("is it a sigmoid? Here it is a softmax", logits.sigmoid().gather(1, order) / logits.sigmoid().gather(
                1, order).sum(-1, keepdim=True)),
            ("is the softmax taken over the tokens? It runs over experts, dim=-1", logits.softmax(0).gather(1, order)
             / logits.softmax(0).gather(1, order).sum(-1, keepdim=True)),
            ("is each weight 1 / k? Better experts count more", torch.full((N, k), 1 / k)),
        ])
    return "as Mixtral's router; a softmax over the chosen ones alone gives the same"


@check
def sparse_layer(function) -> str:
    """function(x [N, D], experts [N, K], weights [N, K], networks) -> [N, D], each network called once at most."""
    for N, E, K, D in ((6, 4, 2, 5), (3, 12, 3, 4)):
        x, matrices = random(N, D, seed=621), random(E, D, D, seed=622)
        experts = torch.stack([torch.randperm(E, generator=torch.Generator().manual_seed(n))[:K] for n in range(N)])
        weights = random(N, K, seed=623).softmax(-1)
        calls: dict[int, list[int]] = {}

        def network(e, t, calls=calls, matrices=matrices, D=D):
            if t.dim() != 2 or t.shape[1] != D:
                raise ValueError(f"a network takes [n, {D}], not {list(t.shape)}")
            calls.setdefault(e, []).append(len(t))
            return t @ matrices[e]

        networks = [lambda t, e=e: network(e, t) for e in range(E)]
        every = torch.stack([x @ m for m in matrices], dim=1)  # [N, E, D]
        chosen = every.gather(1, experts[..., None].expand(-1, -1, D))  # [N, K, D]
        got = tensor(function, x, experts, weights, networks, shape=(N, D), names="[N, D]", shape_hints={
            (N, K, D): "A token's results are added up.", (N * K, D): "A token's results are added up."})
        compare(got, (weights[..., None] * chosen).sum(1), [
            ("where are the gate weights? Each result is multiplied by its own", chosen.sum(1)),
            ("is only the first choice taken? A token visits all its K experts", weights[:, :1] * chosen[:, 0]),
            ("is a later result written over an earlier one? Add them", weights[:, -1:] * chosen[:, -1]),
            ("does every expert get every token? Each token has K experts of its own", every.sum(1)),
            ("is the input added? The skip connection belongs to the block",
             (weights[..., None] * chosen).sum(1) + x),
            ("are a token's weights used in the wrong order?", (weights.flip(-1)[..., None] * chosen).sum(1)),
        ])
        if any(0 in sizes for sizes in calls.values()):
            raise Wrong("right, but a network was called without any tokens: leave out those that nobody chose")
        if any(len(sizes) > 1 for sizes in calls.values()):
            raise Wrong("right, but a network was called more than once: give it all its tokens together")
        if sum(sum(sizes) for sizes in calls.values()) > N * K:
            raise Wrong("right, but networks got tokens that had not chosen them: that is the work we want to save")
    return "N times K visits, each network called once: dispatch, compute, combine"


@check
def layer_parameters(function) -> str:
    """function(d_model, d_expert, n_experts, k, n_shared) -> total, active of one MoE layer."""
    cases = ((7168, 2048, 256, 8, 1), (4096, 14336, 8, 2, 0), (64, 16, 12, 3, 2))
    v3 = ModelConfig.preset("deepseek-v3")

    def right(D, I, E, k, s):
        c = v3.replace(d_model=D, n_layers=1, n_mtp_modules=0, moe=v3.moe.replace(
            n_routed_experts=E, n_experts_per_token=k, d_expert=I, n_shared_experts=s, first_k_dense=0,
            n_expert_groups=1, n_limited_groups=1))
        n = accounting.count_parameters(c)
        parts = ("router", "routed experts", "shared experts")
        return [sum(of.get(part, 0) for part in parts) for of in (n.by_part, n.active_by_part)]

    def wrong(matrices=3, router=True, shared=True, all_work=False, only=None):
        def count(D, I, E, k, s):
            r = D * (E if router is True else k) if router else 0
            s = s if shared else 0
            return r + ((E if only == 0 or all_work else k) + s) * matrices * D * I
        return count

    answers = {case: _pair(attempt(function, *case), "total, active") for case in cases}
    if all([whole(n) for n in answers[case]] == right(*case)[::-1] for case in cases):
        raise Wrong("the two are the wrong way round: total comes first")
    for i, name in enumerate(("total", "active")):
        numbers(lambda *case, i=i: answers[case][i], cases, lambda *case, i=i: right(*case)[i], [
            (f"{name}: an expert has three matrices: gate, up and down", wrong(matrices=2, only=i)),
            (f"{name}: an expert has three matrices: gate, up and down", wrong(matrices=1, only=i)),
            (f"{name}: where is the router? It has a row for each expert", wrong(router=False, only=i)),
            (f"{name}: where are the shared experts? Every token uses them", wrong(shared=False, only=i)),
            (f"{name}: a token uses k of the routed experts", wrong(all_work=True)),
            (f"{name}: all experts are held, also those that are not chosen", wrong()),
            (f"{name}: the router scores every expert, not the chosen ones alone", wrong(router="k", only=i)),
        ], lambda D, I, E, k, s, name=name: f"{name} of width {D:,}, {E} experts of {I:,}, {k} chosen, {s} shared")
    total, active = right(*cases[0])
    return f"one layer of DeepSeek-V3 holds {total:,} and uses {active:,}, 1 in {total / active:.0f}"


@check
def bits_about_expert(function) -> str:
    """function(tokens [N], experts [N]) -> their mutual information in bits."""
    draw = torch.Generator().manual_seed(641)
    loose = torch.randint(9, (200,), generator=draw), torch.randint(5, (200,), generator=draw)
    cases = ((torch.arange(40) % 8, torch.arange(40) % 4), loose, (loose[0], (loose[0] + loose[1] // 3) % 4))

    def table(t, e):
        joint = torch.zeros(int(t.max()) + 1, int(e.max()) + 1, dtype=torch.float64)
        joint.index_put_((t, e), torch.ones(len(t), dtype=torch.float64), accumulate=True)
        return joint / joint.sum()

    def entropy(p):
        return -(p[p > 0] * p[p > 0].log2()).sum().item()

    def of(say):
        return lambda t, e: say(table(t, e))

    def read(value):
        value = number(value)
        if value != value:
            raise Wrong("that is NaN: where a pair never occurs, leave its term out, for 0 times log 0 is no number")
        return value

    numbers(function, cases, lambda t, e: mutual_information(t, e[:, None]), [
        ("those are nats; bits take the logarithm to the base 2",
         lambda t, e: mutual_information(t, e[:, None]) * torch.tensor(2.0).log().item()),
        ("the sign is turned round", lambda t, e: -mutual_information(t, e[:, None])),
        ("that is the entropy of pairs; the two apart belong into it", of(entropy)),
        ("that is the entropy of the experts: all that one could know", of(lambda p: entropy(p.sum(0)))),
        ("that is what remains *unknown* of the expert once the id is known",
         of(lambda p: entropy(p) - entropy(p.sum(1)))),
        ("is p(t) p(e) missing its p(e)? Both stand below the line",
         of(lambda p: sum((p * (p / p.sum(1, keepdim=True)).log2())[p > 0]).item())),
        ("are the terms not weighted? Each counts by its p(t, e)",
         of(lambda p: (p / (p.sum(1, keepdim=True) * p.sum(0, keepdim=True))).log2()[p > 0].sum().item())),
    ], lambda t, e: f"{len(t)} tokens of {int(t.max()) + 1} ids", read)
    return "2 bits where the id decides among 4 experts; and from few tokens never quite 0, even by chance"


