"""The page of figures that do not come out, in a real browser, against the figures themselves."""

import pytest
from conftest import has_no_sideways_scroll, settle, table_cells, wait_for_text

from apps import wrong_elsewhere as page_module
from llm_core.accounting import wrong_elsewhere

FIGURES = wrong_elsewhere.figures()


def opened(page, site, query=""):
    page.goto(f"{site}{page_module.PATH}{query}")
    page.locator("#chart .main-svg").first.wait_for()
    page.locator(".answered, .notice").first.wait_for(state="attached")
    return page


def shown(page, figure):
    """Whether the page shows this figure: its sum, both bars, the link to its model."""
    wait_for_text(page, "#text", figure.claim)  # two figures may have one reason
    text = page.locator("#text").inner_text()
    assert all(line in text for line in figure.arithmetic)
    page.wait_for_function("t => document.querySelector('#chart').textContent.includes(t)",
                           arg=figure.shown(figure.exact))
    assert figure.shown(figure.said) in page.locator("#chart").text_content()
    assert page.locator("#model a").get_attribute("href") == f"/architecture?preset={figure.preset}"


def test_each_choice_shows_its_arithmetic(page, site):
    opened(page, site)
    shown(page, wrong_elsewhere.get(page_module.START))
    for figure in FIGURES[1:]:
        page.get_by_label(figure.claim, exact=True).check()
        shown(page, figure)
    cells = table_cells(page)
    assert list(cells) == [figure.claim for figure in FIGURES]
    assert all(cells[f.claim] == [f.shown(f.said), f.shown(f.exact), f.where] for f in FIGURES)
    settle(page)


def test_a_link_opens_a_figure_and_a_wrong_one_says_so(page, site):
    shown(opened(page, site, "?figure=as-mha"), wrong_elsewhere.get("as-mha"))
    assert page.get_by_label(wrong_elsewhere.get("as-mha").claim, exact=True).is_checked()
    settle(page)
    opened(page, site, "?figure=v4")
    assert "figure cannot be 'v4' and was set to v2-cache" in page.locator(".notice").inner_text()
    settle(page)


@pytest.mark.parametrize("width, query", [(390, ""), (390, "?__theme=dark"), (1440, "?__theme=dark")])
def test_on_a_phone_and_in_the_dark(new_page, site, width, query):
    page = opened(new_page(width=width), site, query)
    assert has_no_sideways_scroll(page)
    settle(page)


def test_by_keyboard_alone(page, site):
    opened(page, site)
    page.get_by_label(FIGURES[0].claim, exact=True).focus()
    page.keyboard.press("Tab")  # each choice is a stop of its own in Gradio's radio
    page.keyboard.press("Space")
    shown(page, FIGURES[1])
    settle(page)
