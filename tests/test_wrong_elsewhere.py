"""Each figure of "wrong elsewhere", said and counted, by plain arithmetic on the sizes that the papers print."""

from pathlib import Path

import pytest

from llm_core import presets
from llm_core.accounting import wrong_elsewhere

V3_EXPERT = 3 * 7168 * 2048
V3_ATTENTION = 7168 * 1536 + 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 + 512 * 128 * 256 + 128 * 128 * 7168
V3_LAYER = V3_ATTENTION + 2 * 7168  # and two norms
V3_TABLE = 129280 * 7168
V3_DENSE = 3 * (V3_LAYER + 3 * 7168 * 18432)
V3_OTHER = 2 * V3_TABLE + 7168 + V3_DENSE + 58 * (V3_LAYER + V3_EXPERT + 256 * 7168)
V3_MTP = V3_LAYER + 257 * V3_EXPERT + 256 * 7168 + 3 * 7168 + 2 * 7168 * 7168
V3_CACHE = 61 * (512 + 64) * 2


def gpt(d, layers, attention, vocab=50257, context=2048):
    """GPT-2's layout: biases everywhere, two layer norms a block and one at the end, a tied head."""
    block = 3 * (d * attention + attention) + attention * d + d + 2 * 4 * d * d + 5 * d + 4 * d
    return (vocab + context) * d + layers * block + 2 * d


MIXTRAL = (2 * 32000 * 4096 + 4096 + 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 2 * 4096 + 8 * 4096
                                           + 8 * 3 * 4096 * 14336))
FIGURES = {  # name: as said, as counted
    "v2-cache": (93.3, 100 * (1 - 60 * 576 / (95 * 2 * 8 * 128))),
    "v3-active": (36.7, (V3_OTHER + 58 * 8 * V3_EXPERT) / 1e9),
    "v3-hub": (14, V3_MTP / 1e9),
    "v3-mtp": (11.5, V3_MTP / 1e9),
    "llama-times": (7.28, 126 * 2 * 8 * 128 * 2 / V3_CACHE),
    "rope-key": (61 * 512 * 2, V3_CACHE),
    "latent-twice": (2 * 61 * 512 * 2, V3_CACHE),
    "as-mha": (2 * 61 * 128 * 56 * 2, V3_CACHE),
    "gpt3-xl": (1.3, gpt(2048, 24, 24 * 128) / 1e9),
    "gpt3-13b": (13.0, gpt(5140, 40, 40 * 128) / 1e9),
    "gpt2-117m": (117, gpt(768, 12, 768, context=1024) / 1e6),
    "gpt2-163m": ((gpt(768, 12, 768, context=1024) + 50257 * 768) / 1e6, gpt(768, 12, 768, context=1024) / 1e6),
    "mixtral": (56, MIXTRAL / 1e9),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure(name):
    figure = wrong_elsewhere.get(name)
    assert (figure.said, figure.exact) == pytest.approx(FIGURES[name], rel=1e-12)
    assert figure.shown(figure.said) != figure.shown(figure.exact)
    assert presets.get(figure.preset)


def test_every_figure_is_done_again_here():
    assert [figure.name for figure in wrong_elsewhere.figures()] == list(FIGURES)


def test_how_the_wrong_ones_come_about():
    """Where the page says that a wrong figure comes out of a certain slip, it does."""
    assert 100 * (1 - 60 * 576 * 6 / (95 * 2 * 8 * 128 * 16)) == pytest.approx(93.3, abs=0.05)  # 6 bits against 16
    assert (V3_MTP - 2 * 7168 * 7168) / 1e9 == pytest.approx(11.5, abs=0.05)  # without the projection
    assert (V3_OTHER + 58 * 8 * V3_EXPERT - V3_TABLE) / 1e9 == pytest.approx(36.63, abs=0.005)
    assert 24 * 128 != 2048 and 40 * 128 != 5140
    assert "24.9 times" in " ".join(wrong_elsewhere.get("as-mha").arithmetic)


def test_the_hubs_count_of_the_file_is_met_to_the_last_digit():
    """684,531,386,000: what the hub's own metadata says of DeepSeek-V3's file."""
    lines = wrong_elsewhere.get("v3-hub").arithmetic
    assert lines[0].endswith("= 684,489,830,400") and lines[1].endswith(": 684,531,386,000")
    assert wrong_elsewhere.block_scales(presets.get("deepseek-v3")) == 41_540_496


def test_the_page_in_course_is_the_one_that_is_printed():
    path = Path(__file__).resolve().parents[1] / "course" / "WRONG_ELSEWHERE.md"
    assert path.read_text(encoding="utf-8") == wrong_elsewhere.page()


def test_an_unknown_name_gets_the_names_there_are():
    with pytest.raises(ValueError, match="no figure is called 'v4'; there are v2-cache, "):
        wrong_elsewhere.get("v4")
