"""What a trained model does beyond the length that it was trained on, with and without YaRN. Nothing is trained.

Two models that ship with the course and two questions: does text still become easier to guess the more of it was read
(deepseek-mini, trained on 256 tokens), and is a fact still found that was told far back (copying, trained on 1,024)?
The lesson is course/04_rope/03_long_context.ipynb. Shapes: N texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core import data
from llm_core.config import YarnConfig
from llm_core.model import LanguageModel
from llm_core.pretrained import FOLDER, load_pretrained
from llm_core.training import copying
from llm_core.validation import one_of

FACTORS = (1, 2, 4, 8)  # 1: as it was trained, without YaRN
TIMES = 4  # how many times its context a text is long
TEXTS = {"deepseek-mini": 8, "copying": 8}  # few, so that a measurement takes a second or two


@dataclass(frozen=True)
class Curve:
    """ends: the last token of each stretch, counted from 1; values: the mean in it; counts: over how many answers."""

    ends: list[int]
    values: list[float]
    counts: list[int]

    def mean(self, after: int = 0, upto: int | None = None) -> float:
        """Of all answers in the stretches that begin at `after` tokens or later and end at `upto` at the latest."""
        starts = [0, *self.ends[:-1]]
        chosen = [(value, count) for start, end, value, count in zip(starts, self.ends, self.values, self.counts)
                  if start >= after and (upto is None or end <= upto) and count]
        return sum(value * count for value, count in chosen) / sum(count for _, count in chosen)


def stretched(model: LanguageModel, factor: float, context: int) -> LanguageModel:
    """The same weights (shared, not copied) with room for `context` tokens; YaRN from the trained length if factor > 1.

    ValueError if the model has no rotary positions: a learned position that was never trained is no position.
    """
    config = model.config
    if config.rope is None:
        raise ValueError("this model has learned positions, a vector for each; there is nothing to stretch")
    yarn = YarnConfig(float(factor), config.max_seq_len) if factor > 1 else None
    longer = LanguageModel.unfilled(config.replace(max_seq_len=context, rope=config.rope.replace(scaling=yarn)))
    longer.load_state_dict(model.state_dict(), assign=True)
    return longer.eval()


def in_stretches(places: Tensor, values: Tensor, ends: Sequence[int]) -> Curve:
    """The mean of values [N] over stretches of their places [N] (1 is the first); a stretch ends at each of `ends`."""
    at = torch.bucketize(places, torch.tensor(list(ends)))
    means, counts = [], []
    for i in range(len(ends)):
        inside = values[at == i]
        counts.append(len(inside))
        means.append(inside.double().mean().item() if len(inside) else float("nan"))
    return Curve(list(ends), means, counts)


@torch.inference_mode()
def loss_by_position(model: LanguageModel, texts: Tensor, ends: Sequence[int]) -> Curve:
    """Nats that a token costs, by how many tokens stood before it. texts [N, T + 1]; two at a time are read."""
    losses = torch.cat([F.cross_entropy(model(rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten(),
                                        reduction="none") for rows in texts.split(2)])
    return in_stretches(torch.arange(1, texts.shape[1]).repeat(len(texts)), losses, ends)


@torch.inference_mode()
def recall_by_distance(model: LanguageModel, count: int, length: int, ends: Sequence[int], seed: int = 123) -> Curve:
    """The share of right answers, 0 to 1, by how many tokens ago the answer was told (llm_core.training.copying)."""
    ids, targets, back = copying.texts(count, length, seed=seed)
    right = copying.answers(lambda row: model(row).logits, ids, targets)
    return in_stretches(back[targets >= 0], right.float(), ends)


@cache
def _trained(name: str) -> LanguageModel:
    return load_pretrained(FOLDER / name if name == "copying" else name)[0]


def trained_context(name: str) -> int:
    """The longest text that the model was trained on."""
    one_of("the model", name, tuple(TEXTS))
    return _trained(name).config.max_seq_len


@cache
def held_out(length: int, count: int) -> Tensor:
    """The first `length` tokens of the held-out ends of `count` plays, [count, length], for deepseek-mini."""
    _, tokenizer = load_pretrained("deepseek-mini")
    texts = (tokenizer.encode(text) for text in data.shakespeare().held_out)
    long_enough = [ids[:length] for ids in texts if len(ids) >= length]
    return torch.tensor(long_enough[:count])


@cache
def measure(name: str, factor: int) -> Curve:
    """The curve of a shipped model over TIMES its context: nats a token, or the share of right answers.

    Measured at the first call, a second or two on a quiet core; then remembered. ValueError for other names and
    factors, FileNotFoundError if the plays' data package is missing.
    """
    context = trained_context(name)
    if factor not in FACTORS:
        raise ValueError(f"the factor must be one of {', '.join(map(str, FACTORS))}, not {factor!r}")
    length, step = TIMES * context, context // 4
    model, ends = stretched(_trained(name), factor, TIMES * context), range(step, length + 1, step)
    if name == "copying":
        return recall_by_distance(model, TEXTS[name], length, ends)
    return loss_by_position(model, held_out(length + 1, TEXTS[name]), ends)
