"""Whether a model fits, and how fast it could be: bytes against a memory's line, and a roofline of decoding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import plotly.graph_objects as go

from llm_core import accounting
from llm_core.accounting import DecodeBound, Need
from llm_core.plots.stage import ABOVE, COLOURS, QUIET, figure, mark

# What training keeps beside the weights is no part of the model: grey, told apart by hatching.
HATCHES = {"gradients": "/", "master weights": "\\", "Adam's moments": ".", "activations": "x"}


def memory_stack(need: Need, memory: int, what: str, height: int = 200) -> go.Figure:
    """What is needed as one bar, part by part (GB), and a red line where the memory ends.

    Wide parts carry their names; a table beside it, in the same order, is the legend. what: whose memory it is.
    """
    parts = {**need.weights_by_part, **{part: n for part, n in need.by_part.items() if part != "weights"}}
    sizes, ends = [round(n / 1e9, 6) for n in parts.values()], list(accumulate(parts.values(), initial=0))
    bar = go.Bar(  # one trace, each part from where the last one ended: drawn faster than a trace for each
        x=sizes, base=[round(n / 1e9, 6) for n in ends[:-1]], y=[""] * len(parts), orientation="h", text=list(parts),
        textposition="inside", insidetextanchor="middle", textangle=0, customdata=sizes,
        marker={"color": [COLOURS.get(part, COLOURS["MTP"]) for part in parts],
                "pattern": {"shape": [HATCHES.get(part, "") for part in parts], "solidity": 0.12},
                "line": {"width": 0.5, "color": QUIET}},
        hovertemplate="%{text}: %{customdata:,.4g} GB<extra></extra>")
    end, widest = round(memory / 1e9, 6), round(max(memory, need.total) / 1e9, 6)
    line = {**mark(end), "line": {"color": COLOURS["output head"], "width": 3}}
    label = {"x": end, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False, "text": f"memory of {what}",
             "xanchor": "right" if end > widest / 2 else "left"}
    return figure(bar, height=height, barmode="overlay", x="GB (10⁹ bytes)", shapes=[line], annotations=[label],
                  uniformtext={"minsize": 11, "mode": "hide"}, margin={"l": 8, "r": 16, "t": 28, "b": 8},
                  xaxis={"range": [0, 1.05 * widest]}, yaxis={"showticklabels": False, "showgrid": False})


def decode_roofline(bounds: dict[str, dict[int, DecodeBound]], batch: int, fits: int, height: int = 340) -> go.Figure:
    """The most tokens a second over the batch, both axes in powers: {way of decoding: {batch: bound}}.

    A dot is hollow where FLOPs are the limit and filled where the memory is. Dotted: the chosen batch. Grey: more
    sequences than fit (fits: the largest batch that does; 0 for none).
    """
    traces = []
    for (way, line), dash in zip(bounds.items(), ("solid", "dash"), strict=False):
        last = max(line)
        traces.append(go.Scatter(
            x=list(line), y=[float(f"{b.tokens_per_second:.5g}") for b in line.values()], name=way,
            mode="lines+markers", cliponaxis=False, line={"color": COLOURS["attention"], "dash": dash, "width": 2},
            marker={"size": [12 if n == batch else 7 for n in line], "color": COLOURS["attention"],
                    "symbol": ["circle" if b.limited_by == "memory" else "circle-open" for b in line.values()]},
            customdata=[b.limited_by for b in line.values()],
            hovertemplate=way + ", batch %{x:,}: at most %{y:,.3g} tokens/s, limited by %{customdata}<extra></extra>"))
    shapes = [mark(batch)]
    if fits < last:
        shapes.append({"type": "rect", "x0": max(fits, 0.5) * 1.02, "x1": last, "y0": 0, "y1": 1, "yref": "paper",
                       "fillcolor": "rgba(128,128,128,0.2)", "line": {"width": 0}})
    ticks = [n for n in (1, 4, 16, 64, 256, 1024, 4096) if n <= last]
    speeds = [b.tokens_per_second for line in bounds.values() for b in line.values()]
    steps = (1, 2, 5) if max(speeds) < 200 * min(speeds) else (1,)
    heights = [n * 10**power for power in range(-4, 10) for n in steps
               if 0.8 * min(speeds) <= n * 10**power <= 1.25 * max(speeds)]
    return figure(*traces, height=height, x="batch (grey: too many to fit)",
                  y="tokens a second, at most", shapes=shapes, showlegend=len(bounds) > 1, legend=ABOVE,
                  xaxis={"type": "log", "tickvals": ticks, "ticktext": [f"{n:,}" for n in ticks]},
                  yaxis={"type": "log", "tickvals": heights, "tickformat": ",~s"})


def waterfall(steps: dict[str, int], start: int, colours: Sequence[str], height: int = 260) -> go.Figure:
    """How a sum grows: each step as a bar from where the last one ended, in billions; the axis begins at `start`."""
    low, rows = 0, []
    for name, n in steps.items():
        rows.append((name, max(low, start), low + n, n))
        low += n
    bar = go.Bar(base=[round(a / 1e9, 6) for _, a, _, _ in rows], y=[name for name, *_ in rows], orientation="h",
                 x=[round((b - a) / 1e9, 6) for _, a, b, _ in rows], marker={"color": list(colours)},
                 text=[accounting.human_count(n) for *_, n in rows], textposition="outside", cliponaxis=False,
                 hovertemplate="%{y}: %{text}<extra></extra>")
    return figure(bar, height=height, x=f"billions of numbers (the axis begins at {start / 1e9:,.0f})",
                  xaxis={"range": [start / 1e9, (low + (low - start) * 0.35) / 1e9], "tickformat": ",~g"},
                  yaxis={"autorange": "reversed", "showgrid": False})
