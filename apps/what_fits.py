"""What fits: a model's weights, cache or training states against a machine's memory, and how fast it could be."""

from __future__ import annotations

import gradio as gr

from apps import code_box, common, config_json, contexts
from apps.components import Chart
from apps.what_fits_views import (
    RUN,
    TRAIN,
    explain,
    facts,
    hardware_table,
    limits_table,
    memory_table,
    short,
)
from llm_core import accounting, plots, presets
from llm_core.accounting import HARDWARE
from llm_core.as_python import as_python

TITLE = "What fits"
PATH = "/what-fits"
START = {"preset": "llama-3.1-8b", "hardware": "rtx-3070", "gpus": 1, "mode": RUN, "weight_bits": 4, "cache_bits": 16,
         "context": "8,192", "batch": 1}
LIMITS = {"gpus": (1, 64), "batch": (1, 1024)}
CHOICES = {"preset": presets.names(), "hardware": list(HARDWARE), "mode": [RUN, TRAIN],
           "weight_bits": [32, 16, 8, 4], "cache_bits": [16, 8, 4]}
MOST_CONTEXT = contexts.STEPS[-1]

def settled(preset, kept, hardware, gpus, mode, weight_bits, cache_bits, context, batch) -> tuple[dict, str]:
    """The controls' values as they count, and a sentence about those that had to be others."""
    now = {"preset": config_json.NAME if kept else preset, "hardware": hardware, "gpus": gpus, "mode": mode,
           "weight_bits": weight_bits, "cache_bits": cache_bits, "context": accounting.parse_tokens(context),
           "batch": batch}
    if now["context"] > MOST_CONTEXT:
        raise ValueError(f"a context of {now['context']:,} tokens is more than is drawn here; nearest: "
                         f"{MOST_CONTEXT:,}")
    now, note = common.within(now, LIMITS)
    if mode == TRAIN and weight_bits not in accounting.TRAINING_BITS:
        now["weight_bits"] = 16
        note += f"Weights of {weight_bits} bits are for running; training is counted with 16 (mixed precision). "
    return now, note


@common.sentence_for(5)
def draw(before, preset, kept, *controls):
    """The stacked bar, the roofline, the sentence with formulas, the tables, and what to compare the next with."""
    config = config_json.base_of(preset, kept)
    now, note = settled(preset, kept, *controls)
    if now == before and not note:  # a box was left as it was: nothing may overwrite what another control has shown
        return *(gr.skip() for _ in range(4)), now
    training, context, batch = now["mode"] == TRAIN, now["context"], now["batch"]
    f = facts(config, HARDWARE[now["hardware"]], now["gpus"], training, now["weight_bits"], now["cache_bits"], context,
              batch)
    if context > config.max_seq_len:
        note += f"{now['preset']} reads at most {config.max_seq_len:,} tokens; figures go on as if it read more. "
    lines = accounting.need_formulas(config, f["need"], batch, context, **f["kinds"])
    if not training:
        bound = next(iter(f["bounds"].values()))[batch]
        lines.append(accounting.decode_formula(bound, f["machine"], batch, now["weight_bits"]))
    text = common.said(note + explain(now, before, now["preset"], f)) + common.formula(*lines)
    caption = (f"{now['preset']}, {context:,} tokens, batch {batch:,}, weights of {now['weight_bits']} bits, "
               f"on {short(f['machine'])}")
    roofline = gr.skip() if training else plots.decode_roofline(f["bounds"], batch, f["most"])
    return (plots.memory_stack(f["need"], f["machine"].memory, short(f["machine"])), roofline, text,
            memory_table(f, caption) + limits_table(config, now, f), now)


