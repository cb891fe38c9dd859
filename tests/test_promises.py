"""The table of promises names tests and commands that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROMISES = (ROOT / "tests/PROMISES.md").read_text(encoding="utf-8")


def test_every_promise_names_what_holds_it():
    rows = [line.split(" | ") for line in PROMISES.splitlines() if line.startswith("| ") and "---" not in line]
    for promise, held_by, *_ in [row for row in rows if row[1] != "held by"]:
        assert re.search(r"`(tests/\S+::\w+|make [\w-]+)`", held_by), promise


def test_the_tests_and_commands_exist():
    named = re.findall(r"`(tests/\S+\.py)::(\w+)`", PROMISES)
    assert len(named) > 30
    for file, test in named:
        assert re.search(rf"^def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), (file, test)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in re.findall(r"`make ([\w-]+)`", PROMISES):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command
