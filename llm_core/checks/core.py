"""How an exercise is checked: try the learner's function, compare with the truth, and name the likely mistake.

A check is a function that takes the learner's one. It returns the rest of the sentence "right: …", or raises Wrong with
a sentence that helps. The decorator `check` turns it into something that prints and never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps

import torch
from torch import Tensor

TOLERANCE = 1e-5  # of 32-bit numbers around 1, computed in another order


class Wrong(Exception):
    """What is wrong with an answer, as a sentence for the learner."""


class Unsolved(Exception):
    """The stub is still a stub."""


def check(body: Callable[[Callable], str]) -> Callable[[Callable], None]:
    """Print "not solved yet", "not yet: …" or "right: …". The random numbers of the caller are left as they were."""

    @wraps(body)
    def run(function) -> None:
        if not callable(function):
            print(f"not yet: the check needs the function itself, {body.__name__} without brackets behind it, and not "
                  f"{_what(function)}")
            return
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                verdict = f"right: {body(function)}"
        except Unsolved:
            verdict = "not solved yet"
        except Wrong as wrong:
            verdict = f"not yet: {wrong}"
        except Exception as error:  # an answer so odd that even looking at it fails
            verdict = f"not yet: what your function returned cannot be examined ({type(error).__name__})"
        print(verdict)

    return run


def attempt(function: Callable, *arguments, hints: Mapping[str, str] | None = None):
    """What the function returns for copies of the arguments. Anything that it raises becomes a sentence.

    hints: a part of an error's text -> what it probably means. Unsolved for a stub: it returns nothing or `...`.
    """
    copies = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
    try:
        result = function(*copies)
    except NotImplementedError:
        raise Unsolved from None
    except (Exception, SystemExit) as error:
        said = " ".join(_text(error).split())
        said = said if len(said) <= 200 else said[:200] + "…"
        meaning = next((f" {hint}" for part, hint in (hints or {}).items() if part in said), "")
        raise Wrong(f"your function stopped with {type(error).__name__}: {said or 'no message'}.{meaning}") from None
    if result is None or result is ...:
        raise Unsolved
    return result


def tensor(function: Callable, *arguments, shape: tuple[int, ...], names: str, hints: Mapping[str, str] | None = None,
           shape_hints: Mapping[tuple[int, ...], str] | None = None) -> Tensor:
    """The function's result, which must be a real tensor of that shape. names: the shape in letters, as "[B, T, D]"."""
    result = attempt(function, *arguments, hints=hints)
    if not isinstance(result, Tensor):
        raise Wrong(f"a tensor {names} is needed, and your function returned {_what(result)}")
    if tuple(result.shape) != shape:
        meaning = (shape_hints or {}).get(tuple(result.shape), "")
        found = list(result.shape)
        raise Wrong(f"the result should be {names}, here {list(shape)}, and yours is {found}. {meaning}".rstrip())
    if result.is_complex() or result.device.type != "cpu" or result.layout != torch.strided:
        raise Wrong("the result should be an ordinary tensor of real numbers on the processor")
    return result.detach().float()


def compare(got: Tensor, truth: Tensor, mistakes: Iterable[tuple[str, Tensor]], nan: str = "") -> None:
    """Wrong unless got equals truth. mistakes: what to say, and the result that calls for it."""
    if same(got, truth):
        return
    for sentence, wrong in mistakes:
        if wrong.shape == got.shape and same(got, wrong):
            raise Wrong(sentence)
    if got.isnan().any():
        raise Wrong(f"some of your numbers are NaN, which is what 0 / 0 gives. {nan}".rstrip())
    off = (got - truth).abs().nan_to_num(nan=float("inf"))
    worst = [int(i) for i in torch.unravel_index(off.argmax(), off.shape)]
    have, need = got[tuple(worst)].item(), truth[tuple(worst)].item()
    raise Wrong(f"the shape fits, but the numbers do not: at {worst} you have {have:.4g} and it should be {need:.4g}")


def same(a: Tensor, b: Tensor) -> bool:
    """Equal to TOLERANCE; a NaN only equals a NaN."""
    return torch.allclose(a.float(), b.float(), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


def random(*shape: int, seed: int) -> Tensor:
    """Normal numbers that are the same at each call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""


def _what(value) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
