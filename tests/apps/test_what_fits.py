"""The page on what fits: bytes, limits and bounds on the page are llm_core's, whatever is moved."""

import json
import statistics

import pytest
from conftest import (
    choose,
    drag,
    numbers,
    redraw_milliseconds,
    settle,
    table_cells,
    wait_for_text,
)

from apps import what_fits
from llm_core import accounting, presets

LLAMA, V3 = presets.get("llama-3.1-8b"), presets.get("deepseek-v3")


def open_page(page, site, query=""):
    page.goto(f"{site}/what-fits{query}")
    page.locator("#stack .main-svg").first.wait_for()
    page.locator(".answered, .notice").first.wait_for(state="attached")  # the address has been read


def cell(page, row: str, column: int = 0) -> str:
    return table_cells(page, "#tables")[row][column]


def needed(page) -> int:
    return numbers(cell(page, "in all"))[0]


def test_opens_on_llama_in_four_bits_on_eight_gigabytes(page, site):
    open_page(page, site)
    need = accounting.memory_need(LLAMA, 1, 8192, 4, 16)
    assert needed(page) == need.total == 5_089_393_664
    for part, n in need.by_part.items():
        assert numbers(cell(page, "weights, together" if part == "weights" else part))[0] == n
    card = accounting.HARDWARE["rtx-3070"]
    bound = accounting.decode_bound(LLAMA, card, 1, 8192, 4, 16)
    assert cell(page, "tokens a second, at most") == accounting.human_count(bound.tokens_per_second) == "92.8"
    assert numbers(cell(page, "FLOPs for a token")) == [accounting.forward_flops(LLAMA, 1, 8192).total]
    longest = numbers(cell(page, "longest context that fits, batch 1"))[0]
    assert longest == accounting.largest_context(LLAMA, card.memory, 1, weight_bits=4) == 30_398
    assert cell(page, "largest batch that fits, 8,192 tokens each") == "3"
    text = page.locator("#text").inner_text()
    assert "It fits: llama-3.1-8b takes 5.09 GB of the 8.00 GB of NVIDIA GeForce RTX 3070 (63.6 %)." in text
    assert accounting.decode_formula(bound, card, 1, 4) in text
    settle(page)


def test_deepseek_v3_on_eight_h200_naive_beside_absorbed(page, site):
    open_page(page, site, "?preset=deepseek-v3&hardware=h200&gpus=8&weight_bits=8&context=32k&batch=16")
    h200 = accounting.HARDWARE["h200"].times(8)
    assert needed(page) == accounting.memory_need(V3, 16, 32_768, 8).total
    for column, naive in enumerate((False, True)):
        bound = accounting.decode_bound(V3, h200, 16, 32_768, 8, naive=naive)
        assert cell(page, "tokens a second, at most", column) == accounting.human_count(bound.tokens_per_second)
        turn = accounting.compute_bound_from(V3, h200, 32_768, weight_bits=8, naive=naive)
        assert cell(page, "limited by FLOPs from batch", column) == (f"{turn:,}" if turn else "never")
    assert numbers(cell(page, "bytes of cache read for a step")) == [accounting.cache_bytes(V3, 16, 32_768)]
    assert "naive" in page.locator("#roofline").inner_text()
    settle(page)


def test_every_control_moves_the_figures(page, site):
    open_page(page, site)
    choose(page, "#hardware", "NVIDIA T4, 16 GB")
    wait_for_text(page, "#text", "hardware went from rtx-3070 to t4")
    page.locator("#weight-bits").get_by_text("16", exact=True).click()
    wait_for_text(page, "#text", "It does not fit")
    assert "2 of this machine would hold it" in page.locator("#text").inner_text()
    page.locator("#gpus input[type=number]").fill("2")
    wait_for_text(page, "#text", "gpus went from 1 to 2")
    page.locator("#cache-bits").get_by_text("8", exact=True).click()
    wait_for_text(page, "#text", "cache_bits went from 16 to 8")
    page.locator("#batch input[type=number]").fill("5")
    wait_for_text(page, "#tables", "batch 5,")
    drag(page, "#context-step", 1.0)
    wait_for_text(page, "#tables", "1,048,576 tokens")
    assert needed(page) == accounting.memory_need(LLAMA, 5, 1 << 20, 16, 8).total
    assert "reads at most 131,072 tokens" in page.locator("#text").inner_text()
    page.locator("#context textarea, #context input").fill("4k")
    page.keyboard.press("Enter")
    wait_for_text(page, "#tables", "4,096 tokens")
    choose(page, "#preset", "gpt2")
    wait_for_text(page, "#tables", "gpt2, 4,096 tokens")
    assert needed(page) == accounting.memory_need(presets.get("gpt2"), 5, 4096, 16, 8).total
    settle(page)


def test_training(page, site):
    open_page(page, site)
    page.locator("#mode").get_by_text("train it").click()
    wait_for_text(page, "#text", "training is counted with 16 (mixed precision)")
    need = accounting.memory_need(LLAMA, 1, 8192, 16, training=True)
    assert needed(page) == need.total
    assert numbers(cell(page, "Adam's moments"))[0] == 8 * 8_030_261_248
    page.locator("#roofline").wait_for(state="hidden")
    page.locator("#cache-bits").wait_for(state="hidden")
    bound = accounting.training_bound(LLAMA, accounting.HARDWARE["rtx-3070"], 8192)
    assert cell(page, "tokens a second, at most") == accounting.human_count(bound)
    page.locator("#weight-bits").get_by_text("32", exact=True).click()
    wait_for_text(page, "#tables", "weights of 32 bits")
    assert needed(page) == accounting.memory_need(LLAMA, 1, 8192, 32, training=True).total
    page.locator("#mode").get_by_text("run it").click()
    page.locator("#roofline .main-svg").first.wait_for()
    settle(page)


