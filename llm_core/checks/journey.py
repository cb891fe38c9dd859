"""Checks of the lesson "The journey of a token"."""

from __future__ import annotations

import math
import operator

import torch
import torch.nn.functional as F

from llm_core import accounting
from llm_core.attention.causal import causal_attention
from llm_core.checks.core import Wrong, attempt, check, compare, random, tensor
from llm_core.config import ModelConfig
from llm_core.validation import Part


@check
def input_embedding(function) -> str:
    """function(ids [B, T], table [V, D], positions [P, D]) -> [B, T, D]: token embedding plus position embedding."""
    table, positions = random(20, 6, seed=1), random(9, 6, seed=2)
    ids = torch.tensor([[3, 7, 3, 19], [0, 5, 5, 7]])
    B, T = ids.shape
    expected = {
        "names": "[B, T, D]",
        "hints": {"must match the size": "Do you add all rows of positions, instead of the first T?",
                  "out of": "Token ids choose rows of the table; 0 to T - 1 choose rows of positions."},
        "shape_hints": {(B, T, 12): "Are the two vectors put side by side? They are added, so the width stays D.",
                        (B * T, 6): "Was the batch flattened? Each text keeps its own rows.",
                        (T, 6): "Is only one text of the batch looked up?"},
    }
    got = tensor(function, ids, table, positions, shape=(B, T, 6), **expected)
    tokens, places = table[ids], positions[:T]
    compare(got, tokens + places, [
        ("are positions counted from 1? The lecture does so; code counts from 0, and the first token gets positions[0]",
         tokens + positions[1:T + 1]),
        ("token 3 comes twice in the first text and has the same vector both times: where does the position come in?",
         tokens),
        ("every text has the same vectors: where does the token come in?", places.expand(B, T, 6)),
        ("every token gets the first position; token t gets positions[t]", tokens + positions[0]),
        ("every token gets the same position; token t gets positions[t]", tokens + positions[T - 1]),
        ("every token gets the same position; token t gets positions[t]", tokens + positions[T]),
        ("is the position looked up by the token's id? It depends on the token's place alone",
         tokens + positions[ids.clamp(max=8)]),
        ("does the second text get another position? Every text begins at position 0",
         tokens + positions[torch.arange(B)][:, None]),
        ("the two vectors are multiplied; they should be added", tokens * places),
        ("is the token embedding multiplied by the root of the width? The first transformer did that (Vaswani et al. "
         "2017), GPT-2 does not", tokens * math.sqrt(6) + places),
    ])
    one = tensor(function, ids[:1, :1], table, positions, shape=(1, 1, 6), **expected)
    compare(one, (tokens + places)[:1, :1], [])
    return "token and position are added, in every text of the batch, and the width stays the same"


@check
def layer_norm(function) -> str:
    """function(x [..., D], weight [D], bias [D]) -> [..., D], with eps = 1e-5."""
    eps, weight, bias = 1e-5, random(8, seed=3) + 2, random(8, seed=4)
    x = random(2, 3, 8, seed=5) * 3 + 1
    x[0, 1] *= 1e-3  # so small that the place of eps shows
    expected = {
        "hints": {"must match the size": "Without keepdim=True, mean(-1) loses the last dimension; keep it."},
        "shape_hints": {(2, 3, 1): "That is one number a token: x itself should come out, normalised."},
    }
    got = tensor(function, x, weight, bias, shape=(2, 3, 8), names="[B, T, D]", **expected)

    centred = x - x.mean(-1, keepdim=True)
    variance, larger = x.var(-1, correction=0, keepdim=True), x.var(-1, correction=1, keepdim=True)
    normal = centred / (variance + eps).sqrt()

    def scaled(numbers):
        return numbers * weight + bias

    def over(*dims):
        return scaled((x - x.mean(dims, keepdim=True)) / (x.var(dims, correction=0, keepdim=True) + eps).sqrt())

    n_minus_1 = "did you divide by N - 1? torch's var and std do so unless given correction=0; layer norm uses N"
    compare(got, F.layer_norm(x, (8,), weight, bias, eps), [
        (n_minus_1, scaled(centred / (larger + eps).sqrt())),
        (f"{n_minus_1}. And eps is missing under the root", scaled(centred / larger.sqrt())),
        (f"{n_minus_1}. And eps belongs to the variance, under the root", scaled(centred / (larger.sqrt() + eps))),
        ("is eps added to the standard deviation? It belongs to the variance, under the root; a row of small numbers "
         "shows the difference", scaled(centred / (variance.sqrt() + eps))),
        ("eps is missing under the root: a row of small numbers shows the difference, and a row of equal numbers would "
         "be 0 / 0", scaled(centred / variance.sqrt())),
        ("is it divided by the variance? It should be the root of the variance, the standard deviation",
         scaled(centred / (variance + eps))),
        ("the mean is subtracted, but nothing is divided by the standard deviation", scaled(centred)),
        ("the mean is not subtracted. Without it this is RMSNorm, which we meet in DeepSeek",
         scaled(x / (x.square().mean(-1, keepdim=True) + eps).sqrt())),
        ("the mean is subtracted inside the variance, but not from x itself", scaled(x / (variance + eps).sqrt())),
        ("the mean runs over all numbers of all tokens; each token is normalised on its own, over its last dimension",
         over(0, 1, 2)),
        ("the mean runs over all tokens of a text; each token is normalised on its own", over(1, 2)),
        ("the mean runs over the batch; it should run over the last dimension, the numbers of one token", over(0)),
        ("the mean runs over the tokens; it should run over the last dimension, the numbers of one token", over(1)),
        ("mean and deviation are right. What are weight and bias for?", normal),
        ("the weight is there. Where is the bias?", normal * weight),
        ("the bias is there. Where is the weight?", normal + bias),
        ("are weight and bias swapped? weight multiplies, bias is added", normal * bias + weight),
        ("the bias is added before the weight multiplies; it comes last", (normal + bias) * weight),
    ], nan="Is eps under the root?")

    flat = torch.stack([torch.full((8,), 4.0), torch.arange(8.0)])
    got = tensor(function, flat, weight, bias, shape=(2, 8), names="[T, D]", **expected)
    compare(got, F.layer_norm(flat, (8,), weight, bias, eps), [],
            nan="A row of equal numbers has variance 0: is eps under the root?")
    return "mean 0 and standard deviation 1 for each token, then weight and bias; a row of equal numbers does no harm"


