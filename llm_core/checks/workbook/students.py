"""The lessons without their folded solutions, for a teacher to hand out."""

from __future__ import annotations

import json
import re

from llm_core.checks.workbook import files
from llm_core.checks.workbook.files import Trouble

FOLD = re.compile(r"<details\b[^>]*>|</details\s*>", re.IGNORECASE)
SUMMARY = re.compile(r"\s*<summary\b[^>]*>\s*(.*?)\s*</summary\s*>", re.IGNORECASE | re.DOTALL)
EXERCISES = re.compile(r"^## 6\. Exercises.*$", re.MULTILINE)


def without_solutions(data: bytes, name: str, hints: bool = True) -> bytes:
    """A notebook without its folded solutions (and hints, if so told). Code cells and outputs stay as they are.

    Trouble if a fold is not closed, so that a solution would be left in.
    """
    drop = {"solution"} if hints else {"solution", "hint"}
    notebook, kept = files.parse(data, name), []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            old = files.text(cell["source"])
            new = EXERCISES.sub(lambda match: match[0] + _note(hints), _without(old, drop, name))
            if not new.strip():
                continue  # it held nothing else
            if new != old:
                cell["source"] = new.splitlines(keepends=True) if isinstance(cell["source"], list) else new
        kept.append(cell)
    notebook["cells"] = kept
    return (json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode("utf-8")


def _without(text: str, drop: set[str], name: str) -> str:
    """The text without the folds whose summary is in drop. A fold may hold others."""
    gone, opened = [], []  # gone: from, to
    for tag in FOLD.finditer(text):
        if not tag[0].startswith("</"):
            opened.append(tag)
        elif opened:
            start = opened.pop()
            title = SUMMARY.match(text, start.end())
            if title and title[1].lower() in drop:
                gone.append((start.start(), tag.end()))
        else:
            raise Trouble(f"{name} closes a fold that it does not open, so it cannot be told where a solution ends")
    if opened:
        raise Trouble(f"{name} has a fold that is not closed, so it cannot be told where a solution ends")
    if not gone:
        return text
    for start, end in sorted(gone, reverse=True):
        text = text[:start].rstrip() + "\n\n" + text[end:].lstrip()
    return text.strip()


def _note(hints: bool) -> str:
    return f"\n\n*This copy was made for a class: {'solutions are' if hints else 'hints and solutions are'} not in it.*"
