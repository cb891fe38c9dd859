"""One measured figure beside what it must reach, and the page that all of them make."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from tests.benchmarks.measuring import bandwidth, peak

PAGE = Path(__file__).with_name("RESULTS.md")


@dataclass(frozen=True)
class Row:
    """figure: mostly a ratio. must and aim: bounds on it, upper ones where at_most is True. note: what it was made
    from, and the physical limit."""

    what: str
    figure: float
    must: float
    aim: float | None
    note: str
    at_most: bool = False
    unit: str = "x"

    def reaches(self, bound: float | None) -> bool:
        return bound is None or (self.figure <= bound if self.at_most else self.figure >= bound)

    @property
    def verdict(self) -> str:
        if not self.reaches(self.must):
            return "**missed**"
        return "met" if self.aim is None or self.reaches(self.aim) else "met, not the aim"

    def line(self) -> str:
        sign = "≤" if self.at_most else "≥"
        aim = "" if self.aim is None else f" ({sign} {self.aim:g})"
        return (f"| {self.what} | {self.figure:.3g} {self.unit} | {sign} {self.must:g}{aim} | {self.verdict} | "
                f"{self.note} |")


HEAD = ["| what | measured | must (aim) | verdict | from |", "|---|---|---|---|---|"]


def machine() -> str:
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return (f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
            f"reads {bandwidth() / 1e9:.0f} GB/s, computes {peak() / 1e9:.0f} GFLOP/s in fp32 and "
            f"{peak(torch.bfloat16) / 1e9:.0f} in bf16; torch {version('torch')}, transformers "
            f"{version('transformers')}, Python {platform.python_version()}")


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def page(rows: list[Row], where: str) -> str:
    return "\n".join([
        "# Measured speeds", "",
        "`make bench` measures these and writes this page. Peers run in the same process, on the same weights and "
        "texts, taking turns with ours; figures are ratios of medians. Above 1 is in our favour, unless an upper bound "
        "(≤) is given. Nothing here is a promise for another machine.", "",
        f"Machine: {where}.", "", *HEAD, *(row.line() for row in rows), ""])
