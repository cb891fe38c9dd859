"""What a model is: one frozen description that everything else reads.

A `ModelConfig` says how a decoder-only transformer is put together, from GPT-2 to DeepSeek-V3. The model is built from
it, the parameters are counted from it, the cache is laid out from it. Nothing here needs torch. A config that cannot be
built raises a ValueError which says what was given, why it cannot be, and what would do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from llm_core.validation import Part, divides, flag, from_dict, instance_of, one_of, real, shown, whole


@dataclass(frozen=True)
class GroupedAttentionConfig(Part):
    """Attention with one key and value for each group of query heads (Ainslie et al. 2023, arXiv:2305.13245).

    n_kv_heads = n_heads (or None) is multi-head attention (MHA), 1 is multi-query (MQA), anything between grouped-query
    (GQA). head_dim None means d_model / n_heads.
    """

    n_heads: int
    n_kv_heads: int | None = None
    head_dim: int | None = None
    qkv_bias: bool = False
    output_bias: bool = False

    def __post_init__(self):
        whole("n_heads", self.n_heads)
        if self.n_kv_heads is not None:
            whole("n_kv_heads", self.n_kv_heads)
            divides("n_kv_heads", self.n_kv_heads, "n_heads", self.n_heads)
        if self.head_dim is not None:
            whole("head_dim", self.head_dim)
        flag("qkv_bias", self.qkv_bias)
        flag("output_bias", self.output_bias)

    @property
    def kv_heads(self) -> int:
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def kind(self) -> str:
        if self.kv_heads == self.n_heads:
            return "MHA"
        return "MQA" if self.kv_heads == 1 else "GQA"


@dataclass(frozen=True)
class LatentAttentionConfig(Part):
    """Multi-head latent attention, MLA (DeepSeek-V2, arXiv:2405.04434, section 2.1; same in V3, 2412.19437, 2.1.1).

    Keys and values are rebuilt from one latent of kv_lora_rank (d_c) numbers a token; position travels apart, in one
    rope key of qk_rope_head_dim (d_h^R) numbers shared by all heads. q_lora_rank (d_c') None: queries uncompressed.
    """

    n_heads: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    q_lora_rank: int | None = None

    def __post_init__(self):
        for name in ("n_heads", "kv_lora_rank", "qk_nope_head_dim", "v_head_dim"):
            whole(name, getattr(self, name))
        whole("qk_rope_head_dim", self.qk_rope_head_dim, least=0)
        if self.q_lora_rank is not None:
            whole("q_lora_rank", self.q_lora_rank)

    @property
    def qk_head_dim(self) -> int:
        """Width of one head's query and key: the part without position, then the part with."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    kind = "MLA"


@dataclass(frozen=True)
class FeedForwardConfig(Part):
    """The dense feed-forward network: d_model -> d_ff -> d_model. "swiglu" has a third matrix, the gate."""

    d_ff: int
    activation: str = "gelu"
    bias: bool = False

    def __post_init__(self):
        whole("d_ff", self.d_ff)
        one_of("activation", self.activation, ("gelu", "swiglu"))
        flag("bias", self.bias)


@dataclass(frozen=True)
class MoEConfig(Part):
    """Mixture of experts as DeepSeek builds it (DeepSeekMoE, arXiv:2401.06066; V3, 2412.19437, section 2.1.2).

    The first `first_k_dense` layers keep the dense network; each later one has n_routed_experts small networks of width
    d_expert, of which a token uses n_experts_per_token, and n_shared_experts that all tokens use. scoring: "softmax"
    (Mixtral, V2) or "sigmoid" (V3). selection_bias: V3's bias, which only selects. group_score: a group of experts is
    rated by its "max" (V2) or its "top2" sum (V3); only the n_limited_groups best groups are open to a token.
    """

    n_routed_experts: int
    n_experts_per_token: int
    d_expert: int
    n_shared_experts: int = 0
    first_k_dense: int = 0
    scoring: str = "softmax"
    norm_topk_prob: bool = False
    routed_scaling_factor: float = 1.0
    selection_bias: bool = False
    n_expert_groups: int = 1
    n_limited_groups: int = 1
    group_score: str = "max"

    def __post_init__(self):
        for name in ("n_routed_experts", "n_experts_per_token", "d_expert", "n_expert_groups", "n_limited_groups"):
            whole(name, getattr(self, name))
        for name in ("n_shared_experts", "first_k_dense"):
            whole(name, getattr(self, name), least=0)
        one_of("scoring", self.scoring, ("softmax", "sigmoid"))
        one_of("group_score", self.group_score, ("max", "top2"))
        real("routed_scaling_factor", self.routed_scaling_factor)
        flag("norm_topk_prob", self.norm_topk_prob)
        flag("selection_bias", self.selection_bias)
        divides("n_expert_groups", self.n_expert_groups, "n_routed_experts", self.n_routed_experts)
        if self.n_limited_groups > self.n_expert_groups:
            raise ValueError(f"n_limited_groups {self.n_limited_groups} is more than "
                             f"n_expert_groups {self.n_expert_groups}")
        open_experts = self.n_limited_groups * (self.n_routed_experts // self.n_expert_groups)
        if self.n_experts_per_token > open_experts:
            raise ValueError(f"n_experts_per_token {self.n_experts_per_token} is more than the {open_experts} experts "
                             f"a token may choose from ({self.n_limited_groups} of {self.n_expert_groups} groups)")
        if self.n_expert_groups == self.n_routed_experts > 1 and self.group_score == "top2":
            raise ValueError('group_score "top2" needs at least 2 experts in a group; "max" would do')


@dataclass(frozen=True)
class YarnConfig(Part):
    """YaRN: stretch RoPE to `factor` times the original context (Peng et al. 2023, arXiv:2309.00071).

    beta_fast and beta_slow bound the ramp, in turns over the original context. With s(m) = 0.1 m ln(factor) + 1, the
    softmax scale is multiplied by s(mscale_all_dim)^2, cos and sin by s(mscale) / s(mscale_all_dim).
    """

    factor: float
    original_max_seq_len: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 1.0

    def __post_init__(self):
        for name in ("factor", "beta_fast", "beta_slow"):
            real(name, getattr(self, name))
        whole("original_max_seq_len", self.original_max_seq_len)
        real("mscale", self.mscale, or_zero=True)
        real("mscale_all_dim", self.mscale_all_dim, or_zero=True)


def yarn_mscale(factor: float, mscale: float) -> float:
    """YarnConfig's s(mscale): 0.1 * mscale * ln(factor) + 1, and 1 where nothing is stretched."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


@dataclass(frozen=True)
class Llama3RopeConfig(Part):
    """Llama 3.1's way to stretch RoPE: slow pairs are divided by `factor`, fast ones kept, a smooth step between."""

    factor: float
    original_max_seq_len: int
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self):
        for name in ("factor", "low_freq_factor", "high_freq_factor"):
            real(name, getattr(self, name))
        whole("original_max_seq_len", self.original_max_seq_len)
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(f"high_freq_factor {self.high_freq_factor} must be above "
                             f"low_freq_factor {self.low_freq_factor}")


@dataclass(frozen=True)
class RopeConfig(Part):
    """Rotary positions (Su et al. 2021, arXiv:2104.09864).

    layout: which two numbers of a head form a pair: neighbours ("interleaved", DeepSeek) or number i and number
    i + half ("halves", Llama in transformers). The same weights mean different things under the two.
    """

    theta: float = 10000.0
    layout: str = "interleaved"
    scaling: YarnConfig | Llama3RopeConfig | None = None

    def __post_init__(self):
        real("theta", self.theta)
        if self.theta <= 1:
            raise ValueError(f"theta must be above 1, not {shown(self.theta)}; 10000 is usual")
        one_of("layout", self.layout, ("interleaved", "halves"))
        instance_of("scaling", self.scaling, (YarnConfig, Llama3RopeConfig), optional=True)


@dataclass(frozen=True)
class ModelConfig(Part):
    """A decoder-only transformer, whole. rope None means GPT-2's learned positions, one vector for each of max_seq_len.

    dropout acts on the embeddings and on what a block adds to the stream; attention_dropout on the attention weights.
    """

    vocab_size: int
    max_seq_len: int
    d_model: int
    n_layers: int
    attention: GroupedAttentionConfig | LatentAttentionConfig
    feed_forward: FeedForwardConfig
    moe: MoEConfig | None = None
    rope: RopeConfig | None = None
    norm: str = "rmsnorm"
    norm_eps: float = 1e-6
    tie_embeddings: bool = False
    n_mtp_modules: int = 0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    init_std: float = 0.02

    def __post_init__(self):
        for name in ("vocab_size", "max_seq_len", "d_model", "n_layers"):
            whole(name, getattr(self, name))
        whole("n_mtp_modules", self.n_mtp_modules, least=0)
        instance_of("attention", self.attention, (GroupedAttentionConfig, LatentAttentionConfig))
        instance_of("feed_forward", self.feed_forward, (FeedForwardConfig,))
        instance_of("moe", self.moe, (MoEConfig,), optional=True)
        instance_of("rope", self.rope, (RopeConfig,), optional=True)
        one_of("norm", self.norm, ("layernorm", "rmsnorm"))
        real("norm_eps", self.norm_eps)
        real("init_std", self.init_std)
        flag("tie_embeddings", self.tie_embeddings)
        for name in ("dropout", "attention_dropout"):
            real(name, getattr(self, name), or_zero=True)
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be below 1, not {shown(getattr(self, name))}: "
                                 "it is the share of numbers set to zero")
        self._check_heads()

    def _check_heads(self):
        a = self.attention
        if isinstance(a, LatentAttentionConfig):
            if self.rope is None and a.qk_rope_head_dim:
                raise ValueError(f"qk_rope_head_dim is {a.qk_rope_head_dim} but rope is None; "
                                 "give a RopeConfig, or set it to 0")
            if self.rope is not None and not a.qk_rope_head_dim:
                raise ValueError("qk_rope_head_dim is 0, so rope has nothing to turn; "
                                 "give it an even width, or set rope to None")
        elif a.head_dim is None:
            divides("n_heads", a.n_heads, "d_model", self.d_model, " and head_dim is not given")
        if self.rope is not None and self.rope_dim % 2:
            raise ValueError(f"rope turns pairs of numbers, so its width must be even, not {self.rope_dim}; "
                             f"nearest: {self.rope_dim - 1}, {self.rope_dim + 1}")

    @property
    def head_dim(self) -> int:
        """Width of one head's query and key."""
        if isinstance(self.attention, LatentAttentionConfig):
            return self.attention.qk_head_dim
        return self.attention.head_dim or self.d_model // self.attention.n_heads

    @property
    def rope_dim(self) -> int:
        """How many numbers of a head RoPE turns: all of them, or MLA's separate part."""
        a = self.attention
        return a.qk_rope_head_dim if isinstance(a, LatentAttentionConfig) else self.head_dim

    @property
    def n_dense_layers(self) -> int:
        return self.n_layers if self.moe is None else min(self.moe.first_k_dense, self.n_layers)

    @property
    def n_moe_layers(self) -> int:
        return self.n_layers - self.n_dense_layers

    @staticmethod
    def preset(name: str) -> ModelConfig:
        """A real or mini model by name; `presets.names()` lists them."""
        from llm_core import presets

        return presets.get(name)

    @staticmethod
    def from_hf(source: Any) -> ModelConfig:
        """The config that a Hugging Face config.json describes: the file, a folder that holds it, or a dict."""
        from llm_core import hf_config

        return hf_config.from_hf(source)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> ModelConfig:
        """The inverse of to_dict. Unknown classes and fields are a ValueError."""
        try:
            config = from_dict(data, _CLASSES)
        except RecursionError:
            raise ValueError("this description is nested far too deep for a config.json") from None
        instance_of("the description", config, (ModelConfig,))
        return config


_CLASSES = {cls.__name__: cls for cls in (ModelConfig, GroupedAttentionConfig, LatentAttentionConfig, FeedForwardConfig,
                                          MoEConfig, RopeConfig, YarnConfig, Llama3RopeConfig)}
