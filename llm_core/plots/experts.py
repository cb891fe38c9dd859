"""Mixtures of experts as figures: total against active, ways to choose, loads, and how a load becomes even."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from llm_core.plots.stage import (
    ABOVE,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    QUIET,
    RED,
    SKY,
    YELLOW,
    figure,
    ink,
    mark,
)

# Experts side by side are no parts of a model: these tell them apart, always beside the expert's number.
EXPERT_COLOURS = (BLUE, ORANGE, SKY, GREEN, YELLOW, RED, PURPLE, GREY)


def expert_colour(expert: int) -> tuple[str, str]:
    """The colour of an expert by its number, and black or white to write on it. The ninth has the first's again."""
    colour = EXPERT_COLOURS[expert % len(EXPERT_COLOURS)]
    return colour, ink(colour)


def total_and_active(counts: Mapping[str, Mapping[str, int]], texts: Sequence[str], height: int = 150) -> go.Figure:
    """Parameters as stacked bars, the first on top: label -> part -> count. texts: what stands beside each bar.

    Shared experts are hatched, as they have the colour of the routed ones.
    """
    labels = list(counts)
    parts = dict.fromkeys(part for row in counts.values() for part in row)
    bars = [go.Bar(y=labels, x=[counts[label].get(part, 0) for label in labels], name=part, orientation="h",
                   marker={"color": COLOURS[part], "pattern": {"shape": "/" if part == "shared experts" else ""}},
                   hovertemplate=part + ", %{y}: %{x:,}<extra></extra>") for part in parts]
    ends = [sum(row.values()) for row in counts.values()]
    beside = [{"x": end, "y": label, "text": text, "xanchor": "left", "showarrow": False, "xshift": 4}
              for end, label, text in zip(ends, labels, texts, strict=True)]
    return figure(*bars, height=height, barmode="stack", annotations=beside, bargap=0.35,
                  xaxis={"range": [0, 1.3 * max(ends)], "showticklabels": False, "showgrid": False},
                  yaxis={"autorange": "reversed", "showgrid": False})


def ways_by_pieces(powers: Mapping[int, float], here: int, height: int = 240) -> go.Figure:
    """Ways to choose, as powers of ten, over the pieces that each expert is cut in; `here` is the chosen cut."""
    cuts = list(powers)
    line = go.Scatter(x=cuts, y=list(powers.values()), mode="lines+markers", cliponaxis=False,
                      marker={"color": COLOURS["experts"], "size": [14 if m == here else 8 for m in cuts]},
                      line={"color": COLOURS["experts"], "width": 2},
                      hovertemplate="cut in %{x}: 10^%{y} ways<extra></extra>")
    return figure(line, height=height, x="pieces of an expert (m)", y="ways to choose", shapes=[mark(here)],
                  xaxis={"type": "log", "tickvals": cuts}, yaxis={"tickprefix": "10^", "rangemode": "tozero"})


def load_bars(load: Sequence[int], colours: bool = False, height: int = 280) -> go.Figure:
    """Tokens that each expert got; the dotted line is the mean, where all would be in balance.

    colours: each expert in its own, as in a coloured text; otherwise all in that of experts.
    """
    numbers = list(range(len(load)))
    paint = [expert_colour(e)[0] for e in numbers] if colours else COLOURS["experts"]
    bars = go.Bar(x=numbers, y=list(load), marker={"color": paint},
                  hovertemplate="expert %{x}: %{y:,} tokens<extra></extra>")
    mean = sum(load) / len(load)
    even = {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": mean, "y1": mean,
            "line": {"color": QUIET, "width": 2, "dash": "dot"}}
    below = [f"{e}<br><b>{n:,}</b>" for e, n in enumerate(load)]  # above the bars the line would run through them
    return figure(bars, height=height, x="expert, and its tokens", shapes=[even],
                  xaxis={"tickvals": numbers, "ticktext": below, "showgrid": False, "zeroline": False},
                  yaxis={"range": [0, 1.05 * max(max(load), 2 * mean)]})


def information_bars(bits: Mapping[str, Mapping[int, float]], height: int = 280) -> go.Figure:
    """Bits that a token's id tells about its experts: trained, untrained and by chance, side by side for each block."""
    looks = (COLOURS["experts"], COLOURS["norms"], GREY)
    bars = [go.Bar(x=[f"block {layer}" for layer in row], y=[round(v, 2) for v in row.values()], name=name,
                   marker={"color": colour}, hovertemplate=name + ", %{x}: %{y} bits<extra></extra>")
            for (name, row), colour in zip(bits.items(), looks)]
    return figure(*bars, height=height, y="bits", barmode="group", showlegend=True, legend=ABOVE)


def imbalance_lines(paths: Mapping[str, Sequence[float]], steps: int, worst: float, height: int = 300) -> go.Figure:
    """The largest load over the mean one, step by step from 0; the first path is drawn bold, a second one dotted."""
    looks = ((COLOURS["experts"], "solid", 3), (COLOURS["output head"], "dot", 2))
    lines = [go.Scatter(x=list(range(len(path))), y=[round(v, 3) for v in path], name=name,
                        mode="lines" if len(path) > 1 else "markers", line={"color": colour, "dash": dash,
                                                                             "width": width},
                        marker={"color": colour}, hovertemplate=name + ", step %{x}: %{y} × the mean<extra></extra>")
             for (name, path), (colour, dash, width) in zip(paths.items(), looks)]
    balance = {"type": "line", "x0": 0, "x1": steps, "y0": 1, "y1": 1, "line": {"color": QUIET, "dash": "dot"}}
    return figure(*lines, height=height, x="step", y="largest load / mean load", showlegend=True, legend=ABOVE,
                  shapes=[balance], xaxis={"range": [0, steps]}, yaxis={"range": [0.8, 1.05 * worst]})
