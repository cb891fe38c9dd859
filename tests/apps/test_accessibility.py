"""Every page for everybody: axe-core finds nothing serious, the keyboard reaches all, no width scrolls sideways."""

from pathlib import Path

import axe_playwright_python
import pytest
from conftest import CHANGED, has_no_sideways_scroll, open_and_wait, settle, slider_that_tells

from apps import home
from apps import site as whole_site

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
EVERY = pytest.mark.parametrize("module", [home, *whole_site.PAGES], ids=lambda module: module.PATH)

# Gradio's own, which a page's theme or css cannot mend: (axe's rule, part of the element's selector) -> why.
NOT_OURS: dict[tuple[str, str], str] = {}

# What the keyboard should reach, as JavaScript. Asked anew at each step, since a page may draw a part of itself anew.
STOPS = """() => [...document.querySelector('.gradio-container').querySelectorAll(
    "a[href], button, input, select, textarea, [tabindex='0']")].filter(
        e => e.checkVisibility({visibilityProperty: true}) && !e.disabled && e.tabIndex >= 0)"""


def open_page(page, site, module):
    open_and_wait(page, site, module.PATH)
    # Colours that fade are measured at their end.
    page.add_style_tag(content="* { transition: none !important; animation: none !important; }")


def findings(page) -> list[str]:
    """What axe-core calls serious or critical, but for NOT_OURS."""
    if not page.evaluate("'axe' in window"):
        page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [f"{rule['id']} ({rule['help']}): {' '.join(node['target'])}: {node['failureSummary']}"
            for rule in found if rule["impact"] in ("serious", "critical") for node in rule["nodes"]
            if not any(rule["id"] == known and part in " ".join(node["target"]) for known, part in NOT_OURS)]


WHITE_PAPERS = """() => [...document.querySelectorAll('.chart.drawn .main-svg')].map(e => e.style.background)
    .filter(paper => paper && paper !== 'none' && !/, 0\\)|transparent/.test(paper))"""


@EVERY
def test_axe_finds_nothing_serious_in_light_and_dark_and_nothing_scrolls_sideways(new_page, site, module):
    page = new_page(width=1440)
    open_page(page, site, module)
    page.evaluate("document.querySelectorAll('button.label-wrap:not(.open)').forEach(fold => fold.click())")
    assert has_no_sideways_scroll(page)
    assert findings(page) == []
    assert page.evaluate(WHITE_PAPERS) == []  # charts let the page's own colour through
    page.evaluate("document.body.classList.add('dark')")  # as Gradio does for ?__theme=dark
    assert findings(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(300)
    assert has_no_sideways_scroll(page)
    assert findings(page) == []


def test_axe_can_fail(page, site):
    page.goto(site)
    page.locator("h1").first.wait_for()
    page.evaluate("document.querySelector('h1').insertAdjacentHTML('afterend', "
                  "'<p style=\"color: #bbb; background: #fff\">pale</p><img src=\"data:,\"><button></button>')")
    said = " ".join(findings(page))
    assert "color-contrast" in said and "image-alt" in said and "button-name" in said


@EVERY
def test_the_keyboard_reaches_every_control_and_shows_where_it_is(new_page, site, module):
    page = new_page(width=1440)
    open_page(page, site, module)
    wanted = page.evaluate(f"({STOPS})().map(e => e.outerHTML.slice(0, 120))")
    reached, unseen = set(), []
    for _ in range(len(wanted) + 20):
        page.keyboard.press("Tab")
        stop, html, outlined = page.evaluate(f"""() => {{
            const at = document.activeElement, style = getComputedStyle(at);
            return [({STOPS})().indexOf(at), at.outerHTML.slice(0, 120),
                    style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];
        }}""")
        reached.add(stop)
        if stop >= 0 and not outlined:
            unseen.append(html)
    assert [html for stop, html in enumerate(wanted) if stop not in reached] == []
    assert unseen == []


@pytest.mark.parametrize("module", whole_site.PAGES, ids=lambda module: module.PATH)
def test_a_slider_moved_by_arrow_keys_changes_what_the_page_says(new_page, site, module):
    page = new_page(width=1440)
    open_page(page, site, module)
    control, _, said = slider_that_tells(page)
    if control is None:  # a page without sliders: one of its choices
        page.locator("input[type=radio]:visible").nth(1).press("Space")
    page.wait_for_function(CHANGED, arg=said)
    settle(page)
