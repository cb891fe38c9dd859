"""From logits to the next token: greedy, or drawn with temperature, top-k and top-p."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Sampler:
    """Picks a token for each row of logits.

    temperature: logits are divided by it; 0 means the likeliest token, always. top_k: only the k likeliest stay (more
    than the vocabulary means all). top_p: of those, the fewest whose probabilities reach p (Holtzman et al. 2019,
    arXiv:1904.09751). seed: the same seed draws the same tokens.
    """

    def __init__(self, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
                 seed: int | None = None):
        if not math.isfinite(temperature) or temperature < 0:
            raise ValueError(f"temperature must be 0 or more, not {temperature!r}; 0 always takes the likeliest token")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {top_k!r}; None keeps every token")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {top_p!r}; 1 keeps every token")
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def probabilities(self, logits: Tensor) -> Tensor:
        """The distribution that tokens are drawn from: logits [B, V] -> [B, V], rows summing to 1."""
        logits = logits.float()
        if self.temperature == 0:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        # The largest is subtracted first, so that a tiny temperature cannot overflow; in 32 bits it must not become 0.
        logits = (logits - logits.amax(-1, keepdim=True)) / max(self.temperature, 1e-30)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            logits = logits.masked_fill(~_is_among(logits, logits.topk(self.top_k).indices), float("-inf"))
        probabilities = logits.softmax(-1)
        if self.top_p is not None and self.top_p < 1:
            ranked, order = probabilities.sort(descending=True, dim=-1)
            # Those before do not reach p yet; the first always stays, also where p would be 0 in 32 bits.
            needed = ranked.cumsum(-1) - ranked < max(self.top_p, 1e-30)
            kept = torch.zeros_like(needed).scatter(-1, order, needed)
            probabilities = probabilities * kept
            probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        return probabilities

    def __call__(self, logits: Tensor) -> Tensor:
        """logits [B, V] -> token ids [B]"""
        return logits.argmax(-1) if self.temperature == 0 else self.draw(self.probabilities(logits))

    def draw(self, probabilities: Tensor) -> Tensor:
        """One token from each row of probabilities [B, V] -> [B]. At temperature 0 the likeliest, and no dice."""
        if self.temperature == 0:
            return probabilities.argmax(-1)
        return torch.multinomial(probabilities, 1, generator=self.generator)[:, 0]


def _is_among(logits: Tensor, indices: Tensor) -> Tensor:
    return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, indices, True)


greedy = Sampler(temperature=0)
