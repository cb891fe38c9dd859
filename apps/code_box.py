"""A button that shows the page's config as Python, to paste into a notebook."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gradio as gr

from apps import common


def python_button(code: Callable[..., str], inputs: Sequence[gr.components.Component], notice: gr.HTML,
                  api_name: str) -> None:
    """Place the button, and below it the box that it fills: `code` takes the inputs' values and returns Python.

    A ValueError of `code` is said in the page's notice box, and the box stays as it was.
    """
    button = gr.Button("This config as Python", size="sm", elem_id="as-python")
    box = gr.Code(language="python", label="To paste into a notebook", visible=False, interactive=False,
                  elem_id="python", wrap_lines=True)

    @common.sentence_for(1)
    def shown(*values):
        return gr.Code(code(*values), visible=True)

    button.click(shown, list(inputs), [notice, box], api_name=api_name, **common.FIGURES)
