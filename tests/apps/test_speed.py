"""How long each page takes in the browser: opened cold and warm, and drawn anew. Printed (pytest -s); asserted loosely.

Aims: 3 s cold, 1 s warm, 250 ms for a redraw, on a quiet machine of two cores.
"""

import statistics

import pytest
from conftest import ARGUMENTS, TIMEOUT_MS, chromium_path, knowing_what_runs, open_and_wait, settle, slider_that_tells

from apps import home
from apps import site as whole_site

TOO_LONG = 60  # seconds; a busy machine takes ten times as long as a quiet one


WHEN = """addEventListener("DOMContentLoaded", () => {
    window.readable = window.lastChange = 0;
    new MutationObserver(() => {
        window.lastChange = performance.now();
        if (document.querySelector("h1")?.checkVisibility()) window.readable ||= performance.now();
    }).observe(document.body, {subtree: true, childList: true, characterData: true});
})"""


def seconds_to_open(context, site, path) -> tuple[float, float]:
    """From the request until its text and controls stand there; and until nothing changes any more: all is drawn."""
    page = knowing_what_runs(context.new_page())
    page.add_init_script(WHEN)
    open_and_wait(page, site, path)
    taken = page.evaluate("[window.readable / 1000, window.lastChange / 1000]")
    page.close()
    return tuple(taken)


@pytest.mark.parametrize("module", [home, *whole_site.PAGES], ids=lambda module: module.PATH)
def test_a_page_opens_quickly(chromium, site, module, tmp_path):
    """In a profile of its own, as a learner's browser has one: there Chromium keeps compiled scripts from the third
    opening on, which it does not in the nameless contexts of the other tests."""
    context = chromium.browser.browser_type.launch_persistent_context(
        tmp_path, executable_path=chromium_path(), args=ARGUMENTS)
    context.set_default_timeout(TIMEOUT_MS)
    try:
        cold, _, *warm = (seconds_to_open(context, site, module.PATH) for _ in range(4))
    finally:
        context.close()
    text, drawn = (statistics.median(seconds) for seconds in zip(*warm))
    print(f"\n{module.TITLE}: text after {cold[0]:.1f} s, all drawn after {cold[1]:.1f} s cold; "
          f"{text:.1f} and {drawn:.1f} s warm")
    assert max(cold[1], drawn) < TOO_LONG


@pytest.mark.parametrize("module", whole_site.PAGES, ids=lambda module: module.PATH)
def test_a_page_is_drawn_anew_quickly(page, site, module):
    open_and_wait(page, site, module.PATH)
    control, key, _ = slider_that_tells(page)
    if control is None:
        pytest.skip(f"{module.TITLE} has no slider")
    taken = []
    for press in (key, {"ArrowLeft": "ArrowRight", "ArrowRight": "ArrowLeft"}[key]) * 3:
        settle(page)
        control.evaluate("""control => {
            const all = document.querySelector('.gradio-container'), before = all.textContent;
            window.taken = null;
            control.addEventListener('input', () => { window.began = performance.now(); }, {once: true});
            new MutationObserver((_, watcher) => {
                if (all.textContent === before) return;
                watcher.disconnect();
                requestAnimationFrame(() => { window.taken = performance.now() - window.began; });
            }).observe(all, {subtree: true, childList: true, characterData: true});
        }""")
        control.press(press)
        page.wait_for_function("window.taken !== null")
        taken.append(page.evaluate("window.taken"))
    settle(page)
    print(f"\n{module.TITLE}: a redraw takes {statistics.median(taken):.0f} ms in the median, {max(taken):.0f} at most")
    assert statistics.median(taken) < 1000 * TOO_LONG
