"""The trained points, their neighbours and the sentence about a step, against figures worked out by hand."""

import pytest

from llm_core import grid, presets
from llm_core.grid import Point


def test_the_trained_points_are_the_grid_of_presets():
    points = grid.trained_points()
    assert [p.name for p in points] == presets.grid_names()
    assert all(p.trained and p.config == presets.get(p.name) for p in points)
    assert len(points) == 18


def test_sliders_offer_every_trained_point_and_more():
    assert set(presets.GRID_WIDTHS) < set(grid.WIDTHS) and set(presets.GRID_LAYERS) < set(grid.LAYERS)
    assert grid.WIDTHS == (24, 32, 40, 48, 56, 64, 72, 80, 88, 96) and grid.LAYERS == (1, 2, 3)
    for width in grid.WIDTHS:  # each of them is a model that could be built
        for kind in presets.GRID_ATTENTIONS:
            assert Point(width, 2, kind).config.d_model == width


@pytest.mark.parametrize("point, expected", [
    (Point(48, 3, "MLA"), [(48, 3)]),
    (Point(48, 2, "GQA"), [(48, 3), (48, 1)]),  # 2 is nearer to 3 than to 1: a factor of 1.5 against one of 2
    (Point(56, 1, "MHA"), [(48, 1), (96, 1)]),
    (Point(80, 3, "MHA"), [(96, 3), (48, 3)]),
    (Point(32, 2, "MLA"), [(24, 3), (48, 3), (24, 1), (48, 1)]),
])
def test_nearest_trained_points(point, expected):
    near = grid.nearest(point)
    assert [(p.width, p.layers) for p in near] == expected
    assert all(p.trained and p.attention == point.attention for p in near)


def test_a_point_between_says_that_it_was_not_trained():
    text = grid.not_trained(Point(56, 1, "MLA"))
    assert text.startswith("MLA, width 56, 1 layer was not trained")
    assert text.endswith("Nearest are: MLA, width 48, 1 layer · MLA, width 96, 1 layer.")


@pytest.mark.parametrize("width, layers, kind, sentence", [
    (50, 1, "MHA", "width cannot be 50; it goes from 24 to 96 in steps of 8, nearest: 48, 56"),
    (48, 7, "MHA", "layers cannot be 7; it goes from 1 to 3 in steps of 1, nearest: 2, 3"),
    (48, 1, "flash", "attention must be one of MHA, GQA, MLA, not 'flash'"),
    (48.5, 1, "MHA", "width must be a whole number of at least 1, not 48.5"),
])
def test_a_place_off_the_sliders_gets_a_sentence(width, layers, kind, sentence):
    with pytest.raises(ValueError) as error:
        Point(width, layers, kind)
    assert str(error.value) == sentence


def test_numbers_in_the_cache_of_one_layer():
    # MHA: a key and a value of the whole width. GQA: half of that. MLA: half the width, and 8.
    assert [grid.cached_numbers(Point(96, 3, kind)) for kind in ("MHA", "GQA", "MLA")] == [192, 96, 56]
    assert [grid.cached_numbers(Point(24, 1, kind)) for kind in ("MHA", "GQA", "MLA")] == [48, 24, 20]


def test_another_attention_says_how_many_numbers_it_keeps():
    text = grid.compare(Point(96, 1, "MHA"), Point(96, 1, "MLA"), 2.29, 2.31)
    assert text.startswith("MLA keeps 56 numbers a token and layer where MHA keeps 192: one latent")
    assert "the cache goes from 384 to 112 bytes a token" in text
    assert text.endswith("Held-out text takes 2.31 bits per byte against 2.29: one seed each, so a difference this "
                         "small may be luck.")


def test_more_layers_and_a_difference_that_is_no_luck():
    text = grid.compare(Point(48, 1, "GQA"), Point(48, 3, "GQA"), 2.60, 2.45)
    assert text.startswith("3 layers instead of 1: each layer has its own weights and cache.")
    assert "the cache goes from 96 to 288 bytes a token" in text
    assert "2.45 bits per byte against 2.60: better by 0.15, more than" in text
    assert "may be luck" not in text


def test_another_width():
    text = grid.compare(Point(96, 1, "MLA"), Point(48, 1, "MLA"), 2.3, 2.5)
    assert text.startswith("At width 48 MLA keeps 32 numbers a token and layer, at width 96 it kept 56, since")
    assert "worse by 0.20" in text


def test_luck_ends_exactly_where_it_is_said_to():
    here, there = Point(96, 1, "MHA"), Point(96, 1, "GQA")
    assert "may be luck" in grid.compare(here, there, 2.30, 2.3499)
    assert "may be luck" not in grid.compare(here, there, 2.30, 2.35)


def test_quality_is_only_said_where_there_is_a_trained_model():
    between, trained = Point(56, 1, "MHA"), Point(48, 1, "MHA")
    assert "Held-out" not in grid.compare(trained, between, 2.5, None)
    assert grid.compare(between, trained, None, 2.5).endswith("Held-out text takes 2.50 bits per byte.")
    assert "Held-out" not in grid.compare(trained, Point(48, 3, "MHA"))  # the cards are missing


def test_staying_where_one_is():
    here = Point(48, 1, "MHA")
    assert grid.compare(here, here, 2.5, 2.5) == ("This is MHA, width 48, 1 layer, which keeps 96 numbers a token and "
                                                  "layer. Held-out text takes 2.50 bits per byte.")
    assert grid.compare(here, here).endswith("which keeps 96 numbers a token and layer.")
