"""Several cases at once: a learner's answers against the right ones, and against those of known wrong functions.

One case may be got wrong in the same way by two mistakes. All of them together tell which mistake it is.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch

from llm_core.checks.core import Wrong, attempt

# What to say -> the function that makes this mistake.
Mistakes = Sequence[tuple[str, Callable]]


def judge(function: Callable, cases: Sequence[tuple], right: Callable, mistakes: Mistakes, read: Callable, *,
          hints: Mapping[str, str] | None = None) -> None:
    """Wrong unless function gives what `right` gives in every case. read: an answer -> one that can be compared."""
    got = [read(attempt(function, *copies(case), hints=hints)) for case in cases]
    wanted = [right(*copies(case)) for case in cases]
    if got == wanted:
        return
    for sentence, wrong in mistakes:
        try:
            if got == [wrong(*copies(case)) for case in cases]:
                raise Wrong(sentence)
        except (IndexError, KeyError):  # this mistake cannot answer every case
            continue
    i = next(i for i in range(len(cases)) if got[i] != wanted[i])
    raise Wrong(f"for {short(cases[i][0])} it should be {short(wanted[i])}, and you have {short(got[i])}")


def numbers(function: Callable, cases: Sequence[tuple], right: Callable, mistakes: Mistakes, told: Callable,
            read: Callable | None = None) -> list:
    """The right numbers, if function gives them in every case. told: a case in words.

    read: an answer -> a number; whole ones by default. Whole numbers must be equal, others to five digits.
    """
    got = [(read or whole)(attempt(function, *case)) for case in cases]
    wanted = [right(*case) for case in cases]
    differ = [i for i, (mine, truth) in enumerate(zip(got, wanted)) if not _equal(mine, truth)]
    if not differ:
        return wanted
    for sentence, wrong in mistakes:
        if all(map(_equal, got, [wrong(*case) for case in cases])):
            raise Wrong(sentence)
    i = differ[0]
    raise Wrong(f"for {told(*cases[i])} it should be {_shown(wanted[i])}, and you have {_shown(got[i])}")


def _equal(a: float, b: float) -> bool:
    return a == b if isinstance(a, int) and isinstance(b, int) else math.isclose(a, b, rel_tol=1e-5)


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def whole(value, what: str = "a whole number is needed") -> int:
    """An int from whatever holds a whole number."""
    if isinstance(value, torch.Tensor) and value.dim() == 0 and not value.is_complex():
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    try:
        return operator.index(value)
    except TypeError:
        said = f"{value:.4g}" if isinstance(value, float) else f"a {type(value).__name__}"
        raise Wrong(f"{what}, and you have {said}") from None


def number(value) -> float:
    """A float from whatever holds one number."""
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Wrong(f"a number is needed, and your function returned a {type(value).__name__}")
    return float(value)


def copies(case: tuple) -> list:
    return [type(a)(a) if isinstance(a, (list, dict)) else a for a in case]


def short(value) -> str:
    said = repr(dict(value) if isinstance(value, Counter) else value)
    return said if len(said) <= 120 else said[:120] + "…"


def whole_numbers(result) -> list[int]:
    """A list of ids from a list, a tuple or a tensor of them."""
    if isinstance(result, torch.Tensor) and result.dim() == 1 and not result.is_floating_point():
        result = result.tolist()
    if not isinstance(result, (list, tuple)):
        raise Wrong(f"a list of ids is needed, and your function returned a {type(result).__name__}")
    for id in result:
        if isinstance(id, bool) or not isinstance(id, int):
            extra = {bytes: " Those are the pieces; look each up in ranks.",
                     list: " Are lists appended, where += would add their ids?"}.get(type(id), "")
            raise Wrong(f"a list of ids holds whole numbers, and yours holds a {type(id).__name__}.{extra}")
    return list(result)
