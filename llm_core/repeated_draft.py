"""One MTP module that guesses several tokens, by reading its own output as if it were the model's.

So the engines that run DeepSeek-V3 get more than one guess from its single module (vLLM and SGLang, by their settings
num_speculative_tokens and speculative-num-steps above 1). The module never learned to do this: in training it read the
model's hidden states alone, so that later guesses are worse than the first. Shapes as in drafts.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llm_core.drafts import MTPDraft, Proposal, same_start
from llm_core.model import LanguageModel
from llm_core.sampling import Sampler


class RepeatedMTPDraft(MTPDraft):
    """The model's first MTP module, again and again: as many guesses as are asked for. One guess is MTPDraft's."""

    def __init__(self, model: LanguageModel, max_tokens: int | None = None):
        super().__init__(model, max_tokens)
        if len(model.mtp) > 1:
            raise ValueError(f"this model has {len(model.mtp)} MTP modules, one for each depth: give MTPDraft")

    def propose(self, text: Tensor, hidden: Tensor, count: int, sampler: Sampler) -> Proposal:
        """Rows 0 .. T - 2 read the model's hidden states; each row behind them reads the row before and its guess."""
        known = same_start(self._read, text[:-1])
        # Row i has read token i + 1. So the rows that read guesses go too: no more is known than was read.
        self.cache.truncate(min(max(known - 1, 0), self.cache.length))
        self._read, first = text, self.cache.length
        h, read = self.model.final_norm(hidden[:, first:]), text[None, first + 1:]
        tokens, q = [], []
        while True:
            ahead = self.model.predict_at_depth(1, h, read, self.cache, last_only=True)  # [1, 1, V]
            self.cache.advance(read.shape[1])
            q.append(sampler.probabilities(ahead.logits[:, -1]))  # [1, V]
            tokens.append(sampler.draw(q[-1]))
            if len(tokens) >= count:
                break
            h, read = ahead.hidden[:, -1:], tokens[-1][None]
        return Proposal([int(token) for token in tokens], torch.cat(q))
