"""The whole site: home at the root, and each page at its own address."""

from __future__ import annotations

from contextlib import nullcontext

import gradio as gr

from apps import (
    architecture,
    endpoints,
    home,
    journey,
    kv_cache,
    ladder,
    mla_lab,
    moe_lab,
    mtp_lab,
    playground,
    quantization_lab,
    rope_lab,
    starting,
    training_lab,
    tweak,
    what_fits,
    wrong_elsewhere,
)

# In the order of the navigation bar.
PAGES = (journey, architecture, ladder, kv_cache, rope_lab, mla_lab, moe_lab, mtp_lab, quantization_lab, what_fits,
         playground, tweak, training_lab, wrong_elsewhere)


def offering() -> tuple:
    """The modules whose functions programs may call."""
    return home, *PAGES


def build() -> gr.Blocks:
    with starting.more_to_come(), starting.blocks(home.TITLE) as demo:
        gr.Navbar(main_page_name=home.TITLE)
        home.build(demo)
        endpoints.add(demo, offering())
    for page in PAGES:
        with nullcontext() if page is PAGES[-1] else starting.more_to_come(), demo.route(page.TITLE, page.PATH):
            page.build(demo)
    return demo


def prepare() -> None:
    """Read and measure now what takes seconds, once, so that nobody waits who opens these pages."""
    journey.prepare()
    rope_lab.prepare()
