"""The figures: right numbers in them, one colour a part, small, transparent, and only trace types the app can draw."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from plotly.colors import get_colorscale, sample_colorscale, unlabel_rgb

from llm_core import accounting, plots, presets

CONFIG = presets.get("deepseek-v3")
CONFIGS = {"MHA": presets.get("llama-2-7b"), "GQA": presets.get("llama-3.1-8b"), "MLA": CONFIG}
FIGURES = {
    "bars": plots.bars(["a", "b"], [1, 2], ["one", "two"]),
    "treemap": plots.parameter_treemap(CONFIG),
    "cache bars": plots.cache_bars({"MHA": 2_000_000_000, "MLA": 1}),
    "cache lines": plots.cache_lines(CONFIGS, 131072),
    "measured": plots.measured_cache({"MLA": {1: 70272, 2: 140544}}, CONFIGS),
    "quality": plots.quality_against_cache([("MHA", 100, 2.0, "x", True), ("MLA", 50, 2.1, "y", False)], 100),
    "shares": plots.part_shares({"attention": [10, 20], "norms": [90, 80]}, ["a", "b"]),
    "strips": plots.strips([("a", [1.0, -2.0]), ("b", [0.0, 0.0])]),
    "effects": plots.compartment_effects([10, 20], [30, 40], "experts", 1),
    "lens": plots.logit_lens([[10.0], [99.0]], [["a"], ["b"]], ["x (0)"], 0),
    "total and active": plots.total_and_active({"held": {"routed experts": 9, "norms": 1}, "used": {"norms": 1}},
                                               ["10", "1"]),
    "ways": plots.ways_by_pieces({1: 13.85, 2: 26.84}, 1),
    "load": plots.load_bars([3, 0, 9]),
    "information": plots.information_bars({"trained": {1: 1.22, 2: 0.93}, "by chance": {1: 0.2, 2: 0.2}}),
    "imbalance": plots.imbalance_lines({"bias": [2.5, 1.1], "nothing": [2.5, 2.6]}, 400, 4.0),
    "ways of MLA": plots.ways_lines({way: lambda n, w=way: accounting.way_flops(CONFIG, 1, n, w)
                                     for way in accounting.WAYS}, 1, 131072, 2),
    "rank": plots.loss_against_rank({"plain": [(4, 1.0), (2, 2.0)], "data": [(4, 1.0), (2, 1.5)]},
                                    {"data": [(2, 1.5)]}, 2, 1.0),
    "attention map": plots.attention_map([[100, None], [40, 60]], ["a", "b"]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_light_and_transparent(name):
    text = FIGURES[name].to_json()
    made = json.loads(text)
    assert len(text) < 6000
    assert made["layout"].get("template") is None
    assert made["layout"]["paper_bgcolor"] == made["layout"]["plot_bgcolor"] == "rgba(0,0,0,0)"
    assert {trace["type"] for trace in made["data"]} <= {"bar", "scatter", "treemap", "heatmap"}


def test_every_part_has_a_colour_and_parts_of_one_family_share_it():
    assert set(accounting.PARTS) | {"embeddings", "experts", "cache", "MTP"} <= plots.COLOURS.keys()
    families = [("embeddings", "token embedding", "position embedding"), ("attention",), ("dense feed-forward",),
                ("experts", "routed experts", "shared experts"), ("norms", "router"), ("output head",), ("cache",),
                ("MTP",)]
    colours = [{plots.COLOURS[part] for part in family} for family in families]
    assert all(len(family) == 1 for family in colours)
    assert len(set.union(*colours)) == len(families)


def test_the_treemap_holds_the_exact_counts():
    tiles = FIGURES["treemap"].data[0]
    counted = accounting.count_parameters(CONFIG)
    assert dict(zip(tiles.labels[1:], tiles.values[1:])) == counted.by_part
    assert tiles.values[0] == counted.total == sum(tiles.values[1:])
    assert list(tiles.marker.colors[1:]) == [plots.COLOURS[part] for part in tiles.labels[1:]]


def test_ink_is_readable_on_its_colour():
    def luminance(colour):
        parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        return sum(w * (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4)
                   for w, c in zip((0.2126, 0.7152, 0.0722), parts))

    tiles = FIGURES["treemap"].data[0]
    for part, ink in zip(tiles.labels[1:], tiles.textfont.color[1:]):
        high, low = sorted((luminance(ink), luminance(plots.COLOURS[part])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, part


def test_cache_lines_are_the_formula_and_mark_the_context():
    fig = plots.cache_lines(CONFIGS, 100_000, batch=2, bits=8)
    for line in fig.data:
        assert 100_000 in line.x
        assert list(line.y) == [round(accounting.cache_bytes(CONFIGS[line.name], 2, t, 8) / 1e9, 6) for t in line.x]
        assert [t for t, size in zip(line.x, line.marker.size) if size] == [100_000]
    assert fig.layout.shapes[0].x0 == 100_000
    looks = {(line.line.dash, line.marker.symbol) for line in fig.data}
    assert len(looks) == len(fig.data)  # told apart without colour
    with pytest.raises(ValueError, match="tokens must be a whole number of at least 1, not 0"):
        plots.cache_lines(CONFIGS, 0)


def test_measured_dots_keep_what_was_measured_even_off_the_line():
    line, dots = plots.measured_cache({"MLA": {1: 70272, 4: 999}}, CONFIGS).data
    assert list(dots.y) == [70272, 999]
    assert list(line.y) == [70272, 4 * 70272]


def test_bars_leave_room_for_their_texts():
    fig = plots.cache_bars({"MHA": 2_000_000_000, "MLA": 0})
    assert list(fig.data[0].text) == ["2.00 GB (1.86 GiB)", "0 bytes"]
    assert fig.layout.xaxis.range[1] > 1.5 * 2_000_000_000
    assert plots.bars(["a"], [0], ["nothing"]).layout.xaxis.range[1] > 0


def test_strips_are_in_units_of_their_own_size():
    strip = plots.strips([("a", [3.0, 4.0]), ("b", [0.3, 0.4]), ("zero", [0.0, 0.0])]).data[0]
    size = (12.5) ** 0.5
    assert strip.z[0] == strip.z[1] == pytest.approx([3 / size, 4 / size], abs=0.005) and strip.z[2] == [0, 0]


def test_effects_have_the_parts_colours_and_mark_the_block():
    fig = plots.compartment_effects([10.04, 20], [30, 40], "dense feed-forward", 1)
    assert [bar.y for bar in fig.data] == [(10.0, 20), (30, 40)]
    assert [bar.marker.color for bar in fig.data] == [plots.COLOURS["attention"], plots.COLOURS["dense feed-forward"]]
    assert (fig.layout.shapes[0].x0, fig.layout.shapes[0].x1) == (0.5, 1.5)


def test_the_lens_has_a_row_a_block():
    fig = plots.logit_lens([[10.0, 1], [99.0, 2], [3, 4]], [["a", "b"], ["c", "d"], ["e", "f"]], ["x (0)", "y (1)"], 1)
    assert list(fig.data[0].y) == ["before any", "after 0", "after 1"] and list(fig.data[0].text[1]) == ["c", "d"]
    assert (fig.layout.shapes[0].x0, fig.layout.shapes[0].x1) == (0.5, 1.5)


def test_attention_tiles_are_a_png_of_all_maps():
    """Read by another decoder: each pixel's colour is that of its share, and what comes later is clear."""
    shares = np.zeros((3, 2, 4, 4))  # 3 layers, 2 heads, 4 tokens
    shares[2, 1] = np.tril(np.arange(16).reshape(4, 4) / 15)
    address = plots.attention_tiles(shares.tolist())
    picture = Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,"))))
    assert picture.size == (15, 10) and picture.mode == "RGBA"
    pixels = np.asarray(picture)
    tile = pixels[5:9, 10:14]  # the last layer's second head
    assert (tile[..., 3] == 255 * np.tri(4)).all() and not pixels[4].any() and not pixels[:, 4].any()
    for share, colour in ((shares[2, 1, 3, 3], tile[3, 3]), (shares[2, 1, 1, 0], tile[1, 0]), (0, pixels[0, 0])):
        wanted = unlabel_rgb(sample_colorscale(get_colorscale(plots.SEQUENTIAL), [share])[0])
        assert np.abs(colour[:3] - np.array(wanted)).max() <= 3


