"""Below the page Architecture: what DeepSeek-V3's file holds beside the model, and sizes that nobody published."""

from __future__ import annotations

import gradio as gr

from apps import common
from apps.components import Chart
from llm_core import accounting, plots

PARTS = {"main model": "experts", "MTP module": "MTP", "embedding, a second time": "embeddings",
         "output head, a second time": "output head", "scales of FP8 blocks": "norms",
         "biases of the routers": "router"}


def build() -> None:
    steps = accounting.numbers_in_v3_file()
    file = sum(steps.values())
    gr.Markdown("### 671 B or 685 B? What DeepSeek-V3's file holds")
    Chart(plots.waterfall(steps, 660 * 10**9, [plots.COLOURS[PARTS[name]] for name in steps]), elem_id="file-chart")
    rows, so_far = [], 0
    for name, n in steps.items():
        so_far += n
        rows.append((name, f"{n:,}", f"{so_far:,}"))
    again = steps["embedding, a second time"] + steps["output head, a second time"]
    gr.HTML(common.said(
        f"The hub counts {accounting.V3_ON_THE_HUB:,} numbers in the file, and so do we, to the last digit: "
        f"{accounting.human_count(steps['main model'])} of the main model, "
        f"{accounting.human_count(steps['MTP module'])} of the MTP module, and {accounting.human_count(again)} that "
        "are there a second time, because the file stores embedding and head again beside the module that shares them. "
        "The last two are no parameters: scales of FP8 blocks, and biases that a rule moves.")
        + common.table(("in the file", "numbers", "sum so far"), rows, f"In all {file:,}", words=(0,))
        + '<p><a href="/wrong-elsewhere?figure=v3-hub">What is said about it elsewhere</a></p>', elem_id="file-table")
    gr.Markdown("### Sizes that nobody published: estimates of others")
    gr.HTML(common.said(
        "GPT-4 and GPT-4.5 cannot be counted. " + accounting.NEVER_PUBLISHED + " What is said about them is below, "
        "each with the kind of its source. None is confirmed, and none is used in any figure of this course.")
        + common.table(("model", "what is said", "how sure", "kind of source", "who says so"),
                       [(e.model, _span(e), "unconfirmed estimate", e.kind, e.said_by) for e in accounting.ESTIMATES],
                       "Parameters, as said by others", words=(0, 2, 3, 4)), elem_id="estimates")


def _span(estimate: accounting.Estimate) -> str:
    least, most = estimate.parameters
    trillions = f"{least / 1e12:g}" if least == most else f"{least / 1e12:g} to {most / 1e12:g}"  # no more digits
    return f"about {trillions} T"
