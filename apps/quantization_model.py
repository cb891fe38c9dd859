"""The quantization lab's second part: a whole trained model in fewer bits, its loss, bytes, speed and text."""

from __future__ import annotations

import functools
import html
import os

import gradio as gr

from apps import common, writing
from apps.components import Chart
from apps.line import in_line, noticed
from apps.quantization_matrix import shared
from llm_core import accounting, few_bits, plots, presets
from llm_core.quantization.model import quantize_model

START = {"model": "gpt-mini", "bits": 3, "per": "tensor", "prompt": "A true friend"}
WIDTHS = (8, 6, 4, 3, 2)
PERS = {"tensor": "whole matrix", "channel": "row", "64": "64 in a row", "32": "32 in a row"}
ALLOWED = {"model": presets.mini_names(), "bits": list(WIDTHS), "per": list(PERS)}
TOKENS, AT_LEAST, MOST_CHARACTERS = 32, 16, 200  # tokens are written for two seconds, but on a slow machine 16
CSS = """
.texts {display: grid; grid-template-columns: repeat(auto-fit, minmax(16em, 1fr)); gap: 0.8rem}
.texts section {border: 1px solid var(--border-color-primary); border-radius: 0.5rem; padding: 0.6rem 0.9rem}
.texts h4 {margin: 0 0 0.3rem; font-size: 0.95em; font-weight: 600}
.texts p {margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.5; min-height: 7.5em}
.texts .prompt {color: color-mix(in srgb, var(--body-text-color) 72%, transparent)}
.texts mark {background: #E69F00; color: #000; border-radius: 0.2rem}
"""


@functools.lru_cache(maxsize=12)
def smaller(name: str, bits: int, per: str):
    """The quantised copy, read-only."""
    return quantize_model(writing.load(name)[0], bits, int(per) if per.isdigit() else per)


@functools.cache
def held_out():
    return few_bits.held_out(writing.load("gpt-mini")[1])  # all minis have one vocabulary


@functools.cache
def whole_loss(name: str) -> float:
    return few_bits.loss(writing.load(name)[0], held_out())


@functools.cache
def measured(name: str, bits: int, per: str) -> tuple[float, few_bits.Size]:
    """Held-out loss and bytes of one quantised model."""
    model = smaller(name, bits, per)
    return few_bits.loss(model, held_out()), few_bits.size(model)


def explain(now: dict, one: few_bits.Written, other: few_bits.Written) -> str:
    loss, size = measured(now["model"], now["bits"], now["per"])
    whole, blind = whole_loss(now["model"]), few_bits.blind_loss(writing.load(now["model"])[0])
    lost = few_bits.lost(loss, whole, blind)
    gone = ("worse than guessing blindly" if lost > 1 else
            f"{max(0.0, 100 * lost):.2g} % of what training won over guessing blindly is lost")
    same = "the same text" if one.ids == other.ids else (
        f"another text after {writing.count(len(os.path.commonprefix([one.ids, other.ids])), 'token')}")
    kernels = ("on torch's kernels for few bits" if few_bits.on_kernels(smaller(now["model"], now["bits"], now["per"]))
               else "with weights turned back into numbers at every call, which costs time")
    speed = (f"It wrote {other.times_as_fast_as(one):.2f} times as fast as the model in 32 bits, measured here just "
             f"now, a token each in turns, {kernels}." if one.seconds and other.seconds else "")
    return (f"{now['bits']} bits, {shared(now['per'])}: held-out loss {whole:.3f} → {loss:.3f} nats a "
            f"token, so {gone}; {size.bits_a_weight:.2f} bits a weight with scales; greedily it writes {same}. {speed}")


def formulas(now: dict) -> str:
    loss, size = measured(now["model"], now["bits"], now["per"])
    model = writing.load(now["model"])[0]
    before, whole = few_bits.size(model, 16), whole_loss(now["model"])
    return common.formula(
        f"bits a weight: 8 × {size.nbytes:,} bytes / {size.weights:,} weights = {size.bits_a_weight:.3f}; in 16 bits "
        f"{before.nbytes:,} bytes, {accounting.ratio(before.nbytes, size.nbytes)} times as many",
        f"growth of the loss: {loss:.4f} − {whole:.4f} = {few_bits.grown(loss, whole):+.4f} nats a token; "
        f"guessing blindly: ln {model.config.vocab_size:,} = {few_bits.blind_loss(model):.3f}")


