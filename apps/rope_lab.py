"""RoPE lab: a head's pairs as dials, scores over the distance, YaRN pair by pair, a trained model past its context."""

from __future__ import annotations

import gradio as gr

from apps import code_box, common, rope_state, rope_views
from apps.components import Chart
from apps.line import in_line, noticed
from apps.rope_state import BASES, CONTROLS, MODELS, MSCALES, REACH, SCALINGS, SLIDERS, START, config_of, reach, settled
from llm_core import past_context, plots, turning
from llm_core.as_python import as_python
from llm_core.positions import softmax_scale

TITLE = "RoPE lab"
PATH = "/rope"

DIALS = 6
AXES = {"deepseek-mini": ("tokens read so far", "nats a token (less is better)", None),
        "copying": ("told so many tokens ago", "right answers, share", 1 / 24)}


def own_code(*values) -> str:
    now, _ = settled(values)
    return as_python(config_of(now), now["preset"])


@common.sentence_for(13)
def draw(before, *values):
    """All that is shown, for the controls' values. Outputs in build's order; the last ones are the sliders' ends."""
    now, note = settled(values)
    config = config_of(now)
    turned = turning.pairs(config.rope, config.rope_dim)
    query, key = turning.example_vectors(now["vectors"], config.rope_dim)
    m, n = now["m"] + now["shift"], now["n"] + now["shift"]
    adds = turning.contributions(query, key, turned, m, n)
    score = adds.sum().item()
    shown = [turned[i] for i in sorted({round(i * (len(turned) - 1) / (DIALS - 1)) for i in range(DIALS)})]
    angles = [(f"pair {pair.index}<br>{rope_views.degrees((m - n) * pair.speed)}",
               pair.angle(m) + query[pair.index].angle().item(), pair.angle(n) + key[pair.index].angle().item())
              for pair in shown]
    text = common.said(note + rope_views.explain(now, before, turned, score)) + rope_views.score_formula(
        now, turned, score)
    table = (rope_views.dial_table(now, shown, query, key, adds)
             + rope_views.moved_table(config, now, query, key, turned))
    same = {name for name in now if before and now[name] == before[name]}
    ends = [gr.skip()] * 3 if before and reach(before) == reach(now) else [
        gr.update(value=now[name], maximum=reach(now) - 1) for name in ("m", "n", "shift")]
    others = [gr.skip()] * 4 if same >= set(now) - {"m", "n", "shift", "reach", "vectors"} else [
        plots.rope_wavelengths([pair.plain_wavelength for pair in turned], [pair.wavelength for pair in turned],
                               [pair.zone for pair in turned], now["original"], config.max_seq_len),
        rope_views.zone_text(config, now, turned), rope_views.pair_table(turned, now["original"]),
        rope_views.partner_table(config.rope_dim, config.rope.layout)]
    scores = [gr.skip()] * 2 if same >= set(now) - {"shift", "reach"} else over_distance(
        now, config, turned, query, key)
    return plots.rope_dials(angles), text, *scores, table, *others, *ends, now


def over_distance(now, config, turned, query, key):
    """Chart and text: scores over all distances of the context; of a key behind the query, if that is where it is."""
    distance, side = now["m"] - now["n"], -1 if now["n"] > now["m"] else 1
    distances = sorted({*turning.spread(max(config.max_seq_len - 1, 2)), abs(distance)} - {0})
    scores, envelope = turning.scores_by_distance(query, key, turned, [side * d for d in distances])
    return (plots.rope_scores(distances, scores, envelope, abs(distance), now["original"]),
            rope_views.decay_text(now["vectors"], distances, envelope,
                                  turning.scores_by_distance(query, key, turned, [0])[0][0]))


@common.sentence_for(2)
def measured(model, stretch):
    """The curve of a trained model past its context: first without YaRN, then with it. Chart and text."""
    plain, context = past_context.measure(model, 1), past_context.trained_context(model)
    x, y, chance = AXES[model]
    curves = {"without YaRN": (plain.ends, plain.values)}
    yield (plots.past_context(curves, context, x, y, chance),
           rope_views.measured_text(model, stretch, plain, None))
    yarn = past_context.measure(model, stretch)
    curves[f"YaRN, factor {stretch}"] = yarn.ends, yarn.values
    yield plots.past_context(curves, context, x, y, chance), rope_views.measured_text(model, stretch, plain, yarn)


