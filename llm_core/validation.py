"""What all config classes share: changed copies, plain dicts, and checks on what they are given.

Each error says what was given, why it cannot be, and the nearest that can.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from typing import Any


def check_names(cls: type, given: dict) -> None:
    """ValueError naming the first unknown field and the nearest one that exists."""
    known = [field.name for field in dataclasses.fields(cls)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1) or known
            raise ValueError(f"{cls.__name__} has no field {name!r}; nearest: {', '.join(near)}")


def whole(name: str, value: Any, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")


def real(name: str, value: Any, or_zero: bool = False) -> None:
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)
    except OverflowError:  # a whole number beyond what a float holds
        number = math.inf
    if not (math.isfinite(number) and (number > 0 or (or_zero and number == 0))):
        shown = repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "a number of that size"
        raise ValueError(f"{name} must be a finite number {'of at least' if or_zero else 'above'} 0, not {shown}")


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")


def instance_of(name: str, value: Any, classes: tuple[type, ...], optional: bool = False) -> None:
    if not (isinstance(value, classes) or (optional and value is None)):
        wanted = " or ".join([c.__name__ for c in classes] + (["None"] if optional else []))
        raise ValueError(f"{name} must be {wanted}, not {value!r}")


def nearest_divisors(value: int, wanted: int) -> list[int]:
    """The divisors of `value` just below and just above `wanted` (one of them if there is no other), ascending."""
    # Searching outward from `wanted`; a thousand steps each way is enough for every size a person types.
    below = next((n for n in range(min(wanted, value), max(wanted - 1000, 0), -1) if value % n == 0), None)
    above = next((n for n in range(wanted, min(value, wanted + 1000) + 1) if value % n == 0), None)
    return sorted({n for n in (below, above) if n is not None}) or [1, value]


def divides(small: str, n: int, large: str, total: int, extra: str = "") -> None:
    if total % n:
        near = ", ".join(map(str, nearest_divisors(total, n)))
        raise ValueError(f"{small} {n} does not divide {large} {total}{extra}; nearest: {near}")


class Part:
    """Shared by all config classes: changed copies, and conversion to and from plain dicts."""

    def replace(self, **changes):
        """A copy with some fields changed, validated again."""
        check_names(type(self), changes)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dicts, ready for JSON. Parts that may be of several classes carry their class under "type"."""
        out: dict[str, Any] = {"type": type(self).__name__}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            out[field.name] = value.to_dict() if isinstance(value, Part) else value
        return out


def from_dict(data: Any, classes: dict[str, type]):
    """The inverse of Part.to_dict, for the classes named. Anything unknown or missing is a ValueError."""
    if not isinstance(data, dict):
        return data
    kind = data.get("type")
    cls = classes.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ValueError(f"a part of a config needs a type, one of {', '.join(classes)}, not {kind!r}")
    values = {name: from_dict(value, classes) for name, value in data.items() if name != "type"}
    check_names(cls, values)
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in values and f.default is dataclasses.MISSING]
    if missing:
        raise ValueError(f"{cls.__name__} lacks {', '.join(missing)}")
    return cls(**values)
