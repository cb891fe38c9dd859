"""Wrong elsewhere: widely copied figures, and the arithmetic that does come out."""

from __future__ import annotations

from dataclasses import asdict

import gradio as gr

from apps import common
from apps.components import Chart
from llm_core import plots
from llm_core.accounting import wrong_elsewhere

TITLE = "Wrong elsewhere"
PATH = "/wrong-elsewhere"
START = "v2-cache"


def draw(name: str):
    """Chart, sentence with its arithmetic, and the link to the model, for a figure's name."""
    figure = wrong_elsewhere.get(name)
    said, counted = figure.shown(figure.said), figure.shown(figure.exact)
    chart = plots.bars(["as said", "counted"], [figure.said, figure.exact], [said, counted],
                       colours=[plots.COLOURS["norms"], plots.COLOURS["cache"]], x=figure.unit)
    text = common.said(f"Said: {figure.claim} ({figure.where}.) Counted: {counted}. {figure.why}")
    return chart, text + common.formula(*figure.arithmetic), _model(figure)


def _model(figure: wrong_elsewhere.Figure) -> str:
    address = common.link("/architecture", preset=figure.preset)
    return f'<p>The model in question: <a href="{address}">{figure.preset}</a>, part by part.</p>'


def table() -> str:
    rows = [(figure.claim, figure.shown(figure.said), figure.shown(figure.exact), figure.where)
            for figure in wrong_elsewhere.figures()]
    return common.table(("what is said", "as said", "counted", "where"), rows,
                        "Counted by llm_core.accounting from each model's config.", words=(0, 3))


def published_figure(name: str = START) -> dict:
    """Give a published figure that does not come out, beside the arithmetic that does.

    Args:
        name: one of the figures; a wrong name is answered with all that there are.

    Returns:
        claim and where (what is said, and who says it), said and exact (the two numbers, in unit), arithmetic (lines
        that end in the exact one), why (how the other comes about), and preset (the model in question).
    """
    return asdict(wrong_elsewhere.get(name))


API = (published_figure,)


def build(demo: gr.Blocks) -> None:
    names = [figure.name for figure in wrong_elsewhere.figures()]
    shown = draw(START)
    common.question("Which published figures do not come out?", "Papers, model cards and calculators print many "
                    "numbers, and some are slips, or follow a counting rule that is not said. Here is the arithmetic.")
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            figure = gr.Radio([(f.claim, f.name) for f in wrong_elsewhere.figures()], value=START, label="What is said",
                              elem_id="figure")
            common.copy_link_button({"figure": figure})
            common.try_this([
                ("A calculator that takes DeepSeek-R1 for ordinary attention", common.link("", figure="as-mha")),
                ("685 B on the hub, to the last digit", common.link("", figure="v3-hub")),
                ("A row of GPT-3's table that does not fit together", common.link("", figure="gpt3-xl"))])
        with gr.Column(scale=2, min_width=300, elem_classes="result"):
            chart = Chart(shown[0], elem_id="chart")
            text = gr.HTML(shown[1], elem_id="text")
            model = gr.HTML(shown[2], elem_id="model")
    gr.HTML(table(), elem_id="table")
    common.lesson("`course/WRONG_ELSEWHERE.md` has all of them on one page; lesson 1 counts GPT-2 and GPT-3 by hand, "
                  "the lessons on MLA and on experts count DeepSeek.")
    outputs = [notice, chart, text, model]
    chosen = common.sentence_for(3)(draw)

    def opened(request: gr.Request):
        values, problem = common.read_query(request, {"figure": START}, {"figure": names})
        return values["figure"], common.notice(problem, note=True), *draw(values["figure"])

    figure.input(chosen, figure, outputs, api_name="wrong_elsewhere", **common.FIGURES)
    common.on_opening(demo, opened, [figure, *outputs], notice, "wrong_elsewhere_open")


if __name__ == "__main__":
    from apps import starting
    from apps import wrong_elsewhere as page  # as the site imports it

    starting.run_alone(page)
