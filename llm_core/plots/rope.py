"""Rotary positions as figures: pairs as dials, scores over the distance, wavelengths, a model past its context.

A query has the colour of attention, a key that of the cache, in which it waits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from llm_core.plots.stage import ABOVE, COLOURS, FAINT, GREY, QUIET, figure, mark

_QUERY, _KEY = COLOURS["attention"], COLOURS["cache"]
_ZONES = {"kept": "circle", "in between": "diamond-open", "interpolated": "square"}
_POWERS = ",.9~g"  # 1,000,000, where d3's own choice would be 1e+6
_WIDE, _HIGH = 2.7, 3.2  # the room of one dial, whose circle has a radius of 1


def rope_dials(dials: Sequence[tuple[str, float, float]], columns: int = 3, height: int = 400) -> go.Figure:
    """Pairs as arrows on circles: (label, angle of the query's pair, angle of the key's), in radians.

    The arc is the angle from the key's arrow to the query's, the nearer way.
    """
    centres = [(_WIDE * (i % columns), -_HIGH * (i // columns)) for i in range(len(dials))]
    circles, arcs, heads = ([], []), ([], []), {"query": ([], []), "key": ([], [])}
    for (x, y), (_, query, key) in zip(centres, dials):
        _curve(circles, x, y, 1.0, 0.0, 2 * math.pi, 48)
        between = (query - key + math.pi) % (2 * math.pi) - math.pi
        _curve(arcs, x, y, 0.42, key, key + between, 16)
        for name, angle in (("key", key), ("query", query)):
            _line(heads[name], [(x, y), (x + 0.88 * math.cos(angle), y + 0.88 * math.sin(angle))])
    traces = [_outline(circles, QUIET, 1), _outline(arcs, GREY, 3)]
    traces += [_arrows(heads[name], name, colour, dash, width) for name, colour, dash, width in (
        ("key", _KEY, "solid", 5), ("query", _QUERY, "solid", 2.5))]
    traces.append(go.Scatter(x=[x for x, _ in centres], y=[y - 1.32 for _, y in centres], mode="text",
                             text=[label for label, *_ in dials], hoverinfo="skip", showlegend=False))
    lines = (len(dials) - 1) // columns
    bare = {"visible": False, "constrain": "domain"}
    return figure(*traces, height=height, margin={"l": 0, "r": 0, "t": 0, "b": 0}, showlegend=True,
                  legend={**ABOVE, "traceorder": "reversed"},
                  xaxis={**bare, "range": [-1.25, _WIDE * (columns - 1) + 1.25]},
                  yaxis={**bare, "range": [-_HIGH * lines - 1.75, 1.1], "scaleanchor": "x"})


def rope_scores(distances: Sequence[int], scores: Sequence[float], envelope: Sequence[float], here: int,
                original: int, height: int = 320) -> go.Figure:
    """Scores over the distance, with their envelope above and below; the distance at hand and the context trained on
    are marked. A distance of 0 has no place on an axis in powers: then nothing is marked."""
    def line(values, name, **look):
        return go.Scatter(x=list(distances), y=[float(f"{value:.4g}") for value in values], mode="lines", name=name,
                          hovertemplate=name + " at %{x:,}: %{y}<extra></extra>", **look)

    edge = {"color": GREY, "width": 1, "dash": "dot"}
    traces = [line(envelope, "envelope", line=edge),
              line([-value for value in envelope], "envelope", line=edge, showlegend=False),
              line(scores, "score", line={"color": _QUERY, "width": 2})]
    shapes = [mark(original)] if original <= distances[-1] else []
    if here > 0:
        nearest = min(range(len(distances)), key=lambda i: abs(distances[i] - here))
        traces.append(go.Scatter(x=[here], y=[float(f"{scores[nearest]:.4g}")], mode="markers", name="here",
                                 marker={"color": _QUERY, "size": 13, "line": {"color": QUIET, "width": 2}},
                                 hovertemplate="distance %{x:,}: %{y}<extra></extra>"))
    return figure(*traces, height=height, x="distance in tokens", y="score", showlegend=True, legend=ABOVE,
                  shapes=shapes, annotations=[_above(original, "trained on")] if shapes else [],
                  xaxis={"type": "log", "dtick": 1, "tickformat": _POWERS})


def rope_wavelengths(plain: Sequence[float], wavelengths: Sequence[float], zones: Sequence[str], original: int,
                     context: int, height: int = 380) -> go.Figure:
    """Tokens for a full turn of each pair, in powers, by zone ("kept", "in between", "interpolated"); where scaling
    changes something, a line shows what the base alone would give."""
    numbers = list(range(len(plain)))
    traces = []
    if any(zone != "kept" for zone in zones):
        traces.append(go.Scatter(x=numbers, y=[float(f"{w:.4g}") for w in plain], mode="lines",
                                 name="by the base alone", line={"color": GREY, "width": 1.5, "dash": "dot"},
                                 hovertemplate="pair %{x} by the base alone: %{y:,} tokens a turn<extra></extra>"))
    for zone, symbol in _ZONES.items():
        mine = [i for i in numbers if zones[i] == zone]
        if mine:
            traces.append(go.Scatter(x=mine, y=[float(f"{wavelengths[i]:.4g}") for i in mine], mode="markers",
                                     name=zone, marker={"color": _QUERY, "symbol": symbol, "size": 9,
                                                        "line": {"width": 2}},
                                     hovertemplate="pair %{x}, " + zone + ": %{y:,} tokens a turn<extra></extra>"))
    lengths = {original: "context trained on", context: "whole context"}
    if original == context:
        lengths = {original: "context"}
    shapes = [{"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": y, "y1": y,
               "line": {"color": QUIET, "width": 1, "dash": "dash"}} for y in lengths]
    notes = [{"x": 0, "xref": "paper", "xanchor": "left", "y": round(math.log10(y), 4), "yanchor": "bottom",
              "text": f"{name}: {y:,}", "showarrow": False} for y, name in lengths.items()]
    return figure(*traces, height=height, x="pair", y="tokens for one full turn", showlegend=True, legend=ABOVE,
                  shapes=shapes, annotations=notes, yaxis={"type": "log", "dtick": 1, "tickformat": _POWERS})


def past_context(curves: dict[str, tuple[Sequence[float], Sequence[float]]], context: int, x: str, y: str,
                 chance: float | None = None, height: int = 340) -> go.Figure:
    """name -> (places, values) of a trained model, the first plain and the others stretched; the length that it was
    trained on is marked, and what a guess would reach, if given, is a faint line."""
    looks = [(GREY, "solid", "circle"), (_QUERY, "solid", "diamond"), (_KEY, "dash", "square")]
    traces = [go.Scatter(x=list(places), y=[None if value != value else round(value, 3) for value in values], name=name,
                         mode="lines+markers", line={"color": colour, "dash": dash, "width": 2},
                         marker={"symbol": symbol, "size": 8},
                         hovertemplate=name + ", %{x:,} tokens: %{y}<extra></extra>")
              for (name, (places, values)), (colour, dash, symbol) in zip(curves.items(), looks)]
    known = [value for _, values in curves.values() for value in values if value == value]
    low, high = min([*known, 0 if chance else math.inf]), max(known)  # with room for the note on top
    level = [] if chance is None else [{"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": chance, "y1": chance,
                                        "line": {"color": FAINT, "width": 2, "dash": "dot"}}]
    return figure(*traces, height=height, x=x, y=y, showlegend=True, legend=ABOVE, shapes=[mark(context), *level],
                  annotations=[{**_above(context, f" trained on {context:,}"), "x": context, "xanchor": "left"}],
                  xaxis={"tickformat": ",", "rangemode": "tozero"},
                  yaxis={"range": [round(low - 0.06 * (high - low), 3), round(high + 0.2 * (high - low), 3)]})


def _above(x: int, text: str) -> dict:
    """A note at the top of an axis in powers, left of x."""
    return {"x": round(math.log10(x), 4), "y": 1, "yref": "paper", "xanchor": "right", "yanchor": "top", "text": text,
            "showarrow": False}


def _line(into: tuple[list, list], points: Sequence[tuple[float, float]]) -> None:
    """Add a line to a trace of many: an empty place ends it."""
    for x, y in points:
        into[0].append(round(x, 3))
        into[1].append(round(y, 3))
    into[0].append(None)
    into[1].append(None)


def _curve(into: tuple[list, list], x: float, y: float, radius: float, start: float, end: float, steps: int) -> None:
    angles = [start + (end - start) * i / steps for i in range(steps + 1)]
    _line(into, [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles])


def _outline(points: tuple[list, list], colour: str, width: float) -> go.Scatter:
    return go.Scatter(x=points[0], y=points[1], mode="lines", hoverinfo="skip", showlegend=False,
                      line={"color": colour, "width": width})


def _arrows(points: tuple[list, list], name: str, colour: str, dash: str, width: float) -> go.Scatter:
    sizes = [0, 13, 0] * (len(points[0]) // 3)  # of each arrow only its tip has a mark
    return go.Scatter(x=points[0], y=points[1], mode="lines+markers", name=name, hoverinfo="skip",
                      line={"color": colour, "width": width, "dash": dash},
                      marker={"symbol": "triangle-up", "size": sizes, "angleref": "previous", "color": colour,
                              "opacity": 1, "line": {"width": 0}})