def test_loads_and_totals_are_drawn_as_they_are():
    load = plots.load_bars([3, 0, 9], colours=True)
    assert list(load.data[0].y) == [3, 0, 9] and list(load.data[0].marker.color) == list(plots.EXPERT_COLOURS[:3])
    assert load.layout.shapes[0].y0 == load.layout.shapes[0].y1 == 4
    assert load.layout.xaxis.ticktext == ("0<br><b>3</b>", "1<br><b>0</b>", "2<br><b>9</b>")
    both = plots.total_and_active({"held": {"routed experts": 9, "router": 2}, "used": {"router": 2}}, ["11", "2"])
    assert {bar.name: list(bar.x) for bar in both.data} == {"routed experts": [9, 0], "router": [2, 2]}
    assert [note.x for note in both.layout.annotations] == [11, 2]
    lines = plots.imbalance_lines({"bias": [2.5, 1.125], "nothing": [2.5, 2.6]}, 400, 4.0)
    assert list(lines.data[0].y) == [2.5, 1.125] and list(lines.data[1].x) == [0, 1]
def test_ways_hold_the_counts_and_the_crossing():
    drawn = {trace.name: dict(zip(trace.x, trace.y)) for trace in FIGURES["ways of MLA"].data}
    for way in accounting.WAYS:
        assert drawn[way][131072] == accounting.attention_step(CONFIG, 1, 131072, way).flops
        assert set(drawn[way]) >= {1, 2, 131072, 1 << 20}
    assert drawn["from here absorbing is cheaper"] == {2: accounting.attention_step(CONFIG, 1, 2, "absorb").flops}
    late = plots.ways_lines({"absorb": lambda n: n}, 1000, 4096, None)
    assert [min(trace.x) for trace in late.data] == [1000] and len(late.data) == 1


def test_the_curve_over_the_rank_tells_recorded_from_measured():
    drawn = {trace.name: list(zip(trace.x, trace.y)) for trace in FIGURES["rank"].data}
    assert drawn == {"plain SVD": [(4, 1.0), (2, 2.0)], "from data": [(4, 1.0), (2, 1.5)],
                     "from data, measured here": [(2, 1.5)]}
