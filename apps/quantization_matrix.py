"""The quantization lab's first part: one matrix in one format, where it is off, and what that takes in bytes."""

from __future__ import annotations

import functools

import gradio as gr
import torch

from apps import common, writing
from apps.components import Chart
from llm_core import few_bits, plots
from llm_core.accounting import ratio
from llm_core.quantization import formats

START = {"matrix": "feed-forward up, block 2", "format": "int4", "share": "channel", "zero_point": False, "outliers": 5}
FORMATS = {"int8": "int8", "int4": "int4", "int3": "int3", "int2": "int2", "e4m3": "FP8 E4M3", "e5m2": "FP8 E5M2"}
SHARES = {"tensor": "whole matrix", "channel": "row", "128": "128 in a row", "64": "64 in a row", "32": "32 in a row",
          "block": "block 128 × 128"}
ALLOWED = {"matrix": list(few_bits.MATRICES), "format": list(FORMATS), "share": list(SHARES)}
LIMITS = {"outliers": (0, 18)}
WHY = {
    "matrix": "other numbers, whose largest and typical sizes are further apart or closer.",
    "format": "other marks on the ruler: their number is 2 to the bits, and FP8's lie closer near 0.",
    "share": "a scale comes from the largest that shares it, so the fewer share one, the fewer an outlier hurts.",
    "zero_point": "with a zero point the marks cover the range from the smallest to the largest, "
                  "which gains where most numbers have one sign.",
    "outliers": "the largest number of a group decides the scale for all of it.",
}


