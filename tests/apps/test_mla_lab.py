"""The MLA lab: what it shows, moved by real controls, equals llm_core's accounting and a model shrunk here."""

import re
import statistics

import gradio as gr
import pytest
from conftest import (
    choose,
    numbers,
    redraw_milliseconds,
    settle,
    table_cells,
    wait_for_text,
)

from apps import mla_lab, mla_shrink, writing
from llm_core import accounting, presets, shrinking, tokenizer
from llm_core.generation import generate
from llm_core.pretrained import SMOLLM2, load_pretrained

V3 = presets.get("deepseek-v3")
BAD = ("kv_lora_rank cannot be '0' (it goes from 1 to 2,048)", "counted cannot be 'all'", "not '-1'",
       "rank cannot be '100'", "method cannot be 'best'", "model cannot be 'gpt2'")


def open_page(page, site, query=""):
    page.goto(f"{site}{mla_lab.PATH}{query}")
    page.locator("#curve .main-svg").first.wait_for()
    page.wait_for_function("document.querySelectorAll('.answered, .notice').length >= 2")  # both parts have answered


def fill(page, selector: str, value) -> None:
    page.locator(f"{selector} input[type=number]").fill(str(value))


def mla_of(query: dict):
    return mla_lab.variants("deepseek-v3", **(mla_lab.sizes("deepseek-v3") | query))["MLA"]


def test_opens_on_v3_with_lesson_05_2s_figures(page, site):
    open_page(page, site)
    shown = table_cells(page)
    assert shown["MLA"][:4] == ["latent [512], rope key [64]", "yes, rebuilt", "35,136", "70,272"]
    assert numbers(shown["MLA"][-1]) == [accounting.count_parameters(V3).by_part["attention"]]
    assert shown["GQA"][1:4] == ["16 share them", "124,928", "249,856"] and shown["MQA"][1] == "128 share them"
    step = accounting.attention_step(V3, 1, 131072, "absorb")
    assert shown["absorb"][1:4] == [f"{step.flops:,}", f"{step.cache_read:,}", "242"]
    text = page.locator("#text").inner_text()
    assert "Absorbing does 242 FLOPs for each byte" in text and "from a context of 2 on" in text
    assert "rebuilding is cheaper from 171 new tokens on" in text
    for way in ("rebuild", "absorb"):
        assert accounting.step_formula(V3, 1, 131072, way) in text
    assert accounting.cache_formula(V3) in text