def prepare() -> None:
    """Measure the model of the page's start, which takes seconds, once."""
    for _ in measured(*rope_state.state(None)[1].values()):
        pass


def rope_pairs(preset: str = START, base: float = 0, rope_dim: int = 0, scaling: str = "", factor: int = 0,
               original_context: int = 0) -> dict:
    """How fast each pair of a head turns under RoPE, and what YaRN or Llama 3.1's scaling makes of it.

    preset: a model with RoPE, such as "deepseek-v3" or "llama-3.1-8b". The others change its own values, and 0 or ""
    leaves them: base (theta), rope_dim (numbers of a head that are turned), scaling ("none", "yarn" or "llama3"),
    factor, original_context (the tokens trained on). Back come "pairs", each with its radians a token by the base alone
    and after scaling, tokens for a turn and zone ("kept", "in between", "interpolated"); "zones", each with its first
    and last pair; and "softmax_scale".
    """
    given = {"theta": base, "rope_dim": rope_dim, "scaling": scaling, "factor": factor, "original": original_context}
    now, config = rope_state.asked(preset, given)
    turned = turning.pairs(config.rope, config.rope_dim)
    return {"pairs": [{"pair": pair.index, "radians_by_the_base": pair.plain, "radians_a_token": pair.speed,
                       "tokens_for_a_turn": pair.wavelength, "zone": pair.zone} for pair in turned],
            "zones": {zone: list(ends) for zone, ends in turning.zones(turned).items()},
            "scaling": now["scaling"], "softmax_scale": softmax_scale(config)}


def rope_score(m: int = 40, n: int = 20, preset: str = START, vectors: str = turning.ALIKE) -> dict:
    """The score of one query at position m with one key at position n, in a head of a model with RoPE.

    preset: as in rope_pairs. vectors: "alike" (each pair of both is (1, 0)), "random, the same" or "random, each its
    own". Back come "distance" (m - n), "score" in 64 bits, "score_in_32_bits" as the model calculates it, and
    "by_pair", what each pair adds. The score depends on the distance alone.
    """
    rope_state.check_positions(m=m, n=n)
    _, config = rope_state.asked(preset, {})
    query, key = turning.example_vectors(vectors, config.rope_dim)
    adds = turning.contributions(query, key, turning.pairs(config.rope, config.rope_dim), m, n)
    return {"distance": m - n, "score": adds.sum().item(),
            "score_in_32_bits": turning.score_in_32_bits(config.rope, query, key, m, n), "by_pair": adds.tolist()}


API = (rope_pairs, rope_score)


