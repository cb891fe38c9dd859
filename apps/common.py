"""What all pages share: how they start, how they look, how links carry a state, how a mistake becomes a sentence."""

from __future__ import annotations

import argparse
import functools
import html
import inspect
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlencode

import gradio as gr

STYLE = Path(__file__).with_name("style.css")
COURSE = "Build DeepSeek from scratch"

# Spread into an event: `gr.on(..., **FIGURES)`. The last drag of a slider always counts, and nothing flickers. Each
# family of events has a queue of its own, so that a long text does not hold up a chart.
FIGURES = {"concurrency_id": "figures", "concurrency_limit": 2, "trigger_mode": "always_last",
           "show_progress": "hidden", "api_visibility": "undocumented"}
GENERATION = {"concurrency_id": "generation", "concurrency_limit": 1, "trigger_mode": "once",
              "show_progress": "hidden", "api_visibility": "undocumented"}
# Training is in processes of its own, with a bounded line of its own (llm_core.training.lab): here none has to wait.
TRAINING = {"concurrency_id": "training", "concurrency_limit": None, "trigger_mode": "once",
            "show_progress": "hidden", "api_visibility": "undocumented"}
CLASS = "COURSE_CLASS"  # set to 1, in the environment or by --class: many share this computer


# Starting -----------------------------------------------------------------------------------------------------------

def blocks(title: str) -> gr.Blocks:
    return gr.Blocks(title=COURSE if title == COURSE else f"{title} · {COURSE}", analytics_enabled=False)


def theme() -> gr.themes.Base:
    """Gradio's default, with the buttons that have white text dark enough to read it (WCAG 2 AA: 4.5 to 1)."""
    return gr.themes.Default().set(
        **{f"button_primary_background_fill{mode}": "*primary_700" for mode in ("", "_dark")},
        **{f"button_primary_background_fill_hover{mode}": "*primary_800" for mode in ("", "_dark")},
        **{f"button_cancel_background_fill{mode}": "#b91c1c" for mode in ("", "_dark")},
        **{f"button_cancel_background_fill_hover{mode}": "#991b1b" for mode in ("", "_dark")})


def launch(demo: gr.Blocks, host: str = "127.0.0.1", port: int = 7860, mcp: bool = False) -> None:
    """Serve until interrupted, with mcp=True the functions for programs as tools of MCP too.

    OSError with one sentence if the address cannot be had.
    """
    _check_address(host, port)
    demo.queue(max_size=64, default_concurrency_limit=2)
    demo.launch(
        server_name=host, server_port=port, share=False, quiet=True, ssr_mode=False, run_history=False,
        enable_monitoring=False, allowed_paths=[], footer_links=["settings"], theme=theme(), css_paths=[STYLE],
        prevent_thread_lock=True, mcp_server=mcp)
    if mcp:
        from apps import endpoints  # which imports this module

        endpoints.answer_in_json(demo)
    shown = "127.0.0.1" if host == "0.0.0.0" else host
    print(f"Serving at http://{shown}:{port} (Ctrl+C stops it)", flush=True)
    demo.block_thread()


