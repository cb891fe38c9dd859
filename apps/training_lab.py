"""Training lab: a small model trained while one watches, in a process of its own."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder

from apps import code_box, common, starting
from apps import training_lab_views as views
from apps.components import Chart
from apps.limits import TRAINERS, WAITING_TRAINERS
from llm_core import plots
from llm_core.as_python import as_python
from llm_core.training.lab import plan as lab
from llm_core.training.lab import texts
from llm_core.training.lab.desk import Desk
from llm_core.training.lab.plan import Settings
from llm_core.training.lab.record import Record, new_record, recorded
from llm_core.training.lab.turns import Turns

TITLE = "Training lab"
PATH = "/training"
SLIDERS = {  # label, least, greatest, step, hint
    "n_layers": ("Layers", *lab.LIMITS["n_layers"], 1),
    "d_model": ("Width (d_model)", *lab.LIMITS["d_model"], 16),
    "n_heads": ("Heads (must divide the width)", *lab.LIMITS["n_heads"], 1),
    "context": ("Context: tokens of a text", *lab.LIMITS["context"], 16),
    "batch_size": ("Batch: texts in a step", *lab.LIMITS["batch_size"], 1),
}
BLOCKS = (("GPT-2: learned positions, LayerNorm, GELU", "gpt2"), ("DeepSeek: RoPE, RMSNorm, SwiGLU", "deepseek"))
FEEDS = (("dense", "dense"), ("8 experts, 2 used (MoE)", "moe"))
SOURCES = (("Shakespeare's plays", "plays"), ("one short scene", "scene"), ("a text of your own", "own"))
RATES = [(f"{rate:g}", f"{rate:g}") for rate in lab.LEARNING_RATES]
START = {"source": "plays", "block": "gpt2", "attention": "MHA", "feed_forward": "dense", "n_layers": 3, "d_model": 96,
         "n_heads": 4, "context": 64, "batch_size": 8, "learning_rate": "0.003", "seed": 0, "seconds": 60}
CHOICES = {"source": texts.SOURCES, "block": lab.BLOCKS, "attention": lab.ATTENTIONS,
           "feed_forward": lab.FEED_FORWARDS, "learning_rate": [value for _, value in RATES]}
PAUSE = 0.5  # seconds between two looks at a run
REDRAWN = 1.5  # seconds between two charts, or a slow browser would do nothing but draw


def most_seconds() -> int:
    return lab.CLASS_SECONDS if starting.for_a_class() else lab.SECONDS[1]


def limits() -> dict[str, tuple[int, int]]:
    return {**lab.LIMITS, "seconds": (lab.SECONDS[0], most_seconds())}


def at_once() -> int:
    """How many may train at the same time: COURSE_TRAININGS in the environment, or TRAINERS."""
    given = os.environ.get("COURSE_TRAININGS", "")
    return int(given) if given.isdigit() and 1 <= int(given) <= 64 else TRAINERS


# Gradio serves files of its own folder alone.
DESK = Desk(Turns(at_once(), WAITING_TRAINERS), Path(get_upload_folder()) / "training")


def settings_of(values: dict) -> Settings:
    """The settings of the controls' values, which are within their limits."""
    own = {name: value for name, value in values.items() if name not in ("source", "seconds")}
    return Settings(**{**own, "learning_rate": float(own["learning_rate"])})


def chosen(*values) -> tuple[dict, str]:
    """The controls' values by name, within their limits, and a sentence about those that were not."""
    return common.within(dict(zip(START, values, strict=True)), limits())


@common.sentence_for(1)
def draw(*values):
    """What the run will take, for the controls' values."""
    now, note = chosen(*values)
    settings = settings_of(now)
    return views.plan_html(settings, lab.plan(settings, now["seconds"], most_seconds()), note)


def own_code(*values) -> str:
    now, _ = chosen(*values)
    return as_python(settings_of(now).config())


# A run ---------------------------------------------------------------------------------------------------------------

def shown(record: Record, before: Record | None) -> tuple:
    """Chart, sample, sentence and tables of a run."""
    chart = plots.training_curves(record.progress, record.looks, record.started.get("blind"), record.limit,
                                  before.looks if before else (), "before")
    return (chart, views.sample_html(record), common.said(views.explain(record, before)), views.tables_html(record))


NOTHING = (gr.skip(),) * 4  # in place of what `shown` gives


