"""Real and mini models by name. Every figure of a real model comes from its config file or paper, named beside it."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from llm_core.config import (
    FeedForwardConfig,
    GroupedAttentionConfig,
    LatentAttentionConfig,
    Llama3RopeConfig,
    ModelConfig,
    MoEConfig,
    RopeConfig,
    YarnConfig,
)
from llm_core.validation import shown


def _gpt2(d_model, n_layers, n_heads, head_dim=None, max_seq_len=1024, vocab_size=50257, **changes) -> ModelConfig:
    """Learned positions, LayerNorm, GELU, biases everywhere, head tied to the embedding (Radford et al. 2019)."""
    return ModelConfig(
        vocab_size=vocab_size, max_seq_len=max_seq_len, d_model=d_model, n_layers=n_layers,
        attention=GroupedAttentionConfig(n_heads, head_dim=head_dim, qkv_bias=True, output_bias=True),
        feed_forward=FeedForwardConfig(4 * d_model, activation="gelu", bias=True),
        norm="layernorm", norm_eps=1e-5, tie_embeddings=True, **changes)


def _gpt3(d_model, n_layers, n_heads, head_dim) -> ModelConfig:
    """Brown et al. 2020 (arXiv:2005.14165), table 2.1, as printed; GPT-2's layout and vocabulary assumed."""
    return _gpt2(d_model, n_layers, n_heads, head_dim, max_seq_len=2048)


def _llama(d_model, n_layers, n_heads, n_kv_heads, d_ff, vocab_size, max_seq_len, theta=10000.0, *, scaling=None,
           qkv_bias=False, norm_eps=1e-5, **changes) -> ModelConfig:
    """RoPE in halves, RMSNorm, SwiGLU, no biases, separate head (Touvron et al. 2023, arXiv:2307.09288)."""
    return ModelConfig(
        vocab_size=vocab_size, max_seq_len=max_seq_len, d_model=d_model, n_layers=n_layers,
        attention=GroupedAttentionConfig(n_heads, n_kv_heads, qkv_bias=qkv_bias),
        feed_forward=FeedForwardConfig(d_ff, activation="swiglu"),
        rope=RopeConfig(theta, layout="halves", scaling=scaling), norm_eps=norm_eps, **changes)


_LLAMA_31 = {"vocab_size": 128256, "max_seq_len": 131072, "theta": 500000.0, "scaling": Llama3RopeConfig(8.0, 8192)}


def _deepseek(d_model, n_layers, n_heads, d_ff, vocab_size, moe, *, q_lora_rank=1536, theta=10000.0, scaling=None,
              max_seq_len=163840, norm_eps=1e-6, n_mtp_modules=0) -> ModelConfig:
    """MLA with 512 + 64 cached numbers a token and layer, and mixture of experts (DeepSeek-V2 and V3)."""
    return ModelConfig(
        vocab_size=vocab_size, max_seq_len=max_seq_len, d_model=d_model, n_layers=n_layers,
        attention=LatentAttentionConfig(n_heads, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64,
                                        v_head_dim=128, q_lora_rank=q_lora_rank),
        feed_forward=FeedForwardConfig(d_ff, activation="swiglu"), moe=moe,
        rope=RopeConfig(theta, layout="interleaved", scaling=scaling), norm_eps=norm_eps, n_mtp_modules=n_mtp_modules)


def _v2_moe(n_routed, d_expert, **changes) -> MoEConfig:
    """Softmax scores, no renormalisation, a group rated by its best expert (arXiv:2405.04434, section 2.2)."""
    return MoEConfig(n_routed, 6, d_expert, n_shared_experts=2, first_k_dense=1, **changes)


def _v3_moe(n_routed, n_chosen, d_expert, n_shared, first_k_dense, scale, groups=1, limited=1) -> MoEConfig:
    """Sigmoid scores, a bias that only selects, chosen weights made to sum to one (arXiv:2412.19437, section 2.1.2)."""
    return MoEConfig(n_routed, n_chosen, d_expert, n_shared_experts=n_shared, first_k_dense=first_k_dense,
                     scoring="sigmoid", norm_topk_prob=True, routed_scaling_factor=scale, selection_bias=True,
                     n_expert_groups=groups, n_limited_groups=limited, group_score="top2")


