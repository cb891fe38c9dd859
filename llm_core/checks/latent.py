"""Checks of the lesson "Latent attention"."""

from __future__ import annotations

import torch

from llm_core.checks.cases import number, numbers, whole
from llm_core.checks.core import check, compare, random, tensor


@check
def heads_as_small(function) -> str:
    """function(rank, head_dim) -> how many key-value heads keep as many numbers as a latent of this rank."""
    numbers(function, ((512, 128), (256, 64), (7, 2), (48, 96)), lambda c, d: c / (2 * d), [
        ("a head of GQA keeps a key and a value, so twice its width", lambda c, d: c / d),
        ("is the latent counted twice, for keys and for values? Both are made from the same one",
         lambda c, d: 2 * c / d),
        ("that is how many latents fit into a key-value head; the question is the other way round",
         lambda c, d: 2 * d / c),
        ("it need not be whole: is it rounded down?", lambda c, d: c // (2 * d)),
        ("is it rounded? It need not be whole", lambda c, d: round(c / (2 * d))),
        ("the numbers are right, but how many heads of 2 * head_dim numbers are they?", lambda c, d: c),
    ], lambda c, d: f"a latent of {c} and heads of {d}", number)
    return "DeepSeek-V2's latent of 512 is as small as 2 key-value heads of 128, and serves 128 heads"


@check
def attend_absorbed(function) -> str:
    """function(shares [H, S], c [S, d_c], W_uv [H, d, d_c], W_o [D, H d]) -> the newest token's output [D]."""
    for H, S, d, d_c, D in ((4, 7, 6, 10, 15), (3, 5, 8, 8, 24)):
        shares = random(H, S, seed=601).softmax(-1)
        c, W_uv, W_o = random(S, d_c, seed=602), random(H, d, d_c, seed=603), random(D, H * d, seed=604)
        got = tensor(function, shares, c, W_uv, W_o, shape=(D,), names="[D]", shape_hints={
            (H, d_c): "Those are the mixtures of latents; each head's W_uv and then W_o come next.",
            (H, d): "Those are the heads' results; join them and multiply with W_o.",
            (H * d,): "Those are the heads' results; W_o takes them back to the stream.",
            (1, D): "The heads' results are one vector: flatten().",
            (S, D): "That is a row for each cached token; the shares mix them into one."}, hints={
            "size mismatch": "W_o takes one vector of H * d numbers: flatten the heads first.",
            "cannot be multiplied": "W_o takes one vector of H * d numbers: flatten the heads first."})
        mixed = shares @ c  # [H, d_c]
        heads = torch.einsum("hdc,hc->hd", W_uv, mixed)
        first = torch.einsum("dc,hc->hd", W_uv[0], mixed)
        even = torch.einsum("hdc,c->hd", W_uv, c.mean(0))
        one = torch.einsum("hdc,c->hd", W_uv, mixed[0])
        compare(got, W_o @ heads.flatten(), [
            ("the shapes fit, but every head uses head 0's W_uv: does your einsum keep h on both sides?",
             W_o @ first.flatten()),
            ("every head has head 0's mixture: shares has a row for each head", W_o @ one.flatten()),
            ("are the heads joined in the wrong order? Head 0's d numbers come first, then head 1's",
             W_o @ heads.T.flatten()),
            ("are all tokens mixed alike? The shares say how much of each", W_o @ even.flatten()),
            ("is the softmax taken again? The shares are given",
             W_o @ torch.einsum("hdc,hc->hd", W_uv, shares.softmax(-1) @ c).flatten()),
            ("are the latents added up without their shares?",
             W_o @ torch.einsum("hdc,c->hd", W_uv, c.sum(0)).flatten()),
        ])
    return "equal to the expanded way; with 2,048 tokens and V2's widths it needs 204 times fewer multiply-adds"


@check
def through_latent(function) -> str:
    """function(both [N, K], rank) -> its best approximation through `rank` numbers a row, [N, K]."""
    for N, K, rank in ((12, 8, 3), (6, 10, 2), (9, 9, 9)):
        both = random(N, K, seed=605) + 2 * random(K, seed=606)  # a mean that is not zero
        got = tensor(function, both, rank, shape=(N, K), names="[N, K]", shape_hints={
            (N, rank): "That is the latent; now up again, to N rows of K numbers.",
            (rank, K): "Those are the directions; now take each row down to the latent and up again."}, hints={
            "cannot be multiplied": "The directions are the rows of Vh: down with Vh[:rank].T, up with Vh[:rank].",
            "size mismatch": "The directions are the rows of Vh: down with Vh[:rank].T, up with Vh[:rank]."})
        U, S, Vh = torch.linalg.svd(both, full_matrices=False)
        best = both @ Vh[:rank].T @ Vh[:rank]
        centred = both - both.mean(0)
        own = torch.linalg.svd(centred, full_matrices=False)[2][:rank]
        compare(got, best, [
            ("are those the weakest directions? The strongest come first", both @ Vh[-rank:].T @ Vh[-rank:]),
            ("is the mean subtracted? Here it should stay", centred @ own.T @ own + both.mean(0)),
            ("is the mean subtracted, and lost? Here it should stay", centred @ own.T @ own),
            ("are the strengths used twice? Down and up with the rows of Vh needs no S",
             U[:, :rank] * S[:rank] ** 2 @ Vh[:rank]),
            ("the strengths are missing: U has length 1 in each direction", U[:, :rank] @ Vh[:rank]),
            ("are only the first numbers of each row kept? A direction is a mixture of all of them",
             torch.cat([both[:, :rank], torch.zeros(N, K - rank)], 1)),
            ("that is the table itself; only `rank` numbers a row may pass", both),
        ])
    return "the best that can go through so few numbers (Eckart and Young proved it in 1936)"


def _pays_from(d: int, v: int, c: int, naive=lambda S, d, v, c: S * c * (d + v) + S * (d + v),
               absorbed=lambda S, d, v, c: c * (d + v) + 2 * S * c) -> int:
    return next((S for S in range(1, 1000) if naive(S, d, v, c) > absorbed(S, d, v, c)), 0)


@check
def pays_from(function) -> str:
    """function(d, v, rank) -> the least number of cached tokens with which absorbing needs fewer multiply-adds."""
    # With d + v = 2 a search that leaves attention out would never end.
    cases = ((128, 128, 512), (2, 1, 64), (300, 300, 200), (2, 2, 64), (1, 2, 9), (3, 1, 40), (2, 2, 2))
    numbers(function, cases, _pays_from, [
        ("that is the last number with which it does not pay", lambda d, v, c: _pays_from(d, v, c) - 1),
        ("does the search begin at 2? With wide heads and a small latent it pays from the first token on",
         lambda d, v, c: max(2, _pays_from(d, v, c))),
        ("is it 2 for every model? With very narrow heads it takes longer", lambda d, v, c: 2),
        ("is attention left out of the naive count? Its scores and mixture cost S * (d + v)",
         lambda d, v, c: _pays_from(d, v, c, naive=lambda S, d, v, c: S * c * (d + v))),
        ("with absorption, scores *and* mixture are as wide as the latent: S * 2 * rank",
         lambda d, v, c: _pays_from(d, v, c, absorbed=lambda S, d, v, c: c * (d + v) + S * c)),
        ("absorbing is not free: the query goes down and the mixture up, rank * (d + v)",
         lambda d, v, c: _pays_from(d, v, c, absorbed=lambda S, d, v, c: 2 * S * c)),
        ("is a tie taken? *Fewer* is asked for", lambda d, v, c: _pays_from(
            d, v, c, naive=lambda S, d, v, c: S * c * (d + v) + S * (d + v) + 1)),
    ], lambda d, v, c: f"keys of {d}, values of {v} and a latent of {c}", whole)
    return ("for DeepSeek's widths from the second token on; with heads of one number and a latent of 16 only from the "
            "17th")


@check
def one_bias(function) -> str:
    """function(b_k [H d], b_v [H d], W_o [D, H d], b_o [D]) -> the one bias [D] of the output."""
    for D, width in ((15, 12), (10, 10)):
        b_k, b_v, b_o = random(width, seed=607), random(width, seed=608), random(D, seed=609)
        W_o = random(D, width, seed=610)
        got = tensor(function, b_k, b_v, W_o, b_o, shape=(D,), names="[D]", shape_hints={
            (width,): "The values' bias has to go through W_o, as the values do."}, hints={
            "size mismatch": "W_o is [D, H d] and stands on the left: W_o @ b.",
            "must match": "The values' bias is H * d numbers wide and the output D: it has to go through W_o."})
        compare(got, W_o @ b_v + b_o, [
            ("what the keys' bias adds is the same in all scores of a query, so the softmax takes it out: it must not "
             "be in the output", W_o @ (b_k + b_v) + b_o),
            ("that is the keys' bias; the softmax takes it out. It is the values' that comes through",
             W_o @ b_k + b_o),
            ("the values' bias is lost: shares sum to 1, so it comes out whole", b_o),
            ("b_o is missing", W_o @ b_v),
            ("W_o the wrong way round?", W_o.T @ b_v + b_o if D == width else b_o),
            ("does the values' bias go through W_o, as the values do?", b_v + b_o if D == width else b_o),
            ("is b_o taken through W_o too? It comes behind it", W_o @ (b_v + b_o) if D == width else b_o),
        ])
    return "the keys' bias goes, the values' comes out once behind W_o: a trained GPT says the same without both"
