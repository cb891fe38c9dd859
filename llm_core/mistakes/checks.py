"""What a check is: a name, one thing that must hold, and an Outcome that says whether it does.

`CHECKS[name](model)` runs one. The checks stand in whole_model.py and parts.py. A check changes nothing that it does
not put back; a broken model may.
Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_core.model import LanguageModel

TOLERANCE = 1e-4  # of the largest number: 32 bits, added up in another order, stay well below
TOKENS = 20  # read in most checks; past the original context of a small YaRN model


@dataclass(frozen=True)
class Outcome:
    """passed: True, False, or None where the check has nothing to look at. says: why not, in a few words."""

    passed: bool | None
    says: str = ""

    def __str__(self) -> str:
        word = {True: "passes", False: "FAILS", None: "does not apply"}[self.passed]
        return f"{word}: {self.says}" if self.says else word


class Failed(Exception):
    pass


class DoesNotApply(Exception):
    pass


@dataclass(frozen=True)
class Check:
    name: str
    what: str
    body: Callable[[LanguageModel], None]
    of_model: bool

    def __call__(self, model: LanguageModel | None = None) -> Outcome:
        """Run it without dropout and gradients. A model that stops with an error has failed."""
        if model is None and self.of_model:
            return Outcome(None, "it needs a model")
        was_training = model is not None and model.training
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                if model is not None:
                    model.eval()
                self.body(model)
        except DoesNotApply as reason:
            return Outcome(None, str(reason))
        except Failed as reason:
            return Outcome(False, str(reason))
        except Exception as error:
            return Outcome(False, f"stops with {type(error).__name__}")
        finally:
            if model is not None:
                model.train(was_training)
        return Outcome(True)


CHECKS: dict[str, Check] = {}


def check(name: str, of_model: bool = True) -> Callable:
    """Enter a function under `name`; its docstring says what must hold."""

    def enter(body: Callable) -> Callable:
        CHECKS[name] = Check(name, " ".join((body.__doc__ or "").split()), body, of_model)
        return body

    return enter


def same(got: Tensor, wanted: Tensor) -> None:
    """Failed if two tensors differ by more than rounding."""
    if not got.isfinite().all():
        raise Failed("NaN or infinity comes out")
    off = ((got.double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp(min=1e-30)).item()
    if off > TOLERANCE:
        raise Failed(f"differs by {off:.1g} of the largest number")


def need(condition: bool, otherwise: str) -> None:
    if not condition:
        raise DoesNotApply(otherwise)


def some_ids(model: LanguageModel, batch: int = 2, tokens: int = TOKENS) -> Tensor:
    """The same random text at each call: [B, T]."""
    tokens = min(tokens, model.config.max_seq_len)
    return torch.randint(model.config.vocab_size, (batch, tokens), generator=torch.Generator().manual_seed(0))


_recorded: weakref.WeakKeyDictionary[LanguageModel, Tensor] = weakref.WeakKeyDictionary()


@contextmanager
def recorded(model: LanguageModel) -> Iterator[None]:
    """Note what the model says now, for the check "as recorded"; forgotten at the end. What is noted already stays."""
    if model in _recorded:
        yield
        return
    was_training = model.training
    with torch.no_grad():
        _recorded[model] = model.eval()(some_ids(model)).logits
    model.train(was_training)
    try:
        yield
    finally:
        del _recorded[model]


def as_noted(model: LanguageModel) -> Tensor:
    """What `recorded` has noted. DoesNotApply if it has not."""
    need(model in _recorded, "nothing was recorded")
    return _recorded[model]
