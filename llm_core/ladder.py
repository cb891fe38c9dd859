"""The way from GPT-2 to DeepSeek-V3 as a ladder: each step swaps one component of the ModelConfig, and all is counted.

    climb("deepseek-v3")[7].total       parameters after the seventh step, at V3's width and depth

Two sizes: GPT-2's, whose first rung is GPT-2 itself, and DeepSeek-V3's, whose last rung is V3 itself. What the other
end of each looks like is our choice, said at _gpt2_like and _v3_like. Leave steps out to see what the others do without
them. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from llm_core import accounting, presets
from llm_core.config import (
    LatentAttentionConfig,
    ModelConfig,
    MoEConfig,
)
from llm_core.validation import one_of


@dataclass(frozen=True)
class Size:
    """Where a ladder stands. start: its first rung. target: whose values the steps take.

    n_kv_heads: of the GQA step; 8 is what Llama 3 has at every size.
    """

    title: str
    start: ModelConfig
    target: ModelConfig
    n_kv_heads: int


def _gpt2_like(v3: ModelConfig) -> ModelConfig:
    """GPT-2 at V3's width and depth: heads of V3's 128 numbers, as many as make the width; GPT-2's vocabulary."""
    gpt2, head_dim = presets.get("gpt2"), v3.attention.v_head_dim
    return gpt2.replace(
        d_model=v3.d_model, n_layers=v3.n_layers,
        attention=gpt2.attention.replace(n_heads=v3.d_model // head_dim),
        feed_forward=gpt2.feed_forward.replace(d_ff=4 * v3.d_model))


def _v3_like(gpt2: ModelConfig) -> ModelConfig:
    """V3 at GPT-2's width and depth, heads as many and as wide as GPT-2's.

    Attention in V2's proportions (arXiv:2405.04434, section 2.1.2: a latent of 4 heads, a rope key of half a head), a
    query latent of a quarter of the width; SwiGLU of 8/3 of the width, which weighs what GPT-2's 4 do; 64 experts of an
    eighth of that, and one dense layer.
    """
    v3, heads, head = presets.get("deepseek-v3"), gpt2.attention.n_heads, gpt2.head_dim
    width = gpt2.d_model * 8 // 3
    return v3.replace(
        d_model=gpt2.d_model, n_layers=gpt2.n_layers,
        attention=LatentAttentionConfig(heads, kv_lora_rank=4 * head, qk_nope_head_dim=head, qk_rope_head_dim=head // 2,
                                        v_head_dim=head, q_lora_rank=gpt2.d_model // 4),
        feed_forward=v3.feed_forward.replace(d_ff=width),
        moe=v3.moe.replace(n_routed_experts=64, d_expert=width // 8, first_k_dense=1))


@lru_cache(maxsize=1)
def sizes() -> dict[str, Size]:
    """The two sizes by name."""
    gpt2, v3 = presets.get("gpt2"), presets.get("deepseek-v3")
    return {"gpt2": Size("GPT-2's width and depth", gpt2, _v3_like(gpt2), 4),
            "deepseek-v3": Size("DeepSeek-V3's width and depth", _gpt2_like(v3), v3, 8)}


# The steps: each takes the config so far and the size, and changes one thing ------------------------------------------

def _rope(now: ModelConfig, size: Size) -> ModelConfig:
    return now.replace(rope=size.target.rope.replace(scaling=None))


def _norm(now: ModelConfig, size: Size) -> ModelConfig:
    return now.replace(norm="rmsnorm", norm_eps=size.target.norm_eps)


def _swiglu(now: ModelConfig, size: Size) -> ModelConfig:
    return now.replace(feed_forward=now.feed_forward.replace(
        activation="swiglu", d_ff=size.target.feed_forward.d_ff))


def _no_biases(now: ModelConfig, size: Size) -> ModelConfig:
    return now.replace(attention=now.attention.replace(qkv_bias=False, output_bias=False),
                       feed_forward=now.feed_forward.replace(bias=False))


def _vocabulary(now: ModelConfig, size: Size) -> ModelConfig:
    return now.replace(vocab_size=size.target.vocab_size)


def _own_head(now: ModelConfig, size: Size) -> ModelConfig:
    return now.replace(tie_embeddings=False)


def _gqa(now: ModelConfig, size: Size) -> ModelConfig:
    return now.replace(attention=now.attention.replace(n_kv_heads=size.n_kv_heads))


def _mla(now: ModelConfig, size: Size) -> ModelConfig:
    goal = size.target.attention.replace(q_lora_rank=None)
    return now.replace(attention=goal if now.rope else goal.replace(qk_rope_head_dim=0))


def _query_latent(now: ModelConfig, size: Size) -> ModelConfig:
    if not isinstance(now.attention, LatentAttentionConfig):
        return now
    return now.replace(attention=now.attention.replace(q_lora_rank=size.target.attention.q_lora_rank))


def _large_experts(now: ModelConfig, size: Size) -> ModelConfig:
    return now.replace(moe=MoEConfig(8, 2, now.feed_forward.d_ff, norm_topk_prob=True))  # as Mixtral 8x7B has them


def _fine_experts(now: ModelConfig, size: Size) -> ModelConfig:
    goal = size.target.moe
    return now.replace(moe=MoEConfig(
        goal.n_routed_experts, goal.n_experts_per_token, goal.d_expert, n_shared_experts=goal.n_shared_experts,
        first_k_dense=goal.first_k_dense, norm_topk_prob=True))


def _sigmoid(now: ModelConfig, size: Size) -> ModelConfig:
    if now.moe is None:
        return now
    goal = size.target.moe
    groups = {} if now.moe.n_routed_experts != goal.n_routed_experts else {
        "n_expert_groups": goal.n_expert_groups, "n_limited_groups": goal.n_limited_groups,
        "group_score": goal.group_score}
    return now.replace(moe=now.moe.replace(
        scoring="sigmoid", selection_bias=True, norm_topk_prob=True,
        routed_scaling_factor=goal.routed_scaling_factor, **groups))


def _mtp(now: ModelConfig, size: Size) -> ModelConfig:
    return now.replace(n_mtp_modules=size.target.n_mtp_modules)


def _long_context(now: ModelConfig, size: Size) -> ModelConfig:
    rope = now.rope and now.rope.replace(scaling=size.target.rope.scaling)
    return now.replace(rope=rope, max_seq_len=size.target.max_seq_len)


@dataclass(frozen=True)
class Step:
    """name: in addresses. label: on a chart. part: whose colour it has. what: the swap. why: what it moves, and why."""

    name: str
    label: str
    part: str
    what: str
    why: str
    change: Callable[[ModelConfig, Size], ModelConfig]


STEPS = (
    Step("rope", "RoPE", "position embedding", "learned positions give way to RoPE",
         "RoPE turns queries and keys by their position and learns nothing, so the table of positions is gone.", _rope),
    Step("rmsnorm", "RMSNorm", "norms", "LayerNorm gives way to RMSNorm",
         "RMSNorm takes no mean away and has no bias: each norm keeps one vector of weights instead of two.", _norm),
    Step("swiglu", "SwiGLU", "dense feed-forward", "the feed-forward's GELU gives way to SwiGLU",
         "SwiGLU has a third matrix, the gate, and is made narrower to pay for it.", _swiglu),
    Step("no-biases", "no biases", "dense feed-forward", "the biases of all matrices go",
         "a bias is one vector beside a whole matrix, so that little is saved; training is calmer without.",
         _no_biases),
    Step("vocabulary", "vocabulary", "token embedding", "the vocabulary grows from GPT-2's to DeepSeek-V3's",
         "the embedding has a row for each entry, so it grows in step, and texts become fewer tokens.", _vocabulary),
    Step("own-head", "own head", "output head", "the output head gets a table of its own",
         "the head no longer borrows the embedding, so a table of that size is counted a second time.", _own_head),
    Step("gqa", "GQA", "attention", "all heads' own keys and values give way to a few shared ones (GQA)",
         "only these few keys and values are projected and cached; the queries stay as many.", _gqa),
    Step("mla", "MLA", "attention", "shared keys and values give way to one latent for all heads (MLA)",
         "the cache holds the latent and one rope key, whatever the number of heads; every head has keys and values of "
         "its own again, rebuilt from the latent by larger matrices.", _mla),
    Step("query-latent", "query latent", "attention", "queries too are made from a latent",
         "two thin matrices take the place of one large one; queries are never cached, so the cache stays.",
         _query_latent),
    Step("large-experts", "8 experts", "routed experts", "each feed-forward becomes 8 of that size, 2 for a token",
         "all 8 are stored and 2 work on a token, so the total grows far more than the active part.", _large_experts),
    Step("fine-experts", "fine experts", "routed experts", "many small experts, and a shared one, take their place",
         "a token picks several small experts of many, so there are far more combinations for fewer active numbers; "
         "the shared one sees every token.", _fine_experts),
    Step("sigmoid", "sigmoid router", "router", "the router scores by a sigmoid, balances by a bias, and keeps to "
         "groups", "the bias is moved by a rule and not learned, so nothing is added: this step is for balance.",
         _sigmoid),
    Step("mtp", "MTP", "MTP", "a module that guesses the token after the next is added",
         "it is one more layer and a projection, counted apart from the model, which runs without it too.", _mtp),
    Step("yarn", "YaRN", "position embedding", "YaRN stretches RoPE, and the context grows",
         "RoPE's turns are slowed down by a rule and nothing is learned: sizes stay, only texts may be longer.",
         _long_context),
)


@dataclass(frozen=True)
class Rung:
    """The model after a step (None: the start), and its figures. cache: bytes a token, 16 bits a number.

    mtp is counted apart from total. The added_… are against the rung before, and may be negative.
    """

    step: Step | None
    config: ModelConfig
    total: int
    active: int
    mtp: int
    cache: int
    added_total: int = 0
    added_active: int = 0
    added_mtp: int = 0
    added_cache: int = 0


def climb(size: str, without: Iterable[str] = ()) -> tuple[Rung, ...]:
    """All rungs, from the start up. without: names of steps to leave out.

    A step that has nothing left to work on (a query latent without MLA) changes nothing. ValueError for a size or a
    step that is not there.
    """
    left_out = frozenset(without)
    one_of("size", size, tuple(sizes()))
    for name in left_out:
        one_of("a step to leave out", name, tuple(step.name for step in STEPS))
    return _climb(size, left_out)


@lru_cache(maxsize=64)
def _climb(size: str, left_out: frozenset[str]) -> tuple[Rung, ...]:
    where = sizes()[size]
    rungs = [_rung(None, where.start, None)]
    for step in STEPS:
        if step.name not in left_out:
            rungs.append(_rung(step, step.change(rungs[-1].config, where), rungs[-1]))
    return tuple(rungs)


def _rung(step: Step | None, config: ModelConfig, below: Rung | None) -> Rung:
    n, cache = accounting.count_parameters(config), accounting.cache_bytes_per_token(config)
    added = (0, 0, 0, 0) if below is None else (n.total - below.total, n.active - below.active, n.mtp - below.mtp,
                                                cache - below.cache)
    return Rung(step, config, n.total, n.active, n.mtp, cache, *added)
