"""Checks of the lesson "Causal attention"."""

from __future__ import annotations

import torch
from torch import Tensor

from llm_core.attention.causal import attention_shares, causal_mask
from llm_core.checks.core import Wrong, attempt, check, compare, random, same, tensor


@check
def causal_shares(function) -> str:
    """function(scores [..., T, T]) -> causal shares [..., T, T]."""
    T = 5
    scores = random(2, 3, T, T, seed=21)
    expected = {
        "names": "[..., T, T]",
        "hints": {"must match the size": "One mask [T, T] serves all that stands before in the shape.",
                  "expected to be Bool": "masked_fill wants a mask of booleans: .bool().",
                  "only supports boolean": "masked_fill wants a mask of booleans: .bool()."},
        "shape_hints": {(T, T): "Scores of several heads come in, and the shares of all of them are wanted."},
    }
    got = tensor(function, scores, shape=(2, 3, T, T), **expected)
    future = torch.ones(T, T).triu(diagonal=1).bool()

    def hide(hidden: Tensor, by: float = -torch.inf) -> Tensor:
        return scores.masked_fill(hidden, by)

    after = scores.softmax(-1).masked_fill(future, 0)
    around = "is the mask the wrong way round? Hidden is what comes later, above the diagonal"
    compare(got, attention_shares(scores, torch.eye(T).expand(2, 3, T, T), 1.0), [
        ("is the mask on? Token 0 looks at all the others", scores.softmax(-1)),
        ("the mask comes after the softmax: the rows no longer sum to 1, and what is missing tells of the future",
         after),
        ("hidden scores are 0, and e to the 0 is 1, a share like others: -inf is needed", hide(future, 0).softmax(-1)),
        ("hidden scores are 0, and e to the 0 is 1: is the mask multiplied? -inf is needed",
         (scores * ~future).softmax(-1)),
        ("is the mask added as 1, where minus infinity should be added?", (scores + future).softmax(-1)),
        ("is the mask subtracted as 1? One less is still a share: -inf is needed",
         (scores - future.float()).softmax(-1)),
        (around, hide(future.T).softmax(-1)),
        (around, hide(~future).softmax(-1)),
        ("does the mask hide the diagonal too? A token sees itself", hide(torch.ones(T, T).triu().bool()).softmax(-1)),
        ("does each token see one too many? The diagonal is the last that is seen",
         hide(torch.ones(T, T).triu(2).bool()).softmax(-1)),
        ("which dimension does the softmax run over? The last: each row sums to 1", hide(future).softmax(-2)),
        ("where is the softmax? Shares are wanted", hide(future)),
        ("where is the softmax? Shares are wanted", hide(future, 0)),
        ("are the scores scaled again? They come scaled", (hide(future) / T**0.5).softmax(-1)),
    ], nan="Does a row of the mask hide everything? Its softmax is 0 / 0.")
    loud = random(1, 3, 3, seed=22)
    loud[0, 0, 2] = 300.0
    got = tensor(function, loud, shape=(1, 3, 3), **expected)
    truth = loud.masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf).softmax(-1)
    if not same(got, truth):
        raise Wrong("right with ordinary scores, and wrong when a later token's score is 300. Is the share set to 0 "
                    "after the softmax, and the row renormalised? What may be seen has been rounded to 0 by then. Or "
                    "is the hidden score a number that is not low enough? -inf always is")
    compare(tensor(function, loud[0, :1, :1], shape=(1, 1), **expected), torch.ones(1, 1), [])
    return "each row sums to 1 and sees nothing that comes later, however loud it is"


@check
def mask_for_new_tokens(function) -> str:
    """function(new, total) -> booleans [new, total], True where a token may look."""
    for new, total in ((3, 7), (4, 4), (2, 5), (1, 5), (1, 1)):
        got = tensor(function, new, total, shape=(new, total), names="[new, total]",
                     shape_hints={(total, new): "A row is a new token, a column one that is looked at.",
                                  (total, total): "Rows are wanted for the new tokens alone: the last of them.",
                                  (new, new): "The cached tokens are missing: each row has a column for every token."})
        case = f"for {new} new of {total} tokens"
        square = torch.ones(new, total)
        whole = causal_mask(total, total)
        if got.isinf().any() or (got < 0).any():
            raise Wrong("this is a mask to be added to scores; booleans are wanted, True where a token may look")
        if not ((got == 0) | (got == 1)).all():
            raise Wrong("booleans are wanted, True where a token may look")
        compare(got, causal_mask(new, total).float(), [
            (f"{case}: is it True where a token may NOT look? True is where it may",
             (~causal_mask(new, total)).float()),
            (f"{case}: the triangle starts at the top left. New tokens come last: row i stands at total - new + i",
             square.tril()),
            (f"{case}: is that the first rows of the whole mask? New tokens are the last", whole[:new].float()),
            (f"{case}: every new token sees everything; the earlier ones of several must not see the later", square),
            (f"{case}: does a token not see itself? The diagonal belongs to it", square.tril(total - new - 1)),
            (f"{case}: each token sees one too many", square.tril(total - new + 1)),
            (f"{case}: is the triangle the wrong way round?", square.triu(total - new)),
            (f"{case}: new tokens see each other, and the cached ones not at all",
             torch.cat([torch.zeros(new, total - new), torch.ones(new, new).tril()], dim=1)),
        ])
    return "the triangle sits at the bottom right: a single new token sees everything, and a square is as before"


