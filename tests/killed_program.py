"""Work that is killed (-9) at each of its dealings with files: python -m tests.killed_program WORK FOLDER

Before the n-th one the work in a copy of FOLDER/before, FOLDER/n, ends; a file that it would have opened to write is
emptied first. This goes on until a copy is finished, whose number is printed.
"""

import contextlib
import io
import os
import shutil
import signal
import sys
from pathlib import Path
from unittest.mock import patch

MOST = 200
EVENTS = ("open", "os.mkdir", "os.rename", "os.rmdir", "os.remove")


def export(folder: Path):
    from llm_core import load_pretrained
    from llm_core.checkpoint.hf_folder import save_hf

    model, tokenizer = load_pretrained("gpt-mini")
    return lambda folder: save_hf(model, folder / "out", tokenizer)


def lessons(folder: Path):
    from llm_core.checks.__main__ import main

    return lambda now: main(["start", str(now / "mine"), "--course", str(folder / "the project" / "course")])


def table(folder: Path):
    from llm_core.checks.__main__ import main

    return lambda now: main(["export", str(now / "mine"), "--out", str(now / "class.csv"), "--course",
                             str(folder / "the project" / "course")])


def card(folder: Path):
    from llm_core import load_pretrained
    from llm_core.training import card
    from llm_core.training.loop import Result
    from llm_core.training.recipe import RECIPES

    result = Result(load_pretrained("gpt-mini")[0])

    def work(now):
        with patch.object(card, "describe", lambda *_: {"new": "facts"}), \
                patch.object(card, "mini_card", lambda *_: "new words"):
            card.write_mini(now, RECIPES["gpt-mini"], result, None)
    return work


def watch(folder: Path, left: int) -> None:
    flags_to_write = os.O_WRONLY | os.O_RDWR

    def event(name, arguments):
        nonlocal left
        if name not in EVENTS or not str(arguments[0]).startswith(str(folder)):
            return
        if name == "open" and not arguments[2] & flags_to_write:
            return
        left -= 1
        if left == 0:
            if name == "open":
                os.close(os.open(arguments[0], arguments[2]))
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(event)


def main(name: str, folder: Path) -> int:
    work = {"export": export, "lessons": lessons, "table": table, "card": card}[name](folder)
    for number in range(1, MOST):
        now = folder / str(number)
        shutil.copytree(folder / "before", now)
        child = os.fork()
        if not child:
            watch(now, number)
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    work(now)
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            print(number)
            return status
    return 1


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)  # a forked process has none of the others
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
