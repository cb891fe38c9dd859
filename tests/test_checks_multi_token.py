"""Answers to the exercises of the lesson on multi-token prediction."""

import torch
import torch.nn.functional as F

from llm_core import accounting
from llm_core.checks import multi_token


def tasks(tokens, k, read=0, guess=1):
    return [(tokens[i + k + read], tokens[i + k + guess]) for i in range(len(tokens) - 1 - k)]


def rms(x, weight=1.0, eps=1e-6):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def joined(h, e, hw, ew, W, first="e", norm=rms):
    pair = [norm(e, ew), norm(h, hw)]
    return torch.cat(pair if first == "e" else pair[::-1], -1) @ W.T


def loss(depths, targets, weight, mean=True, scale=1.0, shift=0, rows=False):
    total = 0.0
    for k, logits in enumerate(depths, start=1):
        wanted = targets[:, k + shift:][:, :logits.shape[1]]
        one = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum")
        total = total + one / (wanted.numel() if rows else targets.numel())
    return weight * total / (len(depths) if mean else 1) * scale


def size(c, norms=3, projection=2, table=0, each=True, kind="moe"):
    layer = sum(sum(p.values()) for p in accounting.per_layer(c, kind if c.moe else "dense").values())
    one = layer + norms * c.d_model + projection * c.d_model**2 + table * c.vocab_size * c.d_model
    return one * (c.n_mtp_modules if each else 1)


