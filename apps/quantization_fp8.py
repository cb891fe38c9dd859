"""The quantization lab's third and fourth part: FP8's tiles and blocks, one FP8 number bit by bit, V3's precisions."""

from __future__ import annotations

import functools
import math

import gradio as gr

from apps import common, writing
from apps.components import Chart
from apps.quantization_matrix import percent, short
from llm_core import accounting, few_bits, plots, presets
from llm_core.plots.stage import ink
from llm_core.quantization import formats as kinds
from llm_core.quantization import fp8, one_number

START = {"kind": "activations", "outlier": 17, "fp8": "e4m3", "number": "0.1"}
KINDS = {"activations": ("activations, tiles 1 × 128", 128), "weights": ("weights, blocks 128 × 128", "block")}
ALLOWED = {"kind": list(KINDS), "fp8": list(fp8.FORMATS)}
LIMITS = {"outlier": (0, 24)}
TOKENS = 4096  # of the forward pass whose work is shared out
BIT_COLOURS = {"sign": plots.COLOURS["output head"], "exponent": plots.COLOURS["attention"],
               "mantissa": plots.COLOURS["embeddings"]}
CSS = """
.numbers {display: flex; flex-wrap: wrap; gap: 0.6rem 2.4rem; align-items: flex-end}
.numbers h4 {margin: 0 0 0.2rem; font-size: 1em}
.numbers .bits {display: flex; gap: 2px; font-family: var(--font-mono); font-size: 1.3em}
.numbers .bits span {padding: 0.15em 0.45em; border-radius: 3px}
.numbers .legend span {padding: 0 0.4em; border-radius: 3px; margin-right: 0.5em}
.numbers .legend {flex-basis: 100%; font-size: 0.9em}
"""


@functools.lru_cache(maxsize=64)
def made(kind: str, outlier: int, format: str, per) -> tuple[kinds.Kept, kinds.Error, list[list[float]]]:
    """What is kept of the drawn matrix, how far it is off, and the error map."""
    x, mask = few_bits.activations(2.0**outlier) if kind == "activations" else few_bits.weights(2.0**outlier)
    kept = kinds.keep(x, format, per)
    return kept, kinds.error(x, kept.values, mask), kinds.error_map(x, kept.values, mask).tolist()


def explain(now: dict) -> str:
    kind, outlier = now["kind"], now["outlier"]
    own, label = KINDS[kind][1], "tile" if kind == "activations" else "block"
    one, many = (made(kind, outlier, now["fp8"], per)[1] for per in ("tensor", own))
    int8 = made(kind, outlier, "int8", "tensor")[1]
    name = now["fp8"].upper()
    if not outlier:
        return (f"Nothing stands out, and INT8 with one scale is off by {percent(int8.others)}, less than {name} with "
                f"{percent(one.others)}. That is right: even steps suit numbers of one size. So a small error alone "
                f"does not show that FP8 is at work, or that it is the better format; outliers do.")
    where = "one column" if kind == "activations" else "three numbers"
    spare = made(kind, outlier, "e5m2", "tensor")[1]
    range_said = "" if now["fp8"] == "e5m2" else (
        f" E5M2 with one scale: {percent(spare.others)}; it has more range and fewer digits.")
    return (f"With {where} 2^{outlier} = {2**outlier:,} times as large, one scale for all leaves the other numbers off "
            f"by {percent(one.others)} in {name}, and {percent(one.gone)} of them became 0. With a scale for each "
            f"{label} it is {percent(many.others)} and {percent(many.gone)}: an outlier can hurt only those in its own "
            f"{label}. INT8 with one scale: {percent(int8.others)}.{range_said}")


def formulas(now: dict) -> str:
    kept = {per: made(now["kind"], now["outlier"], now["fp8"], per)[0] for per in ("tensor", KINDS[now["kind"]][1])}
    lines = []
    for per, k in kept.items():
        middle = k.place(0.5)
        which = "one scale" if per == "tensor" else "a scale in the middle of all"
        lines.append(f"{which} = largest / {k.step_count():,} = {short(k.span(*middle))} / {k.step_count():,} = "
                     f"{short(k.scale[middle].item())}, and numbers up to {short(k.vanishing(*middle))} become 0; "
                     f"{writing.count(k.scale.numel(), 'scale')} of 4 bytes, {k.bits_a_number:.4f} bits a number")
    return common.formula(*lines)


