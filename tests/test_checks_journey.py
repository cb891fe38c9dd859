"""Checks of the first lesson, "The journey of a token": known wrong answers, and right ones written otherwise."""

import torch
import torch.nn.functional as F

from llm_core import LanguageModel, ModelConfig, accounting
from tests.test_checks import verdict


def future(T):
    return torch.ones(T, T).triu(1).bool()


def attend(q, k, v, scale=0.5, hidden=None, by=-torch.inf, dim=-1):
    scores = q @ k.transpose(-2, -1) * scale
    hidden = future(scores.shape[-1]) if hidden is None else hidden
    return scores.masked_fill(hidden, by).softmax(dim) @ v


def gpt(d, n, vocab, context, **changes):
    """The count from counts of parts; a change replaces a part."""
    part = {"tables": (vocab + context) * d, "attention": 4 * (d * d + d), "feed_forward": 8 * d * d + 5 * d,
            "norms": 4 * d, "final": 2 * d, "head": 0, "blocks": n, **changes}
    block = part["attention"] + part["feed_forward"] + part["norms"]
    return part["tables"] + part["blocks"] * block + part["final"] + part["head"]


def root(x, eps=1e-5):
    return (x.var(-1, correction=0, keepdim=True) + eps).sqrt()


def normalise(x, weight, bias, deviation, mean=True):
    return (x - x.mean(-1, keepdim=True) if mean else x) / deviation * weight + bias


GPT3, V3 = ModelConfig.preset("gpt3-175b"), ModelConfig.preset("deepseek-v3")


