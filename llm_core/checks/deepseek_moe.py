"""Checks of the lesson "How DeepSeek rewrote the experts"."""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor

from llm_core import accounting
from llm_core.checks.cases import numbers
from llm_core.checks.core import Wrong, attempt, check, compare, random, tensor
from llm_core.config import ModelConfig, MoEConfig
from llm_core.moe import Router


@check
def ways_to_choose(function) -> str:
    """function(n_experts, k, pieces) -> sets that a token can choose once each expert is cut."""
    cases = ((16, 2, 4), (16, 2, 1), (8, 2, 2), (6, 3, 3), (5, 1, 7))
    numbers(function, cases, lambda n, k, m: comb(n * m, k * m), [
        ("does a token still use k pieces? To do the same work it uses k times pieces", lambda n, k, m: comb(n * m, k)),
        ("are the experts cut, too? There are n_experts times pieces of them",
         lambda n, k, m: comb(n, k * m) if k * m <= n else 0),
        ("those are the ways without cutting", lambda n, k, m: comb(n, k)),
        ("the pieces need not be chosen as bundles: any k times pieces of them will do",
         lambda n, k, m: comb(n, k) ** m),
        ("a set has no order: comb and not perm", lambda n, k, m: _ordered(n * m, k * m)),
        ("may the same piece be taken twice? A token visits k times pieces different ones",
         lambda n, k, m: (n * m) ** (k * m)),
    ], lambda n, k, m: f"{n} experts, {k} chosen, {m} piece{'s' if m > 1 else ''} each")
    return f"120 ways for 2 of 16, and {comb(64, 8):,} for 8 of 64, at the same parameters and work"


@check
def open_experts(function) -> str:
    """function(selection [N, E], n_groups, n_open, top) -> True [N, E] for experts of the best groups."""
    for N, E, G, M, top in ((7, 25, 5, 2, 2), (5, 12, 6, 3, 1), (4, 12, 2, 2, 3)):
        selection = random(N, E, seed=632 + top)
        size = E // G

        def opened(rating, spread=True, M=M, G=G, size=size):
            best = rating.argsort(-1, descending=True)[:, :M]
            mask = torch.zeros(len(rating), G).scatter(1, best, 1.0)
            return mask.repeat_interleave(size, 1) if spread else mask.repeat(1, size)

        groups = selection.view(N, G, size)
        right = opened(groups.topk(top).values.sum(-1))
        best_few = torch.zeros(N, E).scatter(1, selection.topk(M).indices, 1.0)
        within = groups >= groups.topk(top).values[..., -1:]
        got = _truth(function, selection, G, M, top, shape=(N, E), names="[N, E]", shape_hints={
            (N, G): "That is for each group; its experts are wanted: repeat_interleave.",
            (N, G, size): "Is it still in groups? Join them: reshape or flatten(1).",
            (N, M): "Those are the groups; True and False for each expert is wanted."},
            hints={"invalid for input of size": "E is n_groups times the experts of a group: view(N, n_groups, -1)."})
        compare(got, right, [
            ("True and False are the wrong way round", 1 - right),
            ("is a group rated by its best expert alone? Add up its `top` best", opened(groups.amax(-1))),
            ("is a group rated by all of its experts? Only its `top` best count", opened(groups.sum(-1))),
            ("are the worst groups open? Take the largest ratings", opened(-groups.topk(top).values.sum(-1))),
            ("are experts dealt to the groups in turn? Neighbours stand together: view(N, n_groups, -1)",
             opened(selection.view(N, size, G).topk(top, dim=1).values.sum(1), spread=False)),
            ("the ratings are right, but the mask is dealt in turn: repeat_interleave, not repeat",
             opened(groups.topk(top).values.sum(-1), spread=False)),
            ("those are the best experts; whole groups are wanted", best_few),
            ("only the best experts of the open groups are True; the others in these groups are open as well",
             (within.flatten(1) * right).float()),
            ("do all tokens have the same groups? Each token has its own",
             opened(groups.topk(top).values.sum(-1).mean(0, keepdim=True).expand(N, G)))])
    return "the rating comes from score plus bias, so a bias can open or close a whole machine"


