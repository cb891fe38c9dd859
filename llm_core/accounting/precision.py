"""Which part of the work DeepSeek-V3 trains in FP8, and which part it keeps in higher precision.

arXiv:2412.19437, section 3.3.1: the three products of linear layers are in FP8. In their original precision (BF16 or
FP32) stay the embedding, the output head, the routers, the norms, and attention's own products (scores and values).
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_core.accounting.compute import forward_flops
from llm_core.accounting.parameters import rows
from llm_core.config import ModelConfig
from llm_core.validation import instance_of, whole

IN_FP8 = ("attention projections", "dense feed-forward", "routed experts", "shared experts")


@dataclass(frozen=True)
class Work:
    """A part of the model: whether V3 multiplies it in FP8, its parameters, and its FLOPs in one forward pass.

    parameters_active: those that one token uses. flops: of all `tokens`, as forward_flops counts them.
    """

    part: str
    fp8: bool
    parameters: int
    parameters_active: int
    flops: int


def precision_map(config: ModelConfig, tokens: int) -> list[Work]:
    """The main model's parts as forward_flops names them, for `tokens` tokens that see each other; largest work first.

    Parameters sum to count_parameters(config).total and .active, FLOPs to forward_flops(config, tokens).total. What is
    looked up or added (embeddings, norms, biases) has parameters and no FLOPs. A tied head is multiplied; its
    parameters stand under "token embedding". MTP modules are left out.
    """
    instance_of("config", config, (ModelConfig,))
    whole("tokens", tokens)
    total, active = {}, {}
    for row in rows(config):
        part = "attention projections" if row.part == "attention" else row.part
        total[part] = total.get(part, 0) + row.total
        active[part] = active.get(part, 0) + row.active
    flops = forward_flops(config, tokens).by_part
    out = [Work(part, part in IN_FP8, total.get(part, 0), active.get(part, 0), flops.get(part, 0))
           for part in dict.fromkeys([*flops, *total])]
    return sorted(out, key=lambda work: (-work.flops, -work.parameters))


def fp8_share(config: ModelConfig, tokens: int) -> float:
    """The part of a forward pass's FLOPs that V3 would do in FP8, from 0 to 1. Backward has the same share.

    (Each product of the forward pass has two of the same size in the backward pass, in the same precision.)
    """
    work = precision_map(config, tokens)
    return sum(w.flops for w in work if w.fp8) / sum(w.flops for w in work)
