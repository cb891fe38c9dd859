"""The lessons' links into the site: each leads to a page, in a state that the page knows, and no page is forgotten."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlsplit

import pytest
from conftest import settle

from apps import mla_shrink, moe_balance, moe_sizes, moe_text, rope_state, site

COURSE = Path(__file__).resolve().parents[2] / "course"
PAGES = {page.PATH: page for page in site.PAGES}
LINKS = sorted({link for path in COURSE.glob("*/*.ipynb") for cell in json.loads(path.read_text("utf-8"))["cells"]
                for link in re.findall(r"\]\(http://127\.0\.0\.1:7860([^)\s]*)\)", "".join(cell["source"]))})


def parts_of(path: str) -> list:
    """The modules that read the address of this page."""
    more = {"/mla": [mla_shrink], "/moe": [moe_sizes, moe_text, moe_balance], "/rope": [rope_state]}
    return [PAGES[path], *more.get(path, [])]


def test_lessons_link_to_every_page():
    assert {urlsplit(link).path for link in LINKS} == set(PAGES)


@pytest.mark.parametrize("link", LINKS)
def test_a_lessons_link_says_nothing_that_its_page_does_not_know(link):
    address = urlsplit(link)
    query = dict(parse_qsl(address.query, strict_parsing=True)) if address.query else {}
    readers = [part.state for part in parts_of(address.path) if hasattr(part, "state")]
    known = set()
    for read in readers:
        *values, problem = read(SimpleNamespace(query_params=query))
        assert problem == ""
        known |= {name for some in values for name in some}
    for part in parts_of(address.path):  # the parts of a page that compute only when they are looked at
        known |= set(part.START) if isinstance(getattr(part, "START", None), dict) else set()
    if readers:
        assert set(query) <= known | {"tab"}


@pytest.mark.parametrize("link", [link for link in LINKS if link.startswith(("/moe?tab", "/wrong"))])
def test_a_lessons_link_opens_without_a_remark(page, site, link):
    """For pages that read their address only when they are opened."""
    page.goto(site + link)
    page.locator(".answered").first.wait_for(state="attached")
    assert page.locator(".notice").all_inner_texts() == []
    settle(page)
