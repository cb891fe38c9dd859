"""Checks of the lesson "A DeepSeek of your own"."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_core import accounting
from llm_core.block import Block
from llm_core.checks.cases import judge, numbers, whole, whole_numbers
from llm_core.checks.core import Wrong, attempt, check, compare, random, tensor
from llm_core.config import ModelConfig, MoEConfig
from llm_core.moe import MoE


@check
def block_output(function) -> str:
    """function(x [B, T, D], attention, feed_forward, norm_1, norm_2) -> [B, T, D], pre-norm with two residuals."""
    B, T, D = 2, 3, 4
    x, weights = random(B, T, D, seed=901), random(4, D, D, seed=902) / 2
    a, f = (lambda t: (t @ weights[0]).tanh()), (lambda t: (t @ weights[1]).tanh())
    n, m = (lambda t: F.rms_norm(t, (D,)) * weights[2, 0]), (lambda t: F.rms_norm(t, (D,)) * weights[3, 0])
    block = Block(ModelConfig.preset("deepseek-mini"), 0)  # the real block's wiring, around the parts at hand
    block.attention_norm, block.feed_forward_norm = _Part(n), _Part(m)
    block.attention, block.feed_forward = _Part(lambda t, rope, cache: a(t)), _Part(f)
    block.eval()
    got = tensor(function, x, a, f, n, m, shape=(B, T, D), names="[B, T, D]")
    y = x + a(n(x))
    compare(got, block(x, None)[0], [
        ("is the first norm left out? Attention reads norm_1(x)", (z := x + a(x)) + f(m(z))),
        ("is the second norm left out? The feed-forward network reads norm_2", y + f(y)),
        ("are both norms left out?", (z := x + a(x)) + f(z)),
        ("are the norms swapped?", (z := x + a(m(x))) + f(n(z))),
        ("that is the order of the first transformers, norm after the sum; DeepSeek norms what a part *reads*",
         m((z := n(x + a(x))) + f(z))),
        ("is the result of a part normed? The norm comes before it", (z := x + n(a(x))) + m(f(z))),
        ("is the normed copy added back? The stream itself is never normed", (z := n(x) + a(n(x))) + f(m(z))),
        ("are the normed copies added back? The stream itself is never normed",
         m(z := n(x) + a(n(x))) + f(m(z))),
        ("is the second normed copy added back? The stream itself is never normed", m(y) + f(m(y))),
        ("where is the first skip connection? x + attention(...)", (z := a(n(x))) + f(m(z))),
        ("where is the second skip connection?", f(m(y))),
        ("where are the skip connections? x runs past both parts, and their results are added", f(m(a(n(x))))),
        ("do both parts read x? The feed-forward network reads what attention has added to it",
         x + a(n(x)) + f(m(x))),
        ("is x added twice? The second time, add to what attention has left", x + f(m(y))),
        ("does the feed-forward network come first?", (z := x + f(m(x))) + a(n(z))),
    ])
    return "the stream runs past both parts, and is never normed: so gradients reach the first block undisturbed"


class _Part(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *arguments):
        return self.function(*arguments)


@check
def expert_layer(function) -> str:
    """function(x [N, D], router [E, D], bias [E], experts, shared, k, scale) -> [N, D]: V3's layer, without groups."""
    config = ModelConfig.preset("deepseek-mini")
    config = config.replace(d_model=8, attention=config.attention.replace(n_heads=2))
    for N, E, k, scale in ((6, 5, 2, 2.5), (3, 8, 3, 0.5)):
        layer = MoE(config.replace(moe=MoEConfig(E, k, 4, n_shared_experts=1, scoring="sigmoid", norm_topk_prob=True,
                                                 routed_scaling_factor=scale, selection_bias=True))).eval()
        for i, p in enumerate(layer.parameters()):
            p.copy_(random(*p.shape, seed=910 + i))
        bias = layer.router.selection_bias.copy_(random(E, seed=920) / 3)
        x, e = random(N, 8, seed=921), layer.experts

        def expert(i, t, e=e):
            if t.dim() != 2 or t.shape[1] != 8:
                raise ValueError(f"an expert takes [n, 8], not {list(t.shape)}")
            return (F.silu(t @ e.gate[i].T) * (t @ e.up[i].T)) @ e.down[i].T

        experts, router = [lambda t, i=i: expert(i, t) for i in range(E)], layer.router.weight.detach()
        got = tensor(function, x, router, bias, experts, layer.shared, k, scale, shape=(N, 8), names="[N, D]",
                     shape_hints={(N, k, 8): "A token's results are added up."})
        every = torch.stack([expert(i, x) for i in range(E)], dim=1)  # [N, E, D]
        logits, shared = x @ router.T, layer.shared(x)

        def wrong(every=every, logits=logits, shared=shared, bias=bias, k=k, scale=scale, score=torch.sigmoid, b=1.0,
                  gates=0.0, norm=True, own=1.0) -> Tensor:
            scores = score(logits)
            chosen = (scores + b * bias).topk(k).indices
            weights = (scores + gates * bias).gather(1, chosen)
            weights = weights / weights.sum(-1, keepdim=True) if norm else weights
            return own * shared + scale * (weights[..., None] * _pick(every, chosen)).sum(1)

        chosen = (logits.sigmoid() + bias).topk(k).indices
        truth = layer(x[None])[0][0]
        compare(got, truth, [
            ("where is the shared expert? It serves every token", wrong(own=0.0)),
            ("is the scale left out? The routed experts' sum is multiplied by it", wrong(scale=1.0)),
            ("does the scale multiply the shared expert, too? It belongs to the routed ones", wrong(own=scale)),
            ("is the bias left out? It decides who is chosen", wrong(b=0.0)),
            ("is the bias in the weights? It only selects: gather from the bare scores", wrong(gates=1.0)),
            ("is the bias in the weights? It only selects; and they should sum to 1", wrong(gates=1.0, norm=False)),
            ("a token's weights should sum to 1 before they are scaled", wrong(norm=False)),
            ("is it a softmax? Here each expert is scored on its own, by a sigmoid",
             wrong(score=lambda t: t.softmax(-1))),
            ("is the sigmoid left out?", wrong(score=lambda t: t)),
            ("are the weights left out? Each result is multiplied by its own",
             shared + scale * _pick(every, chosen).sum(1)),
            ("is x added? The skip connection belongs to the block", truth + x),
            ("does every expert work for every token? Only the k chosen ones do", shared + scale * (
                logits.sigmoid()[..., None] * every).sum(1)),
        ])
    return "the shared expert with weight 1, the chosen ones with weights that sum to the scale: V3's is 2.5"


