"""Texts are written a few at a time, and whoever waits is told the place."""

import asyncio
import json
import re
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from apps import common, limits, line, starting
from apps.line import in_line, noticed
from llm_core.training.lab.turns import Turns
from tests.apps.conftest import serve, stop
from tests.load.client import Visitor


def run(coroutine):
    """In a thread of its own: Playwright has a loop in this one."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, coroutine).result(60)


async def all_of(stream, out: list) -> list:
    async for outputs in stream:
        out.append(outputs)
    return out


async def until(true) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.01)
    pytest.fail("waited five seconds")


@pytest.fixture
def turns(monkeypatch):
    monkeypatch.setattr(line, "PAUSE", 0.01)
    return Turns(at_once=1, waiting=2, verb="write")


def test_each_waits_for_those_before_and_sees_the_place(turns):
    order = []

    @common.sentence_for(1)
    def write(name):
        order.append(name)
        yield "first"
        time.sleep(0.1)
        yield "second"

    async def class_of_four():
        seen = [[] for _ in range(4)]
        tasks = [asyncio.create_task(all_of(in_line(write, noticed(1), turns)(n), seen[n])) for n in range(4)]
        await asyncio.gather(*tasks)
        return seen

    first, second, third, fourth = run(class_of_four())
    assert order == [0, 1, 2] and len(turns) == 0
    assert first == [("", "first"), ("", "second")]
    assert "Your place in the line is 1." in second[0][0] and second[-2:] == first
    assert "Your place in the line is 2." in third[0][0] and third[-2:] == first
    assert any("Your place in the line is 1." in said for said, _ in third)
    assert len(fourth) == 1 and "1 writes and 2 wait already; try again in a few minutes." in fourth[0][0]
    assert all("class=\"notice note\"" in outputs[0][0] for outputs in (second, third, fourth))


def test_what_returns_its_outputs_may_stand_in_line_too(turns):
    assert run(all_of(in_line(lambda n: ("", n + 1), noticed(1), turns)(1), [])) == [("", 2)]


def test_one_who_leaves_gives_turn_and_place_back(turns):
    def write():
        yield "first"
        time.sleep(0.05)
        yield "second"

    async def leaving():
        writing, waiting = (in_line(write, noticed(0), turns)() for _ in range(2))
        assert await anext(writing) == "first"
        assert "Your place in the line is 1." in (await anext(waiting))[0]
        await waiting.aclose()
        assert len(turns) == 1
        await writing.aclose()
        assert len(turns) == 0
        failing = asyncio.create_task(all_of(in_line(write, noticed(0), turns)(), []))
        await until(lambda: len(turns) == 1)
        failing.cancel()  # as Stop does
        await asyncio.gather(failing, return_exceptions=True)
        assert len(turns) == 0

    run(leaving())


def test_stop_takes_the_place_off_the_page(turns):
    async def waiting():
        first, second = (in_line(lambda: "", noticed(0), turns)() for _ in range(2))
        turns.join()
        said = [(await anext(one))[0] for one in (first, second)]
        await first.aclose()
        await second.aclose()
        return said

    for said in run(waiting()):
        assert "Your place in the line is" in said and line.without_place(said) == ""
    other = common.notice("the prompt is empty")
    assert line.without_place(other) == other and line.without_place(None) == ""


def test_a_fault_gives_the_turn_back(turns):
    def write():
        yield "first"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(all_of(in_line(write, noticed(0), turns)(), []))
    assert len(turns) == 0


def test_visitors_of_the_site_wait_in_line_and_vanish_from_it():
    """More writers than may write: the rest see their place; all of them cut their connection, and the next may write
    at once."""
    process, address = serve()
    try:
        with urllib.request.urlopen(f"{address}/config") as answer:
            config = json.load(answer)
        port, streams, places = int(address.rpartition(":")[2]), [], []
        for _ in range(limits.WRITERS + 3):
            visitor = Visitor(port, config)
            streams.append(visitor.start("write", visitor.inputs("write")))
            for message, _ in streams[-1]:
                if message["msg"] == "process_generating":
                    places += re.findall(r"Your place in the line is (\d+)\.", json.dumps(message["output"]))
                    break
        assert places == ["1", "2", "3"]
        for stream in streams:
            stream.close()
        visitor = Visitor(port, config)
        began = time.monotonic()
        assert visitor.ask("write", visitor.inputs("write")).data
        assert time.monotonic() - began < 60  # a text written slowly takes some seconds
    finally:
        printed = stop(process)
    assert "Traceback" not in printed, printed[-2000:]


def test_a_full_queue_is_said_plainly(monkeypatch):
    class Queue:
        async def push(self, *given, **named):
            return False, "Queue is full. Max size is 64 and size is 64.", "queue_full"

    class Demo:
        _queue = Queue()

    starting._say_when_full(Demo)
    told = run(Demo._queue.push(body=None, request=None, username=None))
    assert told == (False, starting.BUSY, "queue_full")


def test_the_readme_tells_the_limits():
    text = limits.README.read_text(encoding="utf-8")
    assert limits.MARKED.search(text).group() == limits.table()
