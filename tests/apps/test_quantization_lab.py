"""The quantization lab: what its parts show, moved by real controls, equals llm_core's quantization."""

import re
import statistics

import pytest
from conftest import choose, drag, redraw_milliseconds, settle, table_cells, wait_for_text

from apps import quantization_fp8, quantization_lab, quantization_matrix, writing
from llm_core import accounting, few_bits, presets
from llm_core.quantization import fp8, integers
from llm_core.quantization.model import quantize_model


def open_page(page, site, query=""):
    page.goto(f"{site}/quantization{query}")
    for chart in ("#error-map", "#levels", "#losses", "#one-scale", "#many-scales", "#ruler"):
        page.locator(f"{chart} .main-svg").first.wait_for()


def per_cent(share: float) -> str:
    return f"{100 * share:#.3g}".removesuffix(".") + " %"


def row(page, name: str, selector: str) -> list[str]:
    """A table's row, whether it is the marked one or not."""
    cells = table_cells(page, selector)
    return cells.get(f"▶ {name}") or cells[name]


def spoiled(name: str, power: int):
    x = few_bits.matrix(name, writing.load("gpt-mini")[0])
    return quantization_matrix.formats.with_outliers(x, 2**power if power else 0)


def test_opens_on_int4_by_rows_with_outliers(page, site):
    open_page(page, site)
    x, mask = spoiled("feed-forward up, block 2", 5)
    made = integers.quantize(x, 4, "channel", scale_dtype=quantization_matrix.torch.bfloat16)
    back = made.dequantize()
    shown = table_cells(page, "#matrix-table")["▶ int4"]
    assert shown[:2] == [f"{8 * made.nbytes / x.numel():.3f}", f"{made.nbytes:,}"]
    assert shown[2] == per_cent(integers.relative_error(x[~mask], back[~mask]))
    assert shown[4] == per_cent(integers.relative_error(x, back)) and shown[6] == f"{(x - back).abs().max():.3g}"
    codes, scale = fp8.quantize_tiles(x, (1, x.shape[1]), "e5m2")
    by_row = fp8.dequantize_tiles(codes, scale, (1, x.shape[1]))
    assert row(page, "FP8 E5M2", "#matrix-table")[4] == per_cent(integers.relative_error(x, by_row))
    assert f"codes 73,728 + scales 1,536 = {made.nbytes:,}" in page.locator("#matrix-text").inner_text()
    assert "bright stripes are the rows with an outlier" in page.locator("#matrix-text").inner_text()


def test_every_control_of_the_matrix(page, site):
    open_page(page, site)
    choose(page, "#matrix", "random, behind SiLU")
    wait_for_text(page, "#matrix-table", "random, behind SiLU")
    drag(page, "#outliers", 0.0)
    wait_for_text(page, "#matrix-text", "none: the largest number of a group decides")
    page.locator("#format").get_by_text("int3", exact=True).click()
    wait_for_text(page, "#matrix-text", "format went from int4 to int3")
    page.locator("#share").get_by_text("32 in a row", exact=True).click()
    wait_for_text(page, "#matrix-text", "share went from row to 32 in a row")
    x, _ = spoiled("random, behind SiLU", 0)
    off = {}
    for symmetric in (True, False):
        if not symmetric:
            page.locator("#zero-point input").check()
            wait_for_text(page, "#matrix-text", "zero_point went from off to on")
        made = integers.quantize(x, 3, 32, symmetric=symmetric, scale_dtype=quantization_matrix.torch.bfloat16)
        off[symmetric] = integers.relative_error(x, made.dequantize())
        assert row(page, "int3", "#matrix-table")[1:3] == [f"{made.nbytes:,}", per_cent(off[symmetric])]
    assert off[False] < 0.7 * off[True] and "FP8 E4M3" not in table_cells(page, "#matrix-table")


