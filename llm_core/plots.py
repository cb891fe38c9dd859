"""Figures shared by lessons and app, and the one colour that each part of a model has everywhere.

The only file that imports Plotly. Figures have transparent backgrounds and no template: they weigh a kilobyte or two,
suit light and dark pages, and stay the same when Plotly changes its defaults. Values are exact or rounded, so that a
stored notebook compares equal. Classic traces only (bar, scatter, treemap, heatmap). A chart has no text for those who
cannot see it: put a sentence or a table beside each.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np
import plotly.graph_objects as go
from plotly.colors import get_colorscale, sample_colorscale, unlabel_rgb

from llm_core import accounting
from llm_core.config import ModelConfig
from llm_core.validation import whole

# Okabe and Ito's palette, which colour-blind eyes can tell apart; grey stands in for its black, unseen on dark pages.
_BLUE, _ORANGE, _SKY, _GREEN, _YELLOW, _RED, _PURPLE, _GREY = (
    "#0072B2", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#999999")
COLOURS = {
    "embeddings": _BLUE, "token embedding": _BLUE, "position embedding": _BLUE,
    "attention": _ORANGE,
    "dense feed-forward": _SKY,
    "experts": _GREEN, "routed experts": _GREEN, "shared experts": _GREEN,
    "norms": _YELLOW, "router": _YELLOW,
    "output head": _RED,
    "cache": _PURPLE,
    "MTP": _GREY,
}
SEQUENTIAL = "Cividis"  # attention maps, and whatever else goes from little to much
DIVERGING = [[0, _BLUE], [0.5, "#F4F4F4"], [1, _RED]]  # from negative over 0 to positive
# Kinds of attention are no parts, and all their caches have the cache's colour: dashes and marks tell them apart.
KINDS = {"MHA": ("solid", "circle"), "GQA": ("dash", "square"), "MQA": ("dot", "diamond"), "MLA": ("solid", "star")}

_QUIET = "#808080"  # text and axes, readable on white and on near-black
_FAINT = "rgba(128,128,128,0.25)"
_CONTEXTS = [2**power for power in range(10, 21)]  # 1k to 1M
_ABOVE = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}  # where a legend stands


def figure(*traces, height: int = 340, x: str = "", y: str = "", xaxis: dict | None = None, yaxis: dict | None = None,
           **layout) -> go.Figure:
    """An empty stage: transparent, without template, its axes titled x and y. layout: whatever else Plotly's has."""
    axis = {"gridcolor": _FAINT, "linecolor": _FAINT, "zerolinecolor": _FAINT, "automargin": True, "fixedrange": True}
    given = {
        "template": {}, "height": height, "margin": {"l": 8, "r": 16, "t": 8, "b": 8}, "showlegend": False,
        "font": {"color": _QUIET, "size": 13, "family": "system-ui, sans-serif"}, "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)", "xaxis": {**axis, "title": {"text": x}, **(xaxis or {})},
        "yaxis": {**axis, "title": {"text": y}, **(yaxis or {})}, **layout}
    # Made in one step: each later change of a layout checks it anew, which a dragged slider would feel.
    fig = go.Figure(list(traces), go.Layout(**given))
    fig.layout.template = None
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


def parameter_treemap(config: ModelConfig, name: str = "model", height: int = 380) -> go.Figure:
    """Parameters of the main model by part: areas are exact counts."""
    parts = accounting.count_parameters(config).by_part
    tiles = go.Treemap(
        labels=[name, *parts], parents=["", *[name] * len(parts)], values=[sum(parts.values()), *parts.values()],
        branchvalues="total", marker={"colors": ["rgba(0,0,0,0)", *(COLOURS[part] for part in parts)],
                                      "line": {"width": 1}},
        text=[accounting.human_count(n) for n in (sum(parts.values()), *parts.values())], textinfo="label+text",
        hovertemplate="%{label}: %{value:,}<extra></extra>", textfont={"color": ["#808080", *(
            _ink(COLOURS[part]) for part in parts)]}, pathbar={"visible": False}, tiling={"pad": 2}, sort=True)
    return figure(tiles, height=height, margin={"l": 0, "r": 0, "t": 0, "b": 0},
                  uniformtext={"minsize": 11, "mode": "hide"})  # what is too small to read is in the table


