"""A config as Python code, to paste into a notebook."""

from __future__ import annotations

from dataclasses import fields

from llm_core import presets
from llm_core.config import ModelConfig
from llm_core.validation import Part

WIDTH = 100  # columns before a call is broken into lines


def as_python(config: ModelConfig, preset: str | None = None) -> str:
    """Code that makes this config and counts it: `config = …`, with the imports that it needs.

    preset: the name of a preset to start from; the code then says only what differs from it. Without it, only what
    differs from the fields' defaults is written.
    """
    base = None if preset is None else presets.get(preset)
    used: set[str] = {"ModelConfig"}
    if base == config:
        made = f'ModelConfig.preset("{preset}")'
    elif base is not None:
        made = _call(f'ModelConfig.preset("{preset}").replace', _changes(config, base), used)
    else:
        made = _call("ModelConfig", _changes(config), used)
    parts = sorted(used - {"ModelConfig"})
    lines = ["from llm_core import ModelConfig, accounting"]
    lines += [f"from llm_core.config import {', '.join(parts)}"] if parts else []
    return "\n".join([*lines, "", f"config = {made}", "accounting.count_parameters(config)", ""])


def _changes(part: Part, base: Part | None = None) -> dict[str, object]:
    """The fields that differ from the base's, or from their defaults."""
    return {f.name: getattr(part, f.name) for f in fields(part)
            if getattr(part, f.name) != (f.default if base is None else getattr(base, f.name))}


def _value(value: object, used: set[str], depth: int) -> str:
    if not isinstance(value, Part):
        return f'"{value}"' if isinstance(value, str) else repr(value)
    used.add(type(value).__name__)
    return _call(type(value).__name__, _changes(value), used, depth)


def _call(name: str, arguments: dict[str, object], used: set[str], depth: int = 0) -> str:
    given = [f"{field}={_value(value, used, depth + 1)}" for field, value in arguments.items()]
    flat = f"{name}({', '.join(given)})"
    indent = "    " * depth
    if len(flat) + len(indent) + 9 <= WIDTH and "\n" not in flat:
        return flat
    return f"{name}(\n" + "".join(f"{indent}    {line},\n" for line in given) + f"{indent})"
