"""The training lab in a real browser: a model learns, is stopped, downloaded, waited for, and never left behind."""

import os
import re
import signal
import statistics
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from conftest import numbers, open_fold, settle, table_cells, wait_for_text

from apps import starting, training_lab
from llm_core import load_pretrained
from llm_core.training.lab.plan import Settings, plan
from llm_core.training.lab.record import recorded

TINY = "n_layers=1&d_model=32&n_heads=2&context=32&batch_size=4"
PATIENCE = 180_000  # milliseconds for a run to begin and to end, on a machine that is busy with other tests


def open_page(page, site, query=""):
    page.goto(f"{site}{training_lab.PATH}{query}")
    page.locator("#curves .main-svg").first.wait_for()
    page.locator(".answered, .notice").first.wait_for(state="attached")  # the address has been read


def says(page, text, selector="#status"):
    """Until the status says so; a run begins within seconds, on a busy machine within a minute."""
    page.wait_for_function("([s, t]) => document.querySelector(s)?.innerText.includes(t)", arg=[selector, text],
                           timeout=PATIENCE)


def press(page, name):
    """By keyboard, for which a page that is busy drawing need not stand still."""
    page.get_by_role("button", name=name, exact=True).focus()
    page.keyboard.press("Enter")


def processes(site) -> list[int]:
    """The training processes of the server at this address."""
    port, found = str(urlsplit(site).port), []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if "training.lab.child" in (place / "cmdline").read_text():
                parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
                if port in Path(f"/proc/{parent}/cmdline").read_text().split("\0"):
                    found.append(int(place.name))
        except OSError:
            continue  # it has ended
    return found


def wait_until(done, seconds=60):
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.1)
    assert done()


def test_opens_with_two_recorded_runs_and_a_plan(page, site):
    open_page(page, site)
    deepseek, gpt = recorded()["deepseek"], recorded()["gpt"]
    assert "Recorded" in page.locator("#status").inner_text()
    text = page.locator("#text").inner_text()
    assert f"to {deepseek.looks[-1][2]:.2f}" in text and gpt.name in text
    assert f"{deepseek.looks[-1][2]:.4f}" in page.locator("#tables").inner_text()
    planned = plan(Settings(), 60)
    shown = page.locator("#plan").inner_text()
    for figure in (planned.parameters, planned.flops_per_step, planned.training_bytes, planned.tokens_per_step):
        assert f"{figure:,}" in shown
    rate = planned.steps
    assert abs(numbers(re.search(r"about ([\d,]+) steps", shown)[1])[0] / rate - 1) < 0.05


def test_trains_shows_it_and_hands_over_the_model(new_page, site, tmp_path):
    page = new_page()
    open_page(page, site, f"?{TINY}&seconds=110&learning_rate=0.01")
    press(page, "Train")
    says(page, "Training:")
    assert page.locator("#status progress").get_attribute("max") == "110"
    # Long enough to learn something, which takes two seconds where nothing else runs.
    page.wait_for_function("""() => Number((/step ([0-9,]+)/.exec(document.querySelector("#status").innerText)
                                            ?? ["", "0"])[1].replace(",", "")) >= 100""", timeout=PATIENCE)
    press(page, "Stop")
    says(page, "Stopped:")
    first, *_, last = table_cells(page, "#tables .table:first-child").values()
    assert float(first[4]) == pytest.approx(4.19, abs=0.3) and float(last[4]) < float(first[4]) - 0.3
    assert int(first[0]) == 1 and numbers(last[1]) == [numbers(last[0])[0] * 4 * 32]
    assert page.locator("#sample").inner_text().count("ROMEO:") == 2
    assert "GPT-2 block, MHA, dense, 1 layer of 32" in page.locator("#text").inner_text()
    with page.expect_download() as waiting:
        page.locator("#download").click()
    with zipfile.ZipFile(waiting.value.path()) as file:
        file.extractall(tmp_path)
    model, words = load_pretrained(tmp_path / "lab-gpt2-mha-dense-1x32")
    assert sum(p.numel() for p in model.parameters()) == plan(
        Settings(n_layers=1, d_model=32, n_heads=2, context=32, batch_size=4), 5).parameters
    assert words.encode("ROMEO:\n") and processes(site) == []
    served = Path(unquote(waiting.value.url.split("file=")[1]))
    assert served.is_file()
    settle(page)
    page.goto("about:blank")
    wait_until(lambda: not served.parent.exists())


