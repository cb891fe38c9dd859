"""Tweak and see: move width, layers or attention, and the text comes from another trained model."""

from __future__ import annotations

import html

import gradio as gr

from apps import common, writing
from apps.components import Chart
from apps.line import in_line
from llm_core import accounting, grid, plots, presets, pretrained
from llm_core.grid import Point
from llm_core.training.card import PROMPTS, SAMPLE_SEED, TEMPERATURE, TOP_K

TITLE = "Tweak and see"
PATH = "/tweak"
TOKENS = 60  # a text: enough to judge, and a part of a second for the largest model
START = {"width": 96, "layers": 3, "attention": "MLA", "prompt": PROMPTS[1], "seed": SAMPLE_SEED}
ALLOWED = {"width": grid.WIDTHS, "layers": grid.LAYERS, "attention": presets.GRID_ATTENTIONS}
SEEN_BEFORE = (96, 3, "MHA")  # what the opening state is compared with
MOST_NEAR = 4  # trained points around a place between them
TRY = (
    ("The smallest model: a quarter of the width, one layer", {"width": 24, "layers": 1, "attention": "MHA"}),
    ("Keys and values for half of the heads: GQA", {"width": 96, "layers": 3, "attention": "GQA"}),
    ("A place where nothing was trained", {"width": 72, "layers": 2, "attention": "MLA"}),
)
CSS = writing.CSS + """
.figures {display: flex; flex-wrap: wrap; gap: 0.5rem 2rem; margin: 0}
.figures dt {color: color-mix(in srgb, var(--body-text-color) 72%, transparent)}
.figures dd {margin: 0; font-size: 1.5rem; font-variant-numeric: tabular-nums}
.here {background: color-mix(in srgb, #E69F00 20%, transparent)}
.table a {text-decoration: underline}
.here a {color: var(--body-text-color)}  /* a link's own blue is too pale on orange */
.table table, .table tr, .table th, .table td {border: 0 solid var(--border-color-primary)}
.table th, .table td {padding: 0.3em 0.4em; border-bottom-width: 1px}
.table tr > :first-child {min-width: 6em}
.written {height: 14rem}
.none {height: 13.2rem}  /* with the buttons below it as high as a text, so that nothing jumps */
@media (max-width: 600px) {.written {height: 18rem}}
"""


def place(width, layers, attention) -> Point:
    """Where the sliders stand. ValueError if they have no such place."""
    return Point(writing.whole("width", width), writing.whole("layers", layers), attention)


def held_out() -> tuple[dict[str, float], str]:
    """Bits per byte of each trained model by name; or none, and the sentence on why the card cannot be read."""
    try:
        return {point.name: pretrained.card(point.name)["bits_per_byte"] for point in grid.trained_points()}, ""
    except common.PROBLEMS as problem:
        return {}, f" Its quality is not known: {common.sentence(problem)}."


@common.sentence_for(6 + MOST_NEAR)
def see(width, layers, attention, before):
    """All but the text, for the place where the sliders stand.

    before: the last trained place that was seen, as (width, layers, attention). Outputs: figures, chart, sentence,
    formula, table, a button for each near trained place, and what to compare with next time.
    """
    point, last = place(width, layers, attention), Point(*before)
    bits, missing = held_out()
    said = grid.compare(last, point, bits.get(last.name), bits.get(point.name))
    said = f"{said}{missing}" if point.trained else f"{grid.not_trained(point)} {said}"
    near = [] if point.trained else grid.nearest(point)
    buttons = [gr.Button(f"Go to {near[i]}" if i < len(near) else "", visible=i < len(near)) for i in range(MOST_NEAR)]
    here = (point.width, point.layers, point.attention)
    return (figures(point, bits), chart(point, bits), common.said(said),
            common.formula(f"Cache: {accounting.cache_formula(point.config)}"), table(point, bits), *buttons,
            here if point.trained else before)


