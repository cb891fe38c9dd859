"""Wrong answers get the hint that fits, right ones may be written otherwise: every lesson's tables, in one place.

A test_checks_LESSON.py holds the tables. WRONG: exercise -> (a known wrong answer, words that its hint must contain).
RIGHT: exercise -> answers that are written in another way than the lesson's solution.
"""

import importlib
from pathlib import Path

import pytest
import torch

from llm_core import checks
from tests.test_checks import verdict

TABLES = [module for path in sorted(Path(__file__).parent.glob("test_checks_*.py")) if path != Path(__file__)
          for module in [importlib.import_module(f"tests.{path.stem}")] if hasattr(module, "WRONG")]
WRONG = {name: answers for table in TABLES for name, answers in table.WRONG.items()}
RIGHT = {name: answers for table in TABLES for name, answers in getattr(table, "RIGHT", {}).items()}


def test_every_check_has_three_known_wrong_answers():
    assert WRONG.keys() == set(checks.__all__)
    assert {name: len(answers) for name, answers in WRONG.items() if len(answers) < 3} == {}
    assert RIGHT.keys() <= WRONG.keys()


@pytest.mark.parametrize(("name", "answer", "words"), [
    pytest.param(name, answer, words, id=f"{name} {i}: {words}")
    for name, answers in WRONG.items() for i, (answer, words) in enumerate(answers)])
def test_a_wrong_answer_gets_its_hint(name, answer, words, capsys):
    torch.manual_seed(0)  # some answers draw
    said = verdict(name, answer, capsys)
    assert said.startswith("not yet: ") and words in said, said


@pytest.mark.parametrize(("name", "answer"), [
    pytest.param(name, answer, id=f"{name} {i}")
    for name, answers in RIGHT.items() for i, answer in enumerate(answers)])
def test_a_right_answer_may_be_written_otherwise(name, answer, capsys):
    torch.manual_seed(0)  # some answers draw
    said = verdict(name, answer, capsys)
    assert said.startswith("right: "), said