def cache_bars(caches: dict[str, int], height: int | None = None) -> go.Figure:
    """Cache bytes by kind of attention, in GB and GiB."""
    texts = [accounting.human_bytes(n) for n in caches.values()]
    return bars(list(caches), list(caches.values()), texts, height=height)


def cache_lines(configs: dict[str, ModelConfig], tokens: int, batch: int = 1, bits: int = 16,
                height: int = 380) -> go.Figure:
    """Cache (GB) against context for each kind of attention, both axes in powers; the chosen context is marked."""
    whole("tokens", tokens)
    lines, ends = [], sorted({_CONTEXTS[0], tokens, _CONTEXTS[-1]})  # bytes grow in step: a straight line, drawn fast
    for kind, config in configs.items():
        size = {t: accounting.cache_bytes(config, batch, t, bits) for t in ends}
        dash, symbol = KINDS[kind]
        lines.append(go.Scatter(
            x=ends, y=[round(n / 1e9, 6) for n in size.values()], name=kind, mode="lines+markers+text",
            text=[kind if t == ends[-1] else "" for t in ends], textposition="middle right", cliponaxis=False,
            line={"color": COLOURS["cache"], "dash": dash, "width": 4 if kind == "MLA" else 2},
            marker={"symbol": symbol, "size": [11 if t == tokens else 0 for t in ends]},
            hovertemplate=kind + ": %{x:,} tokens, %{y:,.4g} GB<extra></extra>"))
    ticks = _CONTEXTS[::2]
    return figure(*lines, height=height, x="context (tokens, 1k = 1,024)", y="cache (GB: 10⁹ bytes)",
                  margin={"l": 8, "r": 44, "t": 8, "b": 8}, shapes=[_mark(tokens)],
                  xaxis={"type": "log", "tickvals": ticks, "ticktext": [_short(t) for t in ticks]},
                  yaxis={"type": "log", "dtick": 1, "tickformat": ",~g"})


def measured_cache(measured: dict[str, dict[int, int]], configs: dict[str, ModelConfig], batch: int = 1,
                   bits: int = 16, height: int = 300) -> go.Figure:
    """Bytes of real cache tensors as dots {kind: {tokens: bytes}}, on the line that the formula draws."""
    traces = []
    for kind, dots in measured.items():
        line = {t: accounting.cache_bytes(configs[kind], batch, t, bits) for t in dots}
        dash, symbol = KINDS[kind]
        traces += [
            go.Scatter(x=list(line), y=list(line.values()), mode="lines", showlegend=False, hoverinfo="skip",
                       line={"color": _QUIET, "dash": dash, "width": 1.5}),
            go.Scatter(x=list(dots), y=list(dots.values()), mode="markers", name=kind, cliponaxis=False,
                       marker={"color": COLOURS["cache"], "symbol": symbol, "size": 10},
                       hovertemplate=kind + ": %{x:,} tokens, %{y:,} bytes<extra></extra>")]
    return figure(*traces, height=height, x="tokens in the cache", y="bytes measured", showlegend=True, legend=_ABOVE,
                  xaxis={"type": "log", "dtick": 1, "tickformat": ",~g"},
                  yaxis={"type": "log", "dtick": 1, "tickformat": ".0s", "ticksuffix": "B"})


