"""Checks of the lesson on causal attention: wrong answers get their own hint, right ones may be written otherwise."""

import torch
import torch.nn.functional as F


def future(scores, diagonal=1):
    return torch.ones_like(scores).triu(diagonal).bool()


def hide(scores, by=-torch.inf, diagonal=1):
    return scores.masked_fill(future(scores, diagonal), by)


def renormalised(scores):
    shares = hide(scores.softmax(-1), 0)
    return shares / shares.sum(-1, keepdim=True)


def drop(shares, p, kept, training):
    return shares * kept / (1 - p) if training else shares


def real(lengths, T):
    return (torch.arange(T) >= T - lengths[:, None])[:, None, :]


def triangle(new, total=None, diagonal=0):
    return torch.ones(new, total or new).tril(diagonal).bool()


def padded(lengths, T):
    return (triangle(T) & real(lengths, T)) | torch.eye(T).bool()


def by_gradient(attend, T=5, at_least=1e-5):
    felt = torch.autograd.functional.jacobian(attend, torch.randn(T, 8)).abs().amax((1, 3))
    return bool((felt[future(felt)] > at_least).any())


def by_change(attend, T=7, places=None, rows=None, size=1.0, at_least=1e-5):
    x = torch.randn(T, 8)
    for s in places or range(1, T):
        changed = x.clone()
        changed[s] += size
        moved = (attend(changed) - attend(x))[:s].abs()
        if (moved if rows is None else moved[rows:]).max() > at_least:
            return True
    return False


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "causal_shares": [
        (lambda s: s.softmax(-1), "is the mask on?"),
        (lambda s: hide(s.softmax(-1), 0), "the mask comes after the softmax"),
        (renormalised, "renormalised"),
        (lambda s: (s - 1e2 * future(s)).softmax(-1), "not low enough"),
        (lambda s: hide(s, 0).softmax(-1), "e to the 0 is 1"),
        (lambda s: (s + future(s)).softmax(-1), "added as 1"),
        (lambda s: (s - future(s).float()).softmax(-1), "subtracted as 1"),
        (lambda s: s.masked_fill(future(s).mT, -torch.inf).softmax(-1), "wrong way round"),
        (lambda s: s.masked_fill(~future(s), -torch.inf).softmax(-1), "wrong way round"),
        (lambda s: hide(s, diagonal=0).softmax(-1), "hide the diagonal too"),
        (lambda s: hide(s, diagonal=2).softmax(-1), "one too many"),
        (lambda s: hide(s).softmax(-2), "which dimension"),
        (lambda s: hide(s), "where is the softmax"),
        (lambda s: hide(s, 0), "where is the softmax"),
        (lambda s: (hide(s) / 5**0.5).softmax(-1), "scaled again"),
        (lambda s: hide(s[0, 0]).softmax(-1), "of all of them are wanted"),
        (lambda s: s.masked_fill(torch.ones(5, 5).triu(1), -torch.inf).softmax(-1), ".bool()"),
        (lambda s: s.masked_fill(torch.ones(2, 2).bool(), 0), "One mask [T, T] serves"),
    ],
    "mask_for_new_tokens": [
        (lambda n, t: triangle(n, t), "starts at the top left"),
        (lambda n, t: ~triangle(n, t, t - n), "may NOT look"),
        (lambda n, t: torch.ones(n, t).bool(), "every new token sees everything"),
        (lambda n, t: triangle(n, t, t - n - 1), "not see itself"),
        (lambda n, t: triangle(n, t, t - n + 1), "one too many"),
        (lambda n, t: torch.ones(n, t).triu(t - n).bool(), "wrong way round"),
        (lambda n, t: torch.cat([torch.zeros(n, t - n), torch.ones(n, n).tril()], 1), "the cached ones not at all"),
        (lambda n, t: triangle(t), "for the new tokens alone"),
        (lambda n, t: triangle(n), "The cached tokens are missing"),
        (lambda n, t: triangle(n, t, t - n).T, "A row is a new token"),
        (lambda n, t: torch.zeros(n, t).masked_fill(~triangle(n, t, t - n), -torch.inf), "booleans are wanted"),
        (lambda n, t: triangle(n, t, t - n) * 2, "booleans are wanted"),
    ],
    "drop_shares": [
        (lambda s, p, kept, training: s * kept if training else s, "not made larger"),
        (lambda s, p, kept, training: s * kept * (1 - p) if training else s, "multiplied by 1 - p"),
        (lambda s, p, kept, training: s * kept / p if training else s, "divided by p?"),
        (lambda s, p, kept, training: s * ~kept / (1 - p) if training else s, "the others kept"),
        (lambda s, p, kept, training: s * ~kept / p if training else s, "the others kept"),
        (lambda s, p, kept, training: s * kept / (s * kept).sum(-1, keepdim=True) if training else s, "sum to 1 again"),
        (lambda s, p, kept, training: s * kept / kept.float().mean() if training else s, "kept in this throw"),
        (lambda s, p, kept, training: drop(s, p, kept, not training), "the wrong way round"),
        (lambda s, p, kept, training: drop(s, p, kept, True), "In use nothing is dropped"),
        (lambda s, p, kept, training: drop(s, p, kept, True) if training else s / (1 - p), "nothing is divided"),
        (lambda s, p, kept, training: drop(s, p, kept, True) if training else s * (1 - p), "nothing is multiplied"),
        (lambda s, p, kept, training: s * kept / 0.8 if training else s, "p differs from call to call"),
        (lambda s, p, kept, training: s[kept] / (1 - p), "the shape should stay"),
        (lambda s, p, kept, training: F.dropout(s, p, training), "numbers do not"),
        (lambda s, p, kept, training: drop(s, p, kept, training) * p / p, "With p = 0"),
    ],
    "may_look_past_padding": [
        (lambda n, T: ~padded(n, T), "may NOT look"),
        (lambda n, T: (triangle(T) & ~real(T - n, T)) | torch.eye(T).bool(), "behind the text?"),
        (lambda n, T: triangle(T) & ~real(T - n, T), "behind the text?"),
        (lambda n, T: triangle(T) & real(n, T), "sees nothing at all"),
        (lambda n, T: real(n, T) | torch.eye(T).bool(), "where is the triangle"),
        (lambda n, T: real(n, T).expand(-1, T, T), "where is the triangle"),
        (lambda n, T: triangle(T).expand(len(n), T, T), "and the padding is not"),
        (lambda n, T: (triangle(T) & real(n, T)) | (triangle(T) & ~real(n, T).mT), "the padding before them"),
        (lambda n, T: (triangle(T) & real(n, T).mT) | torch.eye(T).bool(), "Its columns should be"),
        (lambda n, T: (triangle(T) & real(n, T)) | ~real(n, T).mT, "themselves alone is enough"),
        (lambda n, T: padded(T - n, T), "number of padding places"),
        (lambda n, T: real(n, T)[:, 0], "which row may look at which column"),
        (lambda n, T: triangle(T), "a mask of its own"),
        (lambda n, T: torch.arange(T) < n, "lengths[:, None]"),
        (lambda n, T: padded(n, T) * 3, "booleans are wanted"),
    ],
    "leaks": [
        (lambda attend: False, "attention without a mask"),
        (lambda attend: True, "attention with the right mask"),
        (lambda attend: by_change(attend, places=[6]), "only the first row sees one token too many"),
        (lambda attend: by_change(attend, rows=-1), "only the first row sees the last token"),
        (lambda attend: by_change(attend, at_least=0.05), "It is a small leak"),
        (lambda attend: by_change(attend, at_least=0.0), "Is rounding taken for a leak"),
        (lambda attend: by_gradient(attend, at_least=0.0), "right but for rounding"),
        (lambda attend: bool(attend(torch.randn(5, 8)).abs().max() > 0), "Nothing leaks there"),
        (lambda attend: "yes", "True or False is needed"),
        (lambda attend: attend(torch.randn(5, 8)), "True or False is needed"),
        (lambda attend: torch.autograd.grad(attend(torch.randn(5, 8))[0].sum(), torch.randn(5, 8)), "requires_grad_()"),
        (lambda attend: attend(torch.randn(5, 8), 1), "your function stopped"),
    ],
}


RIGHT = {
    "causal_shares": [
        lambda s: hide(s, -1e9).softmax(-1),
        lambda s: (s + torch.full(s.shape[-2:], -torch.inf).triu(1)).softmax(-1),
        lambda s: hide(s.double()).softmax(-1),
    ],
    "mask_for_new_tokens": [
        lambda n, t: triangle(t)[t - n:],
        lambda n, t: triangle(n, t, t - n).int(),
    ],
    "drop_shares": [
        lambda s, p, kept, training: torch.where(kept, s / (1 - p), 0) if training else s,
        lambda s, p, kept, training: s.double().masked_fill(~kept, 0) / (1 - p) if training else s,
    ],
    "may_look_past_padding": [
        padded,
        lambda n, T: torch.stack([
        torch.tensor([[s == t or T - m <= s <= t for s in range(T)] for t in range(T)]) for m in n.tolist()]),
        lambda n, T: padded(n, T).float(),
    ],
    "leaks": [
        by_gradient,
        by_change,
        lambda attend: by_change(attend, T=3, size=0.5),
        lambda attend: by_gradient(attend, T=20),
        lambda attend: torch.tensor(by_gradient(attend)),
        lambda attend: int(by_change(attend)),
    ],
}
