"""The whole site: home at the root, and each page at its own address."""

from __future__ import annotations

import gradio as gr

from apps import (
    architecture,
    architecture_api,
    common,
    endpoints,
    home,
    journey,
    kv_cache,
    ladder,
    playground,
    tweak,
    wrong_elsewhere,
)

# In the order of the navigation bar.
PAGES = (journey, architecture, ladder, kv_cache, playground, tweak, wrong_elsewhere)


def offering() -> tuple:
    """The modules whose functions programs may call."""
    return home, *PAGES, architecture_api


def build() -> gr.Blocks:
    with common.blocks(home.TITLE) as demo:
        gr.Navbar(main_page_name=home.TITLE)
        home.build(demo)
        endpoints.add(demo, offering())
    for page in PAGES:
        with demo.route(page.TITLE, page.PATH):
            page.build(demo)
    return demo
