"""Checks of the lesson "The key-value cache: its good and its bad side": reading in pieces, and going back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from llm_core.attention.causal import causal_attention
from llm_core.checks.core import Wrong, attempt, check, compare, random, same
from llm_core.config import ModelConfig
from llm_core.model import LanguageModel


@check
def attend_with_past(function) -> str:
    """function(q, k, v [H, T, d], past) -> (out [H, T, d], past)."""
    H, S, d = 3, 8, 4
    q, k, v = (random(H, S, d, seed=seed) for seed in (71, 72, 73))
    whole = causal_attention(q[None], k[None], v[None], d**-0.5)[0]

    def piece(first: int, last: int, past):
        return _output_and_past(function, [t[:, first:last] for t in (q, k, v)], past)

    out, past = piece(0, S, None)
    compare(out, whole, [
        ("is the mask on? Read at once, the first token sees only itself",
         (q @ k.mT * d**-0.5).softmax(-1) @ v),
        ("is the scale applied? Scores are divided by the root of d",
         causal_attention(q[None], k[None], v[None], 1.0)[0]),
    ], nan="Is a whole row hidden by the mask?")
    for sizes, story in (([5, 3], "in pieces of 5 and 3"), ([2, 1, 5], "in 3 pieces"), ([1] * S, "token by token")):
        at, past = 0, None
        for size in sizes:
            out, past = piece(at, at + size, past)
            _judge_piece(out, q, k, v, at, size, whole, story)
            at += size
    _, past = piece(0, 4, None)
    other = [random(H, 2, d, seed=seed) for seed in (74, 75, 76)]
    _output_and_past(function, other, past)
    out, _ = piece(4, S, past)
    if not same(out, whole[:, 4:]):
        raise Wrong("read at once and in pieces it is right. But the same past, used a second time with another "
                    "continuation, still holds the first one: make a new past and leave the old one as it was")
    return "at once, token by token, in pieces, and with two continuations of one past: always the same"


def _output_and_past(function: Callable, new: Sequence[Tensor], past) -> tuple[Tensor, object]:
    result = attempt(function, *new, past, hints=_CACHE_ERRORS)
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise Wrong("two things are needed: return out, past")
    out, past = result
    if not isinstance(out, Tensor) or out.is_complex() or tuple(out.shape) != tuple(new[0].shape):
        shown = list(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise Wrong(f"out should be [H, T, d], here {list(new[0].shape)}, one row for each *new* token, and yours is "
                    f"{shown}")
    if past is None:
        raise Wrong("your past is None: nothing is kept for the next call")
    return out.detach().float(), past


_CACHE_ERRORS: Mapping[str, str] = {
    "must match the size": "With a past there are more keys than queries: the mask is [T, S], new tokens by all.",
    "NoneType": "At the beginning past is None: there is nothing to put before the new keys.",
    "Sizes of tensors must match": "Old and new keys are put one behind the other along the tokens' dimension, dim=1.",
}


def _judge_piece(out: Tensor, q: Tensor, k: Tensor, v: Tensor, at: int, size: int, whole: Tensor, story: str) -> None:
    now, end, scale = slice(at, at + size), at + size, q.shape[-1]**-0.5
    scores = q[:, now] @ k[:, :end].mT * scale
    top_left = scores.masked_fill(~torch.ones(size, end).tril().bool(), -torch.inf).softmax(-1) @ v[:, :end]
    alone = causal_attention(q[None, :, now], k[None, :, now], v[None, :, now], scale)[0]
    strange = [
        ("the mask starts at the top left: a new token sees the first keys. New tokens are the last, so new token i "
         "sees the columns 0 to S - T + i", top_left),
        ("new tokens see only each other. Is the past put before them?", alone),
        ("several new tokens all see each other: those that come later must be hidden",
         scores.softmax(-1) @ v[:, :end]),
    ]
    if at:
        order = torch.cat([torch.arange(at, end), torch.arange(at)])
        swapped = (q[:, now] @ k[:, order].mT * scale).masked_fill(
            ~torch.ones(size, end).tril(at).bool(), -torch.inf).softmax(-1) @ v[:, order]
        strange.append(("the new keys stand before the old ones; they belong behind them", swapped))
        old = (scores[..., :at]).softmax(-1) @ v[:, :at]
        strange.append(("a new token sees the past, and not itself", old))
    try:
        compare(out, whole[:, now], strange, nan="Is a whole row hidden by the mask?")
    except Wrong as wrong:
        raise Wrong(f"read at once it is right, but not {story}, at token {at}: {wrong}") from None


class _Counting:
    """A model that counts the tokens it reads, and hands out caches."""

    def __init__(self, model: LanguageModel):
        self._model, self.config, self.read, self.calls = model, model.config, 0, []

    def __call__(self, token_ids, cache=None, **options):
        out = self._model(token_ids, cache, **options)
        self.read += token_ids.numel()
        self.calls.append(token_ids.flatten().tolist())
        return out

    def new_cache(self, batch=1, max_tokens=None):
        return self._model.new_cache(batch, max_tokens)


@check
def score_endings(function) -> str:
    """function(model, prompt, endings) -> log-probability of each ending, the prompt being read once."""
    model = _small_model()
    prompt, endings = [5, 17, 3, 40, 8], [[7, 2, 30], [11], [7, 2, 30, 9, 1], [28, 4]]
    counting = _Counting(model)
    result = attempt(function, counting, list(prompt), [list(ending) for ending in endings], hints={
        "room for": "The cache is full. Is it put back to the prompt after each ending, and has the longest room?",
        "there are no tokens": "An ending of one token needs no reading: the prompt's last row tells its probability.",
        "must be [batch, tokens]": "ids must be [1, T]: torch.tensor([ids]).",
        "must be tensors": "Make a tensor of your numbers: torch.stack if they are tensors, torch.tensor if not."})
    if isinstance(result, (list, tuple)) and len(result) == len(endings):
        result = torch.tensor([float(number) for number in result])
    if not isinstance(result, Tensor) or tuple(result.shape) != (len(endings),):
        shown = list(result.shape) if isinstance(result, Tensor) else f"a {type(result).__name__}"
        raise Wrong(f"a tensor [{len(endings)}] is needed, a number for each ending, and yours is {shown}")
    rows = [model(torch.tensor([prompt + ending])).logits[0].log_softmax(-1) for ending in endings]
    own = [row[len(prompt) - 1:-1].gather(1, torch.tensor(ending)[:, None])[:, 0] for row, ending in zip(rows, endings)]
    shifted = [row[len(prompt):].gather(1, torch.tensor(ending)[:, None])[:, 0] for row, ending in zip(rows, endings)]

    def each(sum_up: Callable, of=own) -> Tensor:
        return torch.stack([sum_up(chances) for chances in of])

    compare(result.detach().float(), each(torch.sum), [
        ("is the mean taken? The sum of the log-probabilities is wanted", each(torch.mean)),
        ("are the probabilities multiplied? Their logarithms are summed", each(lambda c: c.sum().exp())),
        ("are the probabilities summed? It is their logarithms", each(lambda c: c.exp().sum())),
        ("the sign is turned: this is the loss; a log-probability is negative", -each(torch.sum)),
        ("the first token of each ending is missing: the prompt's last row tells its probability",
         each(lambda c: c[1:].sum())),
        ("only the first token of each ending counts here", each(lambda c: c[0])),
        ("a row tells the *next* token, and yours is asked for the one that it has just read",
         each(lambda c: c.sum(), shifted)),
        ("the logits are summed. A probability needs the softmax over the vocabulary: log_softmax", torch.stack(
            [model(torch.tensor([prompt + ending])).logits[0, len(prompt) - 1:-1].gather(
                1, torch.tensor(ending)[:, None]).sum() for ending in endings])),
        ("from the second ending on, is the one before still in the cache? truncate goes back to the prompt",
         _without_going_back(model, prompt, endings)),
    ])
    needed = len(prompt) + sum(len(ending) - 1 for ending in endings)
    if counting.read > needed:
        again = sum(call[:len(prompt)] == prompt for call in counting.calls) > 1
        raise Wrong(f"the numbers are right, but {counting.read} tokens were read and {needed} are enough. "
                    + ("The prompt was read more than once: keep it in the cache" if again else
                       "The last token of an ending need not be read: nobody asks what comes after it"))
    return f"every ending, with {needed} tokens read; without a cache it would have been " \
           f"{sum(len(prompt) + len(ending) for ending in endings)}"


def _without_going_back(model: LanguageModel, prompt: list[int], endings: list[list[int]]) -> Tensor:
    cache, scores = model.new_cache(1), []
    first = model(torch.tensor([prompt]), cache).logits[0, -1:]
    for ending in endings:
        rows = first if len(ending) == 1 else torch.cat([first, model(torch.tensor([ending[:-1]]), cache).logits[0]])
        scores.append(rows.log_softmax(-1)[range(len(ending)), ending].sum())
    return torch.stack(scores)


def _small_model() -> LanguageModel:
    base = ModelConfig.preset("llama-3.1-8b")
    torch.manual_seed(77)  # the caller's random numbers are put back by `check`
    return LanguageModel(base.replace(
        vocab_size=50, d_model=24, n_layers=2, max_seq_len=32, init_std=0.3,
        attention=base.attention.replace(n_heads=4, n_kv_heads=2),
        feed_forward=base.feed_forward.replace(d_ff=32))).eval()