def build(demo: gr.Blocks) -> None:
    first, experiment, _ = rope_state.state(None)
    shown = draw(None, *first.values())[1:]
    controls: dict[str, gr.components.Component] = {}
    common.question("How does a model know where a token stands?", "It turns the token's query and key, one pair of "
                    "numbers after the other, the further the later the token stands: rotary positions, RoPE. What is "
                    "left of that in their product, the score, is the distance between the two.")
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300) as left:
            controls["preset"] = gr.Dropdown(MODELS, value=START, label="Model, whose RoPE is taken", elem_id="preset")
            with gr.Group():
                for name in ("m", "n", "shift"):
                    label, least, _, *rest = SLIDERS[name]
                    controls[name] = common.whole_slider(name, first[name], (label, least, reach(first) - 1, *rest))
                controls["reach"] = gr.Radio(list(REACH.items()), value=first["reach"],
                                             label="The three go through", elem_id="reach")
            controls["vectors"] = gr.Radio(list(turning.VECTORS), value=first["vectors"], label="Query and key",
                                           elem_id="vectors")
        with gr.Column(scale=2, min_width=300, elem_classes="result"):
            gr.Markdown("### Pairs of one head, from the fastest to the slowest")
            gr.Markdown("Below each dial stands how far the query has turned on from the key.")
            dials = Chart(shown[0], elem_id="dials")
            text = gr.HTML(shown[1], elem_id="text")
            gr.Markdown("### The score over the distance")
            scores = Chart(shown[2], elem_id="scores")
            decay = gr.HTML(shown[3], elem_id="decay")
    table = gr.HTML(shown[4], elem_id="table", elem_classes="result")
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            step = _frequencies(controls, first)
        with gr.Column(scale=2, min_width=300, elem_classes="result"):
            gr.Markdown("### How long each pair takes for a turn, and what a scaling does to it")
            waves = Chart(shown[5], elem_id="waves")
            zones = gr.HTML(shown[6], elem_id="zones")
    with gr.Column(elem_classes="result"):
        with gr.Accordion("All pairs in numbers", open=False):
            every = gr.HTML(shown[7], elem_id="pairs")
        layouts = gr.HTML(shown[8], elem_id="layouts")
    outputs = [notice, dials, text, scores, decay, table, waves, zones, every, layouts, controls["m"], controls["n"],
               controls["shift"], gr.State(shown[-1])]
    tried = _past_the_context(demo, experiment)
    with left:
        common.copy_link_button(controls | tried)
        code_box.python_button(own_code, [controls[name] for name in CONTROLS], notice, "rope_python")
        common.try_this([
            ("V3 over 99,000 tokens: only the slowest pairs still point the same way",
             common.link("", reach="context", m=100000, n=1000)),
            ("Llama 3.1's way: a base of 500,000 and a factor of 8",
             common.link("", preset="llama-3.1-8b", m=60, n=20)),
            ("A model that recalls, past the 1,024 tokens it was trained on",
             common.link("", model="copying", stretch=2) + "#past")])
    common.lesson("`course/04_rope/01_counting_positions.ipynb` (04.1) counts positions until that fails; "
                  "`02_rotary_positions.ipynb` (04.2) turns pairs by hand and proves that only the distance is left; "
                  "`03_long_context.ipynb` (04.3) builds interpolation, NTK and YaRN. The papers: Su et al. "
                  "(arXiv:2104.09864) for RoPE, Peng et al. (arXiv:2309.00071) for YaRN.")
    _wire(demo, controls, step, outputs)


def _frequencies(controls: dict, first: dict) -> gr.Slider:
    """Place the controls of the second row; the slider for the base is returned, which has no value of its own."""
    controls["scaling"] = gr.Radio(list(SCALINGS.items()), value=first["scaling"], label="Scaling for long contexts",
                                   elem_id="scaling")
    controls["factor"] = common.whole_slider("factor", first["factor"], SLIDERS["factor"])
    with gr.Group():
        step = gr.Slider(0, len(BASES) - 1, rope_state.base_step(first["theta"]), step=1, buttons=[],
                         label="Base: drag, from 100 to 10,000,000", elem_id="base-step", elem_classes="no-number")
        controls["theta"] = gr.Number(first["theta"], label="Base (theta)", elem_id="theta",
                                      info="or type it; then Enter")
    controls["rope_dim"] = common.whole_slider("rope_dim", first["rope_dim"], SLIDERS["rope_dim"])
    for name, label in (("original", "Context trained on, in tokens"), ("context", "Whole context, in tokens")):
        controls[name] = gr.Textbox(first[name], label=label, elem_id=name, max_length=40,
                                    info="4096, 128k; then Enter")
    with gr.Accordion("Where the ramp stands, and the softmax scale", open=False):
        for name in ("fast", "slow"):
            controls[name] = common.whole_slider(name, first[name], SLIDERS[name])
        controls["mscale"] = gr.Radio(list(MSCALES.items()), value=first["mscale"], label="YaRN's mscale",
                                      elem_id="mscale")
    return step


