"""How well a model predicts text that it was not trained on."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core.model import LanguageModel


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