def test_one_trains_another_waits_and_a_third_may_write(new_page, site):
    one, other, writer = new_page(), new_page(), new_page()
    open_page(one, site, f"?{TINY}&seconds=120")
    open_page(other, site, f"?{TINY}&seconds=120")
    press(one, "Train")
    says(one, "Training:")
    press(other, "Train")
    says(other, "Your place in the line is 1")
    assert len(processes(site)) == 1
    # Models write meanwhile.
    writer.goto(f"{site}/playground?tokens=20")
    writer.locator("#bars tbody tr").nth(9).wait_for()
    began = time.monotonic()
    writer.get_by_role("button", name="Write").click()
    writer.locator("#status .by").get_by_text("All 20 tokens are written.").wait_for(timeout=PATIENCE)
    print(f"\nTraining lab: 20 tokens were written in {time.monotonic() - began:.1f} s while a model trained")
    assert "Training:" in one.locator("#status").inner_text()
    # Stop: the one has its model, and the other moves up.
    press(one, "Stop")
    says(one, "Stopped:")
    assert one.locator("#download").is_visible()
    says(other, "Training:")
    # Its process is killed: a sentence, and the next run works.
    os.kill(processes(site)[0], signal.SIGKILL)
    says(other, "the process that trained has ended before its time", ".notice")
    press(other, "Train")
    says(other, "Training:")
    # The page is closed: nothing is left.
    assert len(processes(site)) == 1
    other.close()
    wait_until(lambda: processes(site) == [], 20)
    for page in (one, writer):
        settle(page)


def test_what_cannot_be_is_said_and_the_last_good_plan_stays(page, site):
    open_page(page, site)
    before = page.locator("#plan").inner_text()
    page.locator("#attention").get_by_text("MLA", exact=True).click()
    wait_for_text(page, ".notice", "GPT-2's block has MHA and one dense network, not MLA")
    assert page.locator("#plan").inner_text() == before
    page.wait_for_function("getComputedStyle(document.querySelector('.result')).opacity < 1")
    page.locator("#block").get_by_text("DeepSeek", exact=False).click()
    page.locator(".notice").wait_for(state="detached")
    wait_for_text(page, "#plan", "DeepSeek block, MLA, dense")
    page.locator("#feed-forward").get_by_text("8 experts", exact=False).click()
    wait_for_text(page, "#plan", "of which a token uses")
    open_fold(page, "Sizes")
    for name, value in (("n-layers", 6), ("d-model", 192)):
        page.locator(f"#{name} input[type=number]").fill(str(value))
    wait_for_text(page, ".notice", "parameters, and here it may have 3,200,000")
    page.locator("#d-model input[type=number]").fill("")
    wait_for_text(page, "#plan", "d_model is empty, so 32 is shown")
    page.locator("#source").get_by_text("a text of your own").click()
    page.locator("#own textarea").fill("too short a text")
    press(page, "Train")
    wait_for_text(page, ".notice", "the text has 16 characters and needs at least 2,000")
    settle(page)


def test_the_address_gives_the_state_and_every_control_moves_it(page, site):
    open_page(page, site, "?source=scene&block=deepseek&attention=GQA&feed_forward=moe&n_layers=2&d_model=64&n_heads=4"
                          "&context=48&batch_size=2&learning_rate=0.01&seed=7&seconds=9")
    settings = Settings("deepseek", "GQA", "moe", 2, 64, 4, 48, 2, 0.01, 7)
    wait_for_text(page, "#plan", f"{plan(settings, 9).flops_per_step:,} FLOPs")
    assert settings.name in page.locator("#plan").inner_text()
    page.get_by_role("button", name="Copy link to this state").click()
    page.wait_for_url("**seed=7**")
    assert "source=scene" in page.url and "learning_rate=0.01" in page.url and "context=48" in page.url
    page.locator("#learning-rate").get_by_text("0.1", exact=True).click()
    wait_for_text(page, "#plan", "learning rate: up to 0.1 over 20 steps")
    open_fold(page, "Sizes")
    for name, value, words in (("n-heads", 2, None), ("context", 64, "2 texts × 64 tokens"),
                               ("batch-size", 3, "3 texts × 64 tokens")):
        page.locator(f"#{name} input[type=number]").fill(str(value))
        if words:
            wait_for_text(page, "#plan", words)
    page.locator("#seconds input[type=range]").focus()
    page.keyboard.press("ArrowRight")  # by keyboard alone
    wait_for_text(page, "#plan", "so 10 seconds are")
    page.get_by_role("button", name="This config as Python").click()
    wait_for_text(page, "#python", "n_routed_experts=8")
    settle(page)


