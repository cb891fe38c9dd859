"""What one request may cost, in one place. `python -m apps.limits` writes the table in apps/README.md anew."""

from __future__ import annotations

import re
from pathlib import Path

from llm_core.hf_config import MOST_BYTES
from llm_core.training.lab import texts
from llm_core.training.lab.plan import CLASS_SECONDS, MOST_FLOPS, MOST_PARAMETERS, SECONDS

MAX_NEW_TOKENS = 200  # a page writes no more than this
MAX_GUESSED_TOKENS = 120  # the MTP lab, which writes each text twice
MAX_SECONDS = 30.0  # and none takes longer than this
WRITERS, WAITING_WRITERS = 4, 60  # for all visitors together
UPDATES_A_SECOND = 12  # of a text; a browser that is sent more falls behind
UPDATES_FOR_ALL = 24  # a second, of all texts together: each takes the server 12 ms, the model's work included
TRAINERS, WAITING_TRAINERS = 1, 8
FIGURES_AT_ONCE, WAITING = 2, 64
MOST_COUNTED = 10**15  # parameters: a thousand times what anybody has; beyond it charts would run out of digits
MOST_LETTERS_IN_AN_ADDRESS = 6000
UPLOAD_MB = 1  # of a file, whatever it is; of a config.json far less is read
FILES_STAY = 1800  # seconds: what was brought, and what was made here to be fetched

README = Path(__file__).with_name("README.md")
MARKED = re.compile(r"(?<=<!-- limits:start -->\n).*?(?=<!-- limits:end -->)", re.DOTALL)


def rows() -> list[tuple[str, str]]:
    return [
        ("charts and figures", f"{FIGURES_AT_ONCE} calculated at a time; up to {WAITING} wait, and whoever comes then "
                               "is told that the site is busy"),
        ("a text", f"{MAX_NEW_TOKENS} tokens ({MAX_GUESSED_TOKENS} in the MTP lab) or {MAX_SECONDS:g} seconds"),
        ("texts", f"{WRITERS} are written at the same time; {WAITING_WRITERS} wait, and see their place in the line"),
        ("a training run", f"{MOST_PARAMETERS:,} parameters, {MOST_FLOPS / 1e9:g} GFLOPs a step, {SECONDS[1]} seconds "
                           f"({CLASS_SECONDS} with `--class`), in a process of its own"),
        ("training runs", f"{TRAINERS} at a time (`COURSE_TRAININGS` changes that); {WAITING_TRAINERS} wait, and see "
                          "their place"),
        ("a text to train on", f"{texts.MOST_CHARACTERS:,} characters"),
        ("a model that somebody describes", f"{MOST_COUNTED:,} parameters; it is counted, and never built"),
        ("a config.json", f"{MOST_BYTES:,} bytes; it is read as text"),
        ("an uploaded file", f"{UPLOAD_MB} MB; a config.json is deleted once it is read, any other file after "
                             f"{FILES_STAY // 60} minutes"),
        ("an address", f"{MOST_LETTERS_IN_AN_ADDRESS:,} letters of a config"),
        ("functions for programs", f"{FIGURES_AT_ONCE} at a time, in a line of their own, within the same bounds"),
        ("files of this computer", "none is given but the site's own")]


def table() -> str:
    return "| what | bound |\n| --- | --- |\n" + "".join(f"| {what} | {bound} |\n" for what, bound in rows())


if __name__ == "__main__":
    README.write_text(MARKED.sub(lambda _: table(), README.read_text(encoding="utf-8")), encoding="utf-8")
