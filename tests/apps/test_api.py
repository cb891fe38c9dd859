"""The site's functions for programs, called as a program would: over Gradio's API, and as tools of MCP."""

import asyncio
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import ROOT, serve, stop
from gradio_client import Client
from gradio_client.exceptions import AppError

from apps import endpoints, home, starting
from apps import site as whole_site
from llm_core import accounting, grid, load_pretrained, presets, pretrained
from llm_core.accounting import wrong_elsewhere
from llm_core.sampling import Sampler

FUNCTIONS = endpoints.functions(whole_site.offering())
EACH = pytest.mark.parametrize("name", FUNCTIONS)


@pytest.fixture(scope="module")
def client(site):
    return Client(site, verbose=False)


def test_the_endpoints_are_those_of_the_pages(client):
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert list(named) == [f"/{name}" for name in FUNCTIONS]
    for name, about in named.items():
        assert about["description"].startswith(FUNCTIONS[name[1:]].__doc__.splitlines()[0])
        assert all(parameter["parameter_has_default"] for parameter in about["parameters"]), name


def alike(one, other) -> bool:
    """Equal, but for the last digits of a model's floats, which depend on the number of threads."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, (int, float)):
        return one == pytest.approx(other, rel=1e-3, abs=1e-6)
    return one == other


@EACH
def test_every_endpoint_answers_with_its_defaults(client, name):
    """What comes over the wire is what the function says itself."""
    answer, own = client.predict(api_name=f"/{name}"), json.loads(json.dumps(FUNCTIONS[name]()))
    if name == "train_briefly":  # how far it comes in its seconds is another number each time
        assert answer.keys() == own.keys()
    else:
        assert alike(answer, own)


@EACH
def test_a_wrong_value_is_answered_with_a_sentence(client, name):
    parameters = client.view_api(return_format="dict", print_info=False)["named_endpoints"][f"/{name}"]["parameters"]
    for parameter in parameters:
        wanted = parameter["parameter_name"]
        with pytest.raises(AppError, match=rf"^(each of )?{wanted} must be .*, not \["):
            client.predict(**{wanted: [[]]}, api_name=f"/{name}")


@pytest.mark.parametrize("name, given, sentence", [
    ("count_parameters", {"preset": "deepseek-v9"}, "no preset is called 'deepseek-v9'; nearest: deepseek-v"),
    ("count_parameters", {"changes": {"n_head": 3}}, "this model has no field 'n_head' to change; it has"),
    ("count_parameters", {"changes": {"n_layers": 2.5}}, "n_layers must be a whole number of at least 1, not 2.5"),
    ("kv_cache", {"context": "a lot"}, "a number of tokens is written like 4096, 128k or 1M"),
    ("kv_cache", {"batch": 0}, "batch must be a whole number of at least 1, not 0"),
    ("kv_cache", {"batch": 10**16, "context": 10**9}, "a number in the answer is larger than 2^63"),
    ("next_tokens", {"prompt": ""}, "the prompt is empty"),
    ("next_tokens", {"model": "../../etc"}, "model must be one of gpt-mini, deepseek-mini"),
    ("next_tokens", {"temperature": -1}, "temperature must be"),
    ("write_text", {"tokens": 100_000}, "tokens must be from 1 to 200, not 100000"),
    ("follow_token", {"token": 5}, "token must be from 0 to 4, not 5"),
    ("follow_token", {"sentence": "word " * 400}, "the context of gpt-mini holds 256"),
    ("trained_model", {"width": 25}, "width cannot be 25"),
    ("published_figure", {"name": "x"}, "no figure is called 'x'; there are v2-cache"),
])
def test_what_cannot_be_is_said(client, name, given, sentence):
    with pytest.raises(AppError) as told:
        client.predict(**given, api_name=f"/{name}")
    assert sentence in str(told.value)


def over_http(site, name, data) -> str:
    """As curl does it: the arguments in, the answer in a second step."""
    asked = urllib.request.Request(f"{site}/gradio_api/call/{name}", json.dumps({"data": data}).encode(),
                                   {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as told:
        event = json.load(told)["event_id"]
    with urllib.request.urlopen(f"{site}/gradio_api/call/{name}/{event}", timeout=60) as told:
        return told.read().decode()


def test_plain_http_may_leave_out_the_last_arguments(site):
    whole = over_http(site, "kv_cache", ["gpt2", "1k", 1, 16])
    assert whole.startswith("event: complete") and '"MHA": 37748736' in whole
    assert over_http(site, "kv_cache", ["gpt2", "1k"]) == whole
    assert "nearest: gpt2" in over_http(site, "kv_cache", ["gpt9"])
    assert "wrong_elsewhere got 0 of its 1 values" in over_http(site, "wrong_elsewhere", [])  # an event of a page


def test_figures_are_those_of_llm_core(client):
    v3 = presets.get("deepseek-v3")
    counted = client.predict(api_name="/count_parameters")
    assert (counted["total"], counted["active"], counted["mtp"]) == (671026404352, 37552282624, 11610067968)
    assert sum(counted["by_part"].values()) == counted["total"]
    assert type(v3).from_dict(counted["config"]) == v3
    smaller = client.predict(changes={"n_layers": 30, "kv_lora_rank": 256}, api_name="/count_parameters")
    wanted = v3.replace(n_layers=30, attention=v3.attention.replace(kv_lora_rank=256))
    assert smaller["total"] == accounting.count_parameters(wanted).total
    assert smaller["cache_bytes_per_token"] == accounting.cache_bytes_per_token(wanted)

    cache = client.predict(preset="gpt2", context=1000, batch=3, bits=8, api_name="/kv_cache")
    assert cache["bytes"]["MHA"] == accounting.cache_bytes(presets.get("gpt2"), 3, 1000, 8) == 3 * 1000 * 12 * 2 * 768
    models = client.predict(api_name="/list_models")["models"]
    assert {name: about["total"] for name, about in models.items()} == {
        name: accounting.count_parameters(presets.get(name)).total for name in presets.names()}
    shown = client.predict(name="gpt3-xl", api_name="/published_figure")
    assert shown["exact"] == wrong_elsewhere.get("gpt3-xl").exact
    point = grid.Point(48, 3, "GQA")
    tried = client.predict(48, 3, "GQA", api_name="/trained_model")
    assert tried["bits_per_byte"] == pretrained.card(point.name)["bits_per_byte"]
    assert tried["parameters"] == sum(p.numel() for p in load_pretrained(point.name)[0].parameters())


def test_what_models_say_is_what_they_say_here(client):
    model, tokenizer = load_pretrained("gpt-mini")
    logits = model(torch.tensor([tokenizer.encode("The king")])).logits[0, -1]
    likeliest = Sampler(1.0).probabilities(logits[None])[0].topk(10)
    told = client.predict("gpt-mini", "The king", 1.0, None, api_name="/next_tokens")
    assert [c["id"] for c in told["candidates"]] == likeliest.indices.tolist()
    assert [c["own"] for c in told["candidates"]] == pytest.approx(likeliest.values.tolist(), rel=1e-4)
    assert all(c["own"] == c["drawn_with"] for c in told["candidates"])
    path = client.predict("gpt-mini", "The king", api_name="/follow_token")
    assert len(path["guesses"]) == model.config.n_layers + 1 and path["token"] == len(path["ids"]) - 1
    assert path["guesses"][-1]["text"] == told["candidates"][0]["text"]
    assert path["guesses"][-1]["probability"] == pytest.approx(told["candidates"][0]["own"], rel=1e-4)
    text = client.predict("gpt-mini", "The king", 5, 0.0, api_name="/write_text")
    assert text["tokens"] == 5 and text["text"].startswith(told["candidates"][0]["text"])


def test_values_are_taken_as_what_they_are_meant_to_be():
    fitting = endpoints.fitting
    assert fitting("n", 3.0, int) == 3 and type(fitting("n", 3.0, int)) is int
    assert type(fitting("x", 3, float)) is float and fitting("n", None, int | None) is None
    assert fitting("c", "128k", int | str) == "128k" and fitting("c", 5, int | str) == 5
    assert fitting("l", [1.0], list[int]) == [1] and fitting("l", [[]], list) == [[]]
    with pytest.raises(ValueError, match="^each of l must be a text, not 1$"):
        fitting("l", ["a", 1], list[str])
    for value, hint in ((True, int), (2.5, int), ("3", int), (None, int), (1, bool), (1, str), ([], dict)):
        with pytest.raises(ValueError, match="^n must be (a|an|true)"):
            fitting("n", value, hint)


def test_a_function_without_types_is_refused():
    def bare(n=1) -> dict:
        return {}

    with pytest.raises(ValueError, match="bare's argument n needs a type"):
        endpoints.endpoint(bare)


def test_two_functions_of_one_name_are_refused():
    class Other:
        API = (lambda: {},)

    Other.API[0].__name__ = "list_models"
    with pytest.raises(ValueError, match="two pages offer a function 'list_models'"):
        endpoints.functions([home, Other])


def test_the_readme_lists_the_endpoints_as_they_are():
    readme = (ROOT / "apps" / "README.md").read_text(encoding="utf-8")
    block = readme.split(endpoints.START)[1].split(endpoints.END)[0]
    assert block.strip() == endpoints.described(FUNCTIONS).strip(), "python -m apps.endpoints writes it anew"


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(starting, "find_spec", lambda name: None)
    never = lambda: pytest.fail("must not be built")  # noqa: E731
    assert starting.serve(never, "apps", "", ["--mcp"], offers_mcp=True) == 2
    assert "--mcp needs the package mcp, which is not installed" in capsys.readouterr().err
    assert starting.serve(never, "apps.kv_cache", "", ["--mcp"]) == 2  # a page alone offers none


def test_the_same_functions_are_tools_of_mcp():
    pytest.importorskip("mcp", reason="the optional package mcp is not installed")
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def talk(address):
        async with streamable_http_client(f"{address}/gradio_api/mcp/") as (read, write, _), \
                ClientSession(read, write) as session:
            await session.initialize()
            tools = (await session.list_tools()).tools
            good = await session.call_tool("count_parameters", {"preset": "gpt2"})
            bad = await session.call_tool("kv_cache", {"preset": "gpt9"})
            return tools, good, bad

    process, address = serve("--mcp")
    try:
        with ThreadPoolExecutor() as apart:  # the browser of other tests has an event loop in this thread
            tools, good, bad = apart.submit(asyncio.run, talk(address)).result()
    finally:
        printed = stop(process)
    assert [tool.name for tool in tools] == list(FUNCTIONS)
    assert all(tool.description for tool in tools)
    assert not good.isError and json.loads(good.content[0].text)["total"] == 124439808
    assert bad.isError and bad.content[0].text == "no preset is called 'gpt9'; nearest: gpt2"
    assert "Traceback" not in printed, printed[-3000:]
