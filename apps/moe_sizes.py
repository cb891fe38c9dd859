"""MoE lab, first part: how many experts, how fine, how many chosen, and what that holds and uses."""

from __future__ import annotations

import gradio as gr

from apps import code_box, common
from apps.components import Chart
from llm_core import ModelConfig, accounting, plots, presets
from llm_core.accounting import experts
from llm_core.as_python import as_python

MODELS = [name for name in presets.names() if presets.get(name).moe]
START = "deepseek-v3"
PIECES = [1, 2, 4, 8, 16]

# Name in MoEConfig and in the query -> label, least, greatest, step, hint.
SLIDERS = {
    "n_routed_experts": ("Routed experts", 1, 1024, 1, None),
    "n_experts_per_token": ("Chosen for a token (top-k)", 1, 64, 1, None),
    "n_shared_experts": ("Shared experts, which every token uses", 0, 16, 1, None),
    "d_expert": ("Inner width of an expert (d_expert)", 8, 32768, 8, None),
    "n_expert_groups": ("Groups of experts", 1, 64, 1, "a group is what lies on one machine; must divide the experts"),
    "n_limited_groups": ("Groups open to a token", 1, 64, 1, "its experts all come from these"),
}
LIMITS = {name: (least, most) for name, (_, least, most, *_) in SLIDERS.items()}
WHY = {
    "pieces": "as many times more experts, each that much narrower, and as many times more chosen. What is held and "
              "used stays, but for the router's rows; the ways to choose explode.",
    "n_routed_experts": "each is a network that must be held; a token uses as many as before.",
    "n_experts_per_token": "all experts are there anyway, so only the active part and the FLOPs move.",
    "n_shared_experts": "a shared expert works on every token, so both bars move by the same count.",
    "d_expert": "all experts' matrices have a side of this width.",
    "n_expert_groups": "groups have no weights; they only limit the choice.",
    "n_limited_groups": "the limit has no weights; it only takes choices away, and with them messages between "
                        "machines.",
}


def sizes(preset: str) -> dict[str, int]:
    """The sliders' values for a preset."""
    return {name: getattr(presets.get(preset).moe, name) for name in SLIDERS}


def config_of(preset: str, pieces: int, values: dict[str, int]) -> ModelConfig:
    """The preset with these experts, each cut in pieces. ValueError if that cannot be built."""
    base = presets.get(preset)
    return base.replace(moe=experts.finer(base.moe.replace(**values), pieces))


def own_code(preset, pieces, *values) -> str:
    now, _ = common.within(dict(zip(SLIDERS, values)), LIMITS)
    return as_python(config_of(preset, pieces, now), preset)


def explain(now: dict, before: dict | None, config: ModelConfig, n: experts.ExpertSizes) -> str:
    """What changed and why, then where it stands."""
    what = ""
    changed = [name for name in now if before and now[name] != before[name]]
    if len(changed) == 1 and changed[0] in WHY:
        name = changed[0]
        shown = "the cut of each expert (m)" if name == "pieces" else name
        what = f"{shown} went from {before[name]:,} to {now[name]:,}: {WHY[name]} "
    total, active, moe = n.parameters.total, n.parameters.active, config.moe
    shared = f" and {moe.n_shared_experts:,} that all tokens use" if moe.n_shared_experts else ""
    return (f"{what}The model holds {accounting.human_count(total)} parameters and uses "
            f"{accounting.human_count(active)} of them for a token, {accounting.percent(active, total)}: "
            f"{n.layers} of its layers have {moe.n_routed_experts:,} experts, of which a token chooses "
            f"{moe.n_experts_per_token:,}{shared}, in {experts.in_words(n.ways)} possible ways.")


def parts_table(n: experts.ExpertSizes) -> str:
    total, active = n.parameters.by_part, n.parameters.active_by_part
    rows = [(part, f"{count:,}", f"{active[part]:,}", accounting.percent(active[part], count))
            for part, count in total.items()]
    rows.append(("all", f"{n.parameters.total:,}", f"{n.parameters.active:,}",
                 accounting.percent(n.parameters.active, n.parameters.total)))
    return common.table(("part", "held", "used by a token", "share"), rows,
                        "Parameters. Used: all but the routed experts that a token does not choose.",
                        colours={part: plots.COLOURS[part] for part in total})


