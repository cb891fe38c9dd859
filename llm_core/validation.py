"""What all config classes share: changed copies, plain dicts, and checks on what they are given.

Each error says what was given, why it cannot be, and the nearest that can.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

# Beyond what any model has, and small enough that a product of eight such numbers is still a float.
LARGEST = 10**30
SMALLEST = 1e-30  # so that no quotient of two is too large, either


def shown(value: Any) -> str:
    """A value for a message, whatever somebody put there: never long, never more than one line."""
    if isinstance(value, (bool, float)) or value is None or (isinstance(value, int) and abs(value) < 10**20):
        return repr(value)
    if isinstance(value, str):
        return repr(value if len(value) < 60 else value[:60] + "…")
    return "a number of that size" if isinstance(value, int) else f"a {type(value).__name__}"


def plain(name: str) -> str:
    """A name for a message as it stands, but cut, and with what cannot be printed spelled out."""
    name = name if len(name) <= 100 else name[:100] + "…"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def check_names(cls: type, given: dict) -> None:
    """ValueError naming the first unknown field and the nearest one that exists."""
    known = [field.name for field in dataclasses.fields(cls)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name)[:60], known, n=1) or known
            raise ValueError(f"{cls.__name__} has no field {shown(name)}; nearest: {', '.join(near)}")


def whole(name: str, value: Any, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {shown(value)}")
    if value > LARGEST:
        raise ValueError(f"{name} must be a whole number of at most 10^30, not {shown(value)}")


def real(name: str, value: Any, or_zero: bool = False) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and (SMALLEST <= value <= float(LARGEST) or (or_zero and value == 0)):  # NaN is not
        return
    if number and (0 < value < SMALLEST or float(LARGEST) < value < float("inf")):
        raise ValueError(f"{name} must be from 1e-30 to 1e30{' or 0' if or_zero else ''}, not {shown(value)}")
    raise ValueError(f"{name} must be a finite number {'of at least' if or_zero else 'above'} 0, not {shown(value)}")


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {shown(value)}")


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {shown(value)}")


def instance_of(name: str, value: Any, classes: tuple[type, ...], optional: bool = False) -> None:
    if not (isinstance(value, classes) or (optional and value is None)):
        wanted = " or ".join([c.__name__ for c in classes] + (["None"] if optional else []))
        raise ValueError(f"{name} must be {wanted}, not {shown(value)}")


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
        raise ValueError(f"a part of a config needs a type, one of {', '.join(classes)}, not {shown(kind)}")
    values = {name: from_dict(value, classes) for name, value in data.items() if name != "type"}
    check_names(cls, values)
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in values and f.default is dataclasses.MISSING]
    if missing:
        raise ValueError(f"{cls.__name__} lacks {', '.join(missing)}")
    return cls(**values)
