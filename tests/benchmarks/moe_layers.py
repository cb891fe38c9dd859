"""A layer of experts: tokens sorted by expert, beside the loop that most courses write."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core import presets
from llm_core.config import MoEConfig
from llm_core.moe import MoE
from llm_core.stacked import stack_for_decoding
from tests.benchmarks.measuring import bandwidth, interleaved, peak
from tests.benchmarks.results import Row

WIDTH, EXPERT, CHOSEN, TOKENS = 512, 256, 6, 512


def layer(experts: int) -> MoE:
    torch.manual_seed(0)
    moe = MoEConfig(n_routed_experts=experts, n_shared_experts=0, n_experts_per_token=CHOSEN, d_expert=EXPERT)
    made = MoE(presets.get("deepseek-mini").replace(d_model=WIDTH, moe=moe))
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    return made.eval()


def masked(moe: MoE, x: Tensor) -> Tensor:
    """Every expert computes every token, and a mask of gate weights keeps what was asked for."""
    routing, e = moe.router(x), moe.experts
    out = torch.zeros_like(x)
    for i in range(len(e.gate)):
        weight = (routing.weights * (routing.experts == i)).sum(dim=-1, keepdim=True)  # [N, 1]
        out += weight * F.linear(F.silu(F.linear(x, e.gate[i])) * F.linear(x, e.up[i]), e.down[i])
    return out


@torch.inference_mode()
def rows() -> Iterator[Row]:
    plain = {n: layer(n) for n in (16, 64, 256)}
    layers = {n: stack_for_decoding(moe) for n, moe in plain.items()}
    x = torch.randn(1, TOKENS, WIDTH)
    theirs = masked(plain[64], x[0])
    assert (layers[64](x)[0][0] - theirs).abs().max() < 1e-4 * theirs.abs().max()
    calls = {f"sorted {n}": lambda moe=moe: moe(x) for n, moe in layers.items()}
    calls["masked 64"] = lambda: masked(plain[64], x[0])
    calls |= {f"one {n}": lambda moe=moe: [moe(x[:, i:i + 1]) for i in range(50)] for n, moe in layers.items()}
    t = interleaved(calls, rounds=15)
    ms = {name: 1000 * seconds for name, seconds in t.items()}
    floor = {n: 1000 * max(6 * TOKENS * CHOSEN * WIDTH * EXPERT / peak(), 12 * n * WIDTH * EXPERT / bandwidth())
             for n in layers}
    yield Row("MoE layer, 512 tokens, top 6 of 64 experts, over the masked loop", ms["masked 64"] / ms["sorted 64"],
              4.5, 6, f"{ms['sorted 64']:.1f} against {ms['masked 64']:.0f} ms; at peak {floor[64]:.0f} ms")
    yield Row("the same layer, 256 experts over 16", ms["sorted 256"] / ms["sorted 16"], 3.5, 2.5,
              f"{ms['sorted 256']:.1f} against {ms['sorted 16']:.1f} ms; at peak {floor[256]:.0f} and {floor[16]:.0f}, "
              f"a ratio of {floor[256] / floor[16]:.2f}", at_most=True)
    yield Row("one token, 256 experts over 64", ms["one 256"] / ms["one 64"], 1.1, None,
              f"{ms['one 256'] / 50:.2f} against {ms['one 64'] / 50:.2f} ms", at_most=True)
