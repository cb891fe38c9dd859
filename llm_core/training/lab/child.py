"""The lab's run as a program of its own: python -m llm_core.training.lab.child

The first line of its input is the request, in JSON: settings, source, own, seconds, folder. What learning.learn tells
goes out, a line of JSON each, and last {"kind": "problem", "sentence"} if it cannot go on. A further input line,
"stop", ends the training as if the time were up. When the input closes, whoever asked is gone, and the process ends at
once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is meant for the server, whose end closes our input
    request = json.loads(sys.stdin.readline() or "null")
    if request is None:
        return 1
    folder, stop = Path(request["folder"]), threading.Event()
    tell = partial(say, folder=folder)
    threading.Thread(target=_listen, args=(folder, stop), daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(5)  # the pages, and models that write, come first

    import torch  # only now: it takes seconds, in which one may want to stop already

    from llm_core.programs import sentence
    from llm_core.training.lab.learning import learn
    from llm_core.training.lab.plan import Settings

    torch.set_num_threads(1)
    try:
        learn(Settings(**request["settings"]), request["source"], request["own"], request["seconds"], tell,
              stop.is_set, folder)
    except (ValueError, OSError) as problem:
        tell({"kind": "problem", "sentence": sentence(problem)})
    except MemoryError:
        tell({"kind": "problem", "sentence": "this computer has too little free memory for it; take a smaller batch"})
    except Exception as problem:  # a sentence for the page; there is nobody to read a traceback
        tell({"kind": "problem", "sentence": f"the training stopped by a fault of ours ({type(problem).__name__}: "
                                             f"{str(problem)[:200]}); other settings may work"})
    return 0


def say(message: dict, folder: Path) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except OSError:
        _end(folder)  # nobody listens


def _listen(folder: Path, stop: threading.Event) -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in sys.stdin:
            if line.strip() == "stop":
                stop.set()
    _end(folder)


def _end(folder: Path) -> None:
    """At once, and nothing stays: not what the other thread may be writing just now either."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)
        if not folder.exists():
            break
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
