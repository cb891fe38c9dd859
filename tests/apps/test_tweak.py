"""Tweak and see in a real browser, against the shipped cards and what llm_core generates here, in another process."""

import json
import re
import statistics

import pytest
from conftest import has_no_sideways_scroll, redraw_milliseconds, settle

from apps import tweak
from llm_core import accounting, grid, load_pretrained, pretrained
from llm_core.generation import generate
from llm_core.grid import Point
from llm_core.sampling import Sampler

START = tweak.START


def opened(page, site: str, query: str = ""):
    page.goto(f"{site}{tweak.PATH}{query}")
    page.locator("#points tbody tr").nth(17).wait_for()
    return page


def move(page, width: int | None = None, layers: int | None = None, attention: str | None = None):
    if width:
        page.get_by_role("slider", name="Width").fill(str(width))
    if layers:
        page.get_by_role("slider", name="Layers").fill(str(layers))
    if attention:
        page.get_by_label(attention, exact=True).check()


def figures(page) -> list[str]:
    return page.locator("#figures dd").all_inner_texts()


def card_figures(point: Point) -> list[str]:
    about = pretrained.card(point.name)
    return [f"{about['parameters']:,}", f"{accounting.cache_bytes_per_token(point.config):,}",
            f"{about['bits_per_byte']:.2f}"]


def expected_text(point: Point, prompt: str, seed: int) -> str:
    model, tokenizer = load_pretrained(point.name)
    ids = generate(model, tokenizer.encode(prompt), tweak.TOKENS, Sampler(tweak.TEMPERATURE, tweak.TOP_K, seed=seed),
                   stop_token=tokenizer.end_of_text)[0].tolist()
    return tokenizer.decode(i for i in ids if i != tokenizer.end_of_text)


def wait_for_text_of(page, point: Point, prompt: str, seed: int):
    """Returns once the page shows this model's whole text, said to be its own; else the fixture's time-out ends it."""
    page.wait_for_function("""([text, by]) => document.querySelector("#written p")?.textContent === text
        && document.querySelector("#written .by").textContent.includes(by)""",
                           arg=[expected_text(point, prompt, seed), f"Written by {point}:"])
    settle(page)


def test_opens_with_a_model_its_figures_its_text_and_a_comparison(page, site):
    opened(page, site)
    here = Point(START["width"], START["layers"], START["attention"])
    assert figures(page) == card_figures(here)
    wait_for_text_of(page, here, START["prompt"], START["seed"])
    said = page.locator("#said").inner_text()
    assert "MLA keeps 56 numbers a token and layer where MHA keeps 192" in said and "bits per byte against" in said
    assert page.locator("#chart .js-plotly-plot").count() == 1
    assert f"▶ {here}" in page.locator("#points tr.here").inner_text()
    rows = page.locator("#points tbody tr").all_inner_texts()
    for row, point in zip(rows, grid.trained_points(), strict=True):
        assert str(point) in row and row.split("\t")[1:] == card_figures(point)


def test_all_figures_and_the_text_follow_the_sliders_to_that_very_model(page, site):
    opened(page, site)
    place = dict(START)
    for step in ({"attention": "GQA"}, {"width": 24}, {"layers": 1}, {"width": 48}):
        move(page, **step)
        place |= step
        here = Point(place["width"], place["layers"], place["attention"])
        page.locator("#points tr.here", has_text=str(here)).wait_for()
        assert figures(page) == card_figures(here)
        wait_for_text_of(page, here, START["prompt"], START["seed"])
        assert accounting.cache_formula(here.config) in page.locator("#formula").inner_text()
    said = page.locator("#said").inner_text()
    assert "At width 48 GQA keeps 48 numbers a token and layer, at width 24 it kept 24" in said


def test_between_trained_places_cost_is_exact_and_text_and_quality_are_not_made_up(page, site):
    opened(page, site)
    move(page, width=72)
    here = Point(72, 3, "MLA")
    page.locator("#written", has_text="No text: MLA, width 72, 3 layers was not trained.").wait_for()
    page.locator("#said", has_text="Nearest are: MLA, width 96, 3 layers · MLA, width 48, 3 layers.").wait_for()
    shown = figures(page)
    assert shown[:2] == [f"{accounting.count_parameters(here.config).total:,}",
                         f"{accounting.cache_bytes_per_token(here.config):,}"]
    assert shown[2] == "not trained" and page.locator("#written .new").count() == 0
    assert page.locator("#points tr.here").count() == 0
    page.get_by_role("button", name="Go to MLA, width 48, 3 layers").click()
    there = Point(48, 3, "MLA")
    wait_for_text_of(page, there, START["prompt"], START["seed"])
    assert figures(page) == card_figures(there)
    assert page.get_by_role("slider", name="Width").input_value() == "48"
    assert page.get_by_role("button", name="Go to").count() == 0
    assert "at width 96 it kept 56" in page.locator("#said").inner_text()  # compared with the last trained place


