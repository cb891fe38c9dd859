"""Drafts as figures: how often guesses stand, and what they are worth over the number of texts."""

from __future__ import annotations

import plotly.graph_objects as go

from llm_core.plots.stage import ABOVE, COLOURS, QUIET, figure, mark

_DASHES = (("solid", "star"), ("dash", "circle"))


def acceptance_bars(found: dict[str, tuple[float, float]], height: int = 320) -> go.Figure:
    """Draft -> two shares from 0 to 1: where its likeliest token is the model's, and the overlap of distributions."""
    measures = ("likeliest token the same (greedy)", "overlap (drawing at temperature 1)")
    names = [name.replace(" ", "<br>") for name in found]  # so that they stand upright on a phone
    groups = [go.Bar(x=names, y=[round(100 * both[i], 1) for both in found.values()], name=name,
                     text=[f"{100 * both[i]:.1f}" for both in found.values()], textposition="outside", cliponaxis=False,
                     marker={"color": COLOURS["MTP"], "pattern": {"shape": ("", "/")[i], "fillmode": "overlay"}},
                     hovertemplate="%{x}: %{y} %<extra>" + name + "</extra>")
              for i, name in enumerate(measures)]
    return figure(*groups, height=height, y="guesses that would stand (%)", barmode="group", showlegend=True,
                  legend=ABOVE, yaxis={"range": [0, 100]})


def speed_up_lines(curves: dict[str, tuple[str, dict[int, float]]], texts: int, height: int = 360) -> go.Figure:
    """Speed-up over texts at once: name -> (the part that gives the colour, {texts: speed-up}). texts: the chosen one.

    A dotted line stands at 1, where guesses bring nothing.
    """
    ends = sorted({n for _, curve in curves.values() for n in curve})
    lines = []
    for (name, (part, curve)), (dash, symbol) in zip(curves.items(), _DASHES):
        lines.append(go.Scatter(
            x=list(curve), y=[round(gain, 3) for gain in curve.values()], name=name, mode="lines+markers",
            line={"color": COLOURS[part], "dash": dash, "width": 3}, cliponaxis=False,
            marker={"symbol": symbol, "size": [14 if n == texts else 6 for n in curve]},
            hovertemplate=name + ": %{x:,} texts, %{y} times<extra></extra>"))
    nothing = {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": 1, "y1": 1,
               "line": {"color": QUIET, "width": 1.5, "dash": "dot"}}
    ticks = [n for n in (1, 4, 32, 128, 512) if ends[0] <= n <= ends[-1]]
    return figure(*lines, height=height, x="texts at once", y="times as fast as without guesses", showlegend=True,
                  legend=ABOVE, shapes=[nothing, mark(texts)],
                  xaxis={"type": "log", "tickvals": ticks, "ticktext": [f"{n}" for n in ticks]})
