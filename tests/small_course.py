"""Tiny lessons for the tests of `python -m llm_core.checks`, and a way to ask it."""

import json
from pathlib import Path

from llm_core.checks.__main__ import main

STUB = "def double(x):\n    ..."
DONE = "def double(x):\n    return 2 * x"
CHECK = "checks.double(double)"
FOLDS = """<details><summary>Hint</summary>

Twice.

</details>
<details><summary>Solution</summary>

```python
def double(x):
    return x + x
```

Many others are right.

</details>"""


def prose(source: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source: str, count: int | None = None, said: str = "") -> dict:
    outputs = [{"output_type": "stream", "name": "stdout", "text": [f"{said}\n"]}] if said else []
    return {"cell_type": "code", "metadata": {}, "execution_count": count, "source": source, "outputs": outputs}


def book(*cells: dict) -> bytes:
    cells = [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells)]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


def lesson(number: int = 1, name: str = "double", more: str = "", answer=None, check=None) -> bytes:
    """A lesson with one exercise. answer, check: its two cells, as they were left."""
    return book(
        prose(f"# The lesson\n\n**Lesson {number} of two.** [Terms](../GLOSSARY.md), [more](../README.md#top). {more}"),
        prose("## 6. Exercises\n\nDo them.\n\n### Exercise 1 (★, 5 min): twice as much\n\nReturn 2x."),
        answer or code(STUB.replace("double", name), 1),
        check or code(f"checks.{name}({name})", 2, "not solved yet"),
        prose(f"{FOLDS}\n\n## 7. See it\n\nSoon."))


PLACE = "01_first/01_double.ipynb"


def make_course(tmp_path: Path) -> Path:
    """A course of two lessons, in a project; its folder."""
    folder = tmp_path / "the project" / "course"
    write(folder.parent / "README.md", b"the project")
    write(folder / "README.md", b"[the project](../README.md), [terms](GLOSSARY.md), [one](01_first/01_double.ipynb)")
    write(folder / "GLOSSARY.md", b"terms")
    write(folder / PLACE, lesson())
    write(folder / "02_second" / "02_triple.ipynb", lesson(2, "triple"))
    write(folder / "01_first" / ".ipynb_checkpoints" / "01_double-checkpoint.ipynb", lesson())
    return folder


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def asker(course: Path, capsys):
    """A function that runs a command on that course and gives what it printed, or what it complained of."""
    def run(command, *arguments, code=0):
        assert main([command, "--course", str(course), *map(str, arguments)]) == code
        said = capsys.readouterr()
        assert (said.err == "") == (code == 0)
        return said.out if code == 0 else said.err

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