@check
def causal_attention_by_hand(function) -> str:
    """function(q [H, T, d], k [H, T, d], v [H, T, d_v]) -> [H, T, d_v]."""
    H, T, d, d_v = 3, 5, 4, 6
    q, k, v = random(H, T, d, seed=6), random(H, T, d, seed=7), random(H, T, d_v, seed=8)
    turned = "k must be turned: k.transpose(-2, -1) swaps its last two dimensions, while k.T would swap all three."
    got = tensor(function, q, k, v, shape=(H, T, d_v), names="[H, T, d_v]",
                 hints={"must match": turned, "Expected size": turned, "cannot be multiplied": turned},
                 shape_hints={(H, T, T): "Those are the attention weights; multiply them with v.",
                              (T, d_v): "All heads are wanted, one after the other in dimension 0.",
                              (T, H * d_v): "The heads are joined already; here they stay apart."})

    future = torch.ones(T, T).triu(diagonal=1).bool()
    scores = q @ k.transpose(-2, -1)
    scaled = scores / math.sqrt(d)

    def hide(numbers, hidden=future, by=-torch.inf):
        return numbers.masked_fill(hidden, by)

    def mix(numbers, dim=-1):
        return numbers.softmax(dim) @ v

    which_d = "which d stands under the root? It is the width of one head's query and key, not"
    no_inf = "does the mask put 0 where -inf is needed? A score of 0 still gets a weight, since e^0 is 1"
    dimension = "over which dimension does the softmax run? The weights of one query sum to 1, so over the last"
    compare(got, causal_attention(q[None], k[None], v[None], scale=d**-0.5)[0], [
        ("is the scale applied? Scores are divided by the root of d before the softmax", mix(hide(scores))),
        ("is the scale applied before the softmax? After it, the weights no longer sum to 1",
         mix(hide(scores)) / math.sqrt(d)),
        ("are the scores divided by d? It should be the root of d", mix(hide(scores / d))),
        ("are the scores multiplied by the root of d? They are divided by it", mix(hide(scores * math.sqrt(d)))),
        (f"{which_d} that of a value", mix(hide(scores / math.sqrt(d_v)))),
        (f"{which_d} that of all heads together", mix(hide(scores / math.sqrt(H * d)))),
        (f"{which_d} the number of tokens", mix(hide(scores / math.sqrt(T)))),
        ("is the mask on? The first token can only see itself, so its result is its own value; yours looks ahead",
         mix(scaled)),
        ("is the mask on? And the scores are not divided by the root of d", mix(scores)),
        ("is the mask applied after the softmax? Then the weights that are left no longer sum to 1: hide the scores "
         "before it, with -inf", hide(scaled.softmax(-1), by=0.0) @ v),
        (no_inf, mix(hide(scaled, by=0.0))),
        ("is the mask the wrong way round? Each token sees itself and the future", mix(hide(scaled, future.T))),
        ("is the mask the wrong way round? Each token sees nothing but the future", mix(hide(scaled, ~future))),
        ("does the mask hide the diagonal too? A token sees itself: triu(diagonal=1)",
         mix(hide(scaled, torch.ones(T, T).triu().bool()))),
        (dimension, mix(hide(scaled), -2)),
        (dimension, mix(hide(scaled), 0)),
        ("are queries and keys swapped? Row t holds the scores of query t: in q @ k it is k that is turned",
         mix(hide(scaled.transpose(-2, -1)))),
        ("where is the softmax? The scores themselves are no weights", hide(scaled, by=0.0) @ v),
        ("do all heads use the scores of head 0?", hide(scaled)[:1].softmax(-1) @ v),
    ], nan="Does a row of the mask hide everything? Its softmax is 0 / 0.")
    return "equal to the fused attention of llm_core, for all heads at once"


