"""The figures on few bits: light, transparent, and holding the numbers that they were given."""

import json

import pytest
import torch

from llm_core import plots

VALUES = torch.randn(5000, generator=torch.Generator().manual_seed(0))
FIGURES = {
    "map": plots.error_heatmap([[0.0, 0.001], [0.1, 2.0]]),
    "levels": plots.values_and_levels(VALUES, {"a": [-9, -1, 0, 1, 9], "b": [0.5]}, 4.0),
    "loss": plots.loss_against_bits({8: 3.0, 4: 3.1, 2: 9.0}, 4, 3.0, 7.6),
    "rulers": plots.number_rulers({"E4M3": [0.09, 0.1], "E5M2": [0.08, 0.11]}, 0.1),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_light_and_transparent(name):
    made = json.loads(FIGURES[name].to_json())
    assert len(FIGURES[name].to_json()) < 6000 and made["layout"].get("template") is None
    assert made["layout"]["paper_bgcolor"] == made["layout"]["plot_bgcolor"] == "rgba(0,0,0,0)"
    assert {trace["type"] for trace in made["data"]} <= {"bar", "scatter", "heatmap"}


def test_the_largest_map_stays_light():
    assert len(plots.error_heatmap(torch.rand(48, 48).tolist()).to_json()) < 40_000


def test_the_map_colours_by_powers_of_ten():
    cells = FIGURES["map"].data[0]
    assert cells.z.flatten().tolist() == pytest.approx([-1, -1, 1, 2])  # 0.1 % is the floor, 100 % the top
    assert cells.customdata.flatten().tolist() == pytest.approx([0, 0.1, 10, 200])


def test_the_histogram_counts_and_marks_within_its_reach():
    bars, a, b = FIGURES["levels"].data
    inside = (VALUES.abs() <= 4).sum().item()
    assert sum(bars.y) == pytest.approx(100 * inside / 5000, abs=0.3)
    assert list(a.x) == [-1, 0, 1] and list(b.x) == [0.5] and max(a.y) < 0 and b.y[0] < a.y[0]


def test_the_loss_marks_the_chosen_width():
    drawn = FIGURES["loss"].data[-1]
    assert list(drawn.x) == [2, 4, 8] and list(drawn.y) == [9.0, 3.1, 3.0]
    assert list(drawn.marker.size) == [8, 16, 8]
    assert [list(line.y) for line in FIGURES["loss"].data[:2]] == [[3.0, 3.0], [7.6, 7.6]]


def test_rulers_hold_each_formats_numbers():
    assert [list(row.x) for row in FIGURES["rulers"].data] == [[0.09, 0.1], [0.08, 0.11]]
    assert FIGURES["rulers"].layout.shapes[0].x0 == 0.1
