"""Answers to the exercises of the lesson on keeping the experts busy."""

import torch
import torch.nn.functional as F

from llm_core import balancing
from llm_core.moe import Routing


def load(experts, E):
    return experts.flatten().bincount(minlength=E).float()


def over_mean(n):
    return n.max() / n.mean() - 1


def f_p(scores, experts, scale=lambda N, E, K: E / (K * N), score=lambda s: s.mean(0)):
    (N, E), K = scores.shape, experts.shape[1]
    return (load(experts, E) * scale(N, E, K) * score(scores)).sum()


def choose(scores, bias, k, select=None, gates=lambda scores, bias: scores, norm=True, flip=False):
    experts = (scores + bias if select is None else select).topk(k).indices
    weights = gates(scores, bias).gather(1, experts)
    weights = weights / weights.sum(-1, keepdim=True) if norm else weights
    return experts, weights.flip(-1) if flip else weights


def moved(bias, experts, gamma, size=torch.sign, sign=1):
    n = load(experts, len(bias))
    return bias + sign * gamma * size(n.mean() - n)


def place(experts, room, choices_first=True):
    queue = F.one_hot((experts.T if choices_first else experts).flatten())
    taken = (queue.cumsum(0) * queue).sum(-1) <= room
    return taken.view(experts.shape[1], -1).T if choices_first else taken.view_as(experts)


