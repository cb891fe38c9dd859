"""How a mistake is switched on: something of the model is replaced for a while, and then put back."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

from torch import nn

from llm_core.config import ModelConfig
from llm_core.mistakes.checks import CHECKS, recorded
from llm_core.model import LanguageModel


class Switches(ExitStack):
    """Replacements that are undone, the last first, when the `with` block ends."""

    def swap(self, place: Any, name: str, wrong: Any) -> None:
        """place.name is `wrong` until the end. place: a module of the model, a class, or a Python module."""
        if name in vars(place):
            self.callback(setattr, place, name, vars(place)[name])
        else:  # it came from the class, or was not there at all
            self.callback(delattr, place, name)
        setattr(place, name, wrong)

    def wrap(self, place: Any, name: str, wrong: Callable) -> None:
        """place.name(…) becomes wrong(right, …), right being the function that was there."""
        right = getattr(place, name)

        @wraps(right)
        def broken(*args, **kwargs):
            return wrong(right, *args, **kwargs)

        self.swap(place, name, broken)

    def while_running(self, module: nn.Module, function: str, wrong: Callable, home: str = "") -> None:
        """A function of the file that `module` is written in (or of `home`) is wrong, but only inside module's forward.

        So the function, which all models use, is broken for this one alone.
        """
        place = sys.modules[home or type(module).__module__]

        def forward(right, *args, **kwargs):
            with Switches() as inner:
                inner.wrap(place, function, wrong)
                return right(*args, **kwargs)

        self.wrap(module, "forward", forward)


@dataclass(frozen=True)
class Mistake:
    """what: a sentence. where: the kind of code in which it was shipped. caught_by: a check that must see it.

    lacks(config): "" if a model of this config can have it, else what is missing. make(switches, model) breaks it.
    of_model False: it needs no model to be seen.
    """

    name: str
    what: str
    where: str
    caught_by: str
    lacks: Callable[[ModelConfig], str]
    make: Callable[[Switches, LanguageModel | None], None]
    of_model: bool = True


MISTAKES: dict[str, Mistake] = {}


def mistake(caught_by: str, where: str, lacks: Callable[[ModelConfig], str] = lambda config: "",
            of_model: bool = True) -> Callable:
    """Enter a function (switches, model) under its own name; its docstring says what the mistake is."""
    if caught_by not in CHECKS:
        raise ValueError(f"no check is called {caught_by!r}")

    def enter(make: Callable) -> Callable:
        what = " ".join((make.__doc__ or "").split())
        MISTAKES[make.__name__] = Mistake(make.__name__, what, where, caught_by, lacks, make, of_model)
        return make

    return enter


def names(model: LanguageModel | None = None) -> list[str]:
    """The mistakes that this model can have; without a model, those that need none (sampling, FP8)."""
    if model is None:
        return [name for name, m in MISTAKES.items() if not m.of_model]
    return [name for name, m in MISTAKES.items() if m.of_model and not m.lacks(model.config)]


def get(name: str) -> Mistake:
    if name not in MISTAKES:
        near = difflib.get_close_matches(str(name), MISTAKES, n=3) or list(MISTAKES)
        raise ValueError(f"no mistake is called {name!r}; nearest: {', '.join(near)}")
    return MISTAKES[name]


@contextmanager
def on(name: str, model: LanguageModel | None = None) -> Iterator[Mistake]:
    """Inside the `with` block the mistake is made; afterwards everything is as it was.

    What the model said before is noted, for the check "as recorded". ValueError for an unknown name, and for a mistake
    that this model cannot have: it says what the model lacks.
    """
    made = get(name)
    if made.of_model and model is None:
        raise ValueError(f"{name} is made in a model, so give one: mistakes.on({name!r}, model)")
    if model is not None and made.of_model and (missing := made.lacks(model.config)):
        raise ValueError(f"{name} needs {missing}; this model can have {', '.join(names(model))}")
    with Switches() as switches:
        if model is not None:
            switches.enter_context(recorded(model))
        made.make(switches, model)
        yield made
