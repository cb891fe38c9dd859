"""`python -m tests.benchmarks [part …]` measures, prints and writes RESULTS.md. Exit code 1 if a figure is missed.

Parts: decoding, moe_layers, speculation, training, reading, starting; all of them if none is named. Only a run of all
parts writes the page. It wants a machine that does nothing else, and takes about ten minutes on two cores.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module

from tests.benchmarks import results

PARTS = ("decoding", "moe_layers", "speculation", "training", "reading", "starting")


def main(parts: list[str]) -> int:
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        print(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    warnings.filterwarnings("ignore", category=FutureWarning)  # transformers announces names to come
    where = results.machine()
    print(where, *results.HEAD, sep="\n", flush=True)
    measured = []
    for part in parts or PARTS:
        for row in import_module(f"tests.benchmarks.{part}").rows():
            measured.append(row)
            print(row.line(), flush=True)
    if not parts:
        results.PAGE.write_text(results.page(measured, where), encoding="utf-8")
    return int(any(not row.reaches(row.must) for row in measured))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
