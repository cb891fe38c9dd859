"""What a model costs to run and to train: FLOPs, bytes while training, and how fast a machine could decode at best."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llm_core.accounting.cache import cache_bytes
from llm_core.accounting.hardware import Hardware
from llm_core.accounting.parameters import count_parameters, rows
from llm_core.config import LatentAttentionConfig, ModelConfig
from llm_core.validation import flag, instance_of, whole


@dataclass(frozen=True)
class Flops:
    """Floating-point operations; by_part sums to total."""

    total: int
    by_part: dict[str, int]


def forward_flops(config: ModelConfig, tokens: int, context: int | None = None, absorbed: bool = False) -> Flops:
    """FLOPs of one forward pass over `tokens` new tokens of one sequence, the last of which sees `context` tokens.

    context None: there is no cache yet, context = tokens. With a cache of S tokens, context = S + tokens.

    What is counted: matrix products of the main model, 2 FLOPs for each multiply and add. Of the routed experts, those
    that a token chooses. The output head, for every new token. Attention is causal: new token i sees
    context - tokens + i + 1 tokens and only those pairs count, each once for the score and once for the value. Not
    counted: embedding lookups, norms, softmax, activations, rope, adding biases, picking experts.

    MLA does the same sum in two ways (arXiv:2405.04434, section 2.1.2). Naive (absorbed=False): each call rebuilds keys
    and values of all `context` latents through kv_up, then scores with heads of nope + rope numbers and mixes values of
    v_head_dim. Absorbed: the two halves of kv_up are applied to the new tokens' queries and results, and scores and
    mixes are made on the latents, of kv_lora_rank + rope and kv_lora_rank numbers a head. Naive wins when many tokens
    are new, absorbed when few new tokens see many old ones.

    ValueError if context is below tokens, or if absorbed=True is asked of grouped attention.
    """
    instance_of("config", config, (ModelConfig,))
    whole("tokens", tokens)
    context = tokens if context is None else context
    whole("context", context)
    flag("absorbed", absorbed)
    if context < tokens:
        raise ValueError(f"context {context} is less than the {tokens} new tokens, which see themselves; "
                         f"nearest: {tokens}")
    a = config.attention
    latent = isinstance(a, LatentAttentionConfig)
    if absorbed and not latent:
        raise ValueError(f"absorbed=True needs latent attention (MLA), and this config has {a.kind}; leave it False")

    by_part = dict.fromkeys(("attention projections", "attention scores and values", "dense feed-forward",
                             "routed experts", "shared experts", "router", "output head"), 0)
    for row in rows(config):
        if len(row.shape) == 2 and row.where not in ("input", "output"):
            inputs = context if row.name == "kv_up" and not absorbed else tokens
            part = "attention projections" if row.part == "attention" else row.part
            by_part[part] += 2 * inputs * row.active
    by_part["output head"] = 2 * tokens * config.vocab_size * config.d_model  # a tied head is multiplied all the same

    score_width, value_width = config.head_dim, config.head_dim
    if latent:
        score_width, value_width = a.qk_head_dim, a.v_head_dim
        if absorbed:
            score_width, value_width = a.kv_lora_rank + a.qk_rope_head_dim, a.kv_lora_rank
    pairs = tokens * (2 * context - tokens + 1) // 2  # the sum of context - tokens + i + 1 over the new tokens
    by_part["attention scores and values"] = 2 * pairs * a.n_heads * (score_width + value_width) * config.n_layers
    return Flops(sum(by_part.values()), {part: n for part, n in by_part.items() if n})


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that a training step holds for the parameters. Activations come on top and are not counted."""

    parameters: int
    weights: int
    gradients: int
    master_weights: int
    adam_moments: int
    total: int


