"""A context in tokens: a slider in steps from 1k to 1M, and a box that takes 128k or 5000 too. Each moves the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gradio as gr

from apps import common
from llm_core.accounting import parse_tokens

STEPS = sorted({min(step << power, 1 << 20) for power in range(9, 20) for step in (2, 3)})  # 1k, 1.5k, 2k … 1M


def place(tokens: str | int) -> tuple[gr.Slider, gr.Textbox]:
    """The two controls. Only the box has a value of its own; the slider is shown at the step nearest to it."""
    with gr.Group():
        slider = gr.Slider(0, len(STEPS) - 1, step_of(tokens), step=1, buttons=[], elem_id="context-step",
                           label="Context: drag, from 1k to 1M tokens", elem_classes="no-number")
        box = gr.Textbox(tokens, label="Context in tokens", elem_id="context", max_length=40,
                         info="or type it: 4096, 128k (131,072), 1M; then Enter")
    return slider, box


def step_of(tokens: str | int) -> int:
    """The slider's step nearest to what is in the box. ValueError if that is no number of tokens."""
    count = parse_tokens(tokens)
    return min(range(len(STEPS)), key=lambda i: abs(STEPS[i] - count))


def connect(slider: gr.Slider, box: gr.Textbox, draw: Callable[..., tuple], inputs: Sequence, outputs: Sequence,
            name: str) -> None:
    """Whichever is moved, the other follows and all is drawn. inputs: those of draw, the box among them."""
    at = [part is box for part in inputs].index(True)

    def dragged(step, *given):
        tokens = f"{STEPS[int(step)]:,}"
        return tokens, *draw(*given[:at], tokens, *given[at + 1:])

    def typed(*given):
        out = draw(*given)
        return gr.skip() if out[0] else step_of(given[at]), *out

    slider.input(dragged, [slider, *inputs], [box, *outputs], api_name=f"{name}_context", **common.FIGURES)
    gr.on([box.submit, box.blur], typed, inputs, [slider, *outputs], api_name=f"{name}_typed", **common.FIGURES)