def table(now: dict) -> str:
    own, rows = KINDS[now["kind"]][1], []
    tiles = "tiles" if now["kind"] == "activations" else "blocks"
    for format, per, label in (("int8", "tensor", "INT8, one scale"), ("int8", 128, "INT8, 128 in a row"),
                               ("e4m3", "tensor", "E4M3, one scale"), ("e4m3", own, f"E4M3, {tiles}"),
                               ("e5m2", "tensor", "E5M2, one scale"), ("e5m2", own, f"E5M2, {tiles}")):
        kept, error, _ = made(now["kind"], now["outlier"], format, per)
        rows.append((label, percent(error.others), percent(error.gone), f"{kept.scale.numel():,}", f"{kept.nbytes:,}"))
    return common.table(("format and scales", "others off by", "became 0", "scales", "bytes"), rows,
                        f"{KINDS[now['kind']][0].split(',')[0]} [256, 1,024], outliers 2^{now['outlier']}; others: all "
                        "but the outliers")


@common.sentence_for(4)
def draw(*values):
    """Outputs: the map with one scale, the map with many, sentence and formulas, table."""
    names = [name for name in START if name != "number"]
    now, note = common.within(dict(zip(names, values, strict=True)), LIMITS)
    maps = [plots.error_heatmap(made(now["kind"], now["outlier"], now["fp8"], per)[2], height=280)
            for per in ("tensor", KINDS[now["kind"]][1])]
    return *maps, common.said(note + explain(now)) + formulas(now), table(now)


# One number ---------------------------------------------------------------------------------------------------------

def parse(text: str) -> float:
    """A finite number as people type it. ValueError with a sentence otherwise."""
    try:
        value = float(str(text).strip().replace(",", "").replace("−", "-"))
        if not math.isfinite(value):
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(f"type one finite number, like 0.1, -300 or 1e-3, not {str(text)[:40]!r}") from None
    return value


def fp8_number(value: float = 0.1) -> dict:
    """What one number becomes in both FP8 formats, bit by bit.

    Args:
        value: any finite number.

    Returns:
        For "e4m3" and "e5m2": bits as "sign exponent mantissa", formula, value ("inf" if E5M2 overflows), below and
        above (the neighbours, null at the end of the format), relative_error ("inf" if it overflows), and what happened
        (exact, rounded, subnormal, became 0, held at the largest, infinite).
    """
    out = {}
    for name in fp8.FORMATS:
        r = one_number.look(parse(value), name)
        plain = {"value": r.fields.value, "relative_error": r.relative_error}
        out[name] = {"bits": r.fields.bits, "formula": r.fields.formula, "below": r.below, "above": r.above,
                     "happened": r.kind,
                     **{key: v if math.isfinite(v) else str(v) for key, v in plain.items()}}
    return out


def bits_html(rounded: dict[str, one_number.Rounded]) -> str:
    """The eight bits of each format as coloured squares."""
    def style(part: str) -> str:
        return f'style="background:{BIT_COLOURS[part]};color:{ink(BIT_COLOURS[part])}"'

    rows = []
    for name, r in rounded.items():
        squares = "".join(f"<span {style(part)}>{bit}</span>" for part, bits in zip(BIT_COLOURS, r.fields.bits.split())
                          for bit in bits)
        rows.append(f'<div><h4>{name.upper()}</h4><div class="bits" aria-label="{r.fields.bits}">{squares}</div></div>')
    legend = "".join(f"<span {style(part)}>{part}</span>" for part in BIT_COLOURS)
    return f'<div class="numbers">{"".join(rows)}<div class="legend">{legend}</div></div>'


def number_said(value: float, rounded: dict[str, one_number.Rounded]) -> str:
    four, five = rounded["e4m3"], rounded["e5m2"]
    def one(name, r):
        what = {"exact": "exactly itself", "became 0": "0, for it is too small", "infinite": "infinity, for it is too "
                "large", "held at the largest": f"{r.fields.value:g}, the largest there is"}.get(
                    r.kind, f"{r.fields.value:g}, off by {percent(r.relative_error)}")
        return f"in {name} {what}"
    return (f"{value:g} becomes {one('E4M3', four)}, and {one('E5M2', five)}. E4M3 spends one bit more on digits, "
            "E5M2 on range.")


