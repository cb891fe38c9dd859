"""The log of a run: a CSV file with a line for every few steps, that any table program or plot opens."""

from __future__ import annotations

import csv
import os
from pathlib import Path

COLUMNS = ("step", "loss", "mtp_loss", "learning_rate", "gradient_norm", "max_violation", "tokens",
           "seconds")


class Log:
    """Lines are appended as they come. `rewind(step)` forgets what came after a checkpoint that a run goes on from.

    loss: the main model's, in nats a token, of that step's batch; mtp_loss: the MTP modules', weighted, empty if there
    are none; gradient_norm: before clipping; max_violation: of the experts' load, empty without experts; tokens: read
    so far; seconds: spent in training so far.
    """

    def __init__(self, path: Path | None):
        self.path = path

    def rewind(self, step: int) -> None:
        if self.path is None:
            return
        rows = [row for row in self.rows() if row["step"] <= step]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(part, self.path)

    def write(self, row: dict) -> None:
        if self.path is None:
            return
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)

    def rows(self) -> list[dict]:
        """What is in the file, as numbers; a line that was cut off by a crash is left out."""
        if self.path is None or not self.path.is_file():
            return []
        out = []
        with self.path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                try:
                    numbers = {name: float(row[name]) if row[name] != "" else "" for name in COLUMNS}
                except (TypeError, ValueError):
                    continue
                out.append({**numbers, "step": int(numbers["step"]), "tokens": int(numbers["tokens"])})
        return out
