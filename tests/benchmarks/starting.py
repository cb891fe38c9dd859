"""How long one waits: for a sum, for an import, for the site's first answer, for a chart after a slider."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from llm_core import accounting, presets
from tests.benchmarks.measuring import seconds
from tests.benchmarks.results import Row
from tests.ports import free_port

ROUNDS = 7


def rows() -> Iterator[Row]:
    yield from accounting_rows()
    yield from import_rows()
    yield site_row()
    yield from redraw_rows()


def accounting_rows() -> Iterator[Row]:
    for name, *arguments in (("count_parameters",), ("cache_bytes", 1, 1024)):
        taken = {}
        for preset in presets.names():
            work = partial(getattr(accounting, name), presets.get(preset), *arguments)
            taken[preset] = statistics.median(seconds(work) for _ in range(20)) * 1000
        slowest = max(taken, key=taken.get)
        yield Row(f"{name}, the slowest of {len(taken)} presets", taken[slowest], 1, None, slowest, at_most=True,
                  unit="ms")


def import_rows() -> Iterator[Row]:
    """Fresh processes, in turn; the files are in the system's memory after the first round."""
    programs = {"torch": "import torch", "model": "import torch, llm_core; llm_core.LanguageModel, llm_core.generate",
                "package": "import torch, llm_core", "nothing": "", "accounting": "import llm_core.accounting"}
    t = {name: [] for name in programs}
    for _ in range(ROUNDS + 1):
        for name, program in programs.items():
            t[name].append(seconds(lambda p=program: subprocess.run([sys.executable, "-c", p], check=True)))
    m = {name: statistics.median(times[1:]) for name, times in t.items()}
    yield Row("import llm_core, over torch's own", m["package"] - m["torch"], 0.1, None,
              f"{m['package']:.2f} s against {m['torch']:.2f}; with the model and generate {m['model']:.2f}",
              at_most=True, unit="s")
    check = "import sys, llm_core.accounting; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
    yield Row("import llm_core.accounting, over Python's own start", m["accounting"] - m["nothing"], 0.1, None,
              f"{m['accounting']:.3f} s against {m['nothing']:.3f}; torch is not imported", at_most=True, unit="s")


def site_row() -> Row:
    taken = [first_answer() for _ in range(3)]
    return Row("the site's first answer, from `python -m apps` on", statistics.median(taken), 5, None,
               f"{len(taken)} starts: " + ", ".join(f"{one:.1f}" for one in taken), at_most=True, unit="s")


def wait_for(port: int, wait: float = 120) -> None:
    began = time.perf_counter()
    while time.perf_counter() - began < wait:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
                answer.read()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.02)
    raise TimeoutError(f"the site did not answer within {wait:g} s")


def first_answer() -> float:
    port, began = free_port(), time.perf_counter()
    site = subprocess.Popen([sys.executable, "-m", "apps", "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        wait_for(port)
        return time.perf_counter() - began
    finally:
        site.terminate()
        site.wait(20)


def redraw_rows() -> Iterator[Row]:
    """The browser tests measure this; they print a line for each page."""
    told = subprocess.run([sys.executable, "-m", "pytest", "tests/apps", "-k", "redraw", "-s", "-q", "-p",
                           "no:cacheprovider"], capture_output=True, text=True, cwd=Path(__file__).parents[2],
                          env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}).stdout
    for page, median, most in re.findall(r"^(.+): a redraw takes (\d+) ms in the median, (\d+) at most", told, re.M):
        yield Row(f"{page}: from the slider to the chart and the table, in Chromium", float(median), 120, None,
                  f"at most {most}", at_most=True, unit="ms")
