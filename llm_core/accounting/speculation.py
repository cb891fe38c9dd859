"""When is a second row free? What a pass that checks guesses takes at least, on a machine given by two numbers.

A plain step reads all weights to give each text one token; a pass with guesses reads them once for 1 + guesses rows a
text (Leviathan et al. 2023, arXiv:2211.17192). In a dense model the rows more cost nothing until arithmetic takes
longer than reading. With experts they choose others than the first row does, and those have to be read too: free only
where the batch has them all read anyway. Bounds as decode_bound makes them: what a machine takes at the least.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from llm_core.accounting.cache import cache_bytes
from llm_core.accounting.compute import Hardware, decode_bound, forward_flops
from llm_core.config import LatentAttentionConfig, ModelConfig
from llm_core.validation import instance_of, real, shown, whole

V3_ACCEPTED = (0.85, 0.90)  # of V3's second tokens, "across various generation topics" (2412.19437, section 5.4.3)
MOST_GUESSES = 1000
V3_SPEED_UP = 1.8  # in tokens a second, as published there, without hardware, batch or texts


@dataclass(frozen=True)
class SpeculativeBound:
    """Least seconds of a plain step, of a pass that checks `guesses` guesses a text, and of making them.

    limited_by: what the checking pass waits for, "memory" or "compute".
    """

    guesses: int
    plain_seconds: float
    checking_seconds: float
    guessing_seconds: float
    limited_by: str

    @property
    def rows_cost(self) -> float:
        """What the rows more cost, in plain steps: 0 where they are free."""
        return self.checking_seconds / self.plain_seconds - 1

    @property
    def guessing_cost(self) -> float:
        """What the draft costs, in plain steps."""
        return self.guessing_seconds / self.plain_seconds

    @property
    def c(self) -> float:
        """What a pass with guesses costs more than a plain step, in plain steps."""
        return self.rows_cost + self.guessing_cost

    def speed_up(self, p: float) -> float:
        """Where each guess stands with probability p on its own: (1 + p + … + p^guesses) / (1 + c). Below 1 it slows.

        The sum is the tokens of a pass (2211.17192, formula 1); for one guess this is (1 + p) / (1 + c).
        """
        real("p", p, or_zero=True)
        if p > 1:
            raise ValueError(f"p is a share from 0 to 1, not {p!r}")
        return sum(p**i for i in range(self.guesses + 1)) / (1 + self.c)


@lru_cache(maxsize=1024)
def speculative_bound(config: ModelConfig, hardware: Hardware, guesses: int = 1, batch: int = 1, context: int = 1,
                      weight_bits: int = 16, cache_bits: int = 16) -> SpeculativeBound:
    """Each of `batch` texts has `context` tokens, the newest included, and gets `guesses` guesses a pass.

    The rows of a text share its cache, which is read once. Experts: as if each row chose on its own, as in
    decode_bound; rows of one text may choose more alike, and then less is read. Draft: one MTP module, applied
    `guesses` times to a row a text; it is one more layer of the model's own kind behind the projection of 2 D to D, and
    reads the model's output head again. A model without modules is given the one that it would have.
    """
    instance_of("hardware", hardware, (Hardware,))
    whole("guesses", guesses)
    if guesses > MOST_GUESSES:
        raise ValueError(f"guesses must be at most {MOST_GUESSES:,} a pass, not {shown(guesses)}")
    sizes = batch, context, weight_bits, cache_bits
    plain, _ = _pass(config, hardware, 1, *sizes)
    checking, limited_by = _pass(config, hardware, 1 + guesses, *sizes)
    projection = 2 * config.d_model**2  # parameters of eh_proj
    one, _ = _pass(_one_layer(config), hardware, 1, *sizes, more_parameters=projection)
    return SpeculativeBound(guesses, plain, checking, guesses * one, limited_by)


def _pass(config: ModelConfig, hardware: Hardware, rows: int, batch: int, context: int, weight_bits: int,
          cache_bits: int, more_parameters: int = 0) -> tuple[float, str]:
    """Least seconds of one pass over `rows` new tokens of each text, the first of which sees `context` tokens."""
    weights = decode_bound(config, hardware, batch * rows, 1, weight_bits, cache_bits).weight_bytes
    weights += -(-more_parameters * weight_bits // 8)
    seen = context + rows - 1
    latent = isinstance(config.attention, LatentAttentionConfig)
    flops = batch * (forward_flops(config, rows, seen, absorbed=latent).total + 2 * rows * more_parameters)
    memory = (weights + cache_bytes(config, batch, seen, cache_bits)) / hardware.bytes_per_second
    compute = flops / hardware.flops_per_second
    return max(memory, compute), "memory" if memory >= compute else "compute"


def _one_layer(config: ModelConfig) -> ModelConfig:
    """The model's last layer alone, with embedding and head: what an MTP module is made of."""
    moe = config.moe.replace(first_k_dense=0) if config.moe else None
    return config.replace(n_layers=1, n_mtp_modules=0, moe=moe)
