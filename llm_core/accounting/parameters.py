"""How many numbers a model has learned, tensor by tensor, from its config alone.

`rows` lists every trained tensor of the main model once, with its shape and how many copies of it there are. All other
figures are sums over that list, so parts and total cannot disagree. Layers are multiplied, never looped over.

Not in the total: the extra MTP modules (`mtp`), and the router's selection biases (`router_biases`). Those biases are
moved by a rule and not by the gradient, so the model keeps them as buffers.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from llm_core.config import LatentAttentionConfig, ModelConfig
from llm_core.validation import instance_of, one_of

PARTS = ("token embedding", "position embedding", "attention", "dense feed-forward", "routed experts", "shared experts",
         "router", "norms", "output head")  # in the order in which they are shown


@dataclass(frozen=True)
class Row:
    """One kind of tensor. Matrices are [out, in], as torch stores them.

    copies: how many such tensors there are. active_copies: how many of them one token passes through.
    where: "input", "dense layers", "MoE layers", "output" or "MTP".
    """

    part: str
    name: str
    shape: tuple[int, ...]
    copies: int = 1
    active_copies: int = 1
    where: str = ""

    @property
    def total(self) -> int:
        return prod(self.shape) * self.copies

    @property
    def active(self) -> int:
        return prod(self.shape) * self.active_copies

    def times(self, n: int, where: str) -> Row:
        """The same tensor in n layers."""
        return Row(self.part, self.name, self.shape, self.copies * n, self.active_copies * n, where)


@dataclass(frozen=True)
class Parameters:
    """The parameters of a model, in exact integers.

    total: the main model; no MTP modules, no router biases; a tied head counted once.
    active: all of it but the routed experts that a token does not choose (the reference file's "rule_all").
    active_no_input_embedding: without the embedding table too, which is looked up and not multiplied. Nothing is taken
        off where the table is tied to the head, and learned positions stay. DeepSeek's published figures fit this rule.
    active_no_embed_no_head: without the embedding table and without the head.
    mtp, mtp_active: the extra prediction modules, without the embedding and head that they share with the main model.
    router_biases, mtp_router_biases: numbers in the selection biases, which are buffers.
    by_part, active_by_part: in display order; they sum to total and active. Parts that the model lacks are left out.
    """

    total: int
    active: int
    active_no_input_embedding: int
    active_no_embed_no_head: int
    mtp: int
    mtp_active: int
    router_biases: int
    mtp_router_biases: int
    by_part: dict[str, int]
    active_by_part: dict[str, int]


def count_parameters(config: ModelConfig) -> Parameters:
    """Parameters of the main model by part, and of what stands beside it. ValueError for anything but a ModelConfig."""
    main, extra = rows(config), mtp_rows(config)
    by_part = {part: sum(row.total for row in main if row.part == part) for part in PARTS}
    active_by_part = {part: sum(row.active for row in main if row.part == part) for part in PARTS}
    active = sum(active_by_part.values())
    embedding, head = by_part["token embedding"], by_part["output head"]
    biases = config.moe.n_routed_experts if config.moe and config.moe.selection_bias else 0
    return Parameters(
        total=sum(by_part.values()),
        active=active,
        active_no_input_embedding=active if config.tie_embeddings else active - embedding,
        active_no_embed_no_head=active - embedding - head,  # a tied head is the embedding: there is one table to remove
        mtp=sum(row.total for row in extra),
        mtp_active=sum(row.active for row in extra),
        router_biases=biases * config.n_moe_layers,
        mtp_router_biases=biases * config.n_mtp_modules,
        by_part={part: n for part, n in by_part.items() if n},
        active_by_part={part: n for part, n in active_by_part.items() if n},
    )


def rows(config: ModelConfig) -> list[Row]:
    """Every trained tensor of the main model, those that recur in several layers once with their number of copies."""
    instance_of("config", config, (ModelConfig,))
    out = [Row("token embedding", "token_embedding", (config.vocab_size, config.d_model), where="input")]
    if config.rope is None:
        out.append(Row("position embedding", "position_embedding", (config.max_seq_len, config.d_model), where="input"))
    if config.n_dense_layers:
        out += [row.times(config.n_dense_layers, "dense layers") for row in _layer(config, "dense")]
    if config.n_moe_layers:
        out += [row.times(config.n_moe_layers, "MoE layers") for row in _layer(config, "moe")]
    out += [row.times(1, "output") for row in _norm(config, "final_norm")]
    if not config.tie_embeddings:
        out.append(Row("output head", "output_head", (config.vocab_size, config.d_model), where="output"))
    return out


def mtp_rows(config: ModelConfig) -> list[Row]:
    """The tensors of the extra multi-token prediction modules (DeepSeek-V3, arXiv:2412.19437, section 2.2).

    A module is one more layer (with experts, if the model has any), a norm for each of its two inputs, eh_proj which
    brings the two back to d_model, and a final norm. Embedding and head are the main model's and not counted again.
    """
    instance_of("config", config, (ModelConfig,))
    if not config.n_mtp_modules:
        return []
    d = config.d_model
    module = _layer(config, "moe" if config.moe else "dense")
    module += [row for name in ("enorm", "hnorm", "final_norm") for row in _norm(config, name)]
    module.append(Row("MTP projection", "eh_proj", (d, 2 * d)))
    return [row.times(config.n_mtp_modules, "MTP") for row in module]


def per_layer(config: ModelConfig, kind: str = "dense") -> dict[str, dict[str, int]]:
    """Parameters of one layer: part -> tensor -> count. kind: "dense" or "moe".

    The norms on MLA's latents stand under "norms", as in by_part, so that parts times layers give by_part. Routed
    experts are taken together: all of the layer's gates, all ups, all downs.
    ValueError for another kind, and for "moe" where the config has no experts.
    """
    instance_of("config", config, (ModelConfig,))
    one_of("kind", kind, ("dense", "moe"))
    if kind == "moe" and config.moe is None:
        raise ValueError('kind "moe" needs a config with experts, and this one has moe=None; "dense" would do')
    out: dict[str, dict[str, int]] = {}
    for row in _layer(config, kind):
        out.setdefault(row.part, {})[row.name] = row.total
    return {part: out[part] for part in PARTS if part in out}


def _layer(config: ModelConfig, kind: str) -> list[Row]:
    out = _norm(config, "attention_norm") + _attention(config) + _norm(config, "feed_forward_norm")
    if kind == "moe":
        return out + _experts(config)
    f = config.feed_forward
    return out + _feed_forward("dense feed-forward", config.d_model, f.d_ff, f.activation, f.bias)


def _attention(config: ModelConfig) -> list[Row]:
    a, d = config.attention, config.d_model
    if not isinstance(a, LatentAttentionConfig):
        q, kv = a.n_heads * config.head_dim, a.kv_heads * config.head_dim
        return [row for name, n_out, n_in, bias in (
            ("q_proj", q, d, a.qkv_bias), ("k_proj", kv, d, a.qkv_bias), ("v_proj", kv, d, a.qkv_bias),
            ("o_proj", d, q, a.output_bias)) for row in _linear("attention", name, n_out, n_in, bias)]
    q, latent = a.n_heads * a.qk_head_dim, a.kv_lora_rank
    if a.q_lora_rank is None:
        queries = _linear("attention", "q_proj", q, d)
    else:
        queries = [*_linear("attention", "q_down", a.q_lora_rank, d), _latent_norm("q_norm", a.q_lora_rank),
                   *_linear("attention", "q_up", q, a.q_lora_rank)]
    return [
        *queries,
        *_linear("attention", "kv_down", latent + a.qk_rope_head_dim, d),  # the latent, and the one shared rope key
        _latent_norm("kv_norm", latent),  # on the latent alone, not on the rope key
        *_linear("attention", "kv_up", a.n_heads * (a.qk_nope_head_dim + a.v_head_dim), latent),
        *_linear("attention", "o_proj", d, a.n_heads * a.v_head_dim),
    ]


def _experts(config: ModelConfig) -> list[Row]:
    m, d = config.moe, config.d_model
    out = _linear("router", "router", m.n_routed_experts, d)
    for row in _feed_forward("routed experts", d, m.d_expert, "swiglu"):
        out.append(Row(row.part, row.name, row.shape, m.n_routed_experts, m.n_experts_per_token))
    if m.n_shared_experts:  # all shared experts as one network of their joint width
        out += _feed_forward("shared experts", d, m.n_shared_experts * m.d_expert, "swiglu")
    return out


def _feed_forward(part: str, d: int, width: int, activation: str, bias: bool = False) -> list[Row]:
    gate = _linear(part, "gate", width, d, bias) if activation == "swiglu" else []
    return gate + _linear(part, "up", width, d, bias) + _linear(part, "down", d, width, bias)


def _linear(part: str, name: str, n_out: int, n_in: int, bias: bool = False) -> list[Row]:
    return [Row(part, name, (n_out, n_in))] + ([Row(part, f"{name}.bias", (n_out,))] if bias else [])


def _norm(config: ModelConfig, name: str) -> list[Row]:
    """RMSNorm has a weight; LayerNorm a weight and a bias."""
    shape = (config.d_model,)
    return [Row("norms", name, shape)] + ([Row("norms", f"{name}.bias", shape)] if config.norm == "layernorm" else [])


def _latent_norm(name: str, width: int) -> Row:
    """MLA's norm on a latent is an RMSNorm, whatever norm the blocks have."""
    return Row("norms", name, (width,))
