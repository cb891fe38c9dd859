"""MoE lab, third part: a small router that learns, step by step, left alone, with V3's bias, or with a loss."""

from __future__ import annotations

import gradio as gr

from apps import common
from apps.components import Chart, TypedSlider
from llm_core import balancing_steps as steps
from llm_core import plots
from llm_core.balancing_steps import Setting

NOTHING, BIAS, LOSS = "nothing", "V3's bias", "a balance loss"
METHODS = {"nothing": NOTHING, "bias": BIAS, "loss": LOSS}
START = {"balance": "bias", "gamma": 0.02, "alpha": 0.1, "seed": 0, "step": 100}
LIMITS = {"gamma": (0.0, 0.2), "alpha": (0.0, 1.0), "seed": (0, 9999), "step": (0, steps.MOST_STEPS)}
WHOLE = ("seed", "step")
FRAME_STEPS, FRAME_SECONDS = 10, 0.4  # of a run that plays; the browser asks for each frame when it has time for it

WHY = {
    "step": "each step sends 256 new tokens, then router, experts and bias are changed a little.",
    "gamma": "an overloaded expert's bias goes down by γ a step, an underloaded one's up by γ, whatever the distance. "
             "Small is slow, large jumps over the goal.",
    "alpha": "the loss pulls at the router's weights themselves, α times as hard.",
    "seed": "other first weights and other tokens: other experts win, and the story is the same.",
    "balance": "the same first weights and the same tokens, from step 0.",
}


def setting(balance: str, gamma: float, alpha: float, seed: int) -> Setting:
    """What a method needs of the sliders: γ counts with the bias alone, α with the loss alone."""
    return Setting(gamma if balance == "bias" else 0.0, alpha if balance == "loss" else 0.0, seed)


def within(values: dict) -> tuple[dict, str]:
    """The values brought within their limits; whole ones as common.within does, γ and α as they are."""
    real = {name: LIMITS[name] for name in LIMITS if name not in WHOLE}
    out, said = common.within(values, {name: LIMITS[name] for name in WHOLE})
    for name, (least, most) in real.items():
        value = values[name]
        good = isinstance(value, (int, float)) and least <= value <= most
        out[name] = float(value) if good else START[name]
        said += "" if good else f"{name} goes from {least:g} to {most:g}, so {START[name]:g} is shown. "
    return out, said


def explain(now: dict, before: dict | None, path: list[steps.Step], alone: list[steps.Step]) -> str:
    """What changed and why, then where it stands."""
    what = ""
    changed = [name for name in now if before and now[name] != before[name]]
    if len(changed) == 1:
        name = changed[0]
        old, new = (METHODS[v[name]] if name == "balance" else f"{v[name]:g}" for v in (before, now))
        what = f"{name} went from {old} to {new}: {WHY[name]} "
    here = (f"At step {now['step']} the busiest of {steps.EXPERTS} experts has {path[-1].imbalance:.2f} times the mean "
            "load")
    if now["balance"] == "nothing":
        idle = sum(n < path[-1].mean / 10 for n in path[-1].load)
        tail = f"{idle} of them get less than a tenth of it" if idle else "none is left without work yet"
        return f"{what}{here}, and {tail}: nobody told the router to be fair."
    return (f"{what}{here}. Left alone, from the same start and with the same tokens, it would have "
            f"{alone[-1].imbalance:.2f} times.")


def formula(now: dict, path: list[steps.Step]) -> str:
    last = path[-1]
    lines = [f"imbalance = largest load / mean load = {max(last.load):,} / {last.mean:g} = {last.imbalance:.2f} "
             f"(1 in balance, {steps.WORST:g} at the worst; MaxVio of the papers is this less 1)"]
    if now["balance"] == "bias":
        lines.append(f"bias ← bias + γ · sign(mean load − load), γ = {now['gamma']:g}; it only helps to choose, the "
                     "gate weights come from the scores alone")
    if now["balance"] == "loss":
        lines.append(f"loss = error + α · Σ f · P, α = {now['alpha']:g}; f: an expert's part of the load (1 in "
                     "balance), P: its mean share of the scores")
    return common.formula(*lines)


def table(now: dict, step: steps.Step) -> str:
    moves = step.moves(now["gamma"] if now["balance"] == "bias" else 0.0)
    rows = [(f"expert {e}", f"{step.load[e]:,}", f"{step.bias[e]:+.3f}" if now["balance"] == "bias" else "–",
             f"{moves[e]:+.3f}" if now["balance"] == "bias" else "–") for e in range(steps.EXPERTS)]
    return common.table(("", "tokens", "bias", "next move"), rows,
                        f"Step {now['step']}: {steps.TOKENS} tokens, each sent to {steps.CHOSEN} of {steps.EXPERTS}")


@common.sentence_for(6)
def draw(before, balance, gamma, alpha, seed, step):
    """All that is shown: bars, lines, text, formula, table, and the state to compare the next one with."""
    now, note = within({"balance": balance, "gamma": gamma, "alpha": alpha, "seed": seed, "step": step})
    path = steps.run(setting(now["balance"], now["gamma"], now["alpha"], now["seed"])).until(now["step"])
    alone = steps.run(Setting(seed=now["seed"])).until(now["step"])
    paths = {METHODS[now["balance"]]: path, **({} if now["balance"] == "nothing" else {NOTHING: alone})}
    lines = {name: [s.imbalance for s in one] for name, one in paths.items()}
    return (plots.load_bars(path[-1].load), plots.imbalance_lines(lines, steps.MOST_STEPS, steps.WORST),
            common.said(note + explain(now, before, path, alone)), formula(now, path), table(now, path[-1]), now)


