"""The page on parameters: what it shows, moved by real sliders, equals llm_core's accounting."""

import json
import statistics

import gradio as gr
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

from apps import architecture, config_json
from llm_core import ModelConfig, accounting, hf_config, presets
from llm_core.config import LatentAttentionConfig, RopeConfig

TOTAL, ACTIVE = "total: the main model", "active (rule_all: all but the experts not chosen)"


def open_page(page, site, query=""):
    page.goto(f"{site}/architecture{query}")
    page.locator("#chart .main-svg").first.wait_for()
    page.locator(".answered, .notice").first.wait_for(state="attached")  # the address has been read


def shown(page, row: str, column: int = 0) -> int:
    return numbers(table_cells(page)[row][column])[0]


def box(page, name: str):
    return page.locator(f"#{name.replace('_', '-')} input[type=number]")


def test_opens_on_deepseek_v3_beside_v2(page, site):
    open_page(page, site)
    cells = table_cells(page)
    assert cells[TOTAL] == ["671,026,404,352", "100.0 %", "", "235,741,434,880", "2.85 ×"]
    assert cells[ACTIVE][0] == "37,552,282,624"
    assert cells["active, without the input embedding"][0] == "36,625,603,584"
    assert cells["apart: router biases (buffers, moved by a rule)"][0] == "14,848"
    assert cells["cache, bytes a token (16 bits)"][0] == "70,272"
    counted = accounting.count_parameters(presets.get("deepseek-v3"))
    for part, n in counted.by_part.items():
        assert numbers(cells[part][0]) == [n], part
        assert numbers(cells[part][2]) == [counted.active_by_part[part]], part
    assert shown(page, "apart: MTP modules (embedding and head shared)") == counted.mtp
    assert "routed experts" in page.locator("#chart").inner_text()


def test_dragging_a_slider_moves_the_config(page, site):
    open_page(page, site, "?preset=gpt2&beside=gpt2")
    drag(page, "#n-layers", 0.5)
    layers = int(box(page, "n_layers").input_value())
    wait_for_text(page, "#text", f" to {layers}, and the total")
    assert 70 < layers < 90
    assert shown(page, TOTAL) == accounting.count_parameters(presets.get("gpt2").replace(n_layers=layers)).total
    assert shown(page, TOTAL, 3) == 124_439_808


def test_number_boxes_take_exact_sizes_and_say_what_cannot_be(page, site):
    open_page(page, site, "?preset=gpt2-xl")
    box(page, "n_heads").fill("48")
    wait_for_text(page, ".notice", "n_heads 48 does not divide d_model 1600 and head_dim is not given; nearest: 40, 50")
    assert shown(page, TOTAL) == accounting.count_parameters(presets.get("gpt2-xl")).total  # the last good one stays
    page.wait_for_function("getComputedStyle(document.querySelector('.result')).opacity < 1")
    box(page, "n_heads").fill("50")
    page.locator(".notice").wait_for(state="detached")
    box(page, "d_model").fill("5000")
    base = presets.get("gpt2-xl")
    config = base.replace(d_model=5000, attention=base.attention.replace(n_heads=50))
    wait_for_text(page, "#table", f"{accounting.count_parameters(config).total:,}")
    box(page, "n_layers").fill("9999")
    wait_for_text(page, "#text", "n_layers cannot be 9,999, so 160 is shown.")
    wait_for_text(page, "#table", f"{accounting.count_parameters(config.replace(n_layers=160)).total:,}")
    page.keyboard.press("Tab")  # the browser corrects a box that is left
    assert box(page, "n_layers").input_value() == "160"
    box(page, "n_layers").fill("")  # half-way through typing
    wait_for_text(page, "#text", "n_layers is empty, so 1 is shown.")


def test_another_kind_of_attention_brings_its_own_sizes(page, site):
    open_page(page, site, "?preset=gpt2&beside=gpt2&positions=rope")
    assert not page.locator("#kv-lora-rank").is_visible()
    page.locator("#attention").get_by_text("MLA", exact=True).click()
    page.locator("#kv-lora-rank").wait_for()
    assert not page.locator("#head-dim").is_visible()
    config = presets.get("gpt2").replace(
        rope=RopeConfig(), attention=LatentAttentionConfig(12, 256, 64, 32, 64))
    wait_for_text(page, "#table", f"{accounting.count_parameters(config).total:,}")
    box(page, "kv_lora_rank").fill("128")
    config = config.replace(attention=config.attention.replace(kv_lora_rank=128))
    wait_for_text(page, "#text", "kv_lora_rank went from 256 to 128")
    assert shown(page, TOTAL) == accounting.count_parameters(config).total
    assert shown(page, "cache, bytes a token (16 bits)") == accounting.cache_bytes_per_token(config)