def _pick(every: Tensor, chosen: Tensor) -> Tensor:
    return every.gather(1, chosen[..., None].expand(-1, -1, every.shape[-1]))  # [N, k, D]


class _Reader:
    """model(ids, cache): a running sum of what was read decides what comes next. Counts what it is asked to read."""

    def __init__(self, prompt: int):
        self.prompt, self.read, self.other = prompt, [], ""

    def __call__(self, ids, cache):
        if not isinstance(ids, Tensor) or ids.dim() != 2 or len(ids) != 1:
            raise ValueError("ids must be a tensor [1, T]")
        if not isinstance(cache, list):
            raise ValueError("the cache must be the list")
        if ids.shape[1] == 0:
            raise ValueError("there is nothing to read")
        before = list(cache)
        cache += ids[0].tolist()
        self.read.append(ids.shape[1])
        if len(before) != sum(self.read[:-1]):
            self.other = "is a new cache made for each call? Make one, and give it every time"
        sums = torch.tensor(before + ids[0].tolist()).cumsum(0)[len(before):]
        return F.one_hot((7 * sums + 3) % 23, 23).float()[None]


def _next(text: list[int]) -> int:
    return (7 * sum(text) + 3) % 23


@check
def write_greedily(function) -> str:
    """function(model, prompt, n) -> n token ids; the prompt is read once, and each written token once at most."""
    for prompt, n in (([3, 1, 4, 1], 6), ([9], 1), ([2, 7], 9)):
        model = _Reader(len(prompt))
        result = whole_numbers(attempt(lambda p, n, model=model: function(model, p, n), list(prompt), n))
        text = list(prompt)
        for _ in range(n):
            text.append(_next(text))
        new = text[len(prompt):]
        if model.other and result != new:
            raise Wrong(model.other)
        if result == text:
            raise Wrong("the prompt is in your list; return what follows it")
        if len(result) != n:
            raise Wrong(f"{n} tokens are wanted, and yours are {len(result)}")
        twice = sum(model.read) > len(prompt) + n
        if result != new:
            if twice:
                raise Wrong("is the whole text read at every call? The cache has it already: read only the new token")
            if model.read and model.read[0] < len(prompt) and sum(model.read) < len(prompt) + n - 1:
                raise Wrong("is only one token of the prompt read? The first call reads all of it")
            if result and result[0] == _next(prompt[:1]) != new[0]:
                raise Wrong("is the first row of the logits taken? The next token stands in the last")
            raise Wrong(f"after {prompt} it should write {new}, and yours are {result}")
        if twice or model.other:
            raise Wrong("the text is right, but tokens are read again and again: give each call the cache and what is "
                        "new, and nothing else")
    return "the prompt in one call, then one token a call: 4 + 5 tokens are read to write 6 behind 4"


