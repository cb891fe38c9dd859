"""The MTP lab in a real browser: rows, marked guesses and figures against llm_core, computed here anew."""

import re
import statistics

import pytest
from conftest import numbers, redraw_milliseconds, settle, table_cells, wait_for_text

from apps import mtp_gain, mtp_lab, mtp_writing
from llm_core import accounting, generate, load_pretrained, presets, pretrained
from llm_core.mtp_alignment import aligned_rows, likeliest
from llm_core.repeated_draft import RepeatedMTPDraft
from llm_core.speculative import Pass, speculate

START, H100 = mtp_lab.START, accounting.HARDWARE["h100"]
V3, LLAMA = (presets.get(name) for name in mtp_gain.MODELS)


@pytest.fixture(scope="module")
def mini():
    return load_pretrained("deepseek-mini")


def open_page(page, site, query=""):
    page.goto(f"{site}{mtp_lab.PATH}{query}")
    page.locator("#lines .main-svg").first.wait_for()
    page.locator("#figures tbody tr").nth(8).wait_for()  # the text of the address has been written and compared
    page.locator("#acceptance .main-svg").first.wait_for()
    settle(page, 100)


def marked(page) -> list[tuple[str, str]]:
    """(kind, piece) of all that stands behind the prompt."""
    names = {"a guess that stood": "accepted", "a guess that was rejected": "rejected",
             "the model's own token": "own"}
    found = page.locator("#drafted p > *:not(.prompt)").evaluate_all(
        "all => all.map(e => [e.title, e.tagName, e.textContent])")
    assert all((tag == "INS") == (title == "a guess that stood") for title, tag, _ in found)
    assert all((tag == "DEL") == (names.get(title, "vain") in ("rejected", "vain")) for title, tag, _ in found)
    return [(names.get(title, "vain"), text) for title, _, text in found]


def expected_marks(passes: list[Pass], tokenizer) -> list[tuple[str, str]]:
    """The same from the passes themselves, by another way: guess by guess."""
    out = []
    for done in passes:
        for i, piece in enumerate(tokenizer.pieces(done.drafted) if done.drafted else []):
            kind = "accepted" if i < done.accepted else "rejected" if i == done.accepted else "vain"
            out.append((kind, piece.replace("\n", "↵\n" if kind == "accepted" else "↵")))
        if len(done.tokens) > done.accepted:
            out.append(("own", tokenizer.pieces(done.tokens)[-1]))
    return out


def written_text(marks) -> str:
    return "".join(piece.replace("↵", "") for kind, piece in marks if kind in ("own", "accepted"))


def press_write(page, pace=mtp_lab.AT_ONCE):
    page.locator("#pace").get_by_text(pace, exact=True).click()
    page.locator("#write").click()


def test_opens_with_a_checked_text(page, site, mini):
    open_page(page, site)
    model, tokenizer = mini
    prompt = tokenizer.encode(START["prompt"])
    passes = list(speculate(model, prompt, START["tokens"]))  # the library's own MTP draft, one guess
    marks = marked(page)
    assert marks == expected_marks(passes, tokenizer)
    assert written_text(marks) == tokenizer.decode(generate(model, prompt, START["tokens"])[0, len(prompt):].tolist())
    assert "the same text, all 40 tokens" in page.locator("#run-said").inner_text()
    shown = table_cells(page, "#figures")
    made, stood = sum(len(p.drafted) for p in passes), sum(p.accepted for p in passes)
    assert numbers(" ".join(shown[row][0] for row in ("passes of the model", "guesses made", "of them stood"))) == [
        len(passes), made, stood]
    assert shown["p, the share that stood"] == [f"{stood / made:.3f}"]
    one, two, guess = (float(shown[row][0].split()[0]) for row in (
        "a plain pass, one row", "a pass over 2 rows", "making 1 guess"))
    c = float(shown["c, what both cost more, in plain passes"][0])
    assert c == pytest.approx((two + guess) / one - 1, abs=0.02)
    checking = sum(bool(p.drafted) for p in passes)
    predicted = (len(passes) - 1 + stood) / (len(passes) - 1 + checking * c)
    assert float(shown["speed-up predicted"][0]) == pytest.approx(predicted, abs=0.02)
    used, plain = (float(shown[row][0].split()[0]) for row in ("seconds with guesses", "seconds without"))
    assert float(shown["speed-up measured"][0]) == pytest.approx(plain / used, rel=0.15)  # seconds are rounded


