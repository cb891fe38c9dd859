"""Checks of the lesson "Why attention, and self-attention by hand"."""

from __future__ import annotations

import math
import operator

import torch
from torch import Tensor

from llm_core import accounting
from llm_core.attention.causal import causal_attention
from llm_core.checks.core import Wrong, attempt, check, compare, random, same, tensor
from llm_core.config import ModelConfig


@check
def stable_softmax(function) -> str:
    """function(scores [..., S]) -> shares [..., S]; no row may overflow or vanish."""
    two = "max(dim=-1) returns two things: the values, and where they were. Take .values."
    expected = {
        "hints": {"must match the size": "Without keepdim=True, max(-1) and sum(-1) lose the last dimension; keep it.",
                  "unsupported operand": two, "must be Tensor, not": two},
        "shape_hints": {(2, 3, 1): "That is one number a row; a share for each score is wanted."},
    }
    small = random(2, 3, 5, seed=11)
    hidden = small.clone()
    hidden[0, 1, 2:4] = -torch.inf
    for scores in (small, hidden):
        got = tensor(function, scores, shape=(2, 3, 5), names="[..., S]", **expected)
        compare(got, scores.softmax(-1), [
            ("which dimension does the softmax run over? The last: each row sums to 1, each column need not",
             scores.softmax(-2)),
            ("which dimension does the softmax run over? The last: each row sums to 1", scores.softmax(0)),
            ("all shares of all rows together sum to 1; each row on its own should",
             scores.flatten().softmax(0).view(2, 3, 5)),
            ("where is the division by the sum? The shares of a row should sum to 1", scores.exp()),
            ("where is the division by the sum? The shares of a row should sum to 1",
             (scores - scores.amax(-1, keepdim=True)).exp()),
            ("is it divided by the largest power, instead of the sum of all?",
             scores.exp() / scores.exp().amax(-1, keepdim=True)),
            ("the scores are divided by their sum. First e is raised to them", scores / scores.sum(-1, keepdim=True)),
            ("this is the logarithm of the softmax; the shares themselves are wanted", scores.log_softmax(-1)),
            ("is it 2 to the power of the scores? It should be e: exp", _shares_of(2**scores)),
        ], nan="A score of minus infinity has share 0: is something multiplied with it or subtracted from it?")

    tall = torch.tensor([[9e3, 9e3 - 1, 0.0], [-9e3, -9e3 - 1, -9.5e3], [9.9e3, -9.9e3, 9.9e3 - 2]])
    if tensor(function, tall[:1], shape=(1, 3), names="[..., S]", **expected).isnan().any():
        raise Wrong("with scores around 9,000 e to them is infinite, and infinity / infinity is NaN. Subtract the "
                    "largest score first: it changes no share")
    got = tensor(function, tall, shape=(3, 3), names="[..., S]", **expected)
    if not same(got, tall.softmax(-1)) and same(got[2], tall[2].softmax(-1)):
        raise Wrong("one row alone is right, and beside a row of larger scores it is not: e to all of them is 0, and "
                    "0 / 0 is no share. Subtract the largest of each row, not the largest of all")
    compare(got, tall.softmax(-1), [], nan="Is the largest score of each row subtracted before e is raised to it?")
    return "each row sums to 1, also with scores of 9,900 and of -9,900, and a score of minus infinity gets nothing"


def _shares_of(powers: Tensor) -> Tensor:
    return powers / powers.sum(-1, keepdim=True)


