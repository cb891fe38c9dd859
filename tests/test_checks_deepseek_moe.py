"""Answers to the exercises of the lesson on how DeepSeek rewrote the experts."""

from itertools import combinations
from math import comb, perm

import pytest
import torch

from llm_core import accounting
from llm_core.checks.deepseek_moe import _within


def opened(s, G, M, top, rate=lambda g, top: g.topk(top).values.sum(-1), spread=True, sign=1, deal=False):
    """The solution, with one thing that may be wrong."""
    N, E = s.shape
    groups = s.view(N, E // G, G).mT if deal else s.view(N, G, -1)
    best = (sign * rate(groups, top)).topk(M).indices
    mask = torch.zeros(N, G, dtype=torch.bool).scatter(1, best, True)
    return mask.repeat_interleave(E // G, 1) if spread else mask.repeat(1, E // G)


def opened_by_loop(s, G, M, top):
    out = torch.zeros(s.shape, dtype=torch.long)
    size = s.shape[1] // G
    for n, row in enumerate(s.tolist()):
        rating = [sum(sorted(row[g * size:(g + 1) * size])[-top:]) for g in range(G)]
        for g in sorted(range(G), key=rating.__getitem__)[-M:]:
            out[n, g * size:(g + 1) * size] = 1
    return out


def gate(z, b, is_open, k, scale, score=torch.sigmoid, shut=-torch.inf, chosen_by=None, weigh=None):
    s = score(z)
    by = s + b if chosen_by is None else chosen_by(s, b)
    experts = by.masked_fill(~is_open, shut).topk(k).indices
    g = s.gather(1, experts) if weigh is None else weigh(z, s, b).gather(1, experts)
    return experts, scale * g / g.sum(-1, keepdim=True)


def by_score(z, b, is_open, k, scale):
    experts, weights = gate(z, b, is_open, k, scale)
    order = weights.argsort(-1, descending=True)
    return experts.gather(1, order), weights.gather(1, order)


def weights(change):
    """The right experts, other weights: change(scores of the chosen, scale)."""
    def answer(z, b, is_open, k, scale):
        experts, _ = gate(z, b, is_open, k, scale)
        return experts, change(z.sigmoid().gather(1, experts), scale)
    return answer


def active(total, c, matrices=3, layers=None, idle=None, tables=1):
    idle = c.moe.n_routed_experts - c.moe.n_experts_per_token if idle is None else idle
    layers = c.n_moe_layers if layers is None else layers
    return total - layers * idle * matrices * c.d_model * c.moe.d_expert - tables * c.vocab_size * c.d_model


def exactly(size, g, k):
    return sum((-1) ** (g - j) * comb(g, j) * comb(j * size, k) for j in range(g + 1))


def within(n, G, M, k, start=1, end=1):
    return sum(comb(G, g) * exactly(n // G, g, k) for g in range(start, M + end))


WRONG = {
    "ways_to_choose": [
        (lambda n, k, m: comb(n * m, k), "still use k pieces"),
        (lambda n, k, m: comb(n, k * m), "are the experts cut, too?"),
        (lambda n, k, m: comb(n, k), "without cutting"),
        (lambda n, k, m: comb(n, k) ** m, "chosen as bundles"),
        (lambda n, k, m: perm(n * m, k * m), "comb and not perm"),
        (lambda n, k, m: (n * m) ** (k * m), "taken twice"),
        (lambda n, k, m: n * m, "16 experts, 2 chosen, 4 pieces"),
        (lambda n, k, m: "many", "a whole number"),
    ],
    "open_experts": [
        (lambda *a: ~opened(*a), "wrong way round"),
        (lambda *a: opened(*a, rate=lambda g, top: g.amax(-1)), "its best expert alone"),
        (lambda *a: opened(*a, rate=lambda g, top: g.sum(-1)), "all of its experts"),
        (lambda *a: opened(*a, sign=-1), "worst groups"),
        (lambda *a: opened(*a, deal=True, spread=False), "dealt to the groups in turn"),
        (lambda *a: opened(*a, spread=False), "the mask is dealt in turn"),
        (lambda s, G, M, top: torch.zeros_like(s).scatter(1, s.topk(M).indices, 1.0), "whole groups are wanted"),
        (lambda s, G, M, top: opened(s, G, M, top)[:, ::s.shape[1] // G], "for each group"),
        (lambda s, G, M, top: opened(s, G, M, top).view(len(s), G, -1), "Join them"),
        (lambda s, G, M, top: s.view(len(s), G, -1).topk(top).values.sum(-1).topk(M).indices, "Those are the groups"),
        (lambda s, G, M, top: s.masked_fill(~opened(s, G, M, top), 0.0), "other numbers"),
        (lambda s, G, M, top: opened(s.cumsum(1), G, M, top), "the numbers do not"),
        (lambda s, G, M, top: s.view(len(s), -1, G + 1), "n_groups times the experts"),
        (lambda s, G, M, top: opened(s, G, M, top) & (s.view(len(s), G, -1) >= s.view(len(s), G, -1).topk(
            top).values[..., -1:]).flatten(1), "are open as well"),
        (lambda s, G, M, top: opened(s, G, M, top, rate=lambda g, t: g.topk(t).values.sum(-1).mean(
            0, keepdim=True).expand(len(s), G)), "Each token has its own"),
    ],
    "v3_gate": [
        (lambda *a: gate(*a)[::-1], "wrong way round"),
        (lambda *a: gate(*a)[0], "two results"),
        (lambda *a: gate(*a, shut=0.0), "set to 0"),
        (lambda z, b, o, k, scale: gate(z, b, o, k, scale, chosen_by=lambda s, b: (s + b) * o, shut=0.0), "set to 0"),
        (lambda *a: gate(*a, chosen_by=lambda s, b: s), "left out of the choice"),
        (lambda z, b, o, k, scale: gate(z, b, o, k, scale, chosen_by=lambda s, b: z + b), "without sigmoid"),
        (lambda *a: gate(*a, score=lambda z: z.softmax(-1)), "is it a softmax?"),
        (lambda z, b, o, k, scale: gate(z, b, torch.ones_like(o), k, scale), "closed groups left out"),
        (by_score, "best first by score plus bias"),
        (weights(lambda s, scale: s / s.sum(-1, keepdim=True)), "where is the factor"),
        (weights(lambda s, scale: s * scale), "divide by their sum"),
        (weights(lambda s, scale: s), "make them sum to 1"),
        (lambda *a: gate(*a, weigh=lambda z, s, b: s + b), "bias in the weights"),
        (lambda *a: gate(*a, weigh=lambda z, s, b: z.exp()), "softmax of the chosen"),
        (weights(lambda s, scale: scale * s.softmax(-1)), "softmax over the scores"),
        (weights(lambda s, scale: torch.full_like(s, scale / s.shape[1])), "Better experts count more"),
        (weights(lambda s, scale: s / s.sum(-1, keepdim=True) / scale), "divided by scale"),
    ],
    "active_from_total": [
        (lambda t, c: active(t, c, tables=0), "still in it"),
        (lambda t, c: active(t, c, tables=2), "is the head taken off"),
        (lambda t, c: active(t, c, matrices=2), "three matrices"),
        (lambda t, c: active(t, c, matrices=1), "three matrices"),
        (lambda t, c: active(t, c, layers=c.n_layers), "not every block"),
        (lambda t, c: active(t, c, layers=1), "one block is counted"),
        (lambda t, c: active(t, c, idle=c.moe.n_routed_experts), "all routed experts"),
        (lambda t, c: active(t, c, idle=c.moe.n_experts_per_token), "*chosen* experts"),
        (lambda t, c: active(t, c, idle=c.moe.n_routed_experts - c.moe.n_experts_per_token - c.moe.n_shared_experts),
         "stands beside the routed ones"),
        (lambda t, c: active(t, c, idle=c.moe.n_routed_experts - c.moe.n_experts_per_token + c.moe.n_shared_experts),
         "Every token visits it"),
        (lambda t, c: t - active(t, c), "that is what is taken off"),
        (lambda t, c: t, "that is the total"),
        (lambda t, c: active(t, c) / 1e9, "a whole number"),
    ],
    "ways_within_groups": [
        (lambda n, G, M, k: comb(G, M) * comb(n // G * M, k), "counted several times"),
        (lambda n, G, M, k: comb(G, M) * exactly(n // G, M, k), "may lie in fewer"),
        (lambda n, G, M, k: comb(n // G * M, k), "open is not settled"),
        (lambda n, G, M, k: sum(exactly(n // G, g, k) for g in range(1, M + 1)), "touched is not settled"),
        (lambda n, G, M, k: comb(n, k), "without a limit"),
        (lambda n, G, M, k: sum(comb(G, g) * comb(n // G * g, k) for g in range(1, M + 1)), "those that miss one"),
        (lambda *a: within(*a, end=0), "n_open itself"),
        (lambda n, G, M, k: comb(n, k) - within(n, G, M, k), "*more* groups"),
        (lambda n, G, M, k: k, "16 experts in 4 groups"),
    ],
}
RIGHT = {
    "ways_to_choose": [
        lambda n, k, m: perm(n * m, k * m) // perm(k * m),
        lambda n, k, m: torch.tensor(comb(n * m, k * m)),
    ],
    "open_experts": [opened, opened_by_loop, lambda *a: opened(*a).double()],
    "v3_gate": [gate, lambda *a: [gate(*a)[0].int(), gate(*a)[1].double()],
                lambda *a: gate(*a, shut=-1e9)],
    "active_from_total": [
        active,
        lambda t, c: accounting.count_parameters(c).active_no_input_embedding,
        lambda t, c: float(active(t, c)),
    ],
    "ways_within_groups": [within, lambda *a: within(*a, start=0), _within],
}


@pytest.mark.parametrize(("n", "G", "M", "k"), [(8, 4, 2, 3), (9, 3, 2, 4), (12, 4, 1, 2), (12, 2, 2, 5), (6, 6, 3, 3)])
def test_ways_within_groups_are_those_that_one_can_list(n, G, M, k):
    listed = sum(len({e // (n // G) for e in chosen}) <= M for chosen in combinations(range(n), k))
    assert _within(n, G, M, k) == listed == within(n, G, M, k)