@check
def count_gpt(function) -> str:
    """function(d_model, n_layers, vocab, context) -> the parameters of a GPT-2-shaped model with a tied head."""
    totals = {}
    for name in ("gpt2", "gpt2-xl", "gpt3-175b"):
        config = ModelConfig.preset(name)
        d, n, vocab, context = config.d_model, config.n_layers, config.vocab_size, config.max_seq_len
        totals[name] = accounting.count_parameters(config).total
        got = attempt(function, d, n, vocab, context)
        try:
            got = int(got) if isinstance(got, float) and got.is_integer() else operator.index(got)
        except TypeError:
            shown = f", {got}" if isinstance(got, float) else ""
            raise Wrong(f"a whole number is needed, and your function returned a {type(got).__name__}{shown}. "
                        "Is there a / where // or * would do?") from None
        if got != totals[name]:
            raise Wrong(f"for {name} it should be {totals[name]:,}, and you have {got:,}. "
                        f"{_difference(totals[name] - got, d, n, vocab, context)}")
    return (f"{totals['gpt2']:,} for GPT-2, {totals['gpt2-xl']:,} for GPT-2 XL and {totals['gpt3-175b']:,} for GPT-3, "
            "as llm_core counts them")


def _difference(missing: int, d: int, n: int, vocab: int, context: int) -> str:
    """Which part has just as many parameters as are missing, or as are too many (a negative number)."""
    blocks = 12 * d * d + 13 * d
    if missing == -vocab * d:
        return "Is the output head counted? It is the token embedding itself (tied), so it adds nothing."
    if missing == (n - 1) * blocks:
        return "Is only one block counted, instead of n_layers?"
    parts = {
        vocab * d: "the token embedding, vocab x d_model",
        context * d: "the position embedding, context x d_model",
        2 * d: "the final norm, a weight and a bias",
        d: "the final norm's weight or bias",
        n * 2 * d: "in every block a norm, or the biases of both norms",
        n * 3 * d: "in every block the biases of queries, keys and values",
        n * 4 * d: "in every block 4 d_model: its two norms, or the four biases of attention",
        n * 5 * d: "in every block the biases of the feed-forward network, 4 d_model and d_model",
        n * 9 * d: "in every block its biases, 4 d_model in attention and 5 d_model in the feed-forward network",
        n * 4 * d + 2 * d: "the norms, two a block and one at the end, each a weight and a bias",
        n * 13 * d + 2 * d: "everything small: the biases and the norms",
        n * d: "in every block one bias of d_model",
        n * d * d: "in every block one d_model x d_model matrix, as attention's output is",
        n * 3 * d * d: "in every block the three matrices of queries, keys and values",
        n * 4 * d * d: "in every block half of the feed-forward network, which goes out to 4 d_model and back",
        n * 8 * d * d: "in every block the two matrices of the feed-forward network",
    }
    if abs(missing) in parts:
        return f"What is {'missing' if missing > 0 else 'too much'} is just as large as: {parts[abs(missing)]}."
    side = "few" if missing > 0 else "many"
    return f"That is {abs(missing):,} too {side}, or {abs(missing) / (n * d):,.1f} times d_model a block."


TRILLION = 10**12
SPARE = 50  # a total may be off by one part in 50: 2 %