@check
def v3_gate(function) -> str:
    """function(logits [N, E], bias [E], is_open [N, E], k, scale) -> experts, weights [N, k], best first."""
    for E, G, M, k, scale, low in ((16, 4, 2, 4, 2.5, 0.0), (24, 4, 1, 3, 1.7, -2.0), (6, 1, 1, 2, 1.0, 0.5)):
        moe = MoEConfig(E, k, 4, scoring="sigmoid", norm_topk_prob=True, routed_scaling_factor=scale,
                        selection_bias=True, n_expert_groups=G, n_limited_groups=M, group_score="top2")
        router = Router(E, moe)
        router.weight.copy_(torch.eye(E))
        router.selection_bias.copy_(0.3 * random(E, seed=651) + low)  # far below 0: a zero in a closed group would win
        logits = 2 * random(6, E, seed=652)
        truth, biased = router(logits), logits.sigmoid() + router.selection_bias
        best = biased.view(6, G, -1).topk(2).values.sum(-1).topk(M).indices
        is_open = torch.zeros(6, G).scatter(1, best, 1.0).repeat_interleave(E // G, 1).bool()
        result = attempt(function, logits, router.selection_bias, is_open, k, scale)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise Wrong("two results are needed: return experts, weights")
        if isinstance(result[0], Tensor) and result[0].is_floating_point():
            raise Wrong("are the two the wrong way round? Wanted are experts, weights, and experts are whole numbers")
        got = tensor(lambda result=result: result[0], shape=(6, k), names="experts [N, k]")

        def chosen(values, k=k):
            return values.argsort(-1, descending=True)[:, :k].float()

        shut = -torch.inf
        compare(got, truth.experts.float(), [
            ("is the bias left out of the choice?", chosen(logits.sigmoid().masked_fill(~is_open, shut))),
            ("are the logits chosen from, without sigmoid? The bias is made for scores",
             chosen((logits + router.selection_bias).masked_fill(~is_open, shut))),
            ("is it a softmax? V3 scores each expert by itself: sigmoid",
             chosen((logits.softmax(-1) + router.selection_bias).masked_fill(~is_open, shut))),
            ("are closed groups left out? Only open experts may be chosen", chosen(biased)),
            ("are the closed groups the open ones here? ~ turns True into False",
             chosen(biased.masked_fill(is_open, shut))),
            *([("closed experts are chosen. Is their value set to 0? A biased score may be below 0: -torch.inf", got)]
              if _any_closed(got, is_open) else []),
            ("the right experts, but best first by score plus bias, please",
             truth.experts.gather(1, truth.scores.gather(1, truth.experts).argsort(-1, descending=True)).float())])
        scores = truth.scores.gather(1, truth.experts)
        moved = biased.gather(1, truth.experts)
        got = tensor(lambda result=result: result[1], shape=(6, k), names="weights [N, k]")
        compare(got, truth.weights, _weights(scores, moved, logits.gather(1, truth.experts), scale, k))
    return "the weights of every token sum to the factor, and no bias is in them"


def _any_closed(experts: Tensor, is_open: Tensor) -> bool:
    places = experts.long()
    return bool(((places >= 0) & (places < is_open.shape[1])).all()) and not bool(is_open.gather(1, places).all())


def _weights(scores: Tensor, moved: Tensor, raw: Tensor, scale: float, k: int) -> list[tuple[str, Tensor]]:
    total = scores.sum(-1, keepdim=True)
    share = moved / moved.sum(-1, keepdim=True)
    return [
        ("where is the factor? The weights are multiplied by scale", scores / total),
        ("the weights of a token should sum to scale: divide by their sum", scores * scale),
        ("those are the scores of the chosen; make them sum to 1, and multiply by scale", scores),
        ("is the bias in the weights? It only selects: gather from the scores without it", share * scale),
        ("is the bias in the weights, and the factor missing? It only selects", share),
        ("is it a softmax of the chosen? V3 divides the sigmoids by their sum", raw.softmax(-1) * scale),
        ("is it a softmax over the scores? V3 divides them by their sum", scores.softmax(-1) * scale),
        ("is each weight the same? Better experts count more", torch.full_like(scores, scale / k)),
        ("is it divided by scale? Multiply", scores / total / scale)]


@check
def active_from_total(function) -> str:
    """function(total, config) -> active parameters, without the table of token embeddings."""
    models = [ModelConfig.preset(name) for name in ("deepseek-v3", "deepseek-v2", "mixtral-8x7b")]
    cases = [(accounting.count_parameters(config).total, config) for config in models]

    def wrong(matrices=3, layers=None, idle=None, table=1):
        def count(total, c):
            m = c.moe
            left_out = (m.n_routed_experts - m.n_experts_per_token) if idle is None else idle(m)
            n = c.n_moe_layers if layers is None else layers(c)
            return total - n * left_out * matrices * c.d_model * m.d_expert - table * c.vocab_size * c.d_model
        return count

    numbers(function, cases, lambda total, c: accounting.count_parameters(c).active_no_input_embedding, [
        ("the table of token embeddings is still in it", wrong(table=0)),
        ("is the head taken off, too? It is multiplied with every token", wrong(table=2)),
        ("an expert has three matrices: gate, up and down", wrong(matrices=2)),
        ("an expert has three matrices: gate, up and down", wrong(matrices=1)),
        ("not every block has experts: n_moe_layers", wrong(layers=lambda c: c.n_layers)),
        ("one block is counted, and there are n_moe_layers", wrong(layers=lambda c: 1)),
        ("are all routed experts taken off? A token visits n_experts_per_token of them",
         wrong(idle=lambda m: m.n_routed_experts)),
        ("are the *chosen* experts taken off? Those that a token does not visit go", wrong(
            idle=lambda m: m.n_experts_per_token)),
        ("is the shared expert counted as one that the router chooses? It stands beside the routed ones",
         wrong(idle=lambda m: m.n_routed_experts - m.n_experts_per_token - m.n_shared_experts)),
        ("is the shared expert taken off? Every token visits it",
         wrong(idle=lambda m: m.n_routed_experts + m.n_shared_experts - m.n_experts_per_token)),
        ("that is what is taken off; take it from the total", lambda t, c: t - wrong()(t, c)),
        ("that is the total", lambda t, c: t),
    ], lambda total, c: f"a total of {total:,} and {c.moe.n_routed_experts} experts in {c.n_moe_layers} blocks")
    v3 = accounting.count_parameters(models[0])
    return f"{v3.active_no_input_embedding:,} for V3, which the paper rounds to 37 B"


@check
def ways_within_groups(function) -> str:
    """function(n_experts, n_groups, n_open, k) -> sets of k that lie in at most n_open groups."""
    cases = ((16, 4, 2, 4), (256, 8, 4, 8), (12, 6, 3, 3), (12, 4, 4, 5), (9, 3, 1, 2))

    def exactly(size, g, k):
        return sum((-1) ** (g - j) * comb(g, j) * comb(j * size, k) for j in range(g + 1))

    numbers(function, cases, _within, [
        ("sets that lie in fewer groups are counted several times: with A and B open, and again with A and C. Count by "
         "the groups that a set *touches*", lambda n, G, M, k: comb(G, M) * comb(n // G * M, k)),
        ("must all n_open groups be touched? A set may lie in fewer",
         lambda n, G, M, k: comb(G, M) * exactly(n // G, M, k)),
        ("which groups are open is not settled: there are comb(n_groups, …) ways for that",
         lambda n, G, M, k: comb(n // G * M, k)),
        ("which groups are touched is not settled: times comb(n_groups, g)",
         lambda n, G, M, k: sum(exactly(n // G, g, k) for g in range(1, M + 1))),
        ("is that without a limit?", lambda n, G, M, k: comb(n, k)),
        ("are sets that touch exactly g groups counted as all sets within g groups? Take off those that miss one",
         lambda n, G, M, k: sum(comb(G, g) * comb(n // G * g, k) for g in range(1, M + 1))),
        ("is n_open itself left out? At most n_open: range(1, n_open + 1)",
         lambda n, G, M, k: sum(comb(G, g) * exactly(n // G, g, k) for g in range(1, M))),
        ("those touch *more* groups than n_open", lambda n, G, M, k: comb(n, k) - _within(n, G, M, k)),
    ], lambda n, G, M, k: f"{n} experts in {G} groups, at most {M} of them, {k} chosen")
    return (f"the limit leaves V3 {_within(256, 8, 4, 8):,} ways of {comb(256, 8):,}, one in "
            f"{comb(256, 8) / _within(256, 8, 4, 8):.1f}")


def _within(n: int, G: int, M: int, k: int) -> int:
    """Group by group: how many sets there are by experts taken and groups touched."""
    table = {(0, 0): 1}
    for _ in range(G):
        following: dict[tuple[int, int], int] = {}
        for (taken, touched), ways in table.items():
            for more in range(min(n // G, k - taken) + 1):
                place = taken + more, touched + (more > 0)
                following[place] = following.get(place, 0) + ways * comb(n // G, more)
        table = following
    return sum(ways for (taken, touched), ways in table.items() if taken == k and touched <= M)


def _ordered(n: int, k: int) -> int:
    out = 1
    for i in range(k):
        out *= n - i
    return out


def _truth(function, *arguments, **said) -> Tensor:
    """A mask: True and False, or ones and zeros."""
    got = tensor(function, *arguments, **said)
    if not ((got == 0) | (got == 1)).all():
        raise Wrong("True and False are wanted, and other numbers are in your result")
    return got
