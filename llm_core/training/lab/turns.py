"""Whose turn it is to train, or to write: a few at once, a few more in line, and no more than that."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable


class Turns:
    """at_once learners have their turn, up to `waiting` stand in line. One who does not ask for `place`
    within `absent` seconds has gone, and the others move up. verb: what one does then, for sentences."""

    def __init__(self, at_once: int = 1, waiting: int = 8, absent: float = 30.0,
                 clock: Callable[[], float] = time.monotonic, verb: str = "train"):
        self.at_once, self.waiting, self.absent, self.clock, self.verb = at_once, waiting, absent, clock, verb
        self._lock, self._numbers = threading.Lock(), itertools.count(1)
        self._asked: dict[int, float] = {}  # number -> when it last asked, in the order of coming

    def join(self) -> int:
        """A number, at the end of the line. ValueError if the line is full."""
        with self._lock:
            self._drop()
            if len(self._asked) >= self.at_once + self.waiting:
                raise ValueError(f"{self.at_once} {self.verb}{'s' if self.at_once == 1 else ''} and {self.waiting} "
                                 "wait already; try again in a few minutes")
            number = next(self._numbers)
            self._asked[number] = self.clock()
            return number

    def place(self, number: int) -> int:
        """0: it is your turn; 1: you are the next; and so on. ValueError if one was away too long, or has left."""
        with self._lock:
            if number in self._asked:
                self._asked[number] = self.clock()
            self._drop()
            if number not in self._asked:
                raise ValueError("your place in the line was given up; start again")
            return max(0, list(self._asked).index(number) - self.at_once + 1)

    def leave(self, number: int) -> None:
        """Give the turn or the place back; also twice."""
        with self._lock:
            self._asked.pop(number, None)

    def __len__(self) -> int:
        """How many train or wait."""
        with self._lock:
            self._drop()
            return len(self._asked)

    def _drop(self) -> None:
        now = self.clock()
        for number in [n for n, asked in self._asked.items() if now - asked > self.absent]:
            del self._asked[number]
