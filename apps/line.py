"""Texts are written a few at a time. Whoever comes then stands in a line, and is told the place in it."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable

import gradio as gr
from fastapi.concurrency import run_in_threadpool

from apps import common, limits
from llm_core.training.lab.turns import Turns

# One step of an event may take half a minute (a model's directions are looked for): nobody has left before this.
TURNS = Turns(limits.WRITERS, limits.WAITING_WRITERS, absent=120.0, verb="write")
PAUSE = 0.5  # seconds between two looks at the line
_END = object()
_PLACE = "Your place in the line is "


def noticed(n_outputs: int) -> Callable[[str], tuple]:
    """What an event of common.sentence_for(n_outputs) shows while it waits; it greys nothing."""
    return lambda said: (common.notice(said, note=True), *(gr.skip() for _ in range(n_outputs)))


def without_place(notice: str | None) -> str:
    """A notice after Stop: whoever stood in line has no place any more; other sentences stay."""
    return "" if not notice or _PLACE in notice else notice


def in_line(fn: Callable, busy: Callable[[str], object], turns: Turns = TURNS) -> Callable:
    """An event's function that lets a model run, and returns its outputs or yields them, for when it is one's turn.

    busy: the outputs that show a sentence while one waits. Waiting takes no thread, so it holds nobody up.
    """
    @functools.wraps(fn)
    async def when_it_is_ones_turn(*inputs):
        number = 0
        try:
            number = turns.join()
            while place := turns.place(number):
                yield busy(f"The site is busy: {turns.at_once} texts are being written. {_PLACE}{place:,}.")
                await asyncio.sleep(PAUSE)
            if not inspect.isgeneratorfunction(fn):
                yield await run_in_threadpool(fn, *inputs)
                return
            steps = fn(*inputs)
            while (outputs := await run_in_threadpool(next, steps, _END)) is not _END:
                turns.place(number)  # still here
                yield outputs
        except ValueError as full:  # fn makes sentences of its own mistakes
            yield busy(f"The site is busy: {full}.")
        finally:
            turns.leave(number)
    return when_it_is_ones_turn
