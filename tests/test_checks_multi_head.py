"""Checks of the lesson on multi-head attention: wrong answers get a hint, and right ones may be written otherwise."""

import math

import torch
import torch.nn.functional as F


def cut(x, H):
    return x.view(*x.shape[:2], H, -1).transpose(1, 2)


def cut_wrong(x, H):
    return x.reshape(len(x), H, x.shape[1], -1)


def every_third(x, H):
    return x.view(*x.shape[:2], -1, H).permute(0, 3, 1, 2)


def glue(x):
    return x.transpose(1, 2).flatten(2)


def glue_wrong(x):
    return x.reshape(len(x), x.shape[2], -1)


def layer(x, W, o, H, cut=cut, glue=glue, scale=None, causal=True, order=(0, 1, 2), project=True):
    thirds = (x @ W).chunk(3, -1)
    q, k, v = (cut(thirds[i], H) for i in order)
    out = glue(F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale))
    return out @ o if project else out


def diagonal(shares, back, first=None, last=None):
    N = shares.shape[-1] // 2
    rows = torch.arange(2 * N)[N if first is None else first:last]
    return shares[..., rows, rows - back(N)].mean(-1)


def after(n):
    return n - 1


def circuit(ids, V, factor=20.0, query="token", key="before", value="token", mask=True, softmax=True):
    T = len(ids)
    token = F.one_hot(ids, V).float()
    vectors = {"token": token, "before": torch.diag(torch.ones(T - 1), -1) @ token}
    scores = factor * vectors[query] @ vectors[key].T
    if mask:
        scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf)
    return (scores.softmax(-1) if softmax else scores.nan_to_num(neginf=0.0)) @ vectors[value]


