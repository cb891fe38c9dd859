"""The figures of rotary positions: right numbers in them, transparent, small, of trace types that the app can draw."""

import json
import math

import pytest

from llm_core import plots

NAN = float("nan")
FIGURES = {
    "dials": plots.rope_dials([("pair 0", 1.0, 0.0), ("pair 1", 0.0, 6.0)], columns=2),
    "scores": plots.rope_scores([1, 10, 100], [3.0, -1.0, 0.5], [3.0, 2.0, 1.0], 10, 50),
    "waves": plots.rope_wavelengths([10, 100], [10, 400], ["kept", "interpolated"], 64, 256),
    "past": plots.past_context({"plain": ([4, 8], [1.0, 5.0]), "YaRN": ([4, 8], [1.1, NAN])}, 4, "x", "y"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_light_and_transparent(name):
    text = FIGURES[name].to_json()
    made = json.loads(text)
    assert len(text) < 6000 and made["layout"].get("template") is None
    assert made["layout"]["paper_bgcolor"] == made["layout"]["plot_bgcolor"] == "rgba(0,0,0,0)"
    assert {trace["type"] for trace in made["data"]} == {"scatter"}


def test_dials_point_where_the_angles_say():
    circles, arcs, key, query, labels = FIGURES["dials"].data
    assert (query.name, key.name) == ("query", "key")
    x0, x1 = labels.x  # the two centres
    assert math.atan2(query.y[1], query.x[1] - x0) == pytest.approx(1.0, abs=2e-3)
    assert math.atan2(query.y[4], query.x[4] - x1) == pytest.approx(0.0, abs=2e-3)
    assert math.atan2(key.y[4], key.x[4] - x1) == pytest.approx(6.0 - 2 * math.pi, abs=2e-3)
    assert max(y for y in arcs.y[18:-1]) < 0.01  # from 6.0 on to 2 pi, the nearer way: below the axis
    assert math.atan2(arcs.y[18], arcs.x[18] - x1) == pytest.approx(6.0 - 2 * math.pi, abs=5e-3)
    assert arcs.y[-2] == pytest.approx(0.0, abs=2e-3)  # and it ends at the query
    assert list(labels.text) == ["pair 0", "pair 1"] and max(abs(y) for y in circles.y if y is not None) == 1


def test_scores_mark_the_distance_at_hand_and_the_trained_context():
    upper, lower, line, here = FIGURES["scores"].data
    assert list(line.y) == [3, -1, 0.5] and list(upper.y) == [-y for y in lower.y] == [3, 2, 1]
    assert (here.x[0], here.y[0]) == (10, -1) and FIGURES["scores"].layout.shapes[0].x0 == 50
    none = plots.rope_scores([1, 10], [3.0, 1.0], [3.0, 1.0], 0, 50)
    assert len(none.data) == 3 and not none.layout.shapes  # no distance, and a context beyond the chart


def test_wavelengths_by_zone():
    base, kept, slowed = FIGURES["waves"].data
    assert list(base.y) == [10, 100] and (kept.name, slowed.name) == ("kept", "interpolated")
    assert (list(kept.x), list(slowed.x), list(slowed.y)) == ([0], [1], [400])
    assert kept.marker.symbol != slowed.marker.symbol  # told apart without colour
    assert [shape.y0 for shape in FIGURES["waves"].layout.shapes] == [64, 256]
    one = plots.rope_wavelengths([10, 100], [10, 100], ["kept", "kept"], 64, 64)
    assert len(one.data) == len(one.layout.shapes) == 1


def test_past_the_context():
    plain, yarn = FIGURES["past"].data
    assert list(plain.y) == [1, 5] and list(yarn.y) == [1.1, None]
    assert FIGURES["past"].layout.shapes[0].x0 == 4 and "trained on 4" in FIGURES["past"].layout.annotations[0].text
    chance = plots.past_context({"plain": ([4], [1.0])}, 4, "x", "y", 0.25).layout
    assert chance.shapes[1].y0 == 0.25 and chance.yaxis.range[0] <= 0
