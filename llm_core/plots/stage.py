"""What all figures share: an empty stage, bars, and the one colour that each part of a model has everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

# Okabe and Ito's palette, which colour-blind eyes can tell apart; grey stands in for its black, unseen on dark pages.
BLUE, ORANGE, SKY, GREEN, YELLOW, RED, PURPLE, GREY = (
    "#0072B2", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#999999")
COLOURS = {
    "embeddings": BLUE, "token embedding": BLUE, "position embedding": BLUE,
    "attention": ORANGE,
    "dense feed-forward": SKY,
    "experts": GREEN, "routed experts": GREEN, "shared experts": GREEN,
    "norms": YELLOW, "router": YELLOW,
    "output head": RED,
    "cache": PURPLE,
    "MTP": GREY,
}
SEQUENTIAL = "Cividis"  # attention maps, and whatever else goes from little to much
DIVERGING = [[0, BLUE], [0.5, "#F4F4F4"], [1, RED]]  # from negative over 0 to positive
# Kinds of attention are no parts, and all their caches have the cache's colour: dashes and marks tell them apart.
KINDS = {"MHA": ("solid", "circle"), "GQA": ("dash", "square"), "MQA": ("dot", "diamond"), "MLA": ("solid", "star")}

QUIET = "#808080"  # text and axes, readable on white and on near-black
FAINT = "rgba(128,128,128,0.25)"
ABOVE = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}  # where a legend stands


def figure(*traces, height: int = 340, x: str = "", y: str = "", xaxis: dict | None = None, yaxis: dict | None = None,
           **layout) -> go.Figure:
    """An empty stage: transparent, without template, its axes titled x and y. layout: whatever else Plotly's has."""
    axis = {"gridcolor": FAINT, "linecolor": FAINT, "zerolinecolor": FAINT, "automargin": True, "fixedrange": True}
    given = {
        "template": {}, "height": height, "margin": {"l": 8, "r": 16, "t": 8, "b": 8}, "showlegend": False,
        "font": {"color": QUIET, "size": 13, "family": "system-ui, sans-serif"}, "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)", "xaxis": {**axis, "title": {"text": x}, **(xaxis or {})},
        "yaxis": {**axis, "title": {"text": y}, **(yaxis or {})}, **layout}
    given = {name: value for name, value in given.items() if value != []}  # no marks are none
    return _made(list(traces), given)


def _made(traces: list, layout: dict) -> go.Figure:
    """Without Plotly's checks, which take more time than all else, as a dragged slider would feel: traces were checked
    when they were made, and tests/conftest.py checks every layout that tests see."""
    fig = go.Figure(traces, layout, _validate=False)
    fig._validate = True  # what anybody changes later is checked
    fig._layout.pop("template")  # it was there to keep Plotly's own away
    return fig


def bars(labels: Sequence[str], values: Sequence[float], texts: Sequence[str], *,
         colours: str | Sequence[str] = COLOURS["cache"], x: str = "", height: int | None = None) -> go.Figure:
    """Horizontal bars, the first on top, each with its text beside it. Values of 0 or more."""
    bar = go.Bar(x=list(values), y=list(labels), text=list(texts), orientation="h", textposition="outside",
                 marker={"color": colours if isinstance(colours, str) else list(colours)}, cliponaxis=False,
                 hovertemplate="%{y}: %{text}<extra></extra>")
    room = 2.1 * max([*values, 1e-9])  # for the text beside the longest bar, also on a phone
    return figure(bar, height=height or 50 + 40 * len(labels), x=x, yaxis={"autorange": "reversed", "showgrid": False},
                  xaxis={"range": [0, room], "showticklabels": False, "showgrid": False})


def mark(x: int) -> dict:
    """A dotted line from bottom to top at x."""
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper",
            "line": {"color": QUIET, "width": 1, "dash": "dot"}}


def ink(colour: str) -> str:
    """Black or white, whichever reads better on this colour (relative luminance, WCAG 2)."""
    channels = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return "#000000" if 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 else "#FFFFFF"


def short_tokens(tokens: int) -> str:
    """131072 -> "128k"."""
    return f"{tokens // 2**20}M" if tokens >= 2**20 else f"{tokens // 1024}k"
