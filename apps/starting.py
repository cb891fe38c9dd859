"""How the site, or one page of it, starts: its address, its options, its look."""

from __future__ import annotations

import argparse
import atexit
import gc
import ipaddress
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NoReturn
from unittest.mock import patch

import gradio as gr

from apps import chart, limits
from llm_core import programs

STYLE = Path(__file__).with_name("style.css")
COURSE = "Build DeepSeek from scratch"
AUTH = "COURSE_AUTH"  # NAME:PASSWORD in the environment, where a list of processes does not show it
OPEN = ("Whoever can reach this address can use the site, and this computer's time with it. "
        "--auth NAME:PASSWORD asks them for a password.")
BUSY = f"The site is busy: {limits.WAITING} wait already. Try again in a moment."
CLASS = "COURSE_CLASS"  # set to 1, in the environment or by --class: many share this computer


def blocks(title: str) -> gr.Blocks:
    return gr.Blocks(title=COURSE if title == COURSE else f"{title} · {COURSE}", analytics_enabled=False,
                     delete_cache=(limits.FILES_STAY // 6, limits.FILES_STAY))


@contextmanager
def more_to_come() -> Iterator[None]:
    """Around a page that is not the last step. Gradio makes its whole application anew at the end of each page, when it
    is told of the queue, and when it is launched, which for fifteen pages takes seconds; once is enough."""
    with patch.object(gr.blocks.App, "create_app"), patch.object(gr.Blocks, "get_config_file"):
        yield


def theme() -> gr.themes.Base:
    """Gradio's default, with the buttons that have white text dark enough to read it (WCAG 2 AA: 4.5 to 1)."""
    return gr.themes.Default().set(
        **{f"button_primary_background_fill{mode}": "*primary_700" for mode in ("", "_dark")},
        **{f"button_primary_background_fill_hover{mode}": "*primary_800" for mode in ("", "_dark")},
        **{f"button_cancel_background_fill{mode}": "#b91c1c" for mode in ("", "_dark")},
        **{f"button_cancel_background_fill_hover{mode}": "#991b1b" for mode in ("", "_dark")})


def launch(demo: gr.Blocks, host: str = "127.0.0.1", port: int = 7860, mcp: bool = False,
           prepare: Callable[[], None] | None = None, auth: tuple[str, str] | None = None) -> None:
    """Serve until interrupted, with mcp=True the functions for programs as tools of MCP too. `prepare` is called beside
    that once the site answers. auth: the name and the password that visitors are asked for.

    OSError with one sentence if the address cannot be had.
    """
    _check_address(host, port)
    # At each event Gradio would make a table of all events so far, for a page of figures that is off.
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
    with more_to_come():
        demo.queue(max_size=limits.WAITING, default_concurrency_limit=limits.FIGURES_AT_ONCE)
    demo.launch(
        server_name=host, server_port=port, share=False, quiet=True, ssr_mode=False, run_history=False,
        enable_monitoring=False, allowed_paths=[], footer_links=["settings"], theme=theme(), css_paths=[STYLE],
        prevent_thread_lock=True, mcp_server=mcp, max_file_size=f"{limits.UPLOAD_MB}mb", head=chart.script(),
        auth=auth)
    _say_when_full(demo)
    chart.serve_plotly(demo.app)
    if mcp:
        from apps import endpoints  # which imports this module

        endpoints.answer_in_json(demo)
    shown = "127.0.0.1" if host == "0.0.0.0" else host
    gc.freeze()  # what is here now stays: looking through it for garbage would hold up everybody, again and again
    gc.enable()
    print(f"Serving at http://{shown}:{port} (Ctrl+C stops it)", flush=True)
    if prepare:
        threading.Thread(target=prepare, daemon=True).start()
    demo.block_thread()


def _say_when_full(demo: gr.Blocks) -> None:
    """A sentence in place of Gradio's "Queue is full. Max size is 64 and size is 64."."""
    push = demo._queue.push

    async def answer(*given, **named):
        success, told, state = await push(*given, **named)
        return success, BUSY if state == "queue_full" else told, state

    demo._queue.push = answer


def serve(build: Callable[[], gr.Blocks], program: str, description: str, arguments: list[str] | None = None, *,
          offers_mcp: bool = False, prepare: Callable[[], None] | None = None) -> int:
    """Read --host and --port (and --mcp), then serve what `build` makes. Exit code 0, or another after a sentence."""
    parser = _Parser(prog=program, description=description, allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1",
                        help="default 127.0.0.1: this computer alone; 0.0.0.0: the whole network")
    parser.add_argument("--port", default="7860", help="the port to serve on (default 7860)")
    if offers_mcp:
        parser.add_argument("--mcp", action="store_true",
                            help="also serve the functions for programs as tools of the Model Context Protocol")
    parser.add_argument("--class", dest="for_a_class", action="store_true",
                        help="for a class that shares this computer: training runs are kept short")
    parser.add_argument("--auth", default=os.environ.get(AUTH), metavar="NAME:PASSWORD",
                        help=f"ask visitors for this name and password; may stand in the environment as {AUTH}")
    try:
        given = parser.parse_args(arguments)
        if given.for_a_class:
            os.environ[CLASS] = "1"
        port = int(given.port) if given.port.isascii() and given.port.isdigit() and len(given.port) < 6 else 0
        if not 0 < port < 65536:
            raise ValueError(f"--port must be a whole number from 1 to 65535, not {given.port[:40]!r}")
        mcp = offers_mcp and given.mcp
        if mcp and find_spec("mcp") is None:
            raise ValueError("--mcp needs the package mcp, which is not installed; this installs it: "
                             'python -m pip install -c constraints.txt -e ".[mcp]"')
        auth = _name_and_password(given.auth)
        if auth and mcp:
            raise ValueError("--auth and --mcp do not go together: assistants cannot fill in the page that asks for a "
                             "password; put a proxy with a password before the server")
        _check_address(given.host, port)  # before the pages are built, which takes seconds
        with more_to_come():  # launch makes the application
            demo = build()
        if not auth and not _is_loopback(given.host):
            print(OPEN, file=sys.stderr, flush=True)
        launch(demo, given.host, port, mcp, prepare, auth)
    except (ValueError, OSError) as problem:
        print(programs.sentence(problem), file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before it serves
        print("stopped", file=sys.stderr)
        return programs.STOPPED
    return 0


def _name_and_password(given: str | None) -> tuple[str, str] | None:
    """ValueError without either of them; what was given is not repeated, as it may hold a password."""
    if given is None:
        return None
    name, _, password = given.partition(":")
    if not name or not password:
        raise ValueError("--auth must be a name and a password with a colon between them, as in class:secret")
    return name, password


def _is_loopback(host: str) -> bool:
    addresses = {info[4][0].partition("%")[0] for info in socket.getaddrinfo(host, None)}
    return all(ipaddress.ip_address(address).is_loopback for address in addresses)


def for_a_class() -> bool:
    """Whether the site was started for a class that shares this computer."""
    return os.environ.get(CLASS) == "1"


def end(code: int) -> NoReturn:
    """End the program, its threads as they are: one that is within torch just then would break Python's own end."""
    atexit._run_exitfuncs()  # whoever trains is sent home, and temporary files go
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_alone(page: ModuleType) -> None:
    """Serve one page by itself, at the root: called where the page's file is run as a program."""
    def build():
        with blocks(page.TITLE) as demo:
            page.build(demo)
        return demo

    programs.begun()
    end(serve(build, f"python -m apps.{Path(page.__file__).stem}", f"The page {page.TITLE!r}, alone."))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise ValueError(f"{message}; --help shows how to call it")


def _check_address(host: str, port: int) -> None:
    """OSError with one sentence if nothing can be served at this address."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise OSError(f"{host!r} is no address of this computer; 127.0.0.1 always is") from None
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if sys.platform != "win32":  # there it would allow a port that is in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as problem:
            reason = problem.strerror or problem
            raise OSError(f"cannot serve on {host} port {port} ({reason}); another port might do: "
                          f"--port {port + 1 if port < 65535 else 7861}") from None
