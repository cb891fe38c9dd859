"""Tables to print: what the checks say of a model, and which mistakes they see."""

from __future__ import annotations

from collections.abc import Iterable

from llm_core.mistakes.checks import CHECKS, Outcome
from llm_core.mistakes.switches import get, names, on
from llm_core.model import LanguageModel


def explain(name: str) -> str:
    """A mistake in three lines: what it is, where it was shipped, and the check that sees it."""
    m = get(name)
    return f"{m.name}: {m.what}\nShipped in: {m.where}.\nSeen by the check: {m.caught_by}"


def report(model: LanguageModel | None = None, checks: Iterable[str] | None = None) -> str:
    """What each check says of the model as it is now, a line each; those with nothing to look at are left out.

    checks: only these. All stand in CHECKS.
    """
    outcomes = {name: CHECKS[name](model) for name in (CHECKS if checks is None else checks)}
    width = max(map(len, outcomes))
    return "\n".join(f"{name:<{width}}  {o}" for name, o in outcomes.items() if o.passed is not None)


def seen_by(name: str, model: LanguageModel | None = None) -> dict[str, Outcome]:
    """Each check's outcome while one mistake is on, which is made afresh for each check, so that none sees what another
    has left behind."""
    outcomes = {}
    for check in CHECKS:
        with on(name, model):
            outcomes[check] = CHECKS[check](model)
    return outcomes


def table(model: LanguageModel | None = None, mistakes: Iterable[str] | None = None) -> str:
    """Mistakes down, checks across: X sees it, a point does not, a blank has nothing to look at. A legend below.

    mistakes: only these; otherwise all of `names(model)`. Checks of other things that see none of them are left out.
    """
    chosen = list(names(model) if mistakes is None else mistakes)
    rows = {name: seen_by(name, model) for name in chosen}
    columns = [name for name, check in CHECKS.items()
               if any(row[name].passed is False or (row[name].passed and check.of_model == (model is not None))
                      for row in rows.values())]
    marks = {True: ".", False: "X", None: " "}
    width = max(map(len, chosen), default=0)
    lines = [f"{'':<{width}} " + "".join(f"{i:>3}" for i in range(1, len(columns) + 1))]
    for name, row in rows.items():
        lines.append(f"{name:<{width}} " + "".join(f"{marks[row[check].passed]:>3}" for check in columns))
    return "\n".join([*lines, "", *(f"{i:>3}  {check}" for i, check in enumerate(columns, start=1))])
