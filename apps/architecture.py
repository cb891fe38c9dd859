"""Architecture: take any model, move any of its dimensions, and see where its parameters are."""

from __future__ import annotations

import html

import gradio as gr

from apps import architecture_controls, architecture_published, code_box, common, config_json
from apps.architecture_api import count_parameters
from apps.architecture_controls import (
    CHOICES,
    LIMITS,
    ORDER,
    SLIDERS,
    SWITCHES,
    config_of,
    off_their_sliders,
    values_of,
)
from apps.components import Chart
from llm_core import ModelConfig, accounting, plots, presets
from llm_core.as_python import as_python

TITLE = "Architecture"
PATH = "/architecture"
START, BESIDE = "deepseek-v3", "deepseek-v2"


def explain(now: dict, before: dict | None, counted: accounting.Parameters) -> str:
    """What changed and why, then what the model is."""
    what = ""
    changed = [name for name in ORDER if before and before["preset"] == now["preset"] and now[name] != before[name]]
    if len(changed) == 1:
        name = changed[0]
        why = {**SLIDERS, **CHOICES, **SWITCHES}[name][-1]
        moved = before["total"] != counted.total
        what = (f"{name} went from {_shown(before[name])} to {_shown(now[name])}, and the total "
                + (f"from {accounting.human_count(before['total'])} to {accounting.human_count(counted.total)}"
                   if moved else "stayed as it was") + f": {why}. ")
    largest = max(counted.by_part, key=counted.by_part.get)
    return (f"{what}Of {accounting.human_count(counted.total)} parameters, {accounting.human_count(counted.active)} "
            f"({accounting.percent(counted.active, counted.total)}) work on each token. The largest part: {largest}, "
            f"with {accounting.percent(counted.by_part[largest], counted.total)} of all.")


def table(config: ModelConfig, preset: str, beside: str) -> str:
    """Every part, exact, and the figures that stand for the whole; a second model and the ratio beside it."""
    other = presets.get(beside)
    mine, its = accounting.count_parameters(config), accounting.count_parameters(other)
    rows = []
    for part in accounting.PARTS:
        if part in mine.by_part or part in its.by_part:
            n, active, m = mine.by_part.get(part, 0), mine.active_by_part.get(part, 0), its.by_part.get(part, 0)
            rows.append((part, f"{n:,}", accounting.percent(n, mine.total), f"{active:,}", f"{m:,}",
                         accounting.times(n, m)))

    def whole(label, n, m, share=True):
        part = accounting.percent(n, mine.total) if share else ""
        rows.append((label, f"{n:,}", part, "", f"{m:,}", accounting.times(n, m)))

    whole("total: the main model", mine.total, its.total)
    whole("active (rule_all: all but the experts not chosen)", mine.active, its.active)
    whole("active, without the input embedding", mine.active_no_input_embedding, its.active_no_input_embedding)
    whole("active, without embedding and head", mine.active_no_embed_no_head, its.active_no_embed_no_head)
    whole("apart: MTP modules (embedding and head shared)", mine.mtp, its.mtp, share=False)
    whole("apart: router biases (buffers, moved by a rule)", mine.router_biases, its.router_biases, share=False)
    whole("cache, bytes a token (16 bits)", accounting.cache_bytes_per_token(config),
          accounting.cache_bytes_per_token(other), share=False)
    return common.table(("part", "this model", "share", "active for a token", beside, "ratio"), rows,
                        f"Parameters of {preset} as the controls have it, and of {beside} as it is",
                        colours=plots.COLOURS)


def total_formula(counted: accounting.Parameters) -> str:
    """The total as the sum of its parts."""
    parts = " + ".join(f"{n:,} {part}" for part, n in counted.by_part.items())
    return common.formula(f"total = {parts} = {counted.total:,}")


