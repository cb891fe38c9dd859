"""The RoPE lab in the browser: dials, scores, pairs and a measured model, moved by real controls, equal llm_core's."""

import re
import statistics

import pytest
from conftest import (
    choose,
    drag,
    redraw_milliseconds,
    settle,
    table_cells,
    wait_for_text,
)

from llm_core import past_context, presets, turning
from llm_core.positions import softmax_scale

V3 = presets.get("deepseek-v3")


def open_page(page, site, query=""):
    page.goto(f"{site}/rope{query}")
    page.locator("#waves .main-svg").first.wait_for()
    page.locator(".answered, .notice").first.wait_for(state="attached")  # the address has been read


def fill(page, name, value, enter=False):
    page.locator(f"#{name}").locator("input[type=number], textarea, input").first.fill(str(value))
    if enter:
        page.keyboard.press("Enter")


def value_of(page, name):
    return page.locator(f"#{name}").locator("input[type=number], textarea, input").first.input_value()


def score(preset, m, n, vectors=turning.ALIKE):
    config = presets.get(preset)
    query, key = turning.example_vectors(vectors, config.rope_dim)
    return turning.contributions(query, key, turning.pairs(config.rope, config.rope_dim), m, n).sum().item()


def moved(page):
    """The rows of the table of moves: what both are moved by -> the score in 64 bits."""
    return {name: float(row[2]) for name, row in table_cells(page, "#table").items() if name.startswith("moved")}


def test_opens_on_deepseek_v3(page, site):
    open_page(page, site)
    wait_for_text(page, "#text", "The query stands at 40, the key at 20, 20 tokens before it")
    dials, turned = table_cells(page, "#table"), turning.pairs(V3.rope, 64)
    assert dials["pair 6"][1:4] == ["47.6°", "204°", "204°"]
    for name, row in dials.items():
        if name.startswith("pair"):
            assert float(row[0]) == pytest.approx(turned[int(name[5:])].speed, rel=1e-5)
    assert set(moved(page).values()) == {round(score("deepseek-v3", 40, 20), 6)}
    zones = page.locator("#zones").inner_text()
    assert "9 of 32 pairs never came round" in zones and "Pairs 0 to 10 turn as fast as before" in zones
    assert "Pairs 11 to 22 stand on the ramp" in zones and "Pairs 23 to 31 are slowed to 1/40" in zones
    assert f"{softmax_scale(V3):.6f}" == "0.135234" and "1.36889² = 0.135234" in zones
    layouts = table_cells(page, "#layouts")
    assert layouts["interleaved (this model)"][1] == "2 with 3" and layouts["halves"][1] == "1 with 33"
    settle(page)


def test_the_three_places_and_the_vectors(page, site):
    open_page(page, site)
    drag(page, "#m", 1.0)
    wait_for_text(page, "#table", "turned at 127")
    assert moved(page)["moved by 0"] == round(score("deepseek-v3", 127, 20), 6)
    assert "went from" in page.locator("#text").inner_text()
    fill(page, "m", 10)
    wait_for_text(page, "#text", "The query stands at 10, the key at 20, 10 tokens after it")
    fill(page, "n", 3)
    wait_for_text(page, "#text", "The query stands at 10, the key at 3, 7 tokens before it")
    before, shown = page.locator("#dials .js-plotly-plot").inner_html(), moved(page)["moved by 0"]
    page.locator("#shift input[type=range]").focus()  # by keys alone
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    wait_for_text(page, "#text", "The query stands at 12, the key at 5, 7 tokens before it")
    assert moved(page) == dict.fromkeys(moved(page), shown) and "moved by 2" in moved(page)
    assert page.locator("#dials .js-plotly-plot").inner_html() != before  # the arrows did turn
    page.locator("#vectors").get_by_text(turning.APART, exact=True).click()
    wait_for_text(page, "#decay", "Two random vectors have nothing in common")
    assert moved(page)["moved by 2"] == round(score("deepseek-v3", 12, 5, turning.APART), 6)
    page.locator("#reach").get_by_text("whole context", exact=True).click()
    page.wait_for_function("document.querySelector('#m input[type=range]').max === '163839'")
    fill(page, "m", 150000)
    wait_for_text(page, "#text", "The query stands at 150,002")
    page.locator("#reach").get_by_text("128 tokens", exact=True).click()
    wait_for_text(page, "#text", "m cannot be 150,000, so 127 is shown.")
    assert value_of(page, "m") == "127"
    settle(page)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "deepseek-mini"])
