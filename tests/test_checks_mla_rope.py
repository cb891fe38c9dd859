"""Checks of the lesson on latent attention with rotary positions: wrong answers get a hint, right ones may differ."""

from itertools import count

import torch

from llm_core import accounting


def scores(q_nope, q_rope, k_nope, k_rope, content=None, position=None):
    """The solution; content and position: other scales for the parts."""
    scale = (q_nope.shape[-1] + q_rope.shape[-1]) ** -0.5
    return (q_nope @ k_nope.mT * (scale if content is None else content)
            + q_rope @ k_rope.mT * (scale if position is None else position))


def apart(q_nope, q_rope, k_nope, k_rope):
    return scores(q_nope, q_rope, k_nope, k_rope, q_nope.shape[-1] ** -0.5, q_rope.shape[-1] ** -0.5)


def joined(q_nope, q_rope, k_nope, k_rope):
    H, S = k_nope.shape[:2]
    q, k = torch.cat([q_nope, q_rope], -1), torch.cat([k_nope, k_rope.expand(H, S, -1)], -1)
    return torch.einsum("htd,hsd->hts", q, k) / q.shape[-1] ** 0.5


def no_heads(q_nope, q_rope, k_nope, k_rope):
    return torch.cat([q_nope, q_rope], -1) @ torch.cat([k_nope, k_rope], -1).mT


def matrix(W_q, W_uk, speeds, distance, sign=-1, halves=False, both=False):
    d = len(W_q)
    R = torch.zeros(d, d)
    for i, speed in enumerate(speeds):
        angle = sign * torch.as_tensor(distance) * speed
        a, b = (i, i + d // 2) if halves else (2 * i, 2 * i + 1)
        R[a, a] = R[b, b] = angle.cos()
        R[b, a], R[a, b] = angle.sin(), -angle.sin()
    return (R @ W_q if both else W_q).T @ R @ W_uk


def step(q_nope, q_rope, latent, k_rope, W_uk, W_uv, scale=None, apart=False, one_k=False, one_v=False, position=True):
    H, n, c = W_uk.shape
    r = q_rope.shape[-1]
    W_uk, W_uv = (W[:1].expand_as(W) if one else W for W, one in ((W_uk, one_k), (W_uv, one_v)))
    content, place = (torch.einsum("hn,hnc->hc", q_nope, W_uk) @ latent.T, q_rope @ k_rope.T * position)
    both = (content + place) * ((n + r) ** -0.5 if scale is None else scale(n, r, c))
    if apart:
        both = content / n**0.5 + place / r**0.5
    return torch.einsum("hc,hvc->hv", both.softmax(-1) @ latent, W_uv)


def cheaper(config, context, first=1, more=0):
    for T in count(first):
        naive, absorbed = (accounting.forward_flops(config, T, context + T * more, absorbed=way).total
                           for way in (False, True))
        if naive < absorbed:
            return T


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "kept_numbers": [
        (lambda L, H, n, r, v, c: c + r, "that is one layer"),
        (lambda L, H, n, r, v, c: L * c, "rope key is forgotten"),
        (lambda L, H, n, r, v, c: L * (2 * c + r), "latent counted twice"),
        (lambda L, H, n, r, v, c: 2 * L * (c + r), "all of it counted twice"),
        (lambda L, H, n, r, v, c: L * (c + H * r), "All heads share one"),
        (lambda L, H, n, r, v, c: L * H * (c + r), "latent for each head"),
        (lambda L, H, n, r, v, c: L * H * (n + r + v), "expanded keys and values"),
        (lambda L, H, n, r, v, c: L * H * (n + v), "MHA without a rope part"),
        (lambda L, H, n, r, v, c: L * (c + r) + 1, "it should be 35,136"),
    ],
    "two_part_scores": [
        (apart, "have one scale"),
        (lambda *a: scores(*a, 1, 1), "is the scale applied"),
        (lambda *a: scores(*a, a[0].shape[-1] ** -0.5, a[0].shape[-1] ** -0.5), "divided by √n?"),
        (lambda *a: scores(*a, a[1].shape[-1] ** -0.5, a[1].shape[-1] ** -0.5), "divided by √r?"),
        (lambda *a: scores(*a, position=1), "only the content"),
        (lambda *a: scores(*a, content=1), "only the position"),
        (lambda *a: scores(*a, position=0), "position part is missing"),
        (lambda *a: scores(*a, content=0), "content part is missing"),
        (lambda *a: scores(*a).mT, "wrong way round"),
        (lambda *a: scores(*a).softmax(-1), "softmax taken already"),
        (lambda *a: scores(*a).sum(0), "heads added up"),
        (no_heads, "k_rope has no heads"),
    ],
    "matrix_for_distance": [
        (lambda *a: matrix(*a, sign=1), "turn goes the other way"),
        (lambda *a: matrix(*a, sign=0), "nothing is turned"),
        (lambda *a: matrix(*a, halves=True), "pairs taken in halves"),
        (lambda *a: matrix(*a, sign=1, halves=True), "and turned the other way"),
        (lambda *a: matrix(*a, both=True), "the turns cancel"),
        (lambda W_q, W_uk, speeds, distance: matrix(W_q, W_uk, speeds, 2 * distance), "turn applied twice"),
        (lambda W_q, W_uk, speeds, distance: matrix(W_q, W_uk, speeds, 1), "turned by one place"),
        (lambda W_q, W_uk, speeds, distance: matrix(W_q, W_uk, speeds[:1].expand(len(speeds)), distance),
         "speed of the first"),
        (lambda *a: matrix(*a).T, "should be [D, c]"),
        (lambda W_q, W_uk, speeds, distance: W_q @ W_uk, "W_q is [d, D]"),
    ],
    "absorbed_step": [
        (lambda *a: step(*a, scale=lambda n, r, c: (c + r) ** -0.5), "Absorption must change nothing"),
        (lambda *a: step(*a, scale=lambda n, r, c: n**-0.5), "divided by √n"),
        (lambda *a: step(*a, scale=lambda n, r, c: c**-0.5), "divided by √c"),
        (lambda *a: step(*a, scale=lambda n, r, c: 1), "is the scale applied"),
        (lambda *a: step(*a, apart=True), "scaled apart"),
        (lambda *a: step(*a, one_k=True), "head 0's W_uk"),
        (lambda *a: step(*a, one_v=True), "head 0's W_uv"),
        (lambda *a: step(*a, position=False), "position part is missing"),
        (lambda *a: step(*a).sum(0), "heads added up"),
        (lambda *a: step(*a).flatten(), "heads are joined"),
    ],
    "new_tokens_for_naive": [
        (lambda config, S: cheaper(config, S) - 1, "last T for which absorbed"),
        (lambda config, S: cheaper(config, S, more=1), "taken as the old tokens"),
        (lambda config, S: max(2, cheaper(config, S)), "begins at 1 token"),
        (lambda config, S: S, "the whole context"),
        (lambda config, S: 171, "171 for every model"),
        (lambda config, S: 1, "it should be"),
    ],
}

RIGHT = {
    "kept_numbers": [lambda L, H, n, r, v, c: float((r + c) * L), lambda L, H, n, r, v, c: torch.tensor(L * (c + r))],
    "two_part_scores": [joined, scores],
    "matrix_for_distance": [matrix],
    "absorbed_step": [step],
    "new_tokens_for_naive": [cheaper],
}
