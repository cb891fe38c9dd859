"""Checks of the lesson on the size of the latent: wrong answers get a hint, right ones may differ."""

import torch


def pair(W_k, W_v, rank, S_power=0.0, weakest=False, order=1, drop=False):
    W = torch.cat([W_k, W_v][::order])
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    keep = slice(-rank, None) if weakest else slice(rank)
    U, S, Vh = U[:, keep], S[keep], Vh[keep]
    return (Vh if drop else S[:, None] * Vh), U * S**S_power


def halves(W_k, W_v, rank):
    """S on both sides, half on each: another right pair."""
    U, S, Vh = torch.linalg.svd(torch.cat([W_k, W_v]), full_matrices=False)
    root = S[:rank].sqrt()
    return root[:, None] * Vh[:rank], U[:, :rank] * root


def aware(W_k, W_v, x, rank, weakest=False, centre=False):
    W = torch.cat([W_k, W_v])
    made = x @ W.T
    up = torch.linalg.svd(made - made.mean(0) * centre, full_matrices=False)[2]
    up = (up[-rank:] if weakest else up[:rank]).T
    return up.T @ W, up


def moments(W_k, W_v, x, rank):
    """By eigenvectors, as llm_core does."""
    W = torch.cat([W_k, W_v]).double()
    up = torch.linalg.eigh(W @ (x.double().T @ x.double()) @ W.T)[1].flip(1)[:, :rank].float()
    return up.T @ W.float(), up


def entering(W_k, W_v, x, rank):
    directions = torch.linalg.svd(x, full_matrices=False)[2][:rank]
    return directions, torch.cat([W_k, W_v]) @ directions.T


def counted(places, L):
    return torch.bincount(places, minlength=L).tolist()


def one_by_one(strengths, total):
    ranks = [0] * len(strengths)
    for _ in range(total):
        best = max((i for i in range(len(ranks)) if ranks[i] < strengths.shape[1]),
                   key=lambda i: strengths[i, ranks[i]].item())
        ranks[best] += 1
    return tuple(ranks)


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "largest_rank": [
        (lambda L, b, t, B: B // (L * b * t), "bits taken for bytes"),
        (lambda L, b, t, B: 4 * B // (L * b * t), "latent counted twice"),
        (lambda L, b, t, B: 8 * B // (b * t), "each layer"),
        (lambda L, b, t, B: 8 * B // (L * b), "each token"),
        (lambda L, b, t, B: -(-8 * B // (L * b * t)), "rounded up"),
        (lambda L, b, t, B: B // (2 * L * t), "written in"),
        (lambda L, b, t, B: max(1, 8 * B // (L * b * t)), "at least 1"),
        (lambda L, b, t, B: 8 * B / (L * b * t), "a whole number"),
    ],
    "down_and_up": [
        (lambda k, v, r: pair(k, v, r, weakest=True), "weakest"),
        (lambda k, v, r: pair(k, v, r, order=-1), "keys come first"),
        (lambda k, v, r: pair(k, v, r, S_power=1), "used twice"),
        (lambda k, v, r: pair(k, v, r, drop=True), "S is missing"),
        (lambda k, v, r: pair(k, v, r)[::-1], "wrong way round"),
        (lambda k, v, r: tuple(t.T for t in pair(k, v, r)[::-1]), "transposed"),
        (lambda k, v, r: (pair(k, v, r)[0].T, pair(k, v, r)[1]), "transposed"),
        (lambda k, v, r: (pair(k, k[:0], r)[0], pair(k, k[:0], r)[1]), "stack W_k on W_v"),
        (lambda k, v, r: pair(k, v, r)[0], "a pair of tensors"),
        (lambda k, v, r: tuple(0.9 * t for t in pair(k, v, r)), "can be reached"),
    ],
    "down_and_up_for": [
        (lambda k, v, x, r: pair(k, v, r), "x is not used"),
        (lambda k, v, x, r: aware(k, v, x, r, weakest=True), "weakest"),
        (lambda k, v, x, r: aware(k, v, x, r, centre=True), "mean of the keys"),
        (entering, "strongest directions of x"),
        (lambda k, v, x, r: tuple(0 * t for t in aware(k, v, x, r)), "can be reached"),
    ],
    "ranks_for": [
        (lambda s, total: [total // len(s)] * len(s), "the same"),
        (lambda s, total: counted((s**2 / (s**2).sum(1, keepdim=True)).flatten().topk(total).indices // s.shape[1],
                                  len(s)), "shares of each layer"),
        (lambda s, total: counted((-s).flatten().topk(total).indices // s.shape[1], len(s)), "weakest"),
        (lambda s, total: counted(s.flatten().topk(total).indices % s.shape[1], len(s))[:len(s)], "place % K"),
        (lambda s, total: [0] * len(s), "to give"),
        (lambda s, total: [1] * (len(s) - 1) + [total - len(s) + 1], "of the squares"),
        (lambda s, total: total, "one a layer"),
        (lambda s, total: [total / len(s)] * len(s), "whole number"),
    ],
}

RIGHT = {
    "largest_rank": [lambda L, b, t, B: B * 8 // b // L // t],
    "down_and_up": [pair, halves],
    "down_and_up_for": [aware, moments],
    "ranks_for": [one_by_one],
}