def figures(point: Point, bits: dict[str, float]) -> str:
    """The three figures that move with the sliders."""
    known = f"{bits[point.name]:.2f}" if point.name in bits else "unknown" if point.trained else "not trained"
    cells = (("parameters", f"{accounting.count_parameters(point.config).total:,}"),
             ("cache bytes a token", f"{accounting.cache_bytes_per_token(point.config):,}"),
             ("bits per byte, held-out text", known))
    return f'<dl class="figures">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in cells)}</dl>'


def chart(point: Point, bits: dict[str, float]):
    """Quality against cache, a dot for every trained model."""
    dots = [(p.attention, accounting.cache_bytes_per_token(p.config), bits[p.name], str(p), p == point)
            for p in grid.trained_points() if p.name in bits]
    return plots.quality_against_cache(dots, accounting.cache_bytes_per_token(point.config))


def table(point: Point, bits: dict[str, float]) -> str:
    """All trained models, the current one marked; each is a link to itself."""
    lines = []
    for p in grid.trained_points():
        link = html.escape(common.link("", width=p.width, layers=p.layers, attention=p.attention))
        mark, here = ("▶ ", ' class="here" aria-current="true"') if p == point else ("", "")
        cells = (f"{accounting.count_parameters(p.config).total:,}", f"{accounting.cache_bytes_per_token(p.config):,}",
                 f"{bits[p.name]:.2f}" if p.name in bits else "unknown")
        lines.append(f'<tr{here}><th scope="row" class="words">{mark}<a href="{link}">{p}</a></th>'
                     f'{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    heads = '<th scope="col" class="words">model</th>' + "".join(
        f'<th scope="col">{head}</th>' for head in ("parameters", "cache", "bits"))
    return ('<div class="table" tabindex="0"><table><caption>Every trained model: same data, tokens and seed. Cache: '
            "bytes a token in bf16. Bits: for a byte of held-out text; fewer are better.</caption>"
            f'<thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>')


def write(width, layers, attention, prompt, seed):
    """Stream a text from the very model where the sliders stand, or say that there is none."""
    try:
        point = place(width, layers, attention)
        if not point.trained:
            yield f'<div class="none">{common.notice(f"No text: {point} was not trained.", note=True)}</div>'
            return
        model, tokenizer = writing.load(point.name)
        settings = writing.sampler(TEMPERATURE, TOP_K, None, seed)
        for now in writing.write(model, tokenizer, tokenizer.encode(prompt or ""), TOKENS, settings):
            yield (f'{writing.text_html(prompt, now.text)}<p class="by">Written by {html.escape(str(point))}: '
                   f"{writing.count(now.tokens, 'token')}, temperature {TEMPERATURE}, top-k {TOP_K}.</p>")
    except common.PROBLEMS as problem:
        yield f'<div class="none">{common.notice(common.sentence(problem), note=True)}</div>'


def standing_in_line(said: str) -> str:
    return f'<div class="none">{common.notice(said, note=True)}</div>'


def go_to(number, width, layers, attention, before):
    """Move to a near trained place: the sliders' new values, then see's outputs with the notice."""
    near = grid.nearest(place(width, layers, attention))
    point = near[min(number, len(near) - 1)]
    here = (point.width, point.layers, point.attention)
    return (*here, *see(*here, before))


def opened(request: gr.Request):
    """The state of the address: what is wrong with it, the controls, then see's outputs with the notice."""
    values, problem = common.read_query(request, START, ALLOWED)
    notice, *shown = see(values["width"], values["layers"], values["attention"], SEEN_BEFORE)
    return (common.notice(problem, note=True), *values.values(), notice, *shown)


