"""Few bits as figures: where the error is, which values a format can write, and what a model's loss makes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from llm_core.plots.stage import ABOVE, BLUE, COLOURS, GREEN, GREY, ORANGE, QUIET, RED, SEQUENTIAL, SKY, figure, mark

_FLOOR, _TOP = 0.1, 100  # per cent; whatever is off by less than a thousandth looks alike


def error_heatmap(shares: Sequence[Sequence[float]], height: int = 330, scale: bool = True) -> go.Figure:
    """Relative errors of cells, 0 to 1 and beyond, coloured by their powers of ten from 0.1 % to 100 %."""
    percent = 100 * np.asarray(shares, dtype=np.float32)
    # Arrays, not lists: Plotly would look at each number of a list by itself, which a dragged slider feels.
    cells = go.Heatmap(
        z=np.log10(percent.clip(_FLOOR, _TOP)), zmin=math.log10(_FLOOR), zmax=math.log10(_TOP), colorscale=SEQUENTIAL,
        customdata=percent, showscale=scale,
        hovertemplate="cell %{y} down, %{x} across: off by %{customdata:.2r} %<extra></extra>",
        colorbar={"title": {"text": "off by"}, "thickness": 10, "tickvals": [-1, 0, 1, 2],
                  "ticktext": ["0.1 %", "1 %", "10 %", "100 %"]})
    hidden = {"showticklabels": False, "ticks": "", "showgrid": False, "zeroline": False}
    return figure(cells, height=height, x="columns", y="rows", xaxis=hidden, yaxis={"autorange": "reversed", **hidden})


def values_and_levels(values: Sequence[float], levels: dict[str, Sequence[float]], reach: float, height: int = 330,
                      bins: int = 60) -> go.Figure:
    """A histogram of values from -reach to reach, and below it the numbers that a format can write, a row of marks for
    each name in `levels`. What lies beyond the reach is not drawn."""
    counts, edges = np.histogram(np.asarray(values), bins=bins, range=(-reach, reach))
    shares = (100 * counts / max(1, len(values))).round(2)
    middles = [float(f"{v:.4g}") for v in (edges[:-1] + edges[1:]) / 2]
    tallest = float(shares.max()) or 1.0
    drawn = [go.Bar(x=middles, y=shares.tolist(), marker={"color": GREY}, name="values",
                    hovertemplate="near %{x:.3g}: %{y} % of the values<extra></extra>")]
    for row, (name, marks) in enumerate(levels.items()):
        inside = [float(f"{v:.4g}") for v in marks if abs(v) <= reach]
        drawn.append(go.Scatter(
            x=inside, y=[-tallest * (0.09 + 0.11 * row)] * len(inside), mode="markers", name=name,
            marker={"symbol": "line-ns-open", "size": 13, "color": (RED, BLUE)[row % 2], "line": {"width": 1.5}},
            hovertemplate=name + ": %{x}<extra></extra>"))
    return figure(*drawn, height=height, x="value", y="% of the values", bargap=0, showlegend=True, legend=ABOVE,
                  xaxis={"range": [-reach, reach]},
                  yaxis={"range": [-tallest * (0.04 + 0.13 * len(levels)), 1.05 * tallest]})


def loss_against_bits(losses: dict[int, float], bits: int, whole: float, blind: float, height: int = 330
                      ) -> go.Figure:
    """Held-out loss by bits a weight, the chosen width larger; lines: the model as trained, and guessing blindly."""
    levels = (("as trained", whole, GREEN, "dash"), ("guessing blindly", blind, QUIET, "dot"))
    widths = sorted(losses)
    ends = [min(widths), max(widths)]
    lines = [go.Scatter(x=ends, y=[round(at, 3)] * 2, mode="lines", name=name, hoverinfo="skip",
                        line={"color": colour, "dash": dash, "width": 1.5})
             for name, at, colour, dash in levels]
    drawn = go.Scatter(x=widths, y=[round(losses[b], 3) for b in widths], mode="lines+markers", name="quantised",
                       line={"color": COLOURS["output head"]},
                       marker={"size": [16 if b == bits else 8 for b in widths]},
                       hovertemplate="%{x} bits: %{y} nats a token<extra></extra>")
    return figure(*lines, drawn, height=height, x="bits of a code (fewer to the right)", y="loss, nats a token",
                  showlegend=True, legend=ABOVE,
                  xaxis={"tickvals": widths, "autorange": "reversed"}, yaxis={"rangemode": "tozero"})


def number_rulers(rulers: dict[str, Sequence[float]], value: float, height: int = 190) -> go.Figure:
    """The numbers of each format around `value`, as marks on a line, a row a format; the value is dotted."""
    rows = [go.Scatter(x=list(marks), y=[name] * len(marks), mode="markers", name=name,
                       marker={"symbol": "line-ns-open", "size": 18, "color": colour, "line": {"width": 2}},
                       hovertemplate=name + ": %{x:.6g}<extra></extra>")
            for (name, marks), colour in zip(rulers.items(), (GREEN, ORANGE, SKY), strict=False)]
    return figure(*rows, height=height, x="number", shapes=[mark(value)],
                  yaxis={"autorange": "reversed", "showgrid": False}, xaxis={"zeroline": False})
