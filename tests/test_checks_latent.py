"""Checks of the lesson on latent attention: wrong answers get a hint, right ones may differ."""

import torch


def attend(shares, c, W_uv, W_o, head=None, row=None, order=False):
    mixed = shares @ c if row is None else (shares[row] @ c).expand(len(shares), -1)
    W = W_uv if head is None else W_uv[head].expand_as(W_uv)
    heads = torch.einsum("hdc,hc->hd", W, mixed)
    return W_o @ (heads.T if order else heads).flatten()


def expanded(shares, c, W_uv, W_o):
    values = torch.einsum("hdc,sc->hsd", W_uv, c)
    return W_o @ (shares[:, None] @ values).flatten()


def svd(both, rank, weakest=False):
    Vh = torch.linalg.svd(both, full_matrices=False)[2]
    Vh = Vh[-rank:] if weakest else Vh[:rank]
    return both @ Vh.T @ Vh


def truncated(both, rank):
    U, S, Vh = torch.linalg.svd(both)
    return U[:, :rank] @ S[:rank].diag() @ Vh[:rank]


def search(d, v, rank, first=1, attend=True, wide=2, up=1, tie=False):
    S = first
    while True:
        naive = S * rank * (d + v) + S * (d + v) * attend
        absorbed = rank * (d + v) * up + S * wide * rank
        if naive > absorbed or tie and naive == absorbed:
            return S
        S += 1


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "heads_as_small": [
        (lambda c, d: c / d, "a key and a value"),
        (lambda c, d: 2 * c / d, "latent counted twice"),
        (lambda c, d: 2 * d / c, "other way round"),
        (lambda c, d: c // (2 * d), "rounded down"),
        (lambda c, d: float(round(c / (2 * d))), "is it rounded?"),
        (lambda c, d: c, "how many heads"),
        (lambda c, d: c / (2 * d) + 1, "it should be 2"),
    ],
    "attend_absorbed": [
        (lambda *a: attend(*a, head=0), "head 0's W_uv"),
        (lambda *a: attend(*a, row=0), "head 0's mixture"),
        (lambda *a: attend(*a, order=True), "wrong order"),
        (lambda s, c, V, o: attend(s.softmax(-1), c, V, o), "taken again"),
        (lambda s, c, V, o: attend(torch.ones_like(s), c, V, o), "without their shares"),
        (lambda s, c, V, o: attend(torch.ones_like(s) / s.shape[1], c, V, o), "mixed alike"),
        (lambda s, c, V, o: s @ c, "mixtures of latents"),
        (lambda s, c, V, o: torch.einsum("hdc,hc->hd", V, s @ c), "join them"),
        (lambda s, c, V, o: o @ torch.einsum("hdc,hc->hd", V, s @ c), "flatten the heads first"),
    ],
    "through_latent": [
        (lambda both, r: svd(both, r, weakest=True), "weakest directions"),
        (lambda both, r: svd(both - both.mean(0), r) + both.mean(0), "is the mean subtracted? Here"),
        (lambda both, r: svd(both - both.mean(0), r), "and lost"),
        (lambda both, r: both, "the table itself"),
        (lambda both, r: both @ torch.linalg.svd(both, full_matrices=False)[2][:r].T, "That is the latent"),
        (lambda both, r: torch.linalg.svd(both, full_matrices=False)[2][:r], "Those are the directions"),
        (lambda both, r: torch.cat([both[:, :r], 0 * both[:, r:]], 1), "only the first numbers"),
        (lambda both, r: (lambda U, S, V: U[:, :r] @ V[:r])(*torch.linalg.svd(both, full_matrices=False)),
         "strengths are missing"),
        (lambda both, r: both @ torch.linalg.svd(both, full_matrices=False)[2][:r], "rows of Vh"),
    ],
    "pays_from": [
        (lambda d, v, c: search(d, v, c) - 1, "last number"),
        (lambda d, v, c: search(d, v, c, first=2), "begin at 2"),
        (lambda d, v, c: 2, "2 for every model"),
        (lambda d, v, c: search(d, v, c, attend=False), "left out of the naive count"),
        (lambda d, v, c: search(d, v, c) + 1, "it should be 2"),
        (lambda d, v, c: search(d, v, c, wide=1), "as wide as the latent"),
        (lambda d, v, c: search(d, v, c, up=0), "not free"),
        (lambda d, v, c: search(d, v, c, tie=True), "a tie"),
    ],
    "one_bias": [
        (lambda b_k, b_v, W, b_o: W @ (b_k + b_v) + b_o, "must not be in the output"),
        (lambda b_k, b_v, W, b_o: W @ b_k + b_o, "that is the keys' bias"),
        (lambda b_k, b_v, W, b_o: b_o, "bias is lost"),
        (lambda b_k, b_v, W, b_o: W @ b_v, "b_o is missing"),
        (lambda b_k, b_v, W, b_o: b_v, "has to go through W_o"),
        (lambda b_k, b_v, W, b_o: b_v + b_o, "H * d numbers wide"),
        (lambda b_k, b_v, W, b_o: W.T @ b_v + b_o, "on the left"),
    ],
}

RIGHT = {
    "heads_as_small": [lambda c, d: torch.tensor(c / 2 / d, dtype=torch.float64), lambda c, d: c / d / 2],
    "attend_absorbed": [attend, expanded],
    "through_latent": [svd, truncated],
    "pays_from": [search],
    "one_bias": [lambda b_k, b_v, W, b_o: torch.nn.functional.linear(b_v, W, b_o)],
}
