"""What the MTP lab shows of a text that is written by speculation: each guess with its mark, limits, a fair comparison.

Nothing here knows of Gradio. Every mistake in the input is a ValueError or OSError whose message is meant to be shown.
"""

from __future__ import annotations

import functools
import html
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from apps import common, writing
from apps.limits import MAX_GUESSED_TOKENS, MAX_SECONDS
from llm_core import data
from llm_core.acceptance import Acceptance
from llm_core.draft_cost import DraftCost, Tally, draft_cost, tally
from llm_core.drafts import BigramDraft, Draft, PromptLookupDraft
from llm_core.generation import stream
from llm_core.repeated_draft import RepeatedMTPDraft
from llm_core.sampling import Sampler
from llm_core.speculative import Pass, speculate
from llm_core.training.evaluate import second_token

MODEL = "deepseek-mini"
DRAFTS = {"mtp": "MTP module", "bigram": "bigram table", "lookup": "prompt lookup"}
MARKS_A_SECOND = 6  # where each guess is to be seen
MAX_GUESSES = 4
PLAYS = 10  # the bigram table counts in as many: enough to be good, and read in a second

CSS = writing.CSS + """
.written.drafted {line-height: 1.8; height: 22rem}
.drafted ins, .drafted del {border-radius: 0.2rem; padding: 0 1px}
.drafted ins {text-decoration: none; border-bottom: 3px solid #009E73;
  background: color-mix(in srgb, #009E73 22%, transparent)}
.drafted ins::after {content: "✓"; font-size: 0.65em; vertical-align: super}
.drafted del {text-decoration: line-through; border-bottom: 3px dashed #D55E00;
  background: color-mix(in srgb, #D55E00 22%, transparent)}
.drafted del::after {content: "✗"; display: inline-block; font-size: 0.65em; vertical-align: super}
.drafted del.vain {background: none; border-bottom-style: dotted;
  color: color-mix(in srgb, var(--body-text-color) 72%, transparent)}
.drafted .prompt {color: color-mix(in srgb, var(--body-text-color) 72%, transparent)}
.rows {border-collapse: collapse}
.rows th, .rows td {border: 1px solid var(--border-color-primary) !important; padding: 0.3rem 0.5rem !important;
  text-align: left !important; vertical-align: top; white-space: nowrap}
.rows small {display: block; color: color-mix(in srgb, var(--body-text-color) 72%, transparent)}
.rows th.depth {white-space: normal; min-width: 7.5rem}
.rows .hit::before {content: "✓ "}
.rows .miss::before {content: "✗ "}
"""


@dataclass(frozen=True)
class Settings:
    """What a text is written with. draft: a key of DRAFTS; guesses: the most a pass; temperature 0: greedy."""

    prompt: str
    draft: str
    guesses: int
    tokens: int
    temperature: float
    seed: int | None = None

    def sampler(self) -> Sampler:
        return writing.sampler(self.temperature, seed=self.seed)

    def told(self) -> str:
        how = "greedy" if self.temperature == 0 else f"temperature {self.temperature:g}"
        return f"{DRAFTS[self.draft]}, {guesses(self.guesses)} a pass, {how}"


@dataclass
class Run:
    """Where a text stands. marks: (piece of text; "own", "accepted", "rejected" or "vain"), in the order shown.

    plain: the same number of tokens written without guesses, once that has been done; None before.
    """

    marks: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    passes: list[Pass] = field(default_factory=list)
    seconds: float = 0.0
    ended: str = ""
    plain: list[int] | None = None
    plain_seconds: float = 0.0
    cost: DraftCost | None = None

    @property
    def tally(self) -> Tally:
        return tally(self.passes)

    @property
    def speed_up(self) -> float:
        """Measured: seconds of plain writing over seconds with guesses."""
        return self.plain_seconds / self.seconds


@functools.cache
def plays() -> data.TokenText:
    """The first plays to count in, and the held-out ends of all."""
    corpus, tokenizer = data.shakespeare(), writing.load(MODEL)[1]
    return data.tokenized(data.Corpus(corpus.name, corpus.train[:PLAYS], corpus.held_out), tokenizer)


@functools.cache
def bigram() -> BigramDraft:
    return BigramDraft(plays().train, writing.load(MODEL)[1].vocab_size)


