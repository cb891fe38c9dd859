"""`python -m tests.load [SECONDS]`: a class at once. Forty visitors drag sliders, four have texts written, one trains.

It starts the site on a free port of this computer, loads it for five minutes (or SECONDS), and prints what it promises
beside what was measured. Exit code 1 if a promise was broken. A drag is what a browser makes of one: positions for a
second, one event at a time, the last position always sent.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from tests.benchmarks.starting import wait_for
from tests.load.client import Visitor
from tests.ports import free_port

DRAGGERS, WRITERS, EVERY, DRAG = 40, 4, 5.0, 1.0
SLIDER, STEPS = "kv_cache_context", range(3, 15)


class Load:
    def __init__(self, port: int, pid: int, seconds: float):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/config") as answer:
            self.config = json.load(answer)
        self.port, self.pid, self.end = port, pid, time.monotonic() + seconds
        self.began, self.seconds = time.monotonic(), seconds
        self.drags: list[float] = []  # seconds from the last position to its answer
        self.calls: list[float] = []  # seconds of every event of a slider
        self.first_tokens: list[float] = []
        self.trained: list[float] = []
        self.memory: list[tuple[float, int]] = []  # seconds since the start, bytes
        self.wrong: list[str] = []
        self.right = self.calmly()

    def visitor(self) -> Visitor:
        return Visitor(self.port, self.config)

    def calmly(self) -> dict[int, str]:
        """What each position of the slider shows when nobody else is there; and the floor of a call's time."""
        alone, shown = self.visitor(), {}
        for step in STEPS:
            shown[step] = json.dumps(alone.ask(SLIDER, self.slider_at(alone, step)).data[0])
        assert len(set(shown.values())) == len(STEPS)  # so a stale answer would be seen
        self.floor = statistics.median(alone.ask(SLIDER, self.slider_at(alone, step)).all for step in STEPS)
        return shown

    def slider_at(self, visitor: Visitor, step: int) -> list:
        return [step, *visitor.inputs(SLIDER)[1:]]

    def drag(self, number: int) -> None:
        rng, visitor = random.Random(number), self.visitor()
        time.sleep(rng.uniform(0, EVERY))
        while time.monotonic() < self.end:
            stop = time.monotonic() + DRAG
            while True:
                moved, step = time.monotonic(), rng.choice(STEPS)
                answer = visitor.ask(SLIDER, self.slider_at(visitor, step))
                self.calls.append(answer.all)
                if moved >= stop:  # this was the position at which the finger left
                    break
                time.sleep(max(0, min(0.1, stop - time.monotonic())))
            self.drags.append(answer.all)
            if json.dumps(answer.data[0]) != self.right[step]:
                self.wrong.append(f"the slider at {step} showed {json.dumps(answer.data[0])[:80]}")
            time.sleep(rng.uniform(0.8, 1.2) * (EVERY - DRAG))

    def write(self, number: int) -> None:
        visitor = self.visitor()
        while time.monotonic() < self.end:
            if number % 2 and random.random() < 0.3:  # the visitor goes away in the middle of a text
                self.leave(visitor)
                visitor = self.visitor()
            else:
                self.first_tokens.append(visitor.ask("write", visitor.inputs("write")).first)
            time.sleep(1)

    @staticmethod
    def leave(visitor: Visitor) -> None:
        stream = visitor.start("write", visitor.inputs("write"))
        for message, _ in stream:
            if message["msg"] == "process_generating":
                break
        stream.close()

    def train(self) -> None:
        visitor = self.visitor()
        while time.monotonic() < self.end:
            self.trained.append(visitor.ask("training_run", visitor.inputs("training_run")).all)

    def watch(self) -> None:
        while time.monotonic() < self.end:
            self.memory.append((time.monotonic() - self.began, resident(self.pid)))
            time.sleep(2)

    def run(self) -> None:
        work = [(self.drag, n) for n in range(DRAGGERS)] + [(self.write, n) for n in range(WRITERS)]
        work += [(self.train,), (self.watch,)]
        threads = [threading.Thread(target=self.safely, args=one, daemon=True) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.seconds + 180)
        if any(thread.is_alive() for thread in threads):
            self.wrong.append("somebody still waited three minutes after the end")

    def safely(self, work, *given) -> None:
        try:
            work(*given)
        except Exception as problem:  # noqa: BLE001  one visitor's trouble is a figure, not the end of the run
            self.wrong.append(f"{work.__name__}: {problem!r}"[:300])

    def report(self) -> bool:
        early = [size for at, size in self.memory if 50 <= at <= 70] or [self.memory[0][1]]
        grown = 100 * (statistics.median(size for _, size in self.memory[-5:]) / statistics.median(early) - 1)
        promises = [
            ("errors, and last values that were lost", len(self.wrong), 0, ""),
            ("slider, last position to its answer, 95 of 100", percentile(self.drags, 95), 1.5, "s"),
            ("first token of a text, at worst", max(self.first_tokens), 10, "s"),
            ("memory at the end over that after a minute", grown, 5, "%")]
        print(f"{len(self.drags)} drags of {len(self.calls)} events (alone, one takes {1000 * self.floor:.0f} ms), "
              f"{len(self.first_tokens)} texts, {len(self.trained)} trainings, {self.memory[-1][1] / 1e6:.0f} MB")
        for what, measured, most, unit in promises:
            print(f"{what}: {measured:.3g} {unit} (at most {most:g}): {'kept' if measured <= most else 'BROKEN'}")
        print(*self.wrong[:10], sep="\n")
        return all(measured <= most for _, measured, most, _ in promises)


def percentile(values: list[float], share: int) -> float:
    return statistics.quantiles(values, n=100)[share - 1]


def resident(pid: int) -> int:
    """Bytes of a process and of those that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pages = [Path(f"/proc/{one}/statm").read_text().split()[1] for one in (str(pid), *children)]
    return 4096 * sum(map(int, pages))


def main(seconds: float) -> int:
    port = free_port()
    with tempfile.TemporaryFile("w+") as printed:
        site = subprocess.Popen([sys.executable, "-m", "apps", "--port", str(port)], stdout=printed, stderr=printed)
        try:
            wait_for(port)
            time.sleep(15)  # it prepares pages when it has started
            load = Load(port, site.pid, seconds)
            load.run()
            kept = load.report()
        finally:
            site.terminate()
            site.wait(20)
        printed.seek(0)
        if "Traceback" in (log := printed.read()):
            print(log[-3000:])
            kept = False
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 300))