def test_rows_for_a_text_of_ones_own(page, site, mini):
    open_page(page, site)
    page.locator("#text-box textarea, #text-box input").fill("To be or not")
    page.keyboard.press("Enter")
    slider = page.locator("#depth input[type=range]")
    slider.focus()
    slider.press("ArrowRight")
    wait_for_text(page, "#row-said", "Depth 2, row 0 reads what depth 1 made of row 0")
    model, tokenizer = mini
    ids = tokenizer.encode("To be or not")
    pieces = [p.replace(" ", "␣") for p in tokenizer.pieces(ids)]
    cells = [re.findall("“(.*?)”", cell.replace("\n", " "), re.S) for cell in page.locator(
        "#rows tbody td").all_inner_texts() if cell]
    said = likeliest(model, ids)
    rows = aligned_rows(len(ids), 2)
    assert len(cells) == len(rows) == 3 * len(ids) - 6
    for cell, r in zip(cells, rows):
        answer = [tokenizer.pieces([said[r.depth][r.row]])[0].replace(" ", "␣").replace("\n", "↵")] \
            if r.depth < 2 else []
        assert cell == [pieces[r.reads], pieces[r.target], *answer]
    right = sum(said[r.depth][r.row] == ids[r.target] for r in rows if r.depth < 2)
    assert page.locator("#rows .hit").count() == right
    page.locator("#text-box textarea, #text-box input").fill("To")
    page.keyboard.press("Enter")
    wait_for_text(page, ".notice", "depth 2 needs a text of at least 4 tokens")
    assert page.locator("#rows tbody td").count() > 3  # the last good table stays
    settle(page)


@pytest.mark.parametrize("draft", ["mtp", "bigram", "lookup"])
def test_each_draft_writes_the_models_own_text(page, site, mini, draft):
    open_page(page, site)
    model, tokenizer = mini
    page.locator("#draft").get_by_text(mtp_writing.DRAFTS[draft], exact=True).click()
    page.locator("#guesses input[type=number]").fill("3")
    page.locator("#tokens input[type=number]").fill("50")
    press_write(page)
    wait_for_text(page, "#run-said", f"{mtp_writing.DRAFTS[draft]}, 3 guesses a pass, greedy: 50 tokens")
    wait_for_text(page, "#run-said", "the same text, all 50 tokens")
    prompt = tokenizer.encode(START["prompt"])
    marks = marked(page)
    assert written_text(marks) == tokenizer.decode(generate(model, prompt, 50)[0, len(prompt):].tolist())
    if draft == "mtp":
        passes = list(speculate(model, prompt, 50, RepeatedMTPDraft(model), gamma=3))
        assert marks == expected_marks(passes, tokenizer) and "vain" in dict(marks)
    settle(page)


def test_stop_and_temperature(page, site):
    open_page(page, site)
    slider = page.locator("#temperature input[type=range]")
    slider.focus()
    for _ in range(10):
        slider.press("ArrowRight")
    page.locator("#tokens input[type=number]").fill("120")
    press_write(page, mtp_lab.SLOWLY)
    wait_for_text(page, "#run-said", "1 guess a pass, temperature 1:")
    wait_for_text(page, "#status", "Writing")
    page.locator("#stop").click()
    page.wait_for_function("!document.querySelector('#status').innerText.includes('Writing')")
    assert "Stopped." in page.locator("#status").inner_text()
    settle(page)
    stands = page.locator("#drafted").inner_text()
    page.wait_for_timeout(500)
    assert page.locator("#drafted").inner_text() == stands and len(marked(page)) < 100
    page.locator("#tokens input[type=number]").fill("12")
    press_write(page)
    wait_for_text(page, "#status", "All 12 tokens are written.")
    wait_for_text(page, "#run-said", "texts cannot be compared")
    settle(page)