def tensor_formulas(config: ModelConfig) -> str:
    """Every tensor as its sizes × its copies, those of MTP modules too."""
    def line(row: accounting.Row) -> str:
        copies = (row.copies,) if row.copies > 1 else ()
        factors = " × ".join(f"{n:,}" for n in (*row.shape, *copies))
        return f"{row.part}, {row.name}, {row.where}: {factors} = {row.total:,}"

    return common.formula(*map(line, [*accounting.rows(config), *accounting.mtp_rows(config)]))


def settled(base: ModelConfig, values) -> tuple[ModelConfig, dict, str]:
    """The config that the controls make of a base, their values as they count, and a sentence about those that moved.

    Sizes of the base that are off their sliders are held as they are, wherever the sliders stand.
    """
    held = off_their_sliders(base)
    now, note = common.within({**dict(zip(ORDER, values)), **held}, LIMITS | {name: (n, n) for name, n in held.items()})
    if held:
        sizes = ", ".join(f"{name} {n:,}" for name, n in held.items())
        note += f"Off the sliders, and counted exactly as they are: {sizes}; moving those sliders changes nothing. "
    return config_json.checked(config_of(base, now)), now, note


@common.sentence_for(5)
def draw(before, preset, beside, kept, *values):
    """For the controls' values: chart, sentence and formula, table, all tensors, and what to compare the next with."""
    base, name = config_json.base_of(preset, kept), config_json.NAME if kept else preset
    config, now, note = settled(base, values)
    counted = accounting.count_parameters(config)
    now |= {"preset": name, "beside": beside, "total": counted.total}
    text = common.said(note + explain(now, before, counted)) + total_formula(counted) + fits_link(preset, config)
    return (plots.parameter_treemap(config, "all parameters"), text, table(config, name, beside),
            tensor_formulas(config), now)


def fits_link(preset: str, config: ModelConfig) -> str:
    """A link to the page What fits, with this very model."""
    model = {"preset": preset} if config == presets.get(preset) else {"config": config_json.keep(config)}
    return f'<p><a href="{html.escape(common.link("/what-fits", **model))}">Does it fit on my GPU?</a></p>'


def own_code(preset, beside, kept, *values) -> str:
    """The config that the controls make, as Python."""
    config, _, _ = settled(config_json.base_of(preset, kept), values)
    return as_python(config, None if kept else preset)


API = (count_parameters,)


def _shown(value) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else str(value)


def published(preset: str) -> tuple:
    """Heading and chart of the model beside."""
    return f"### {preset}, as it is", plots.parameter_treemap(presets.get(preset), "all parameters")


def state(request: gr.Request | None) -> tuple[dict, str]:
    """The controls' values for an address, and a sentence about what in it could not be used."""
    known = {"preset": presets.names(), "beside": presets.names()}
    models, problem = common.read_query(request, {"preset": START, "beside": BESIDE}, known)
    kept, unread = config_json.from_address(request)
    base = config_json.base_of(models["preset"], kept)
    choices = {name: choice[1] for name, choice in CHOICES.items()}
    held = {name: (n, n) for name, n in off_their_sliders(base).items()}
    values, more = common.read_query(request, values_of(base), choices, LIMITS | held)
    return {**models, "config": kept, **values}, " ".join(filter(None, (problem, unread, more)))


