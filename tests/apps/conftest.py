"""The whole site as its own process, and a real Chromium that looks at it. Nothing outside 127.0.0.1 may be asked."""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from apps import writing
from llm_core import pretrained
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync"]
TIMEOUT_MS = 15_000


def chromium_path() -> str | None:
    """A Chromium that is already installed, wherever the system keeps it; or the one that CHROMIUM names."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
             "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
             r"C:\Program Files\Google\Chrome\Application\chrome.exe")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def serve(*arguments: str, module: str = "apps") -> tuple[subprocess.Popen, str]:
    """Start the site (or one page) and wait until it answers. The caller ends the process."""
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([sys.executable, "-m", module, "--port", str(port), *arguments], cwd=ROOT,
                               env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    address = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 180  # far more than it takes, also on a machine that is busy
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return process, address
        except OSError:
            time.sleep(0.2)
    process.kill()
    pytest.fail(f"the site did not start: {process.communicate()[0][-3000:]}")


def stop(process: subprocess.Popen) -> str:
    """End it by its own id; what it printed comes back."""
    process.terminate()
    try:
        return process.communicate(timeout=10)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


@pytest.fixture(scope="session")
def site():
    """The address of the running site. Its log must hold no traceback at the end."""
    process, address = serve()
    yield address
    printed = stop(process)
    assert "Traceback" not in printed, printed[-3000:]


@pytest.fixture(scope="session")
def chromium():
    path = chromium_path()
    if path is None:
        sentence = "no Chromium is installed, so the site was not looked at (Debian: apt-get install chromium)"
        pytest.fail(sentence) if os.environ.get("CI", "").lower() == "true" else pytest.skip(sentence)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        context = browser.new_context()  # one for all tests: the site's scripts are read and compiled once
        context.set_default_timeout(TIMEOUT_MS)
        yield context
        browser.close()


@pytest.fixture
def new_page(chromium):
    """A function that opens a fresh tab: new_page(width=1280, height=900). At the test's end: no error in the browser's
    console, no request to another host."""
    pages, errors, outside = [], [], set()

    def watch(request):
        place = urlsplit(request.url)
        if place.scheme not in ("data", "blob") and place.hostname != "127.0.0.1":
            outside.add(request.url)

    def note(page, text: str):
        # Gradio complains of the stream of events that the browser cuts when a page is left.
        if not (page.leaving and ("AbortError" in text or "Connection errored out" in text)):
            errors.append(text)

    def opened(width: int = 1280, height: int = 900):
        page = knowing_what_runs(chromium.new_page())
        pages.append(page)
        page.set_viewport_size({"width": width, "height": height})
        page.on("request", watch)
        page.on("console", lambda message: message.type == "error" and note(
            page, f"{message.text} ({message.location.get('url', '')})"))
        page.on("pageerror", lambda error: note(page, f"{error.name}: {error}\n{error.stack}"))
        return page

    yield opened
    for page in pages:
        page.leaving = True
        page.close()
    assert not outside, f"asked outside: {sorted(outside)}"
    assert not errors, f"errors in the browser: {errors}"


def knowing_what_runs(page):
    """Let a page keep its requests under way in page.running: its events come over one of them as long as any runs.

    And know in page.leaving whether it is on its way elsewhere. Before that it lets its events end: what a page that
    is being left still answers is no matter of a test's.
    """
    page.running, page.leaving = set(), False

    def asked(request):
        page.running.add(request)
        if request.is_navigation_request() and request.frame == page.main_frame:
            page.leaving = True

    def after_settling(go):
        def gone(*arguments, **options):
            if page.url != "about:blank":
                settle(page)
            return go(*arguments, **options)
        return gone

    page.goto, page.reload, page.go_back = map(after_settling, (page.goto, page.reload, page.go_back))
    page.on("request", asked)
    page.on("domcontentloaded", lambda: setattr(page, "leaving", False))
    page.on("requestfinished", lambda request: page.running.discard(request))
    page.on("requestfailed", lambda request: page.running.discard(request))
    return page


@pytest.fixture
def page(new_page):
    return new_page()


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """As if no trained model had been shipped, for this process."""
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    writing.forget()
    yield tmp_path
    writing.forget()


def numbers(text: str) -> list[int]:
    """Every whole number in a text, thousands separators taken out: "1,234 of 5" -> [1234, 5]."""
    return [int(match.replace(",", "")) for match in re.findall(r"\d[\d,]*", text)]


def table_cells(page, selector: str = "#table") -> dict[str, list[str]]:
    """A table on the page: the first cell of each row -> its other cells."""
    rows = page.evaluate("s => [...document.querySelectorAll(`${s} tbody tr`)].map("
                         "row => [...row.cells].map(cell => cell.innerText.trim()))", selector)
    return {first: rest for first, *rest in rows}


def has_no_sideways_scroll(page) -> bool:
    # Gradio's container may hide what sticks out, so each block is asked too; tables scroll within themselves.
    return page.evaluate("""() => {
        const width = document.documentElement.clientWidth;
        const blocks = [".block", ".table", ".main-svg", "p", "h1"].map(s => ".gradio-container " + s).join();
        const wide = [...document.querySelectorAll(blocks)]
            .filter(e => !e.parentElement.closest(".table") && e.getBoundingClientRect().right > width + 1);
        return document.documentElement.scrollWidth <= width && wide.length === 0;
    }""")


def wait_for_text(page, selector: str, text: str) -> None:
    """Until some element at the selector holds the text."""
    page.wait_for_function(
        "([s, t]) => [...document.querySelectorAll(s)].some(e => e.innerText.includes(t))", arg=[selector, text])


def drag(page, selector: str, share: float) -> None:
    """Drag a slider's handle with the mouse to a share of its way, 0 to 1, over a few steps in between."""
    slider = page.locator(f"{selector} input[type=range]")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    value, least, most = slider.evaluate("e => [e.value, e.min, e.max].map(Number)")
    middle = box["y"] + box["height"] / 2
    start = box["x"] + 8 + (box["width"] - 16) * (value - least) / (most - least)
    page.mouse.move(start, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + (box["width"] - 1) * share, middle, steps=8)
    page.mouse.up()


