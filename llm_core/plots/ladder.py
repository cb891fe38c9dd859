"""The way from GPT-2 to DeepSeek-V3 as waterfalls: each step a bar from where the last one ended."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from llm_core import accounting
from llm_core.ladder import Rung
from llm_core.plots.stage import COLOURS, QUIET, figure

FAINT = 0.35  # opacity of steps that are not taken yet


def parameter_waterfall(rungs: Sequence[Rung], taken: int, height: int | None = None) -> go.Figure:
    """Parameters of the main model; MTP, which is counted apart, is drawn on top of it. taken: steps climbed so far."""
    rows = []
    for below, rung in zip(rungs, rungs[1:]):
        apart = bool(rung.added_mtp)
        added = rung.added_mtp if apart else rung.added_total
        base = rung.total + below.mtp if apart else below.total
        rows.append((rung.step.label, base, added, COLOURS[rung.step.part],
                     f"{_change(added, accounting.human_count)}{', apart' if apart else ''}"))
    return _waterfall(rows, rungs[0].total, rungs[taken].total, taken, accounting.human_count, height)


def cache_waterfall(rungs: Sequence[Rung], taken: int, height: int | None = None) -> go.Figure:
    """Bytes that one token leaves in the cache, 16 bits a number."""
    rows = [(rung.step.label, below.cache, rung.added_cache, COLOURS["cache"], _change(rung.added_cache, _bytes))
            for below, rung in zip(rungs, rungs[1:])]
    return _waterfall(rows, rungs[0].cache, rungs[taken].cache, taken, _bytes, height)


def _waterfall(rows, start: int, here: int, taken: int, worded, height: int | None) -> go.Figure:
    """rows: label, where its bar begins, how far it goes (perhaps backwards), colour, text. The start is on top."""
    labels = ["start", *(row[0] for row in rows), "here"]
    begins, lengths = [0, *(row[1] for row in rows), 0], [start, *(row[2] for row in rows), here]
    bar = go.Bar(
        y=labels, base=begins, x=lengths, orientation="h", cliponaxis=False,
        marker={"color": [QUIET, *(row[3] for row in rows), QUIET],
                "opacity": [1.0, *(1.0 if i < taken else FAINT for i in range(len(rows))), 1.0],
                "line": {"color": QUIET, "width": [0, *(2.5 if i + 1 == taken else 0 for i in range(len(rows))), 0]}},
        hovertemplate="%{y}: %{customdata}<extra></extra>",
        customdata=[worded(start), *(row[4] for row in rows), worded(here)])
    ends = [max(begin, begin + length) for begin, length in zip(begins, lengths)]
    # Beside its bar, to the right of it, whichever way the bar goes.
    texts = go.Scatter(y=labels, x=ends, mode="text", text=[f" {text}" for text in bar.customdata],
                       textposition="middle right", hoverinfo="skip", cliponaxis=False)
    return figure(bar, texts, height=height or 60 + 27 * len(labels), bargap=0.35,
                  yaxis={"autorange": "reversed", "showgrid": False, "ticks": ""},
                  xaxis={"range": [0, 2.0 * max(ends)], "showticklabels": False, "showgrid": False})


def _change(added: int, worded) -> str:
    """ "+61 M", "−9.4 M", or "0" where nothing moves."""
    return f"{'+' if added > 0 else '−'}{worded(abs(added))}" if added else "0"


def _bytes(n: int) -> str:
    """Decimal units alone: "70.3 kB"."""
    return accounting.human_bytes(n).partition(" (")[0]
