"""One number in FP8: its eight bits, the numbers beside it, and what rounding did to it.

Formats: Micikevicius et al. 2022, arXiv:2209.05433, table 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llm_core.quantization.fp8 import Fields, Format, all_values, fields, get_format


@dataclass(frozen=True)
class Rounded:
    """`given` and what a format makes of it. below, above: the format's next finite numbers, None at its end."""

    given: float
    fields: Fields
    below: float | None
    above: float | None

    @property
    def error(self) -> float:
        """What was added by rounding; inf if it overflowed."""
        return self.fields.value - self.given

    @property
    def relative_error(self) -> float:
        """|error| / |given|; 0 for 0."""
        return abs(self.error / self.given) if self.given else 0.0

    @property
    def kind(self) -> str:
        """exact, rounded, became 0, subnormal (rounded, with fewer digits), held at the largest, or infinite."""
        f = self.fields
        if math.isinf(f.value):
            return "infinite"
        if f.value == self.given:
            return "exact"
        if f.value == 0:
            return "became 0"
        if not f.format.infinite and abs(self.given) > f.format.max:
            return "held at the largest"
        return "subnormal" if f.exponent == 0 else "rounded"


def levels(format: str | Format) -> list[float]:
    """All finite numbers of a format, ascending, 0 once: 253 of E4M3, 247 of E5M2."""
    values = all_values(format)
    return [v + 0.0 for v in values[values.isfinite()].unique().tolist()]  # + 0.0 makes 0 of -0


def look(value: float, format: str | Format = "e4m3") -> Rounded:
    """Round one finite number. ValueError for NaN and inf."""
    if not math.isfinite(value):
        raise ValueError(f"only a finite number can be rounded, not {value!r}")
    f = get_format(format)
    made, all_of_it = fields(value, f), levels(f)
    below = [v for v in all_of_it if v < made.value]
    above = [v for v in all_of_it if v > made.value]
    return Rounded(float(value), made, below[-1] if below else None, above[0] if above else None)


def ruler(value: float, format: str | Format = "e4m3", each_side: int = 4) -> list[float]:
    """The numbers of a format around `value`: the nearest one and up to `each_side` on either side, ascending."""
    made, all_of_it = look(value, format).fields.value, levels(format)
    here = min(range(len(all_of_it)), key=lambda i: abs(all_of_it[i] - max(min(made, all_of_it[-1]), all_of_it[0])))
    return all_of_it[max(0, here - each_side):here + each_side + 1]