@functools.cache
def measured_here(rows: int = 2) -> dict[str, Acceptance]:
    """Both measures on windows of held-out text, for the three drafts at the same places; computed once."""
    found = second_token(writing.load(MODEL)[0], plays(), rows)
    return {DRAFTS["mtp"] if name == "MTP" else name: a for name, a in found.items()}


def new_draft(name: str, max_tokens: int) -> Draft:
    model, tokenizer = writing.load(MODEL)
    if name not in DRAFTS:
        raise ValueError(f"there is no draft {name[:40]!r}; there are {', '.join(DRAFTS)}")
    if name == "mtp":
        return RepeatedMTPDraft(model, max_tokens)
    return bigram() if name == "bigram" else PromptLookupDraft(tokenizer.vocab_size)


def marks_of(done: Pass, pieces) -> list[tuple[str, str]]:
    """A pass's guesses with what became of them, and the model's own token behind those that stood.

    After the first that was rejected comes the model's own token, then nothing: those behind were guessed in vain.
    """
    ended = len(done.tokens) == done.accepted  # by an accepted end-of-text token: nothing was rejected behind it
    kinds = ["accepted"] * done.accepted + ["rejected"] * (not ended) + ["vain"] * len(done.drafted)
    guesses = list(zip(pieces(done.drafted), kinds)) if done.drafted else []
    own = [(piece, "own") for piece in pieces(done.tokens[done.accepted:])]
    return guesses + own


def write(settings: Settings, *, slowly: bool = False, max_seconds: float = MAX_SECONDS) -> Iterator[Run]:
    """A Run a mark (slowly, MARKS_A_SECOND) or writing.UPDATES_A_SECOND at most, and at the end one with a comparison.

    ValueError, at the first step, for an empty prompt, one that the context does not hold, or a draft that is not here.
    """
    with writing.PACE:
        yield from _write(settings, slowly, max_seconds)


def _write(settings: Settings, slowly: bool, max_seconds: float) -> Iterator[Run]:
    model, tokenizer = writing.load(MODEL)
    ids = tokenizer.encode(settings.prompt or "")
    wanted = max(1, min(settings.tokens, MAX_GUESSED_TOKENS))
    draft = new_draft(settings.draft, min(len(ids) + wanted, model.config.max_seq_len))
    passes = speculate(model, ids, wanted, draft, settings.sampler(), gamma=settings.guesses,
                       stop_token=tokenizer.end_of_text)
    run, began, shown = Run(), time.perf_counter(), 0.0
    most = MARKS_A_SECOND if slowly else writing.UPDATES_A_SECOND
    while True:
        start = time.perf_counter()
        done = next(passes, None)
        if done is None:
            break
        run.seconds += time.perf_counter() - start
        run.passes.append(done)
        run.tokens += done.tokens
        for mark in marks_of(done, tokenizer.pieces):
            run.marks.append(mark)
            due = shown + writing.PACE.pause(most)
            if slowly or time.perf_counter() >= due:
                time.sleep(max(0.0, due - time.perf_counter()))
                shown = time.perf_counter()
                yield run
        if time.perf_counter() - began > max_seconds:
            run.ended = f"Stopped after {max_seconds:g} seconds, this page's limit."
            break
    run.ended = run.ended or _why_it_ended(run, wanted, tokenizer.end_of_text, model.config.max_seq_len)
    yield run
    compare(run, ids, settings, draft)
    yield run


def compare(run: Run, ids: list[int], settings: Settings, draft: Draft) -> None:
    """Write as many tokens without guesses, by the same clock, and measure what a pass with guesses costs."""
    model, _ = writing.load(MODEL)
    start = time.perf_counter()
    run.plain = [int(step.token) for step in stream(model, ids, len(run.tokens), settings.sampler())]
    run.plain_seconds = time.perf_counter() - start
    text, count = ids + run.tokens, run.tally
    if count.checking:
        usual = max(1, round(count.guesses / count.checking))  # a search may find fewer than it was asked for
        if len(text) >= usual + 3:
            run.cost = draft_cost(model, draft, text[-model.config.max_seq_len:], usual, settings.sampler(), tries=6)


def _why_it_ended(run: Run, wanted: int, end_of_text: int | None, context: int) -> str:
    if run.tokens and run.tokens[-1] == end_of_text:
        return "The model ended its text."
    if len(run.tokens) >= wanted:
        return f"All {wanted} tokens are written." if wanted > 1 else "The token is written."
    return f"The context of {context} tokens is full."