def rows_of(W_o, H):
    return W_o.view(H, -1, W_o.shape[1])


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "split_heads": [
        (cut_wrong, "tokens and heads are mixed"),
        (every_third, "every H-th column"),
        (lambda x, H: x.transpose(1, 2).reshape(len(x), H, x.shape[1], -1), "Turn only after the cut"),
        (lambda x, H: cut(x, H).flip(1), "reverse order"),
        (lambda x, H: cut(x, H)[:, :1].expand(-1, H, -1, -1), "columns of head 0"),
        (lambda x, H: x.view(*x.shape[:2], H, -1), "move H before T"),
        (lambda x, H: cut(x, H).transpose(2, 3), "width of a head stays last"),
        (lambda x, H: x.view(*x.shape[:2], -1, H).transpose(1, 2), "H pieces of d"),
        (lambda x, H: x.view(*x.shape[:2], -1, H), "H pieces of d"),
        (lambda x, H: cut(x, H).transpose(0, 1), "the batch first"),
        (lambda x, H: cut(x, H).flatten(0, 1), "keep them apart"),
        (lambda x, H: x.view(2, 5, H, H), "d is D // H"),
        (lambda x, H: cut(x, H) * 2, "numbers do not"),
    ],
    "head_writes": [
        (lambda out, o: out @ rows_of(o, len(out))[:1], "rows of head 0"),
        (lambda out, o: out @ o.view(out.shape[-1], len(out), -1).transpose(0, 1), "every H-th row"),
        (lambda out, o: out @ rows_of(o, len(out)).flip(0), "last head first"),
        (lambda out, o: torch.stack([out[h] @ o[h:h + out.shape[-1]] for h in range(len(out))]), "starts at row h d"),
        (lambda out, o: (out @ rows_of(o, len(out))).sum(0).expand(len(out), -1, -1), "its own part"),
        (lambda out, o: out @ rows_of(o, len(out)) / len(out), "not average"),
        (lambda out, o: (out @ rows_of(o, len(out))).sum(0), "the sum over the heads"),
        (lambda out, o: (out @ rows_of(o, len(out))).transpose(0, 1), "the heads first"),
        (lambda out, o: out.transpose(0, 1).flatten(1), "now project"),
        (lambda out, o: out @ o, "meets d rows"),
        (lambda out, o: (out @ rows_of(o, len(out))).abs(), "numbers do not"),
    ],
    "fused_multi_head": [
        (lambda *a: layer(*a, causal=False), "is the mask on"),
        (lambda *a: layer(*a, scale=1.0), "is the scale applied"),
        (lambda *a: layer(*a, scale=12**-0.5), "That of one head"),
        (lambda *a: layer(*a, scale=0.25), "divided by d?"),
        (lambda *a: layer(*a, cut=cut_wrong), "the cut mixes"),
        (lambda *a: layer(*a, glue=glue_wrong), "comes before reshape"),
        (lambda *a: layer(*a, cut=cut_wrong, glue=glue_wrong), "hide each other"),
        (lambda *a: layer(*a, cut=every_third), "every H-th column"),
        (lambda *a: layer(*a, project=False), "where is the output projection"),
        (lambda x, W, o, H: layer(x, W, o.T, H), "is W_o turned"),
        (lambda x, W, o, H: layer(x, W, o, 1), "as wide as the model"),
        (lambda *a: layer(*a, order=(1, 0, 2)), "queries and keys swapped"),
        (lambda *a: layer(*a, order=(2, 1, 0)), "values, keys, queries"),
        (lambda *a: layer(*a, order=(0, 2, 1)), "keys and values swapped"),
        (lambda x, W, o, H: x @ W[:, 24:] @ o, "where does anyone look"),
        (lambda x, W, o, H: cut(x, H), "glued and projected"),
        (lambda x, W, o, H: (cut(x, H) @ cut(x, H).transpose(-2, -1)), "Those are the shares"),
        (lambda x, W, o, H: layer(x, W, o, H)[0], "only one text"),
        (lambda x, W, o, H: cut(x, H).transpose(1, 2).transpose(1, 2).view(2, 5, 12), "use reshape"),
        (lambda x, W, o, H: x.view(2, 5, H, H), "Which sizes"),
        (lambda x, W, o, H: cut(x, H) @ cut(x, H), "Turn k"),
        (lambda x, W, o, H: layer(x, W, o, 3), "numbers do not"),  # right with 3 heads: the second case sees it
    ],
    "induction_score": [
        (lambda s: diagonal(s, lambda N: N), "the twin itself"),
        (lambda s: diagonal(s, lambda N: N + 1, first=7), "before the twin"),
        (lambda s: s.diagonal(-1, -2, -1).mean(-1), "this is the previous-token score"),
        (lambda s: diagonal(s, lambda N: 1), "previous-token score, of the second half"),
        (lambda s: diagonal(s, after) * 6, "their mean"),
        (lambda s: diagonal(s, after) / 2, "all 2 N"),
        (lambda s: diagonal(s, after, first=7), "the first token of the second half counts"),
        (lambda s: diagonal(s, after, last=-1), "the last token counts too"),
        (lambda s: diagonal(s.transpose(-2, -1), after), "rows and columns"),
        (lambda s: (s[..., 6:, :].argmax(-1) == torch.arange(1, 7)).float().mean(-1), "mean share"),
        (lambda s: s[..., torch.arange(6, 12), torch.arange(1, 7)], "the mean over them"),
        (lambda s: s.sum(-1), "those of the second half"),
        (lambda s: s.mean(), "for all heads"),
        (lambda s: s[:, 0, :6, 0], "last two dimensions"),
        (lambda s: s[..., 6:, 1:7], "Two slices pick a square"),
        (lambda s: s[..., torch.arange(6, 12), torch.arange(7, 13)], "Rows go from N"),
        (lambda s: diagonal(s, after) + 0.5, "numbers do not"),
    ],
    "induction_by_hand": [
        (lambda ids, V: circuit(ids, V, key="token"), "your guess is the token itself"),
        (lambda ids, V: circuit(ids, V, value="before"), "the token itself"),
        (lambda ids, V: circuit(ids, V, factor=2.0), "too soft"),
        (lambda ids, V: circuit(ids, V, factor=0.0), "depend on who asks"),
        (lambda ids, V: circuit(ids, V, factor=0.0, mask=False), "depend on who asks"),
        (lambda ids, V: torch.diag(torch.ones(len(ids) - 1), -1) @ F.one_hot(ids, V).float(), "That is the first head"),
        (lambda ids, V: F.one_hot(ids.roll(-1), V).float(), "The mask should hide it"),
        (lambda ids, V: circuit(ids, V, softmax=False), "is there a softmax"),
        (lambda ids, V: circuit(ids, V, key="token", value="before"), "the keys move, not the values"),
        (lambda ids, V: circuit(ids, V) * torch.nan, "NaN or infinity"),
        (lambda ids, V: circuit(ids, V).T, "turned"),
        (lambda ids, V: circuit(ids, V).argmax(-1), "not an id"),
        (lambda ids, V: torch.eye(len(ids)), "multiply the shares"),
        (lambda ids, V: torch.ones(len(ids), len(ids)) @ F.one_hot(ids, V), "make them .float()"),
        (lambda ids, V: circuit(ids, V, mask=False), "guess"),
        (lambda ids, V: F.one_hot(torch.zeros_like(ids) + V - 1, V).float(), "your largest share is on"),
    ],
}


