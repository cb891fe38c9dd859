"""Break it: mistakes that public projects have shipped, each switched on by its name, and the checks that see them.

    with mistakes.on("rope_layout_swapped", model):
        print(mistakes.report(model))            # every check, on the model as it is now broken
    print(mistakes.table(model))                 # every mistake this model can have, against every check

The model's own code has no switch for any of it: a mistake replaces a method or a number of this one model, and puts
it back at the end. (Mistakes of counting, sampling, speculation and FP8 live in functions that all models share, so
these are broken for everybody meanwhile: break one thing at a time.)

How it works     switches.py     how something is replaced and put back
                 checks.py       what a check is
                 report.py       tables to print
Checks           whole_model.py  reading in pieces, and the same by another way
                 parts.py        counting, experts, sampling, speculation, FP8
                 by_hand.py      the model once more, written in another way
Mistakes         cached.py       caches and decoding in pieces
                 scores.py       attention: masks, RoPE, YaRN, MLA
                 experts.py      routers and experts
                 drafts.py       MTP and speculation
                 numbers.py      files, counting, sampling, FP8
"""

from llm_core.mistakes import whole_model, parts  # noqa: F401, I001  the checks come first: mistakes name them
from llm_core.mistakes import cached, scores, experts, drafts, numbers  # noqa: F401
from llm_core.mistakes.checks import CHECKS, Outcome
from llm_core.mistakes.report import explain, report, seen_by, table
from llm_core.mistakes.switches import MISTAKES, Mistake, names, on

__all__ = ["CHECKS", "MISTAKES", "Mistake", "Outcome", "explain", "names", "on", "report", "seen_by", "table"]