async def train(request: gr.Request, kept: dict | None, own: str, *values):
    """Wait for one's turn, train, and show how it goes. Outputs: notice, status, shown's, download, and what is kept
    to compare the next run with."""
    visitor, mine = request.session_hash, False
    try:
        now, _ = chosen(*values)
        settings = settings_of(now)
        record = new_record(settings, now["seconds"], most_seconds())
        if now["source"] == "own":
            texts.check_own(own)
        DESK.enter(visitor)
        mine = True
        while place := DESK.place(visitor):
            if DESK.stopped(visitor):
                yield "", views.status_html("You left the line."), *NOTHING, gr.skip(), gr.skip()
                return
            yield "", views.waiting_html(place), *NOTHING, gr.skip(), gr.skip()
            await asyncio.sleep(PAUSE)
        run = await asyncio.to_thread(DESK.start, visitor, settings, now["source"], own, now["seconds"])
        before = Record.from_dict(kept) if kept else None
        yield ("", views.status_html("Starting: a process of its own reads torch and the text, which takes some "
                                     "seconds."), *shown(record, before), gr.DownloadButton(visible=False), gr.skip())
        drawn = 0.0
        while not run.over:
            DESK.place(visitor)  # still here
            for message in run.news():
                record.add(message)
            if record.started and not record.done and not record.problem:
                due = time.monotonic() - drawn >= REDRAWN
                drawn = time.monotonic() if due else drawn
                yield (gr.skip(), views.running_html(record), *(shown(record, before) if due else NOTHING), gr.skip(),
                       gr.skip())
            await asyncio.sleep(PAUSE)
        if record.problem:
            raise ValueError(record.problem)
        if not record.done:  # the page was closed, and the run with it
            return
        file = gr.DownloadButton(value=str(run.folder / record.done["file"]), visible=True)
        yield "", views.done_html(record), *shown(record, before), file, record.to_dict()
    except common.PROBLEMS as problem:
        yield (common.notice(common.sentence(problem)), views.status_html("Nothing is trained now."), *NOTHING,
               gr.skip(), gr.skip())
    finally:
        if mine:
            DESK.finish(visitor)


def stop(request: gr.Request) -> None:
    DESK.stop(request.session_hash)


def gone(request: gr.Request) -> None:
    """The page was closed."""
    DESK.leave(request.session_hash)


# The page ------------------------------------------------------------------------------------------------------------

def state(request: gr.Request | None) -> tuple[dict, str]:
    defaults = {**START, "seconds": min(START["seconds"], most_seconds())}
    return common.read_query(request, defaults, CHOICES, limits())


def first_record() -> tuple[Record | None, Record | None]:
    """What the page opens with, and what that is compared with: two runs that were recorded."""
    return recorded().get("deepseek"), recorded().get("gpt")


def build(demo: gr.Blocks) -> None:
    first, _ = state(None)
    common.question("What does a minute of training buy?", "Set a small model, press Train, and watch it learn from "
                    "nothing: its loss, its first words. It trains in a process of its own on one core of this "
                    "computer; then it is yours to download.")
    if starting.for_a_class():
        gr.Markdown(f"This site was started for a class, so your teacher has limited a run to {lab.CLASS_SECONDS} "
                    "seconds.", elem_id="class")
    notice = common.notice_box()
    record, before = first_record()
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            source = gr.Radio(SOURCES, value=first["source"], label="It learns from", elem_id="source")
            own = gr.Textbox("", label="Your text", lines=5, max_lines=12, visible=False, elem_id="own",
                             info=f"{texts.LEAST_CHARACTERS:,} to {texts.MOST_CHARACTERS:,} characters. The last tenth "
                                  "is held out. It stays on this computer.")
            block = gr.Radio(BLOCKS, value=first["block"], label="Block", elem_id="block")
            attention = gr.Radio(lab.ATTENTIONS, value=first["attention"], label="Attention", elem_id="attention")
            feed = gr.Radio(FEEDS, value=first["feed_forward"], label="Feed-forward network", elem_id="feed-forward")
            with gr.Accordion("Sizes", open=False):
                sliders = {name: common.whole_slider(name, first[name], spec) for name, spec in SLIDERS.items()}
            rate = gr.Radio(RATES, value=first["learning_rate"], label="Learning rate", elem_id="learning-rate")
            with gr.Accordion("Seed", open=False):
                seed = common.whole_slider("seed", first["seed"], (
                    "Seed", *lab.LIMITS["seed"], 1, "the same seed and settings give the same loss at the same step"))
            seconds = common.whole_slider("seconds", first["seconds"], ("Seconds of training", *limits()["seconds"], 1))
            with gr.Row():
                start = gr.Button("Train", variant="primary", min_width=100, elem_id="train")
                halt = gr.Button("Stop", variant="stop", min_width=100, elem_id="stop")
            controls = {"source": source, "block": block, "attention": attention, "feed_forward": feed, **sliders,
                        "learning_rate": rate, "seed": seed, "seconds": seconds}
        with gr.Column(scale=2, min_width=300, elem_classes="result"):
            status = gr.HTML(views.recorded_html(record), elem_id="status")
            first_shown = shown(record, before) if record else [None] * 4
            chart = Chart(first_shown[0], elem_id="curves")
            download = gr.DownloadButton("Download the model (zip)", visible=False, elem_id="download", size="sm")
            sample = gr.HTML(first_shown[1], elem_id="sample")
    with gr.Column(elem_classes="result"):
        text = gr.HTML(first_shown[2], elem_id="text")
        tables = gr.HTML(first_shown[3], elem_id="tables")
        gr.Markdown("### What the next run will take, by accounting")
        planned = gr.HTML(draw(*first.values())[1], elem_id="plan")
    common.copy_link_button(controls)
    code_box.python_button(own_code, list(controls.values()), notice, "training_python")
    common.try_this([
        ("DeepSeek's block with MLA and experts: as many active parameters as the GPT", common.link(
            "", block="deepseek", attention="MLA", feed_forward="moe")),
        ("A learning rate of 1: every step overshoots", common.link("", learning_rate="1", seconds=20)),
        ("One short scene, over and over: it learns by heart", common.link(
            "", source="scene", learning_rate="0.01"))])
    common.lesson("`course/01_architecture/03_training_a_gpt.ipynb` builds this loop by hand and breaks it; "
                  "`course/09_capstone/01_mini_deepseek.ipynb` trains a small DeepSeek beside a GPT. Longer runs: "
                  "`python -m llm_core.training --help`.")
    kept = gr.State(before.to_dict() if before else None)
    inputs = list(controls.values())

    def opened(request: gr.Request):
        values, problem = state(request)
        said, planned = draw(*values.values())
        return (*values.values(), gr.Textbox(visible=values["source"] == "own"),
                said or common.notice(problem, note=True), planned)

    gr.on([control.input for control in inputs], draw, inputs, [notice, planned], api_name="training_plan_shown",
          **common.FIGURES)
    source.change(lambda chosen: gr.Textbox(visible=chosen == "own"), source, own, api_name="training_source",
                  **common.FIGURES)
    start.click(train, [kept, own, *inputs], [notice, status, chart, sample, text, tables, download, kept],
                api_name="training_run", **common.TRAINING)
    start.click(None, js="() => document.getElementById('status').scrollIntoView({block: 'nearest'})")  # on a phone
    halt.click(stop, None, None, api_name="training_stop", **{**common.TRAINING, "trigger_mode": "multiple"})
    demo.unload(gone)
    common.on_opening(demo, opened, [*inputs, own, notice, planned], notice, "training_open")


