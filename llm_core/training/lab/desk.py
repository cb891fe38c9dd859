"""Who trains, who waits, and what has to be cleared away: one desk for all visitors of a server."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from llm_core.training.lab.plan import Settings
from llm_core.training.lab.record import Record
from llm_core.training.lab.run import Run
from llm_core.training.lab.turns import Turns

KEPT = 1800.0  # seconds that a finished run's file stays, if its visitor stays


@dataclass
class _Visit:
    number: int
    run: Run | None = None
    stopped: bool = False


class Desk:
    """A visitor, known by any string, enters, asks for its place until that is 0, starts, and finishes or leaves.

    place: the folder for the runs' own folders; what an earlier server has left there is deleted once it is old.
    """

    def __init__(self, turns: Turns, place: Path, kept: float = KEPT):
        self.turns, self.folder, self.kept = turns, place, kept
        self._visits: dict[str, _Visit] = {}
        self._files: dict[str, Run] = {}  # visitor -> its last run, whose file may still be wanted
        self._lock = threading.Lock()
        self._clear_old()
        atexit.register(self.close)

    def enter(self, visitor: str) -> None:
        """Stand in line. ValueError if the line is full, or if one trains or waits already."""
        with self._lock:
            if visitor in self._visits:
                raise ValueError("this page trains or waits already; press Stop first")
            self._visits[visitor] = _Visit(self.turns.join())

    def place(self, visitor: str) -> int:
        """0: it is your turn. ValueError if the place was given up, or if the visitor has left."""
        visit = self._visits.get(visitor)
        return self.turns.place(visit.number if visit else 0)  # there is no number 0

    def stopped(self, visitor: str) -> bool:
        return visitor not in self._visits or self._visits[visitor].stopped

    def start(self, visitor: str, settings: Settings, source: str, own: str, seconds: float) -> Run:
        """The run, whose earlier one's file is deleted now."""
        self._forget(visitor)
        self._clear_old()
        run = Run(settings, source, own, seconds, self.folder)
        with self._lock:
            visit = self._visits.get(visitor)
            if visit:
                visit.run = run
        if visit is None:  # left while it started
            run.close()
            raise ValueError("the page was closed")
        return run

    def whole_run(self, visitor: str, settings: Settings, record: Record) -> Record:
        """A run on the plays from beginning to end, told to the record; its file is not kept. ValueError if somebody
        else trains, or if the run could not go on."""
        self.enter(visitor)
        try:
            if self.place(visitor):
                raise ValueError(f"{len(self.turns) - 1} train or wait here already; try again in a minute")
            run = self.start(visitor, settings, "plays", "", record.limit)
            while not run.over:
                self.place(visitor)  # still here
                for message in run.news():
                    record.add(message)
                time.sleep(0.2)
        finally:
            self.leave(visitor)
        if record.problem or not record.done:
            raise ValueError(record.problem or "the server ended the run")
        return record

    def stop(self, visitor: str) -> None:
        """End the training as if its time were up, or leave the line."""
        if visit := self._visits.get(visitor):
            visit.stopped = True
            if visit.run:
                visit.run.stop()

    def finish(self, visitor: str) -> None:
        """Give the turn back. A run that is not over ends at once; the file of one that is stays for a while."""
        with self._lock:
            visit = self._visits.pop(visitor, None)
        if visit is None:
            return
        if visit.run and not visit.run.over:
            visit.run.close()
        elif visit.run:
            self._files[visitor] = visit.run
            timer = threading.Timer(self.kept, self._forget, (visitor, visit.run))
            timer.daemon = True
            timer.start()
        self.turns.leave(visit.number)

    def leave(self, visitor: str) -> None:
        """The visitor is gone: nothing of it stays."""
        with self._lock:
            visit = self._visits.pop(visitor, None)
        if visit:
            if visit.run:
                visit.run.close()
            self.turns.leave(visit.number)
        self._forget(visitor)

    def _clear_old(self) -> None:
        """What servers that were killed have left here. What is ours is deleted before it is that old."""
        for old in self.folder.glob("training-lab-*"):
            with contextlib.suppress(OSError):  # another server was faster
                if time.time() - old.stat().st_mtime > self.kept + 60:
                    shutil.rmtree(old, ignore_errors=True)

    def close(self) -> None:
        """The server ends."""
        for visitor in [*self._visits, *self._files]:
            self.leave(visitor)

    def _forget(self, visitor: str, only: Run | None = None) -> None:
        if only is None or self._files.get(visitor) is only:
            if run := self._files.pop(visitor, None):
                run.close()