def figures_table(preset: str, own: experts.ExpertSizes, n: experts.ExpertSizes) -> str:
    def row(label, show):
        return label, show(own), show(n)

    rows = [
        row("one expert, parameters", lambda s: f"{s.one:,}"),
        row("an expert layer holds", lambda s: f"{s.held:,}"),
        row("a token uses of that layer", lambda s: f"{s.used:,}"),
        row("total parameters", lambda s: f"{s.parameters.total:,}"),
        row("active parameters", lambda s: f"{s.parameters.active:,}"),
        row(f"FLOPs for a token that sees {n.context:,}", lambda s: f"{s.flops:,}"),
        row("the same if all experts worked", lambda s: f"{s.flops_all:,}"),
        row("ways to choose", lambda s: experts.in_words(s.ways)),
        row("the same if all groups were open", lambda s: experts.in_words(s.ways_free)),
        row("groups of a free choice, by chance", lambda s: f"{s.groups:.2f}")]
    return common.table(("", f"{preset} itself", "with these controls"), rows, "The model's own config beside this one")


@common.sentence_for(7)
def draw(before, preset, pieces, *values):
    """All that is shown: bars, ways, text, two tables, and the state to compare the next one with."""
    now = {"preset": preset, "pieces": pieces, **dict(zip(SLIDERS, values))}
    now, note = common.within(now, LIMITS)
    config = config_of(preset, pieces, {name: now[name] for name in SLIDERS})
    n = experts.expert_sizes(config)
    own = experts.expert_sizes(presets.get(preset))
    ways = experts.power_by_pieces(presets.get(preset).moe.replace(**{name: now[name] for name in SLIDERS}))
    counts = {"held": n.parameters.by_part, "used": n.parameters.active_by_part}
    bars = plots.total_and_active(counts, [accounting.human_count(n.parameters.total),
                                           accounting.human_count(n.parameters.active)])
    text = common.said(note + explain(now, before, config, n))
    return (bars, plots.ways_by_pieces(ways, pieces), text, common.formula(*experts.expert_formula(config)),
            parts_table(n), figures_table(preset, own, n), now)


def state(request: gr.Request | None) -> tuple[dict, str]:
    """The controls' values for an address, and a sentence about what in it could not be used."""
    chosen, problem = common.read_query(request, {"preset": START, "pieces": 1}, {"preset": MODELS, "pieces": PIECES})
    values, more = common.read_query(request, sizes(chosen["preset"]), None, LIMITS)
    return {**chosen, **values}, f"{problem} {more}".strip()


def opened(request: gr.Request):
    values, problem = state(request)
    said, *rest = draw(None, *values.values())
    if said:  # the model as it is, greyed, under the sentence that says why not what was asked for
        _, *rest = draw(None, *(values | {"pieces": 1} | sizes(values["preset"])).values())
    return *values.values(), said or common.notice(problem, note=True), *rest


def build(demo: gr.Blocks, _: gr.Tab, name: gr.Textbox):
    first, _ = state(None)
    shown = draw(None, *first.values())[1:]
    gr.Markdown("A layer with experts *holds* many small networks, and a token *uses* the few that its router chooses. "
                "Cut the experts finer, choose more or fewer, set some apart for every token, and see what it costs.")
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            preset = gr.Dropdown(MODELS, value=START, label="Model to begin with", elem_id="preset")
            pieces = gr.Radio(PIECES, value=1, label="Cut each expert in m pieces", elem_id="pieces",
                              info="m times as many, of 1/m the width, m times as many chosen; shared ones too")
            sliders = {key: common.whole_slider(key, first[key], spec) for key, spec in SLIDERS.items()}
            controls = {"preset": preset, "pieces": pieces, **sliders}
            common.copy_link_button({"tab": name, **controls})
            code_box.python_button(own_code, list(controls.values()), notice, "moe_python")
        with gr.Column(scale=2, min_width=300, elem_classes="shown"):
            gr.Markdown("### Held, and used by a token")
            bars = Chart(shown[0], elem_id="sizes-bars")
            text = gr.HTML(shown[2], elem_id="sizes-text")
            lines = gr.HTML(shown[3], elem_id="sizes-formula")
            gr.Markdown("### Ways to choose, the finer the experts")
            ways = Chart(shown[1], elem_id="ways")
    with gr.Column(elem_classes="shown"):
        parts = gr.HTML(shown[4], elem_id="parts")
        figures = gr.HTML(shown[5], elem_id="figures")
    before = gr.State(shown[6])
    outputs = [notice, bars, ways, text, lines, parts, figures, before]
    inputs = [before, *controls.values()]

    def chosen(before, preset, pieces, *_):
        own = sizes(preset)
        return *own.values(), *draw(before, preset, pieces, *own.values())

    preset.input(chosen, inputs, [*sliders.values(), *outputs], api_name="moe_preset", **common.FIGURES)
    gr.on([pieces.input, *(slider.input for slider in sliders.values())], draw, inputs, outputs, api_name="moe_sizes",
          **common.FIGURES)
    return common.on_opening(demo, opened, [*controls.values(), *outputs], notice, "moe_sizes_open")
