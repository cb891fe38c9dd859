"""How a model is trained: everything that decides the result, in one frozen description that its card repeats."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llm_core import presets
from llm_core.validation import divides, one_of, real, whole


@dataclass(frozen=True)
class Recipe:
    """AdamW with warm-up and cosine decay. A step reads batch_size texts of `context` tokens.

    accumulate: the batch is read in this many parts, whose gradients are added: the same step in less memory.
    bias_update_speed: V3's gamma, for models whose router has a selection bias (arXiv:2412.19437, section 4.2: 0.001);
    0 leaves the bias where it is. mtp_weight: V3's lambda, the weight of the MTP loss (0.3, same section).
    precision: "fp32"; "bf16", matrix products in 16 bits (autocast) under weights in 32; or "fp8", V3's way, simulated.
    """

    preset: str
    steps: int
    batch_size: int = 8
    context: int = 256
    learning_rate: float = 2e-3
    final_learning_rate: float = 1e-4
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    bias_update_speed: float = 1e-3
    evaluate_every: int = 500
    seed: int = 0
    accumulate: int = 1
    mtp_weight: float = 0.3
    precision: str = "fp32"

    def __post_init__(self):
        for name in ("steps", "batch_size", "context", "warmup_steps", "evaluate_every", "accumulate"):
            whole(name, getattr(self, name))
        whole("seed", self.seed, least=0)
        divides("accumulate", self.accumulate, "batch_size", self.batch_size)
        for name in ("learning_rate", "final_learning_rate", "clip_norm"):
            real(name, getattr(self, name))
        for name in ("weight_decay", "bias_update_speed", "mtp_weight"):
            real(name, getattr(self, name), or_zero=True)
        one_of("precision", self.precision, ("fp32", "bf16", "fp8"))

    def learning_rate_at(self, step: int) -> float:
        """Up in a straight line for warmup_steps, then down along half a cosine to final_learning_rate."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        low = self.final_learning_rate
        return low + (self.learning_rate - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    @property
    def tokens(self) -> int:
        """Tokens read in training, repeats included."""
        return self.steps * self.batch_size * self.context


# The recipes of the models that ship. Same data, tokenizer and token budget for the two minis.
RECIPES: dict[str, Recipe] = {
    **{name: Recipe(name, steps=6000, learning_rate=3e-3) for name in presets.mini_names()},
    # The grid: one budget for all, so that only the config differs. Small models stand higher learning rates.
    **{name: Recipe(name, steps=1000, learning_rate=4e-3, evaluate_every=1000) for name in presets.grid_names()},
}
