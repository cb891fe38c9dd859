"""Numbers as people read them: 3 significant digits in text, the exact count in a table, bytes in both GB and GiB."""

from __future__ import annotations

import re
from fractions import Fraction


def exact(n: int) -> str:
    """671026404352 -> "671,026,404,352"."""
    return f"{n:,}"


def human_count(n: int | float) -> str:
    """A count with 3 significant digits: 671026404352 -> "671 B", 124439808 -> "124 M", 999 -> "999".

    K, M, B and T: a thousand, a million, a billion, a trillion. For parameters, tokens and FLOPs, never for bytes.
    """
    value, power = _scaled(n)
    return value + ("", " K", " M", " B", " T")[power] if power or isinstance(n, float) else str(n)


def human_bytes(n: int) -> str:
    """Bytes in both families of units: 9210691584 -> "9.21 GB (8.58 GiB)". 1 GB is 10^9 bytes, 1 GiB is 2^30."""
    value, power = _scaled(n)
    if power == 0:
        return f"{n} byte" + ("" if n == 1 else "s")
    # The same power in both families, so that the two numbers are easy to hold side by side.
    binary = _three_digits(Fraction(n, 1024**power))
    return f"{value} {'_kMGT'[power]}B ({binary} {'_KMGT'[power]}iB)"


def percent(n: int, total: int) -> str:
    """A part in percent: "12.3 %"; "<0.1 %" for what would round to nothing."""
    part = 100 * n / total
    return f"{part:.1f} %" if part >= 0.05 or not n else "<0.1 %"


def ratio(n: int, other: int) -> str:
    """How many times `other` goes into n, to 3 digits: "56.9"; "–" where there is nothing to compare."""
    if not n or not other:
        return "–"
    times = n / other
    return f"{times:,.0f}" if times >= 100 else f"{times:.3g}"


def times(n: int, other: int) -> str:
    """The same for a table: "56.9 ×"."""
    found = ratio(n, other)
    return found if found == "–" else f"{found} ×"


def parse_tokens(text: str) -> int:
    """A number of tokens as people type it: "4096", "131,072", "128k" = 131,072, "1M" = 1,048,576.

    k and M stand for 1,024 and 1,024 squared here, as in the names of context lengths. ValueError for anything else.
    """
    match = re.fullmatch(r"([0-9][0-9,_]{0,17})([kKmM]?)", str(text).strip())
    count = int(re.sub("[,_]", "", match[1])) * {"": 1, "k": 1024, "m": 1024**2}[match[2].lower()] if match else 0
    if count < 1:
        shown = str(text) if len(str(text)) <= 40 else str(text)[:40] + "…"
        raise ValueError(f"a number of tokens is written like 4096, 128k or 1M, and is at least 1, not {shown!r}")
    return count


def _scaled(n: int | float) -> tuple[str, int]:
    """n in the largest power of 1,000 in which it is at least 1 after rounding to 3 digits, and that power (0 to 4)."""
    power = 0
    while power < 4 and abs(n) >= 999.5 * 1000**power:  # 999.5 would be printed as 1000
        power += 1
    return _three_digits(Fraction(n) / 1000**power), power


def _three_digits(value: Fraction) -> str:
    """3 significant digits without an exponent: 70.272 -> "70.3", 0.9777 -> "0.978", 1234 -> "1,234"."""
    if abs(value) >= 1000:
        return f"{round(value):,}"
    power_of_ten = int(f"{float(value):.2e}".split("e")[1])  # after rounding, so that 9.999 counts as 10
    return f"{float(value):.{max(0, 2 - power_of_ten)}f}"