def test_more_heads_by_keyboard_mhas_cache_grows_and_mlas_stays(page, site):
    open_page(page, site)
    page.locator("#n-heads input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    wait_for_text(page, "#text", "With 129 heads")
    wait_for_text(page, "#text", "n_heads went from 128 to 129: MHA keeps a key and a value for each head")
    shown = table_cells(page)
    assert numbers(shown["MHA"][3]) == [129 * 2 * 128 * 61 * 2] and shown["MLA"][3] == "70,272"
    assert shown["GQA"][1] == "43 share them"  # 3 is the largest number up to 8 that divides 129


def test_every_size_moves_what_it_should(page, site):
    open_page(page, site)
    now = {}
    for name, value in (("kv_lora_rank", 256), ("qk_rope_head_dim", 32), ("head_dim", 64), ("q_lora_rank", 0)):
        fill(page, f"#{name.replace('_', '-')}", value)
        wait_for_text(page, "#text", f"to {value}: ")
        now[name] = value
        config, shown = mla_of(now), table_cells(page)
        assert numbers(shown["MLA"][3]) == [accounting.cache_bytes_per_token(config)]
        assert numbers(shown["MLA"][-1]) == [accounting.count_parameters(config).by_part["attention"]]
        assert numbers(shown["rebuild"][1]) == [accounting.attention_step(config, 1, 131072, "rebuild").flops]
    fill(page, "#tokens", 200)
    wait_for_text(page, "#text", "tokens went from 1 to 200")
    page.locator("#context textarea, #context input").fill("4k")
    page.keyboard.press("Enter")
    wait_for_text(page, "#text", "context went from 131,072 to 4,096")
    many = accounting.rebuilt_from(config, 4096)
    assert f"rebuilding is cheaper from {many} new tokens on" in page.locator("#text").inner_text()
    page.locator("#context-step input[type=range]").focus()
    page.keyboard.press("End")
    wait_for_text(page, "#table", "1,048,576 tokens")
    page.locator("#counted").get_by_text("the whole model").click()
    wait_for_text(page, "#text", "Now the whole model is counted")
    drawn = page.evaluate("""() => Object.fromEntries(document.querySelector('#lines .js-plotly-plot').data
                             .map(t => [t.name, Object.fromEntries(t.x.map((x, i) => [x, t.y[i]]))]))""")
    for way, absorbed in (("rebuild", False), ("absorb", True)):
        assert drawn[way]["65536"] == accounting.forward_flops(config, 200, 65536, absorbed=absorbed).total


def test_choosing_a_model_sets_its_sizes(page, site):
    open_page(page, site)
    choose(page, "#preset", "deepseek-v2-lite")
    wait_for_text(page, "#table", "deepseek-v2-lite with each kind")
    assert page.locator("#q-lora-rank input[type=number]").input_value() == "0"
    lite = presets.get("deepseek-v2-lite")
    assert numbers(table_cells(page)["MLA"][3]) == [accounting.cache_bytes_per_token(lite)]
    page.locator("#as-python").click()
    wait_for_text(page, "#python", 'config = ModelConfig.preset("deepseek-v2-lite")')


def test_the_address_carries_both_parts(page, site):
    query = "?preset=kimi-k2&context=4k&tokens=8&kv_lora_rank=256&model=gpt-mini&method=data&rank=64"
    open_page(page, site, query)
    wait_for_text(page, "#table", "kimi-k2 with each kind")
    config = mla_lab.variants("kimi-k2", **(mla_lab.sizes("kimi-k2") | {"kv_lora_rank": 256}))["MLA"]
    assert numbers(table_cells(page)["absorb"][1]) == [accounting.attention_step(config, 8, 4096, "absorb").flops]
    [then] = [m for m in shrinking.recorded("gpt-mini")["data"] if m.rank == 64]
    assert f"to {then.loss:.3f} nats" in page.locator("#said").inner_text()
    first = page.locator("#table").inner_text(), page.locator("#said").inner_text()
    page.locator(".copy-link").click()
    wait_for_text(page, ".copied", "in the address bar")
    assert "rank=64" in page.url and "tokens=8" in page.url
    settle(page)
    open_page(page, site, "?" + page.url.split("?")[1])
    assert (page.locator("#table").inner_text(), page.locator("#said").inner_text()) == first


def test_what_cannot_be_is_said_and_the_last_good_figures_stay(page, site):
    open_page(page, site)
    fill(page, "#qk-rope-head-dim", 33)
    wait_for_text(page, ".notice", "33")
    assert table_cells(page)["MLA"][3] == "70,272"
    page.wait_for_function("getComputedStyle(document.querySelector('.result')).opacity < 1")
    fill(page, "#qk-rope-head-dim", 64)
    page.locator(".notice").wait_for(state="detached")
    page.locator("#context textarea, #context input").fill("100")
    page.keyboard.press("Enter")
    wait_for_text(page, "#table", "100 tokens")
    fill(page, "#tokens", 101)
    wait_for_text(page, ".notice", "context 100 is less than the 101 new tokens")
    fill(page, "#tokens", 50)
    wait_for_text(page, "#text", "50 new tokens")
    page.locator("#tokens input[type=number]").fill("")
    wait_for_text(page, "#text", "tokens is empty, so 1 is shown")


def test_a_bad_address_is_said(page, site):
    open_page(page, site, "?kv_lora_rank=0&counted=all&context=-1&rank=100&method=best&model=gpt2")
    said = " ".join(page.locator(".notice").all_inner_texts())
    assert [part for part in BAD if part not in said] == []
    assert table_cells(page)["MLA"][3] == "70,272"


def test_a_smaller_rank_shows_what_was_recorded(page, site):
    open_page(page, site)
    assert "Paris" in page.locator("#small").inner_text()
    page.locator("#rank").get_by_text("224", exact=True).click()
    wait_for_text(page, "#said", "With 224 numbers")
    [then] = [m for m in shrinking.recorded(SMOLLM2)["plain"] if m.rank == 224]
    assert f"{shrinking.cache_bytes(SMOLLM2, 224):,} bytes a token instead of 23,040" in page.locator(
        "#said").inner_text()
    assert then.text.split()[-1] in page.locator("#small").inner_text()
    assert "Paris" in page.locator("#whole").inner_text() and "Paris" not in page.locator("#small").inner_text()
    page.locator("#method").get_by_text("from what the model computes").click()
    wait_for_text(page, "#said", "found from what the model computes")
    assert "Paris" in page.locator("#small").inner_text()
    for m, plain in zip(shrinking.recorded(SMOLLM2)["data"], shrinking.recorded(SMOLLM2)["plain"]):
        row = table_cells(page, "#ranks")[str(m.rank)]
        assert row[0] == f"{shrinking.cache_bytes(SMOLLM2, m.rank):,}"
        assert row[4:6] == [f"{plain.loss:.3f}", f"{m.loss:.3f}"]


def test_the_mini_is_shrunk_here_and_writes_the_learners_prompt(page, site):
    open_page(page, site)
    page.locator("#model").get_by_text("gpt-mini").click()
    wait_for_text(page, "#said", "gpt-mini would cache")
    page.locator("#rank").get_by_text("32", exact=True).click()
    wait_for_text(page, "#said", "With 32 numbers")
    page.locator("#prompt textarea").fill("The king")
    page.locator("#prompt textarea").blur()
    wait_for_text(page, "#status", "this prompt is new")
    page.locator("#measure").click()
    wait_for_text(page, "#status", "Both written here")
    model, words = load_pretrained("gpt-mini")
    small = shrinking.shrunk(model, shrinking.directions(model, words, "plain"), 32)
    ids = words.encode("The king")
    for place, writer in (("#whole", model), ("#small", small)):
        written = words.decode(generate(writer, ids, mla_shrink.NEW_TOKENS)[0].tolist())
        assert page.locator(f"{place} .written").inner_text().split() == written.split()
    loss = shrinking.mean_loss(small, shrinking.held_out("gpt-mini", words))
    said = re.search(r"Measured here: ([\d.]+) nats", page.locator("#said").inner_text())
    assert float(said[1]) == pytest.approx(loss, abs=2e-3)
    assert f"its cache takes {32 * 4 * 4:,} bytes a token" in page.locator("#note").inner_text()
    assert "measured here" in page.locator("#curve").inner_text()


def test_a_redraw_is_quick(page, site):
    open_page(page, site)
    taken = redraw_milliseconds(page, "#n-heads", "#bars", "#table", ["ArrowLeft"] * 5)
    taken += redraw_milliseconds(page, "#kv-lora-rank", "#lines", "#table", ["ArrowLeft"] * 5 + ["ArrowRight"] * 5)
    print(f"\nMLA lab: a redraw takes {statistics.median(taken):.0f} ms in the median, {max(taken):.0f} at most")
    assert statistics.median(taken) < 1000


# What needs no browser

def test_variants_keep_each_latent_models_own_attention():
    for name in presets.names():
        config, own = presets.get(name), mla_lab.sizes(name)
        made = mla_lab.variants(name, **own)[config.attention.kind]
        assert accounting.cache_bytes_per_token(made) == accounting.cache_bytes_per_token(config), name
        if config.attention.kind == "MLA":
            assert made.attention == config.attention
        for key, value in own.items():
            assert mla_lab.LIMITS[key][0] <= value <= mla_lab.LIMITS[key][1], (name, key)


def test_what_programs_are_given():
    made = mla_lab.mla_sizes()
    assert made["cache_bytes_per_token"]["MLA"] == 70272 and made["ways"]["absorb"]["flops_per_byte"] == 242
    assert (made["absorbed_from"], made["rebuilt_from"]) == (2, 171)
    with pytest.raises(ValueError, match="no preset is called"):
        mla_lab.mla_sizes("gpt9")
    curve = mla_shrink.latent_curve()
    assert [row["rank"] for row in curve["plain"]] == list(shrinking.SUBJECTS[SMOLLM2].ranks)
    assert curve["own_cache_bytes"] == curve["data"][0]["cache_bytes"] == 23040
    with pytest.raises(ValueError, match="model must be one of"):
        mla_shrink.latent_curve("gpt2")


def test_a_missing_model_is_one_sentence(monkeypatch, tmp_path):
    writing.forget()
    monkeypatch.setattr(tokenizer, "data_folder", lambda package: tmp_path)
    *_, (notice, *rest) = mla_shrink.measure(SMOLLM2, "plain", 256, "The capital of France is")
    assert "SmolLM2" in notice and str(tmp_path) not in notice and rest == [gr.skip()] * 6
    writing.forget()


@pytest.mark.parametrize("prompt, sentence", [("x" * 201, "201 letters"), ("", "the prompt is empty")])
def test_a_prompt_that_cannot_be_is_said(prompt, sentence):
    *_, (notice, *_) = mla_shrink.measure("gpt-mini", "plain", 64, prompt)
    assert sentence in notice
