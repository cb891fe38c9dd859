"""Multi-token prediction (MTP): modules behind the model that guess the tokens after the next one.

DeepSeek-V3, arXiv:2412.19437, section 2.2. Module k is one more block. Its row i takes what depth k - 1 made of
token i, and the embedding of token i + k, which is known by then. It guesses token i + k + 1. Depth 0 is the model:

    depth   row i reads                          guesses      rows over T tokens    row 0 of "the cat sat on"
    0       tokens 0 .. i                        i + 1        T                     the               -> cat
    1       hidden i of the model, token i + 1   i + 2        T - 1                 (the), cat        -> sat
    2       hidden i of depth 1,   token i + 2   i + 3        T - 2                 (the, cat), sat   -> on

Token embedding and output head are the main model's own. In training the modules make each position learn more; when
text is generated they can be left away, or draft tokens for `speculative`.

Where the paper is silent, the published weights are read as the engines that run them do:
- eh_proj multiplies [enorm(embedding), hnorm(hidden)], embedding first, though the paper's formula (21) has it last: so
  vLLM (deepseek_mtp.py), SGLang (deepseek_nextn.py) and transformers (MtpLayer).
- The hidden state handed on is what the output head reads, *behind* the final norm: the main model's in all three, a
  module's in SGLang and transformers. (vLLM handed a module's on before its norm, and drafts were accepted less often,
  until its pull request 45895.)
- Row i turns its queries and keys as position i, as in vLLM; transformers takes i + k. The result is the same, since
  scores under RoPE see distances only. Learned positions (GPT-2) are not added again: the hidden state has them.
- Row 0 is a row like any other. vLLM sets its embedding to zero, which the paper's training does not (its issue 33299).

Shapes: B batch, T tokens, R rows of a module, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_core.block import Block
from llm_core.cache import LayerCache
from llm_core.config import ModelConfig
from llm_core.linear import Linear
from llm_core.moe import Routing
from llm_core.norms import build_norm


@dataclass
class Ahead:
    """What one depth says of R rows: logits [B, R, V]; hidden [B, R, D] behind its final norm, which the next depth
    takes; its router's choices, if it has experts."""

    logits: Tensor
    hidden: Tensor
    routing: Routing | None = None


class MTPModule(nn.Module):
    """A norm on each input, eh_proj from 2 D to D, a causal block (with experts, if the model has any) and a norm.

    Embedding and head are not here: they are the main model's, one tensor each.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.enorm = build_norm(config.norm, config.d_model, config.norm_eps)  # e: of the embedding
        self.hnorm = build_norm(config.norm, config.d_model, config.norm_eps)  # h: of the hidden state
        self.eh_proj = Linear(2 * config.d_model, config.d_model, bias=False)
        self.block = Block(config, config.n_layers if config.moe else 0)  # built as a layer behind the model's last
        self.final_norm = build_norm(config.norm, config.d_model, config.norm_eps)

    def forward(self, hidden: Tensor, embedding: Tensor, rope: tuple[Tensor, Tensor] | None,
                cache: LayerCache | None = None) -> tuple[Tensor, Routing | None]:
        """hidden [B, R, D] of the depth before, embedding [B, R, D] of the tokens k further on -> hidden [B, R, D]."""
        both = torch.cat([self.enorm(embedding), self.hnorm(hidden)], dim=-1)  # [B, R, 2 D]
        x, routing = self.block(self.eh_proj(both), rope, cache)
        return self.final_norm(x), routing


def mtp_loss(ahead: Sequence[Ahead], targets: Tensor, weight: float) -> Tensor:
    """The loss to add to the main one: weight / D * (L_1 + … + L_D), weight being the paper's lambda (formula 25).

    ahead: what `model.predict_ahead(output.hidden, token_ids)` gave, one for each of the D depths. targets [B, T] are
    the main loss's: the token after each input token, -100 where none counts. Depth k scores its T - k rows against
    targets[:, k:]. As in the paper (24), the sum is divided by all T tokens and not by the T - k rows.
    DeepSeek-V3 took weight 0.3 for its first 10T tokens, then 0.1 (section 4.2).
    """
    if not ahead:
        raise ValueError("there are no predictions to score; the config needs n_mtp_modules of at least 1")
    B, T = targets.shape
    total = 0.0
    for k, depth in enumerate(ahead, start=1):
        if depth.logits.shape[:2] != (B, T - k):
            raise ValueError(f"depth {k} has logits for {list(depth.logits.shape[:2])} rows, which do not go with "
                             f"targets of {[B, T]}; {[B, T - k]} would")
        total = total + F.cross_entropy(depth.logits.flatten(0, 1), targets[:, k:].flatten(), ignore_index=-100,
                                        reduction="sum")
    return weight / len(ahead) * total / (targets != -100).sum()
