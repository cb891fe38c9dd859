"""What the pages share that let a model write: loading, settings, a writer that keeps to limits, the likeliest tokens.

Nothing here knows of Gradio. Every mistake in the input is a ValueError or OSError whose message is meant to be shown.
"""

from __future__ import annotations

import html
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from apps.limits import MAX_NEW_TOKENS, MAX_SECONDS, UPDATES_A_SECOND, UPDATES_FOR_ALL
from llm_core import accounting
from llm_core.generation import stream
from llm_core.model import LanguageModel
from llm_core.pretrained import load_pretrained
from llm_core.sampling import Sampler
from llm_core.tokenizer import StreamDecoder, Tokenizer

SHOWN = 10  # of the likeliest tokens

# Colours come from the theme, so that dark mode needs nothing of its own; the accents are Okabe and Ito's.
CSS = """
/* The end of a text stays in view, as in a log. */
.written {display: flex; flex-direction: column-reverse; height: 15rem; overflow-y: auto; padding: 0.75rem 1rem;
  border: 1px solid var(--border-color-primary); border-radius: 0.5rem; font-size: 1.05rem; line-height: 1.6}
.written p {margin: 0 0 auto !important; white-space: pre-wrap; overflow-wrap: anywhere}
.written .prompt, .by, .bars thead th, .bars small {color: color-mix(in srgb, var(--body-text-color) 72%, transparent)}
.written mark {background: #E69F00; color: #000; border-radius: 0.2rem}
.by {margin: 0.4rem 0 0}
.bars {width: 100%; table-layout: fixed; border-collapse: collapse; border: 0; font-variant-numeric: tabular-nums}
.bars th, .bars td {padding: 0.15rem 0.4rem; text-align: left; border: 0 solid var(--border-color-primary);
  border-bottom-width: 1px; font-weight: normal; white-space: nowrap; overflow: hidden; text-overflow: ellipsis}
.bars tr {border: 0}
.bars thead th {white-space: normal}
.bars small {display: inline-block; min-width: 2.2em}
.bar {display: inline-block; height: 0.8em; min-width: 1px; vertical-align: middle}
.bar.raw {background: #999999}
.bar.shaped {background: #0072B2}
.chosen .bar.shaped {background: #E69F00}
.chosen {background: color-mix(in srgb, #E69F00 20%, transparent)}
"""


_LOADED: dict[str, tuple[LanguageModel, Tokenizer]] = {}
_READING = threading.Lock()


def load(name: str) -> tuple[LanguageModel, Tokenizer]:
    """A shipped model and its tokenizer, read from disk once, then shared by all visitors; nothing may change it."""
    if name not in _LOADED:
        with _READING:  # two visitors who come at once must not fill the memory twice
            if name not in _LOADED:
                _LOADED[name] = load_pretrained(name)
    return _LOADED[name]


def is_loaded(name: str) -> bool:
    """Whether load(name) answers at once."""
    return name in _LOADED


def forget() -> None:
    """Read every model again when it is next asked for."""
    _LOADED.clear()


def sampler(temperature: float, top_k: float | None = None, top_p: float | None = None, seed: float | None = None
            ) -> Sampler:
    """Settings as a page gives them: numbers may arrive as floats, and an empty field means that it does not matter."""
    temperature = 1.0 if temperature is None else temperature
    return Sampler(float(temperature), whole("top-k", top_k), top_p, whole("the seed", seed))


def whole(name: str, value: float | None) -> int | None:
    """3.0 -> 3, None -> None. ValueError for 2.5, and for a number that no 64 bits hold."""
    if value is None:
        return None
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    if abs(value) >= 2**63:
        raise ValueError(f"{name} must be below 2^63, not {value:g}")
    return int(value)


def remarks(settings: Sampler, vocab_size: int) -> str:
    """What a learner may not expect of these settings; nothing if there is nothing to say."""
    out = []
    if settings.temperature == 0:
        out.append("Temperature 0 always takes the likeliest token, so top-k, top-p and the seed change nothing.")
    if settings.top_k is not None and settings.top_k > vocab_size:
        out.append(f"Top-k {settings.top_k:,} is more than the {vocab_size:,} tokens of the vocabulary, so all stay.")
    return " ".join(out)


def next_logits(model: LanguageModel, ids: list[int]) -> Tensor:
    """The logits of the token after these, [V]. ValueError if there are none, or more than the context holds."""
    step = next(stream(model, ids, 1, use_cache=False))
    return step.logits[0]


@dataclass(frozen=True)
class Candidate:
    """A token that could come next. raw: the model's own probability; shaped: the one it is drawn with."""

    rank: int
    id: int
    text: str
    raw: float
    shaped: float
    chosen: bool = False


def candidates(logits: Tensor, settings: Sampler, tokenizer: Tokenizer, chosen: int | None = None) -> list[Candidate]:
    """The SHOWN likeliest tokens by logits [V]; a chosen one that is not among them takes the last row."""
    raw, shaped = (s.probabilities(logits[None])[0] for s in (Sampler(1.0), settings))
    order = raw.argsort(descending=True, stable=True).tolist()
    shown = order[:SHOWN]
    if chosen is not None and chosen not in shown:
        shown[-1] = chosen
    return [Candidate(order.index(id) + 1, id, tokenizer.pieces([id])[0], raw[id].item(), shaped[id].item(),
                      id == chosen) for id in shown]


def can_be_drawn(logits: Tensor, settings: Sampler) -> int:
    """How many tokens have a probability above 0 with these settings."""
    return int((settings.probabilities(logits[None]) > 0).sum())


