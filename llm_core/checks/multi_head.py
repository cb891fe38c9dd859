"""Checks of the lesson "Multi-head attention"."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core.attention.causal import causal_attention
from llm_core.checks.core import Wrong, check, compare, random, tensor


def _cut(x: Tensor, H: int) -> Tensor:
    B, T, D = x.shape
    return x.view(B, T, H, D // H).transpose(1, 2)


def _glue(x: Tensor) -> Tensor:
    B, H, T, d = x.shape
    return x.transpose(1, 2).reshape(B, T, H * d)


@check
def split_heads(function) -> str:
    """function(x [B, T, D], n_heads) -> [B, H, T, d]."""
    for B, T, H, d in ((2, 5, 3, 4), (1, 6, 2, 7)):
        x = random(B, T, H * d, seed=61)
        got = tensor(function, x, H, shape=(B, H, T, d), names="[B, H, T, d]", shape_hints={
            (B, T, H, d): "The heads are cut; now move H before T with transpose(1, 2).",
            (B, H, d, T): "Swap T and H; the width of a head stays last.",
            (B, d, T, H): "Is the last dimension cut into d pieces of H? It is H pieces of d: view(B, T, H, d).",
            (B, T, d, H): "Is the last dimension cut into d pieces of H? It is H pieces of d: view(B, T, H, d).",
            (H, B, T, d): "Put the batch first: [B, H, T, d].",
            (B * H, T, d): "Batch and heads are one dimension here; keep them apart."},
            hints={"is invalid for input of size": "B, T, H and d multiplied must give the numbers that x has: d is "
                                                   "D // H."})
        compare(got, _cut(x, H), [
            ("the shape fits, but tokens and heads are mixed: view(B, H, T, d) counts on through memory, where the "
             "numbers of one token stand together. Cut the last dimension first, then transpose",
             x.reshape(B, H, T, d)),
            ("does head h take every H-th column? It owns d columns that stand together: view(B, T, H, d)",
             x.view(B, T, d, H).permute(0, 3, 1, 2)),
            ("is T cut instead of the width? Turn only after the cut", x.transpose(1, 2).reshape(B, H, T, d)),
            ("are the heads in reverse order?", _cut(x, H).flip(1)),
            ("every head has the columns of head 0; head h begins at column h d", _cut(x, H)[:, :1].expand(B, H, T, d)),
        ])
    return "head h has the columns h d to h d + d - 1 of every token, and nothing of another"


@check
def head_writes(function) -> str:
    """function(outputs [H, T, d], W_o [H d, D]) -> [H, T, D]: what each head adds."""
    H, T, d, D = 3, 5, 4, 7
    outputs, W_o = random(H, T, d, seed=62), random(H * d, D, seed=63)
    rows = W_o.view(H, d, D)
    got = tensor(function, outputs, W_o, shape=(H, T, D), names="[H, T, D]", shape_hints={
        (T, D): "That is the sum over the heads; what each of them adds is wanted.",
        (T, H, D): "Put the heads first: [H, T, D].",
        (T, H * d): "Those are the results side by side; now project, each head with its own rows of W_o."},
        hints={"shapes cannot be multiplied": "A head's result is d wide, so it meets d rows of W_o and not all.",
               "size of tensor": "A head's result is d wide, so it meets d rows of W_o and not all.",
               "Expected size": "A head's result is d wide, so it meets d rows of W_o and not all."})
    compare(got, torch.stack([F.pad(out, (h * d, (H - 1 - h) * d)) @ W_o for h, out in enumerate(outputs)]), [
        ("does every head use the rows of head 0? Head h owns the rows h d to h d + d - 1", outputs @ rows[:1]),
        ("does head h take every H-th row? Its d rows stand together: W_o.view(H, d, D)",
         outputs @ W_o.view(d, H, D).transpose(0, 1)),
        ("are the rows in the order of the last head first?", outputs @ rows.flip(0)),
        ("does head h start at row h? It starts at row h d",
         torch.stack([outputs[h] @ W_o[h:h + d] for h in range(H)])),
        ("every head writes the sum of all; each should write its own part",
         (outputs @ rows).sum(0).expand(H, T, D)),
        ("each part is divided by the number of heads; the parts should sum to the layer's output, not average",
         outputs @ rows / H),
    ])
    one = tensor(function, outputs[:1, :2], W_o[:d], shape=(1, 2, D), names="[H, T, D]")
    compare(one, outputs[:1, :2] @ W_o[:d], [])
    return "the parts sum to what joining and projecting gives, and each is what one head adds alone"


def _layer(x, W_qkv, W_o, H, *, cut=_cut, glue=_glue, scale=None, hidden=True, order=(0, 1, 2)) -> Tensor:
    """Wrong in one way or in none, with explicit shares."""
    thirds = W_qkv.chunk(3, dim=1)
    q, k, v = (cut(x @ thirds[i], H) for i in order)
    scores = q @ k.transpose(-2, -1) * (q.shape[-1]**-0.5 if scale is None else scale)
    if hidden:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
    return glue(scores.softmax(-1) @ v) @ W_o


def _cut_wrong(x: Tensor, H: int) -> Tensor:
    return x.reshape(x.shape[0], H, x.shape[1], x.shape[2] // H)


def _glue_wrong(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], x.shape[2], -1)


def _cut_rows(x: Tensor, H: int) -> Tensor:
    """Every H-th column to a head."""
    return x.view(*x.shape[:2], -1, H).permute(0, 3, 1, 2)


@check
def fused_multi_head(function) -> str:
    """function(x [B, T, D], W_qkv [D, 3 D], W_o [D, D], n_heads) -> [B, T, D], causal."""
    B, T, H, d = 2, 5, 3, 4
    D = H * d
    x, W_qkv, W_o = random(B, T, D, seed=64), random(D, 3 * D, seed=65) / 2, random(D, D, seed=66) / 2
    got = tensor(function, x, W_qkv, W_o, H, shape=(B, T, D), names="[B, T, D]", shape_hints={
        (B, H, T, d): "The heads must be glued and projected: transpose, reshape to [B, T, D], then @ W_o.",
        (B, H, T, T): "Those are the shares; multiply them with the values.",
        (T, D): "Is only one text of the batch used?"},
        hints={"view size is not compatible": "After transpose the numbers no longer lie in that order: use reshape.",
               "is invalid for input of size": "Which sizes are multiplied? B T D numbers become B T H d.",
               "must match the size": "Turn k by its last two dimensions: k.transpose(-2, -1).",
               "Expected size": "Turn k by its last two dimensions: k.transpose(-2, -1)."})
    q, k, v = (_cut(t, H) for t in (x @ W_qkv).chunk(3, dim=-1))
    truth = _glue(causal_attention(q, k, v, d**-0.5)) @ W_o

    def with_(**wrong) -> Tensor:
        return _layer(x, W_qkv, W_o, H, **wrong)

    compare(got, truth, [
        ("is the mask on? The first token sees only itself, and yours looks ahead", with_(hidden=False)),
        ("is the scale applied? Scores are divided by the root of d", with_(scale=1.0)),
        ("which width is under the root? That of one head, d = D / H, and not D", with_(scale=D**-0.5)),
        ("are the scores divided by d? It should be its root", with_(scale=1 / d)),
        ("the cut mixes tokens with heads: view(B, T, H, d), then transpose(1, 2); not view(B, H, T, d)",
         with_(cut=_cut_wrong)),
        ("the cut is right, and at the end tokens and heads are mixed: transpose(1, 2) comes before reshape",
         with_(glue=_glue_wrong)),
        ("cut and glue both lack their transpose. The two errors hide each other from most tests, but the heads are "
         "now stretches of the text", with_(cut=_cut_wrong, glue=_glue_wrong)),
        ("does head h take every H-th column? It owns d columns that stand together", with_(cut=_cut_rows)),
        ("where is the output projection?", _layer(x, W_qkv, torch.eye(D), H)),
        ("is W_o turned? It is used as joined @ W_o", _layer(x, W_qkv, W_o.T, H)),
        ("is this one head as wide as the model? There should be n_heads of them", _layer(x, W_qkv, W_o, 1)),
        ("are queries and keys swapped? The order in W_qkv is queries, keys, values", with_(order=(1, 0, 2))),
        ("is the order values, keys, queries? In W_qkv it is queries, keys, values", with_(order=(2, 1, 0))),
        ("are keys and values swapped? The order in W_qkv is queries, keys, values", with_(order=(0, 2, 1))),
        ("where does anyone look at anyone? These are the values, projected", (x @ W_qkv.chunk(3, 1)[2]) @ W_o),
    ], nan="Is a whole row hidden by the mask?")
    one = tensor(function, x[:1, :4], W_qkv, W_o, 2, shape=(1, 4, D), names="[B, T, D]")
    compare(one, _layer(x[:1, :4], W_qkv, W_o, 2), [])
    return "equal to llm_core's fused kernel with 3 heads and with 2, and no token looks ahead"


@check
def induction_score(function) -> str:
    """function(shares [..., 2 N, 2 N]) -> [...]: how much the second half looks at what followed the twin."""
    N = 6
    shares = random(2, 3, 2 * N, 2 * N, seed=67).masked_fill(torch.ones(2 * N, 2 * N).triu(1).bool(), -torch.inf)
    shares = (2 * shares).softmax(-1)
    got = tensor(function, shares, shape=(2, 3), names="[...], one number a head", shape_hints={
        (2, 3, N): "That is one number for each token; the mean over them is wanted.",
        (2, 3, 2 * N): "That is one number for each token; the mean over those of the second half is wanted.",
        (): "That is one number for all heads; one for each is wanted.",
        (2, N): "The shares of a head are its last two dimensions; pick from those: shares[..., rows, columns].",
        (2, 3, N, N): "Two slices pick a square, rows x columns. Pick one column for each row."},
        hints={"out of bounds": "Rows go from N to 2 N - 1, and columns from 1 to N."})
    rows = torch.arange(N, 2 * N)

    def back(n: int, rows: Tensor = rows) -> Tensor:
        return shares[..., rows, rows - n].mean(-1)

    truth = torch.stack([shares[..., N + i, i + 1] for i in range(N)]).mean(0)
    compare(got, truth, [
        ("this is the share that goes to the twin itself. What came after it is wanted, one column to the right",
         back(N)),
        ("this is the token before the twin. What came after it is wanted: t - N + 1", back(N + 1, rows[1:])),
        ("this is the previous-token score", shares.diagonal(-1, -2, -1).mean(-1)),
        ("this is the previous-token score, of the second half", back(1)),
        ("the shares are summed; their mean is wanted", truth * N),
        ("is the mean taken over all 2 N tokens? Only the N of the second half count", truth / 2),
        ("the first token of the second half counts too: its twin is token 0, and after that comes token 1",
         back(N - 1, rows[1:])),
        ("the last token counts too: what came after its twin is token N", back(N - 1, rows[:-1])),
        ("are rows and columns swapped? Row t looks: shares[..., t, t - N + 1]",
         shares[..., rows - N + 1, rows].mean(-1)),
        ("only the token that the head looks at most counts here; the mean share is wanted",
         (shares[..., N:, :].argmax(-1) == rows - N + 1).float().mean(-1)),
    ])
    stripe = torch.zeros(1, 8, 8)
    stripe[0, torch.arange(4, 8), torch.arange(1, 5)] = 1
    got = tensor(function, stripe, shape=(1,), names="[...], one number a head")
    compare(got, torch.ones(1), [])
    return "1 for a head that always looks at what followed the twin, and about 1 / t for one that looks everywhere"


_TEXTS = ([3, 1, 4, 0, 5, 3, 1, 4, 0, 5], [2, 0, 2, 1, 2, 0, 4, 2], [1, 3, 5, 3, 1], [6, 6, 6, 2, 6])


@check
def induction_by_hand(function) -> str:
    """function(ids [T], V) -> [T, V]: after a token that occurred before, the tokens that followed it then."""
    V = 7
    for text in _TEXTS:
        ids = torch.tensor(text)
        T = len(text)
        got = tensor(function, ids, V, shape=(T, V), names="[T, V]", shape_hints={
            (T, T): "Those are shares or scores; multiply the shares with the one-hot rows.",
            (T,): "A row of V numbers for each token is wanted, not an id.",
            (V, T): "The result is turned: a row should be a token of the text."},
            hints={"expected m1 and m2 to have the same dtype": "F.one_hot gives whole numbers; make them .float().",
                   "same dtype": "F.one_hot gives whole numbers; make them .float().",
                   "not implemented for 'Long'": "F.one_hot gives whole numbers; make them .float()."})
        for t in range(1, T):
            followed = [text[s] for s in range(1, t + 1) if text[s - 1] == text[t]]
            if not followed:
                continue
            wanted = F.one_hot(torch.tensor(followed), V).float().mean(0)  # in equal parts, one for each occurrence
            if not got[t].isfinite().all():
                raise Wrong("a row holds NaN or infinity. Is a whole row of scores minus infinity?")
            if (got[t] - wanted).abs().max() > 0.1:
                raise Wrong(_why(got, t, text, wanted))
    return "each token that occurred before guesses what followed it then, in four texts, without any training"


def _why(got: Tensor, t: int, text: list[int], wanted: Tensor) -> str:
    row, token = got[t], F.one_hot(torch.tensor(text), len(wanted)).float()
    where = f"in the text {text}, after token number {t} (id {text[t]})"
    needed = " and ".join(str(i) for i in wanted.nonzero().flatten().tolist())
    if row[text[t - 1]] > 0.9:
        return f"{where} your guess is the token before it. That is the first head; the second is missing"
    if row[[text[s - 1] for s in range(1, t + 1) if text[s] == text[t]]].sum() > 0.9 * row.sum() > 0.3:
        return f"{where} your guess is what came before such tokens, not after them: the keys move, not the values"
    if not math.isclose(row.sum().item(), 1.0, abs_tol=0.02):
        return (f"{where} your row sums to {row.sum().item():.2f}. A mixture of one-hot rows sums to 1: is there a "
                "softmax?")
    if t + 1 < len(text) and row[text[t + 1]] > 0.9:
        return f"{where} your guess is the token that really comes next: can it be seen? The mask should hide it"
    if row[text[t]] > 0.9:
        return (f"{where} your guess is the token itself. Is the query compared with what a token is? It should be "
                "compared with what came before it; or are the values taken one place too early?")
    if (row - token[:t + 1].mean(0)).abs().max() < 0.05 or (row - token.mean(0)).abs().max() < 0.05:
        return f"{where} your row is the mean of all tokens: do the scores depend on who asks?"
    if row[wanted > 0].sum() > wanted[wanted > 0].sum() / len(text) and row.argmax() in wanted.nonzero():
        return (f"{where} your guess is {needed}, as it should be, but with {row[wanted > 0].sum().item():.2f} of the "
                "whole: too soft. What makes a softmax sharper?")
    return f"{where} the guess should be {needed}, and your largest share is on {int(row.argmax())}"
