"""Checks of the lesson on multi-query and grouped-query attention: wrong answers get a hint, right ones may differ."""

import torch
import torch.nn.functional as F

from llm_core import ModelConfig, accounting


def attend(q, k, v, copy_k="neighbours", copy_v="neighbours", scale=0.5, mask=True):
    """The solution, with one thing that may be wrong."""
    R = q.shape[1] // k.shape[1]
    ways = {"neighbours": lambda t: t.repeat_interleave(R, 1), "dealt": lambda t: t.repeat(1, R, 1, 1),
            "first": lambda t: t[:, :1].expand(q.shape)}
    k, v = ways[copy_k](k), ways[copy_v](v)
    scores = q @ k.mT * scale
    if mask:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
    return scores.softmax(-1) @ v


def groups_last(q, k, v):
    """The view of q has the group's heads before the groups."""
    B, H, T, d = q.shape
    G = k.shape[1]
    q = q.view(B, H // G, G, T, d)
    scores = (q @ k[:, None].mT / 2).masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf)
    return (scores.softmax(-1) @ v[:, None]).reshape(B, H, T, d)


def pooled(w, H, G, collect=torch.mean):
    return collect(w.view(G, H // G, len(w) // H, -1), dim=1).reshape(-1, w.shape[1])


def spread(w, H, G):
    return w.view(G, len(w) // G, -1).repeat_interleave(H // G, 0).reshape(-1, w.shape[1])


def size(config, n, batch, tokens, bits=16):
    changed = config.replace(attention=config.attention.replace(n_heads=n, n_kv_heads=n, head_dim=config.head_dim))
    return accounting.cache_bytes(changed, batch, tokens, bits)


def fitting(config, memory, batch, tokens, divides=True, bits=16, strict=False, least=0, pick=max):
    H = config.attention.n_heads
    return pick((n for n in range(1, H + 1) if (H % n == 0 or not divides)
                 and size(config, n, batch, tokens, bits) <= memory - strict), default=least)


# Exercise -> (a known wrong answer, words that its hint must contain).
WRONG = {
    "key_head_of": [
        (lambda h, H, G: h % G, "dealt in turn"),
        (lambda h, H, G: h // G, "divided by the number of groups"),
        (lambda h, H, G: h % (H // G), "place within its group"),
        (lambda h, H, G: h, "that is MHA"),
        (lambda h, H, G: 0, "that is MQA"),
        (lambda h, H, G: h // (H // G) + 1, "counted from 0"),
        (lambda h, H, G: G - 1 - h // (H // G), "turned round"),
        (lambda h, H, G: h / (H / G), "a whole number of heads"),
        (lambda h, H, G: min(h // (H // G), 1), "for query head 6 of 9 with 3 key-value heads it should be 2"),
        (lambda h, H, G: [h // (H // G)], "you have a list"),
    ],
    "grouped_attention_by_hand": [
        (lambda q, k, v: attend(q, k, v, mask=False), "is the mask on?"),
        (lambda q, k, v: attend(q, k, v, scale=1.0), "is the scale applied?"),
        (lambda q, k, v: attend(q, k, v, scale=0.25), "divided by d"),
        (lambda q, k, v: attend(q, k, v, "dealt", "dealt"), "are key heads dealt in turn?"),
        (lambda q, k, v: attend(q, k, v, "neighbours", "dealt"), "the values are dealt in turn"),
        (lambda q, k, v: attend(q, k, v, "dealt", "neighbours"), "the keys are dealt in turn"),
        (lambda q, k, v: attend(q, k, v, "first", "first"), "That is MQA"),
        (groups_last, "the groups come first"),
        (lambda q, k, v: attend(q, v, k), "keys and values are swapped"),
        (lambda q, k, v: (q @ k.mT).softmax(-1) @ v, "copy it with repeat_interleave"),
        (lambda q, k, v: attend(q[:, :k.shape[1]], k, v), "one result for each key head"),
        (lambda q, k, v: attend(q, k, v).transpose(1, 2), "heads before the tokens"),
        (lambda q, k, v: attend(q, k, v).transpose(1, 2).flatten(2), "joined already"),
        (lambda q, k, v: attend(q, k, v).unflatten(1, (k.shape[1], -1)), "join them: reshape"),
        (lambda q, k, v: q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).mT, "Those are the shares"),
        (lambda q, k, v: attend(q, k, v) * torch.nan, "Is a whole row hidden"),
        (lambda q, k, v: q.view(2, k.shape[1], 2, 5, 4), "must multiply to what is there"),
    ],
    "pool_heads": [
        (lambda w, H, G: pooled(w, H, G, torch.sum), "summed"),
        (lambda w, H, G: w.view(G, H // G, len(w) // H, -1)[:, 0].reshape(-1, w.shape[1]), "first head"),
        (lambda w, H, G: w.view(G, H // G, len(w) // H, -1)[:, -1].reshape(-1, w.shape[1]), "last head"),
        (lambda w, H, G: w.view(H // G, G, len(w) // H, -1).mean(0).reshape(-1, w.shape[1]), "heads g, g + G"),
        (lambda w, H, G: w.view(G * len(w) // H, H // G, -1).mean(1), "neighbouring *rows*"),
        (lambda w, H, G: w.view(H, len(w) // H, -1).mean(0).repeat(G, 1), "that of its own"),
        (lambda w, H, G: pooled(w, H, G).view(G, -1, w.shape[1]), "The heads are apart"),
        (lambda w, H, G: w, "There are still n_heads heads"),
        (lambda w, H, G: w.view(G, H // G, len(w) // H, -1).mean(0).reshape(-1, w.shape[1]), "over the groups"),
        (lambda w, H, G: w.view(G, -1, w.shape[1]).mean(1), "only the heads of a group"),
        (lambda w, H, G: w.view(H, len(w) // H, -1).mean(0), "That is one head"),
        (lambda w, H, G: w.view(G, H, len(w) // H, -1), "must multiply to what weight has"),
    ],
    "as_multi_head": [
        (lambda w, H, G: w.repeat(H // G, 1), "the whole matrix is repeated"),
        (lambda w, H, G: w.repeat_interleave(H // G, 0), "single rows are copied"),
        (lambda w, H, G: spread(w, H, G) * G / H, "divided by their number"),
        (lambda w, H, G: torch.cat([w, w.new_zeros(len(w) // G * (H - G), w.shape[1])]), "filled with zeros"),
        (lambda w, H, G: w[:len(w) // G].repeat(H, 1), "every query head has key head 0"),
        (lambda w, H, G: spread(w, H, G).view(H, -1, w.shape[1]), "The heads are apart"),
        (lambda w, H, G: w, "There are still n_kv_heads heads"),
        (lambda w, H, G: w.repeat(H, 1), "not H times"),
        (lambda w, H, G: w.repeat(1, H // G), "The heads are in the rows"),
        (lambda w, H, G: w.view(H, len(w) // G, -1), "must multiply to what weight has"),
    ],
    "kv_heads_that_fit": [
        (lambda *a: fitting(*a, divides=False), "must divide n_heads"),
        (lambda c, m, b, t: next((n for n in (32, 16, 8, 4, 2, 1) if c.attention.n_heads % n == 0
                                  and size(c, n, b, t) <= m), 0), "powers of two"),
        (lambda *a: fitting(*a, least=1), "the answer is 0"),
        (lambda *a: fitting(*a, strict=True), "fill the memory exactly"),
        (lambda *a: fitting(*a, pick=min), "the smallest is always 1"),
        (lambda c, m, b, t: fitting(c, m, 1, t), "every text of the batch"),
        (lambda c, m, b, t: fitting(c, m, b, 1), "a single token"),
        (lambda *a: fitting(*a, bits=32), "taken as 4 bytes"),
        (lambda *a: fitting(*a, bits=8), "taken as 1 byte"),
        (lambda c, m, b, t: c.attention.kv_heads * (size(c, c.attention.kv_heads, b, t) <= m), "config's own number"),
        (lambda c, m, b, t: min(fitting(c, m, b, t), c.attention.n_heads // 2), "MHA is allowed"),
        (lambda c, m, b, t: m / size(c, 1, b, t), "a whole number"),
        (lambda c, m, b, t: 8, "texts of"),
    ],
}


def by_loop(q, k, v):
    R = q.shape[1] // k.shape[1]
    heads = [attend(q[:, h:h + 1].double(), k[:, h // R][:, None].double(), v[:, h // R][:, None].double())
             for h in range(q.shape[1])]
    return torch.cat(heads, 1)


RIGHT = {
    "key_head_of": [
        lambda h, H, G: h * G // H,
        lambda h, H, G: float(h // (H // G)),
        lambda h, H, G: torch.arange(G).repeat_interleave(H // G)[h],
    ],
    "grouped_attention_by_hand": [
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True,
                                                                                 enable_gqa=True),
        attend,
        by_loop,
    ],
    "pool_heads": [
        lambda w, H, G: torch.cat([torch.stack(part.chunk(H // G)).mean(0) for part in w.chunk(G)]),
        lambda w, H, G: pooled(w.double(), H, G),
    ],
    "as_multi_head": [
        lambda w, H, G: torch.cat([w.chunk(G)[h // (H // G)] for h in range(H)]),
        lambda w, H, G: w.unflatten(0, (G, 1, -1)).expand(-1, H // G, -1, -1).flatten(0, 2).double(),
    ],
    "kv_heads_that_fit": [
        fitting,
        lambda c, m, b, t: torch.tensor(fitting(c, m, b, t)),
    ],
}


def test_a_pooled_matrix_of_equal_heads_is_those_heads():
    w = torch.randn(8, 3)
    assert torch.equal(pooled(spread(w, 4, 2), 4, 2), w)  # the two exercises undo each other


def test_the_figures_in_the_last_sentence_are_true():
    assert fitting(ModelConfig.preset("llama-3.1-8b"), 60 * 10**9, 32, 8192) == 8
    assert fitting(ModelConfig.preset("llama-3.1-405b"), 10**11, 1, 131_072) == 8