def test_what_cannot_be_written_is_said(page, site):
    open_page(page, site)
    before = marked(page)
    page.locator("#prompt textarea").fill("")
    page.locator("#write").click()
    wait_for_text(page, ".notice", "the prompt is empty")
    assert marked(page) == before
    page.locator("#prompt textarea").fill("xq zj " * 160)
    page.locator("#write").click()
    wait_for_text(page, ".notice", "the model's context holds 256; keep the last 256")
    settle(page)


def test_the_gain_in_large_models(page, site):
    open_page(page, site)
    low = table_cells(page)
    for texts in mtp_gain.IN_TABLE:
        for config, at in ((V3, 0), (LLAMA, 3)):
            b = accounting.speculative_bound(config, H100, 1, texts, 1024)
            assert low[f"{texts}"][at:at + 3] == [f"{b.rows_cost:.3f} + {b.guessing_cost:.3f}",
                                                  f"{b.speed_up(0.85):.2f}", b.limited_by]
    assert [float(low[n][1]) for n in ("1", "4", "128")] == pytest.approx([1.17, 1.05, 1.79], abs=0.011)
    assert f"{accounting.count_parameters(V3).mtp:,} parameters" in page.locator("#gained").inner_text()
    page.locator("#texts").get_by_text("2", exact=True).click()
    wait_for_text(page, "#gained", "texts went from 128 to 2: with more texts, more of the experts")
    page.locator("#context").get_by_text("32,768", exact=True).click()
    wait_for_text(page, "#table", "32,768 tokens in each text")
    page.locator("#ahead input[type=number]").fill("3")
    wait_for_text(page, "#gained", "guesses a pass went from 1 to 3")
    page.locator("#p input[type=number]").fill("60")
    wait_for_text(page, "#gained", "p went from 85 % to 60 %")
    got, b = table_cells(page)["2"], accounting.speculative_bound(V3, H100, 3, 2, 32768)
    assert got[:2] == [f"{b.rows_cost:.3f} + {b.guessing_cost:.3f}", f"{b.speed_up(0.6):.2f}"]
    page.locator("#p input[type=number]").fill("")
    wait_for_text(page, "#gained", "p is empty, so 0 is shown")
    settle(page)


def test_acceptance_from_the_card_and_measured_here(page, site, mini):
    open_page(page, site)
    card = pretrained.card("deepseek-mini")["second_token"]["MTP"]
    assert table_cells(page, "#accepted")["MTP module"] == [
        f"{100 * card['greedy']:.1f} %", f"{100 * card['expected']:.1f} %", "4,080"]
    untaught = pretrained.card("deepseek-mini")["drafting"]["before"]
    assert table_cells(page, "#accepted")["MTP module, untaught"][0] == f"{100 * untaught['greedy']:.1f} %"
    page.locator("#measure").click()
    wait_for_text(page, "#accepted", "measured on this machine just now")
    shown = table_cells(page, "#accepted")
    assert shown.pop("MTP module, untaught")[3:] == ["", "", ""]  # its weights are not here to be measured
    here = {name: [float(cell.split()[0]) for cell in row[3:5]] for name, row in shown.items()}
    assert all(row[5] == "510" for row in shown.values())
    assert here["MTP module"] == pytest.approx([100 * card["greedy"], 100 * card["expected"]], abs=8)
    assert all(here["MTP module"][1] > here[name][1] + 15 for name in ("bigram table", "prompt lookup"))
    settle(page)


