"""Answers to the exercises of the capstone, the lesson that assembles a small DeepSeek."""

import statistics

import torch

from llm_core import ModelConfig, accounting


def expert_layer(x, router, bias, experts, shared, k, scale, score=torch.sigmoid, select=1, gates=0, norm=True,
                 weigh=True, own=1.0, skip=False):
    scores = score(x @ router.T)
    chosen = (scores + select * bias).topk(k).indices
    weights = (scores + gates * bias).gather(1, chosen)
    weights = weights / weights.sum(-1, keepdim=True) if norm else weights
    weights = scale * (weights if weigh else torch.ones_like(weights))
    out = own * shared(x) + skip * x
    for e, expert in enumerate(experts):
        token, place = (chosen == e).nonzero(as_tuple=True)
        out = out.index_add(0, token, weights[token, place, None] * expert(x[token]))
    return out


def by_token(x, router, bias, experts, shared, k, scale):
    out = []
    for t in x.double():
        scores = (router.double() @ t).sigmoid()
        chosen = (scores + bias).topk(k).indices
        total = scores[chosen].sum()
        out.append(sum(scale * scores[e] / total * experts[e](t[None].float())[0] for e in chosen))
    return torch.stack(out) + shared(x)


def write(model, prompt, n, first=None, row=-1, again=False, new_cache=False, steps=0, with_prompt=False):
    cache, new, unread = [], [], list(prompt)[:first]
    while len(new) < n + steps:
        logits = model(torch.tensor([unread]), [] if new_cache else cache)
        new.append(logits[0, row].argmax().item())
        unread = list(prompt) + new if again else new[-1:]
    return list(prompt) + new if with_prompt else new


def piece_by_piece(model, prompt, n):
    cache = []
    for token in prompt:
        row = model(torch.tensor([[token]]), cache)[0, 0]
    new = torch.tensor([row.argmax()])
    while len(new) < n:
        new = torch.cat([new, model(new[None, -1:], cache)[0, 0].argmax()[None]])
    return new


def active(config, d_ff, count="active"):
    changed = config.replace(feed_forward=config.feed_forward.replace(d_ff=d_ff))
    return getattr(accounting.count_parameters(changed), count)


def fair(gpt, deepseek, of="active", mtp=False, per=None, up=False):
    counts = accounting.count_parameters(deepseek)
    budget = getattr(counts, of) + mtp * counts.mtp
    step = per or active(gpt, 2) - active(gpt, 1)
    d_ff = 1 + (budget - active(gpt, 1)) // step
    return d_ff + (up and (budget - active(gpt, 1)) % step > 0)


def by_halves(gpt, deepseek):
    low, high, budget = 1, 2**20, accounting.count_parameters(deepseek).active
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if active(gpt, middle) <= budget else (low, middle)
    return float(low)


