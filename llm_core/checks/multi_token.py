"""Checks of the lesson "Multi-token prediction"."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core import accounting, presets
from llm_core.checks.cases import judge, numbers
from llm_core.checks.core import Unsolved, Wrong, attempt, check, compare, random, tensor
from llm_core.config import ModelConfig
from llm_core.model import LanguageModel
from llm_core.mtp import Ahead, mtp_loss


def _pairs(result) -> list[tuple]:
    if not isinstance(result, (list, tuple)):
        raise Wrong(f"a list of pairs is needed, and your function returned a {type(result).__name__}")
    for pair in result:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise Wrong("each row gives a pair: the token that is read, the token that is guessed")
    return [tuple(pair) for pair in result]


@check
def tasks_at_depth(function) -> str:
    """function(tokens, k) -> for each row of depth k (the token read, the token guessed)."""
    words = "the cat sat on the mat".split()
    cases = [(words, k) for k in (1, 2, 0, 4)] + [([7, 3, 9, 1], 1), ([7, 3, 9, 1], 2), ([5, 6], 0)]

    def tasks(tokens, k, read=0, guess=0, rows=0):
        n = max(len(tokens) - 1 - k + rows, 0)
        return [(tokens[i + k + read], tokens[i + k + 1 + guess]) for i in range(n)]

    judge(function, cases, tasks, [
        ("is that depth 0 for every k? Row i of depth k reads token i + k", lambda t, k: tasks(t, 0)),
        ("does the row read token i? At depth k it reads token i + k; what it knows of token i comes in the hidden "
         "state", lambda t, k: [(t[i], t[i + k + 1]) for i in range(len(t) - 1 - k)]),
        ("is that one depth too deep, or is the first row missing? Row 0 of depth 0 reads token 0 and guesses token 1",
         lambda t, k: tasks(t, k + 1)),
        ("is that one depth too shallow? At depth 1 row 0 reads token 1 and guesses token 2",
         lambda t, k: tasks(t, k - 1) if k else tasks(t, 0)),
        ("the row guesses the very token that it reads; it should be the one after",
         lambda t, k: tasks(t, k, guess=-1)),
        ("the pairs are turned round: first what is read, then what is guessed",
         lambda t, k: [(b, a) for a, b in tasks(t, k)]),
        ("is the last row missing? The last token of the list is a target too", lambda t, k: tasks(t, k, rows=-1)),
    ], _pairs, hints={"list index out of range": "A deeper depth has fewer rows: the last target is the last token."})
    return "depth 1 of 'the cat sat on the mat' begins with cat → sat; every depth has a row fewer than the one before"


def _rms(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


@check
def block_input(function) -> str:
    """function(hidden [R, D], embedding [R, D], h_weight [D], e_weight [D], projection [D, 2 D]) -> [R, D]."""
    R, D = 5, 6
    h, e, h_w, e_w, W = (3 * random(R, D, seed=711), 0.5 * random(R, D, seed=712), 1 + 0.4 * random(D, seed=713),
                         1 + 0.4 * random(D, seed=714), random(D, 2 * D, seed=715))
    got = tensor(function, h, e, h_w, e_w, W, shape=(R, D), names="[R, D]", shape_hints={
        (R, 2 * D): "Those are the two side by side; the projection brings them back to D numbers.",
        (2 * R, D): "Are the two put one below the other? Side by side: cat(…, dim=-1)."},
        hints={"shapes cannot be multiplied": "torch stores a matrix as [out, in], so it is used as projection.T; and "
                                              "the two inputs stand side by side, 2 D numbers a row."})
    n_h, n_e = _rms(h, h_w), _rms(e, e_w)

    def joined(a, b):
        return torch.cat([a, b], -1) @ W.T

    both, halves = torch.cat([e, h], -1), torch.cat([e_w, h_w])
    compare(got, joined(n_e, n_h), [
        ("is the hidden state first? So does the paper's formula, but in DeepSeek's files the left half of the matrix "
         "belongs to the embedding", joined(n_h, n_e)),
        ("where are the norms? Each of the two inputs has one, before they are joined", joined(e, h)),
        ("the norms' weights are missing", joined(_rms(e, 1), _rms(h, 1))),
        ("are the two weights swapped? h_weight is for the hidden state", joined(_rms(e, h_w), _rms(h, e_w))),
        ("is one norm taken over both together? Each input has a norm of its own, before the cat",
         _rms(both, halves) @ W.T),
        ("the embedding has a norm too", joined(e, n_h)),
        ("the hidden state has a norm too", joined(n_e, h)),
        ("is that LayerNorm? An RMS norm takes no mean away", joined(
            F.layer_norm(e, (D,), eps=1e-6) * e_w, F.layer_norm(h, (D,), eps=1e-6) * h_w)),
        ("is it divided by the length? An RMS norm divides by the root of the *mean* square, so the length is root D",
         joined(F.normalize(e, dim=-1) * e_w, F.normalize(h, dim=-1) * h_w)),
        ("is it divided by the mean square, without the root?", joined(
            e / (e.pow(2).mean(-1, keepdim=True) + 1e-6) * e_w, h / (h.pow(2).mean(-1, keepdim=True) + 1e-6) * h_w)),
        ("is the mean taken over the rows? It runs over D, dim=-1", joined(
            e / (e.pow(2).mean(0) + 1e-6).sqrt() * e_w, h / (h.pow(2).mean(0) + 1e-6).sqrt() * h_w)),
        ("are the two added instead of put side by side?", (n_e + n_h) @ W[:, :D].T),
    ])
    return "the hidden state came 6 times as large as the embedding, and the norms bring both to one size"


@check
def loss_ahead(function) -> str:
    """function(depths: logits [B, T - k, V] each, targets [B, T], weight) -> the loss to add."""
    B, V = 3, 7
    for T, D, weight in ((6, 2, 0.3), (5, 1, 0.1), (6, 3, 1.0)):
        depths = [random(B, T - k, V, seed=720 + k) for k in range(1, D + 1)]
        targets = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(7))

        def summed(shift=0, divide=lambda rows, k: B * T, depths=depths, targets=targets, T=T):
            total = 0.0
            for k, logits in enumerate(depths, start=1):
                wanted = targets[:, k + shift:][:, :T - k] if shift <= 0 else targets[:, shift:][:, :T - k]
                sums = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum")
                total = total + sums / divide(wanted.numel(), k)
            return total

        got = attempt(function, [d.clone() for d in depths], targets, weight, hints={
            "Expected input batch_size": "Depth k has T - k rows, so its targets are targets[:, k:].",
            "Expected target size": "cross_entropy takes logits [rows, V] and targets [rows]: flatten both."})
        if isinstance(got, (int, float)) and not isinstance(got, bool):
            got = torch.tensor(float(got))
        if not isinstance(got, Tensor) or got.is_complex():
            raise Wrong(f"one number is needed, and your function returned a {type(got).__name__}")
        if got.numel() != 1:
            raise Wrong(f"one number is needed, and yours are {list(got.shape)}. Add up all rows and all depths")
        got = got.detach().float().reshape(())
        truth = mtp_loss([Ahead(d, d) for d in depths], targets, weight)
        last = [targets[:, :T - k] for k in range(1, D + 1)]
        compare(got, truth, [
            ("where is the weight? λ multiplies the mean of the depths", truth / weight),
            ("is the sum over depths divided by their number?", truth * D),
            ("are the sums divided by the T - k rows? The paper divides every depth by all T tokens",
             weight / D * summed(divide=lambda rows, k: rows)),
            ("each depth is off by one: the targets are the main loss's, so depth k starts at targets[:, k:]",
             weight / D * summed(shift=-1)),
            ("does every depth use the first targets? Row i of depth k guesses targets[:, i + k]",
             weight / D * sum(F.cross_entropy(d.flatten(0, 1), w.flatten(), reduction="sum")
                              for d, w in zip(depths, last)) / (B * T)),
            ("are the sums divided by T alone? There are B texts", truth * B),
            ("is anything divided by the number of tokens? Sums grow with the text", truth * B * T),
            ("is only the last depth scored?", weight / D * F.cross_entropy(
                depths[-1].flatten(0, 1), targets[:, D:].flatten(), reduction="sum") / (B * T)),
            ("is only the first depth scored? There may be several", weight / D * F.cross_entropy(
                depths[0].flatten(0, 1), targets[:, 1:].flatten(), reduction="sum") / (B * T)),
            ("the sign is turned: a loss is minus the logarithm", -truth),
        ])
    return "for one, two and three depths; a depth without rows to spare counts a little less, since T divides them all"


@check
def module_size(function) -> str:
    """function(config) -> parameters of all its MTP modules, without embedding and head."""
    v3, mini = presets.get("deepseek-v3"), presets.get("deepseek-mini")
    cases = [(v3,), (mini,), (mini.replace(n_mtp_modules=3),), (mini.replace(moe=None, n_mtp_modules=2),),
             (v3.replace(n_mtp_modules=0),)]

    def size(c: ModelConfig, norms=3, projection=2, kind=None, each=True, table=0, biases=False):
        kind = kind or ("moe" if c.moe else "dense")
        kind = kind if c.moe else "dense"
        layer = sum(sum(part.values()) for part in accounting.per_layer(c, kind).values())
        own = layer + norms * c.d_model + projection * c.d_model**2 + table * c.vocab_size * c.d_model
        own += c.moe.n_routed_experts if biases and c.moe else 0
        return own * (c.n_mtp_modules if each else 1)

    numbers(function, cases, size, [
        ("is the projection left out? So comes about the well-known 11.5 B", lambda c: size(c, projection=0)),
        ("is the projection D × D? It takes two vectors side by side: D × 2 D", lambda c: size(c, projection=1)),
        ("how many modules are there? config.n_mtp_modules, which may be 0", lambda c: size(c, each=False)),
        ("are the module's own three norms missing (one for each input, and a final one)?",
         lambda c: size(c, norms=0)),
        ("there are three norms beside those of the layer: one for each input, and a final one",
         lambda c: size(c, norms=2)),
        ("there are three norms beside those of the layer: one for each input, and a final one",
         lambda c: size(c, norms=1)),
        ("is a dense layer counted? A module has experts, if the model has any", lambda c: size(c, kind="dense")),
        ("is an embedding counted? It is the main model's", lambda c: size(c, table=1)),
        ("are embedding and head counted? They are the main model's", lambda c: size(c, table=2)),
        ("are the router's biases counted? They are moved by a rule and not trained", lambda c: size(c, biases=True)),
        ("is that the layer alone?", lambda c: size(c, norms=0, projection=0)),
    ], lambda c: f"{c.n_mtp_modules} modules behind {c.n_layers} layers of width {c.d_model:,}"
                 f"{', with experts' if c.moe else ', without experts'}")
    return "DeepSeek-V3's module: 11,610,067,968"


def _small() -> LanguageModel:
    """Three modules, and norms that are not all ones: a wrong or missing norm must show."""
    torch.manual_seed(73)  # the decorator puts the caller's numbers back
    model = LanguageModel(presets.tiny(24, 1, "GQA").replace(vocab_size=31, max_seq_len=16, n_mtp_modules=3)).eval()
    for p in model.parameters():
        p.normal_(std=0.3) if p.dim() > 1 else p.add_(0.4 * torch.randn_like(p))
    return model


def _chain(model: LanguageModel, ids: Tensor, norm=True, again=False, from_main=False, late=False,
           module=lambda k: k) -> list[Tensor]:
    T, first = ids.shape[1], model(ids).hidden
    first = model.final_norm(first) if norm else first
    h, out = first, []
    for k in range(1, len(model.mtp) + 1):
        rows = first if from_main else h
        rows = rows[:, -(T - k):] if late else rows[:, :T - k]
        ahead = model.predict_at_depth(module(k), rows, ids[:, k:])
        out.append(ahead.logits)
        h = model.final_norm(ahead.hidden) if again else ahead.hidden
    return out


@check
def chain_of_guesses(function) -> str:
    """function(model, ids [B, T]) -> a list of logits [B, T - k, V], k = 1 …"""
    model = _small()
    B, T, V = 2, 8, model.config.vocab_size
    ids = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(8))
    got = attempt(function, model, ids, hints={
        "must match": "At depth k there are T - k rows, of the hidden states and of the ids alike.",
        "Sizes of tensors": "At depth k there are T - k rows, of the hidden states and of the ids alike.",
        "out of range": "Modules are numbered from 1 to len(model.mtp)."})
    if isinstance(got, Tensor) or not isinstance(got, (list, tuple)):
        raise Wrong(f"a list of logits is needed, one for each depth, and your function returned a "
                    f"{type(got).__name__}")
    if any(isinstance(one, Ahead) for one in got):
        raise Wrong("the list should hold each depth's logits, and yours holds the whole object: .logits")
    if len(got) != len(model.mtp):
        if not got:
            raise Wrong("the list is empty")
        raise Wrong(f"there are {len(model.mtp)} modules, so {len(model.mtp)} depths, and your list has {len(got)}")
    if all(one is None or one is ... for one in got):
        raise Unsolved
    truth = [ahead.logits for ahead in model.predict_ahead(model(ids).hidden, ids)]
    wrong = [("is the hidden state taken before the final norm? The module reads what the head reads: "
              "model.final_norm(…)", _chain(model, ids, norm=False)),
             ("does every depth read the main model's hidden states? In the chain depth 2 reads those of depth 1",
              _chain(model, ids, from_main=True)),
             ("is the start of the hidden states dropped? Row i takes hidden i, so their *end* is dropped",
              _chain(model, ids, late=True)),
             ("is the final norm applied once more? A module's hidden state is behind its own norm already",
              _chain(model, ids, again=True)),
             ("is it module 1 at every depth? Depth k has module k", _chain(model, ids, module=lambda k: 1))]
    for k, one in enumerate(got, start=1):
        one = tensor(lambda one=one: one, shape=(B, T - k, V), names=f"depth {k}: [B, T - {k}, V]", shape_hints={
            (B, T - k, model.config.d_model): "Those are hidden states; .logits is wanted.",
            (B, T, V): "Depth k has T - k rows: hidden[:, :T - k] and ids[:, k:]."})
        compare(one, truth[k - 1], [(said, chain[k - 1]) for said, chain in wrong
                                    if not torch.allclose(chain[k - 1], truth[k - 1], atol=1e-4)])
    return "three depths, each reading the one before: the causal chain"