def test_an_address_reproduces_the_state(page, site, mini):
    open_page(page, site, "?text=The+sea+is+calm+and+the&depth=2&prompt=HAMLET%3A%0A&draft=lookup&guesses=2&tokens=30"
                          "&p=90&ahead=2&texts=4&context=4096")
    assert "Depth 2, row 0" in page.locator("#row-said").inner_text()
    assert "prompt lookup, 2 guesses a pass, greedy: 30 tokens" in page.locator("#run-said").inner_text()
    assert "p = 0.90, 2 guesses a pass, 4,096 tokens in each text" in page.locator("#table").inner_text()
    model, tokenizer = mini
    prompt = tokenizer.encode("HAMLET:\n")
    assert written_text(marked(page)) == tokenizer.decode(generate(model, prompt, 30)[0, len(prompt):].tolist())
    page.locator(".copy-link").click()
    page.wait_for_function("location.search.includes('texts=4')")
    assert "draft=lookup" in page.url and "ahead=2" in page.url
    open_page(page, site, "?draft=oracle&p=150&texts=5&guesses=9&depth=x")
    said = page.locator(".notice").inner_text()
    for part in ("draft cannot be 'oracle'", "p cannot be '150' (it goes from 0 to 100)", "texts cannot be '5'",
                 "guesses cannot be '9'", "depth cannot be 'x'"):
        assert part in said


def test_a_redraw_is_quick(page, site):
    open_page(page, site)
    taken = redraw_milliseconds(page, "#p", "#lines", "#table", ["ArrowLeft"] * 6)
    taken += redraw_milliseconds(page, "#ahead", "#lines", "#table", ["ArrowRight"] * 3)
    print(f"\nMTP lab: a redraw takes {statistics.median(taken):.0f} ms in the median, {max(taken):.0f} at most")
    assert statistics.median(taken) < 1000
    settle(page)


def test_marks_of_passes_by_hand():
    def pieces(ids):
        return [str(id) for id in ids]

    for done, marks in (
            (Pass([7], [], 0, 1), [("7", "own")]),
            (Pass([1, 2, 9], [1, 2], 2, 2), [("1", "accepted"), ("2", "accepted"), ("9", "own")]),
            (Pass([1, 9], [1, 2, 3], 1, 2), [("1", "accepted"), ("2", "rejected"), ("3", "vain"), ("9", "own")]),
            (Pass([5], [1], 0, 2), [("1", "rejected"), ("5", "own")]),
            (Pass([1, 0], [1, 0, 4], 2, 2), [("1", "accepted"), ("0", "accepted"), ("4", "vain")])):  # 0 ends the text
        assert mtp_writing.marks_of(done, pieces) == marks


def test_a_text_that_differs_is_told():
    """The comparison must be able to fail: a run whose tokens are not the plain ones says so."""
    settings = mtp_writing.Settings(START["prompt"], "mtp", 1, 8, 0.0)
    *_, run = mtp_writing.write(settings)
    assert "the same text, all 8 tokens" in mtp_writing.told(run, settings)
    run.tokens[3] += 1
    assert "another text. That must not be" in mtp_writing.told(run, settings)


def test_limits_of_tokens_and_seconds():
    settings = mtp_writing.Settings(START["prompt"], "lookup", 2, 10**6, 0.0)
    *_, run = mtp_writing.write(settings)
    assert len(run.tokens) == mtp_writing.MAX_GUESSED_TOKENS
    *_, run = mtp_writing.write(settings, max_seconds=0)
    assert len(run.passes) == 1 and run.ended == "Stopped after 0 seconds, this page's limit."


def test_for_programs():
    got = mtp_lab.mtp_drafts("ROMEO:\n", "mtp", 2, 20)
    assert got["same_as_plain"] and got["accepted"] <= got["guesses"]
    assert written_text([(kind, piece) for piece, kind in got["marks"]]) == got["text"]
    gain = mtp_gain.mtp_speed_up(0.85, 1, 4, 1024)
    assert gain["deepseek-v3"]["speed_up"] == pytest.approx(1.05, abs=0.01)
    for bad in (lambda: mtp_lab.mtp_drafts("", "mtp"), lambda: mtp_lab.mtp_drafts("a", "oracle"),
                lambda: mtp_lab.mtp_drafts("a", tokens=1000), lambda: mtp_gain.mtp_speed_up(texts=0),
                lambda: mtp_gain.mtp_speed_up(p=2.0)):
        with pytest.raises(ValueError):
            bad()