@functools.lru_cache(maxsize=16)
def numbers(matrix: str, outliers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The matrix with outliers of 2^outliers times its typical number (0: none), and where they are."""
    x = few_bits.matrix(matrix, writing.load("gpt-mini")[0])
    return formats.with_outliers(x, 2**outliers if outliers else 0)


@functools.lru_cache(maxsize=256)
def off(matrix: str, format: str, share: str, zero_point: bool, outliers: int) -> tuple[formats.Error, int, float]:
    """The error, bytes, and bits a number."""
    x, mask = numbers(matrix, outliers)
    kept = kept_of(matrix, format, share, zero_point, outliers)
    return formats.error(x, kept.values, mask), kept.nbytes, kept.bits_a_number


@functools.lru_cache(maxsize=2)
def kept_of(matrix: str, format: str, share: str, zero_point: bool, outliers: int) -> formats.Kept:
    return formats.keep(numbers(matrix, outliers)[0], format, int(share) if share.isdigit() else share,
                        symmetric=not zero_point)


def quantize_matrix(matrix: str = START["matrix"], format: str = "int4", share: str = "channel",
                    zero_point: bool = False, outliers: int = 0) -> dict:
    """Keep one matrix in few bits and say how far it is off.

    Args:
        matrix: a weight of the trained gpt-mini or random numbers; one of "feed-forward up, block 2", "feed-forward
            down, block 2", "queries, block 0", "token embedding", "random, normal", "random, behind SiLU".
        format: int8, int4, int3, int2, e4m3 or e5m2.
        share: who has a scale together: tensor, channel (a row), 32, 64 or 128 (neighbours in a row), or block
            (128 x 128, FP8 only).
        zero_point: True for an asymmetric ruler, integers only.
        outliers: 0 for none, or k from 1 to 18: eight numbers are set to 2^k times the root mean square.

    Returns:
        rows, columns; bytes with scales and bits_a_number; relative_error of the whole; relative_error_others and
        share_became_0 without the outliers; snr_db; worst_error.
    """
    for name, value in (("matrix", matrix), ("format", format), ("share", share)):
        if value not in ALLOWED[name]:
            raise ValueError(f"{name} must be one of {'; '.join(ALLOWED[name])}, not {value!r}")
    if isinstance(outliers, bool) or outliers not in range(LIMITS["outliers"][1] + 1):
        raise ValueError(f"outliers must be a whole number from 0 to {LIMITS['outliers'][1]}, not {outliers!r}")
    error, nbytes, bits = off(matrix, format, share, bool(zero_point), int(outliers))
    rows, columns = numbers(matrix, int(outliers))[0].shape
    return {"rows": rows, "columns": columns, "bytes": nbytes, "bits_a_number": bits,
            "relative_error": error.relative, "relative_error_others": error.others, "share_became_0": error.gone,
            "snr_db": error.snr_db, "worst_error": error.worst}


HURT = {  # whom an outlier hurts, by who shares its scale
    "tensor": "One scale serves all, and the largest outlier decides it",
    "channel": "The bright stripes are the rows with an outlier, which decides their scale",
    "block": "Only a block that holds an outlier suffers",
}


def hurt(now: dict) -> str:
    """Whom the outliers hurt; nothing where there are none."""
    if not now["outliers"]:
        return ""
    if now["format"] in ("e4m3", "e5m2"):
        return " FP8's marks lie closer near 0, so the others notice an outlier only when it is very large."
    return f" {HURT.get(now['share'], 'Only the neighbours in the group of an outlier suffer')}."


def explain(now: dict, before: dict | None, error: formats.Error, then: formats.Error | None) -> str:
    """What changed and why, then where it stands."""
    changed = [name for name in now if before and now[name] != before[name]]
    what = ""
    if len(changed) == 1:
        name = changed[0]
        moved = "" if then is None else f" The others were off by {percent(then.others)} before."
        what = f"{name} went from {said(before[name])} to {said(now[name])}: {WHY[name]}{moved} "
    put_in = (f"Eight numbers are {2**now['outliers']:,} times as large as the typical one; the others are"
              if now["outliers"] else "The numbers are")
    return (f"{what}{put_in} off by {percent(error.others)} in {FORMATS[now['format']]} with "
            f"{shared(now['share'])}, and {percent(error.gone)} of them became 0.{hurt(now)}")


def shared(share: str) -> str:
    """Who shares a scale, in words."""
    return "one scale for the whole matrix" if share == "tensor" else f"a scale for each {SHARES[share]}"


def said(value) -> str:
    """A control's value in words."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return f"2^{value}" if value else "none"
    return SHARES.get(value) or FORMATS.get(value, value)


def percent(share: float) -> str:
    """0.1561 -> "15.6 %"; three digits, and nothing below a thousandth of a per cent."""
    return "0 %" if not share else "<0.001 %" if share < 1e-5 else f"{f'{100 * share:#.3g}'.removesuffix('.')} %"


def short(value: float) -> str:
    """Four digits, and no powers of ten for what people can read without: 469400.0 -> "469,400"."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def formulas(x: torch.Tensor, kept: formats.Kept, error: formats.Error) -> str:
    """Scale, bytes and error with their numbers in them, for the tile whose scale is in the middle."""
    middle = kept.place(0.5)
    over = "(largest − smallest)" if kept.zero_point is not None else "largest"
    which = "the scale" if kept.scale.numel() == 1 else "the scale in the middle of all"
    zero = " and zero points" if kept.zero_point is not None else ""
    return common.formula(
        f"{which} = {over} / {kept.step_count():,} = {short(kept.span(*middle))} / {kept.step_count():,} = "
        f"{short(kept.scale[middle].item())}; numbers up to {short(kept.vanishing(*middle))} become 0 there",
        f"bytes: codes {kept.code_bytes:,} + scales{zero} {kept.scale_bytes:,} = {kept.nbytes:,}; "
        f"8 × {kept.nbytes:,} / {x.numel():,} = {kept.bits_a_number:.3f} bits a number "
        f"(16 bits are {ratio(2 * x.numel(), kept.nbytes)} times as large)",
        f"SNR = 20 log₁₀(1 / {error.relative:.4g}) = {error.snr_db:.1f} dB, of the whole matrix, outliers too")


def table(now: dict) -> str:
    """Every format that can be with this sharing."""
    rows = []
    for name, label in FORMATS.items():
        try:
            error, nbytes, bits = off(**(now | {"format": name}))
        except ValueError:
            continue
        mark = "▶ " if name == now["format"] else ""
        rows.append((f"{mark}{label}", f"{bits:.3f}", f"{nbytes:,}", percent(error.others), percent(error.gone),
                     percent(error.relative), f"{error.snr_db:.1f}", f"{error.worst:.3g}"))
    return common.table(("format", "bits a number", "bytes", "others off by", "became 0", "all off by", "SNR, dB",
                         "worst error"), rows, f"{now['matrix']}, {shared(now['share'])}. Others: "
                        "all but the outliers. Scales: BF16 for integers, 32 bits for FP8.")


@common.sentence_for(5)
def draw(before, *values):
    """Outputs: error map, histogram, sentence and formulas, table, what was drawn."""
    now, note = common.within(dict(zip(START, values, strict=True)), LIMITS)
    x, mask = numbers(now["matrix"], now["outliers"])
    kept = kept_of(**now)
    error = off(**now)[0]
    then = off(**before)[0] if before else None
    places = {"levels, its scale": kept.place(1)} if kept.scale.numel() == 1 else {
        "levels, a scale in the middle": kept.place(0.5), "levels, the largest scale": kept.place(1)}
    reach = formats.reach(x, mask)
    levels = {name: kept.levels(*place).tolist() for name, place in places.items()}
    heat = plots.error_heatmap(formats.error_map(x, kept.values, mask))
    bars = plots.values_and_levels(x.flatten(), levels, reach)
    text = common.said(note + explain(now, before, error, then)) + formulas(x, kept, error)
    return heat, bars, text, table(now), now


def place() -> tuple[dict, list]:
    """Lay the part out: its controls by their name in the address, and the outputs of draw, the notice first."""
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            matrix = gr.Dropdown(list(few_bits.MATRICES), value=START["matrix"], elem_id="matrix",
                                 label="Matrix: a weight of gpt-mini, or random numbers")
            format = gr.Radio([(label, name) for name, label in FORMATS.items()], value=START["format"],
                              label="Format", elem_id="format")
            share = gr.Radio([(label, name) for name, label in SHARES.items()], value=START["share"],
                             label="Who shares a scale", elem_id="share")
            zero = gr.Checkbox(START["zero_point"], label="With a zero point (integers only)", elem_id="zero-point")
            outliers = common.whole_slider("outliers", START["outliers"], (
                "Outliers: 2 to this power", *LIMITS["outliers"], 1,
                "eight numbers, so many times the typical one (the root mean square); 0: none"))
        with gr.Column(scale=2, min_width=300, elem_classes="shown"):
            gr.Markdown("### Where it is off\nThe matrix in cells, each with the error of its own numbers, outliers "
                        "left out.")
            heat = Chart(elem_id="error-map")
    with gr.Column(elem_classes="shown"):
        gr.Markdown("### The values, and the marks of the ruler")
        bars = Chart(elem_id="levels")
        text = gr.HTML(elem_id="matrix-text")
        figures = gr.HTML(elem_id="matrix-table")
    before = gr.State(None)
    controls = dict(zip(START, (matrix, format, share, zero, outliers), strict=True))
    outputs = [notice, heat, bars, text, figures, before]
    gr.on([control.input for control in controls.values()], draw, [before, *controls.values()], outputs,
          api_name="quantization_matrix", **common.FIGURES)
    return controls, outputs
