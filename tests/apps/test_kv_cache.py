"""The page on the cache: what it shows, moved by real sliders, equals llm_core's accounting."""

import re
import statistics

import pytest
from conftest import (
    choose,
    drag,
    numbers,
    open_fold,
    redraw_milliseconds,
    settle,
    table_cells,
    wait_for_text,
)

from apps import kv_cache
from llm_core import accounting, presets
from llm_core.config import GroupedAttentionConfig


def open_page(page, site, query=""):
    page.goto(f"{site}/kv-cache{query}")
    page.locator("#dots .main-svg").first.wait_for()
    page.locator(".answered, .notice").first.wait_for(state="attached")  # the address has been read
    settle(page)  # and nothing is on its way that could set a control back


def test_opens_on_deepseek_v3_at_128k(page, site):
    open_page(page, site)
    shown = table_cells(page)
    v3 = presets.get("deepseek-v3")
    assert shown["MLA"][:4] == ["70,272", f"{accounting.cache_bytes(v3, 1, 131072):,}", "9.21 GB", "8.58 GiB"]
    heads = v3.replace(attention=GroupedAttentionConfig(128, 128, head_dim=128))
    assert numbers(shown["MHA"][1]) == [accounting.cache_bytes(heads, 1, 131072)]
    assert accounting.cache_formula(v3, 1, 131072) in page.locator("#text").inner_text()
    assert "Largest difference over" in page.locator("#checked").inner_text()
    assert re.search(r"dots: 0 bytes", page.locator("#checked").inner_text())


def test_dragging_the_context_moves_every_figure(page, site):
    open_page(page, site, "?preset=llama-3.1-8b&context=4096")
    drag(page, "#context-step", 1.0)
    wait_for_text(page, "#table", "1,048,576 tokens")
    assert page.locator("#context textarea, #context input").input_value() == "1,048,576"
    own = accounting.cache_bytes(presets.get("llama-3.1-8b"), 1, 1 << 20)
    assert numbers(table_cells(page)["GQA"][1]) == [own]
    # From where the drag was drawn last, somewhere on its way, to its end.
    assert re.search(r"context went from [\d,]+ to 1,048,576: every cached", page.locator("#text").inner_text())


def test_typing_context_batch_and_bits(page, site):
    open_page(page, site, "?preset=gpt2")
    page.locator("#context textarea, #context input").fill("1M")
    page.keyboard.press("Enter")
    wait_for_text(page, "#table", "1,048,576 tokens")
    page.locator("#batch input[type=number]").fill("3")
    wait_for_text(page, "#table", "batch 3,")
    page.locator("#bits").get_by_text("8", exact=True).click()
    wait_for_text(page, "#table", "8 bits a number")
    assert numbers(table_cells(page)["MHA"][1]) == [accounting.cache_bytes(presets.get("gpt2"), 3, 1 << 20, 8)]
    measured = table_cells(page, "#checked")
    assert all(bytes_read == by_formula for _, bytes_read, by_formula in measured.values())
    page.locator("#bits").get_by_text("4", exact=True).click()
    wait_for_text(page, "#checked", "no numbers of 4 bits")


@pytest.mark.parametrize("name", ["deepseek-mini", "llama-3.1-405b", "gpt3-13b"])
def test_a_link_opens_the_page_with_that_model(page, site, name):
    open_page(page, site, f"?preset={name}&context=64k&batch=2")
    wait_for_text(page, "#table", f"{name}, 65,536 tokens")
    config = presets.get(name)
    assert numbers(table_cells(page)[config.attention.kind][1]) == [accounting.cache_bytes(config, 2, 65536)]


def test_choosing_a_model_sets_its_sizes(page, site):
    open_page(page, site)
    choose(page, "#preset", "deepseek-v2-lite")
    wait_for_text(page, "#table", "deepseek-v2-lite")
    open_fold(page, "The sizes behind it")
    assert page.locator("#n-layers input[type=number]").input_value() == "27"
    lite = presets.get("deepseek-v2-lite")
    assert numbers(table_cells(page)["MLA"][0]) == [accounting.cache_bytes_per_token(lite)]


def test_what_cannot_be_is_said_and_the_last_good_figures_stay(page, site):
    open_page(page, site)
    open_fold(page, "The sizes behind it")
    page.locator("#n-kv-heads input[type=number]").fill("7")
    wait_for_text(page, ".notice", "n_kv_heads 7 does not divide n_heads 128; nearest: 4, 8")
    assert table_cells(page)["MLA"][0] == "70,272"
    page.wait_for_function("getComputedStyle(document.querySelector('.result')).opacity < 1")
    page.locator("#n-kv-heads input[type=number]").fill("16")
    page.locator(".notice").wait_for(state="detached")
    page.locator("#context textarea, #context input").fill("a lot")
    page.keyboard.press("Enter")
    wait_for_text(page, ".notice", "a number of tokens is written like 4096, 128k or 1M")


def test_the_config_as_python(page, site):
    open_page(page, site, "?preset=deepseek-v3&kv_lora_rank=256")
    page.locator("#as-python").click()
    wait_for_text(page, "#python", 'config = ModelConfig.preset("deepseek-v3")')
    assert "kv_lora_rank=256" in page.locator("#python").inner_text()


def test_a_bad_address_is_said(page, site):
    open_page(page, site, "?preset=gpt9&n_layers=9999&bits=5&batch=x&context=-1")
    said = page.locator(".notice").inner_text()
    for part in ("preset cannot be 'gpt9'", "n_layers cannot be '9999' (it goes from 1 to 160)", "bits cannot be '5'",
                 "batch cannot be 'x'", "not '-1'"):
        assert part in said
    assert table_cells(page)["MLA"][0] == "70,272"


def test_a_redraw_is_quick(page, site):
    open_page(page, site)
    open_fold(page, "The sizes behind it")
    taken = redraw_milliseconds(page, "#context-step", "#lines", "#table", ["ArrowLeft"] * 5 + ["ArrowRight"] * 5)
    taken += redraw_milliseconds(page, "#kv-lora-rank", "#lines", "#table", ["ArrowLeft"] * 5)
    print(f"\nKV cache: a redraw takes {statistics.median(taken):.0f} ms in the median, {max(taken):.0f} at most")
    assert statistics.median(taken) < 1000


def test_variants_keep_the_models_own_cache():
    """The kind that a model has itself comes out of its sliders unchanged, for every preset."""
    for name in presets.names():
        config = presets.get(name)
        made = kv_cache.variants(name, **kv_cache.sizes(name))[config.attention.kind]
        assert accounting.cache_bytes_per_token(made) == accounting.cache_bytes_per_token(config), name
        for key, value in kv_cache.sizes(name).items():
            assert kv_cache.LIMITS[key][0] <= value <= kv_cache.LIMITS[key][1], (name, key)


def test_measured_bytes_are_read_from_tensors(monkeypatch):
    """A cache that is allocated wrongly must show as a difference, not be hidden."""
    class Wrong(kv_cache.Cache):
        @property
        def nbytes(self):
            return super().nbytes + 2

    config = presets.get("gpt2")
    assert kv_cache.measure.__wrapped__(config, 16) == {
        t: accounting.cache_bytes(config, 1, t) for t in kv_cache.measure.__wrapped__(config, 16)}
    monkeypatch.setattr(kv_cache, "Cache", Wrong)
    dots = {"MHA": kv_cache.measure.__wrapped__(config, 16)}
    assert "dots: 2 bytes" in kv_cache.measured_text({"MHA": config}, dots, 16)
