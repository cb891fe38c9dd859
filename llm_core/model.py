"""The language model: token ids in, one row of logits a token out. From GPT-2 to DeepSeek-V3 by its config alone.

Shapes: B batch, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from llm_core.block import Block
from llm_core.cache import Cache
from llm_core.config import ModelConfig
from llm_core.linear import Linear, linear
from llm_core.moe import Experts, Router, Routing
from llm_core.mtp import Ahead, MTPModule
from llm_core.norms import build_norm
from llm_core.positions import rope_table


class _NoInitialisation(TorchFunctionMode):
    """Leave out the random numbers that are about to be replaced: on the meta device they cost two seconds for none."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in (kwargs or {}) else args[0]
        return function(*args, **(kwargs or {}))


@dataclass
class ModelOutput:
    """logits [B, T, V]; hidden [B, T, D], the stream before the final norm; one Routing for each MoE layer."""

    logits: Tensor
    hidden: Tensor
    routing: list[Routing] = field(default_factory=list)


class LanguageModel(nn.Module):
    """Embedding, blocks, final norm, output head; behind them config.n_mtp_modules modules that guess further ahead.

    A plain call never runs those modules: `predict_ahead` does, in training, and `speculative` when it drafts.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        if config.rope is None:
            self.position_embedding = nn.Embedding(config.max_seq_len, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.final_norm = build_norm(config.norm, config.d_model, config.norm_eps)
        if not config.tie_embeddings:
            self.output_head = Linear(config.d_model, config.vocab_size, bias=False)
        self.mtp = nn.ModuleList(MTPModule(config) for _ in range(config.n_mtp_modules))
        self.apply(self._initialise)

    @classmethod
    def unfilled(cls, config: ModelConfig) -> LanguageModel:
        """The model without numbers (on torch's meta device), for load_state_dict(…, assign=True) to fill."""
        with torch.device("meta"), _NoInitialisation():
            return cls(config)

    def _initialise(self, module: nn.Module) -> None:
        """Normal with init_std; what is added to the stream is smaller, as 2 * n_layers of them add up (GPT-2, 2.3)."""
        std = self.config.init_std
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=std)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (Router, Experts)):
            for weight in module.parameters():
                nn.init.normal_(weight, std=std)
        elif isinstance(module, Block):  # children come first, so this has the last word
            for name, weight in module.named_parameters():
                if name.endswith(("o_proj.weight", "down.weight", "experts.down")):
                    nn.init.normal_(weight, std=std / math.sqrt(2 * self.config.n_layers))

    def forward(self, token_ids: Tensor, cache: Cache | None = None, *, last_only: bool = False) -> ModelOutput:
        """token_ids [B, T], following what the cache holds -> ModelOutput. last_only: logits [B, 1, V] of the last.

        ValueError if the ids are not [B, T], are none, lie outside the vocabulary, or go past the context or the cache.
        """
        start = 0 if cache is None else cache.length
        self.check_ids(token_ids, start, cache)
        T = token_ids.shape[1]
        positions = torch.arange(start, start + T, device=token_ids.device)
        x = self.token_embedding(token_ids)  # [B, T, D]
        if self.config.rope is None:
            x, rope = x + self.position_embedding(positions), None
        else:
            rope = rope_table(self.config.rope, self.config.rope_dim, positions)
        x = self.dropout(x)
        routing = []
        for layer, block in enumerate(self.blocks):
            x, chosen = block(x, rope, None if cache is None else cache.layer(layer))
            if chosen is not None:
                routing.append(chosen)
        if cache is not None:
            cache.advance(T)
        return ModelOutput(self.logits(x[:, -1:] if last_only else x), x, routing)

    def logits(self, hidden: Tensor) -> Tensor:
        """Final norm and output head: [B, T, D] -> [B, T, V]."""
        return self._head(self.final_norm(hidden))

    def _head(self, normed: Tensor) -> Tensor:
        """A tied head is the token embedding, used backwards."""
        return linear(normed, self.token_embedding.weight) if self.config.tie_embeddings else self.output_head(normed)

    def predict_ahead(self, hidden: Tensor, token_ids: Tensor, depth: int | None = None) -> list[Ahead]:
        """What the MTP modules guess when the text itself is known, as in training: one Ahead for each depth k = 1, 2 …

        hidden [B, T, D]: `hidden` of this model's output for token_ids [B, T]. logits [B, T - k, V] of depth k: row i
        guesses token i + k + 1, so the last row guesses the token after the text. depth: how many modules, all if None.
        ValueError if there are fewer modules, or a text so short that the deepest has no row.
        """
        D, T = len(self.mtp) if depth is None else depth, token_ids.shape[1]
        if hidden.shape[:2] != token_ids.shape:
            raise ValueError(f"hidden has {list(hidden.shape[:2])} rows for token ids of {list(token_ids.shape)}; "
                             "give the whole hidden of this model's output for these ids")
        if not 1 <= D <= len(self.mtp):
            raise ValueError(f"depth {D} needs as many MTP modules, and this model has n_mtp_modules={len(self.mtp)}")
        if T <= D:
            raise ValueError(f"depth {D} needs a text of at least {D + 1} tokens, and there are {T}")
        out, h = [], self.final_norm(hidden)
        for k in range(1, D + 1):
            out.append(self.predict_at_depth(k, h[:, :T - k], token_ids[:, k:]))
            h = out[-1].hidden
        return out

    def predict_at_depth(self, k: int, hidden: Tensor, token_ids: Tensor, cache: Cache | None = None, *,
                         last_only: bool = False) -> Ahead:
        """MTP module k on R rows: hidden [B, R, D] of depth k - 1 behind its norm, and the tokens k further on [B, R].

        last_only: logits [B, 1, V] of the last row, as a draft needs them; hidden is of all rows all the same.

        With a cache from `new_mtp_cache` the rows follow those that it holds, and the caller moves its length once all
        modules have written. Without one they are rows 0 to R - 1.
        """
        start, rope = 0 if cache is None else cache.length, None
        if cache is not None:
            cache.check_room(token_ids.shape[1])
        if self.config.rope is not None:
            positions = torch.arange(start, start + token_ids.shape[1], device=token_ids.device)
            rope = rope_table(self.config.rope, self.config.rope_dim, positions)
        embedding = self.dropout(self.token_embedding(token_ids))  # [B, R, D]
        hidden, routing = self.mtp[k - 1](hidden, embedding, rope, None if cache is None else cache.layer(k - 1))
        return Ahead(self._head(hidden[:, -1:] if last_only else hidden), hidden, routing)

    def new_cache(self, batch: int = 1, max_tokens: int | None = None) -> Cache:
        """An empty cache for `batch` texts of up to `max_tokens` tokens (the whole context if not given)."""
        room = self.config.max_seq_len if max_tokens is None else max_tokens
        weight = self.token_embedding.weight
        return Cache(self.config, batch, room, dtype=weight.dtype, device=weight.device)

    def new_mtp_cache(self, batch: int = 1, max_tokens: int | None = None) -> Cache:
        """An empty cache for the MTP modules, as many layers as there are modules; all of them hold the same rows."""
        room = self.config.max_seq_len if max_tokens is None else max_tokens
        weight = self.token_embedding.weight
        layers = self.config.replace(n_layers=self.config.n_mtp_modules)
        return Cache(layers, batch, room, dtype=weight.dtype, device=weight.device)

    def update_router_biases(self, routing: list[Routing], speed: float) -> None:
        """One step of V3's balancing, from what the routers chose in this training step.

        routing: the output's, one for each MoE layer; behind it, where the MTP modules ran too, theirs.
        """
        routers = [module for module in self.modules() if isinstance(module, Router)]  # the blocks' first, then MTP's
        if len(routing) >= self.config.n_moe_layers:
            routers = routers[:len(routing)]
        for router, chosen in zip(routers, routing, strict=True):
            router.update_bias(chosen.experts, speed)

    def check_ids(self, token_ids: Tensor, start: int, cache: Cache | None) -> None:
        if token_ids.dim() != 2:
            raise ValueError(f"token ids must be [batch, tokens], not of shape {list(token_ids.shape)}")
        T, context, vocab = token_ids.shape[1], self.config.max_seq_len, self.config.vocab_size
        if T == 0:
            raise ValueError("there are no tokens to read; give at least one")
        if start + T > context:
            raise ValueError(f"{start + T} tokens are more than the model's context of {context}; "
                             f"{context - start} more would fit" if start else
                             f"{T} tokens are more than the model's context of {context}; keep the last {context}")
        if cache is not None:
            cache.check_room(T)
        low, high = token_ids.aminmax()
        if low < 0 or high >= vocab:
            raise ValueError(f"token id {int(low) if low < 0 else int(high)} is not in the vocabulary "
                             f"of {vocab} entries, 0 to {vocab - 1}")
