"""`python -m llm_core.accounting NAME [--context 128k] [--batch 1] [--bits 16]` prints one table to paste."""

from __future__ import annotations

import argparse
import sys

from llm_core import presets
from llm_core.accounting.table import table
from llm_core.accounting.units import parse_tokens


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise ValueError(f"{message}; --help shows how to call it")


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) > 0):
        raise ValueError(f"{name} must be a whole number of at least 1, not {text[:40]!r}")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 after one sentence on stderr."""
    parser = _Parser(prog="python -m llm_core.accounting", description="A model's parameters and cache, counted.",
                     epilog=f"Models: {', '.join(presets.names())}", allow_abbrev=False)
    parser.add_argument("name", help="a preset, for example deepseek-v3")
    parser.add_argument("--context", help="tokens in the cache: 4096, 128k (131,072) or 1M; default: the model's limit")
    parser.add_argument("--batch", default="1", help="sequences in the cache (default 1)")
    parser.add_argument("--bits", default="16", help="bits a number in the cache (default 16)")
    try:
        given = parser.parse_args(arguments)
        context = None if given.context is None else parse_tokens(given.context)
        batch, bits = _whole("--batch", given.batch), _whole("--bits", given.bits)
        print(table(presets.get(given.name), given.name, context, batch, bits))
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