# For programs --------------------------------------------------------------------------------------------------------

def training_plan(block: str = "gpt2", attention: str = "MHA", feed_forward: str = "dense", n_layers: int = 3,
                  d_model: int = 96, n_heads: int = 4, context: int = 64, batch_size: int = 8,
                  seconds: int = 60) -> dict:
    """What training a small model here would take.

    block: "gpt2" (with MHA and dense alone) or "deepseek"; attention: "MHA", "GQA" or "MLA"; feed_forward: "dense" or
    "moe"; n_layers 1 to 6, d_model 32 to 192, n_heads 1 to 12, context 32 to 128, batch_size 1 to 32, seconds 5 to 120.
    Comes back: parameters, active_parameters, tokens_per_step, flops_per_step, training_bytes (weights, gradients and
    AdamW), seconds_per_step and steps (roughly, on one core), and limits.
    """
    settings = Settings(block, attention, feed_forward, n_layers, d_model, n_heads, context, batch_size)
    return {**lab.plan(settings, seconds, most_seconds()).to_dict(),
            "limits": {name: list(span) for name, span in limits().items()} | {
                "parameters": lab.MOST_PARAMETERS, "flops_per_step": int(lab.MOST_FLOPS)}}


def train_briefly(block: str = "gpt2", attention: str = "MHA", feed_forward: str = "dense", n_layers: int = 3,
                  d_model: int = 96, n_heads: int = 4, context: int = 64, batch_size: int = 8,
                  learning_rate: float = 0.003, seed: int = 0, seconds: int = 5) -> dict:
    """Train a small model on Shakespeare for 5 to 10 seconds, as on the page "Training lab", and tell how it went.

    Settings as for training_plan; learning_rate: 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1 or 1. One trains at a time:
    if that is somebody else, the answer is an error that says so. Comes back: parameters, steps, seconds, blind (bits
    per byte of an even guess), bits_per_byte (held-out text: [seconds, step, bits per byte] at each look), losses (step
    -> training loss in nats a token, the same for the same seed), sample (text after "ROMEO:"), and verdict ("learned",
    "memorised" or "overshot").
    """
    settings = Settings(block, attention, feed_forward, n_layers, d_model, n_heads, context, batch_size,
                        float(learning_rate), seed)
    if seconds not in range(5, 11):
        raise ValueError(f"seconds must be from 5 to 10 here, not {seconds!r}; the page trains longer")
    return views.brief(settings, lab.plan(settings, seconds).parameters,
                       DESK.whole_run(f"program {uuid.uuid4()}", settings, new_record(settings, seconds)))


API = (training_plan, train_briefly)


if __name__ == "__main__":
    from apps import starting, training_lab

    starting.run_alone(training_lab)
