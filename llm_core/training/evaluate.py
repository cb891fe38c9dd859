"""How well a model predicts text that it was not trained on."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core.acceptance import Acceptance, draft_acceptance, mtp_acceptance, together
from llm_core.data import TokenText, windows
from llm_core.drafts import BigramDraft, PromptLookupDraft
from llm_core.model import LanguageModel

COUNTED = 2_000_000  # tokens of the text to learn from that the bigram table counts


@torch.no_grad()
def total_loss(model: LanguageModel, inputs: Tensor, targets: Tensor, batch_size: int = 16) -> float:
    """Cross-entropy in nats, summed over all targets [N, T] that are not -100."""
    was_training = model.training
    model.eval()
    total = 0.0
    for x, y in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
        logits = model(x).logits  # [B, T, V]
        total += F.cross_entropy(logits.flatten(0, 1).float(), y.flatten(), ignore_index=-100, reduction="sum").item()
    model.train(was_training)
    return total


def bits_per_byte(model: LanguageModel, inputs: Tensor, targets: Tensor, n_bytes: int) -> float:
    """Bits needed for each byte of the text: total loss in nats / ln 2 / bytes. Comparable across tokenizers."""
    return total_loss(model, inputs, targets) / math.log(2) / n_bytes


def second_token(model: LanguageModel, text: TokenText, rows: int = 16) -> dict[str, Acceptance]:
    """How often a guess at the token after the next would stand, in `rows` windows of held-out text.

    The model's first MTP module, beside two that learn nothing: a table of which token followed which in the text to
    learn from, and a search for the last words earlier in the window. All are asked at the same places.
    """
    vocab_size = model.config.vocab_size
    ids, _ = windows(text.held_out, model.config.max_seq_len)
    ids = ids[:: max(1, len(ids) // rows)][:rows]  # [N, T], from all over the held-out text
    counted = torch.as_tensor(text.train[:COUNTED].astype("int64") if not isinstance(text.train, Tensor)
                              else text.train[:COUNTED])
    drafts = {"bigram table": BigramDraft(counted, vocab_size), "prompt lookup": PromptLookupDraft(vocab_size)}
    return {"MTP": mtp_acceptance(model, ids)[0],
            **{name: together([draft_acceptance(model, draft, row) for row in ids]) for name, draft in drafts.items()}}
