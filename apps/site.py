"""The whole site: home at the root, and each page at its own address."""

from __future__ import annotations

import gradio as gr

from apps import architecture, common, home, journey, kv_cache, playground, training_lab, tweak, wrong_elsewhere

# In the order of the navigation bar.
PAGES = (journey, architecture, kv_cache, playground, tweak, training_lab, wrong_elsewhere)


def build() -> gr.Blocks:
    with common.blocks(home.TITLE) as demo:
        gr.Navbar(main_page_name=home.TITLE)
        home.build(demo)
    for page in PAGES:
        with demo.route(page.TITLE, page.PATH):
            page.build(demo)
    return demo
