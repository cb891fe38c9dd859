"""Rotary positions (RoPE) and the two ways to stretch them: YaRN and Llama 3.1's.

Cos and sin are computed for the positions at hand at each call, so there is no table that could be too short.
Shapes: B batch, T tokens, H heads, R the numbers of a head that are turned (R / 2 pairs).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from llm_core.config import Llama3RopeConfig, ModelConfig, RopeConfig, YarnConfig, yarn_mscale


def inverse_frequencies(rope: RopeConfig, width: int) -> Tensor:
    """Radians that each pair turns a token: theta^(-2i / width) for i = 0 .. width/2 - 1, after scaling. [R / 2]"""
    pairs = torch.arange(0, width, 2, dtype=torch.float64)
    frequencies = rope.theta ** (-pairs / width)
    if isinstance(rope.scaling, YarnConfig):
        frequencies = _yarn(frequencies, rope.scaling, rope.theta, width)
    elif isinstance(rope.scaling, Llama3RopeConfig):
        frequencies = _llama3(frequencies, rope.scaling)
    return frequencies.float()


def _yarn(frequencies: Tensor, yarn: YarnConfig, theta: float, width: int) -> Tensor:
    """Slow pairs are slowed by `factor`, fast ones kept, a linear ramp between (arXiv:2309.00071, section 3.2)."""

    def pair_that_turns(turns: float) -> float:  # this many times over the original context
        return width * math.log(yarn.original_max_seq_len / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(pair_that_turns(yarn.beta_fast)), 0)
    last = min(math.ceil(pair_that_turns(yarn.beta_slow)), width - 1)
    span = max(last - first, 0.001)  # both bounds on one pair: a step instead of a ramp
    slowed = ((torch.arange(width // 2, dtype=torch.float64) - first) / span).clamp(0, 1)
    return frequencies * (1 - slowed) + frequencies / float(yarn.factor) * slowed


def _llama3(frequencies: Tensor, llama3: Llama3RopeConfig) -> Tensor:
    turns = float(llama3.original_max_seq_len) * frequencies / (2 * math.pi)  # over the original context
    kept = (turns - llama3.low_freq_factor) / (llama3.high_freq_factor - llama3.low_freq_factor)
    kept = kept.clamp(0, 1)
    return frequencies * kept + frequencies / float(llama3.factor) * (1 - kept)


def rope_table(rope: RopeConfig, width: int, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cos and sin of each pair's angle at `positions` [T] (0 is the first token). Two tensors [T, R / 2].

    Under YaRN both carry mscale(mscale) / mscale(mscale_all_dim), which is 1 for DeepSeek, where the two are equal.
    """
    frequencies = inverse_frequencies(rope, width).to(positions.device)
    angles = positions.float()[:, None] * frequencies  # [T, R / 2]
    size = 1.0
    if isinstance(rope.scaling, YarnConfig):
        y = rope.scaling
        size = yarn_mscale(y.factor, y.mscale) / yarn_mscale(y.factor, y.mscale_all_dim)
    return angles.cos() * size, angles.sin() * size


def rotate(x: Tensor, cos: Tensor, sin: Tensor, layout: str) -> Tensor:
    """Turn each pair of x [B, T, H, R] by its token's angle; cos and sin are [T, R / 2].

    layout "interleaved" pairs neighbours (0, 1), (2, 3) …; "halves" pairs (0, R/2), (1, R/2 + 1) …
    """
    wide = x if x.dtype == torch.float64 else x.float()
    a, b = (wide[..., 0::2], wide[..., 1::2]) if layout == "interleaved" else wide.chunk(2, dim=-1)
    # To turn (a, b) is to multiply a + ib by cos + i sin: a cos - b sin, and a sin + b cos.
    turned = torch.complex(a, b) * torch.complex(cos, sin)[:, None]  # the same for every head: [T, 1, R / 2]
    if layout == "interleaved":
        return torch.view_as_real(turned).flatten(-2).to(x.dtype)
    return torch.cat([turned.real, turned.imag], dim=-1).to(x.dtype)


def softmax_scale(config: ModelConfig) -> float:
    """What attention scores are multiplied by: 1 / sqrt(head_dim), under YaRN times mscale(mscale_all_dim) squared.

    DeepSeek-V3: 192^-0.5 * 1.36889^2 = 0.135234. DeepSeek's own inference code takes mscale here, and only above the
    original context; transformers takes mscale_all_dim at any length, as do we. They agree where the two are equal.
    """
    scale = config.head_dim**-0.5
    if config.rope is not None and isinstance(config.rope.scaling, YarnConfig):
        scale *= yarn_mscale(config.rope.scaling.factor, config.rope.scaling.mscale_all_dim) ** 2
    return scale