def test_choosing_a_model_fills_the_controls(page, site, name):
    open_page(page, site)
    choose(page, "#preset", name)
    config = presets.get(name)
    turned = turning.pairs(config.rope, config.rope_dim)
    wait_for_text(page, "#layouts", f"a head's {config.rope_dim} turned numbers")
    assert float(value_of(page, "theta")) == config.rope.theta
    assert value_of(page, "rope-dim") == str(config.rope_dim)
    assert value_of(page, "context") == f"{config.max_seq_len:,}"
    page.get_by_text("All pairs in numbers").click()
    page.locator("#pairs tbody tr").first.wait_for()  # the fold is filled when it is opened
    rows = table_cells(page, "#pairs")
    assert len(rows) == len(turned)
    for row, pair in zip(rows.values(), turned):
        assert (float(row[1]), row[3]) == (pytest.approx(pair.speed, rel=1e-5), pair.zone)
        assert float(row[4].replace(",", "")) == pytest.approx(pair.wavelength, abs=0.06)
    settle(page)


def test_scaling_and_all_that_belongs_to_it(page, site):
    open_page(page, site, "?preset=deepseek-mini")
    wait_for_text(page, "#zones", "4 of 8 pairs never came round once over the 256 tokens")
    page.locator("#scaling").get_by_text("YaRN", exact=True).click()
    wait_for_text(page, "#zones", "slowed by 4")
    assert value_of(page, "context") == "1,024"  # as far as a factor of 4 reaches

    def zones(theta=10_000.0, width=16, original=256, factor=4, fast=32, slow=1):
        rope = turning.scaled_rope(theta, "interleaved", "yarn", factor, original, fast, slow)
        return turning.zones(turning.pairs(rope, width))

    def wait_for_zones(found, also):
        wait_for_text(page, "#zones", also)
        text = page.locator("#zones").inner_text()
        for first, last in found.values():
            assert (f"Pair {first} " if first == last else f"Pairs {first} to {last} ") in text

    fill(page, "factor", 8)
    wait_for_zones(zones(factor=8), "are slowed to 1/8")
    fill(page, "original", "1k", enter=True)
    wait_for_zones(zones(factor=8, original=1024), "over the 1,024 tokens")
    fill(page, "context", "8k", enter=True)
    wait_for_zones(zones(factor=8, original=1024), "over 8,192 tokens")
    page.get_by_text("Where the ramp stands").click()
    fill(page, "fast", 16)
    wait_for_zones(zones(factor=8, original=1024, fast=16), "more than 16 turns")
    fill(page, "slow", 2)
    wait_for_zones(zones(factor=8, original=1024, fast=16, slow=2), "fewer than 2")
    fill(page, "theta", 50000, enter=True)
    wait_for_text(page, "#text", "50,000^(−2i / 16)")
    page.locator("#base-step input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    wait_for_text(page, "#text", "60,000^(−2i / 16)")
    assert float(value_of(page, "theta")) == 60000
    page.locator("#mscale").get_by_text("0 (scale unchanged)", exact=True).click()
    wait_for_text(page, "#zones", "m = 0.1 × 0 × ln 8 + 1 = 1.00000")
    fill(page, "rope-dim", 32)
    wait_for_text(page, "#text", "60,000^(−2i / 32)")
    wait_for_zones(zones(60_000.0, 32, 1024, 8, 16, 2), "softmax scale = 1 / √64")  # 32 more are not turned
    page.locator("#scaling").get_by_text("none", exact=True).click()
    wait_for_text(page, "#zones", "Nothing is scaled")
    settle(page)


def test_what_cannot_be_is_said_and_the_last_good_figures_stay(page, site):
    open_page(page, site)
    fill(page, "rope-dim", 63)
    wait_for_text(page, ".notice", "its width must be even, not 63; nearest: 62, 64")
    assert "Pairs 23 to 31" in page.locator("#zones").inner_text()
    page.wait_for_function("getComputedStyle(document.querySelector('.result')).opacity < 1")
    fill(page, "rope-dim", 64)
    page.locator(".notice").wait_for(state="detached")
    for name, typed, sentence in (("theta", "1", "theta must be above 1, not 1; 10000 is usual"),
                                  ("theta", "", "theta must be a finite number above 0, not None")):
        fill(page, name, typed, enter=True)
        wait_for_text(page, ".notice", sentence)
    fill(page, "theta", 10000, enter=True)
    page.locator(".notice").wait_for(state="detached")
    fill(page, "original", "a lot", enter=True)
    wait_for_text(page, ".notice", "a number of tokens is written like 4096, 128k or 1M")
    fill(page, "original", "4096", enter=True)
    page.locator(".notice").wait_for(state="detached")
    fill(page, "context", "2M", enter=True)
    wait_for_text(page, ".notice", "contexts go up to 1,048,576 tokens here, not 2,097,152")
    fill(page, "context", "160k", enter=True)
    page.locator(".notice").wait_for(state="detached")
    page.get_by_text("Where the ramp stands").click()
    fill(page, "slow", 64)
    wait_for_text(page, ".notice", "fast pairs cannot begin at 32 turns where slow ones end at 64")
    fill(page, "slow", 1)
    page.locator(".notice").wait_for(state="detached")
    fill(page, "factor", "")
    wait_for_text(page, "#text", "factor is empty, so 1 is shown.")
    settle(page)


def test_an_address_brings_the_state_back(page, site):
    query = ("?preset=llama-3.1-8b&m=100&n=40&shift=7&reach=original&vectors=random%2C+the+same&scaling=yarn"
             "&theta=20000&factor=2&rope_dim=64&original=2k&context=4k&fast=16&slow=2&mscale=0.707&model=copying&stretch=2")
    open_page(page, site, query)
    wait_for_text(page, "#text", "The query stands at 107, the key at 47, 60 tokens before it")
    rope = turning.scaled_rope(20_000.0, "halves", "yarn", 2, 2048, 16, 2, 0.707)
    vector, _ = turning.example_vectors(turning.SAME, 64)
    exact = turning.contributions(vector, vector, turning.pairs(rope, 64), 107, 47).sum().item()
    assert moved(page)["moved by 7"] == round(exact, 6)
    assert page.locator("#m input[type=range]").get_attribute("max") == "2047"
    assert "m = 0.1 × 0.707 × ln 2 + 1 =" in page.locator("#zones").inner_text()
    wait_for_text(page, "#past-text", "copying, measured on this computer")
    page.get_by_text("Copy link to this state").click()
    wait_for_text(page, ".copied", "in the address bar")
    for part in ("m=100", "shift=7", "reach=original", "scaling=yarn", "mscale=0.707", "model=copying", "stretch=2"):
        assert part in page.url
    page.locator("#as-python").click()
    wait_for_text(page, "#python", 'ModelConfig.preset("llama-3.1-8b").replace')
    assert "mscale=0.707" in page.locator("#python").inner_text()
    settle(page)


def test_a_bad_address_is_said(page, site):
    open_page(page, site, "?preset=gpt2&m=x&n=-3&reach=far&theta=ten&rope_dim=9999&mscale=3&original=0&stretch=3"
                          "&model=q")
    said = page.locator(".notice").first.inner_text()
    for part in ("preset cannot be 'gpt2'", "m cannot be 'x'", "n cannot be '-3'", "reach cannot be 'far'",
                 "theta cannot be 'ten'", "rope_dim cannot be '9999' (it goes from 2 to 256)", "mscale cannot be '3'",
                 "not '0'", "stretch cannot be '3'", "model cannot be 'q'"):
        assert part in said
    assert "Pairs 23 to 31" in page.locator("#zones").inner_text()
    open_page(page, site, "?rope_dim=63&m=5")
    assert "nearest: 62, 64" in page.locator(".notice").inner_text()
    assert value_of(page, "rope-dim") == "64"
    settle(page)


def test_a_trained_model_past_its_context(page, site):
    open_page(page, site, "?model=copying&stretch=2")
    plain, two, eight = (past_context.measure("copying", factor) for factor in (1, 2, 8))

    def shown(curve):
        return ["–" if value != value else f"{value:.0%}" for value in curve.values]

    wait_for_text(page, "#past-text", "A factor of 2 reaches to 2,048 tokens")
    rows = table_cells(page, "#past-text")
    assert list(rows) == [f"{end:,}" for end in plain.ends]
    assert [row[0] for row in rows.values()] == shown(plain) and [row[1] for row in rows.values()] == shown(two)
    page.locator("#stretch").get_by_text("8", exact=True).click()
    wait_for_text(page, "#past-text", f"With YaRN by 8 it is {eight.mean(after=1024):.0%} beyond")
    assert [row[1] for row in table_cells(page, "#past-text").values()] == shown(eight)
    assert "trained on 1,024" in page.locator("#past-chart").inner_text()
    page.locator("#model").get_by_text("deepseek-mini").click()
    wait_for_text(page, "#past-text", "deepseek-mini, measured on this computer")
    page.wait_for_function("!document.querySelector('#past-text').innerText.includes('being measured')")
    assert re.search(r"A token costs 3\.\d\d nats up to the 256 tokens", page.locator("#past-text").inner_text())
    settle(page)


def test_a_redraw_is_quick(page, site):
    open_page(page, site)
    page.locator("#past-chart .main-svg").first.wait_for()
    settle(page)
    taken = redraw_milliseconds(page, "#m", "#dials", "#table", ["ArrowRight"] * 8)
    taken += redraw_milliseconds(page, "#factor", "#waves", "#zones", ["ArrowLeft"] * 5)
    print(f"\nRoPE lab: a redraw takes {statistics.median(taken):.0f} ms in the median, {max(taken):.0f} at most")
    assert statistics.median(taken) < 1000
    settle(page)
