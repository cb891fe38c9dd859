"""What the programs here share: however they end, a sentence says why, and files are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

STOPPED = 130  # the exit code of what Ctrl+C has ended
ADVICE = {errno.ENOSPC: "; make room on that disk", errno.EROFS: "; name a folder that can be written to"}


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Around a program's imports, which take seconds. Ctrl+C ends it at once: Python would show where in torch it was
    just reading, or, within C code, go on as if nothing had been pressed. Nothing is begun yet that could be half done.
    """
    begin()
    try:
        yield
    except OSError as problem:  # as where no folder for temporary files can be had
        print(sentence(problem), file=sys.stderr)
        sys.exit(2)
    finally:
        begun()


def begin() -> None:
    """The first half of `starting`, for a package whose modules are programs too: Ctrl+C ends them until `begun`."""
    if threading.current_thread() is threading.main_thread() and (
            signal.getsignal(signal.SIGINT) is signal.default_int_handler):  # it may have been told to ignore it
        signal.signal(signal.SIGINT, _end_at_once)


def begun() -> None:
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_at_once(*_) -> None:
    os.write(2, b"stopped\n")
    os._exit(STOPPED)


def reason(problem: OSError) -> str:
    """The system's own words, without its number and path: "No space left on device"."""
    return problem.strerror or str(problem) or type(problem).__name__


def sentence(problem: Exception) -> str:
    """Our own sentence, or the system's with the file that it is about and without its number."""
    if not isinstance(problem, OSError) or not problem.strerror:
        return str(problem)
    about = f"{problem.filename} cannot be used ({reason(problem)})" if problem.filename else reason(problem)
    return about + ADVICE.get(problem.errno, "")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole and force it to the disk, or leave what was there. OSError if there is no room or no right."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the folder is not ours, or not a folder: then there is no part either
            part.unlink(missing_ok=True)
        raise