@check
def self_attention_by_hand(function) -> str:
    """function(x [T, D], W_q [D, d], W_k [D, d], W_v [D, d_v]) -> [T, d_v], no mask."""
    T, D, d, d_v = 5, 6, 4, 3
    x, W_q, W_k, W_v = (random(*shape, seed=seed) for shape, seed in (
        ((T, D), 12), ((D, d), 13), ((D, d), 14), ((D, d_v), 15)))
    turned = ("x is [T, D] and the matrices are [D, …], so x @ W does it; and for scores k is turned: q @ k.T is "
              "[T, T].")
    got = tensor(function, x, W_q, W_k, W_v, shape=(T, d_v), names="[T, d_v]",
                 hints={"shapes cannot be multiplied": turned, "size mismatch": turned, "must match the size": turned},
                 shape_hints={(T, T): "Those are shares or scores; multiply the shares with the values.",
                              (T, d): "Is that as wide as a query or a key? The result is made of values, d_v wide.",
                              (T, D): "Are the tokens' vectors themselves mixed? The values are: x @ W_v.",
                              (d_v, T): "The result is turned: a row should be a token."})
    q, k, v = x @ W_q, x @ W_k, x @ W_v
    scores, future = q @ k.T, torch.ones(T, T).triu(1).bool()

    def mix(numbers: Tensor, dim: int = -1) -> Tensor:
        return numbers.softmax(dim) @ v

    root = "should be divided by the root of d, which is the width of a query"
    # llm_core never looks ahead, so each query is handed over as if it came last of all.
    truth = torch.cat([causal_attention(q[None, None, t:t + 1], k[None, None], v[None, None], d**-0.5)[0, 0]
                       for t in range(T)])
    compare(got, truth, [
        (f"is the scale applied? Scores {root}", mix(scores)),
        (f"is the scale applied before the softmax? The scores {root}; shares are left alone",
         mix(scores) / math.sqrt(d)),
        (f"are the scores divided by d? They {root}", mix(scores / d)),
        (f"are the scores multiplied by the root of d? They {root}", mix(scores * math.sqrt(d))),
        ("which d is under the root? Not the width of x: the width of a query, W_q.shape[1]",
         mix(scores / math.sqrt(D))),
        ("which d is under the root? Not that of a value: the width of a query", mix(scores / math.sqrt(d_v))),
        ("which d is under the root? Not the number of tokens: the width of a query", mix(scores / math.sqrt(T))),
        ("which dimension does the softmax run over? The last: each row of shares sums to 1",
         mix(scores / math.sqrt(d), 0)),
        ("which dimension does the softmax run over? The last; and the scores are not scaled", mix(scores, 0)),
        ("all shares together sum to 1; each row on its own should",
         (scores / math.sqrt(d)).flatten().softmax(0).view(T, T) @ v),
        ("are queries and keys swapped? Row t holds what token t looks for: q @ k.T", mix(scores.T / math.sqrt(d))),
        ("is there a causal mask? Here every token sees all others; the mask is the next lesson",
         mix((scores / math.sqrt(d)).masked_fill(future, -torch.inf))),
        ("are queries compared with queries? A query meets keys", mix(q @ q.T / math.sqrt(d))),
        ("are keys compared with keys? A query meets keys", mix(k @ k.T / math.sqrt(d))),
        ("where is the softmax? The scores themselves are no shares", scores / math.sqrt(d) @ v),
        ("these are the values alone: who looks at whom?", v),
        ("are the tokens' own vectors compared, instead of queries and keys?", mix(x @ x.T / math.sqrt(d))),
        ("are the tokens' own vectors compared, instead of queries and keys?", mix(x @ x.T / math.sqrt(D))),
    ], nan="Is the softmax 0 / 0, or infinity / infinity?")
    wide = [random(*shape, seed=16) for shape in ((3, 2), (2, 5), (2, 5), (2, 7))]
    got = tensor(function, *wide, shape=(3, 7), names="[T, d_v]")
    compare(got, torch.nn.functional.scaled_dot_product_attention(*(wide[0] @ W for W in wide[1:])), [])
    return "equal to llm_core's attention, given one query after the other as the last of all"


