"""What RoPE does to a head, pair by pair: how fast each turns, what a scaling leaves of that, and what a score becomes.

A pair of numbers is one complex number here, and turning it is multiplying it by exp(i * angle) (RoFormer,
arXiv:2104.09864, section 3.4.2). Angles are in radians, speeds in radians a token. R: the numbers of a head that are
turned, R / 2 pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_core.config import Llama3RopeConfig, ModelConfig, RopeConfig, YarnConfig, yarn_mscale
from llm_core.positions import inverse_frequencies, rope_table, rotate, softmax_scale
from llm_core.validation import one_of, whole

SCALINGS = ("none", "yarn", "llama3")
KEPT, BETWEEN, INTERPOLATED = "kept", "in between", "interpolated"
ALIKE, SAME, APART = "alike", "random, the same", "random, each its own"
VECTORS = (ALIKE, SAME, APART)
WIDEST = 4096  # numbers of a head that are turned: far above any model's, so that a wrong size costs nobody minutes


@dataclass(frozen=True)
class Pair:
    """Pair `index` of a head. plain: its speed by the base alone; speed: after scaling; zone: what that does to it."""

    index: int
    plain: float
    speed: float
    zone: str

    @property
    def share(self) -> float:
        """What scaling leaves of the speed, from 1 (kept) to 1 / factor (interpolated)."""
        return self.speed / self.plain

    @property
    def wavelength(self) -> float:
        """Tokens for one full turn."""
        return 2 * math.pi / self.speed

    @property
    def plain_wavelength(self) -> float:
        """Tokens for one full turn by the base alone."""
        return 2 * math.pi / self.plain

    def angle(self, position: int) -> float:
        """Where the pair of a token at this position stands, from 0 to 2 pi."""
        return position * self.speed % (2 * math.pi)


def pairs(rope: RopeConfig, width: int) -> list[Pair]:
    """All pairs of a head of which `width` numbers are turned, from llm_core.positions' own frequencies.

    ValueError if the width is odd or beyond WIDEST, or a pair so slow that 32 bits hold no number for it.
    """
    whole("rope_dim", width, least=2)
    if width % 2 or width > WIDEST:
        near = f"{width - 1}, {width + 1}" if width <= WIDEST else f"{WIDEST:,}"
        raise ValueError(f"rope_dim must be even, as pairs are turned, and at most {WIDEST:,}, not {width:,}; "
                         f"nearest: {near}")
    plain = inverse_frequencies(rope.replace(scaling=None), width).tolist()
    speeds = inverse_frequencies(rope, width).tolist()
    if not speeds[-1] or not plain[-1]:
        raise ValueError(f"a base of {rope.theta:g} makes pair {width // 2 - 1} so slow that 32 bits hold 0 for its "
                         "speed; models take bases up to some millions")
    least = 1.0 if rope.scaling is None else 1 / rope.scaling.factor
    return [Pair(i, one, speed, _zone(speed / one, least)) for i, (one, speed) in enumerate(zip(plain, speeds))]


def _zone(share: float, least: float) -> str:
    if math.isclose(share, 1, rel_tol=1e-6):
        return KEPT
    return INTERPOLATED if math.isclose(share, least, rel_tol=1e-6) else BETWEEN


def zones(turned: Sequence[Pair]) -> dict[str, tuple[int, int]]:
    """zone -> its first and last pair, the zones that no pair is in left out. Each is one stretch of pairs."""
    members = {zone: [pair.index for pair in turned if pair.zone == zone] for zone in (KEPT, BETWEEN, INTERPOLATED)}
    return {zone: (found[0], found[-1]) for zone, found in members.items() if found}


def scaled_rope(theta: float, layout: str = "interleaved", scaling: str = "none", factor: float = 1.0,
                original: int = 4096, fast: float = 32.0, slow: float = 1.0, mscale: float = 1.0) -> RopeConfig:
    """RoPE with YaRN's or Llama 3.1's scaling from the same few numbers, or with none.

    A pair that turns more than `fast` times over the `original` context is kept, one that turns less than `slow` times
    is slowed by `factor`. ValueError if fast is below slow, and what the configs refuse.
    """
    one_of("scaling", scaling, SCALINGS)
    if scaling == "none":
        return RopeConfig(theta, layout)
    if fast < slow:
        raise ValueError(f"fast pairs cannot begin at {fast:g} turns where slow ones end at {slow:g}: the first must "
                         "be at least the second; YaRN's are 32 and 1, Llama 3.1's 4 and 1")
    kind = (YarnConfig(factor, original, fast, slow, mscale, mscale) if scaling == "yarn" else
            Llama3RopeConfig(factor, original, slow, fast))
    return RopeConfig(theta, layout, kind)


def scale_formula(config: ModelConfig) -> str:
    """softmax_scale with its numbers: "1 / √192 × m² = 0.0721688 × 1.36889² = 0.135234, m = 0.1 × 1 × ln 40 + 1"."""
    root, scale = f"1 / √{config.head_dim}", f"{softmax_scale(config):.6f}"
    scaling = config.rope.scaling if config.rope is not None else None
    if not isinstance(scaling, YarnConfig):
        return f"{root} = {scale}"
    m = yarn_mscale(scaling.factor, scaling.mscale_all_dim)
    return (f"{root} × m² = {config.head_dim**-0.5:.6f} × {m:.5f}² = {scale}, "
            f"m = 0.1 × {scaling.mscale_all_dim:g} × ln {scaling.factor:g} + 1 = {m:.5f}")


def partners(width: int, layout: str) -> list[tuple[int, int]]:
    """Which two numbers of a head form each pair: neighbours ("interleaved"), or i and i + width / 2 ("halves")."""
    one_of("layout", layout, ("interleaved", "halves"))
    half = width // 2
    return [(2 * i, 2 * i + 1) if layout == "interleaved" else (i, i + half) for i in range(half)]


def example_vectors(kind: str, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A query and a key as pairs, complex [R / 2] each.

    "alike": each pair is (1, 0), in both. "random, the same": one vector with normal numbers, as query and as key;
    "random, each its own": two.
    """
    one_of("vectors", kind, VECTORS)
    if kind == ALIKE:
        query = torch.ones(width // 2, dtype=torch.complex128)
        return query, query
    draw = torch.Generator().manual_seed(seed)
    numbers = torch.randn(2, width // 2, 2, generator=draw, dtype=torch.float64)
    query, key = torch.view_as_complex(numbers)
    return query, query if kind == SAME else key


def contributions(query: Tensor, key: Tensor, turned: Sequence[Pair], m: int, n: int) -> Tensor:
    """What each pair adds to the score of a query at m with a key at n; both are really turned. [R / 2], 64 bits."""
    at = torch.tensor([[pair.speed * place for pair in turned] for place in (m, n)], dtype=torch.float64)
    q, k = query * torch.polar(torch.ones_like(at[0]), at[0]), key * torch.polar(torch.ones_like(at[1]), at[1])
    return (q * k.conj()).real


def score_in_32_bits(rope: RopeConfig, query: Tensor, key: Tensor, m: int, n: int) -> float:
    """The same score as the model itself calculates it: its table of cosines, its layout, its 32 bits."""
    width = 2 * len(query)
    order = [number for pair in partners(width, rope.layout) for number in pair]
    turned = []
    for vector, place in ((query, m), (key, n)):
        x = torch.empty(width)
        x[order] = torch.view_as_real(vector).flatten().float()
        turned.append(rotate(x[None, None, None], *rope_table(rope, width, torch.tensor([place])), rope.layout))
    return (turned[0] * turned[1]).sum().item()


def scores_by_distance(query: Tensor, key: Tensor, turned: Sequence[Pair], distances: Sequence[int]
                       ) -> tuple[list[float], list[float]]:
    """Scores of a query that stands so many tokens behind its key (below 0: before it), and their envelope.

    With h_i = q_i conj(k_i), the score is the real part of sum_i h_i exp(i d theta_i), and the envelope is that sum's
    size: how large the score could be if all pairs of the key were turned by one and the same further angle. For
    vectors that are alike it is |S| of the RoFormer paper's long-term decay (arXiv:2104.09864, section 3.4.3).
    """
    angles = torch.tensor(list(distances), dtype=torch.float64)[:, None] * torch.tensor(
        [pair.speed for pair in turned], dtype=torch.float64)  # [distances, R / 2]
    summed = (torch.polar(torch.ones_like(angles), angles) * (query * key.conj())).sum(-1)
    return summed.real.tolist(), summed.abs().tolist()


def spread(most: int, count: int = 160) -> list[int]:
    """About `count` whole distances from 1 to `most`, in equal ratios, for an axis in powers."""
    whole("most", most)
    return sorted({round(most ** (i / (count - 1))) for i in range(count)})