def does_it_fit(preset: str = "llama-3.1-8b", hardware: str = "rtx-3070", gpus: int = 1, weight_bits: int = 4,
                cache_bits: int = 16, context: int = 8192, batch: int = 1, training: bool = False,
                config_json_text: str = "") -> dict:
    """Say whether a language model fits into a machine's memory, and the most tokens a second that it could write.

    preset: a model's name, or send a Hugging Face config.json's content as config_json_text. hardware: h200, h100,
    a100, mi300x, l4, t4, rtx-4090, rtx-3070, m1-max or laptop; gpus: how many of it, 1 to 64. training: count training
    states (weight_bits 16 or 32) and not a cache. Back come bytes by part, whether they fit, the longest context and
    largest batch that do, and tokens_per_second_at_most: an upper bound, from the maker's data sheet. What cannot be
    is an error that says why.
    """
    if hardware not in HARDWARE:
        raise ValueError(f"hardware must be one of {', '.join(HARDWARE)}, not {str(hardware)[:40]!r}")
    for name, value in (("gpus", gpus), ("batch", batch)):
        least, most = LIMITS[name]
        if not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{name} must be a whole number from {least} to {most:,}, not {value!r}")
    if not isinstance(context, int) or not 1 <= context <= MOST_CONTEXT:
        raise ValueError(f"context must be a whole number from 1 to {MOST_CONTEXT:,}, not {context!r}")
    f = facts(config_json.base_of(preset, config_json_text), HARDWARE[hardware], gpus, training, weight_bits,
              cache_bits, context, batch)
    speed = f["speed"] if training else next(iter(f["bounds"].values()))[batch].tokens_per_second
    return {"fits": f["fits"], "bytes_by_part": f["need"].by_part, "bytes": f["need"].total,
            "memory_bytes": f["machine"].memory, "machines_needed": f["machines"], "longest_context": f["longest"],
            "largest_batch": f["most"], "tokens_per_second_at_most": speed, "source": HARDWARE[hardware].source}


API = (does_it_fit,)


def own_code(preset: str, kept: str) -> str:
    """The model's config as Python."""
    return as_python(config_json.base_of(preset, kept), None if kept else preset)


def state(request: gr.Request | None) -> tuple[dict, str]:
    """The controls' values for an address, and a sentence about what in it could not be used."""
    values, problem = common.read_query(request, START, CHOICES, LIMITS)
    kept, unread = config_json.from_address(request)
    try:
        tokens = accounting.parse_tokens(values["context"])
        if tokens > MOST_CONTEXT:
            raise ValueError(f"a context of {tokens:,} tokens is more than the {MOST_CONTEXT:,} that are drawn here")
        values["context"] = f"{tokens:,}"
    except ValueError as wrong:
        values["context"], problem = START["context"], f"{problem} From the address: {wrong}."
    preset = values.pop("preset")
    return {"preset": preset, "config": kept, **values}, f"{problem} {unread}".strip()


