"""What few bits do to a real model: its loss on held-out text, its bytes, its speed here, and what it writes.

Also the matrices that the page on quantization looks at. Each is small, so that a click is answered at once.
Shapes: R rows, C columns, N windows, T tokens.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core.data import shakespeare
from llm_core.generation import stream
from llm_core.model import LanguageModel
from llm_core.moe import Experts
from llm_core.quantization.formats import with_outliers
from llm_core.quantization.linear import Int4Linear, Int8Linear, QuantizedLinear
from llm_core.quantization.model import KEPT
from llm_core.tokenizer import Tokenizer
from llm_core.training.evaluate import total_loss

WINDOWS, WINDOW = 4, 256  # of held-out text, each from another play
QUANTISED = (QuantizedLinear, Int8Linear, Int4Linear)
MATRICES = {  # what people see -> the tensor of gpt-mini, or None: drawn here
    "feed-forward up, block 2": "blocks.2.feed_forward.up.weight",
    "feed-forward down, block 2": "blocks.2.feed_forward.down.weight",
    "queries, block 0": "blocks.0.attention.q_proj.weight",
    "token embedding": "token_embedding.weight",
    "random, normal": None,
    "random, behind SiLU": None,
}


def matrix(name: str, model: LanguageModel) -> Tensor:
    """A matrix [R, C] of MATRICES: a weight of `model` (gpt-mini), or random numbers that are always the same."""
    if name not in MATRICES:
        raise ValueError(f"the matrix must be one of {', '.join(MATRICES)}, not {name!r}")
    if MATRICES[name]:
        return model.get_parameter(MATRICES[name]).detach()
    drawn = torch.randn(768, 192, generator=torch.Generator().manual_seed(0))
    return F.silu(2 * drawn) if "SiLU" in name else drawn


def activations(size: float, tokens: int = 256, width: int = 1024) -> tuple[Tensor, Tensor]:
    """Inputs of a layer as real models have them: normal numbers [tokens, width], and one column that is `size` times
    as large (none at size 1). Also the mask of that column."""
    x = torch.randn(tokens, width, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros_like(x, dtype=torch.bool)
    if size > 1:
        mask[:, 7] = True
        x[:, 7] *= size
    return x, mask


def weights(size: float, outputs: int = 256, inputs: int = 1024) -> tuple[Tensor, Tensor]:
    """A weight [outputs, inputs] of normal numbers, three of which are `size` times as large as the typical one (none
    at size 1). Also their mask."""
    x = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(1))
    return with_outliers(x, size if size > 1 else 0, count=3)


def held_out(tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """A fixed piece of text that no mini was trained on: inputs and targets [N, T], from the ends of N plays."""
    plays = shakespeare().held_out
    ids = [tokenizer.encode(play)[:WINDOW + 1] for play in plays[::len(plays) // WINDOWS][:WINDOWS]]
    rows = torch.tensor(ids)  # each play's end is far longer than a window
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def loss(model: LanguageModel, text: tuple[Tensor, Tensor]) -> float:
    """Nats a token on `text`, as held_out gives it. Guessing blindly costs ln V."""
    return total_loss(model, *text) / text[1].numel()


def blind_loss(model: LanguageModel) -> float:
    """What guessing among all tokens alike costs, in nats a token."""
    return math.log(model.config.vocab_size)


def grown(loss_now: float, loss_before: float) -> float:
    """By how many nats a token the loss grew; below 0 where it fell."""
    return loss_now - loss_before


def held_out_tokens() -> int:
    """How many tokens `held_out` has."""
    return WINDOWS * WINDOW


def lost(loss_now: float, loss_before: float, blind: float) -> float:
    """The share of what training won (blind guessing - loss_before) that is gone; above 1: worse than guessing."""
    return (loss_now - loss_before) / (blind - loss_before)


@dataclass(frozen=True)
class Size:
    """The layers that quantize_model exchanges: how many weights, and their bytes with scales, but without biases."""

    weights: int
    nbytes: int

    @property
    def bits_a_weight(self) -> float:
        return 8 * self.nbytes / self.weights


def size(model: LanguageModel, bits: int | None = None) -> Size:
    """Of a quantised model, read from its tensors. Of a model that is not (bits given): what the same layers would take
    in `bits` bits a weight. torch's 4-bit kernel keeps a shift beside each scale, which counts too."""
    if bits is not None:
        weights = sum(module.weight.numel() for name, module in model.named_modules()
                      if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] not in KEPT)
        weights += sum(p.numel() for module in model.modules() if isinstance(module, Experts)
                       for p in module.parameters())
        return Size(weights, weights * bits // 8)
    layers = [module for module in model.modules() if isinstance(module, QUANTISED)]
    return Size(sum(math.prod(layer.shape) for layer in layers),
                sum(buffer.nbytes for layer in layers for name, buffer in layer.named_buffers() if name != "bias"))


def on_kernels(model: LanguageModel) -> bool:
    """Whether all quantised layers run on torch's kernels for few bits; if not, weights become numbers at each call."""
    layers = [module for module in model.modules() if isinstance(module, QUANTISED)]
    return bool(layers) and not any(isinstance(layer, QuantizedLinear) for layer in layers)


@dataclass(frozen=True)
class Written:
    """A greedy text without its prompt, its ids, and the median of the seconds that a token took."""

    text: str
    ids: list[int]
    seconds: float

    def times_as_fast_as(self, other: Written) -> float:
        """The ratio of their seconds a token: above 1 if this one is the faster."""
        return other.seconds / self.seconds


def write_in_turns(models: Sequence[LanguageModel], tokenizer: Tokenizer, prompt: str, tokens: int = 32,
                   max_seconds: float = 2.0, at_least: int = 2) -> list[Written]:
    """What each model writes after the prompt, greedily; they take turns, a token each, so that their speeds compare
    even on a busy machine.

    At most `tokens` each, and none after about `max_seconds` in all, but always `at_least`, two or more, if the text
    does not end before: the first, which reads the prompt, is not timed. ValueError for an empty prompt, or one longer
    than the context.
    """
    ids = tokenizer.encode(prompt)
    texts = [stream(model, ids, tokens, stop_token=tokenizer.end_of_text) for model in models]
    written, taken, began = [[] for _ in models], [[] for _ in models], time.perf_counter()
    for turn in range(1, tokens + 1):
        for text, mine, times in zip(texts, written, taken, strict=True):
            start = time.perf_counter()
            step = next(text, None)
            if step is not None:
                mine.append(int(step.token))
                times.append(time.perf_counter() - start)
        if turn >= max(2, at_least) and time.perf_counter() - began > max_seconds:
            break
    return [Written(tokenizer.decode([i for i in mine if i != tokenizer.end_of_text]), mine,
                    statistics.median(times[1:]) if len(times) > 1 else 0.0)
            for mine, times in zip(written, taken, strict=True)]
