"""Known wrong answers to the exercises of the lesson "Training a GPT", and right ones that look different."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from llm_core import checks
from llm_core.checks import training as own
from tests.test_checks import verdict

NAMES = [name for name, home in checks._HOME.items() if home == "training"]
N = torch.arange


def right_shares(logits, targets, dim=-1):
    return logits.softmax(dim)[N(len(targets)), targets]


def loss(logits, targets):
    return F.cross_entropy(logits, targets)


def unsafe(logits, targets):
    return -(logits.exp() / logits.exp().sum(-1, keepdim=True))[N(len(targets)), targets].log().mean()


def adamw(**changes):
    return lambda *case: own._adamw(*case, **changes)


def corrected_moments(w, g, m, v, t, lr, beta1, beta2, *rest):
    w, m, v = own._adamw(w, g, m, v, t, lr, beta1, beta2, *rest)
    return w, m / (1 - beta1**t), v / (1 - beta2**t)


def rate(step, steps, warmup, highest, lowest, begin=None, end=None, angle=math.pi, low=None, clamp=True, up=1,
         shape=lambda angle: 0.5 * (1 + math.cos(angle))):
    if step < warmup and begin is None:
        return highest * (step + up) / warmup
    begin, end = warmup if begin is None else begin, steps if end is None else end
    progress = (step - begin) / (end - begin)
    low = lowest if low is None else low
    return low + (highest - low) * shape(angle * (min(1.0, progress) if clamp else progress))


def rate_with(**changes):
    return lambda *case: rate(*case, **changes)


def length(gradients):
    return math.sqrt(sum(g.square().sum().item() for g in gradients))


def scale(gradients, by):
    return [g / max(by, 1e-12) for g in gradients]


def clip(gradients, most):
    return scale(gradients, max(1.0, length(gradients) / most))


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "shifted_tasks": [
        (lambda ids: (ids[:, :-1], ids[:, :-1]), "its own answer"),
        (lambda ids: (ids[:, 1:], ids[:, :-1]), "swapped"),
        (lambda ids: (ids, ids.roll(-1, 1)), "Does roll bring the first"),
        (lambda ids: (ids, ids), "one shorter"),
        (lambda ids: (ids[:, :-1], ids[:, :-1].flip(1)), "the inputs are right"),
        (lambda ids: (ids[:, :-1].flip(1), ids[:, 1:]), "the targets are right"),
        (lambda ids: (ids[:, 1:].flip(1), ids[:, :-1].flip(1)), "all but the first"),
        (lambda ids: (ids[:-1], ids[1:]), "the result should be inputs"),
        (lambda ids: (ids[:, :4], ids[:, 1:5]) if len(ids) > 1 else (ids[:, :1], ids[:, :1]), "two tokens"),
        (lambda ids: ids[:, 1:], "2 results are needed"),
    ],
    "mean_loss": [
        (lambda x, y: -loss(x, y), "the sign is wrong"),
        (lambda x, y: F.cross_entropy(x, y, reduction="sum"), "the sum over the tasks"),
        (lambda x, y: loss(x, y) / x.shape[1], "number of logits"),
        (lambda x, y: loss(x, y) / math.log(2), "those are bits"),
        (lambda x, y: loss(x, y) / math.log(10), "log10"),
        (lambda x, y: -right_shares(x, y).mean().log(), "mean taken before the logarithm"),
        (lambda x, y: right_shares(x, y).mean(), "that is the mean share"),
        (lambda x, y: -right_shares(x, y).mean(), "minus the mean share"),
        (lambda x, y: -x[N(len(y)), y].mean(), "logits taken for shares"),
        (lambda x, y: -right_shares(x, y, 0).log().mean(), "dimension 0"),
        (lambda x, y: -x.softmax(-1).amax(-1).log().mean(), "best guess"),
        (lambda x, y: loss(x.softmax(-1), y), "applied twice"),
        (lambda x, y: -x.log_softmax(-1).mean(), "every column"),
        (unsafe, "too large for a number"),
        (lambda x, y: F.cross_entropy(x, y, reduction="none"), "one number"),
        (lambda x, y: x[y, N(len(y))].mean(), "column targets[n]"),
        (lambda x, y: loss(x, y) + 1, "it should be"),
    ],
    "adamw_step": [
        (adamw(correct=False), "bias correction is missing"),
        (adamw(late=1), "one too large"),
        (adamw(decoupled=False), "added to the gradient"),
        (adamw(scale_decay=False), "multiplied by lr"),
        (lambda *case: own._adamw(*case[:-1], 0.0), "where is the weight decay"),
        (adamw(sign=-1.0), "up the slope"),
        (adamw(root=False), "eps under the root"),
        (adamw(square=False), "gradient's square"),
        (lambda w, g, m, v, t, lr, b1, b2, *rest: own._adamw(w, g, m, v, t, lr, b2, b1, *rest), "betas swapped"),
        (corrected_moments, "corrected moments returned"),
        (lambda *case: own._adamw(*case)[0], "3 results are needed"),
        (lambda w, g, m, v, *rest: (w, m, v), "m is the first that differs"),
        (lambda *case: (lambda w, m, v: (w + 0.1, m, v))(*own._adamw(*case)), "w is the first that differs"),
        (lambda *case: (lambda w, m, v: (w, m, v + 0.1))(*own._adamw(*case)), "v is the first that differs"),
        (lambda w, g, m, v, t, lr, b1, b2, eps, decay: own._adamw(w, g, g * 0, g * 0, t, lr, b1, b2, eps, decay),
         "(step 2)"),
    ],
    "rate_at": [
        (rate_with(up=0), "at step 0 nothing would be learned"),
        (rate_with(begin=0), "cosine begin at step 0"),
        (rate_with(low=0.0), "cosine end at 0"),
        (rate_with(shape=lambda angle: 1 - angle / math.pi), "straight line down"),
        (rate_with(angle=180), "degrees"),
        (rate_with(angle=2 * math.pi), "whole turn"),
        (rate_with(angle=math.pi / 2, shape=math.cos), "quarter of a turn"),
        (rate_with(end=110), "divided by steps"),
        (lambda *case: rate(*case) if case[0] >= case[2] else case[3], "warm-up is missing"),
        (rate_with(clamp=False), "after the last step"),
        (lambda *case: torch.zeros(2), "one number"),
        (lambda *case: rate(*case) / 2, "it should be"),
    ],
    "bits_per_byte_of": [
        (lambda x, text: x.sum() / len(text.encode()), "nats a byte"),
        (lambda x, text: x.sum() * math.log(2) / len(text.encode()), "multiplied by ln 2"),
        (lambda x, text: x.sum() / math.log(2) / len(text), "counted in characters? The sign"),
        (lambda x, text: x.sum() / len(text), "characters, and the loss in nats"),
        (lambda x, text: x.mean() / math.log(2), "bits a token"),
        (lambda x, text: x.mean(), "mean loss a token"),
        (lambda x, text: x.mean() / math.log(2) / len(text.encode()), "mean of the losses"),
        (lambda x, text: x.sum() / math.log(2), "the whole text costs, in bits"),
        (lambda x, text: len(text.encode()) * math.log(2) / x.sum(), "upside down"),
        (lambda x, text: x / math.log(2) / len(text.encode()), "one number"),
        (lambda x, text: "2.1", "one number"),
        (lambda x, text: x.sum(), "it should be"),
    ],
    "clipped": [
        (lambda gs, most: gs, "nothing is scaled"),
        (lambda gs, most: [clip([g], most)[0] for g in gs], "clipped by itself"),
        (lambda gs, most: [g.clamp(-most, most) for g in gs], "single numbers"),
        (lambda gs, most: scale(gs, length(gs)**2), "root missing"),
        (lambda gs, most: scale(gs, max(g.abs().max().item() for g in gs)), "largest number"),
        (lambda gs, most: scale(gs, sum(g.abs().sum().item() for g in gs)), "sum of all sizes"),
        (lambda gs, most: scale(gs, sum(g.norm().item() for g in gs)), "three lengths added"),
        (lambda gs, most: clip(gs, 1.0), "may be as long as"),
        (lambda gs, most: scale(gs, length(gs) / most), "made longer"),
        (lambda gs, most: [g * torch.tensor(most / length(gs) if length(gs) else math.nan).clamp(max=1) for g in gs],
         "length 0"),
        (lambda gs, most: torch.cat([g.flatten() for g in gs]), "3 results are needed"),
        (lambda gs, most: [g.flatten() for g in clip(gs, most)], "the result should be"),
    ],
}

# Exercise -> right answers that look different from the lesson's solution.
RIGHT = {
    "shifted_tasks": [lambda ids: [ids[:, :-1].float(), ids[:, 1:].float()],
                      lambda ids: (ids.narrow(1, 0, ids.shape[1] - 1).clone(), ids.narrow(1, 1, ids.shape[1] - 1))],
    "mean_loss": [loss, lambda x, y: loss(x.double(), y).item(),
                  lambda x, y: (x.logsumexp(-1) - x[N(len(y)), y]).mean(),
                  lambda x, y: float(np.mean((x.logsumexp(-1) - x.gather(1, y[:, None])[:, 0]).numpy()))],
    "adamw_step": [adamw(), lambda *case: [part.double() for part in own._adamw(*case)]],
    "rate_at": [rate, lambda *case: torch.tensor(rate(*case))],
    "bits_per_byte_of": [lambda x, text: sum(x.tolist()) / math.log(2) / len(text.encode("utf-8")),
                         lambda x, text: (x / math.log(2)).sum() / len(text.encode())],
    "clipped": [clip, lambda gs, most: tuple(clip(gs, most)),
                lambda gs, most: [g * min(1.0, most / (length(gs) + 1e-6)) for g in gs]],
}


def test_gradients_may_be_clipped_in_place(capsys):
    def in_place(gradients, most):
        by = max(1.0, length(gradients) / most)
        for g in gradients:
            g /= by
        return gradients

    for _ in range(2):
        assert verdict("clipped", in_place, capsys).startswith("right: ")
