"""Mixtures of experts in numbers: finer experts, ways to choose, what is held and what is used. Nothing needs torch.

DeepSeekMoE, arXiv:2401.06066, section 3 (fine and shared experts); DeepSeek-V2, 2405.04434, section 2.2.2 (limited
groups). E routed experts, K chosen by a token, G groups of which M are open to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, log10

from llm_core.accounting.compute import forward_flops
from llm_core.accounting.parameters import Parameters, count_parameters, per_layer
from llm_core.config import LatentAttentionConfig, ModelConfig, MoEConfig
from llm_core.validation import divides, instance_of, whole

# Sets of more experts, or within more groups, are numbers of so many digits that computing one takes minutes.
MOST_EXPERTS, MOST_GROUPS = 2**16, 64


def finer(moe: MoEConfig, pieces: int) -> MoEConfig:
    """Each expert cut in `pieces` (the paper's m): as many times more experts, each that much narrower, and as many
    times more chosen, so that what is held and used stays. Shared experts are cut too.

    ValueError if pieces does not divide d_expert.
    """
    instance_of("moe", moe, (MoEConfig,))
    whole("pieces", pieces)
    divides("pieces", pieces, "d_expert", moe.d_expert)
    return moe.replace(n_routed_experts=moe.n_routed_experts * pieces, d_expert=moe.d_expert // pieces,
                       n_experts_per_token=moe.n_experts_per_token * pieces,
                       n_shared_experts=moe.n_shared_experts * pieces)


def combinations(moe: MoEConfig, limited: bool = True) -> int:
    """How many sets of K experts a token may choose: those that lie within M groups.

    limited=False: as if all groups were open, which is "E choose K".
    ValueError for more than MOST_EXPERTS experts, or more than MOST_GROUPS open groups of still more.
    """
    E, K, G, M = moe.n_routed_experts, moe.n_experts_per_token, moe.n_expert_groups, moe.n_limited_groups
    if E > MOST_EXPERTS or (limited and MOST_GROUPS < M < G):
        raise ValueError(f"ways to choose are counted for at most {MOST_EXPERTS:,} experts and {MOST_GROUPS} open "
                         f"groups, not for {E:,} and {M:,}")
    if not limited or M == G:
        return comb(E, K)
    # Sets that touch each of g given groups: all within them, less those that miss one, and so on.
    touching = [sum((-1) ** (g - j) * comb(g, j) * comb(j * (E // G), K) for j in range(g + 1)) for g in range(M + 1)]
    return sum(comb(G, g) * touching[g] for g in range(M + 1))


def groups_by_chance(moe: MoEConfig) -> float:
    """How many groups K experts lie in, on average, if all are open and the experts are drawn by chance."""
    E, K, G = moe.n_routed_experts, moe.n_experts_per_token, moe.n_expert_groups
    return G * float(1 - comb(E - E // G, K) / comb(E, K))


def in_words(n: int) -> str:
    """A whole number of any size: exact up to 15 digits, then "9.33 × 10^19"."""
    if n < 10**15:
        return f"{n:,}"
    power, rest = divmod(log10(n), 1)  # log10 takes whole numbers beyond what a float holds
    head = f"{10**rest:.2f}"
    return f"1.00 × 10^{int(power) + 1}" if head == "10.00" else f"{head} × 10^{int(power)}"


@dataclass(frozen=True)
class ExpertSizes:
    """What a mixture of experts holds and uses.

    parameters: the whole model. layers: those with experts. one: parameters of one routed expert. held, used: of one
    expert layer (router, routed and shared experts), in all and by one token. flops: of one new token that sees
    `context`; flops_all: the same if all experts worked for it. ways, ways_free: sets of experts to choose, within the
    open groups and if all were open; power, the ways as a power of ten. groups: mean groups of a free choice by chance.
    """

    parameters: Parameters
    layers: int
    one: int
    held: int
    used: int
    flops: int
    flops_all: int
    ways: int
    ways_free: int
    power: float
    groups: float
    context: int


def expert_sizes(config: ModelConfig, context: int = 4096) -> ExpertSizes:
    """Count a config's experts. ValueError if it has none."""
    instance_of("config", config, (ModelConfig,))
    if config.moe is None or not config.n_moe_layers:
        raise ValueError("this config has no layer with experts; give it a MoEConfig, and first_k_dense below n_layers")
    moe, absorbed = config.moe, isinstance(config.attention, LatentAttentionConfig)
    layer = per_layer(config, "moe")
    held = sum(sum(layer.get(part, {}).values()) for part in ("router", "routed experts", "shared experts"))
    one = sum(layer["routed experts"].values()) // moe.n_routed_experts
    everybody = config.replace(moe=moe.replace(n_experts_per_token=moe.n_routed_experts,
                                               n_limited_groups=moe.n_expert_groups))
    ways = combinations(moe)
    return ExpertSizes(
        count_parameters(config), config.n_moe_layers, one, held,
        held - (moe.n_routed_experts - moe.n_experts_per_token) * one,
        forward_flops(config, 1, context, absorbed=absorbed).total,
        forward_flops(everybody, 1, context, absorbed=absorbed).total,
        ways, combinations(moe, limited=False), round(log10(ways), 2), groups_by_chance(moe), context)


def power_by_pieces(moe: MoEConfig, most: int = 16) -> dict[int, float]:
    """For each cut in 1, 2, 4 ... up to `most` pieces that divides d_expert: the ways to choose, as a power of ten."""
    cuts = [m for m in (1, 2, 4, 8, 16, 32) if m <= most and moe.d_expert % m == 0
            and m * moe.n_routed_experts <= MOST_EXPERTS]
    return {m: round(log10(combinations(finer(moe, m))), 2) for m in cuts}


def expert_formula(config: ModelConfig) -> list[str]:
    """The sums behind expert_sizes with their numbers in them, a line each."""
    n, moe, d = expert_sizes(config), config.moe, config.d_model
    E, K, S = moe.n_routed_experts, moe.n_experts_per_token, moe.n_shared_experts
    lines = [
        f"one expert: 3 matrices × {d:,} × {moe.d_expert:,} = {n.one:,}",
        f"an expert layer holds: router {d:,} × {E:,} + ({E:,} routed + {S:,} shared) × {n.one:,} = {n.held:,}",
        f"a token uses of it: router {d:,} × {E:,} + ({K:,} chosen + {S:,} shared) × {n.one:,} = {n.used:,}",
        f"active = total − {n.layers} layers × ({E:,} − {K:,}) × {n.one:,} = {n.parameters.active:,}"]
    if moe.n_limited_groups == moe.n_expert_groups:
        return [*lines, f"ways to choose: {E:,} over {K:,} = {in_words(n.ways)}"]
    return [*lines, f"ways to choose {K:,} of {E:,} within {moe.n_limited_groups} of {moe.n_expert_groups} groups: "
            f"{in_words(n.ways)}, of {in_words(n.ways_free)} if all groups were open"]
