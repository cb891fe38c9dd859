"""Random valid configs and models for property tests: every kind of part, at sizes of a few numbers."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from llm_core import LanguageModel
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

SMALL = st.integers(1, 12)
EVEN = st.integers(1, 4).map(lambda n: 2 * n)
WIDTH = st.integers(4, 16)  # a norm of one or two numbers leaves only a sign, and experts' scores would tie
SEEDS = st.integers(0, 999)


def ropes() -> st.SearchStrategy[RopeConfig]:
    """Plain, YaRN or Llama 3.1's, in both layouts. The original context is short, so that texts go past it."""
    original = st.integers(2, 16)
    yarn = st.builds(YarnConfig, st.floats(1, 40), original, st.floats(2, 32), st.floats(0.1, 1),
                     st.sampled_from([0.0, 0.707, 1.0]), st.sampled_from([0.0, 0.707, 1.0]))
    llama3 = st.builds(Llama3RopeConfig, st.floats(1, 8), original, st.floats(0.1, 1), st.floats(1.5, 4))
    return st.builds(RopeConfig, st.sampled_from([100.0, 10000.0]), st.sampled_from(["interleaved", "halves"]),
                     st.none() | yarn | llama3)


@st.composite
def moes(draw) -> MoEConfig:
    groups, size = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    limited = draw(st.integers(1, groups))
    score = "max" if size == 1 else draw(st.sampled_from(["max", "top2"]))
    return MoEConfig(
        groups * size, draw(st.integers(1, limited * size)), draw(SMALL), draw(st.integers(0, 2)),
        draw(st.integers(0, 3)), draw(st.sampled_from(["softmax", "sigmoid"])), draw(st.booleans()),
        draw(st.sampled_from([1.0, 2.5, 16.0])), draw(st.booleans()), groups, limited, score)


@st.composite
def configs(draw, latent: bool | None = None) -> ModelConfig:
    """Any config that is valid, tiny. latent: True only MLA, False only MHA, GQA and MQA, None both."""
    rope = draw(st.none() | ropes())
    kv_heads, group, d_model = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(WIDTH)
    heads = kv_heads * group  # 1: MQA or MHA; group 1: MHA; else GQA
    if draw(st.booleans()) if latent is None else latent:
        attention = LatentAttentionConfig(heads, draw(SMALL), draw(SMALL), draw(EVEN) if rope else 0, draw(SMALL),
                                          draw(st.none() | SMALL))
    else:
        kv_heads = draw(st.sampled_from([None, heads])) if group == 1 else kv_heads
        head_dim = draw(EVEN if rope else SMALL)
        if draw(st.booleans()):  # GPT-2's way: the heads share d_model between them
            head_dim, d_model = None, heads * draw(EVEN) * 2
        attention = GroupedAttentionConfig(heads, kv_heads, head_dim, draw(st.booleans()), draw(st.booleans()))
    return ModelConfig(
        vocab_size=draw(st.integers(2, 40)), max_seq_len=draw(st.integers(2, 24)), d_model=d_model,
        n_layers=draw(st.integers(1, 3)), attention=attention, rope=rope, moe=draw(st.none() | moes()),
        feed_forward=FeedForwardConfig(draw(SMALL), draw(st.sampled_from(["gelu", "swiglu"])), draw(st.booleans())),
        norm=draw(st.sampled_from(["layernorm", "rmsnorm"])), norm_eps=draw(st.sampled_from([1e-6, 1e-5])),
        tie_embeddings=draw(st.booleans()), n_mtp_modules=draw(st.integers(0, 2)),
        dropout=draw(st.sampled_from([0.0, 0.1])), attention_dropout=draw(st.sampled_from([0.0, 0.1])))


def build(config: ModelConfig, seed: int = 0) -> LanguageModel:
    """A model in eval mode, all weights wide enough that attention, positions, biases and routing matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LanguageModel(config).eval()
        with torch.no_grad():
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                if tensor.dim() > 1:
                    tensor.normal_(std=1.5 * tensor.shape[-1] ** -0.5)
                elif "norm" in name and name.endswith("weight"):
                    tensor.uniform_(0.5, 1.5)
                else:  # biases of layers, of norms and of routers
                    tensor.normal_(std=0.2)
    return model


def ids(config: ModelConfig, batch: int, tokens: int, seed: int = 0) -> torch.Tensor:
    """A random text for each row: [B, T]."""
    return torch.randint(config.vocab_size, (batch, tokens), generator=torch.Generator().manual_seed(seed))
