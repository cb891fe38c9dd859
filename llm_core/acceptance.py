"""How often a draft's guesses would stand, measured on held-out text, and what that is worth.

Both sides always read the true text. The text that a small model writes freely soon repeats itself, and guesses on it
look better than they are. Shapes: B batch, T tokens, N places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_core.drafts import Draft
from llm_core.model import LanguageModel
from llm_core.sampling import Sampler
from llm_core.speculative import evaluating


@dataclass
class Acceptance:
    """How often guesses would stand, over `positions` places of a given text.

    greedy: the share where the draft's likeliest token is the model's. expected: the mean of sum_x min(p(x), q(x)) at
    temperature 1, the chance that the rule of `verify` accepts (2211.17192, corollary 3.6, alpha).
    """

    greedy: float
    expected: float
    positions: int


def overlap(p: Tensor, q: Tensor) -> Acceptance:
    """Acceptance between distributions p and q [N, V], place by place. Zeros in a row of q: no guess there."""
    guessed = q.sum(-1) > 0
    same = (p.argmax(-1) == q.argmax(-1)) & guessed
    return Acceptance(same.float().mean().item(), torch.minimum(p, q).sum(-1).mean().item(), len(p))


def together(parts: Sequence[Acceptance]) -> Acceptance:
    """Of several texts: the mean over all their positions."""
    positions = sum(part.positions for part in parts)
    return Acceptance(sum(part.greedy * part.positions for part in parts) / positions,
                      sum(part.expected * part.positions for part in parts) / positions, positions)


@torch.inference_mode()
def mtp_acceptance(model: LanguageModel, token_ids: Tensor) -> list[Acceptance]:
    """Of each MTP depth, on text [B, T], T up to the context.

    Depth k in row i and the model at position i + k say what token i + k + 1 is, from the same tokens 0 .. i + k.
    """
    with evaluating(model):
        out = model(token_ids)
        ahead = model.predict_ahead(out.hidden, token_ids)
    p = out.logits.float().softmax(-1)  # [B, T, V]
    return [overlap(p[:, k:].flatten(0, 1), depth.logits.float().softmax(-1).flatten(0, 1))
            for k, depth in enumerate(ahead, start=1)]


@torch.inference_mode()
def draft_acceptance(model: LanguageModel, draft: Draft, token_ids: Tensor) -> Acceptance:
    """Of any draft's first guess, at each place of a text [T] from its second token on; no guess, nothing accepted.

    It asks the draft once for each place, so give it hundreds of tokens and not thousands.
    """
    with evaluating(model, draft):
        out = model(token_ids[None])
        p, q = out.logits[0].float().softmax(-1), torch.zeros_like(out.logits[0], dtype=torch.float32)  # [T, V]
        for T in range(2, len(token_ids) + 1):
            found = draft.propose(token_ids[:T], out.hidden[:, :T - 1], 1, Sampler(1.0))
            if found.tokens:
                q[T - 1] = found.q[0]
    return overlap(p[1:], q[1:])


def expected_tokens(alpha: float, gamma: int) -> float:
    """Tokens a pass where each of gamma guesses stands with probability alpha (2211.17192, formula 1).

    1 + alpha + … + alpha^gamma: the model's own token, and a guess for each unbroken run of guesses that stand.
    """
    return sum(alpha**i for i in range(gamma + 1))
