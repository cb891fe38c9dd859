"""Latent attention as figures: the FLOPs of its ways over the context, and a trained model's loss over its rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from llm_core.plots.stage import ABOVE, COLOURS, QUIET, figure, mark, short_tokens

# As in lesson 05.2: way of latent attention -> dash and colour.
LATENT_WAYS = {"rebuild": ("dot", COLOURS["dense feed-forward"]), "keep": ("dash", COLOURS["attention"]),
        "absorb": ("solid", COLOURS["cache"])}
METHODS = {"plain": ("dot", "circle-open", COLOURS["dense feed-forward"]),
           "data": ("solid", "circle", COLOURS["cache"])}


def ways_lines(flops: dict[str, Callable[[int], int]], tokens: int, context: int, crossing: int | None,
               height: int = 360) -> go.Figure:
    """FLOPs against the context, both axes in powers: way -> FLOPs for a context of at least `tokens`.

    The chosen context is marked with a line and dots, the crossing, where there is one, with a cross.
    """
    ends = sorted({n for n in (tokens, context, crossing, *(4**power for power in range(11))) if n and n >= tokens})
    traces = []
    for way, count in flops.items():
        dash, colour = LATENT_WAYS[way]
        traces.append(go.Scatter(
            x=ends, y=[count(n) for n in ends], name=way, mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 3},
            marker={"size": [10 if n == context else 0 for n in ends]},
            hovertemplate=way + ": %{x:,} tokens, %{y:.3s} FLOPs<extra></extra>"))
    if crossing:
        traces.append(go.Scatter(
            x=[crossing], y=[flops["absorb"](crossing)], mode="markers", name="from here absorbing is cheaper",
            marker={"symbol": "x", "size": 11, "color": QUIET},
            hovertemplate="from %{x:,} tokens on, absorbing is cheaper<extra></extra>"))
    ticks = [n for n in (1, 16, 256, 4096, 65536, 1048576) if n >= tokens] or [1048576]
    return figure(*traces, height=height, x="context (tokens, 1k = 1,024)", y="FLOPs", showlegend=True, legend=ABOVE,
                  shapes=[mark(context)],
                  xaxis={"type": "log", "tickvals": ticks,
                         "ticktext": [short_tokens(n) if n >= 1024 else str(n) for n in ticks]},
                  yaxis={"type": "log", "dtick": 2, "tickformat": ".0s"})


def loss_against_rank(curves: dict[str, Sequence[tuple[int, float]]], measured: dict[str, Sequence[tuple[int, float]]],
                      rank: int, whole: float, height: int = 360) -> go.Figure:
    """Held-out loss against the numbers kept a token and layer.

    curves: "plain" and "data" -> recorded (rank, loss); measured: the same, just measured here, as larger marks.
    rank: the chosen one; whole: the loss of the model as it was trained.
    """
    traces = []
    for method, points in curves.items():
        dash, symbol, colour = METHODS[method]
        name = {"plain": "plain SVD", "data": "from data"}[method]
        traces.append(go.Scatter(
            x=[r for r, _ in points], y=[loss for _, loss in points], name=name, mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 2.5}, marker={"symbol": symbol, "size": 7},
            hovertemplate=name + ", rank %{x}: %{y:.3f} nats<extra></extra>"))
        if measured.get(method):
            traces.append(go.Scatter(
                x=[r for r, _ in measured[method]], y=[round(loss, 4) for _, loss in measured[method]],
                name=f"{name}, measured here", mode="markers",
                marker={"symbol": "diamond-open", "size": 14, "color": colour, "line": {"width": 2.5}},
                hovertemplate=name + ", measured here, rank %{x}: %{y:.4f} nats<extra></extra>"))
    level = {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": whole, "y1": whole,
             "line": {"color": QUIET, "width": 1, "dash": "dash"}}
    return figure(*traces, height=height, x="rank (numbers a layer)", y="held-out loss, nats a token",
                  showlegend=True, legend=ABOVE, shapes=[mark(rank), level],
                  xaxis={"type": "log", "tickvals": [r for r, _ in curves["plain"]][::2], "tickformat": ",~g"})