def test_what_cannot_be_is_said_and_only_its_own_part_is_greyed(page, site):
    open_page(page, site)
    page.locator("#share").get_by_text("block 128 × 128", exact=True).click()
    wait_for_text(page, ".notice", "nearest: groups of 128")
    assert "▶ int4" in table_cells(page, "#matrix-table")
    page.wait_for_function("getComputedStyle(document.querySelector('#matrix-table').closest('.shown')).opacity < 1")
    assert page.locator("#tiles-table").evaluate("e => getComputedStyle(e.closest('.shown')).opacity") == "1"
    page.locator("#format").get_by_text("FP8 E4M3", exact=True).click()
    wait_for_text(page, "#matrix-text", "with a scale for each block 128 × 128")
    assert page.locator(".notice").count() == 0
    page.locator("#number input, #number textarea").fill("a few")
    page.keyboard.press("Enter")
    wait_for_text(page, ".notice", "type one finite number, like 0.1, -300 or 1e-3, not 'a few'")
    assert row(page, "E4M3", "#number-table")[1] == "0.1015625"
    page.locator("#outliers input[type=number]").fill("")
    wait_for_text(page, "#matrix-text", "outliers is empty, so 0 is shown")
    settle(page)


def test_the_model_in_fewer_bits(page, site):
    open_page(page, site)
    model, tokenizer = writing.load("gpt-mini")
    text = few_bits.held_out(tokenizer)
    for bits, per, button in ((3, "tensor", None), (4, "channel", "row")):
        if button:
            page.locator("#bits").get_by_text(str(bits), exact=True).click()
            wait_for_text(page, "#model-table", "▶ 4 bits")
            page.locator("#per").get_by_text(button, exact=True).click()
            wait_for_text(page, "#model-table", "a scale for each row")
        small = quantize_model(model, bits, per)
        shown = table_cells(page, "#model-table")[f"▶ {bits} bits"]
        assert float(shown[0]) == pytest.approx(few_bits.loss(small, text), abs=2e-3)
        assert shown[2:] == [f"{few_bits.size(small).nbytes:,}", f"{few_bits.size(small).bits_a_weight:.3f}"]
        assert re.search(r"wrote \d+\.\d\d times as fast .* measured here", page.locator("#model-text").inner_text())
    page.locator("#model").get_by_text("deepseek-mini", exact=True).click()
    wait_for_text(page, "#model-table", "deepseek-mini")
    page.locator("#prompt input, #prompt textarea").fill("The king")
    page.keyboard.press("Enter")
    wait_for_text(page, "#texts", "The king")
    assert page.locator("#texts section").count() == 2
    page.locator("#prompt input, #prompt textarea").fill("")
    page.keyboard.press("Enter")
    wait_for_text(page, ".notice", "the prompt is empty")
    assert "The king" in page.locator("#texts").inner_text()
    settle(page)


def test_tiles_and_blocks(page, site):
    open_page(page, site)
    x, mask = few_bits.activations(2.0**17)

    def others(tile, format):
        back = fp8.dequantize_tiles(*fp8.quantize_tiles(x, tile, format), tile)
        return per_cent(integers.relative_error(x[~mask], back[~mask]))

    shown = table_cells(page, "#tiles-table")
    assert shown["E4M3, one scale"][0] == others(None, "e4m3") and shown["E4M3, tiles"][0] == others((1, 128), "e4m3")
    assert shown["E5M2, one scale"][0] == others(None, "e5m2") and shown["E4M3, tiles"][2] == "2,048"
    page.locator("#kind").get_by_text("weights, blocks 128 × 128").click()
    wait_for_text(page, "#tiles-table", "E4M3, blocks")
    x, mask = few_bits.weights(2.0**17)
    assert table_cells(page, "#tiles-table")["E4M3, blocks"][:1] == [others((128, 128), "e4m3")]
    page.locator("#fp8").get_by_text("E5M2", exact=True).click()
    wait_for_text(page, "#tiles-text", "in E5M2")
    drag(page, "#outlier", 0.0)
    wait_for_text(page, "#tiles-text", "Nothing stands out, and INT8 with one scale is off by 1.")
    settle(page)


def test_one_number_by_keyboard_alone(page, site):
    open_page(page, site)
    box = page.locator("#number input, #number textarea")
    box.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("-300")
    page.keyboard.press("Enter")
    wait_for_text(page, "#number-table", "-300 in the two formats")
    for name in ("e4m3", "e5m2"):
        made, shown = fp8.fields(-300, name), row(page, name.upper(), "#number-table")
        assert shown[:2] == [made.bits, f"{made.value:g}"]
        assert made.formula in page.locator("#number-text").inner_text()
        assert made.bits.replace(" ", "") in page.locator("#number-bits").inner_text().replace("\n", "")
    assert row(page, "E4M3", "#number-table")[2:4] == ["-320", "-256"]
    page.keyboard.press("Control+A")
    page.keyboard.type("1e6")
    page.keyboard.press("Enter")
    wait_for_text(page, "#number-text", "448, the largest there is, and in E5M2 infinity")