@check
def one_trillion(function) -> str:
    """function() -> (dense, experts): two configs of about 10^12 parameters, within 2 %, the second with experts."""
    got = attempt(function)
    if isinstance(got, ModelConfig):
        raise Wrong("only one config came back; two are needed: return dense, experts")
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        many = f" of {len(got)}" if isinstance(got, (tuple, list)) else ""
        raise Wrong(f"two configs are needed, as in `return dense, experts`, and your function returned a "
                    f"{type(got).__name__}{many}")
    dense, experts = (_config(place, config) for place, config in zip(("first", "second"), got))
    if dense.n_moe_layers and not experts.n_moe_layers:
        raise Wrong("the two are the wrong way round: the dense one comes first, the one with experts second")
    if dense.n_moe_layers:
        raise Wrong("the first config is not dense: it has experts, of which a token visits a few. GPT-3 has none")
    if experts.moe is None:
        raise Wrong("the second config has no experts: its moe is None. DeepSeek-V3 has some")
    if not experts.n_moe_layers:
        raise Wrong(f"the second config has no block with experts: all of its {experts.n_layers} come first, and "
                    f"first_k_dense keeps the first {experts.moe.first_k_dense} dense")
    if experts.moe.n_experts_per_token == experts.moe.n_routed_experts:
        raise Wrong(f"in the second config a token visits all {experts.moe.n_routed_experts} experts, so none of them "
                    "rests: n_experts_per_token should be far below n_routed_experts")
    counts = [_about_a_trillion(*named) for named in (("dense", dense), ("experts", experts))]
    totals, active = [[getattr(count, kind) for count in counts] for kind in ("total", "active")]
    kept = [accounting.human_bytes(accounting.cache_bytes_per_token(config)) for config in (dense, experts)]
    return (f"{totals[0]:,} and {totals[1]:,} parameters, the same size. But for each token the dense model works with "
            f"{accounting.human_count(active[0])} of them and the other with {accounting.human_count(active[1])}: "
            f"{accounting.ratio(active[0], active[1])} times fewer. In the cache a token leaves {kept[0]} in the dense "
            f"one and {kept[1]} in the other, at 2 bytes a number")


def _config(place: str, config) -> ModelConfig:
    if isinstance(config, ModelConfig):
        return config
    if isinstance(config, str):
        hint = "A name becomes a config with ModelConfig.preset(name)."
    elif isinstance(config, Part):
        hint = "That is one part of a config; put it back into the whole, as in whole.replace(moe=part)."
    elif isinstance(config, (int, float, accounting.Parameters)):
        hint = "Return the config itself; the check counts its parameters."
    else:
        hint = "Start from a preset and change it with .replace."
    raise Wrong(f"the {place} result should be a ModelConfig, and yours is a {type(config).__name__}. {hint}")


def _about_a_trillion(name: str, config: ModelConfig) -> accounting.Parameters:
    """The config's parameters. Wrong if they are not about 10^12, or are mostly vocabulary."""
    count = accounting.count_parameters(config)
    tables = sum(count.by_part.get(part, 0) for part in ("token embedding", "position embedding", "output head"))
    if 2 * tables > count.total:
        raise Wrong(f"{accounting.percent(tables, count.total)} of {name} are embeddings and output head: a book of "
                    "tokens and no train. Let the blocks grow, and keep vocabulary and context as they are")
    off = count.total - TRILLION
    if SPARE * abs(off) > TRILLION:
        distance = f"{100 * abs(off) / TRILLION:,.2f} % {'more' if off > 0 else 'less'} than 10^12"
        raise Wrong(f"{name} has {count.total:,} parameters, {distance}; up to 2 % would do. "
                    f"{_why_not_a_trillion(config, count)}".rstrip())
    return count


def _why_not_a_trillion(config: ModelConfig, count: accounting.Parameters) -> str:
    def near(number: int, aim: int) -> bool:
        return SPARE * abs(number - aim) <= aim

    if near(count.total, 2**40):
        return "Is 1 T taken as 2^40? A trillion parameters are 10^12."
    if near(count.total, 10**9):
        return "That is a billion; a trillion is a thousand times that."
    if count.active != count.total and near(count.active, TRILLION):
        return "Its active parameters are 10^12. Wanted is the total: all experts, whether a token visits them or not."
    mine, v3 = config.to_dict(), ModelConfig.preset("deepseek-v3").to_dict()
    changed = {field for field in v3 if mine[field] != v3[field]}
    if changed == {"feed_forward"}:
        return "feed_forward is the network of the dense first blocks; in the others the experts' d_expert counts."
    if changed == {"moe"} and config.moe and {**mine["moe"], "n_experts_per_token": 8} == v3["moe"]:
        return "n_experts_per_token says how many experts a token visits: that moves the active parameters alone."
    a, d, d_ff = config.attention, config.d_model, config.feed_forward.d_ff
    if config.moe is None and config.feed_forward.activation == "gelu" and d_ff != 4 * d:
        return (f"replace changes what it is told, no more: d_model is {d:,} and feed_forward.d_ff {d_ff:,}. In GPT-3 "
                f"it is 4 times d_model, and all heads together (here {a.n_heads} of {config.head_dim}) are as wide.")
    return ""
