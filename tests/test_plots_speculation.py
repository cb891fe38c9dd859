"""The figures of drafts: the numbers given, one mark at the chosen place, light and transparent."""

import json

from llm_core import plots

CURVES = {"V3": ("routed experts", {1: 1.17, 4: 1.05, 512: 1.82}), "Llama": ("dense feed-forward", {1: 1.8, 4: 1.8})}


def test_both_figures_are_light_and_transparent():
    for fig in (plots.speed_up_lines(CURVES, 4), plots.acceptance_bars({"MTP module": (0.669, 0.766)})):
        made = json.loads(fig.to_json())
        assert len(fig.to_json()) < 6000 and made["layout"].get("template") is None
        assert made["layout"]["paper_bgcolor"] == made["layout"]["plot_bgcolor"] == "rgba(0,0,0,0)"
        assert {trace["type"] for trace in made["data"]} <= {"bar", "scatter"}


def test_speed_up_over_the_texts():
    v3, llama = plots.speed_up_lines(CURVES, 4).data
    assert (list(v3.x), list(v3.y), v3.name) == ([1, 4, 512], [1.17, 1.05, 1.82], "V3")
    assert v3.line.color == plots.COLOURS["routed experts"] and llama.line.color == plots.COLOURS["dense feed-forward"]
    assert v3.line.dash != llama.line.dash and v3.marker.symbol != llama.marker.symbol  # not by colour alone
    sizes = list(v3.marker.size)
    assert sizes.index(max(sizes)) == 1 and sizes.count(max(sizes)) == 1
    level, chosen = plots.speed_up_lines(CURVES, 4).layout.shapes
    assert (level.y0, level.y1) == (1, 1) and (chosen.x0, chosen.x1) == (4, 4)


def test_acceptance_in_per_cent():
    greedy, expected = plots.acceptance_bars({"MTP module": (0.669, 0.766), "bigram table": (0.356, 0.466)}).data
    assert list(greedy.y) == [66.9, 35.6] and list(expected.y) == [76.6, 46.6]
    assert list(greedy.text) == ["66.9", "35.6"] and list(greedy.x) == ["MTP<br>module", "bigram<br>table"]
    assert greedy.marker.pattern.shape != expected.marker.pattern.shape
