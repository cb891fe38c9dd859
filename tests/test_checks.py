"""The exercises' checks: each accepts the lesson's own solution and stays calm, whatever it is given.

What a wrong answer is told: test_checks_answers.py.
"""

import ast
import json
import re
from pathlib import Path

import pytest
import torch

from llm_core import checks

LESSONS = sorted((Path(__file__).resolve().parents[1] / "course").glob("*/*.ipynb"))


def solutions() -> dict[str, str]:
    """Exercise name -> the solution that is folded away in a lesson."""
    found = {}
    for path in LESSONS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                folded = r"<summary>Solution</summary>\s*```python\n(.*?)```"
                for code in re.findall(folded, "".join(cell["source"]), re.DOTALL):
                    found[re.search(r"^def (\w+)", code, re.MULTILINE)[1]] = code
    return found


def imports() -> dict[str, str]:
    """Exercise name -> the imports of its lesson: a solution may use these."""
    found = {}
    for path in LESSONS:
        cells = ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
                 if cell["cell_type"] == "code"]
        lines = [ast.unparse(node) for cell in cells for node in ast.parse(cell).body
                 if isinstance(node, ast.Import | ast.ImportFrom)]
        found |= {match[1]: "\n".join(lines) for cell in cells if (match := re.match(r"checks\.(\w+)\(", cell))}
    return found


def define(name: str, code: str):
    space = {}
    exec(imports()[name] + "\n" + code, space)
    return space[name]


def verdict(name: str, function, capsys) -> str:
    assert getattr(checks, name)(function) is None  # a returned value would be shown in the lesson
    said = capsys.readouterr().out
    assert said.count("\n") == 1, said
    return said.strip()


def test_every_check_has_a_solution_in_a_lesson():
    assert solutions().keys() == set(checks.__all__)


@pytest.mark.parametrize("name", checks.__all__)
def test_the_lessons_solution_is_right(name, capsys):
    assert verdict(name, define(name, solutions()[name]), capsys).startswith("right: ")


def stub(*arguments):
    ...


def raises_not_implemented(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize("name", checks.__all__)
@pytest.mark.parametrize("unsolved", [stub, lambda *a: ..., raises_not_implemented])
def test_a_stub_is_not_solved_yet(name, unsolved, capsys):
    assert verdict(name, unsolved, capsys) == "not solved yet"


class Odd:
    def __getattribute__(self, name):
        raise RuntimeError("no")


def exits(*arguments):
    raise SystemExit(1)


def deep(*arguments):
    return deep(*arguments)


@pytest.mark.parametrize("name", checks.__all__)
@pytest.mark.parametrize("function", [
    lambda *a: 1 / 0, lambda: torch.zeros(1), exits, deep, lambda *a: "text", lambda *a: float("nan"), lambda *a: Odd(),
    lambda *a: torch.zeros(1, 2, 3, 4), lambda *a: torch.zeros(0), lambda *a: [1, 2], lambda *a: torch.tensor(1 + 2j),
    lambda *a: a[0], 7, None, torch.zeros(3), "input_embedding",
])
def test_no_answer_makes_a_check_raise(name, function, capsys):
    assert verdict(name, function, capsys).startswith("not yet: ")


@pytest.mark.parametrize("name", checks.__all__)
def test_a_check_leaves_the_random_numbers_and_its_own_data_alone(name, capsys):
    def vandal(*arguments):
        torch.manual_seed(99)
        for a in arguments:
            if isinstance(a, torch.Tensor):
                a.zero_()
        return torch.zeros(1)

    torch.manual_seed(5)
    before = torch.get_rng_state()
    verdict(name, vandal, capsys)
    assert torch.equal(torch.get_rng_state(), before)
    assert verdict(name, define(name, solutions()[name]), capsys).startswith("right: ")