@functools.lru_cache(maxsize=16)
def written(settings: Settings) -> Run:
    """The finished run, as fast as it can, kept: so that a page that many open is written once."""
    *_, run = write(settings)
    return run


def guesses(n: int) -> str:
    return f"{n:,} guess" + "es" * (n != 1)


# As HTML ------------------------------------------------------------------------------------------------------------

def text_html(prompt: str, run: Run) -> str:
    """The prompt and the marked text. Accepted guesses are <ins>, rejected ones <del>: no mark is by colour alone."""
    tags = {"own": ("span", "own"), "accepted": ("ins", ""), "rejected": ("del", ""), "vain": ("del", "vain")}
    titles = {"own": "the model's own token", "accepted": "a guess that stood", "rejected": "a guess that was rejected",
              "vain": "guessed in vain, behind a wrong one"}
    parts = []
    for piece, kind in run.marks:
        tag, name = tags[kind]
        if kind != "own":  # a guess is seen also where it is a line break, which only an accepted one makes
            piece = piece.replace("\n", "↵\n" if kind == "accepted" else "↵")
        parts.append(f'<{tag} class="{name}" title="{titles[kind]}">{html.escape(piece)}</{tag}>')
    return (f'<div class="written drafted" tabindex="0"><p><span class="prompt">{html.escape(prompt)}</span>'
            f'{"".join(parts)}</p></div>')


def told(run: Run, settings: Settings) -> str:
    """One sentence: what came out, and whether it is the text that plain writing gives."""
    count = run.tally
    what = (f"{settings.told()}: {writing.count(len(run.tokens), 'token')} took {count.passes + 1} passes of the model "
            f"instead of {len(run.tokens)}; {count.accepted} of {count.guesses} guesses stood.")
    if run.plain is None:
        return common.said(what)
    if settings.temperature:
        return common.said(f"{what} At a temperature the draws differ from those of plain writing, so texts cannot be "
                           "compared; their distribution is the same, which a test of the course checks.")
    same = run.plain == run.tokens
    return common.said(f"{what} Checked against plain greedy writing: " + (
        f"the same text, all {len(run.tokens)} tokens." if same else
        "another text. That must not be, except where two logits differ by rounding alone."))


def figures(run: Run) -> str:
    """The run's figures as a table, and the formula with the numbers in it. Empty before the comparison is made."""
    count = run.tally
    rows = [("tokens written", f"{len(run.tokens):,}"), ("passes of the model", f"{count.passes + 1:,}"),
            ("guesses made", f"{count.guesses:,}"), ("of them stood", f"{count.accepted:,}"),
            ("p, the share that stood", f"{count.p:.3f}" if count.guesses else "–"),
            ("tokens a pass, behind the prompt's", f"{count.tokens_a_pass:.3f}")]
    if run.plain is None:
        return common.table(("this run", ""), rows)
    formulas = []
    if run.cost:
        c = run.cost
        rows += [("a plain pass, one row", f"{1000 * c.one_row:.2f} ms"),
                 (f"a pass over {1 + c.guesses} rows", f"{1000 * c.all_rows:.2f} ms"),
                 (f"making {guesses(c.guesses)}", f"{1000 * c.guessing:.2f} ms"),
                 ("c, what both cost more, in plain passes", f"{c.c:.2f}"),
                 ("speed-up predicted", f"{count.speed_up(c.c):.2f}")]
        one = count.guesses == count.checking
        formulas.append(f"c = ({1000 * c.all_rows:.2f} + {1000 * c.guessing:.2f}) / {1000 * c.one_row:.2f} − 1 = "
                        f"{c.c:.2f}")
        formulas.append(("speed-up of a pass with a guess = (1 + p) / (1 + c) = " if one else
                         "speed-up of a pass with guesses = tokens it brings / (1 + c) = ")
                        + f"{count.brings:.3f} / {1 + c.c:.2f} = {count.brings / (1 + c.c):.2f}")
        if count.passes > count.checking + 1:
            formulas.append(f"in {count.passes - count.checking} of {count.passes} passes there was no guess: those "
                            "bring 1 token and cost 1")
    rows += [("seconds with guesses", f"{run.seconds:.2f} s"), ("seconds without", f"{run.plain_seconds:.2f} s"),
             ("speed-up measured", f"{run.speed_up:.2f}")]
    return common.table(("this run, on this machine", ""), rows) + common.formula(*formulas)