_YARN_V2 = YarnConfig(40.0, 4096, mscale=0.707, mscale_all_dim=0.707)
_YARN_V3 = YarnConfig(40.0, 4096)

_REAL: dict[str, Callable[[], ModelConfig]] = {
    "gpt2": lambda: _gpt2(768, 12, 12),
    "gpt2-medium": lambda: _gpt2(1024, 24, 16),
    "gpt2-large": lambda: _gpt2(1280, 36, 20),
    "gpt2-xl": lambda: _gpt2(1600, 48, 25),
    "gpt3-small": lambda: _gpt3(768, 12, 12, 64),
    "gpt3-medium": lambda: _gpt3(1024, 24, 16, 64),
    "gpt3-large": lambda: _gpt3(1536, 24, 16, 96),
    "gpt3-xl": lambda: _gpt3(2048, 24, 24, 128),  # as printed: 24 heads of 128 make 3,072, not d_model
    "gpt3-2.7b": lambda: _gpt3(2560, 32, 32, 80),
    "gpt3-6.7b": lambda: _gpt3(4096, 32, 32, 128),
    "gpt3-13b": lambda: _gpt3(5140, 40, 40, 128),  # as printed: 40 heads of 128 make 5,120, not d_model
    "gpt3-175b": lambda: _gpt3(12288, 96, 96, 128),
    "llama-2-7b": lambda: _llama(4096, 32, 32, 32, 11008, 32000, 4096),
    "llama-3.1-8b": lambda: _llama(4096, 32, 32, 8, 14336, **_LLAMA_31),
    "llama-3.1-70b": lambda: _llama(8192, 80, 64, 8, 28672, **_LLAMA_31),
    "llama-3.1-405b": lambda: _llama(16384, 126, 128, 8, 53248, **_LLAMA_31),
    "qwen2.5-72b": lambda: _llama(8192, 80, 64, 8, 29568, 152064, 131072, 1e6, qkv_bias=True, norm_eps=1e-6),
    "deepseek-llm-67b": lambda: _llama(8192, 95, 64, 8, 22016, 102400, 4096, norm_eps=1e-6),
    "smollm2-135m": lambda: _llama(576, 30, 9, 3, 1536, 49152, 8192, 1e5, tie_embeddings=True),
    "mixtral-8x7b": lambda: _llama(4096, 32, 32, 8, 14336, 32000, 32768, 1e6,
                                   moe=MoEConfig(8, 2, 14336, norm_topk_prob=True)),
    "deepseek-moe-16b": lambda: _llama(2048, 28, 16, 16, 10944, 102400, 4096, norm_eps=1e-6, moe=_v2_moe(64, 1408)),
    "deepseek-v2-lite": lambda: _deepseek(2048, 27, 16, 10944, 102400, _v2_moe(64, 1408), q_lora_rank=None,
                                          scaling=_YARN_V2),
    "deepseek-v2": lambda: _deepseek(5120, 60, 128, 12288, 102400, scaling=_YARN_V2, moe=_v2_moe(
        160, 1536, n_expert_groups=8, n_limited_groups=3, routed_scaling_factor=16.0)),
    "deepseek-v3": lambda: _deepseek(7168, 61, 128, 18432, 129280, _v3_moe(256, 8, 2048, 1, 3, 2.5, 8, 4),
                                     scaling=_YARN_V3, n_mtp_modules=1),
    "moonlight-16b-a3b": lambda: _deepseek(2048, 27, 16, 11264, 163840, _v3_moe(64, 6, 1408, 2, 1, 2.446),
                                           q_lora_rank=None, theta=50000.0, max_seq_len=8192, norm_eps=1e-5),
    "kimi-k2": lambda: _deepseek(7168, 61, 64, 18432, 163840, _v3_moe(384, 8, 2048, 1, 1, 2.827), theta=50000.0,
                                 scaling=YarnConfig(32.0, 4096, beta_fast=1.0), max_seq_len=131072, norm_eps=1e-5),
}
_ALIASES = {"deepseek-r1": "deepseek-v3"}  # the same architecture, trained further