def test_v3s_precisions(page, site):
    page.goto(f"{site}/quantization")
    page.locator("#precision table").wait_for()
    shown, v3 = table_cells(page, "#precision"), presets.get("deepseek-v3")
    work = accounting.precision_map(v3, 4096)
    assert {name: cells[:3] for name, cells in shown.items()} == {
        w.part: ["FP8" if w.fp8 else "BF16 or FP32", f"{w.parameters:,}", f"{w.flops:,}"] for w in work}
    assert f"{per_cent(accounting.fp8_share(v3, 4096))} of its work" in page.locator("#precision").inner_text()
    page.locator("#losses .main-svg").first.wait_for()
    settle(page)


def test_an_address_opens_its_state_and_is_made_again(page, site):
    query = ("?matrix=token+embedding&format=e5m2&share=64&zero_point=False&outliers=9&model=deepseek-mini&bits=6"
             "&per=channel&prompt=The+king&kind=weights&outlier=4&fp8=e5m2&number=27")
    open_page(page, site, query)
    wait_for_text(page, "#matrix-table", "token embedding, a scale for each 64 in a row")
    wait_for_text(page, "#model-table", "▶ 6 bits")
    wait_for_text(page, "#tiles-table", "outliers 2^4")
    wait_for_text(page, "#number-table", "27 in the two formats")
    assert "▶ FP8 E5M2" in table_cells(page, "#matrix-table") and "The king" in page.locator("#texts").inner_text()
    page.locator(".copy-link").click()
    wait_for_text(page, ".copied", "in the address bar")
    made = page.evaluate("location.search.toLowerCase()")
    assert made == query.lower()
    settle(page)


def test_a_bad_address_is_said(page, site):
    open_page(page, site, "?format=int5&outliers=99&share=block&bits=7&prompt=&number=x&outlier=1.5")
    said = " ".join(page.locator(".notice").all_inner_texts())
    for part in ("format cannot be 'int5'", "outliers cannot be '99' (it goes from 0 to 18)", "bits cannot be '7'",
                 "outlier cannot be '1.5'", "nearest: groups of 128", "the prompt is empty", "not 'x'"):
        assert part in said, part
    assert "▶ int4" in table_cells(page, "#matrix-table")
    settle(page)


def test_a_redraw_is_quick(page, site):
    open_page(page, site, "?format=int8&outliers=3")  # from here on each step changes the map, until all is lost
    settle(page)
    taken = redraw_milliseconds(page, "#outliers", "#error-map", "#matrix-table", ["ArrowRight"] * 6)
    tiles = redraw_milliseconds(page, "#outlier", "#one-scale", "#tiles-table", ["ArrowLeft"] * 4)
    print(f"\nQuantization: a redraw takes {statistics.median(taken):.0f} ms in the median, {max(taken):.0f} at most; "
          f"tiles {statistics.median(tiles):.0f}")
    assert statistics.median(taken) < 1000 and statistics.median(tiles) < 1000


def test_the_functions_for_programs():
    found = quantization_matrix.quantize_matrix("random, normal", "int8", "64")
    x, _ = spoiled("random, normal", 0)
    made = integers.quantize(x, 8, 64, scale_dtype=quantization_matrix.torch.bfloat16)
    assert found["bytes"] == made.nbytes and (found["rows"], found["columns"]) == tuple(x.shape)
    assert found["relative_error"] == pytest.approx(integers.relative_error(x, made.dequantize()))
    for wrong in ({"matrix": "x"}, {"format": "int5"}, {"share": "12"}, {"outliers": 19}, {"outliers": 0.5},
                  {"format": "e4m3", "zero_point": True}):
        with pytest.raises(ValueError, match="must be|no zero point"):
            quantization_matrix.quantize_matrix(**wrong)
    number = quantization_fp8.fp8_number(0.1)
    assert number["e4m3"]["value"] == fp8.fields(0.1).value and number["e5m2"]["bits"] == "0 01011 10"
    assert quantization_fp8.fp8_number(1e6)["e5m2"]["value"] == "inf"
    with pytest.raises(ValueError, match="finite"):
        quantization_fp8.fp8_number(float("nan"))
    assert all(name in quantization_lab.START for name in (*quantization_lab.ALLOWED, *quantization_lab.LIMITS))
