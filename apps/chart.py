"""What draws the charts in the browser: a script of ours, and the Plotly that came with the one in Python."""

from __future__ import annotations

import functools
import gzip
from pathlib import Path

from fastapi import FastAPI, Request, Response

from llm_core import plots

SCRIPT = Path(__file__).with_suffix(".js")
PLOTLY = f"plotly-{plots.PLOTLY_VERSION}.min.js"  # relative, so that it is found behind any prefix of a server


def script() -> str:
    """What a page's head needs to draw charts."""
    return f"<script>{SCRIPT.read_text(encoding='utf-8').replace('PLOTLY', PLOTLY)}</script>"


@functools.cache
def _compressed() -> bytes:
    return gzip.compress(plots.plotly_script().encode(), 6)


def serve_plotly(app: FastAPI) -> None:
    """Let the site answer for Plotly itself: nothing is asked of another server. Compressed, it is 1.5 of 4.8 MB."""
    def answer(request: Request) -> Response:
        kept = {"Cache-Control": "public, max-age=31536000, immutable"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(_compressed(), media_type="text/javascript", headers=kept | {"Content-Encoding": "gzip"})
        return Response(gzip.decompress(_compressed()), media_type="text/javascript", headers=kept)

    app.add_api_route(f"/{PLOTLY}", answer, methods=["GET"], include_in_schema=False, response_model=None)
    app.router.routes.insert(0, app.router.routes.pop())  # before Gradio's, of which one takes whatever is left