@dataclass(frozen=True)
class Progress:
    """Where a text stands. text: what was written, without the prompt; last: the newest token's part of it.

    seconds: the model's own time; cached: tokens in the cache; ended: why it stopped, empty while it goes on.
    """

    text: str
    last: str
    tokens: int
    seconds: float
    cached: int
    token: int
    logits: Tensor
    ended: str = ""

    @property
    def tokens_a_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


class Pace:
    """Around each text that is written: the more there are, the longer each waits between two updates."""

    def __init__(self):
        self.texts, self._lock = 0, threading.Lock()

    def __enter__(self) -> Pace:
        with self._lock:
            self.texts += 1
        return self

    def __exit__(self, *_) -> None:
        with self._lock:
            self.texts -= 1

    def pause(self, most: float = UPDATES_A_SECOND) -> float:
        """Seconds from one update of a text to the next, of which it may have `most` a second."""
        return max(1 / most, self.texts / UPDATES_FOR_ALL)


PACE = Pace()


def write(model: LanguageModel, tokenizer: Tokenizer, ids: list[int], new_tokens: int, settings: Sampler, *,
          slowly: bool = False, max_seconds: float = MAX_SECONDS) -> Iterator[Progress]:
    """Write after the prompt `ids`; a Progress at most UPDATES_A_SECOND times a second, and always one at the end.

    slowly: pause after each token, so that each is seen; otherwise the model runs on between updates. It ends after
    new_tokens or MAX_NEW_TOKENS, when the context is full, at the end-of-text token, or after max_seconds.
    ValueError, at the first step, for an empty prompt or one that the context does not hold.
    """
    with PACE:
        yield from _write(model, tokenizer, ids, max(1, min(new_tokens, MAX_NEW_TOKENS)), settings, slowly, max_seconds)


def _write(model, tokenizer, ids, wanted: int, settings, slowly: bool, max_seconds: float) -> Iterator[Progress]:
    steps = stream(model, ids, wanted, settings, stop_token=tokenizer.end_of_text)
    decoder, text, seconds = StreamDecoder(tokenizer), "", 0.0
    began = shown = time.perf_counter()
    for count in range(1, wanted + 1):
        start = time.perf_counter()
        step = next(steps, None)
        if step is None:
            break
        seconds += time.perf_counter() - start
        token = int(step.token)
        over = token == tokenizer.end_of_text
        last = "" if over else decoder.feed(token)
        text += last
        now = Progress(text, last, count, seconds, step.cached, token, step.logits[0])
        if over or time.perf_counter() - began > max_seconds:
            break
        due = shown + PACE.pause()
        if count < wanted and (slowly or time.perf_counter() >= due):
            time.sleep(max(0.0, due - time.perf_counter()))
            shown = time.perf_counter()
            yield now
    rest = decoder.flush()
    yield Progress(text + rest, now.last + rest, now.tokens, now.seconds, now.cached, now.token, now.logits,
                   _why_it_ended(model, tokenizer, now, ids, wanted, time.perf_counter() - began > max_seconds))


def _why_it_ended(model, tokenizer, now: Progress, ids: list[int], wanted: int, too_long: bool) -> str:
    if now.token == tokenizer.end_of_text:
        return "The model ended its text."
    if now.tokens == wanted:
        return f"All {wanted} tokens are written." if wanted > 1 else "The token is written."
    if len(ids) + now.tokens > model.config.max_seq_len:
        return f"The context of {model.config.max_seq_len} tokens is full."
    return f"Stopped after {MAX_SECONDS:g} seconds, this page's limit." if too_long else ""


def cache_line(model: LanguageModel, tokens: int) -> str:
    """The cache of this many tokens: bytes by the formula, and of real tensors that are allocated to compare."""
    in_tensors = model.new_cache(1, tokens).nbytes
    return f"Cache: {accounting.cache_formula(model.config, 1, tokens, bits=32)}; its tensors: {in_tensors:,} bytes"


def text_html(prompt: str, written: str = "", last: str = "") -> str:
    """A prompt and what follows it, the newest part marked. Everything is escaped, and line breaks are kept."""
    before = written.removesuffix(last)
    newest = f"<mark>{html.escape(last)}</mark>" if last else ""
    return (f'<div class="written" tabindex="0"><p><span class="prompt">{html.escape(prompt)}</span>'
            f'<span class="new">{html.escape(before)}{newest}</span></p></div>')


def visible(text: str) -> str:
    """A token with its spaces and line breaks made visible."""
    return text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥").replace("\r", "␍")


def bars_html(rows: list[Candidate], shaped: bool = True) -> str:
    """A table of the likeliest tokens with a bar in each cell, so that the chart is its own text alternative.

    shaped: with a second column for the probabilities after the settings.
    """
    columns = ("raw", "shaped") if shaped else ("raw",)
    lines = []
    for row in rows:
        token = html.escape(visible(row.text))
        label = f"<b>{token} ◀ drawn</b>" if row.chosen else token
        cells = "".join(f'<td data-p="{p!r}"><span class="bar {kind}" style="width:{70 * p:.1f}%"></span> '
                        f'{100 * p:.1f} %</td>' for kind, p in ((kind, getattr(row, kind)) for kind in columns))
        chosen = ' class="chosen"' if row.chosen else ""
        lines.append(f'<tr data-id="{row.id}"{chosen}><th scope="row"><small>{row.rank}</small> {label}</th>'
                     f'{cells}</tr>')
    names = ("next token", "the model's own", "after the settings")[:1 + len(columns)]
    heads = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (f'<table class="bars"><thead><tr>{heads}</tr></thead>'
            f'<tbody>{"".join(lines)}</tbody></table>')


def quoted(token: str) -> str:
    """A token in quotation marks, its spaces visible."""
    return f"“{visible(token)}”"


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
