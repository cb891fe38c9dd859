"""Parameters and cache bytes as figures."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from llm_core import accounting
from llm_core.config import ModelConfig
from llm_core.plots.stage import ABOVE, COLOURS, KINDS, QUIET, bars, figure, ink, mark, short_tokens
from llm_core.validation import whole

_CONTEXTS = [2**power for power in range(10, 21)]  # 1k to 1M


def parameter_treemap(config: ModelConfig, name: str = "model", height: int = 380) -> go.Figure:
    """Parameters of the main model by part: areas are exact counts."""
    parts = accounting.count_parameters(config).by_part
    tiles = go.Treemap(
        labels=[name, *parts], parents=["", *[name] * len(parts)], values=[sum(parts.values()), *parts.values()],
        branchvalues="total", marker={"colors": ["rgba(0,0,0,0)", *(COLOURS[part] for part in parts)],
                                      "line": {"width": 1}},
        text=[accounting.human_count(n) for n in (sum(parts.values()), *parts.values())], textinfo="label+text",
        hovertemplate="%{label}: %{value:,}<extra></extra>", textfont={"color": ["#808080", *(
            ink(COLOURS[part]) for part in parts)]}, pathbar={"visible": False}, tiling={"pad": 2}, sort=True)
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
                  margin={"l": 8, "r": 44, "t": 8, "b": 8}, shapes=[mark(tokens)],
                  xaxis={"type": "log", "tickvals": ticks, "ticktext": [short_tokens(t) for t in ticks]},
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
                       line={"color": QUIET, "dash": dash, "width": 1.5}),
            go.Scatter(x=list(dots), y=list(dots.values()), mode="markers", name=kind, cliponaxis=False,
                       marker={"color": COLOURS["cache"], "symbol": symbol, "size": 10},
                       hovertemplate=kind + ": %{x:,} tokens, %{y:,} bytes<extra></extra>")]
    return figure(*traces, height=height, x="tokens in the cache", y="bytes measured", showlegend=True, legend=ABOVE,
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
                    "line": {"color": QUIET, "width": [2 if dot[4] else 0 for dot in mine]}}))
    return figure(*traces, height=height, x="cache, bytes a token", y="bits per byte, held-out text", showlegend=True,
                  legend=ABOVE, shapes=[mark(here)],
                  xaxis={"type": "log", "tickvals": [32, 64, 128, 256, 512, 1024], "tickformat": ",~g"})


def part_shares(shares: dict[str, Sequence[float]], models: Sequence[str], height: int = 260) -> go.Figure:
    """Models as stacked bars of per cent: shares holds for each part one number a model, in the order of `models`."""
    parts = [go.Bar(name=part, y=list(models)[::-1], x=list(values)[::-1], orientation="h",
                    marker={"color": COLOURS[part]}, hovertemplate=part + ": %{x} % of %{y}<extra></extra>")
             for part, values in shares.items()]
    return figure(*parts, height=height, x="% of all parameters", barmode="stack", showlegend=True,
                  legend={"orientation": "h", "y": 1.25, "traceorder": "normal"})
