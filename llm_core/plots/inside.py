"""What happens inside a model, as figures: attention maps, vectors, what each block adds, the logit lens."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np
import plotly.graph_objects as go
from plotly.colors import get_colorscale, sample_colorscale, unlabel_rgb

from llm_core.plots.stage import ABOVE, COLOURS, DIVERGING, FAINT, RED, SEQUENTIAL, figure


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
            "fillcolor": FAINT, "line": {"width": 0}}
    return figure(*traces, height=height, x="block", y="adds, % of the stream's size", showlegend=True, legend=ABOVE,
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
             "line": {"color": RED, "width": 2}}
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