def by_queue(experts, room):
    N, K = experts.shape
    taken, out = {}, [[False] * K for _ in range(N)]
    for k in range(K):
        for n in range(N):
            e = experts[n, k].item()
            out[n][k] = taken.get(e, 0) < room
            taken[e] = taken.get(e, 0) + out[n][k]
    return torch.tensor(out)


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "uneven_by": [
        (lambda x, E: over_mean(x.flatten().bincount().float()), "that nobody chose"),
        (lambda x, E: over_mean(x.unique(return_counts=True)[1].float()), "that nobody chose"),
        (lambda x, E: load(x, E).max() / load(x, E).mean(), "in balance MaxVio is 0"),
        (lambda x, E: load(x, E).max() - load(x, E).mean(), "divide by the mean"),
        (lambda x, E: load(x, E).max(), "largest load"),
        (lambda x, E: 1 - load(x, E).mean() / load(x, E).max(), "divided by the largest"),
        (lambda x, E: (load(x, E).max() - load(x, E).min()) / load(x, E).mean(), "the idlest"),
        (lambda x, E: 1 - load(x, E).min() / load(x, E).mean(), "the idlest"),
        (lambda x, E: load(x, E).var(correction=0) / load(x, E).mean()**2, "coefficient of variation"),
        (lambda x, E: over_mean(load(x[:, :1], E)), "only first choices"),
        (lambda x, E: load(x, E), "a number is needed"),
        (lambda x, E: 3.0, "tokens with"),
    ],
    "switch_loss": [
        (lambda s, e: f_p(s, e, lambda N, E, K: E / N), "where is K?"),
        (lambda s, e: f_p(s, e, lambda N, E, K: 1 / (K * N)), "where is E?"),
        (lambda s, e: f_p(s, e, lambda N, E, K: 1 / N), "not by N alone"),
        (lambda s, e: f_p(s, e, lambda N, E, K: 1), "a bare count"),
        (lambda s, e: f_p(s, e, score=lambda s: s.sum(0)), "are the scores summed?"),
        (lambda s, e: f_p(s, e, score=lambda s: torch.stack([s[(e == i).any(-1), i].sum() / max((e == i).sum(), 1)
                                                             for i in range(s.shape[1])])), "over all tokens"),
        (lambda s, e: f_p(s, e, score=lambda s: load(e, s.shape[1]) / e.numel()), "nothing carries a gradient"),
        (lambda s, e: (s.mean(0)**2).sum() * s.shape[1], "f is counted"),
        (lambda s, e: f_p(s, e[:, :1]), "only first choices"),
        (lambda s, e: f_p(s, e).item(), "carries no gradient"),
        (lambda s, e: f_p(s.detach(), e), "carries no gradient"),
    ],
    "choose_with_bias": [
        (lambda s, b, k: choose(s, b, k, select=s), "is the bias left out?"),
        (lambda s, b, k: choose(s, b, k, select=s - b), "taken away"),
        (lambda s, b, k: choose(s, b, k, select=s * b), "multiplied by the bias"),
        (lambda s, b, k: choose(s, b, k, select=-s - b), "worst"),
        (lambda s, b, k: choose(s, b, k, gates=torch.add), "It only selects"),
        (lambda s, b, k: choose(s, b, k, gates=torch.add, norm=False), "It only selects; and"),
        (lambda s, b, k: choose(s, b, k, norm=False), "should sum to 1"),
        (lambda s, b, k: (choose(s, b, k)[0], s.gather(1, choose(s, b, k)[0]) / s.sum(-1, keepdim=True)), "over all"),
        (lambda s, b, k: (choose(s, b, k)[0], s.gather(1, choose(s, b, k)[0]).softmax(-1)), "a softmax of the chosen"),
        (lambda s, b, k: (choose(s, b, k)[0], (s + b).topk(k).values.softmax(-1)), "a softmax of biased"),
        (lambda s, b, k: choose(s, b, k, flip=True), "another order"),
        (lambda s, b, k: (choose(s, b, k)[0].flip(-1), choose(s, b, k)[1]), "best first"),
        (lambda s, b, k: choose(s, b, k)[::-1], "experts come first"),
        (lambda s, b, k: (choose(s, b, k)[0], s), "gather them"),
        (lambda s, b, k: choose(s, b, k)[0], "two results"),
    ],
    "next_bias": [
        (lambda b, e, g: moved(b, e, g, sign=-1), "turned round"),
        (lambda b, e, g: moved(b, e, g, lambda off: off), "Only its sign"),
        (lambda b, e, g: moved(b, e, g, lambda off: off / load(e, len(b)).mean()), "Only its sign"),
        (lambda b, e, g: moved(b, e, g) - b, "add it to the bias"),
        (lambda b, e, g: moved(b, e, 1), "without gamma"),
        (lambda b, e, g: b - g * load(e, len(b)).sign(), "compared with 0"),
        (lambda b, e, g: b + g * (load(e, len(b)).median() - load(e, len(b))).sign(), "median"),
        (lambda b, e, g: moved(b, e, g, lambda off: (off >= 0) * 2.0 - 1), "exactly the mean"),
        (lambda b, e, g: moved(b, e, g, lambda off: (off > 0) * 2.0 - 1), "exactly the mean"),
        (lambda b, e, g: moved(b, e, g, lambda off: off.sign().clamp(max=0)), "only the overloaded"),
        (lambda b, e, g: moved(b, e, g, lambda off: off.sign().clamp(min=0)), "only the underloaded"),
        (lambda b, e, g: b + g * e.flatten().bincount().float(), "a minlength"),
        (lambda b, e, g: e.flatten().bincount().float(), "a minlength"),
    ],
    "finds_place": [
        (lambda e, room: ~place(e, room), "False where it is dropped"),
        (lambda e, room: place(e, room - 1), "one too few"),
        (lambda e, room: place(e, room + 1), "one too many"),
        (lambda e, room: place(e, room, choices_first=False), "token by token"),
        (lambda e, room: place(e.flip(0), room).flip(0), "end of the text"),
        (lambda e, room: place(e.flip(1), room).flip(1), "second choices come first"),
        (lambda e, room: torch.cat([place(e[:, k:k + 1], room) for k in range(e.shape[1])], 1), "anew"),
        (lambda e, room: place(e, room).T, "a row for each token"),
        (lambda e, room: place(e, room).T.flatten(), "the shape of experts"),
        (lambda e, room: place(e, room).all(1), "its own answer"),
    ],
}
RIGHT = {
    "uneven_by": [
        lambda x, E: max(x.flatten().tolist().count(e) for e in range(E)) * E / x.numel() - 1,
        lambda x, E: balancing.max_violation(load(x, E)),
    ],
    "switch_loss": [
        lambda s, e: balancing.expert_balance_loss(Routing(e, None, s)),
        lambda s, e: F.one_hot(e, s.shape[1]).sum(1).float().mean(0) @ s.mean(0) * s.shape[1] / e.shape[1],
    ],
    "choose_with_bias": [
        choose,
        lambda s, b, k: [*choose(s.double(), b.double(), k)],
    ],
    "next_bias": [
        moved,
        lambda b, e, g: torch.stack([v + g * ((n := (e == i).sum() * len(b)) < e.numel()) - g * (n > e.numel())
                                     for i, v in enumerate(b)]),
    ],
    "finds_place": [
        by_queue,
        lambda e, room: place(e, room).int(),
    ],
}