COURSE_VOCAB = 2048  # entries of the course's own tokenizer


# GPT-2 draws its first weights with 0.02 at a width of 768; at a quarter of that, twice as wide keeps sums as large.
_MINI_STYLE = {"dropout": 0.05, "init_std": 0.04}


def _gpt_mini() -> ModelConfig:
    """GPT-2's architecture at a size that a laptop trains in an hour."""
    return _gpt2(192, 4, 6, max_seq_len=256, vocab_size=COURSE_VOCAB, **_MINI_STYLE)


def _deepseek_mini() -> ModelConfig:
    """DeepSeek-V3's architecture at gpt-mini's size and about its active parameters. The head is tied, V3's is not."""
    return ModelConfig(
        vocab_size=COURSE_VOCAB, max_seq_len=256, d_model=192, n_layers=4,
        attention=LatentAttentionConfig(6, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32,
                                        q_lora_rank=96),
        feed_forward=FeedForwardConfig(512, activation="swiglu"),
        moe=_v3_moe(8, 3, 112, 1, 1, 1.0, groups=4, limited=2),
        rope=RopeConfig(10000.0), tie_embeddings=True, n_mtp_modules=1, **_MINI_STYLE)


_MINI: dict[str, Callable[[], ModelConfig]] = {"gpt-mini": _gpt_mini, "deepseek-mini": _deepseek_mini}

GRID_WIDTHS = (24, 48, 96)
GRID_LAYERS = (1, 3)
GRID_ATTENTIONS = ("MHA", "GQA", "MLA")


def tiny(d_model: int, n_layers: int, attention: str) -> ModelConfig:
    """The family behind the app's sliders: a Llama-like block of 4 heads in which only the attention is swapped.

    attention: "MHA", "GQA" (2 key-value heads) or "MLA" (a latent of d_model / 2, and a rope key of 8).
    """
    if attention == "MLA":
        head = d_model // 4
        heads = LatentAttentionConfig(4, kv_lora_rank=d_model // 2, qk_nope_head_dim=head, qk_rope_head_dim=8,
                                      v_head_dim=head)
    elif attention in ("MHA", "GQA"):
        heads = GroupedAttentionConfig(4, n_kv_heads=4 if attention == "MHA" else 2)
    else:
        raise ValueError(f"attention must be one of {', '.join(GRID_ATTENTIONS)}, not {attention!r}")
    return ModelConfig(
        vocab_size=COURSE_VOCAB, max_seq_len=256, d_model=d_model, n_layers=n_layers, attention=heads,
        feed_forward=FeedForwardConfig(d_model * 8 // 3, activation="swiglu"),
        rope=RopeConfig(10000.0), tie_embeddings=True)


def grid_name(d_model: int, n_layers: int, attention: str) -> str:
    return f"tiny-{attention.lower()}-w{d_model}-l{n_layers}"


_GRID = {grid_name(d, n, kind): (lambda d=d, n=n, kind=kind: tiny(d, n, kind))
         for kind in GRID_ATTENTIONS for d in GRID_WIDTHS for n in GRID_LAYERS}


def description(name: str) -> str:
    """A sentence about a mini."""
    return " ".join((_MINI[name].__doc__ or "").split())


def names() -> list[str]:
    """The real models, then the minis. The grid behind the sliders is listed apart, by grid_names()."""
    return [*_REAL, *_ALIASES, *_MINI]


def mini_names() -> list[str]:
    """The two models of the course's own, which ship trained."""
    return list(_MINI)


def grid_names() -> list[str]:
    """The small models trained over width, layers and attention, for the page "Tweak and see"."""
    return list(_GRID)


def get(name: str) -> ModelConfig:
    """The config of a preset. ValueError with the nearest names if there is none."""
    known = {**_REAL, **_MINI, **_GRID}
    if not isinstance(name, str) or _ALIASES.get(name, name) not in known:
        near = difflib.get_close_matches(shown(name), [*known, *_ALIASES], n=3) or names()
        raise ValueError(f"no preset is called {shown(name)}; nearest: {', '.join(near)}")
    return known[_ALIASES.get(name, name)]()