def gpt3(d=24576, n=138, heads=None, d_ff=None, **changes):
    """GPT-3 with other sizes, in proportion unless told otherwise; as it stands, of about 10^12 parameters."""
    return GPT3.replace(d_model=d, n_layers=n, attention=GPT3.attention.replace(n_heads=heads or d // 128),
                        feed_forward=GPT3.feed_forward.replace(d_ff=d_ff or 4 * d), **changes)


def v3(n_routed_experts=384, n_layers=61, **changes):
    """DeepSeek-V3 with other experts; as it stands, of about 10^12 parameters."""
    return V3.replace(n_layers=n_layers, moe=V3.moe.replace(n_routed_experts=n_routed_experts, **changes))


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "input_embedding": [
        (lambda ids, table, p: table[ids] + p[1:ids.shape[1] + 1], "counted from 1"),
        (lambda ids, table, p: table[ids], "where does the position come in"),
        (lambda ids, table, p: p[:ids.shape[1]].expand(*ids.shape, -1), "where does the token come in"),
        (lambda ids, table, p: table[ids] + p[0], "first position"),
        (lambda ids, table, p: table[ids] + p[ids.shape[1]], "same position"),
        (lambda ids, table, p: table[ids] * p[:ids.shape[1]], "should be added"),
        (lambda ids, table, p: table[ids] * table.shape[1]**0.5 + p[:ids.shape[1]], "root of the width"),
        (lambda ids, table, p: torch.cat([table[ids], p[:ids.shape[1]].expand(*ids.shape, -1)], -1), "side by side"),
        (lambda ids, table, p: table[ids] + p, "instead of the first T"),
        (lambda ids, table, p: table[ids] + p[ids], "0 to T - 1"),
        (lambda ids, table, p: (table[ids] + p[:ids.shape[1]]).flatten(0, 1), "flattened"),
        (lambda ids, table, p: table[ids] + 2 * p[:ids.shape[1]], "numbers do not"),
    ],
    "layer_norm": [
        (lambda x, w, b: normalise(x, w, b, (x.var(-1, keepdim=True) + 1e-5).sqrt()), "N - 1"),
        (lambda x, w, b: normalise(x, w, b, x.std(-1, keepdim=True)), "N - 1"),
        (lambda x, w, b: normalise(x, w, b, x.std(-1, keepdim=True) + 1e-5), "N - 1"),
        (lambda x, w, b: normalise(x, w, b, x.std(-1, correction=0, keepdim=True) + 1e-5), "standard deviation?"),
        (lambda x, w, b: normalise(x, w, b, x.std(-1, correction=0, keepdim=True)), "eps is missing"),
        (lambda x, w, b: normalise(x, w, b, x.var(-1, correction=0, keepdim=True) + 1e-5), "divided by the variance"),
        (lambda x, w, b: normalise(x, w, b, (x.square().mean(-1, keepdim=True) + 1e-5).sqrt(), mean=False), "RMSNorm"),
        (lambda x, w, b: normalise(x, 1, 0, root(x)), "weight and bias for"),
        (lambda x, w, b: normalise(x, w, 0, root(x)), "Where is the bias"),
        (lambda x, w, b: normalise(x, b, w, root(x)), "swapped"),
        (lambda x, w, b: (x - x.mean(-2, keepdim=True)) / (x.var(-2, correction=0, keepdim=True) + 1e-5).sqrt() * w + b,
         "over the tokens"),
        (lambda x, w, b: (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * w + b, "each token is normalised"),
        (lambda x, w, b: x - x.mean(-1), "keepdim=True"),
        (lambda x, w, b: x.mean(-1, keepdim=True), "one number a token"),
    ],
    "causal_attention_by_hand": [
        (lambda q, k, v: attend(q, k, v, scale=1.0), "is the scale applied?"),
        (lambda q, k, v: attend(q, k, v, scale=1.0) / 2, "is the scale applied before the softmax?"),
        (lambda q, k, v: attend(q, k, v, scale=0.25), "divided by d"),
        (lambda q, k, v: attend(q, k, v, scale=2.0), "multiplied by the root"),
        (lambda q, k, v: attend(q, k, v, scale=6**-0.5), "that of a value"),
        (lambda q, k, v: attend(q, k, v, hidden=torch.zeros(5, 5).bool()), "is the mask on?"),
        (lambda q, k, v: (q @ k.mT / 2).softmax(-1).masked_fill(future(5), 0) @ v, "after the softmax"),
        (lambda q, k, v: attend(q, k, v, by=0), "-inf is needed"),
        (lambda q, k, v: attend(q, k, v, hidden=future(5).T), "wrong way round"),
        (lambda q, k, v: attend(q, k, v, hidden=torch.ones(5, 5).triu().bool()), "diagonal"),
        (lambda q, k, v: attend(q, k, v, dim=-2), "which dimension"),
        (lambda q, k, v: attend(q, k, v, dim=0), "which dimension"),
        (lambda q, k, v: attend(k, q, v), "swapped"),
        (lambda q, k, v: q @ k.permute(2, 1, 0) @ v, "k.transpose(-2, -1)"),
        (lambda q, k, v: (q @ k.mT / 2).masked_fill(future(5), -torch.inf).softmax(-1), "multiply them with v"),
        (lambda q, k, v: attend(q[:1], k[:1], v), "head 0"),
        (lambda q, k, v: attend(q[0], k[0], v[0]), "All heads are wanted"),
    ],
    "count_gpt": [
        (lambda d, n, V, P: gpt(d, n, V, P, head=V * d), "tied"),
        (lambda d, n, V, P: gpt(d, n, V, P, tables=V * d), "position embedding"),
        (lambda d, n, V, P: gpt(d, n, V, P, tables=P * d), "the token embedding"),
        (lambda d, n, V, P: gpt(d, n, V, P, final=0), "final norm"),
        (lambda d, n, V, P: gpt(d, n, V, P, norms=0), "two norms"),
        (lambda d, n, V, P: gpt(d, n, V, P, attention=4 * d * d + d), "queries, keys and values"),
        (lambda d, n, V, P: gpt(d, n, V, P, attention=3 * (d * d + d)), "too few"),
        (lambda d, n, V, P: gpt(d, n, V, P, attention=4 * d * d, feed_forward=8 * d * d),
         "4 d_model in attention and 5 d_model"),
        (lambda d, n, V, P: gpt(d, n, V, P, feed_forward=4 * d * d + 5 * d), "half of the feed"),
        (lambda d, n, V, P: gpt(d, n, V, P, blocks=1), "only one block"),
        (lambda d, n, V, P: gpt(d, n, V, P) + 0.5, "whole number"),
        (lambda d, n, V, P: 124_439_808, "gpt2-xl"),
    ],
    "one_trillion": [
        (lambda: v3(), "only one config came back"),
        (lambda: (gpt3(), v3(), v3()), "a tuple of 3"),
        (lambda: 10**12, "two configs are needed"),
        (lambda: ("gpt3-175b", v3()), "the first result should be a ModelConfig, and yours is a str. A name becomes"),
        (lambda: (gpt3(), v3().moe), "yours is a MoEConfig. That is one part of a config"),
        (lambda: (accounting.count_parameters(gpt3()), v3()), "the check counts"),
        (lambda: (10**12, 10**12), "the check counts"),
        (lambda: (gpt3(), LanguageModel(ModelConfig.preset("deepseek-mini"))), "Start from a preset"),
        (lambda: (v3(), gpt3()), "wrong way round"),
        (lambda: (v3(), v3()), "not dense"),
        (lambda: (gpt3(), gpt3()), "its moe is None"),
        (lambda: (gpt3(), v3(first_k_dense=61)), "no block with experts: all of its 61"),
        (lambda: (gpt3(), v3(n_expert_groups=1, n_limited_groups=1, n_experts_per_token=384)), "none of them rests"),
        (lambda: (GPT3, V3), "dense has 174,604,259,328 parameters, 82.54 % less than 10^12"),
        (lambda: (gpt3(), V3), "experts has 671,026,404,352 parameters, 32.90 % less than 10^12"),
        (lambda: (gpt3(), ModelConfig.preset("kimi-k2")), "experts has 1,026,408,209,408 parameters, 2.64 % more"),
        (lambda: (gpt3(n=135), v3()), "2.02 % less"),
        (lambda: (GPT3.replace(d_model=24576), v3()), "replace changes what it is told"),
        (lambda: (GPT3.replace(vocab_size=67_000_000), v3()), "a book of tokens and no train"),
        (lambda: (gpt3(max_seq_len=30_000_000, n=36), v3()), "a book of tokens and no train"),
        (lambda: (gpt3(n=152), v3()), "taken as 2^40"),
        (lambda: (gpt3(d=2048, n=18), v3()), "a thousand times"),
        (lambda: (gpt3(), v3(n_experts_per_token=128, n_layers=173)), "Wanted is the total"),
        (lambda: (gpt3(), v3(256, n_experts_per_token=12)), "the active parameters alone"),
        (lambda: (gpt3(), V3.replace(feed_forward=V3.feed_forward.replace(d_ff=200_000))), "the dense first blocks"),
        (lambda: (gpt3(d=24600, heads=192).replace(attention=GPT3.attention.replace(n_heads=97, head_dim=None)), v3()),
         "your function stopped with ValueError: n_heads 97 does not divide d_model 24600"),
    ],
}
RIGHT = {
    "layer_norm": [lambda x, w, b: F.layer_norm(x, w.shape, w, b)],
    "causal_attention_by_hand": [lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)],
    "count_gpt": [gpt, lambda *a: float(gpt(*a))],
    "one_trillion": [
        lambda: (gpt3(), v3()),
        lambda: [gpt3(d=25600, n=127), v3(256, d_expert=3072)],
        lambda: (GPT3.replace(n_layers=551), v3(256, n_layers=90)),  # an odd shape, but of the size that was asked for
        lambda: (gpt3(heads=96, d_ff=5 * 24576).replace(n_layers=139), V3.replace(d_model=7168 * 3 // 2)),
        lambda: (ModelConfig.preset("llama-3.1-405b").replace(n_layers=315), v3()),
        lambda: (gpt3(), ModelConfig.preset("kimi-k2").replace(n_layers=60)),
        lambda: (gpt3(), ModelConfig.preset("mixtral-8x7b").replace(n_layers=690)),
    ],
}


def test_a_trillion_is_compared_by_what_accounting_counts(capsys):
    said = verdict("one_trillion", lambda: (gpt3(), v3()), capsys)
    counts = [accounting.count_parameters(config) for config in (gpt3(), v3())]
    ratio = counts[0].active / counts[1].active
    for words in (f"{counts[0].total:,} and {counts[1].total:,} parameters", f": {ratio:.3g} times fewer",
                  accounting.human_count(counts[1].active), "13.6 MB", "70.3 kB"):
        assert words in said, said