def test_a_link_holds_the_state_with_a_config_of_ones_own(page, site):
    open_page(page, site, "?preset=gpt2&batch=3")
    page.get_by_text("Or a model of your own").click()
    page.locator("#read-config").click()  # DeepSeek-V3's, as it stands there
    wait_for_text(page, "#tables", "the pasted config, 8,192 tokens")
    page.locator("#as-python").click()
    wait_for_text(page, "#python", "config = ModelConfig(")
    page.get_by_text("Copy link to this state").click()
    wait_for_text(page, ".copied", "in the address bar")
    page.reload()
    page.locator(".answered").wait_for(state="attached")
    assert needed(page) == accounting.memory_need(V3, 3, 8192, 4).total
    settle(page)


def test_architecture_leads_here_with_its_model(page, site):
    page.goto(f"{site}/architecture?preset=gpt2&n_layers=24")
    page.locator(".answered").wait_for(state="attached")
    page.get_by_text("Does it fit on my GPU?").click()
    page.wait_for_url("**/what-fits?config=*")
    page.locator(".answered").wait_for(state="attached")
    assert needed(page) == accounting.memory_need(presets.get("gpt2").replace(n_layers=24), 1, 8192, 4).total
    settle(page)


def test_what_cannot_be_is_said_and_the_last_good_figures_stay(page, site):
    open_page(page, site)
    for typed, sentence in (("lots", "a number of tokens is written like 4096, 128k or 1M"),
                            ("2M", "is more than is drawn here; nearest: 1,048,576")):
        page.locator("#context textarea, #context input").fill(typed)
        page.keyboard.press("Enter")
        wait_for_text(page, ".notice", sentence)
        assert needed(page) == 5_089_393_664
    page.wait_for_function("getComputedStyle(document.querySelector('.result')).opacity < 1")
    page.locator("#context textarea, #context input").fill("8k")
    page.keyboard.press("Enter")
    page.locator(".notice").wait_for(state="detached")
    page.locator("#batch input[type=number]").fill("")
    wait_for_text(page, "#text", "batch is empty, so 1 is shown.")
    page.locator("#gpus input[type=number]").fill("999")
    wait_for_text(page, "#text", "gpus cannot be 999, so 64 is shown.")
    settle(page)


def test_a_bad_address_is_said(page, site):
    open_page(page, site, "?preset=gpt9&hardware=abacus&gpus=0&mode=fly&weight_bits=5&context=9M&config=[]")
    said = page.locator(".notice").inner_text()
    for part in ("preset cannot be 'gpt9'", "hardware cannot be 'abacus'", "gpus cannot be '0' (it goes from 1 to 64)",
                 "mode cannot be 'fly'", "weight_bits cannot be '5'", "a context of 9,437,184 tokens",
                 "The address's config cannot be read"):
        assert part in said, part
    assert needed(page) == 5_089_393_664
    settle(page)


def test_by_keyboard_alone(page, site):
    open_page(page, site)
    page.locator("#gpus input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    wait_for_text(page, "#text", "gpus went from 1 to 2")
    page.locator("#weight-bits input").nth(2).focus()  # each choice is a tab stop of its own
    page.keyboard.press("Space")
    wait_for_text(page, "#tables", "weights of 8 bits")
    settle(page)


def test_a_redraw_is_quick(page, site):
    open_page(page, site, "?preset=deepseek-v3&hardware=h200&gpus=8&weight_bits=8")
    taken = redraw_milliseconds(page, "#batch", "#roofline", "#tables", ["ArrowRight"] * 8)
    print(f"\nWhat fits: a redraw takes {statistics.median(taken):.0f} ms in the median, {max(taken):.0f} at most")
    assert statistics.median(taken) < 1000
    settle(page)


def test_what_programs_get():
    answer = what_fits.does_it_fit()
    assert answer["fits"] and answer["bytes"] == sum(answer["bytes_by_part"].values()) == 5_089_393_664
    assert answer["longest_context"] == 30_398 and "white paper" in answer["source"]
    assert json.loads(json.dumps(answer)) == answer
    training = what_fits.does_it_fit("gpt2", "laptop", weight_bits=32, training=True)
    assert training["tokens_per_second_at_most"] == accounting.training_bound(
        presets.get("gpt2"), accounting.HARDWARE["laptop"], 8192)
    pasted = what_fits.does_it_fit(hardware="h200", gpus=8, weight_bits=8, config_json_text=json.dumps(V3.to_dict()))
    assert pasted["bytes"] == accounting.memory_need(V3, 1, 8192, 8).total


@pytest.mark.parametrize(("given", "sentence"), [
    ({"hardware": "abacus"}, "hardware must be one of h200"), ({"gpus": 0}, "gpus must be a whole number from 1 to 64"),
    ({"batch": 1.5}, "batch must be a whole number from 1 to 1,024"), ({"context": 10**9}, "context must be"),
    ({"preset": "x"}, "no preset is called 'x'"), ({"config_json_text": "{"}, "not JSON"),
    ({"weight_bits": 0}, "weight_bits must be a whole number"), ({"training": True}, "16 or 32 bits, not 4")])
def test_programs_get_sentences_too(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        what_fits.does_it_fit(**given)


def test_every_link_on_the_page_opens_a_state_that_fits_or_says_so():
    for name in presets.names():
        for hardware in accounting.HARDWARE:
            f = what_fits.facts(presets.get(name), accounting.HARDWARE[hardware], 1, False, 4, 8, 1024, 2)
            assert f["fits"] == (f["machines"] == 1) == (f["most"] >= 2)
