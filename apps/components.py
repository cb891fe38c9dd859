"""Two components of our own: charts that are drawn in place, and sliders that take what is typed.

They are classes, not instances with a method changed: Gradio makes a component anew when an event updates or skips it.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio import component_meta

# For each class of components Gradio writes a file beside its source, at every start. Not among ours.
component_meta.create_or_modify_pyi = lambda *_: None


class Chart(gr.HTML):
    """Shows a figure of llm_core.plots, or nothing for None; elem_id and the like as for gr.HTML.

    gr.Plot throws the old chart away for each new figure and lays the new one out twice. Here the browser changes what
    is there (`chart.js`). Its inner place has the class "drawn" as soon as the chart is seen, "empty" if there is none.
    """

    def __init__(self, value: Any = None, **options):
        super().__init__(value, html_template='<div class="chart"></div>',
                         js_on_load="drawChart(element, props, watch)", **options)

    def postprocess(self, value: Any) -> str | None:
        return None if value is None else value.to_json()


class TypedSlider(gr.Slider):
    """A slider that passes on whatever was typed into its number box, None for an emptied one.

    gr.Slider would answer that with a traceback in the log; `common.within` makes the best of it and says so.
    """

    is_template = True  # the browser shows a slider

    def preprocess(self, payload: Any) -> Any:
        return payload