@check
def tokens_looked_at(function) -> str:
    """function(shares [..., S]) -> e to the entropy of each row [...]."""
    shares = random(2, 3, 4, seed=17).softmax(-1)
    expected = {"shape_hints": {
        (2, 3, 4): "That is a number for each share; the sum over a row is wanted.",
        (2, 3, 1): "The last dimension is summed away: sum(dim=-1), without keepdim.",
        (2, 4): "The sum runs over the last dimension, the shares of one row.",
        (3, 4): "The sum runs over the last dimension, the shares of one row.",
        (): "That is one number for all; one for each row is wanted."}}
    got = tensor(function, shares, shape=(2, 3), names="[...], one number a row", **expected)
    entropy = -(shares * shares.log()).sum(-1)
    compare(got, entropy.exp(), [
        ("this is the entropy itself; e to the power of it is a number of tokens", entropy),
        ("is the minus missing? The entropy is the sum of -p ln p, and it is never negative", (-entropy).exp()),
        ("this is minus the entropy. e to the power of the entropy is a number of tokens", -entropy),
        ("is the logarithm to base 2, and the power to base e? Both bases should be the same",
         (entropy / math.log(2)).exp()),
        ("is the power to base 2, and the logarithm to base e? Both bases should be the same", 2**entropy),
        ("are the terms averaged? The entropy is their sum", (entropy / 4).exp()),
        ("is the logarithm not multiplied with the share?", (-shares.log().sum(-1)).exp()),
        ("1 / (sum of squares) is another way to count; here e to the entropy is wanted",
         1 / shares.square().sum(-1)),
        ("this is 1 / (the largest share); here e to the entropy is wanted", 1 / shares.amax(-1)),
    ])
    some = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    got = tensor(function, some, shape=(3,), names="[...], one number a row")
    if got.isnan().any():
        raise Wrong("a row with a share of exactly 0 gives NaN: 0 times minus infinity. Such a share adds nothing")
    if not torch.allclose(got, torch.tensor([1.0, 2.0, 4.0]), atol=1e-3):
        shown = ", ".join(f"{number:.4g}" for number in got.tolist())
        raise Wrong(f"the rows 1 0 0 0, then ½ ½ 0 0, then four times ¼ should give 1, 2 and 4, and you have {shown}. "
                    "Do shares of 0 add nothing?")
    return "1 token if one has everything, 2 for two halves, 4 for four quarters, and zeros do no harm"


@check
def attention_flops(function) -> str:
    """function(T, D) -> (FLOPs of the four projections, FLOPs of scores and mixing), without a mask."""
    for T, D in ((5, 8), (7, 6), (1, 4), (1024, 768)):
        got = attempt(function, T, D)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Wrong("two numbers are needed: return projections, looking")
        try:
            projections, looking = (int(n) if isinstance(n, float) and n.is_integer() else operator.index(n)
                                    for n in got)
        except TypeError:
            raise Wrong("two whole numbers are needed. Is there a / where // or * would do?") from None
        right = 8 * T * D * D, 4 * T * T * D
        if (projections, looking) == right:
            continue
        if (looking, projections) == right:
            raise Wrong("the two are the wrong way round: the projections come first")
        if (2 * projections, 2 * looking) == right:
            raise Wrong("both are half of it: a multiplication with its addition counts as 2")
        for name, number, truth, whys in (
                ("projections", projections, right[0], {
                    6 * T * D * D: "Is the output's matrix counted? Queries, keys, values, output: four.",
                    2 * T * D * D: "That is one matrix; there are four.",
                    4 * T * D * D: "A multiplication with its addition counts as 2.",
                    8 * D * D: "Each of the T tokens goes through the matrices."}),
                ("looking", looking, right[1], {
                    2 * T * T * D: "Half is missing: there are the scores (queries with keys) and the mixing (shares "
                                   "with values), and a multiplication with its addition counts as 2.",
                    2 * T * (T + 1) * D: "Is there a causal mask? Here all T tokens see all T.",
                    4 * T * D * D: "A score is a sum over D, and there are T x T of them.",
                    4 * T * T: "Each score is a sum over D products."})):
            if number != truth:
                raise Wrong(f"for T = {T:,} and D = {D:,} {name} should be {truth:,}, and you have {number:,}. "
                            f"{whys.get(number, '')}".rstrip())
    gpt3 = ModelConfig.preset("gpt3-175b")
    counted = accounting.forward_flops(gpt3, 1024).by_part["attention projections"]
    if attempt(function, 1024, gpt3.d_model)[0] * gpt3.n_layers != counted:
        raise Wrong("for GPT-3's 96 blocks the projections are not what llm_core counts")
    return ("as llm_core counts the projections. The two are equal at T = 2 D: 1,536 tokens at GPT-2's width of 768, "
            "24,576 at GPT-3's of 12,288. Under a causal mask only half of the pairs count: there it is T = 4 D - 1")