def gone_on(by: int):
    """A function that draws `by` steps further on, or at step 0 for 0: the step, then draw's outputs."""
    def go(before, balance, gamma, alpha, seed, step):
        now, _ = common.within({"step": step}, {"step": LIMITS["step"]})
        further = min(now["step"] + by, steps.MOST_STEPS) if by else 0
        return further, *draw(before, balance, gamma, alpha, seed, further)
    return go


def played(before, balance, gamma, alpha, seed, step):
    """One frame: the timer, which ends with the last step or at a mistake, the step, then draw's outputs.

    Otherwise the timer is left alone: it may have been stopped while this frame was on its way.
    """
    further, said, *rest = gone_on(FRAME_STEPS)(before, balance, gamma, alpha, seed, step)
    ended = said or further >= steps.MOST_STEPS
    return gr.Timer(active=False) if ended else gr.skip(), further, said, *rest


def started(step):
    """The timer runs; from step 0 where the last one is shown."""
    now, _ = common.within({"step": step}, {"step": LIMITS["step"]})
    return gr.Timer(active=True), 0 if now["step"] >= steps.MOST_STEPS else gr.skip()


def opened(request: gr.Request):
    """The state of the address; what it shows only if this part is the one that is asked for."""
    values, problem = common.read_query(request, START, {"balance": list(METHODS)}, LIMITS)
    if request.query_params.get("tab") != "balance":
        return *values.values(), *(gr.skip() for _ in range(7))
    said, *rest = draw(None, *values.values())
    return *values.values(), said or common.notice(problem, note=True), *rest


def first_look(before, *values):
    """What is shown when this part is opened, unless it was before."""
    return draw(before, *values) if before is None else tuple(gr.skip() for _ in range(7))


def real_slider(name: str, label: str, step: float, info: str) -> TypedSlider:
    return TypedSlider(*LIMITS[name], START[name], step=step, label=label, info=info, elem_id=name, buttons=[])


def build(demo: gr.Blocks, tab: gr.Tab, name: gr.Textbox):
    gr.Markdown("A small router and eight experts learn from nothing, here, while you watch. Whoever is chosen learns, "
                "and whoever has learned is chosen. Left alone, the router soon sends nearly everything to a few.")
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            balance = gr.Radio([(label, name) for name, label in METHODS.items()], value=START["balance"],
                               label="What is done for balance", elem_id="balance")
            gamma = real_slider("gamma", "Speed of the bias (γ)", 0.001, "counts with V3's bias; V3 took 0.001, and "
                                "far more steps")
            alpha = real_slider("alpha", "Factor of the loss (α)", 0.01, "counts with the balance loss")
            step = common.whole_slider("step", START["step"], ("Step", 0, steps.MOST_STEPS, 1))
            with gr.Row():
                one = gr.Button("1 step", size="sm", min_width=80, elem_id="one-step")
                fifty = gr.Button("50 steps", size="sm", min_width=80, elem_id="fifty-steps")
                reset = gr.Button("Reset", size="sm", min_width=80, elem_id="reset")
            with gr.Row():
                start = gr.Button("Play", size="sm", variant="primary", min_width=80, elem_id="play")
                stop = gr.Button("Stop", size="sm", variant="stop", min_width=80, elem_id="stop")
            seed = common.whole_slider("seed", START["seed"], ("Seed", *LIMITS["seed"], 1,
                                                               "the same seed, the same run, number for number"))
            controls = {"balance": balance, "gamma": gamma, "alpha": alpha, "seed": seed, "step": step}
            common.copy_link_button({"tab": name, **controls})
        with gr.Column(scale=2, min_width=300, elem_classes="shown"):
            gr.Markdown("### The load of each expert at this step")
            bars = Chart(elem_id="load")
            gr.Markdown("### How uneven it was, step by step")
            lines = Chart(elem_id="history")
            text = gr.HTML(elem_id="balance-text")
            sums = gr.HTML(elem_id="balance-formula")
    values = gr.HTML(elem_id="biases", elem_classes="shown")
    before = gr.State(None)
    outputs = [notice, bars, lines, text, sums, values, before]
    inputs = [before, *controls.values()]

    clock = gr.Timer(FRAME_SECONDS, active=False)
    once = {**common.FIGURES, "trigger_mode": "once"}
    clock.tick(played, inputs, [clock, step, *outputs], api_name="moe_play", **once)
    start.click(started, [step], [clock, step], api_name="moe_start", **common.FIGURES)
    stop.click(lambda: gr.Timer(active=False), None, clock, api_name="moe_stop", **common.FIGURES)
    gr.on([control.input for control in controls.values()], draw, inputs, outputs, api_name="moe_balance",
          **common.FIGURES)
    for button, by, called in ((one, 1, "one"), (fifty, 50, "fifty"), (reset, 0, "reset")):
        button.click(gone_on(by), inputs, [step, *outputs], api_name=f"moe_{called}", **common.FIGURES)
    tab.select(first_look, inputs, outputs, api_name="moe_balance_first", **common.FIGURES)
    return demo.load(opened, None, [*controls.values(), *outputs], api_name="moe_balance_open", **common.FIGURES)