def slowly(x, W, o, H):
    """Head by head, token by token, in 64 bits."""
    B, T, D = x.shape
    d, rows = D // H, []
    q, k, v = (x.double() @ W.double()).chunk(3, -1)
    for t in range(T):
        heads = [slice(h * d, h * d + d) for h in range(H)]
        shares = [(q[:, t:t + 1, h] @ k[:, :t + 1, h].mT / math.sqrt(d)).softmax(-1) for h in heads]
        rows.append(torch.cat([s @ v[:, :t + 1, h] for s, h in zip(shares, heads)], -1))
    return torch.cat(rows, 1) @ o.double()


def searched(ids, V):
    """The rule itself, without attention: rows of new tokens stay zero."""
    out, text = torch.zeros(len(ids), V), ids.tolist()
    for t, token in enumerate(text):
        for s in range(t):
            out[t, text[s + 1]] += text[s] == token
    return out / out.sum(-1, keepdim=True).clamp(min=1)


RIGHT = {
    "split_heads": [
        lambda x, H: torch.stack(x.chunk(H, -1), 1),
        lambda x, H: x.unflatten(-1, (H, -1)).permute(0, 2, 1, 3).double(),
        lambda x, H: x.reshape(*x.shape[:2], H, x.shape[2] // H).swapaxes(1, 2).contiguous(),
    ],
    "head_writes": [
        lambda out, o: torch.stack([a @ b for a, b in zip(out, o.chunk(len(out)))]),
        lambda out, o: torch.einsum("htd,hde->hte", out.double(), o.double().unflatten(0, (len(out), -1))),
        lambda out, o: torch.bmm(out, o.reshape(len(out), out.shape[2], -1)),
    ],
    "fused_multi_head": [
        slowly,
        layer,
        lambda x, W, o, H: layer(x.double(), W.double(), o.double(), H),
    ],
    "induction_score": [
        lambda s: s.diagonal(1 - s.shape[-1] // 2, -2, -1)[..., 1:].mean(-1),
        lambda s: torch.stack([s[..., 6 + i, 1 + i] for i in range(6)]).mean(0) if s.shape[-1] == 12
     else s[..., range(4, 8), range(1, 5)].sum(-1) / 4,
    ],
    "induction_by_hand": [
        circuit,
        lambda ids, V: circuit(ids, V, factor=8.0),
        searched,
        lambda ids, V: circuit(ids, V, factor=50.0).double(),
    ],
}
