"""The page Ladder: every step, both sizes, steps left out; its numbers are llm_core's."""

import statistics

import pytest
from conftest import (
    drag,
    numbers,
    redraw_milliseconds,
    settle,
    table_cells,
    wait_for_text,
)

from apps import ladder as page_module
from llm_core import accounting, ladder, presets


def open_page(page, site, query=""):
    page.goto(f"{site}/ladder{query}")
    page.locator("#cache .main-svg").first.wait_for()
    page.locator(".answered, .notice").first.wait_for(state="attached")


def here(page) -> str:
    return next(first for first, rest in table_cells(page).items() if rest[-1] == "here")


def test_opens_on_the_step_to_mla(page, site):
    open_page(page, site)
    assert here(page) == "8. MLA"
    cells = table_cells(page)
    for i, rung in enumerate(ladder.climb("deepseek-v3")):
        row = cells[f"{i}. {rung.step.label}" if i else "0. start"]
        assert numbers(row[0] + " " + row[2] + " " + row[4] + " " + row[6]) == [
            rung.total, rung.active, rung.cache, rung.mtp]
    said = page.locator("#text").inner_text()
    assert "the cache of a token goes from 250 kB to 70.3 kB" in said
    assert "the total, all of it active, goes from 33.2 B to 45.2 B" in said
    assert "128 heads now instead of 56" in said
    assert accounting.cache_formula(ladder.climb("deepseek-v3")[8].config) in said
    settle(page)


def test_the_slider_climbs_by_mouse_and_by_keys(page, site):
    open_page(page, site)
    drag(page, "#step", 1.0)
    wait_for_text(page, "#text", "Step 14 of 14, YaRN")
    assert "It changes neither the size nor the cache." in page.locator("#text").inner_text()
    page.locator("#step input[type=range]").focus()
    page.keyboard.press("ArrowLeft")
    wait_for_text(page, "#text", "Step 13 of 14, MTP")
    assert "11.6 B parameters are added apart" in page.locator("#text").inner_text()
    drag(page, "#step", 0.0)
    wait_for_text(page, "#text", "The start: a GPT-2 of DeepSeek-V3's width")
    settle(page)


def test_gpt2s_size_and_steps_left_out(page, site):
    open_page(page, site, "?step=14")
    page.locator("#size").get_by_text("GPT-2's width and depth").click()
    wait_for_text(page, "#table", "124,439,808")
    page.get_by_text("Leave steps out").click()
    page.locator("#without").get_by_text("MLA", exact=True).click()
    wait_for_text(page, "#text", "With steps left out there are 13.")
    rungs = ladder.climb("gpt2", ["mla"])
    assert numbers(table_cells(page)["13. YaRN"][4]) == [rungs[-1].cache] == [12288]
    page.locator("#step input[type=number]").fill("8")
    wait_for_text(page, "#text", "Nothing is left for it to work on")
    settle(page)


def test_the_address_and_the_link_carry_the_state(page, site):
    open_page(page, site, "?size=gpt2&step=6&without=rope,swiglu")
    rungs = ladder.climb("gpt2", ["rope", "swiglu"])
    assert here(page) == f"6. {rungs[6].step.label}"
    assert numbers(table_cells(page)[here(page)][0]) == [rungs[6].total]
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_url("**/ladder?size=gpt2&step=6&without=rope%2Cswiglu")
    open_page(page, site, "?size=gpt5&step=99&without=attention")
    said = page.locator(".notice").first.inner_text()
    for part in ("size cannot be 'gpt5'", "step cannot be '99' (it goes from 0 to 14)", "no step 'attention'"):
        assert part in said
    assert here(page) == "8. MLA"
    settle(page)


def test_an_emptied_number_and_the_config_as_python(page, site):
    open_page(page, site, "?step=14")
    page.locator("#as-python").click()
    wait_for_text(page, "#python", 'config = ModelConfig.preset("deepseek-v3")')
    page.locator("#step input[type=number]").fill("")
    wait_for_text(page, "#text", "step is empty, so 0 is shown")
    settle(page)


def test_a_redraw_is_quick(page, site):
    open_page(page, site)
    taken = redraw_milliseconds(page, "#step", "#parameters", "#table", ["ArrowLeft"] * 5 + ["ArrowRight"] * 5)
    print(f"\nLadder: a redraw takes {statistics.median(taken):.0f} ms in the median, {max(taken):.0f} at most")
    settle(page)
    assert statistics.median(taken) < 1000


def test_code_is_the_config_that_is_shown():
    for size in ladder.sizes():
        for step, rung in enumerate(ladder.climb(size)):
            made: dict = {}
            exec(page_module.own_code(size, step, []).split("accounting.count")[0], made)
            assert made["config"] == rung.config
    assert presets.get("deepseek-v3") == made["config"]


def test_what_programs_get_is_the_ladder():
    told = page_module.climb_ladder("gpt2", ["mla"])["steps"]
    assert [(s["total"], s["cache_bytes_per_token"]) for s in told] == [
        (r.total, r.cache) for r in ladder.climb("gpt2", ["mla"])]
    with pytest.raises(ValueError, match="size must be one of"):
        page_module.climb_ladder("gpt5")
