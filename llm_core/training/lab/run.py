"""Start a run in a process of its own, hear from it, stop it, and never leave one behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llm_core.training.lab.plan import Settings

ROOT = Path(__file__).resolve().parents[3]  # where llm_core lies
GRACE = 150.0  # seconds for a start, the last look and the file, beyond the run's own
ABSENT = 30.0  # seconds after which whoever does not ask any more is taken to be gone
KILLED = ("the process that trained has ended before its time: it was killed, or the computer ran out of memory. "
          "Nothing else is broken, so train again, perhaps with a smaller batch")
TOO_LONG = "the process that trained did not answer any more and was ended; train again, with a smaller model"


class Run:
    """One training process. `news` is asked again and again, and gives what learning.learn has told since.

    The process ends when its time is up, at `stop` (it still measures and writes its file), at `close` (at once), when
    this process ends in whatever way (the pipe to it closes), and when nobody has asked for news for ABSENT seconds.
    `folder` holds the file until `close`.
    """

    def __init__(self, settings: Settings, source: str, own: str, seconds: float, place: Path | None = None):
        """place: the folder in which the run's own, private one is made; the system's for temporary files if None."""
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="training-lab-", dir=place))
        self._lock, self._news, self._stopping = threading.Lock(), [], False
        self._finished = self._closed = False
        self._asked = time.monotonic()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
                       "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
        quiet = {"creationflags": subprocess.BELOW_NORMAL_PRIORITY_CLASS} if sys.platform == "win32" else {}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llm_core.training.lab.child"], env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8", **quiet)
        request = {"settings": asdict(settings), "source": source, "own": own, "seconds": seconds,
                   "folder": str(self.folder)}
        threading.Thread(target=self._listen, args=(json.dumps(request),), daemon=True).start()
        self._limit = threading.Timer(seconds + GRACE, self._too_long)
        self._limit.daemon = True
        self._limit.start()

    def news(self) -> list[dict[str, Any]]:
        """What came since the last call. The last of all is of the kind "done" or "problem"."""
        self._asked = time.monotonic()
        with self._lock:
            out, self._news = self._news, []
        return out

    @property
    def over(self) -> bool:
        """Whether the process has ended and all its news was fetched."""
        with self._lock:
            return self._finished and not self._news

    def stop(self) -> None:
        """End the training as if its time were up."""
        if not self._stopping:
            self._stopping = True
            self._say("stop\n")

    def close(self) -> None:
        """End the process at once, if it runs, and delete its folder."""
        self._closed = True
        self._limit.cancel()
        with contextlib.suppress(OSError):  # nothing may be heard of what was not sent any more
            self.process.stdin.close()
        if self.process.poll() is None:
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # it has ended
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _listen(self, request: str) -> None:
        """In a thread of its own, as long as the process lives."""
        self._say(request + "\n")
        ended = False
        with contextlib.suppress(ValueError):  # the pipe was closed under us, or a last line was cut off
            for line in self.process.stdout:
                message = json.loads(line)
                ended = ended or message["kind"] in ("done", "problem")
                self._tell(message)
                if time.monotonic() - self._asked > ABSENT:
                    self.close()
        self.process.wait()
        self._limit.cancel()
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.stdout.close()
        with self._lock:
            if not ended and not self._closed:
                self._news.append({"kind": "problem", "sentence": KILLED})
            self._finished = True

    def _tell(self, message: dict) -> None:
        with self._lock:
            self._news.append(message)

    def _too_long(self) -> None:
        self._tell({"kind": "problem", "sentence": TOO_LONG})
        self.process.kill()