@common.sentence_for(4)
def draw_number(text):
    """Outputs: bits, rulers, sentence and formulas, table."""
    value = parse(text)
    rounded = {name: one_number.look(value, name) for name in fp8.FORMATS}
    rows = [(name.upper(), r.fields.bits, f"{r.fields.value:.8g}", *(("–" if v is None else f"{v:.8g}")
             for v in (r.below, r.above)), f"{r.error:+.4g}", percent(r.relative_error) if math.isfinite(r.error)
             else "–", r.kind) for name, r in rounded.items()]
    rulers = {name.upper(): one_number.ruler(value, name) for name in fp8.FORMATS}
    text = common.said(number_said(value, rounded)) + common.formula(
        *(f"{name.upper()}: {r.fields.formula}" for name, r in rounded.items()))
    return bits_html(rounded), plots.number_rulers(rulers, value), text, common.table(
        ("format", "sign exponent mantissa", "becomes", "next below", "next above", "error", "relative",
         "what happened"), rows, f"{value:g} in the two formats", words=(0, 1, 7))


# What V3 keeps in which precision -----------------------------------------------------------------------------------

def precision() -> str:
    """DeepSeek-V3's parts: whether their products are in FP8, and their share of the work."""
    v3 = presets.get("deepseek-v3")
    work = accounting.precision_map(v3, TOKENS)
    flops = sum(w.flops for w in work)
    rows = [(w.part, "FP8" if w.fp8 else "BF16 or FP32", f"{w.parameters:,}", f"{w.flops:,}",
             accounting.percent(w.flops, flops)) for w in work]
    share = accounting.fp8_share(v3, TOKENS)
    return common.said(
        f"In a forward pass over {TOKENS:,} tokens DeepSeek-V3 does {percent(share)} of its work in FP8. What is small "
        "or delicate stays in higher precision: embeddings, the output head, routers, norms, and attention's own "
        "products. So do the master weights, the gradients of weights and the optimizer's states.") + common.table(
        ("part", "multiplied in", "parameters", "FLOPs", "of the work"), rows,
        f"DeepSeek-V3, one forward pass over {TOKENS:,} tokens (arXiv:2412.19437, section 3.3.1)", words=(0, 1))


def place_tiles() -> tuple[dict, list]:
    """Lay out tiles and blocks: controls by their name in the address, and the outputs of draw, the notice first."""
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            kind = gr.Radio([(label, name) for name, (label, _) in KINDS.items()], value=START["kind"], elem_id="kind",
                            label="What is kept in FP8")
            outlier = common.whole_slider("outlier", START["outlier"], (
                "Outliers: 2 to this power", *LIMITS["outlier"], 1,
                "a column of activations, or three weights, so many times as large as the rest; 0: none"))
            format = gr.Radio([(name.upper(), name) for name in fp8.FORMATS], value=START["fp8"], label="Format",
                              elem_id="fp8")
        with gr.Column(scale=1, min_width=270, elem_classes="shown"):
            gr.Markdown("### One scale for all")
            one = Chart(elem_id="one-scale")
        with gr.Column(scale=1, min_width=270, elem_classes="shown"):
            gr.Markdown("### A scale for each tile or block")
            many = Chart(elem_id="many-scales")
    with gr.Column(elem_classes="shown"):
        text = gr.HTML(elem_id="tiles-text")
        figures = gr.HTML(elem_id="tiles-table")
    controls = {"kind": kind, "outlier": outlier, "fp8": format}
    outputs = [notice, one, many, text, figures]
    gr.on([control.input for control in controls.values()], draw, list(controls.values()), outputs,
          api_name="quantization_tiles", **common.FIGURES)
    return controls, outputs


def place_number() -> tuple[dict, list]:
    """Lay out the one number: its control by its name in the address, and the outputs of draw_number."""
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            number = gr.Textbox(START["number"], label="A number", elem_id="number", max_length=40,
                                info="like 0.1, -300 or 1e-3, then Enter")
            bits = gr.HTML(css_template=CSS, elem_id="number-bits", elem_classes="shown")
        with gr.Column(scale=2, min_width=300, elem_classes="shown"):
            ruler = Chart(elem_id="ruler")
    with gr.Column(elem_classes="shown"):
        text = gr.HTML(elem_id="number-text")
        figures = gr.HTML(elem_id="number-table")
    outputs = [notice, bits, ruler, text, figures]
    gr.on([number.submit, number.blur], draw_number, number, outputs, api_name="quantization_number", **common.FIGURES)
    return {"number": number}, outputs