def serve(build: Callable[[], gr.Blocks], program: str, description: str, arguments: list[str] | None = None, *,
          offers_mcp: bool = False) -> int:
    """Read --host and --port (and --mcp), then serve what `build` makes. Exit code 0, or 2 after one sentence."""
    parser = _Parser(prog=program, description=description, allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1",
                        help="default 127.0.0.1: this computer alone; 0.0.0.0: the whole network")
    parser.add_argument("--port", default="7860", help="the port to serve on (default 7860)")
    if offers_mcp:
        parser.add_argument("--mcp", action="store_true",
                            help="also serve the functions for programs as tools of the Model Context Protocol")
    parser.add_argument("--class", dest="for_a_class", action="store_true",
                        help="for a class that shares this computer: training runs are kept short")
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
        _check_address(given.host, port)  # before the pages are built, which takes seconds
        launch(build(), given.host, port, mcp)
    except (ValueError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


def for_a_class() -> bool:
    """Whether the site was started for a class that shares this computer."""
    return os.environ.get(CLASS) == "1"


def run_alone(page: ModuleType) -> None:
    """Serve one page by itself, at the root: called where the page's file is run as a program."""
    def build():
        with blocks(page.TITLE) as demo:
            page.build(demo)
        return demo

    sys.exit(serve(build, f"python -m apps.{Path(page.__file__).stem}", f"The page {page.TITLE!r}, alone."))


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


# Links --------------------------------------------------------------------------------------------------------------

def link(path: str, **params: Any) -> str:
    """The address of a page in a certain state; path "" is the page one is on. link("/kv-cache", preset="gpt2")"""
    return path + (f"?{urlencode(params)}" if params else "")


def read_query(request: gr.Request | None, defaults: dict[str, Any], choices: dict[str, Sequence] | None = None,
               limits: dict[str, tuple[float, float]] | None = None) -> tuple[dict[str, Any], str]:
    """The values of an address's query, and a sentence about what could not be used ("" if all is well).

    A value is read as the type of its default: bool, int, float or str. `choices` names the only values that will do,
    `limits` the least and the greatest. What is missing or bad becomes its default; names that are not in `defaults`
    are none of our business.
    """
    query = dict(request.query_params) if request is not None else {}
    values, problems = dict(defaults), []
    for name in [name for name in defaults if name in query]:
        text, default = query[name], defaults[name]
        span = "" if not limits or name not in limits else " (it goes from {:,} to {:,})".format(*limits[name])
        try:
            value = _parse(text, default)
            least, most = (limits or {}).get(name, (value, value))
            if value not in (choices or {}).get(name, [value]) or not least <= value <= most:
                raise ValueError
            values[name] = value
        except (ValueError, KeyError, OverflowError):
            problems.append(f"{name} cannot be {text[:40]!r}{span} and was set to {default}")
    return values, f"From the address: {'; '.join(problems)}." if problems else ""


def _parse(text: str, default: Any) -> Any:
    if isinstance(default, bool):
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    if not isinstance(default, (int, float)):
        return text
    number = float(text)
    whole = int(number)  # refuses what is infinite or no number
    if isinstance(default, int) and whole != number:
        raise ValueError
    return whole if isinstance(default, int) else number


def whole_slider(name: str, value: int, spec: tuple, **options) -> gr.Slider:
    """A slider for whole numbers. spec: label, least, greatest, step, and perhaps a hint; its id is the name, dashed.

    Gradio would answer an emptied number box with a traceback in the log; here whatever was typed comes through, and
    `within` makes the best of it.
    """
    label, least, most, step, *hint = spec
    slider = gr.Slider(least, most, value, step=step, precision=0, label=label, elem_id=name.replace("_", "-"),
                       buttons=[], info=hint[0] if hint else None, **options)
    slider.preprocess = lambda typed: typed
    return slider


def within(values: dict[str, Any], limits: dict[str, tuple[int, int]]) -> tuple[dict[str, Any], str]:
    """The values with those out of their limits set to the nearest that will do, as the browser does when a number box
    is left (an empty one becomes the least), and a sentence about each of these."""
    out, said = dict(values), []
    for name, (least, most) in limits.items():
        value = values[name]
        number = isinstance(value, (int, float)) and value == value
        out[name] = round(min(max(value, least), most)) if number else least
        if not number or out[name] != value:
            said.append(f"{name} {f'cannot be {value:,}' if number else 'is empty'}, so {out[name]:,} is shown. ")
    return out, "".join(said)


def copy_link_button(controls: dict[str, gr.components.Component], label: str = "Copy link to this state") -> gr.Button:
    """A button that puts the state of `controls` (query name -> component) into the address bar and the clipboard."""
    button = gr.Button(label, size="sm", elem_classes="copy-link")
    told = gr.HTML(elem_classes="copied")
    button.click(None, list(controls.values()), told, show_progress="hidden", js=f"""(...values) => {{
        const names = {json.dumps(list(controls))};
        const query = new URLSearchParams(names.map((name, i) => [name, String(values[i] ?? "")]));
        history.replaceState(null, "", location.pathname + "?" + query);
        const copied = navigator.clipboard ? "copied, and " : "";
        navigator.clipboard?.writeText(location.href).catch(() => {{}});
        return `<span>The link is ${{copied}}in the address bar.</span>`;
    }}""")
    return button


def try_this(links: Iterable[tuple[str, str]]) -> gr.HTML:
    """Two or three links, (what one will see, address), that open the page in a state worth looking at."""
    items = "".join(f'<li><a href="{html.escape(address)}">{html.escape(text)}</a></li>' for text, address in links)
    return gr.HTML(f'<div class="try-this"><strong>Try this</strong><ul>{items}</ul></div>')


# Text on a page -----------------------------------------------------------------------------------------------------

def question(asked: str, more: str) -> None:
    """The head of a page: what is asked, and a line or two about it (Markdown)."""
    gr.Markdown(f"# {asked}\n\n{more}", elem_classes="question")


def lesson(text: str) -> None:
    """The foot of a page: the lesson it belongs to (Markdown)."""
    gr.Markdown(f"**The lesson.** {text}", elem_classes="lesson")


def notice_box() -> gr.HTML:
    """Where sentence_for shows what went wrong. While it says something, all with the class "result" is greyed."""
    return gr.HTML(elem_classes="notice-box")


def notice(text: str, note: bool = False) -> str:
    """A sentence for the notice box: what went wrong, or with note=True a remark that greys nothing.

    "" for none; the unseen mark that then stands there tells tests that the page has answered.
    """
    if not text:
        return '<span class="answered" hidden></span>'
    return f'<p class="notice{" note" if note else ""}" role="alert">{html.escape(text)}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", *, words: Sequence[int] = (0,),
          colours: dict[str, str] | None = None) -> str:
    """An HTML table of numbers, to the right; the columns in `words` to the left. Cells are escaped.

    colours: what stands in a row's first cell -> the colour of the square before it. So the table is a chart's legend.
    """
    def cell(tag: str, column: int, content: str) -> str:
        square = ""
        if tag != "col" and column == 0 and content in (colours or {}):
            square = f'<span class="swatch" style="background:{colours[content]}"></span>'
        name = "td" if tag == "row" and column else "th"
        scope = "" if name == "td" else f' scope="{tag}"'
        left = ' class="words"' if column in words else ""
        return f"<{name}{scope}{left}>{square}{html.escape(str(content))}</{name}>"

    def line(tag: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(cell(tag, column, content) for column, content in enumerate(cells))}</tr>"

    about = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    body = "".join(line("row", row) for row in rows)
    # Focusable, so that a wide table can be scrolled by keyboard too.
    return (f'<div class="table" tabindex="0"><table>{about}<thead>{line("col", head)}</thead>'
            f"<tbody>{body}</tbody></table></div>")


