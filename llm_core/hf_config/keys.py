"""The keys of a config.json, each checked as it is read: the answer is a value that can be used, or a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_core.hf_config.files import inside, label_of, read_object
from llm_core.validation import shown

MOST = 2**31 - 1  # no size of a model is larger
MOST_BYTES = 200_000  # the largest published config.json has a few thousand
REQUIRED = object()


def read_json(source: str | Path, most_bytes: int = MOST_BYTES) -> dict:
    """The JSON object in a file, or in config.json of a folder, of at most so many bytes."""
    if not isinstance(source, (str, Path)):
        raise ValueError(f"a config is a path or a dict, not {type(source).__name__}")
    path = Path(source)
    if path.is_dir():
        path = inside(path, "config.json")
    if not path.is_file():
        raise FileNotFoundError(f"{label_of(path)} is missing; it describes the model")
    return read_object(path, most_bytes)


class Keys:
    """The keys of one config, each checked as it is read. null counts as missing, as it does for transformers."""

    def __init__(self, data: dict, kind: str):
        self._data, self.kind = data, kind
        self._read: set[str] = {"model_type"}
        self._parts: dict[str, Keys] = {}

    def unread(self) -> list[str]:
        """The keys that nobody asked for, those of parts as "rope_scaling.factor"."""
        here = [str(name) for name in self._data if name not in self._read]
        return here + [f"{name}.{key}" for name, part in self._parts.items() for key in part.unread()]

    def _get(self, name: str, default: Any) -> Any:
        self._read.add(name)
        value = self._data.get(name)
        if value is None and default is REQUIRED:
            raise ValueError(f"the config lacks {name!r}, which a model of type {self.kind} needs")
        return default if value is None else value

    def whole(self, name: str, default: Any = REQUIRED, least: int = 1) -> Any:
        value = self._get(name, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST:
            raise ValueError(f"{name} must be a whole number from {least} to {MOST}, not {shown(value)}")
        return value

    def whole_or_null(self, name: str) -> int | None:
        """A key that must be there but may be null."""
        return self.whole(name, None if self.names(name) else REQUIRED)

    def real(self, name: str, default: Any = REQUIRED, least: float = 0.0) -> Any:
        value = self._get(name, default)
        if value is default:
            return value
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not least <= value <= 1e30:  # NaN is not
            raise ValueError(f"{name} must be a finite number of at least {least:g}, not {shown(value)}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, not {shown(value)}")
        return value

    def only(self, name: str, *known: Any, default: Any = None) -> Any:
        """The value of a key of which only these values can be expressed here. The first is the default."""
        value = self._get(name, known[0] if default is None else default)
        if not any(type(value) is type(k) and value == k for k in known):
            raise ValueError(f"{name} is {shown(value)}, and only {', '.join(map(repr, known))} can be read here")
        return value

    def part(self, name: str) -> Keys | None:
        value = self._get(name, None)
        if value is not None and not isinstance(value, dict):
            raise ValueError(f"{name} must be an object of keys and values, not {shown(value)}")
        if not value:
            return None
        self._parts[name] = Keys(value, self.kind)
        return self._parts[name]

    def names(self, name: str) -> bool:
        """Whether the key is there, be it null."""
        return name in self._data

    def has(self, name: str) -> bool:
        return self._data.get(name) is not None

    def holds_parts(self) -> bool:
        return any(isinstance(value, dict) for value in self._data.values())
