"""Our own components: a chart that is drawn in place, a slider that passes on what is typed, Plotly from the site."""

import gzip
import json
import urllib.request

import gradio as gr
from conftest import open_and_wait, settle, table_cells

from apps import chart
from apps.components import Chart, TypedSlider
from llm_core import plots


def test_a_new_figure_changes_the_chart_that_is_there(page, site):
    """Gradio's own Plot would put another element in its place."""
    open_and_wait(page, site, "/kv-cache")
    page.evaluate("document.querySelector('#lines .js-plotly-plot').kept = true")
    before = page.evaluate("JSON.stringify(document.querySelector('#lines .js-plotly-plot').data)")
    cells, said = table_cells(page), page.locator("#table").inner_text()
    page.locator("#context-step input[type=range]").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("said => document.querySelector('#table').innerText !== said", arg=said)
    settle(page)
    assert page.evaluate("document.querySelector('#lines .js-plotly-plot').kept") is True
    assert table_cells(page) != cells
    assert page.evaluate("JSON.stringify(document.querySelector('#lines .js-plotly-plot').data)") != before


def test_a_chart_follows_the_width_of_the_window(page, site):
    open_and_wait(page, site, "/kv-cache")
    page.set_viewport_size({"width": 700, "height": 900})
    page.wait_for_function("""() => {
        const place = document.querySelector("#lines .chart");
        return Math.abs(place.querySelector(".main-svg").getBoundingClientRect().width - place.offsetWidth) < 2;
    }""")


def test_a_chart_without_its_script_says_so(chromium, site):
    page = chromium.new_page()
    page.route("**/plotly-*.min.js", lambda route: route.abort())
    page.goto(f"{site}/kv-cache")
    page.get_by_text("The chart cannot be drawn").first.wait_for()
    assert page.locator("#table td").count() > 3  # all else is there
    page.unroute("**/plotly-*.min.js")
    page.locator("#context-step input[type=range]").focus()
    page.keyboard.press("ArrowLeft")  # the next figure asks for it again
    page.locator("#lines .chart.drawn .main-svg").first.wait_for()
    assert "cannot be drawn" not in page.locator("#lines").inner_text()
    page.close()


def test_plotly_comes_from_the_site_and_is_the_one_of_the_figures(site):
    def fetched(**headers):
        request = urllib.request.Request(f"{site}/{chart.PLOTLY}", headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.headers, answer.read()

    headers, plain = fetched()
    assert plain.decode() == plots.plotly_script() and headers["content-type"].startswith("text/javascript")
    headers, small = fetched(**{"Accept-Encoding": "gzip"})
    assert headers["content-encoding"] == "gzip" and gzip.decompress(small) == plain and 3 * len(small) < len(plain)


def test_components_stay_what_they_are_when_gradio_makes_them_anew():
    with gr.Blocks():
        shown, slider = Chart(elem_id="a"), TypedSlider(0, 10, 3, step=1)
    for made in (shown, type(shown)(**shown.constructor_args)):
        assert made.get_block_name() == "html" and made.postprocess(None) is None
        assert json.loads(made.postprocess(plots.figure(x="tokens")))["layout"]["xaxis"]["title"]["text"] == "tokens"
    for made in (slider, type(slider)(**slider.constructor_args)):
        assert made.get_block_name() == "slider" and [made.preprocess(x) for x in (None, 99, "")] == [None, 99, ""]