def test_experts_and_presets(page, site):
    open_page(page, site)
    page.get_by_text("Feed-forward and experts").click()
    box(page, "n_routed_experts").fill("512")
    base = presets.get("deepseek-v3")
    counted = accounting.count_parameters(base.replace(moe=base.moe.replace(n_routed_experts=512)))
    wait_for_text(page, "#table", f"{counted.total:,}")
    assert shown(page, ACTIVE) == counted.active
    page.locator("#moe input").uncheck()
    counted = accounting.count_parameters(base.replace(moe=None))
    wait_for_text(page, "#table", f"{counted.total:,}")
    assert "routed experts" in table_cells(page)  # the other model still has them
    choose(page, "#preset", "llama-3.1-8b")
    wait_for_text(page, "#table", "8,030,261,248")
    assert box(page, "d_model").input_value() == "4096"
    choose(page, "#beside", "llama-3.1-405b")
    wait_for_text(page, "#table", "llama-3.1-405b")
    assert shown(page, TOTAL, 3) == accounting.count_parameters(presets.get("llama-3.1-405b")).total


def test_a_link_holds_the_state(page, site):
    open_page(page, site, "?preset=gpt2&n_layers=24&d_model=x&n_kv_heads=100000")
    said = page.locator(".notice").inner_text()
    assert "d_model cannot be 'x' (it goes from 8 to 20,480) and was set to 768" in said
    assert "n_kv_heads cannot be '100000' (it goes from 1 to 256)" in said
    total = accounting.count_parameters(presets.get("gpt2").replace(n_layers=24)).total
    assert shown(page, TOTAL) == total
    page.get_by_text("Copy link to this state").click()
    wait_for_text(page, ".copied", "in the address bar")
    assert "n_layers=24" in page.url and "tie_embeddings=true" in page.url
    page.reload()
    page.locator(".answered").wait_for(state="attached")
    assert shown(page, TOTAL) == total


def test_a_redraw_is_quick(page, site):
    open_page(page, site)
    taken = redraw_milliseconds(page, "#n-layers", "#chart", "#table", ["ArrowLeft"] * 5 + ["ArrowRight"] * 5)
    print(f"\nArchitecture: a redraw takes {statistics.median(taken):.0f} ms in the median, {max(taken):.0f} at most")
    assert statistics.median(taken) < 1000


@pytest.mark.parametrize("name", presets.names())
def test_controls_hold_every_preset(name):
    """From a preset to the controls' values and back is the same model, and every value has a place on its slider."""
    config = presets.get(name)
    values = architecture.values_of(config)
    assert accounting.count_parameters(architecture.config_of(config, values)) == accounting.count_parameters(config)
    assert values.keys() == set(architecture.ORDER) and architecture.off_their_sliders(config) == {}
    for field, (_, least, most, step, _) in architecture.SLIDERS.items():
        assert least <= values[field] <= most, field
        assert (values[field] - least) % step == 0, field


def test_formulas_add_up():
    for name in ("gpt2", "deepseek-v3"):
        counted = accounting.count_parameters(presets.get(name))
        *parts, total = numbers(architecture.total_formula(counted))
        assert sum(parts) == total == counted.total
        lines = architecture.tensor_formulas(presets.get(name)).split("</p>")[:-1]
        assert sum(numbers(line.split(" = ")[1])[0] for line in lines) == counted.total + counted.mtp


# A config.json of one's own

MISTRAL = {"model_type": "mistral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 32768, "hidden_act": "silu",
           "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "sliding_window": None,
           "transformers_version": "4.42.0"}
MISTRAL_TOTAL = 7_248_023_552  # by the published files


def paste(page, config) -> None:
    if not page.locator("#pasted textarea").is_visible():
        page.get_by_text("Or a model of your own").click()
    page.locator("#pasted textarea").fill(config if isinstance(config, str) else json.dumps(config))
    page.locator("#read-config").click()


def test_a_pasted_config_is_counted_and_its_sliders_set(page, site):
    open_page(page, site)
    paste(page, MISTRAL)
    wait_for_text(page, "#table", f"{MISTRAL_TOTAL:,}")
    assert "Parameters of the pasted config" in page.locator("#table").inner_text()
    assert "Not read, because they change no size: transformers_version." in page.locator("#remark").inner_text()
    assert box(page, "n_layers").input_value() == "32" and box(page, "n_kv_heads").input_value() == "8"
    box(page, "n_layers").fill("33")
    config = ModelConfig.from_hf(MISTRAL).replace(n_layers=33)
    wait_for_text(page, "#text", "n_layers went from 32 to 33")
    assert shown(page, TOTAL) == accounting.count_parameters(config).total
    page.locator("#as-python").click()
    wait_for_text(page, "#python", "config = ModelConfig(")
    page.get_by_text("Copy link to this state").click()
    wait_for_text(page, ".copied", "in the address bar")
    page.reload()
    page.locator(".answered").wait_for(state="attached")
    assert shown(page, TOTAL) == accounting.count_parameters(config).total
    page.get_by_text("Or a model of your own").click()
    page.locator("#forget-config").click()
    wait_for_text(page, "#table", "Parameters of deepseek-v3 as")


