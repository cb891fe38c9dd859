"""Quantization lab: how few bits a number needs; a matrix, a whole model, FP8's tiles, one FP8 number, V3's recipe."""

from __future__ import annotations

import gradio as gr

from apps import common
from apps import quantization_fp8 as in_fp8
from apps import quantization_matrix as one_matrix
from apps import quantization_model as one_model
from apps.line import in_line, noticed

TITLE = "Quantization lab"
PATH = "/quantization"
PARTS = (one_matrix, one_model, in_fp8)
START = {name: value for part in PARTS for name, value in part.START.items()}
ALLOWED = {name: values for part in PARTS for name, values in part.ALLOWED.items()}
LIMITS = one_matrix.LIMITS | in_fp8.LIMITS
API = (one_matrix.quantize_matrix, in_fp8.fp8_number)
TRY = (
    ("One scale for the whole matrix, and eight outliers: int4 loses nearly everything",
     {"format": "int4", "share": "tensor", "outliers": 5}),
    ("Nearly all of one sign: let a zero point help",
     {"matrix": "random, behind SiLU", "zero_point": True, "outliers": 0}),
    ("No outliers: INT8 is closer than FP8, and that is right", {"format": "int8", "outliers": 0, "outlier": 0}),
    ("deepseek-mini in 2 bits: what is left of its English", {"model": "deepseek-mini", "bits": 2, "per": "channel"}),
)


def state(request: gr.Request | None) -> tuple[dict, str]:
    """All controls' values for an address, and a sentence about what in it could not be used."""
    values, problem = common.read_query(request, START, ALLOWED, LIMITS)
    values["prompt"] = values["prompt"][:one_model.MOST_CHARACTERS]
    return values, problem


def of(values: dict, part: dict) -> list:
    return [values[name] for name in part]


def drawn_or_start(draw, *values, start) -> tuple:
    """What draw gives; for values that cannot be, the opening state under the sentence that says why."""
    said, *shown = draw(*values)
    return (said, *shown) if not said else (said, *draw(*start)[1:])


def build(demo: gr.Blocks) -> None:
    common.question("How few bits does a number need?", "To quantise is to allow a number only a few values, to store "
                    "which one it is, and to share one **scale** among many numbers. Fewer bits are fewer bytes, and "
                    "an error. See how large the error is, where it comes from, and when a model breaks.")
    remark = common.notice_box()
    with gr.Column(elem_classes="part"):
        gr.Markdown("## One matrix: a ruler for its numbers")
        matrix, matrix_shown = one_matrix.place()
    with gr.Column(elem_classes="part"):
        gr.Markdown("## A whole model: where does it break?\nAll linear layers and experts of a trained model, rounded "
                    "to the nearest code. Loss: how surprised the model is by text that it was not trained on.")
        model, model_shown = one_model.place()
    with gr.Column(elem_classes="part"):
        gr.Markdown("## FP8: tiles and blocks, against outliers\nDeepSeek-V3 gives each token's 128 numbers, and each "
                    "128 × 128 weights, a scale of their own. FP8's steps grow with the number, so it keeps small "
                    "numbers beside large ones, up to a point.")
        tiles, tiles_shown = in_fp8.place_tiles()
    with gr.Column(elem_classes="part"):
        gr.Markdown("## One FP8 number, bit by bit\nA sign, an exponent that says how large, and a mantissa that holds "
                    "the digits.")
        number, number_shown = in_fp8.place_number()
    with gr.Column(elem_classes="part"):
        gr.Markdown("## What DeepSeek-V3 does in which precision")
        gr.HTML(in_fp8.precision(), elem_id="precision")
    controls = {**matrix, **model, **tiles, **number}
    common.copy_link_button(controls)
    common.try_this((what, common.link("", **changes)) for what, changes in TRY)
    common.lesson("`course/08_quantization/01_integers.ipynb` builds scale, zero point and groups by hand; "
                  "`02_fp8.ipynb` takes FP8 apart, with tiles, blocks and sums; `03_training_in_fp8.ipynb` trains with "
                  "it. The paper: DeepSeek-V3 (arXiv:2412.19437, section 3.3).")

    def opened(request: gr.Request):
        values, problem = state(request)
        drawn = [drawn_or_start(one_matrix.draw, None, *of(values, matrix), start=(None, *of(START, matrix))),
                 drawn_or_start(in_fp8.draw, *of(values, tiles), start=of(START, tiles)),
                 drawn_or_start(in_fp8.draw_number, values["number"], start=of(START, number))]
        return common.notice(problem, note=True), *of(values, controls), *(o for outputs in drawn for o in outputs)

    def opened_model(request: gr.Request):
        for said, *shown in one_model.draw(*of(state(request)[0], model)):
            if not said:
                yield said, *shown
                continue
            for _, *opening in one_model.draw(*of(START, model)):
                yield said, *opening

    demo.load(opened, None, [remark, *controls.values(), *matrix_shown, *tiles_shown, *number_shown],
              api_name="quantization_open", **common.FIGURES)
    demo.load(in_line(opened_model, noticed(4)), None, model_shown, api_name="quantization_open_model",
              **one_model.WRITING)


if __name__ == "__main__":
    from apps import quantization_lab, starting

    starting.run_alone(quantization_lab)
