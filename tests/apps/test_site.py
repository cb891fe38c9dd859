"""The site as a whole: it starts, every page answers, mistakes at the start are sentences, links carry their state."""

import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from types import SimpleNamespace

import gradio as gr
import pytest
from conftest import ROOT, has_no_sideways_scroll, numbers, serve, stop, table_cells

from apps import common, home, starting
from apps import site as whole_site
from llm_core import accounting, presets
from tests.ports import free_port


def run(*arguments):
    command = [sys.executable, "-m", "apps", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_home_shows_the_way_and_leads_to_every_page(page, site):
    page.goto(site)
    page.locator("#ladder table").wait_for()
    cells = table_cells(page, "#ladder")
    assert cells["gpt2"][:4] == ["124,439,808", "124,439,808", "MHA", "36,864"]
    assert cells["deepseek-v3"][:4] == ["671,026,404,352", "37,552,282,624", "MLA", "70,272"]
    for name, (total, active, kind, cache, _) in cells.items():
        config = presets.get(name)
        counted = accounting.count_parameters(config)
        assert (numbers(total), numbers(active)) == ([counted.total], [counted.active])
        assert (kind, numbers(cache)) == (config.attention.kind, [accounting.cache_bytes_per_token(config)])
    linked = [a.get_attribute("href") for a in page.locator(".cards a").all()]
    assert linked == [p.PATH for p in whole_site.PAGES]
    page.locator(".cards a").first.click()
    page.wait_for_url(f"**{linked[0]}")
    page.locator("h1").first.wait_for()


def test_every_page_answers_and_stands_in_the_navigation_bar(page, site):
    page.goto(site)
    page.get_by_role("button", name="Home").or_(page.get_by_role("link", name="Home")).first.wait_for()
    bar = page.locator(".nav-holder").inner_text()
    for module in whole_site.PAGES:
        assert module.TITLE in bar
        with urllib.request.urlopen(site + module.PATH, timeout=10) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("width, query", [(390, ""), (390, "?__theme=dark"), (1280, "?__theme=dark")])
def test_home_on_a_phone_and_in_the_dark(new_page, site, width, query):
    page = new_page(width=width)
    page.goto(site + query)
    page.locator("#ladder table").wait_for()
    assert has_no_sideways_scroll(page)
    dark = page.evaluate("document.body.classList.contains('dark')")
    assert dark == bool(query)


def test_what_home_says_of_the_caches_is_true():
    v3, llama = (accounting.cache_bytes_per_token(presets.get(n)) for n in ("deepseek-v3", "llama-3.1-8b"))
    assert v3 < llama
    assert {name for name, _ in home.LADDER} <= set(presets.names())


def test_a_page_also_starts_alone(new_page):
    process, address = serve(module="apps.kv_cache")
    try:
        page = new_page()
        page.goto(f"{address}/?preset=gpt2&context=1k")
        page.locator(".answered").wait_for(state="attached")
        assert numbers(table_cells(page)["MHA"][1]) == [accounting.cache_bytes(presets.get("gpt2"), 1, 1024)]
        page.goto("about:blank")  # before the server goes, whose end the page would report as an error
    finally:
        stop(process)


def test_a_name_and_a_password_are_asked_for(new_page):
    process, address = serve("--auth", "class:se:cret")
    try:
        for path in ("/config", "/gradio_api/info"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(address + path)
        page = new_page()
        page.goto(address)
        assert page.get_by_role("slider").count() == 0
        page.get_by_label("username").fill("class")
        page.get_by_label("password").fill("se:cret")
        page.get_by_role("button", name="Login").click()
        page.get_by_role("link", name="KV cache").first.wait_for()
        page.goto(f"{address}/kv-cache")
        page.locator("#lines .chart.drawn").wait_for()
        page.goto("about:blank")
    finally:
        printed = stop(process)
    assert "Traceback" not in printed and "cret" not in printed


@pytest.mark.parametrize("given", ["class", "class:", ":secret", ""])
def test_half_a_password_is_not_taken_nor_repeated(given, capsys):
    assert starting.serve(lambda: pytest.fail("must not be built"), "apps", "", ["--auth", given]) == 2
    assert capsys.readouterr().err == ("--auth must be a name and a password with a colon between them, "
                                       "as in class:secret\n")


@pytest.mark.parametrize("host, auth, warns", [("0.0.0.0", None, True), ("0.0.0.0", "a:b", False),
                                               ("127.0.0.1", None, False), ("localhost", None, False)])
def test_an_open_address_is_warned_of(host, auth, warns, capsys, monkeypatch):
    launched = []
    monkeypatch.setattr(starting, "launch", lambda *given: launched.append(given[-1]))
    monkeypatch.setenv(starting.AUTH, auth) if auth else monkeypatch.delenv(starting.AUTH, raising=False)
    assert starting.serve(lambda: None, "apps", "", ["--host", host, "--port", str(free_port())]) == 0
    assert (starting.OPEN in capsys.readouterr().err) is warns
    assert launched == [("a", "b") if auth else None]


def test_a_port_in_use_is_said_in_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run("--port", str(port))
    assert ended.returncode == 2
    assert re.fullmatch(rf"cannot serve on 127.0.0.1 port {port} \(.*\); another port might do: --port {port + 1}\n",
                        ended.stderr)


@pytest.mark.parametrize("arguments, sentence", [
    (("--port", "http"), "--port must be a whole number from 1 to 65535, not 'http'"),
    (("--port", "70000"), "--port must be a whole number from 1 to 65535, not '70000'"),
    (("--port", "0"), "--port must be a whole number from 1 to 65535, not '0'"),
    (("--host", "256.1.1.1"), "'256.1.1.1' is no address of this computer; 127.0.0.1 always is"),
    (("--prot", "1"), "unrecognized arguments: --prot 1; --help shows how to call it"),
])
def test_bad_arguments_are_said_in_one_sentence(arguments, sentence, capsys):
    assert starting.serve(lambda: pytest.fail("must not be built"), "apps", "", list(arguments)) == 2
    assert capsys.readouterr().err.strip() == sentence


def test_query_parameters():
    def read(**query):
        defaults = {"n": 1, "rate": 0.5, "on": True, "kind": "a"}
        return common.read_query(SimpleNamespace(query_params=query), defaults, {"kind": ["a", "b"]}, {"n": (1, 9)})

    good = {"n": 3, "rate": 2.0, "on": False, "kind": "b"}
    assert read(n="3", rate="2", on="false", kind="b", other="x") == (good, "")
    assert read(n="3.0")[0]["n"] == 3
    bad = {"n": "10", "rate": "nan", "on": "perhaps", "kind": "c"}
    values, said = read(**bad)
    assert values == {"n": 1, "rate": 0.5, "on": True, "kind": "a"}
    assert all(f"{name} cannot be {text!r}" in said for name, text in bad.items())
    for text in ("1e999", "-1e400", "inf", "", "3.5", "9" * 50, "0x3", "\x00"):
        assert read(n=text)[0]["n"] == 1 and "n cannot be" in read(n=text)[1]
    assert common.read_query(None, {"n": 1}) == ({"n": 1}, "")
    assert common.link("/x", a=1, b="c d") == "/x?a=1&b=c+d" and common.link("") == ""


def test_values_are_brought_within_their_limits():
    limits = {"a": (1, 9), "b": (0, 2)}
    assert common.within({"a": 3, "b": 0, "c": None}, limits) == ({"a": 3, "b": 0, "c": None}, "")
    assert common.within({"a": 10, "b": None}, limits) == (
        {"a": 9, "b": 0}, "a cannot be 10, so 9 is shown. b is empty, so 0 is shown. ")
    for value in (1e308, float("inf"), 10**400):
        assert common.within({"a": value, "b": 1}, limits)[0] == {"a": 9, "b": 1}
    for value in (float("nan"), "7", [7]):
        assert common.within({"a": value, "b": 1}, limits)[0] == {"a": 1, "b": 1}


def test_errors_become_sentences_and_leave_the_rest_alone():
    @common.sentence_for(2)
    def draw(x):
        if x < 0:
            raise ValueError("x is <below> 0")
        return x, x + 1

    @common.sentence_for(1)
    def write(x):
        yield x
        raise FileNotFoundError(2, "No such file or directory", "/somewhere/model.safetensors")

    assert draw(1) == ("", 1, 2)
    said, *rest = draw(-1)
    assert "x is &lt;below&gt; 0" in said and rest == [gr.skip(), gr.skip()]
    first, last = write(1)
    assert first == ("", 1)
    assert "No such file or directory (model.safetensors)" in last[0] and "/somewhere" not in last[0]


def test_other_errors_are_not_hidden():
    @common.sentence_for(1)
    def draw():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        draw()


def test_tables_escape_and_colour():
    made = common.table(("a", "b"), [("<x>", "1")], colours={"<x>": "#123456"})
    assert "&lt;x&gt;" in made and "<x>" not in made and made.count("#123456") == 1