def said(text: str) -> str:
    """The one sentence below a chart, as HTML."""
    return f'<p class="sentence">{html.escape(text)}</p>'


def sentence(problem: Exception) -> str:
    """What an error says, as plain text: llm_core's own sentence, or the system's without its error number."""
    if isinstance(problem, OSError) and problem.strerror:
        about = f" ({Path(problem.filename).name})" if problem.filename else ""
        return f"{problem.strerror}{about}"
    return str(problem)


def formula(*lines: str) -> str:
    """Formulas with their numbers in them, one a line."""
    return "".join(f'<p class="formula">{html.escape(line)}</p>' for line in lines)


def sentence_for(n_outputs: int) -> Callable[[Callable], Callable]:
    """Decorate an event's function, which returns (or yields) `n_outputs` outputs as a tuple.

    The event's outputs are then a notice box and those. All well: the box is emptied. ValueError or OSError: the box
    says the error's sentence, and everything else stays as it was.
    """
    def decorate(fn: Callable) -> Callable:
        def well(outputs):
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            return "", *outputs

        def bad(problem: Exception):
            return notice(sentence(problem)), *(gr.skip() for _ in range(n_outputs))

        if inspect.isgeneratorfunction(fn):
            @functools.wraps(fn)
            def stepwise(*inputs):
                try:
                    for outputs in fn(*inputs):
                        yield well(outputs)
                except (ValueError, OSError) as problem:
                    yield bad(problem)
            return stepwise

        @functools.wraps(fn)
        def once(*inputs):
            try:
                return well(fn(*inputs))
            except (ValueError, OSError) as problem:
                return bad(problem)
        return once
    return decorate