@check
def pronoun_finds_name(function) -> str:
    """function() -> W_q [4, d], W_k [4, d], W_v [4, 1]: each pronoun's output is the fourth number of the only name."""
    got = attempt(function)
    if not isinstance(got, (tuple, list)) or len(got) != 3 or not all(isinstance(W, Tensor) for W in got):
        raise Wrong("three tensors are needed: return W_q, W_k, W_v")
    if any(W.is_complex() or W.dim() != 2 or W.shape[0] != 4 for W in got):
        raise Wrong(f"each matrix has a row for each of a token's 4 numbers, and yours are "
                    f"{', '.join(str(list(W.shape)) for W in got)}")
    W_q, W_k, W_v = (W.detach().float() for W in got)
    if W_q.shape[1] != W_k.shape[1] or not W_q.shape[1]:
        raise Wrong(f"queries and keys must be equally wide, and yours are {W_q.shape[1]} and {W_k.shape[1]}")
    if W_v.shape[1] != 1:
        raise Wrong(f"a value is one number, so W_v is [4, 1], and yours is {list(W_v.shape)}")
    if not all(W.isfinite().all() for W in (W_q, W_k, W_v)):
        raise Wrong("a matrix holds infinity or NaN; a large number is enough")
    worst, least = 0.0, 1.0
    for x in _texts():
        name, pronouns = x[:, 0].argmax(), x[:, 2] == 1
        scores = (x @ W_q) @ (x @ W_k).T / math.sqrt(W_q.shape[1])
        shares = scores.softmax(-1)
        least = min(least, shares[pronouns, name].min().item())
        worst = max(worst, (shares @ x @ W_v - x[name, 3])[pronouns].abs().max().item())
    if worst <= 0.01:
        return f"in 20 texts each pronoun gives the name at least {100 * least:.1f} % and is off by {worst:.2g} at most"
    raise Wrong(_why_not_found(W_q, W_k, W_v, least, worst))


def _texts() -> list[Tensor]:
    """20 texts of 3 to 12 tokens: one name, at least one pronoun and one verb; the fourth number tells who or what."""
    draw = torch.Generator().manual_seed(18)
    texts = []
    for i in range(20):
        kinds = torch.cat([torch.tensor([0, 1, 2]), torch.randint(1, 3, (i // 2,), generator=draw)])
        kinds = kinds[torch.randperm(len(kinds), generator=draw)]
        numbers = 2 * torch.rand(len(kinds), 1, generator=draw) - 1
        texts.append(torch.cat([torch.eye(3)[kinds], numbers], dim=-1))
    return texts


def _why_not_found(W_q: Tensor, W_k: Tensor, W_v: Tensor, least: float, worst: float) -> str:
    def share(q: Tensor, k: Tensor, looks: int, looked: int) -> float:
        """The least share, over all texts, that tokens of one kind give to all of another kind together."""
        found = []
        for x in _texts():
            shares = ((x @ q) @ (x @ k).T / math.sqrt(q.shape[1])).softmax(-1)
            found.append(shares[x[:, looks] == 1][:, x[:, looked] == 1].sum(-1).min().item())
        return min(found)

    if least > 0.99:
        return (f"the pronouns do find the name, with {100 * least:.1f} % at least, but the wrong number is handed "
                f"over (off by up to {worst:.2g}). Which of the name's 4 numbers says who it is? W_v picks one")
    if share(W_k, W_q, 2, 0) > 0.9:
        return "are queries and keys swapped? Now names look for pronouns; pronouns should look for the name"
    if share(W_q, W_k, 2, 2) > 0.9:
        return "the pronouns look at pronouns. What does a pronoun's query look for, and who has such a key?"
    if share(W_q, W_k, 2, 1) > 0.9:
        return "the pronouns look at verbs; they should look at the name. Which row of W_k belongs to names?"
    for factor in (10.0, 100.0):
        if share(W_q * factor, W_k, 2, 0) > 0.99:
            return (f"right direction, but too soft: somewhere a pronoun gives the name only {100 * least:.0f} %, and "
                    "the rest blurs the answer. What makes a softmax sharper?")
    if share(-W_q, W_k, 2, 0) > 0.9:
        return "a sign is wrong: the pronouns look at everything but the name"
    return (f"somewhere a pronoun gives the name only {100 * least:.0f} % of its share, and its output is off by "
            f"{worst:.2g}. A query for pronouns, a key for names, and a score large enough: which is missing?")
