"""What is kept of a run, message by message, and what can be read from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from llm_core.training.lab.plan import SECONDS, Settings, plan

RECORDED = Path(__file__).with_name("recorded.json")  # python -m llm_core.training.lab
SAMPLES = 12  # kept: the first, and the newest
POINTS = 600  # of the training loss; beyond that every other one goes


@dataclass
class Record:
    """A run called `name`. progress and looks: [seconds, step, bits per byte] in training and on held-out text; marks:
    step -> its loss in nats a token; started, done, problem: as learning.learn and child.py tell them."""

    name: str
    tokens_per_step: int
    flops_per_step: int
    limit: float
    progress: list[list[float]] = field(default_factory=list)
    looks: list[list[float]] = field(default_factory=list)
    marks: dict[int, float] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    started: dict[str, Any] = field(default_factory=dict)
    done: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    def add(self, message: dict[str, Any]) -> None:
        told = dict(message)
        kind = told.pop("kind")
        if kind in ("progress", "look"):
            points = self.progress if kind == "progress" else self.looks
            points.append([told["seconds"], told["step"], told["bits_per_byte"]])
            if len(points) > POINTS:
                del points[1:-1:2]
        elif kind == "mark":
            self.marks[told["step"]] = told["loss"]
        elif kind == "sample":
            self.samples.append(told)
            if len(self.samples) > SAMPLES:
                del self.samples[1]
        elif kind == "problem":
            self.problem = told["sentence"]
        else:
            setattr(self, kind, told)

    @property
    def step(self) -> int:
        return max([0, *(points[-1][1] for points in (self.progress, self.looks) if points)])

    @property
    def seconds(self) -> float:
        return max([0.0, *(points[-1][0] for points in (self.progress, self.looks) if points)])

    @property
    def tokens(self) -> int:
        return self.step * self.tokens_per_step

    @property
    def passes(self) -> float:
        """How many times the text to learn from was read, counted in tokens."""
        return self.tokens / self.started["train_tokens"] if self.started else 0.0

    @property
    def best(self) -> list[float]:
        """The look at which held-out text cost least."""
        return min(self.looks, key=lambda look: look[2])

    @property
    def verdict(self) -> str:
        """What the curve shows: "learned"; "memorised", if held-out text got worse again by a twentieth of what had
        been learned; "overshot", if it costs as much as a blind guess or more; "" before there are two looks."""
        if len(self.looks) < 2 or not self.started:
            return ""
        blind, last, best = self.started["blind"], self.looks[-1][2], self.best[2]
        if last >= blind - 0.02:
            return "overshot" if self.best[1] <= 1 or best > 0.9 * blind else "memorised"
        return "memorised" if last - best > 0.05 * (blind - best) else "learned"

    def look_at(self, *, seconds: float | None = None, step: int | None = None) -> list[float] | None:
        """The last look up to that second or step; None if there is none."""
        place, wanted = (0, seconds) if step is None else (1, step)
        return next((look for look in reversed(self.looks) if look[place] <= wanted), None)

    def rows(self, most: int = 8) -> list[dict[str, float]]:
        """Some looks, evenly over the run, the first and the last among them: seconds, step, tokens, flops, training
        and held-out bits per byte (the training loss is the mean since the line before)."""
        last = len(self.looks) - 1
        chosen = sorted({round(i * last / max(1, most - 1)) for i in range(min(most, last + 1))} | {max(0, last)})
        out = []
        for seconds, step, bits in (self.looks[i] for i in chosen if self.looks):
            trained = next((p[2] for p in reversed(self.progress) if p[1] <= step), None)
            out.append({"seconds": seconds, "step": step, "tokens": step * self.tokens_per_step,
                        "flops": step * self.flops_per_step, "training": trained, "held_out": bits})
        return out

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Record:
        return Record(**{**data, "marks": {int(step): loss for step, loss in data["marks"].items()}})


def new_record(settings: Settings, seconds: int, most_seconds: int = SECONDS[1]) -> Record:
    """An empty one, for a run that is about to begin. ValueError as plan has it."""
    planned = plan(settings, seconds, most_seconds)
    return Record(settings.name, planned.tokens_per_step, planned.flops_per_step, seconds)


@cache
def recorded() -> dict[str, Record]:
    """The two runs that the page opens with, "gpt" and "deepseek", 60 s each; {} if they are not there."""
    if not RECORDED.is_file():
        return {}
    about = json.loads(RECORDED.read_text(encoding="utf-8"))
    return {name: Record.from_dict(about[name]) for name in ("gpt", "deepseek")}