def _past_the_context(demo: gr.Blocks, first: dict) -> dict:
    """The last row: a trained model, measured. Its controls are returned. What goes wrong here is said in a box of its
    own, so that a measurement that ends well does not take away a sentence about the controls above."""
    gr.HTML('<h3 id="past">Past the context, with a model that was really trained</h3>')
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            model = gr.Radio([("deepseek-mini: text, trained on 256 tokens", "deepseek-mini"),
                              ("copying: recall, trained on 1,024 tokens", "copying")], value=first["model"],
                             label="Trained model", elem_id="model")
            stretch = gr.Radio(list(past_context.FACTORS[1:]), value=first["stretch"], label="YaRN's factor",
                               elem_id="stretch")
        with gr.Column(scale=2, min_width=300, elem_classes="result"):
            chart = Chart(elem_id="past-chart")
            text = gr.HTML(common.said("Being measured on this computer, which takes a few seconds once."),
                           elem_id="past-text")
    outputs = [notice, chart, text]

    def opened(request: gr.Request):
        _, values, _ = rope_state.state(request)
        return *values.values(), gr.skip()

    gr.on([model.input, stretch.input], in_line(measured, noticed(2)), [model, stretch], outputs,
          api_name="rope_past_context", **common.GENERATION | {"trigger_mode": "always_last"})
    demo.load(opened, None, [model, stretch, text], api_name="rope_past_context_open", **common.FIGURES).then(
        in_line(measured, noticed(2)), [model, stretch], outputs, api_name="rope_past_context_first",
        **common.GENERATION)
    return {"model": model, "stretch": stretch}


def _wire(demo: gr.Blocks, controls: dict, step: gr.Slider, outputs: list) -> None:
    before, others = outputs[-1], [controls[name] for name in CONTROLS if name not in ("m", "n", "shift")]
    inputs = [before, *(controls[name] for name in CONTROLS)]

    def changed(before, values: list, **changes):
        """Draw with some values changed: first the new values, then draw's outputs."""
        return draw(before, *({**dict(zip(CONTROLS, values)), **changes}).values())

    def dragged(position, before, *values):
        return float(BASES[int(position)]), *changed(before, values, theta=float(BASES[int(position)]))

    def typed(before, *values):
        out = draw(before, *values)
        return gr.skip() if out[0] else rope_state.base_step(dict(zip(CONTROLS, values))["theta"]), *out

    def chosen(before, preset, *values):
        own = rope_state.shown_values(preset)
        step = rope_state.base_step(own["theta"])
        return *own.values(), step, *changed(before, [preset, *values], **own)

    def scaled(before, *values):
        now = rope_state.with_room(dict(zip(CONTROLS, values)))
        return now["fast"], now["slow"], now["context"], *draw(before, *now.values())

    def opened(request: gr.Request):
        values, _, problem = rope_state.state(request)
        said, *rest = draw(None, *values.values())
        if said:  # show the model as it is, greyed, under the sentence that says why not what was asked for
            values |= rope_state.shown_values(values["preset"]) | rope_state.PLACES
            _, *rest = draw(None, *values.values())
        shown = [value for name, value in values.items() if name not in ("m", "n", "shift")]
        return *shown, rope_state.base_step(values["theta"]), said or common.notice(problem, note=True), *rest

    own = [controls[name] for name in rope_state.own_values(START)]
    step.input(dragged, [step, *inputs], [controls["theta"], *outputs], api_name="rope_base", **common.FIGURES)
    boxes = [controls[name] for name in ("theta", "original", "context")]
    gr.on([event for box in boxes for event in (box.submit, box.blur)], typed, inputs, [step, *outputs],
          api_name="rope_typed", **common.FIGURES)
    controls["preset"].input(chosen, inputs, [*own, step, *outputs], api_name="rope_preset", **common.FIGURES)
    controls["scaling"].input(scaled, inputs, [controls["fast"], controls["slow"], controls["context"], *outputs],
                              api_name="rope_scaling", **common.FIGURES)
    moved = ["m", "n", "shift", "reach", "vectors", "factor", "rope_dim", "fast", "slow", "mscale"]
    gr.on([controls[name].input for name in moved], draw, inputs, outputs, api_name="rope", **common.FIGURES)
    common.on_opening(demo, opened, [*others, step, *outputs], outputs[0], "rope_open")


if __name__ == "__main__":
    from apps import rope_lab, starting

    starting.run_alone(rope_lab)