def verdict(a, b, left=max, right=min):
    return "a" if left(a) < right(b) else "b" if left(b) < right(a) else "no verdict"


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "block_output": [
        (lambda x, a, f, n, m: (y := x + a(x)) + f(m(y)), "first norm left out"),
        (lambda x, a, f, n, m: (y := x + a(n(x))) + f(y), "second norm left out"),
        (lambda x, a, f, n, m: (y := x + a(x)) + f(y), "both norms left out"),
        (lambda x, a, f, n, m: (y := x + a(m(x))) + f(n(y)), "swapped"),
        (lambda x, a, f, n, m: m((y := n(x + a(x))) + f(y)), "first transformers"),
        (lambda x, a, f, n, m: (y := x + n(a(x))) + m(f(y)), "result of a part normed"),
        (lambda x, a, f, n, m: (y := n(x) + a(n(x))) + f(m(y)), "normed copy added back"),
        (lambda x, a, f, n, m: m(y := n(x) + a(n(x))) + f(m(y)), "normed copies added back"),
        (lambda x, a, f, n, m: m(y := x + a(n(x))) + f(m(y)), "second normed copy"),
        (lambda x, a, f, n, m: (y := a(n(x))) + f(m(y)), "first skip"),
        (lambda x, a, f, n, m: f(m(x + a(n(x)))), "second skip"),
        (lambda x, a, f, n, m: f(m(a(n(x)))), "where are the skip connections"),
        (lambda x, a, f, n, m: x + a(n(x)) + f(m(x)), "do both parts read x?"),
        (lambda x, a, f, n, m: x + f(m(x + a(n(x)))), "added twice"),
        (lambda x, a, f, n, m: (y := x + f(m(x))) + a(n(y)), "come first"),
    ],
    "expert_layer": [
        (lambda *z: expert_layer(*z, own=0), "where is the shared expert?"),
        (lambda *z: expert_layer(*z[:-1], 1), "is the scale left out?"),
        (lambda *z: expert_layer(*z, own=z[-1]), "multiply the shared expert"),
        (lambda *z: expert_layer(*z, select=0), "is the bias left out?"),
        (lambda *z: expert_layer(*z, gates=1), "gather from the bare scores"),
        (lambda *z: expert_layer(*z, gates=1, norm=False), "It only selects; and"),
        (lambda *z: expert_layer(*z, norm=False), "sum to 1 before"),
        (lambda *z: expert_layer(*z, score=lambda t: t.softmax(-1)), "a softmax"),
        (lambda *z: expert_layer(*z, score=lambda t: t), "sigmoid left out"),
        (lambda *z: expert_layer(*z, weigh=False), "are the weights left out?"),
        (lambda *z: expert_layer(*z, skip=True), "is x added?"),
        (lambda x, r, b, e, s, k, scale: s(x) + scale * sum((x @ r.T).sigmoid()[:, i, None] * e[i](x)
                                                            for i in range(len(e))), "for every token"),
    ],
    "write_greedily": [
        (lambda *z: write(*z, again=True), "at every call"),
        (lambda *z: write(*z, new_cache=True), "a new cache"),
        (lambda *z: write(*z, again=True, new_cache=True), "again and again"),
        (lambda *z: write(*z, row=0), "first row"),
        (lambda *z: write(*z, first=1), "only one token of the prompt"),
        (lambda *z: write(*z, with_prompt=True), "what follows"),
        (lambda *z: write(*z, steps=1), "tokens are wanted"),
        (lambda *z: write(*z, steps=-1) or [], "tokens are wanted"),
        (lambda model, prompt, n: model(prompt, []), "ids must be"),
        (lambda model, prompt, n: [0] * n, "it should write"),
    ],
    "fair_d_ff": [
        (lambda g, d: fair(g, d, "total"), "DeepSeek's total?"),
        (lambda g, d: fair(g, d, "total", mtp=True), "MTP module included"),
        (lambda g, d: fair(g, d) + 1, "One less"),
        (lambda g, d: fair(g, d, per=2 * g.n_layers * g.d_model), "There is a bias"),
        (lambda g, d: fair(g, d, per=g.n_layers * (3 * g.d_model + 1)), "not three"),
        (lambda g, d: g.feed_forward.d_ff, "GPT's own"),
        (lambda g, d: d.feed_forward.d_ff, "DeepSeek's d_ff"),
        (lambda g, d: fair(g, d, "active_no_input_embedding"), "on one side only"),
        (lambda g, d: 100, "beside a DeepSeek"),
        (lambda g, d: 100.5, "a whole number"),
    ],
    "beyond_luck": [
        (lambda a, b: {"a": "b", "b": "a"}.get(verdict(a, b), "no verdict"), "turned round"),
        (lambda a, b: verdict(a, b, statistics.mean, statistics.mean), "only the means"),
        (lambda a, b: verdict(a, b, min, min), "only the best runs"),
        (lambda a, b: verdict(a, b, max, max), "only the worst runs"),
        (lambda a, b: verdict(a, b, min, max), "nearly always"),
        (lambda a, b: "a" if all(x < y for x, y in zip(a, b)) else "b" if all(y < x for x, y in zip(a, b))
         else "no verdict", "seed compared with seed"),
        (lambda a, b: "a" if max(a) <= min(b) else "b" if max(b) <= min(a) else "no verdict", "no win"),
        (lambda a, b: "a" if max(a) < min(b) else "no verdict", "the second arm"),
        (lambda a, b: "no verdict" if abs(statistics.mean(a) - statistics.mean(b)) <= max(
            max(a) - min(a), max(b) - min(b)) else verdict(a, b, statistics.mean, statistics.mean), "with the spread"),
        (lambda a, b: max(a) < min(b), "a bool"),
        (lambda a, b: "tie", "the answer is"),
    ],
}
RIGHT = {
    "block_output": [
        lambda x, a, f, n, m: x + (y := a(n(x))) + f(m(x + y)),
        lambda x, a, f, n, m: ((y := x + a(n(x))) + f(m(y))).double(),
    ],
    "expert_layer": [by_token, expert_layer],
    "write_greedily": [piece_by_piece, lambda model, prompt, n: torch.tensor(write(model, prompt, n))],
    "fair_d_ff": [by_halves, fair],
    "beyond_luck": [
        lambda a, b: "a" if all(x < y for x in a for y in b) else "b" if all(y < x for x in a for y in b)
        else "no verdict",
        lambda a, b: verdict(a, b).upper(),
    ],
}


def test_the_figure_in_the_last_sentence_is_the_largest_that_fits():
    gpt, mini = ModelConfig.preset("gpt-mini"), ModelConfig.preset("deepseek-mini")
    d_ff, budget = fair(gpt, mini), accounting.count_parameters(mini).active
    assert active(gpt, d_ff) <= budget < active(gpt, d_ff + 1)