def quality_against_cache(dots: Sequence[tuple[str, int, float, str, bool]], here: int, height: int = 340) -> go.Figure:
    """Trained models: bits per byte (less is better) against cache bytes a token.

    dots: (kind of attention, cache bytes a token, bits per byte, label, whether it is the chosen one). here: cache
    bytes a token of the place that is looked at; there may be no dot above it.
    """
    traces = []
    for kind in dict.fromkeys(dot[0] for dot in dots):
        mine = [dot for dot in dots if dot[0] == kind]
        traces.append(go.Scatter(
            x=[dot[1] for dot in mine], y=[round(dot[2], 3) for dot in mine], mode="markers", name=kind,
            text=[dot[3] for dot in mine], hovertemplate="%{text}: %{x:,} bytes, %{y} bits per byte<extra></extra>",
            marker={"symbol": KINDS[kind][1], "color": COLOURS["cache"], "size": [18 if dot[4] else 10 for dot in mine],
                    "line": {"color": _QUIET, "width": [2 if dot[4] else 0 for dot in mine]}}))
    return figure(*traces, height=height, x="cache, bytes a token", y="bits per byte, held-out text", showlegend=True,
                  legend=_ABOVE, shapes=[_mark(here)],
                  xaxis={"type": "log", "tickvals": [32, 64, 128, 256, 512, 1024], "tickformat": ",~g"})


def part_shares(shares: dict[str, Sequence[float]], models: Sequence[str], height: int = 260) -> go.Figure:
    """Models as stacked bars of per cent: shares holds for each part one number a model, in the order of `models`."""
    parts = [go.Bar(name=part, y=list(models)[::-1], x=list(values)[::-1], orientation="h",
                    marker={"color": COLOURS[part]}, hovertemplate=part + ": %{x} % of %{y}<extra></extra>")
             for part, values in shares.items()]
    return figure(*parts, height=height, x="% of all parameters", barmode="stack", showlegend=True,
                  legend={"orientation": "h", "y": 1.25, "traceorder": "normal"})


def attention_map(percent: Sequence[Sequence[float | None]], tokens: Sequence[str], height: int = 380) -> go.Figure:
    """Who looks at whom: row t the token that looks, column s the one looked at, in per cent; None stays empty."""
    places = [f"{piece.strip() or repr(piece)} ({t})" for t, piece in enumerate(tokens)]  # a word may occur twice
    squares = go.Heatmap(z=[list(row) for row in percent], x=places, y=places, colorscale=SEQUENTIAL, zmin=0, zmax=100,
                         texttemplate="%{z}", hovertemplate="%{y} looks at %{x}: %{z} %<extra></extra>",
                         colorbar={"title": {"text": "%"}})
    return figure(squares, height=height, x="is looked at", y="looks", yaxis_autorange="reversed")


def attention_tiles(shares: Sequence[Sequence[Sequence[Sequence[float]]]]) -> str:
    """Small maps of all heads in one picture, as the address of a PNG: a column a layer, a row a head, a pixel a pair.

    shares [L, H, W, W] from 0 to 1, coloured as in attention_map; between two maps lies a clear line of one pixel.
    """
    values = np.asarray(shares, dtype=np.float64)
    L, H, W, _ = values.shape
    pixels = np.zeros((H, W + 1, L, W + 1, 4), dtype=np.uint8)  # head, row, layer, column; red, green, blue, opacity
    pixels[:, :W, :, :W, :3] = _palette()[(values * 255).round().astype(int)].transpose(1, 2, 0, 3, 4)
    pixels[:, :W, :, :W, 3] = 255 * np.tri(W, dtype=np.uint8)[:, None, :]  # what comes later stays empty
    picture = pixels.reshape(H * (W + 1), L * (W + 1) * 4)
    return "data:image/png;base64," + base64.b64encode(_png(picture)).decode()


@cache
def _palette() -> np.ndarray:
    """SEQUENTIAL in 256 steps, [256, 3]."""
    colours = sample_colorscale(get_colorscale(SEQUENTIAL), 256)
    return np.array([unlabel_rgb(colour) for colour in colours]).round()