def test_what_cannot_be_read_is_said_and_the_last_good_one_stays(page, site):
    open_page(page, site)
    for bad, sentence in (
            ('{"model_type": "gpt2", "model_type": "llama"}', "the key 'model_type' is there twice"),
            ("[" * 100_000, "nested far too deep"), ('{"a": NaN}', "NaN is no number"),
            ({**MISTRAL, "model_type": "qwen3"}, "it has a norm on each head's query and key"),
            ({**MISTRAL, "hidden_size": 2**31 - 1, "head_dim": 128}, "parameters; at most 1,000,000,000,000,000")):
        paste(page, bad)
        wait_for_text(page, ".notice", sentence)
        assert shown(page, TOTAL) == 671_026_404_352
    paste(page, MISTRAL)
    page.locator(".notice").wait_for(state="detached")
    wait_for_text(page, "#table", f"{MISTRAL_TOTAL:,}")


def test_sizes_off_their_sliders_are_counted_exactly_and_stay(page, site):
    large = {**MISTRAL, "num_hidden_layers": 200, "hidden_size": 24_576, "intermediate_size": 14_337}
    open_page(page, site)
    paste(page, large)
    config = ModelConfig.from_hf(large)
    wait_for_text(page, "#table", f"{accounting.count_parameters(config).total:,}")
    said = page.locator("#text").inner_text()
    assert "Off the sliders, and counted exactly as they are: d_model 24,576, n_layers 200, d_ff 14,337" in said
    box(page, "vocab_size").fill("1000")
    wait_for_text(page, "#text", "vocab_size went from 32,768 to 1,000")
    assert shown(page, TOTAL) == accounting.count_parameters(config.replace(vocab_size=1000)).total


def test_an_uploaded_file_is_read_and_a_long_one_refused(page, site, tmp_path):
    good, long = tmp_path / "config.json", tmp_path / "long.json"
    good.write_text(json.dumps(MISTRAL), encoding="utf-8")
    long.write_text('{"a": "' + "x" * hf_config.MOST_BYTES + '"}', encoding="utf-8")
    open_page(page, site)
    page.get_by_text("Or a model of your own").click()
    for path in (long, good):
        with page.expect_file_chooser() as chooser:
            page.locator("#upload-config").click()
        chooser.value.set_files(path)
        if path is long:
            wait_for_text(page, ".notice", "this file has 200,009 bytes")
    wait_for_text(page, "#table", f"{MISTRAL_TOTAL:,}")
    assert '"mistral"' in page.locator("#pasted textarea").input_value()


def test_a_bad_config_in_the_address_is_said(page, site):
    open_page(page, site, "?preset=gpt2&config=%7Bno")
    assert "The address's config cannot be read: this is not JSON" in page.locator(".notice").inner_text()
    assert shown(page, TOTAL) == 124_439_808
    settle(page)


def test_the_file_on_the_hub_and_the_estimates(page, site):
    open_page(page, site)
    rows = table_cells(page, "#file-table")
    assert rows["MTP module"] == ["11,610,067,968", "682,636,472,320"]
    assert rows["biases of the routers"][1] == "684,531,386,000"
    estimates = page.locator("#estimates")
    assert estimates.inner_text().count("unconfirmed estimate") == estimates.locator("tbody tr").count() == 3
    assert "about 5 to 10 T" in estimates.inner_text()


def test_what_programs_get():
    v3 = architecture.count_parameters()
    assert v3["total"] == 671_026_404_352 == sum(v3["by_part"].values()) and v3["not_read"] == ""
    mistral = architecture.count_parameters(config_json_text=json.dumps(MISTRAL))
    assert mistral["total"] == MISTRAL_TOTAL and "transformers_version" in mistral["not_read"]
    assert json.loads(json.dumps(mistral)) == mistral
    with pytest.raises(ValueError, match="not JSON"):
        architecture.count_parameters(config_json_text="{")
    with pytest.raises(ValueError, match="no preset is called 'gpt-9'"):
        architecture.count_parameters(preset="gpt-9")


def test_a_kept_config_is_the_same_config():
    for name in presets.names():
        config = presets.get(name)
        kept = config_json.keep(config)
        assert config_json.base_of("gpt2", kept) == config and len(kept) < config_json.MOST_LETTERS_IN_AN_ADDRESS
        assert config_json.from_address(gr.Request(query_params={"config": kept})) == (kept, "")
    kept, problem = config_json.from_address(gr.Request(query_params={"config": "x" * 7000}))
    assert kept == "" and "at most 6,000; paste it instead" in problem
