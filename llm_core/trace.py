"""Follow tokens through a model: what each compartment adds to their vectors, who looks at whom, what would be said.

The blocks are run part by part here, with the model's own layers, and every vector on the way is kept. Only tokens in a
window are watched, so that a long text costs no more memory than a short one.
Shapes: T tokens of the text, W watched ones, L layers, H heads, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_core.attention.causal import attention_shares
from llm_core.generation import as_batch
from llm_core.model import LanguageModel
from llm_core.moe import MoE
from llm_core.positions import rope_table

CHUNK = 512  # positions whose logits are held at a time


@dataclass(frozen=True)
class Layer:
    """One block on the watched tokens, [W, D] each, in the order of the compartments.

    entering -> attention_normed -> attended; between = entering + attended -> feed_forward_normed -> fed;
    leaving = between + fed. shares [H, W, W]: how much a watched token (row) looks at each watched one; to_first
    [H, W]: at the first token of the text, watched or not; to_earlier [H, W]: at all before the window together.
    experts, gates [W, K]: the routed experts that were chosen and their weights, None in a dense block.
    """

    entering: Tensor
    attention_normed: Tensor
    attended: Tensor
    between: Tensor
    feed_forward_normed: Tensor
    fed: Tensor
    leaving: Tensor
    shares: Tensor
    to_first: Tensor
    to_earlier: Tensor
    experts: Tensor | None
    gates: Tensor | None


@dataclass(frozen=True)
class Trace:
    """What was seen. start: the position of the first watched token, from 0.

    token_embedding [W, D]; position_embedding [W, D], None where the model has RoPE, which turns queries and keys
    instead; layers; final [W, D] after the final norm; logits [W, V].
    """

    start: int
    token_embedding: Tensor
    position_embedding: Tensor | None
    layers: list[Layer]
    final: Tensor
    logits: Tensor


@torch.no_grad()
def trace(model: LanguageModel, token_ids: Tensor | Sequence[int], start: int = 0, end: int | None = None) -> Trace:
    """Run one text through the model and watch the tokens at positions start .. end - 1 (all of them if not given).

    ValueError for an empty window, and as LanguageModel for ids that the model cannot take.
    """
    ids = as_batch(token_ids)
    end = ids.shape[1] if end is None else end
    if len(ids) != 1:
        raise ValueError(f"one text can be followed at a time, not {len(ids)}")
    model.check_ids(ids, 0, None)
    if not 0 <= start < end <= ids.shape[1]:
        raise ValueError(f"the window {start} to {end} does not lie in a text of {ids.shape[1]} tokens")
    window, config = slice(start, end), model.config
    positions = torch.arange(ids.shape[1])
    x, places, rope = model.token_embedding(ids), None, None  # [1, T, D]
    embedded = x[0, window]
    if config.rope is None:
        places = model.position_embedding(positions)  # [T, D]
        x = x + places
    else:
        rope = rope_table(config.rope, config.rope_dim, positions)
    layers = []
    for block in model.blocks:
        x, layer = _through(block, x, rope, window)
        layers.append(layer)
    watched = x[:, window]
    return Trace(start, embedded, None if places is None else places[window], layers, model.final_norm(watched)[0],
                 model.logits(watched)[0])


def _through(block, x: Tensor, rope, window: slice) -> tuple[Tensor, Layer]:
    """One block, as Block.forward runs it in use (no dropout), and what it did to the watched tokens."""
    attention_normed = block.attention_norm(x)
    attended = block.attention(attention_normed, rope)
    between = x + attended
    feed_forward_normed = block.feed_forward_norm(between)
    fed, routing = block.feed_forward(feed_forward_normed), None
    if isinstance(block.feed_forward, MoE):
        fed, routing = fed
    leaving = between + fed
    q, k = block.attention.queries_and_keys(attention_normed, rope)
    shares = attention_shares(q[:, :, window], k[:, :, :window.stop], block.attention.scale)[0]  # [H, W, stop]
    seen = [t[0, window] for t in (x, attention_normed, attended, between, feed_forward_normed, fed, leaving)]
    return leaving, Layer(*seen, shares[:, :, window].contiguous(), shares[:, :, 0].contiguous(),
                          shares[:, :, :window.start].sum(dim=-1),
                          None if routing is None else routing.experts[window],
                          None if routing is None else routing.weights[window])


@torch.no_grad()
def logit_lens(model: LanguageModel, seen: Trace) -> Tensor:
    """What the model would say if it stopped early: probabilities [L + 1, W, V], the first before any block.

    The final norm and the output head are put on the stream between the blocks (nostalgebraist 2020, "interpreting GPT:
    the logit lens"). They were trained for the last block's output alone, so early rows are a view, not a result.
    """
    streams = torch.stack([seen.layers[0].entering, *(layer.leaving for layer in seen.layers)])  # [L + 1, W, D]
    return model.logits(streams).softmax(dim=-1)


@dataclass(frozen=True)
class Task:
    """One token's guess at the next. likeliest: the id it bets on most, with that probability; target: the id that
    follows, its probability and the loss −ln of it in nats; these three are None for the last token of a text."""

    likeliest: int
    chance: float
    target: int | None
    target_chance: float | None
    loss: float | None


def tasks(seen: Trace, token_ids: Sequence[int]) -> list[Task]:
    """The prediction task of each watched token. token_ids: the whole text that was traced."""
    log_chances = seen.logits.log_softmax(dim=-1)  # [W, V]
    out = []
    for row, log_chance in enumerate(log_chances):
        best, t = int(log_chance.argmax()), seen.start + row + 1
        target = int(token_ids[t]) if t < len(token_ids) else None
        about = (None,) * 2 if target is None else (log_chance[target].exp().item(), -log_chance[target].item())
        out.append(Task(best, log_chance[best].exp().item(), target, *about))
    return out


@torch.no_grad()
def task_losses(model: LanguageModel, token_ids: Tensor | Sequence[int]) -> Tensor:
    """−ln(probability of the token that follows) for each token but the last, which has no target: [T - 1], in nats."""
    ids = as_batch(token_ids)
    hidden = model(ids, last_only=True).hidden[0, :-1]  # [T - 1, D]
    losses = [torch.nn.functional.cross_entropy(model.logits(h), target, reduction="none")
              for h, target in zip(hidden.split(CHUNK), ids[0, 1:].split(CHUNK))]
    return torch.cat(losses)


def added(seen: Trace, row: int) -> list[tuple[float, float]]:
    """For each block: the size of what attention adds to watched token `row`, then of what feed-forward adds, in per
    cent of the size that the token's vector had just before."""
    return [(100 * (size(layer.attended[row]) / size(layer.entering[row])).item(),
             100 * (size(layer.fed[row]) / size(layer.between[row])).item()) for layer in seen.layers]


def strongest_heads(seen: Trace, row: int) -> list[tuple[int, int, float]]:
    """For each watched token up to `row`: the layer and head in which token `row` looks at it most, and how much."""
    shares = torch.stack([layer.shares[:, row, :row + 1] for layer in seen.layers])  # [L, H, row + 1]
    best, where = shares.flatten(0, 1).max(dim=0)
    H = shares.shape[1]
    return [(i // H, i % H, share) for i, share in zip(where.tolist(), best.tolist())]


def settles(likeliest: Sequence[int]) -> int:
    """Index in a token's likeliest guesses, one after each block, from which on the last one stays the likeliest."""
    changed = [i for i, guess in enumerate(likeliest) if guess != likeliest[-1]]
    return changed[-1] + 1 if changed else 0


def size(vectors: Tensor) -> Tensor:
    """Root mean square of each vector [..., D] -> [...]: how large a typical one of its numbers is."""
    return vectors.square().mean(dim=-1).sqrt()