def training_memory(config: ModelConfig, weight_bits: int = 16, gradient_bits: int = 16, master_bits: int = 32,
                    moment_bits: int = 32) -> TrainingMemory:
    """Bytes for weights, gradients and AdamW's states of all parameters (main model and MTP), on one unsharded machine.

    The default is the usual mixed precision, 16 bytes a parameter: bf16 weights 2 and gradients 2, an fp32 master copy
    4 and AdamW's two moments 4 each (Rajbhandari et al. 2019, arXiv:1910.02054, section 3.1). master_bits 0: no master
    copy, as in plain fp32 training (32, 32, 0, 32). DeepSeek-V3 keeps its moments in bf16 (2412.19437, section 3.3.3):
    moment_bits 16. Every expert is trained, so the total counts and not the active part. Sums are rounded up to bytes.
    """
    for name, bits, least in (("weight_bits", weight_bits, 1), ("gradient_bits", gradient_bits, 1),
                              ("master_bits", master_bits, 0), ("moment_bits", moment_bits, 1)):
        whole(name, bits, least)
    counted = count_parameters(config)
    n = counted.total + counted.mtp
    sizes = [-(-n * bits // 8) for bits in (weight_bits, gradient_bits, master_bits, 2 * moment_bits)]
    return TrainingMemory(n, *sizes, total=sum(sizes))


@dataclass(frozen=True)
class DecodeBound:
    """The least time of one decoding step. limited_by: "memory" or "compute", whichever takes longer."""

    weight_bytes: int
    cache_bytes: int
    flops: int
    memory_seconds: float
    compute_seconds: float
    tokens_per_second: float
    limited_by: str
    batch: int

    @property
    def each(self) -> float:
        """Tokens a second for each sequence."""
        return self.tokens_per_second / self.batch


def decode_bound(config: ModelConfig, hardware: Hardware, batch: int = 1, context: int = 1, weight_bits: int = 16,
                 cache_bits: int = 16, naive: bool = False) -> DecodeBound:
    """The most tokens a second that a machine could decode: one step gives each of `batch` sequences a token.

    A step reads every weight that is multiplied once, and the cache of `context` tokens (the new one included) for each
    sequence; it takes at least bytes / bandwidth and FLOPs / peak seconds, and the longer of the two counts. Embedding
    rows are looked up and left out. Routed experts: those that `batch` tokens choose between them if each chooses
    evenly and on its own, E x (1 - (1 - K/E)^batch) a layer, exactly K for one sequence. MLA decodes absorbed, or with
    naive=True by rebuilding the keys and values of the whole context at each step (as if that were written to memory
    nowhere); other attention has one way only. FLOPs are measured against hardware.peak(weight_bits). As if the model
    fitted into the machine's memory.
    """
    instance_of("hardware", hardware, (Hardware,))
    flag("naive", naive)
    whole("batch", batch)
    whole("context", context)
    whole("weight_bits", weight_bits)
    latent = isinstance(config.attention, LatentAttentionConfig)
    flops = batch * forward_flops(config, 1, context, absorbed=latent and not naive).total
    counted = count_parameters(config)
    lookups = counted.by_part.get("position embedding", 0)
    read = counted.active_no_input_embedding - lookups - counted.active_by_part.get("routed experts", 0)
    read += _experts_read(config, batch, counted.by_part.get("routed experts", 0))
    weights = -(-read * weight_bits // 8)
    cached = cache_bytes(config, batch, context, cache_bits)
    memory = (weights + cached) / hardware.bytes_per_second
    compute = flops / hardware.peak(weight_bits)
    return DecodeBound(weights, cached, flops, memory, compute, batch / max(memory, compute),
                       "memory" if memory >= compute else "compute", batch)


def _experts_read(config: ModelConfig, batch: int, routed: int) -> int:
    """Parameters of the experts that at least one of `batch` tokens chooses, as expected; exact for batch 1."""
    if not routed:
        return 0
    n, chosen = config.moe.n_routed_experts, config.moe.n_experts_per_token
    if batch == 1 or chosen == n:
        return routed * chosen // n
    return round(routed * -math.expm1(batch * math.log1p(-chosen / n)))