def trained_model(width: int = 96, layers: int = 3, attention: str = "MLA") -> dict:
    """Say what a small model of this width, depth and attention costs, and how well it predicts if it was trained.

    Args:
        width: d_model, 24 to 96 in steps of 8; trained are 24, 48 and 96.
        layers: 1 to 3; trained are 1 and 3.
        attention: MHA, GQA or MLA.

    Returns:
        parameters, cache_bytes_per_token (16 bits a number), trained, bits_per_byte on held-out text (less is better;
        null where nothing was trained), and nearest, the trained models around a place where nothing was.
    """
    point = Point(width, layers, attention)
    bits, _ = held_out()
    near = [] if point.trained else grid.nearest(point)
    return {"parameters": accounting.count_parameters(point.config).total,
            "cache_bytes_per_token": accounting.cache_bytes_per_token(point.config), "trained": point.trained,
            "bits_per_byte": bits.get(point.name) if point.trained else None,
            "nearest": [{"width": p.width, "layers": p.layers, "attention": p.attention} for p in near]}


API = (trained_model,)


def build(demo: gr.Blocks) -> None:
    common.question("What do width, layers and attention buy?",
                    "Each place on the sliders where a model was trained has a cost, a quality and a text of its own: "
                    "move one slider, and all of them change together.")
    before = gr.State(SEEN_BEFORE)
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            width = gr.Slider(grid.WIDTHS[0], grid.WIDTHS[-1], START["width"], step=grid.WIDTH_STEP, label="Width",
                              elem_id="width", info=f"d_model; trained at {', '.join(map(str, presets.GRID_WIDTHS))}")
            layers = gr.Slider(grid.LAYERS[0], grid.LAYERS[-1], START["layers"], step=1, label="Layers",
                               info=f"trained at {', '.join(map(str, presets.GRID_LAYERS))}")
            attention = gr.Radio(presets.GRID_ATTENTIONS, value=START["attention"], label="Attention")
        with gr.Column(scale=2, min_width=300):
            remark, notice = common.notice_box(), common.notice_box()  # on the address, which stays; on the last move
            numbers = gr.HTML(css_template=CSS, elem_classes="result", elem_id="figures")
            text = gr.HTML(css_template=CSS, elem_id="written")
            with gr.Row():
                near = [gr.Button(visible=False, size="sm", min_width=140) for _ in range(MOST_NEAR)]
            with gr.Row():
                prompt = gr.Textbox(START["prompt"], label="Prompt", scale=2, min_width=180)
                seed = gr.Number(START["seed"], label="Seed", scale=1, min_width=100)
            said = gr.HTML(elem_classes="result", elem_id="said")
            plot = Chart(elem_classes="result", elem_id="chart")
            formula = gr.HTML(elem_classes="result", elem_id="formula")
            points = gr.HTML(css_template=CSS, elem_classes="result", elem_id="points")
    controls = {"width": width, "layers": layers, "attention": attention, "prompt": prompt, "seed": seed}
    common.try_this((what, common.link("", **state)) for what, state in TRY)
    common.copy_link_button(controls)
    common.lesson("`course/01_architecture/03_training_a_gpt.ipynb` trains such a model and watches one weight learn.")

    sliders, moved = [width, layers, attention], [width.input, layers.input, attention.input]
    seen = [notice, numbers, plot, said, formula, points, *near, before]
    generation = {**common.GENERATION, "trigger_mode": "always_last"}
    gr.on(moved, see, [*sliders, before], seen, api_name="see", **common.FIGURES)
    # One event writes, whatever moved the figures: of two, the older could go on writing into the newer one's box.
    gr.on([numbers.change, prompt.change, seed.input], in_line(write, standing_in_line), [*controls.values()],
          text, api_name="write_tweak", **generation)
    for number, button in enumerate(near):
        button.click(lambda *state, number=number: go_to(number, *state), [*sliders, before], [*sliders, *seen],
                     api_name=f"go_to_{number}", **common.FIGURES)
    demo.load(opened, None, [remark, *controls.values(), *seen], api_name="open_tweak", **common.FIGURES)


if __name__ == "__main__":
    from apps import starting, tweak

    starting.run_alone(tweak)
