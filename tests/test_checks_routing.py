"""Answers to the exercises of the lesson on experts and routing."""

import math

import torch

from llm_core.specialisation import mutual_information


def choose(logits, k, share=lambda t: t.softmax(-1), norm=True):
    weights, experts = share(logits).topk(k, dim=-1)
    return experts, weights / weights.sum(-1, keepdim=True) if norm else weights


def choose_among(logits, k):
    values, experts = logits.topk(k, dim=-1)
    return experts, values.softmax(-1)


def layer(x, experts, weights, networks, weigh=True, add=True, empty=False, own=True, choices=None):
    out = torch.zeros_like(x)
    for e, network in enumerate(networks):
        token, place = (experts[:, :choices] == e).nonzero(as_tuple=True)
        if not len(token) and not empty:
            continue
        result = network(x[token])
        result = weights[token, place, None] * result if weigh else result
        out[token] = out[token] + result if add else result
    return out if own else out + x


def last_wins(x, experts, weights, networks):
    out = torch.zeros_like(x)
    for k in range(experts.shape[1]):
        for e, network in enumerate(networks):
            token = (experts[:, k] == e).nonzero().flatten()
            if len(token):
                out[token] = weights[token, k, None] * network(x[token])
    return out


def by_token(x, experts, weights, networks):
    return torch.stack([sum(w * networks[e](t[None])[0] for e, w in zip(row.tolist(), ws))
                        for t, row, ws in zip(x, experts, weights)])


def masked(x, experts, weights, networks):
    share = torch.zeros(len(x), len(networks)).scatter(1, experts, weights)
    return sum(share[:, e, None] * network(x) for e, network in enumerate(networks))


def sizes(D, I, E, k, s, matrices=3, router=True, held=None, used=None):
    one, r = matrices * D * I, D * E * router
    return r + ((E if held is None else held) + s) * one, r + ((k if used is None else used) + s) * one


def table(tokens, experts):
    joint = torch.zeros(int(tokens.max()) + 1, int(experts.max()) + 1, dtype=torch.float64)
    joint.index_put_((tokens, experts), torch.ones(len(tokens), dtype=torch.float64), accumulate=True)
    return joint


def bits(t, e, log=torch.log2):
    p = table(t, e) / len(t)
    return (p * log(p / (p.sum(1, keepdim=True) * p.sum(0, keepdim=True))))[p > 0].sum()


def nan_bits(t, e):
    p = table(t, e) / len(t)
    return (p * (p / (p.sum(1, keepdim=True) * p.sum(0, keepdim=True))).log2()).sum()


def entropy(p):
    return -(p[p > 0] * p[p > 0].log2()).sum().item()


WRONG = {
    "choose_experts": [
        (lambda z, k: choose(z, k)[::-1], "wrong way round"),
        (lambda z, k: choose(-z, k), "worst"),
        (lambda z, k: tuple(t.flip(-1) for t in choose(z, k)), "best first"),
        (lambda z, k: choose(z, k, norm=False), "sum to 1 again"),
        (lambda z, k: z.topk(k)[::-1], "raw results"),
        (lambda z, k: choose(z, k, torch.sigmoid), "sigmoid"),
        (lambda z, k: (choose(z, k)[0], torch.full((len(z), k), 1 / k)), "1 / k"),
        (lambda z, k: choose(z, k)[0], "two results"),
    ],
    "sparse_layer": [
        (lambda *a: layer(*a, weigh=False), "gate weights"),
        (lambda *a: layer(*a, choices=1), "first choice"),
        (last_wins, "written over"),
        (lambda x, e, w, n: sum(network(x) for network in n), "every expert get every token"),
        (lambda *a: layer(*a, own=False), "skip connection"),
        (lambda *a: layer(*a, empty=True), "without any tokens"),
        (by_token, "more than once"),
        (masked, "had not chosen them"),
    ],
    "layer_parameters": [
        (lambda *a: sizes(*a)[::-1], "wrong way round"),
        (lambda *a: sizes(*a, matrices=2), "three matrices"),
        (lambda *a: sizes(*a, router=False), "where is the router"),
        (lambda D, I, E, k, s: sizes(D, I, E, k, 0), "shared experts"),
        (lambda D, I, E, k, s: sizes(D, I, E, k, s, used=E), "a token uses k"),
        (lambda D, I, E, k, s: sizes(D, I, E, k, s, held=k), "all experts are held"),
        (lambda D, I, E, k, s: (sizes(D, I, E, k, s)[0], sizes(D, I, E, k, s)[1] - D * (E - k)), "scores every expert"),
        (lambda *a: sum(sizes(*a)), "two results"),
    ],
    "bits_about_expert": [
        (lambda t, e: bits(t, e, torch.log), "nats"),
        (lambda t, e: -bits(t, e), "turned round"),
        (nan_bits, "NaN"),
        (lambda t, e: entropy(table(t, e) / len(t)), "entropy of pairs"),
        (lambda t, e: entropy(table(t, e).sum(0) / len(t)), "entropy of the experts"),
        (lambda t, e: entropy(table(t, e) / len(t)) - entropy(table(t, e).sum(1) / len(t)), "unknown"),
        (lambda t, e: "much", "a number is needed"),
    ],
}
RIGHT = {
    "choose_experts": [choose, choose_among, lambda z, k: [choose(z, k)[0].int(), choose(z, k)[1].double()]],
    "sparse_layer": [layer],
    "layer_parameters": [sizes, lambda *a: [float(n) for n in sizes(*a)]],
    "bits_about_expert": [
        bits,
        lambda t, e: mutual_information(t, e[:, None]),
        lambda t, e: sum(entropy(table(t, e).sum(d) / len(t)) for d in (0, 1)) - entropy(table(t, e) / len(t)),
        lambda t, e: bits(t, e, torch.log) / math.log(2),
    ],
}
