"""Plotly for a browser: the JavaScript that came with the Python which makes the figures."""

from __future__ import annotations

from plotly import offline

PLOTLY_VERSION = offline.get_plotlyjs_version()


def plotly_script() -> str:
    """The whole of it, 4.8 MB; it sets `window.Plotly`."""
    return offline.get_plotlyjs()