def build(demo: gr.Blocks) -> None:
    first, _ = state(None)
    shown = draw(None, *first.values())[1:]
    common.question("Does it fit on my GPU, and how fast could it be?", "A model needs room for its weights, and for "
                    "its cache when it writes or its training states when it learns. How fast it writes is bounded by "
                    "two numbers of the machine: the bytes a second that its memory gives, and the FLOPs a second "
                    "(multiplications and additions) that it computes.")
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            preset = gr.Dropdown(presets.names(), value=first["preset"], label="Model", elem_id="preset")
            own = config_json.place()
            machines = [(f"{short(h)}, {h.memory // 10**9} GB", key) for key, h in HARDWARE.items()]
            hardware = gr.Dropdown(machines, value=first["hardware"], label="Machine", elem_id="hardware")
            gpus = common.whole_slider("gpus", first["gpus"], ("How many of it", *LIMITS["gpus"], 1))
            mode = gr.Radio([RUN, TRAIN], value=first["mode"], label="What for", elem_id="mode")
            weight_bits = gr.Radio(CHOICES["weight_bits"], value=first["weight_bits"], label="Bits a weight",
                                   elem_id="weight-bits")
            with gr.Column() as caching:
                cache_bits = gr.Radio(CHOICES["cache_bits"], value=first["cache_bits"], elem_id="cache-bits",
                                      label="Bits a number in the cache")
            step, context = contexts.place(first["context"])
            batch = common.whole_slider("batch", first["batch"], ("Batch: sequences at once", *LIMITS["batch"], 1))
            controls = {"preset": preset, "config": own.kept, "hardware": hardware, "gpus": gpus, "mode": mode,
                        "weight_bits": weight_bits, "cache_bits": cache_bits, "context": context, "batch": batch}
            common.copy_link_button(controls)
            code_box.python_button(own_code, [preset, own.kept], notice, "what_fits_python")
            common.try_this([
                ("DeepSeek-V3 in FP8 on eight H200", common.link(
                    "", preset="deepseek-v3", hardware="h200", gpus=8, weight_bits=8, context="32k", batch=16)),
                ("GPT-2 on a laptop: it fits on anything", common.link(
                    "", preset="gpt2", hardware="laptop", weight_bits=32, context=1024)),
                ("Train Llama 3.1 8B: sixteen bytes a parameter", common.link(
                    "", preset="llama-3.1-8b", hardware="h100", gpus=2, mode=TRAIN, weight_bits=16))])
        with gr.Column(scale=2, min_width=300, elem_classes="result"):
            gr.Markdown("### What it needs, against the memory")
            stack = Chart(shown[0], elem_id="stack")
            text = gr.HTML(shown[2], elem_id="text")
            with gr.Column() as speed:
                gr.Markdown("### How fast it could write, at most")
                roofline = Chart(shown[1], elem_id="roofline")
                gr.HTML(common.said(
                    "Filled dots: reading memory takes longer, so a larger batch brings more tokens a second. Hollow "
                    "dots: computing takes longer, and a larger batch brings no more. DeepSeek's attention (MLA) can "
                    "decode in two ways: absorbed, which works on the cached latents as they are, and naive, which "
                    "makes the keys and values of all past tokens anew for each token."))
    with gr.Column(elem_classes="result"):
        tables = gr.HTML(shown[3], elem_id="tables")
    with gr.Accordion("The machines, and where their figures are from", open=False):
        gr.HTML(hardware_table(), elem_id="machines")
    gr.Markdown("Not counted: what the runtime takes for itself, scales of quantised weights, and the activations of a "
                "long prompt read at once. Several GPUs are taken as one: everything divided evenly, nothing sent.")
    common.lesson("`course/03_kv_cache/01_the_cache.ipynb` measures the cache and what bounds decoding; "
                  "`course/09_capstone/03_what_training_took.ipynb` counts what training V3 took; "
                  "`course/01_architecture/01_journey_of_a_token.ipynb` counts the weights.")
    before = gr.State(shown[4])
    outputs = [notice, stack, roofline, text, tables, before]
    inputs = [before, *controls.values()]
    groups = [caching, speed]

    def seen(mode) -> list[gr.Column]:
        return [gr.Column(visible=mode == RUN), gr.Column(visible=mode == RUN)]

    def mode_changed(*given):
        return *seen(given[5]), *draw(*given)

    def preset_chosen(before, preset, _, *rest):
        return "", "", *draw(before, preset, "", *rest)

    def opened(request: gr.Request):
        values, problem = state(request)
        said, *rest = draw(None, *values.values())
        position = contexts.step_of(values["context"])
        return *values.values(), position, *seen(values["mode"]), said or common.notice(problem, note=True), *rest

    gr.on([hardware.input, gpus.input, weight_bits.input, cache_bits.input, batch.input], draw, inputs, outputs,
          api_name="what_fits", **common.FIGURES)
    mode.input(mode_changed, inputs, [*groups, *outputs], api_name="what_fits_mode", **common.FIGURES)
    contexts.connect(step, context, draw, inputs, outputs, "what_fits")
    gr.on([preset.input, own.forget.click], preset_chosen, inputs, [own.kept, own.remark, *outputs],
          api_name="what_fits_preset", **common.FIGURES)
    config_json.connect(own, inputs, outputs, notice, lambda kept, before, preset, _, *rest: draw(
        before, preset, kept, *rest), "what_fits")
    common.on_opening(demo, opened, [*controls.values(), step, *groups, *outputs], notice, "what_fits_open")


if __name__ == "__main__":
    from apps import starting, what_fits

    starting.run_alone(what_fits)