@check
def fair_d_ff(function) -> str:
    """function(gpt_config, deepseek_config) -> the largest d_ff with no more active parameters."""
    gpt, mini = ModelConfig.preset("gpt-mini"), ModelConfig.preset("deepseek-mini")
    lite = ModelConfig.preset("deepseek-v2-lite")
    big = ModelConfig.preset("gpt2-xl").replace(d_model=2048, n_layers=27, attention=gpt.attention.replace(n_heads=16))
    cases = ((gpt, mini), (gpt, mini.replace(n_layers=6)), (big, lite))

    def fits(gpt, other, of="active", matrices=2, biases=True, rounded=0):
        counts = accounting.count_parameters(other)
        budget = counts.total + counts.mtp if of == "all" else getattr(counts, of)
        one = accounting.count_parameters(gpt.replace(feed_forward=gpt.feed_forward.replace(d_ff=1))).total
        step = gpt.n_layers * (matrices * gpt.d_model + biases)
        return 1 + (budget - one + rounded * (step - 1)) // step

    numbers(function, cases, fits, [
        ("is it compared with the DeepSeek's total? A token meets only the active ones",
         lambda g, d: fits(g, d, of="total")),
        ("is it compared with the DeepSeek's total, MTP module included? Compare with the active ones",
         lambda g, d: fits(g, d, of="all")),
        ("is that the smallest d_ff with *more* than the budget? One less",
         lambda g, d: fits(g, d) + 1),
        ("is it rounded up? Then the GPT has more than the budget", lambda g, d: fits(g, d, rounded=1)),
        ("does each further d_ff cost two matrices' worth? There is a bias, too, in each block",
         lambda g, d: fits(g, d, biases=False)),
        ("GELU's network has two matrices, not three", lambda g, d: fits(g, d, matrices=3)),
        ("is that the GPT's own d_ff? Find the one that fits", lambda g, d: g.feed_forward.d_ff),
        ("is that the DeepSeek's d_ff?", lambda g, d: d.feed_forward.d_ff),
        ("is the embedding left out on one side only?", lambda g, d: fits(g, d, of="active_no_input_embedding")),
    ], lambda g, d: f"a GPT of width {g.d_model} and {g.n_layers} blocks beside a DeepSeek of {d.n_layers} blocks",
        lambda value: whole(value, "a whole number is needed"))
    own = fits(gpt, mini)
    return f"gpt-mini has {gpt.feed_forward.d_ff}; {own} would make it exactly fair to deepseek-mini by this rule"


@check
def beyond_luck(function) -> str:
    """function(a, b) -> "a", "b" or "no verdict"."""
    cases = (([2.1, 2.2, 2.0], [2.3, 2.4, 2.25]), ([2.5, 2.4, 2.6], [2.3, 2.1, 2.2]),
             ([2.1, 2.3, 2.0], [2.2, 2.4, 2.5]), ([2.0, 2.1, 2.2], [2.2, 2.3, 2.4]), ([1.0], [2.0]),
             ([2.6, 2.0, 2.6], [2.3, 2.2, 2.35]), ([2.1, 2.3, 2.4], [2.0, 2.2, 2.65]),
             ([2.3, 2.31, 2.3], [2.0, 2.05, 2.4]), ([2.3, 2.2], [2.1, 2.0, 2.15, 2.19]),
             ([1.9, 2.3, 2.5], [2.0, 2.4, 2.6]))

    def right(a, b):
        return "a" if max(a) < min(b) else "b" if max(b) < min(a) else "no verdict"

    def mean(values):
        return sum(values) / len(values)

    def by(left, other=None):
        other = other or left
        return lambda a, b: "a" if left(a) < other(b) else "b" if left(b) < other(a) else "no verdict"

    def spread(a, b):
        luck = max(max(a) - min(a), max(b) - min(b))
        return "no verdict" if abs(mean(a) - mean(b)) <= luck else "a" if mean(a) < mean(b) else "b"

    def read(answer):
        if not isinstance(answer, str):
            raise Wrong(f'the answer is "a", "b" or "no verdict", and you have a {type(answer).__name__}')
        if answer.strip().lower() not in ("a", "b", "no verdict"):
            raise Wrong(f'the answer is "a", "b" or "no verdict", and you have {answer[:40]!r}')
        return answer.strip().lower()

    judge(function, cases, right, [
        ("fewer bits are better: is the winner turned round?",
         lambda a, b: {"a": "b", "b": "a"}.get(right(a, b), "no verdict")),
        ("are more bits taken as better?", lambda a, b: "a" if min(a) > max(b) else "b" if min(b) > max(a) else
         "no verdict"),
        ("do only the means decide? They always differ a little", by(mean)),
        ("do only the best runs decide? One lucky seed would win", by(min)),
        ("do only the worst runs decide? Compare the worst of one with the best of the other", by(max)),
        ("is the best run of one compared with the worst of the other? That finds a winner nearly always",
         by(min, max)),
        ("is seed compared with seed? Here every run must beat every run of the other", lambda a, b: "a" if all(
            x < y for x, y in zip(a, b)) else "b" if all(y < x for x, y in zip(a, b)) else "no verdict"),
        ("are the means compared with the spread? Here all runs count: worst against best", spread),
        ("equal runs are no win: better means fewer, not as few", lambda a, b: "a" if max(a) <= min(b) else
         "b" if max(b) <= min(a) else "no verdict"),
        ("the second arm may win, too", lambda a, b: "a" if max(a) < min(b) else "no verdict"),
    ], read)
    return "strict, and still a coin of one in ten: three equal arms against three come out apart that often"