def build(demo: gr.Blocks) -> None:
    first, _ = state(None)
    shown, beside_shown = draw(None, *first.values())[1:], published(BESIDE)
    common.question("Where are a model's parameters?", "Take any model, move any of its sizes, and see what it weighs "
                    "and what works on each token. Every control changes a field of the same `ModelConfig`.")
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            preset = gr.Dropdown(presets.names(), value=START, label="Start from", elem_id="preset")
            own = config_json.place()
            beside = gr.Dropdown(presets.names(), value=BESIDE, label="Compare with", elem_id="beside")
            controls, groups = architecture_controls.place(first)
            everything = {"preset": preset, "beside": beside, "config": own.kept, **controls}
            common.copy_link_button(everything)
            code_box.python_button(own_code, list(everything.values()), notice, "architecture_python")
            common.try_this([
                ("DeepSeek-V3 with every expert made dense: what one network of that width weighs",
                 common.link("", preset="deepseek-v3", beside="deepseek-v3", moe=False)),
                ("GPT-2 with DeepSeek's attention", common.link(
                    "", preset="gpt2", beside="gpt2", attention="MLA", positions="rope", kv_lora_rank=128)),
                ("Kimi K2 beside DeepSeek-V3: more experts, fewer heads",
                 common.link("", preset="kimi-k2", beside="deepseek-v3"))])
        with gr.Column(scale=2, min_width=300):
            with gr.Row():
                with gr.Column(scale=3, min_width=260, elem_classes="result"):
                    gr.Markdown("### As the controls have it")
                    chart = Chart(shown[0], elem_id="chart")
                with gr.Column(scale=2, min_width=260):
                    title = gr.Markdown(beside_shown[0])
                    other = Chart(beside_shown[1], elem_id="other")
            with gr.Column(elem_classes="result"):
                text = gr.HTML(shown[1], elem_id="text")
                parts = gr.HTML(shown[2], elem_id="table")
                with gr.Accordion("The formula tensor by tensor: out × in × how many", open=False):
                    tensors = gr.HTML(shown[3], elem_id="tensors")
    architecture_published.build()
    common.lesson("`course/01_architecture/01_journey_of_a_token.ipynb` follows one token through GPT-2 and counts its "
                  "parameters. The rules of counting are those of `llm_core.accounting`, which also prints a table: "
                  "`python -m llm_core.accounting deepseek-v3`.")
    before = gr.State(shown[4])
    outputs = [notice, chart, text, parts, tensors, before]
    inputs = [before, *everything.values()]
    every_control = [*controls.values(), *groups, *outputs]

    def kind_changed(*given):
        return *architecture_controls.seen(dict(zip(ORDER, given[4:]))), *draw(*given)

    def redrawn(before, preset, beside, kept):
        """All controls and outputs for a model as it is."""
        values = values_of(config_json.base_of(preset, kept))
        return (*values.values(), *architecture_controls.seen(values),
                *draw(before, preset, beside, kept, *values.values()))

    def preset_chosen(before, preset, beside, *_):
        return "", "", *redrawn(before, preset, beside, "")

    def beside_chosen(*given):
        return *published(given[2]), *draw(*given)

    def opened(request: gr.Request):
        values, problem = state(request)
        told, *rest = draw(None, *values.values())
        if told:  # show the model as it is, greyed, under the sentence that says why not what was asked for
            base = config_json.base_of(values["preset"], values["config"])
            _, *rest = draw(None, *(values | values_of(base)).values())
        told = told or common.notice(problem, note=True)
        return *values.values(), *architecture_controls.seen(values), *published(values["beside"]), told, *rest

    kinds = [controls["attention"], controls["moe"]]
    gr.on([c.input for c in controls.values() if c not in kinds], draw, inputs, outputs, api_name="architecture",
          **common.FIGURES)
    gr.on([c.input for c in kinds], kind_changed, inputs, [*groups, *outputs], api_name="architecture_kind",
          **common.FIGURES)
    gr.on([preset.input, own.forget.click], preset_chosen, inputs, [own.kept, own.remark, *every_control],
          api_name="architecture_preset", **common.FIGURES)
    config_json.connect(own, [before, preset, beside], every_control, notice, lambda kept, *given: redrawn(
        *given, kept), "architecture")
    beside.input(beside_chosen, inputs, [title, other, *outputs], api_name="architecture_beside", **common.FIGURES)
    common.on_opening(demo, opened, [*everything.values(), *groups, title, other, *outputs], notice,
                      "architecture_open")


if __name__ == "__main__":
    from apps import architecture, starting

    starting.run_alone(architecture)
