"""Figures of a training run as it goes on."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from llm_core.plots.stage import ABOVE, COLOURS, GREY, QUIET, figure

Points = Sequence[Sequence[float]]  # [seconds, step, bits per byte] each


def training_curves(progress: Points, looks: Points, blind: float | None = None, limit: float | None = None,
                    before: Points = (), before_name: str = "the run before") -> go.Figure:
    """Bits per byte over seconds: in training, and on held-out text in the output head's colour, where the loss is.

    blind: what an even guess costs, a dotted line. limit: where the time is up. before: held-out looks of another run.
    What costs more than twice a blind guess lies above the picture.
    """
    traces = []
    if before:
        traces.append(go.Scatter(x=[p[0] for p in before], y=[p[2] for p in before], mode="lines", name=before_name,
                                 line={"color": GREY, "width": 2, "dash": "dash"}, hovertemplate=_HOVER))
    traces.append(go.Scatter(x=[p[0] for p in progress], y=[p[2] for p in progress], mode="lines", name="in training",
                             line={"color": QUIET, "width": 1}, hovertemplate=_HOVER))
    traces.append(go.Scatter(x=[p[0] for p in looks], y=[p[2] for p in looks], mode="lines+markers", name="held out",
                             line={"color": COLOURS["output head"], "width": 2}, marker={"size": 6},
                             hovertemplate=_HOVER))
    values = [p[2] for points in (progress, looks, before) for p in points] + ([blind] if blind else [])
    top = min(max(values, default=4.5), 2 * blind if blind else 10) * 1.05
    wide = max([limit or 0, *(points[-1][0] for points in (progress, looks) if points), 1])
    lines = [{"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": blind, "y1": blind,
              "line": {"color": QUIET, "width": 1, "dash": "dot"}}] if blind else []
    said = [{"x": 1, "xref": "paper", "xanchor": "right", "y": blind, "yanchor": "bottom", "text": "a blind guess",
             "showarrow": False}] if blind else []
    return figure(*traces, x="seconds of training", y="bits per byte", height=360, showlegend=True, legend=ABOVE,
                  xaxis={"range": [0, wide]}, yaxis={"range": [0, round(top, 2)]}, shapes=lines, annotations=said)


_HOVER = "%{x:.1f} s: %{y:.3f} bits per byte<extra>%{fullData.name}</extra>"