@check
def drop_shares(function) -> str:
    """function(shares [..., T, S], p, kept, training) -> shares after dropout."""
    shares, p = random(2, 4, 4, seed=23).softmax(-1), 0.2
    kept = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(24)) >= p
    expected = {"names": "[..., T, S]", "shape_hints": {
        (int(kept.sum()),): "shares[kept] is a list of those kept; the shape should stay, with zeros where some were."}}
    got = tensor(function, shares, p, kept, True, shape=(2, 4, 4), **expected)
    left = shares * kept
    compare(got, left / (1 - p), [
        ("what is left is not made larger. Divided by 1 - p, its mean over many throws is the share itself", left),
        ("is it multiplied by 1 - p? It should be divided", left * (1 - p)),
        ("is it divided by p? A share is kept with probability 1 - p", left / p),
        ("are the kept ones dropped, and the others kept? kept is True where a share stays", shares * ~kept / (1 - p)),
        ("are the kept ones dropped, and the others kept? kept is True where a share stays", shares * ~kept / p),
        ("each row is made to sum to 1 again. Dropout divides by 1 - p, whatever the throw",
         left / left.sum(-1, keepdim=True)),
        ("it is divided by the part that was kept in this throw; it should be 1 - p, the same in every throw",
         left / kept.float().mean()),
        ("in training nothing happens. Is `training` the wrong way round?", shares),
    ], nan="A row may lose all its shares; is it divided by its sum?")
    got = tensor(function, shares, p, kept, False, shape=(2, 4, 4), **expected)
    compare(got, shares, [
        ("dropout acts when training is False, too. In use nothing is dropped", left / (1 - p)),
        ("when training is False the shares stay exactly as they are: nothing is divided", shares / (1 - p)),
        ("when training is False the shares stay exactly as they are: nothing is multiplied", shares * (1 - p)),
    ])
    half = tensor(function, shares[0], 0.5, kept[0], True, shape=(4, 4), names="[T, S]")
    compare(half, shares[0] * kept[0] * 2, [("is 1 - p always 0.8? p differs from call to call", left[0] / 0.8)])
    none = tensor(function, shares[0], 0.0, torch.ones(4, 4).bool(), True, shape=(4, 4), names="[T, S]")
    compare(none, shares[0], [], nan="With p = 0 nothing is dropped: is anything divided by p?")
    return "kept shares are divided by 1 - p in training, and in use nothing changes"


@check
def may_look_past_padding(function) -> str:
    """function(lengths [B], T) -> booleans [B, T, T], True where a row's token may look; padding stands in front."""
    lengths, T = torch.tensor([5, 2, 1, 4]), 5
    B = len(lengths)
    got = tensor(function, lengths, T, shape=(B, T, T), names="[B, T, T]",
                 hints={"must match the size": "[T] and [B, 1] can be compared, and give [B, T]: lengths[:, None]."},
                 shape_hints={(B, T): "That says which places are padding; which row may look at which column?",
                              (T, T): "Each text of the batch has a mask of its own."})
    if not ((got == 0) | (got == 1)).all():
        raise Wrong("booleans are wanted, True where a token may look")
    place = torch.arange(T)
    real, triangle, own = place >= T - lengths[:, None], torch.ones(T, T).tril().bool(), torch.eye(T).bool()
    behind = place < lengths[:, None]
    keys = real[:, None, :]
    truth = (triangle & keys) | own
    compare(got, truth.float(), [
        ("is it True where a token may NOT look? True is where it may", (~truth).float()),
        ("is the padding behind the text? Here it stands in front: text b has the last lengths[b] places",
         ((triangle & behind[:, None, :]) | own).float()),
        ("is the padding behind the text? Here it stands in front: text b has the last lengths[b] places",
         (triangle & behind[:, None, :]).float()),
        ("a padding row sees nothing at all, and its softmax is 0 / 0. Let it see itself", (triangle & keys).float()),
        ("the padding is hidden, and the future is not: where is the triangle?", (keys | own).float()),
        ("the padding is hidden, and the future is not: where is the triangle?", keys.expand(B, T, T).float()),
        ("the future is hidden, and the padding is not", triangle.expand(B, T, T).float()),
        ("padding rows look at the padding before them; each should see itself alone",
         ((triangle & keys) | (triangle & ~real[:, :, None])).float()),
        ("it is the padding's rows that are hidden. Its columns should be: nobody may look at it",
         ((triangle & real[:, :, None]) | own).float()),
        ("padding rows look at the whole row, so that they may see themselves; themselves alone is enough",
         ((triangle & keys) | ~real[:, :, None]).float()),
        ("are lengths taken as the number of padding places?",
         ((triangle & (place >= lengths[:, None])[:, None, :]) | own).float()),
    ])
    one = tensor(function, torch.tensor([3]), 3, shape=(1, 3, 3), names="[B, T, T]")
    compare(one, torch.ones(1, 3, 3).tril(), [])
    return "no later tokens, no padding, and no row without anything to see"


