"""Checks of the lesson "How small may the latent be?"."""

from __future__ import annotations

import torch
from torch import Tensor

from llm_core.checks.cases import numbers, whole
from llm_core.checks.core import TOLERANCE, Wrong, attempt, check, random, same


@check
def largest_rank(function) -> str:
    """function(n_layers, bits, tokens, budget) -> the largest rank whose cache fits into `budget` bytes."""
    cases = ((30, 16, 8192, 1_000_000_000), (61, 8, 131_072, 4_000_000_000), (3, 4, 1000, 10_001), (60, 16, 1000, 100),
             (7, 16, 10, 1400), (61, 16, 131_073, (1 << 53) + 1))
    numbers(function, cases, lambda L, b, t, B: 8 * B // (L * b * t), [
        ("are bits taken for bytes? 8 bits are a byte", lambda L, b, t, B: B // (L * b * t)),
        ("is the latent counted twice, for keys and for values? Both are made from the same one",
         lambda L, b, t, B: 8 * B // (2 * L * b * t)),
        ("each layer has a latent of its own", lambda L, b, t, B: 8 * B // (b * t)),
        ("each token leaves a latent", lambda L, b, t, B: 8 * B // (L * b)),
        ("it is rounded up, so it does not fit", lambda L, b, t, B: -(-8 * B // (L * b * t))),
        ("is it rounded? The nearest whole number may be too large", lambda L, b, t, B: round(8 * B / (L * b * t))),
        ("the 16 bits are written in: use `bits`", lambda L, b, t, B: B // (2 * L * t)),
        ("is at least 1 returned? If nothing fits, it is 0", lambda L, b, t, B: max(1, 8 * B // (L * b * t))),
        ("bits / 8 and a division with a point round very large numbers; stay with whole numbers, `//`",
         lambda L, b, t, B: int(B / (L * b / 8 * t))),
    ], lambda L, b, t, B: f"{L} layers, {b} bits, {t:,} tokens and {B:,} bytes", whole)
    return "with 1 GB for 8,192 tokens SmolLM2's 30 layers could keep 2,034 numbers each; its keys and values are 384"


def _pair(function, D: int, rank: int, K: int, *given) -> Tensor:
    """up @ down of the function's pair, [K, D]."""
    pair = attempt(function, *given, hints={
        "cannot be multiplied": "W is [2 G d, D]: the latent has to come out of x, D wide, and be expanded to 2 G d."})
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(t, Tensor) for t in pair):
        raise Wrong("a pair of tensors is needed, (down, up)")
    down, up = pair
    if (tuple(down.shape), tuple(up.shape)) == ((K, rank), (rank, D)):
        raise Wrong("is the pair the wrong way round? down comes first")
    if tuple(down.shape) != (rank, D) or tuple(up.shape) != (K, rank):
        meaning = ""
        if down.shape[:1] == (K // 2,) or up.shape[:1] == (K // 2,):
            meaning = " Keys and values go through one latent: stack W_k on W_v."
        if {tuple(down.shape), tuple(up.shape)} & {(D, rank), (rank, K)}:
            meaning = " Is one of them transposed?"
        raise Wrong(f"down should be [rank, D], here {[rank, D]}, and up [2 G d, rank], here {[K, rank]}; yours are "
                    f"{list(down.shape)} and {list(up.shape)}.{meaning}")
    return up.float() @ down.float()


def _through(U: Tensor, W: Tensor, rank: int) -> Tensor:
    return U[:, :rank] @ U[:, :rank].T @ W


@check
def down_and_up(function) -> str:
    """function(W_k [G d, D], W_v [G d, D], rank) -> (down [rank, D], up [2 G d, rank]), nearest to both."""
    for half, D, rank in ((6, 20, 5), (10, 14, 3)):
        W_k, W_v = random(half, D, seed=701), 3 * random(half, D, seed=702)
        W = torch.cat([W_k, W_v])
        U, S, Vh = torch.linalg.svd(W, full_matrices=False)
        mine = _pair(function, D, rank, 2 * half, W_k, W_v, rank)
        turned = torch.cat([W_v, W_k])
        other = torch.linalg.svd(turned, full_matrices=False)[0]
        _told(mine, _through(U, W, rank), [
            ("are those the weakest directions? The strongest come first", U[:, -rank:] @ U[:, -rank:].T @ W),
            ("the keys come first", _through(other, turned, rank)),
            ("S is used twice: up @ down should be U_r S_r Vh_r, with S once",
             U[:, :rank] * S[:rank] ** 2 @ Vh[:rank]),
            ("S is missing: up @ down should be U_r S_r Vh_r", U[:, :rank] @ Vh[:rank]),
        ], W)
    return "no other pair with so few numbers in between comes nearer to both matrices"


@check
def down_and_up_for(function) -> str:
    """function(W_k, W_v [G d, D], x [N, D], rank) -> (down, up) with the least error of keys and values of x."""
    for half, D, N, rank in ((6, 20, 40, 4), (8, 12, 9, 3)):
        W_k, W_v = random(half, D, seed=703), random(half, D, seed=704)
        x = random(N, D, seed=705) * torch.linspace(3, 0.1, D) + 2 * random(D, seed=706)
        W = torch.cat([W_k, W_v])
        made = x @ W.T
        U = torch.linalg.svd(made, full_matrices=False)[2].T
        own = torch.linalg.svd(W, full_matrices=False)[0]
        centred = torch.linalg.svd(made - made.mean(0), full_matrices=False)[2].T
        mine = x @ _pair(function, D, rank, 2 * half, W_k, W_v, x, rank).T  # on these tokens alone it must be right
        entering = torch.linalg.svd(x, full_matrices=False)[2].T
        _told(mine, x @ _through(U, W, rank).T, [
            ("those are the directions of the weights; x is not used", x @ _through(own, W, rank).T),
            ("are those the weakest directions? The strongest come first",
             x @ (U[:, -rank:] @ U[:, -rank:].T @ W).T),
            ("is the mean of the keys and values subtracted? Then the directions miss it",
             x @ _through(centred, W, rank).T),
            ("are those the strongest directions of x? What counts is what keys and values lose, W x",
             x @ entering[:, :rank] @ entering[:, :rank].T @ W.T),
        ], made)
    return "the least error on what really comes, and the same number of numbers in the cache"


def _told(mine: Tensor, best: Tensor, mistakes: list[tuple[str, Tensor]], whole_thing: Tensor) -> None:
    """Wrong unless mine equals best, in units of its size; with the likely mistake, or how much worse it is."""
    size = best.abs().max()
    if same(mine / size, best / size) or (mine - best).abs().max() < 10 * TOLERANCE * size:
        return
    for sentence, wrong in mistakes:
        if (mine - wrong).abs().max() < 10 * TOLERANCE * size:
            raise Wrong(sentence)
    if mine.isnan().any():
        raise Wrong("some of your numbers are NaN")
    off, least = ((whole_thing - t).square().sum().sqrt().item() for t in (mine, best))
    raise Wrong(f"the shapes fit, but the error is {off:.4g} and {least:.4g} can be reached")


@check
def ranks_for(function) -> str:
    """function(strengths [L, K], total) -> L ranks, together `total`, with the largest sum of kept squares."""
    tables = [(random(L, K, seed=seed).abs().sort(dim=1, descending=True).values
               * torch.tensor(scale)[:, None], total) for L, K, seed, scale, total in (
        (3, 6, 711, [1.0, 3.0, 0.4], 7), (4, 5, 712, [9.0, 1.0, 1.0, 0.5], 6), (2, 4, 713, [1.0, 1.1], 8),
        (3, 3, 714, [2.0, 2.2, 2.1], 2))]
    for strengths, total in tables:
        L, K = strengths.shape
        got = attempt(function, strengths, total)
        got = got.tolist() if isinstance(got, Tensor) else got
        if not isinstance(got, (list, tuple)) or len(got) != L:
            size = f" of length {len(got)}" if isinstance(got, (list, tuple)) else ""
            raise Wrong(f"a list of {L} ranks is needed, one a layer, and yours is a {type(got).__name__}{size}")
        got = [whole(rank, "a rank is a whole number") for rank in got]
        best = torch.bincount(strengths.flatten().topk(total).indices // K, minlength=L).tolist()
        if got == best:
            continue
        shares = strengths**2 / (strengths**2).sum(1, keepdim=True)
        for sentence, wrong in (
            ("is every layer given the same? Some have stronger directions", [total // L] * L),
            ("are shares of each layer compared? The squares themselves add up over the layers",
             torch.bincount(shares.flatten().topk(total).indices // K, minlength=L).tolist()),
            ("is it place % K? That is the place within the layer",
             torch.bincount(strengths.flatten().topk(total).indices % K, minlength=L).tolist()[:L]),
            ("are the weakest directions chosen?", torch.bincount(
                (-strengths).flatten().topk(total).indices // K, minlength=L).tolist()),
        ):
            if got == wrong:
                raise Wrong(sentence)
        if sum(got) != total:
            raise Wrong(f"your ranks make {sum(got)} directions, and there are {total} to give")
        if not all(0 <= rank <= K for rank in got):
            raise Wrong(f"a layer has {K} directions, and yours are {got}")
        kept = [sum((strengths[i, :rank] ** 2).sum().item() for i, rank in enumerate(ranks)) for ranks in (got, best)]
        raise Wrong(f"your ranks {got} keep {kept[0]:.4g} of the squares, and {kept[1]:.4g} is possible")
    return "the strongest directions of all layers, wherever they are"