def test_a_bad_address_is_said(page, site):
    open_page(page, site, "?block=gpt9&n_layers=99&seconds=1&learning_rate=7")
    said = page.locator(".notice").inner_text()
    for part in ("block cannot be 'gpt9'", "n_layers cannot be '99' (it goes from 1 to 6)", "seconds cannot be '1'",
                 "learning_rate cannot be '7'"):
        assert part in said


def test_a_new_plan_is_quick(page, site):
    open_page(page, site)
    handle, taken = page.locator("#seconds input[type=range]"), []
    handle.focus()
    for seconds in range(61, 69):
        began = time.perf_counter()
        handle.press("ArrowRight")
        wait_for_text(page, "#plan", f"so {seconds} seconds are")
        taken.append(1000 * (time.perf_counter() - began))
    print(f"\nTraining lab: a new plan takes {statistics.median(taken):.0f} ms in the median, {max(taken):.0f} at most")
    assert statistics.median(taken) < 1000
    settle(page)


# Without a browser

def test_a_class_is_kept_short(monkeypatch):
    monkeypatch.setenv(starting.CLASS, "1")
    with starting.blocks(training_lab.TITLE) as demo:
        training_lab.build(demo)
    slider = next(b for b in demo.blocks.values() if getattr(b, "elem_id", "") == "seconds")
    assert (slider.maximum, slider.value) == (20, 20)
    assert any("your teacher has limited a run to 20" in str(getattr(b, "value", "")) for b in demo.blocks.values())
    assert training_lab.draw(*{**training_lab.START, "seconds": 60}.values())[1].startswith(
        '<p class="sentence">seconds cannot be 60, so 20 is shown.')
    with pytest.raises(ValueError, match="seconds goes from 5 to 20, and was 60"):
        training_lab.training_plan(seconds=60)
    values, said = training_lab.state(SimpleNamespace(query_params={"seconds": "60"}))
    assert values["seconds"] == 20 and "seconds cannot be '60'" in said


def test_the_option_for_a_class(monkeypatch):
    monkeypatch.setenv(starting.CLASS, "0")  # and what the option sets is undone at the end
    seen = []

    def build():
        seen.append(starting.for_a_class())
        raise ValueError("enough")

    assert starting.serve(build, "apps", "", ["--class", "--port", "7954"]) == 2
    monkeypatch.setenv(starting.CLASS, "0")
    assert starting.serve(build, "apps", "", ["--port", "7954"]) == 2 and seen == [True, False]


def test_what_programs_get():
    made = training_lab.training_plan("deepseek", "MLA", "moe", seconds=30)
    assert made["parameters"] == plan(Settings("deepseek", "MLA", "moe"), 30).parameters
    assert made["limits"]["parameters"] == 3_200_000 and made["limits"]["seconds"] == [5, 120]
    with pytest.raises(ValueError, match="n_heads 5 does not divide d_model 96"):
        training_lab.training_plan(n_heads=5)
    with pytest.raises(ValueError, match="seconds must be from 5 to 10 here, not 60"):
        training_lab.train_briefly(seconds=60)


def test_how_many_train_at_once(monkeypatch):
    for given, wanted in (("3", 3), ("0", 1), ("many", 1), ("1000", 1)):
        monkeypatch.setenv("COURSE_TRAININGS", given)
        assert training_lab.at_once() == wanted