def chain(model, ids, **wrong):
    return multi_token._chain(model, ids, **wrong)


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "tasks_at_depth": [
        (lambda t, k: tasks(t, 0), "depth 0 for every k"),
        (lambda t, k: tasks(t, k, read=-k), "does the row read token i?"),
        (lambda t, k: tasks(t, k + 1), "one depth too deep"),
        (lambda t, k: tasks(t, max(k - 1, 0)), "one depth too shallow"),
        (lambda t, k: tasks(t, k, guess=0), "the very token that it reads"),
        (lambda t, k: [(b, a) for a, b in tasks(t, k)], "turned round"),
        (lambda t, k: tasks(t, k)[:-1], "is the last row missing?"),
        (lambda t, k: tasks(t, k)[1:], "is the first row missing"),
        (lambda t, k: [(t[i + k], t[i + k + 1]) for i in range(len(t))], "fewer rows"),
        (lambda t, k: [t[i + k] for i in range(len(t) - k)], "gives a pair"),
        (lambda t, k: 3, "a list of pairs is needed"),
        (lambda t, k: [("cat", "sat")], "it should be"),
    ],
    "block_input": [
        (lambda *a: joined(*a, first="h"), "is the hidden state first?"),
        (lambda *a: joined(*a, norm=lambda x, w: x), "where are the norms?"),
        (lambda *a: joined(*a, norm=lambda x, w: rms(x)), "norms' weights are missing"),
        (lambda h, e, hw, ew, W: joined(h, e, ew, hw, W), "two weights swapped"),
        (lambda h, e, hw, ew, W: rms(torch.cat([e, h], -1), torch.cat([ew, hw])) @ W.T, "one norm taken over both"),
        (lambda h, e, hw, ew, W: torch.cat([e, rms(h, hw)], -1) @ W.T, "the embedding has a norm too"),
        (lambda h, e, hw, ew, W: torch.cat([rms(e, ew), h], -1) @ W.T, "the hidden state has a norm too"),
        (lambda *a: joined(*a, norm=lambda x, w: F.layer_norm(x, x.shape[-1:], eps=1e-6) * w), "is that LayerNorm?"),
        (lambda *a: joined(*a, norm=lambda x, w: x / x.norm(dim=-1, keepdim=True) * w), "divided by the length"),
        (lambda *a: joined(*a, norm=lambda x, w: x / (x.pow(2).mean(-1, keepdim=True) + 1e-6) * w), "without the root"),
        (lambda *a: joined(*a, norm=lambda x, w: x / (x.pow(2).mean(0) + 1e-6).sqrt() * w), "mean taken over the rows"),
        (lambda h, e, hw, ew, W: (rms(e, ew) + rms(h, hw)) @ W[:, :6].T, "added instead of"),
        (lambda h, e, hw, ew, W: torch.cat([rms(e, ew), rms(h, hw)], -1), "brings them back to D"),
        (lambda h, e, hw, ew, W: torch.cat([rms(e, ew), rms(h, hw)], -1) @ W, "torch stores a matrix as [out, in]"),
    ],
    "loss_ahead": [
        (lambda d, t, w: loss(d, t, 1.0), "where is the weight?"),
        (lambda d, t, w: loss(d, t, w, mean=False), "divided by their number"),
        (lambda d, t, w: loss(d, t, w, rows=True), "divided by the T - k rows"),
        (lambda d, t, w: loss(d, t, w, shift=-1), "off by one"),
        (lambda d, t, w: loss(d, t, w, scale=3), "divided by T alone"),
        (lambda d, t, w: loss(d, t, w, scale=t.numel()), "Sums grow with the text"),
        (lambda d, t, w: loss(d[:1], t, w, scale=1 / len(d)), "only the first depth"),
        (lambda d, t, w: -loss(d, t, w), "the sign is turned"),
        (lambda d, t, w: sum(F.cross_entropy(x.flatten(0, 1), t[:, :x.shape[1]].flatten(), reduction="sum")
                             for x in d) * w / len(d) / t.numel(), "the first targets"),
        (lambda d, t, w: F.cross_entropy(d[0].flatten(0, 1), t.flatten()), "targets[:, k:]"),
        (lambda d, t, w: torch.stack([x.sum() for x in d] * 2), "one number is needed"),
        (lambda d, t, w: "0.3", "one number is needed"),
    ],
    "module_size": [
        (lambda c: size(c, projection=0), "11.5 B"),
        (lambda c: size(c, projection=1), "D × 2 D"),
        (lambda c: size(c, each=False), "how many modules"),
        (lambda c: size(c, norms=0), "own three norms missing"),
        (lambda c: size(c, norms=2), "there are three norms"),
        (lambda c: size(c, norms=1), "there are three norms"),
        (lambda c: size(c, kind="dense"), "is a dense layer counted?"),
        (lambda c: size(c, table=1), "is an embedding counted?"),
        (lambda c: size(c, table=2), "embedding and head counted"),
        (lambda c: size(c, norms=0, projection=0), "the layer alone"),
        (lambda c: accounting.count_parameters(c).mtp_active, "it should be 11,610,067,968"),
        (lambda c: size(c) + c.n_mtp_modules * (c.moe.n_routed_experts if c.moe else 0), "router's biases"),
    ],
    "chain_of_guesses": [
        (lambda m, ids: chain(m, ids, norm=False), "before the final norm"),
        (lambda m, ids: chain(m, ids, from_main=True), "depth 2 reads those of depth 1"),
        (lambda m, ids: chain(m, ids, late=True), "their *end* is dropped"),
        (lambda m, ids: chain(m, ids, again=True), "the final norm applied once more"),
        (lambda m, ids: chain(m, ids, module=lambda k: 1), "module 1 at every depth"),
        (lambda m, ids: chain(m, ids)[:1], "there are 3 modules"),
        (lambda m, ids: m.predict_ahead(m(ids).hidden, ids), "whole object"),
        (lambda m, ids: [a.hidden for a in m.predict_ahead(m(ids).hidden, ids)], "Those are hidden states"),
        (lambda m, ids: [m(ids).logits] * 3, "Depth k has T - k rows"),
        (lambda m, ids: chain(m, ids)[0], "a list of logits is needed"),
        (lambda m, ids: chain(m, ids, module=lambda k: k + 1), "Modules are numbered from 1"),
        (lambda m, ids: [m.predict_at_depth(1, m.final_norm(m(ids).hidden), ids[:, 1:]).logits], "T - k rows"),
    ],
}
RIGHT = {
    "tasks_at_depth": [
        lambda t, k: list(zip(t[k:-1], t[k + 1:])),
        lambda t, k: [[a, b] for a, b in zip(t[k:], t[k + 1:])],
    ],
    "block_input": [
        joined,
        lambda h, e, hw, ew, W: rms(e, ew) @ W[:, :6].T + rms(h, hw) @ W[:, 6:].T,
        lambda *a: joined(*(t.double() for t in a)),
    ],
    "loss_ahead": [
        loss,
        lambda d, t, w: loss(d, t, w).item(),
        lambda d, t, w: -w / len(d) / t.numel() * sum(
            x.log_softmax(-1).gather(-1, t[:, k:, None]).sum() for k, x in enumerate(d, 1)),
    ],
    "module_size": [
        lambda c: accounting.count_parameters(c).mtp,
        lambda c: sum(row.total for row in accounting.mtp_rows(c)),
        lambda c: float(size(c)),
    ],
    "chain_of_guesses": [
        lambda m, ids: tuple(a.logits for a in m.predict_ahead(m(ids).hidden, ids)),
    ],
}


def test_the_projection_alone_is_what_separates_11_61_from_11_5():
    from llm_core import presets
    v3 = presets.get("deepseek-v3")
    assert size(v3) == 11_610_067_968 and round(size(v3, projection=0) / 1e9, 1) == 11.5