def redraw_milliseconds(page, slider: str, chart: str, table: str, keys: list[str]) -> list[float]:
    """For each key pressed on a slider: the time until the chart was drawn anew and the table's text had changed."""
    handle, taken = page.locator(f"{slider} input[type=range]"), []
    handle.focus()
    for key in keys:
        page.evaluate("""([slider, chart, table]) => {
            const plot = document.querySelector(`${chart} .js-plotly-plot`);
            const shown = document.querySelector(table), before = shown.innerText;
            window.taken = null;
            let drawn = false, start = 0;
            document.querySelector(slider).addEventListener(
                "input", () => { start = performance.now(); }, {once: true});
            const watcher = new MutationObserver(changes => {
                drawn ||= changes.some(c => plot.contains(c.target));
                if (!start || !drawn || shown.innerText === before) return;
                watcher.disconnect();
                requestAnimationFrame(() => { window.taken = performance.now() - start; });
            });
            for (const place of [chart, table])
                watcher.observe(document.querySelector(place),
                                {subtree: true, childList: true, characterData: true, attributes: true});
        }""", [f"{slider} input[type=range]", chart, table])
        handle.press(key)
        page.wait_for_function("window.taken !== null")
        taken.append(page.evaluate("window.taken"))
    return taken


def choose(page, dropdown: str, name: str) -> None:
    """Pick an entry of one dropdown, whose list may still be closing when the next one opens."""
    page.locator(f"{dropdown} input").click()
    page.locator(dropdown).get_by_role("option", name=name, exact=True).click()


def open_fold(page, name: str) -> None:
    """Open a fold by its title. Its controls are made when it opens, and listen a moment later."""
    page.get_by_role("button", name=name).click()
    page.wait_for_timeout(500)


def settle(page, quiet_ms: int = 300) -> None:
    """Wait until no event runs any more: leaving a page while one does is an error in the browser's console."""
    quiet, end = 0, time.monotonic() + TIMEOUT_MS / 1000
    while quiet < quiet_ms and time.monotonic() < end:
        page.wait_for_timeout(50)
        quiet = 0 if any("/queue/" in request.url for request in page.running) else quiet + 50


def open_and_wait(page, site: str, path: str) -> None:
    """Open any page of the site, until it has read its address and all its charts are there."""
    page.goto(site + path)
    page.locator("h1").first.wait_for()
    if path != "/":  # home has nothing to read
        page.locator(".answered, .notice").first.wait_for(state="attached")
    settle(page, quiet_ms=500)
    page.wait_for_function("![...document.querySelectorAll('.chart:not(.drawn, .empty)')].some(e => "
                           "e.checkVisibility())")


CHANGED = "said => document.querySelector('.gradio-container').innerText !== said"


def slider_that_tells(page):
    """Move the page's sliders by an arrow key, one after another, until the page's text changes: (slider, key, the text
    before). Whoever wants to be sure waits on with CHANGED. (None, "", the text) for a page without sliders."""
    said = page.evaluate("document.querySelector('.gradio-container').innerText")
    moved = None, "", said
    for slider in page.locator("input[type=range]:visible:enabled").all():
        key = "ArrowLeft" if slider.evaluate("e => e.value === e.max") else "ArrowRight"
        slider.focus()
        page.keyboard.press(key)
        moved = slider, key, said
        page.wait_for_timeout(700)
        if page.evaluate(CHANGED, said):
            break
    return moved