def _attend(x: Tensor, hidden: Tensor, way: str = "") -> Tensor:
    """Attention of x [T, 8] with itself; way "": -inf before the softmax; "after": zeros; "renormalised"."""
    scores = x @ x.T / 8**0.5
    if not way:
        return scores.masked_fill(hidden, -torch.inf).softmax(-1) @ x
    shares = scores.softmax(-1).masked_fill(hidden, 0)
    return (shares / shares.sum(-1, keepdim=True) if way == "renormalised" else shares) @ x


def _triangle(x: Tensor, diagonal: int = 1) -> Tensor:
    return torch.ones(len(x), len(x)).triu(diagonal).bool()


def _but(x: Tensor, row: int, column: int) -> Tensor:
    """The causal mask, with one pair that is not hidden."""
    hidden = _triangle(x)
    hidden[row, column] = False
    return hidden


# What it is, the attention, and whether it leaks.
_ATTENTIONS = [
    ("attention with the right mask", lambda x: _attend(x, _triangle(x)), False),
    ("attention without a mask", lambda x: _attend(x, _triangle(x, len(x))), True),
    ("zeros after the softmax", lambda x: _attend(x, _triangle(x), "after"), True),
    ("each token sees one too far", lambda x: _attend(x, _triangle(x, 2)), True),
    ("only the first row sees one token too many", lambda x: _attend(x, _but(x, 0, 1)), True),
    ("only the last row but one sees the last token", lambda x: _attend(x, _but(x, -2, -1)), True),
    ("only the first row sees the last token", lambda x: _attend(x, _but(x, 0, -1)), True),
    ("the mask is turned: each token sees itself and the future", lambda x: _attend(x, _triangle(x).T), True),
    ("a thousandth of the next token is added to each", lambda x: _attend(x, _triangle(x)) + 1e-3 * torch.cat(
        [x[1:], x[:1] * 0]), True),
    ("the mean of the whole text is taken away from each token",
     lambda x: _attend(x - x.mean(0), _triangle(x)), True),
    ("zeros after the softmax, renormalised: right but for rounding",
     lambda x: _attend(x, _triangle(x), "renormalised"), False),
    ("outputs that do not depend on anything", lambda x: x * 0 + 1, False),
    ("each token is only doubled, without looking at any", lambda x: 2 * x, False),
]


@check
def leaks(function) -> str:
    """function(attend) -> whether any row of attend(x [T, 8]) depends on a later token."""
    for what, attend, truth in _ATTENTIONS:
        with torch.enable_grad():
            got = attempt(function, attend, hints={
                "does not require grad": "Gradients need x.requires_grad_() before attend is called.",
                "must match the size": "attend takes x [T, 8].", "cannot be multiplied": "attend takes x [T, 8]."})
        if isinstance(got, Tensor) and got.numel() == 1 and not got.is_complex():
            got = got.item()
        if not isinstance(got, (bool, int)) or got not in (0, 1):
            raise Wrong(f"True or False is needed, and for “{what}” your function returned a {type(got).__name__}")
        if bool(got) != truth:
            raise Wrong(f"your function says {bool(got)} of this one: {what}. {_why(what, truth)}".rstrip())
    found = sum(truth for _, _, truth in _ATTENTIONS)
    return f"all {found} leaks are found, and {len(_ATTENTIONS) - found} attentions without one are left in peace"


def _why(what: str, truth: bool) -> str:
    if not truth:
        return ("Nothing leaks there. Is rounding taken for a leak, or the token itself or an earlier one for a later? "
                "A leak is an output t that depends on x[s] with s > t")
    if "zeros after" in what:
        return "No share is above the diagonal, and yet it leaks: outputs must be compared, not shares"
    if "only the" in what:
        return "Is every later token changed, one after the other, and every row before it looked at?"
    if "thousandth" in what:
        return "It is a small leak, but a thousand times larger than rounding"
    return "Change a later token: do the outputs before it move?"
