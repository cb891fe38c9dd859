"""The pages' functions for programs: endpoints of the site's API, and tools of MCP where the site serves that too.

A page lists its own in `API`: plain typed functions that return a dict and raise ValueError with a sentence. What a
program sends is checked against the types first, so that a function sees what it was written for.

    python -m apps.endpoints       writes their list into apps/README.md anew
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Union, get_args, get_origin, get_type_hints

import gradio as gr

from apps.common import PROBLEMS, sentence

# Beside the pages' own queues; a program that asks a lot waits in line, the pages go on.
QUEUE = {"concurrency_id": "programs", "concurrency_limit": 2}


def functions(pages: Iterable[ModuleType]) -> dict[str, Callable[..., dict]]:
    """Name -> function, for all that these pages offer. ValueError if two have the same name."""
    found: dict[str, Callable[..., dict]] = {}
    for page in pages:
        for function in getattr(page, "API", ()):
            if found.setdefault(function.__name__, function) is not function:
                raise ValueError(f"two pages offer a function {function.__name__!r} to programs; rename one")
    return found


def add(demo: gr.Blocks, pages: Iterable[ModuleType]) -> None:
    """Make them endpoints of the Blocks that is being built."""
    for name, function in functions(pages).items():
        gr.api(endpoint(function), api_name=name, api_description=inspect.getdoc(function), **QUEUE)
    check = demo.validate_inputs

    def checked(event, inputs: list) -> None:
        """What a program leaves out at the end of its list takes the default; Gradio would write a traceback."""
        inputs += getattr(event.fn, "defaults", [])[len(inputs):]
        try:
            check(event, inputs)
        except ValueError:
            raise gr.Error(f"{event.api_name} got {len(inputs)} of its {len(event.inputs)} values",
                           print_exception=False) from None

    demo.validate_inputs = checked


def endpoint(function: Callable[..., dict]) -> Callable[..., dict]:
    """The function as programs call it: inputs of the right types, and each mistake as its sentence alone."""
    hints = get_type_hints(function)
    signature = inspect.signature(function)
    for name in [*signature.parameters, "return"]:
        if name not in hints:
            raise ValueError(f"{function.__name__}'s {'answer' if name == 'return' else f'argument {name}'} needs a "
                             "type: programs are told what to send, and what comes back")

    @functools.wraps(function)
    def called(*given: Any) -> dict:
        try:
            values = [fitting(name, value, hints[name]) for name, value in zip(signature.parameters, given)]
            return sendable(function(*values))
        except PROBLEMS as problem:
            raise gr.Error(sentence(problem), print_exception=False) from None

    called.defaults = [parameter.default for parameter in signature.parameters.values()]
    # Gradio reads the types from here, and does not look through strings.
    called.__annotations__ = hints
    called.__signature__ = signature.replace(
        parameters=[p.replace(annotation=hints[p.name]) for p in signature.parameters.values()],
        return_annotation=hints["return"])
    return called


def sendable(answer: Any) -> Any:
    """The answer as JSON has it: its keys are texts. ValueError if a number does not fit into the 64 bits that JSON is
    sent with here."""
    if isinstance(answer, dict):
        return {str(key): sendable(value) for key, value in answer.items()}
    if isinstance(answer, (list, tuple)):
        return [sendable(value) for value in answer]
    if isinstance(answer, int) and abs(answer) >= 2**63:
        raise ValueError("a number in the answer is larger than 2^63, which cannot be sent; ask for less")
    return answer


def fitting(name: str, value: Any, hint: Any) -> Any:
    """The value as the type that is asked for: 3.0 will do for an int, 3 for a float. ValueError with a sentence."""
    allowed = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in allowed:
        return None
    for kind in allowed:
        plain = get_origin(kind) or kind
        if plain is int and isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            return int(value)
        if plain is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
            return float(value)
        if plain is list and isinstance(value, list) and get_args(kind):
            return [fitting(f"each of {name}", item, get_args(kind)[0]) for item in value]
        if isinstance(value, plain) and (plain is bool or not isinstance(value, bool)):
            return value
    wanted = " or ".join(WORDS.get(get_origin(kind) or kind, str(kind)) for kind in allowed)
    shown = repr(value)
    raise ValueError(f"{name} must be {wanted}, not {shown if len(shown) <= 40 else shown[:40] + '…'}")


def answer_in_json(demo: gr.Blocks) -> None:
    """Let the tools of MCP, once they are served, answer with JSON; Gradio would write a dict as Python does."""
    server = demo.mcp_server_obj
    write = server.postprocess_output_data
    server.postprocess_output_data = lambda data, *rest: write(
        [json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value for value in data], *rest)


WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", list: "a list",
         dict: "an object", type(None): "nothing"}


# The list in apps/README.md --------------------------------------------------------------------------------------

START, END = "<!-- endpoints:start -->", "<!-- endpoints:end -->"


def described(found: dict[str, Callable[..., dict]]) -> str:
    """Every endpoint as Markdown: how it is called, and what its docstring says."""
    blocks = []
    for name, function in found.items():
        inputs = ", ".join(map(str, endpoint(function).__signature__.parameters.values()))
        blocks.append(f"### {name}\n\n    {name}({inputs})\n\n" + _prose(inspect.getdoc(function)))
    return "\n\n".join(blocks)


def _prose(docstring: str) -> str:
    """A docstring as Markdown: its arguments a list, its other parts paragraphs."""
    out, arguments = [], False
    for line in docstring.splitlines():
        text = line.strip()
        if text in ("Args:", "Returns:"):
            arguments = text == "Args:"
            out += [] if arguments else ["", "Answer:"]
        elif arguments and line.startswith("    ") and not line.startswith("     "):
            name, _, rest = text.partition(":")
            out.append(f"- `{name}`:{rest}")
        else:
            out.append(f"  {text}" if arguments and text else text)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip()


def write_readme() -> None:
    """Put the list into apps/README.md, between its two marks."""
    from apps import site  # which imports this module

    path = Path(__file__).with_name("README.md")
    before, _, rest = path.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{START}\n{described(functions(site.offering()))}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write_readme()