def strips(rows: Sequence[tuple[str, Sequence[float]]], height: int | None = None) -> go.Figure:
    """Vectors as strips of colour, the first on top: (label, its numbers). Each in units of its own size.

    A vector's size is its root mean square, so a strip's colours compare its own numbers and not two strips.
    """
    scaled = []
    for _, numbers in rows:
        values = np.asarray(numbers, dtype=np.float64)
        scaled.append((values / max(np.sqrt((values**2).mean()), 1e-12)).round(2).tolist())
    strip = go.Heatmap(z=scaled, y=[label for label, _ in rows], colorscale=DIVERGING, zmin=-3, zmax=3, ygap=3,
                       showscale=len(rows) > 1, hovertemplate="%{y}<br>number %{x}: %{z} times its size<extra></extra>",
                       colorbar={"title": {"text": "of its<br>size"}, "thickness": 10, "tickvals": [-3, 0, 3]})
    return figure(strip, height=height or 90 + 32 * len(rows), x="number, from 0", yaxis={"autorange": "reversed"})


def compartment_effects(attention: Sequence[float], feed_forward: Sequence[float], part: str, layer: int,
                        height: int = 260) -> go.Figure:
    """What attention and feed-forward add in each block, in per cent of the stream's size before it. part: the second's
    name, for its colour; layer: the block that is looked at."""
    traces = [go.Bar(x=list(range(len(values))), y=[round(v, 1) for v in values], name=name,
                     marker={"color": COLOURS[name]}, hovertemplate=name + ", block %{x}: %{y} %<extra></extra>")
              for name, values in (("attention", attention), (part, feed_forward))]
    here = {"type": "rect", "x0": layer - 0.5, "x1": layer + 0.5, "y0": 0, "y1": 1, "yref": "paper", "layer": "below",
            "fillcolor": _FAINT, "line": {"width": 0}}
    return figure(*traces, height=height, x="block", y="adds, % of the stream's size", showlegend=True, legend=_ABOVE,
                  shapes=[here], xaxis={"dtick": 1 if len(attention) < 12 else 5},
                  yaxis={"type": "log", "dtick": 1, "tickformat": ",~g"})


def logit_lens(percent: Sequence[Sequence[float]], said: Sequence[Sequence[str]], tokens: Sequence[str],
               column: int, height: int | None = None) -> go.Figure:
    """What would be said after each block: a row a block (the first: before any), a column a token that is looked at.

    percent and said: the likeliest next token's probability and text; column: the token that is followed.
    """
    rows = ["before any", *(f"after {n}" for n in range(len(percent) - 1))]
    cells = go.Heatmap(z=[list(row) for row in percent], x=list(tokens), y=rows, text=[list(row) for row in said],
                       texttemplate="%{text}", colorscale=SEQUENTIAL, zmin=0, zmax=100, xgap=2, ygap=1,
                       hovertemplate="%{y}, at %{x}: %{text}, %{z} %<extra></extra>",
                       colorbar={"title": {"text": "%"}, "thickness": 10})
    frame = {"type": "rect", "x0": column - 0.5, "x1": column + 0.5, "y0": -0.5, "y1": len(rows) - 0.5,
             "line": {"color": _RED, "width": 2}}
    return figure(cells, height=height or 70 + 23 * len(rows), shapes=[frame], xaxis={"side": "top"},
                  yaxis={"autorange": "reversed", "dtick": 1}, y="block")


def _png(pixels: np.ndarray) -> bytes:
    """A PNG file of pixels [height, width * 4], red, green, blue and opacity from 0 to 255 (W3C, PNG, section 5)."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = pixels.shape[0], pixels.shape[1] // 4
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)  # 0: this line is stored as it is
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


def _mark(x: int) -> dict:
    """A dotted line from bottom to top at x."""
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper",
            "line": {"color": _QUIET, "width": 1, "dash": "dot"}}


def _ink(colour: str) -> str:
    """Black or white, whichever reads better on this colour (relative luminance, WCAG 2)."""
    channels = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return "#000000" if 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 else "#FFFFFF"


def _short(tokens: int) -> str:
    """131072 -> "128k"."""
    return f"{tokens // 2**20}M" if tokens >= 2**20 else f"{tokens // 1024}k"
