"""What all pages share: how events run, how links carry a state, how a page looks, how a mistake becomes a sentence."""

from __future__ import annotations

import functools
import html
import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from apps.components import TypedSlider
from apps.limits import FIGURES_AT_ONCE

# Spread into an event: `gr.on(..., **FIGURES)`. The last drag of a slider always counts, and nothing flickers. Each
# family of events has a queue of its own, so that a long text does not hold up a chart.
FIGURES = {"concurrency_id": "figures", "concurrency_limit": FIGURES_AT_ONCE, "trigger_mode": "always_last",
           "show_progress": "hidden", "api_visibility": "undocumented"}
# Models that write or train have lines of their own, which tell those who wait their place (apps.line and
# llm_core.training.lab): here none has to wait.
GENERATION = {"concurrency_id": "generation", "concurrency_limit": None, "trigger_mode": "once",
              "show_progress": "hidden", "api_visibility": "undocumented"}
TRAINING = {**GENERATION, "concurrency_id": "training"}


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


def whole_slider(name: str, value: int, spec: tuple, **options) -> TypedSlider:
    """A slider for whole numbers. spec: label, least, greatest, step, and perhaps a hint. Its id: the name, dashed."""
    label, least, most, step, *hint = spec
    return TypedSlider(least, most, value, step=step, precision=0, label=label, elem_id=name.replace("_", "-"),
                       buttons=[], info=hint[0] if hint else None, **options)


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


def on_opening(demo: gr.Blocks, opened: Callable[[gr.Request], tuple], outputs: list, told: gr.HTML,
               api_name: str) -> gr.events.Dependency:
    """When a page is opened, show the state that its address asks for: what `opened` returns.

    An address that asks for nothing gets what the page was built with, which stands there already: it answers at once,
    and no chart is drawn a second time.
    """
    def first(request: gr.Request):
        if set(request.query_params) - {"__theme"}:
            return opened(request)
        return tuple(notice("") if output is told else gr.skip() for output in outputs)

    return demo.load(first, None, outputs, api_name=api_name, **FIGURES)


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


LONGEST = 1000  # letters of a sentence
PROBLEMS = (ValueError, OSError, OverflowError)  # what comes of what people give, and becomes a sentence


def sentence(problem: Exception) -> str:
    """What an error says, as plain text: llm_core's own sentence, or the system's without its error number."""
    if isinstance(problem, OverflowError):
        return "A number is too large to compute with; give a smaller one."
    if isinstance(problem, OSError) and problem.strerror:
        about = f" ({Path(problem.filename).name})" if problem.filename else ""
        return f"{problem.strerror}{about}"
    said = str(problem)  # which repeats what was given, that may be long
    return said if len(said) <= LONGEST else f"{said[:LONGEST // 2]} … {said[-LONGEST // 2:]}"


def formula(*lines: str) -> str:
    """Formulas with their numbers in them, one a line."""
    return "".join(f'<p class="formula">{html.escape(line)}</p>' for line in lines)


def sentence_for(n_outputs: int) -> Callable[[Callable], Callable]:
    """Decorate an event's function, which returns (or yields) `n_outputs` outputs as a tuple.

    The event's outputs are then a notice box and those. All well: the box is emptied. One of PROBLEMS: the box
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
                except PROBLEMS as problem:
                    yield bad(problem)
            return stepwise

        @functools.wraps(fn)
        def once(*inputs):
            try:
                return well(fn(*inputs))
            except PROBLEMS as problem:
                return bad(problem)
        return once
    return decorate