def test_prompt_and_seed_change_the_text_and_bad_prompts_get_a_sentence(page, site):
    opened(page, site)
    here = Point(96, 3, "MLA")
    page.get_by_label("Seed").fill("9")
    wait_for_text_of(page, here, START["prompt"], 9)
    prompt = page.get_by_label("Prompt")
    prompt.fill("")
    page.locator("#written", has_text="the prompt is empty").wait_for()
    prompt.fill("A king " * 200)
    page.locator("#written", has_text="the model's context holds 256; keep the last 256").wait_for()
    prompt.fill("<|endoftext|><b>")
    wait_for_text_of(page, here, "<|endoftext|><b>", 9)


def test_the_address_sets_the_page_and_the_copied_link_opens_it_again(page, site):
    opened(page, site, "?width=24&layers=1&attention=MHA&prompt=The+king&seed=3")
    here = Point(24, 1, "MHA")
    assert figures(page) == card_figures(here)
    wait_for_text_of(page, here, "The king", 3)
    move(page, attention="GQA")
    there = Point(24, 1, "GQA")
    wait_for_text_of(page, there, "The king", 3)
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_url(re.compile("attention=GQA"))
    page.reload()
    page.locator("#points tr.here", has_text=str(there)).wait_for()
    wait_for_text_of(page, there, "The king", 3)
    opened(page, site, "?width=50&attention=flash&layers=1")
    assert "width cannot be '50' and was set to 96" in page.locator(".notice").inner_text()
    assert page.get_by_role("slider", name="Layers").input_value() == "1"


@pytest.mark.parametrize("width, scheme", [(390, "light"), (390, "dark"), (1280, "dark")])
def test_looks_right_on_a_phone_and_in_the_dark(new_page, site, width, scheme):
    page = new_page(width, 844)
    page.emulate_media(color_scheme=scheme)
    opened(page, site)
    page.locator("#chart .js-plotly-plot").wait_for()
    assert has_no_sideways_scroll(page)
    page.locator("#chart .main-svg").first.wait_for(state="attached", timeout=60_000)
    assert page.evaluate("getComputedStyle(document.querySelector('#chart .main-svg')).backgroundColor") in (
        "rgba(0, 0, 0, 0)", "transparent")


def test_a_slider_redraws_fast(page, site):
    opened(page, site)
    page.locator("#chart .js-plotly-plot").wait_for()
    times = redraw_milliseconds(page, "#width", "#chart", "#figures", ["ArrowLeft"] * 6 + ["ArrowRight"] * 5)
    print(f"\nTweak and see: a slider redraws in {statistics.median(times):.0f} ms (median of {len(times)})")
    assert statistics.median(times) < 1000


# Without a browser --------------------------------------------------------------------------------------------------

def test_missing_files_are_a_sentence_and_what_is_exact_is_still_shown(empty_folder):
    shown = "".join(str(part) for part in tweak.opened(None))
    assert "Its quality is not known: grid/card.json is missing" in shown and "526,896" in shown
    assert "grid/card.json is missing" in next(tweak.write(96, 3, "MLA", "A", 1))


def test_a_file_that_is_cut_off_is_a_sentence(empty_folder):
    config = Point(24, 1, "MHA").config
    (empty_folder / "grid").mkdir()
    (empty_folder / "grid" / "card.json").write_text(json.dumps(
        {"models": {"tiny-mha-w24-l1": {"config": config.to_dict(), "tokenizer": "course"}}}))
    (empty_folder / "grid" / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0cut")
    assert "grid/model.safetensors is damaged or cut off" in next(tweak.write(24, 1, "MHA", "A", 1))


def test_places_that_the_sliders_do_not_have_get_a_sentence():
    assert "width cannot be 50" in tweak.see(50, 1, "MHA", tweak.SEEN_BEFORE)[0]
    assert "layers must be a whole number, not 1.5" in tweak.see(48, 1.5, "MHA", tweak.SEEN_BEFORE)[0]
    assert "width cannot be 50" in next(tweak.write(50, 1, "MHA", "A", 1))