def texts(prompt: str, one: few_bits.Written, other: few_bits.Written, bits: int) -> str:
    """Both texts, what differs marked."""
    same = len(os.path.commonprefix([one.text, other.text]))
    parts = [("As trained, 32 bits", one.text, ""), (f"{bits} bits", other.text[:same], other.text[same:])]
    return '<div class="texts">' + "".join(
        f'<section><h4>{title}</h4><p><span class="prompt">{html.escape(prompt)}</span>{html.escape(text)}'
        f'{f"<mark>{html.escape(rest)}</mark>" if rest else ""}</p></section>' for title, text, rest in parts
    ) + "</div>"


def table(now: dict) -> str:
    model, whole = writing.load(now["model"])[0], whole_loss(now["model"])
    before = few_bits.size(model, 16)
    rows = [("as trained", f"{whole:.4f}", "–", f"{before.nbytes:,} in 16 bits", "16.000")]
    for bits in WIDTHS:
        loss, size = measured(now["model"], bits, now["per"])
        rows.append((f"{'▶ ' if bits == now['bits'] else ''}{bits} bits", f"{loss:.4f}",
                     f"{few_bits.grown(loss, whole):+.4f}", f"{size.nbytes:,}", f"{size.bits_a_weight:.3f}"))
    n = few_bits.held_out_tokens()
    return common.table(("width", "loss, nats a token", "grows by", "bytes of its linear layers", "bits a weight"),
                        rows, f"{now['model']}, {shared(now['per'])}; {n:,} tokens of held-out text. "
                        "Embeddings, output head, routers and norms stay as they are.")


@common.sentence_for(4)
def draw(*values):
    """Outputs: texts, sentence and formulas, chart, table. The texts come first; the other widths take a second."""
    now = dict(zip(START, values, strict=True))
    now["prompt"] = (now["prompt"] or "")[:MOST_CHARACTERS]
    model, tokenizer = writing.load(now["model"])
    one, other = few_bits.write_in_turns((model, smaller(now["model"], now["bits"], now["per"])), tokenizer,
                                         now["prompt"], TOKENS, at_least=AT_LEAST)
    text = common.said(explain(now, one, other)) + formulas(now)
    yield texts(now["prompt"], one, other, now["bits"]), text, gr.skip(), gr.skip()
    losses = {bits: measured(now["model"], bits, now["per"])[0] for bits in WIDTHS}
    chart = plots.loss_against_bits(losses, now["bits"], whole_loss(now["model"]), few_bits.blind_loss(model))
    yield gr.skip(), gr.skip(), chart, table(now)


WRITING = {**common.GENERATION, "trigger_mode": "always_last"}  # of several clicks the last one counts


def place() -> tuple[dict, list]:
    """Lay the part out: its controls by their name in the address, and the outputs of draw, the notice first."""
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            model = gr.Radio(list(ALLOWED["model"]), value=START["model"], label="Model", elem_id="model")
            bits = gr.Radio(list(WIDTHS), value=START["bits"], label="Bits a weight", elem_id="bits")
            per = gr.Radio([(label, name) for name, label in PERS.items()], value=START["per"],
                           label="Who shares a scale", elem_id="per")
            prompt = gr.Textbox(START["prompt"], label="Prompt", max_length=MOST_CHARACTERS, elem_id="prompt",
                                info="then Enter; both models go on from here, always with the likeliest token")
        with gr.Column(scale=2, min_width=300, elem_classes="shown"):
            chart = Chart(elem_id="losses")
    with gr.Column(elem_classes="shown"):
        written = gr.HTML(css_template=CSS, elem_id="texts")
        text = gr.HTML(elem_id="model-text")
        figures = gr.HTML(elem_id="model-table")
    controls = dict(zip(START, (model, bits, per, prompt), strict=True))
    outputs = [notice, written, text, chart, figures]
    gr.on([model.input, bits.input, per.input, prompt.submit], in_line(draw, noticed(4)), list(controls.values()),
          outputs, api_name="quantization_model", **WRITING)
    return controls, outputs
