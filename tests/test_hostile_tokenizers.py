"""Vocabularies that somebody broke on purpose: a tokenizer that runs, none, or a sentence; tiktoken never dies."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_core.checkpoint.tokenizer_json import read_tokenizer
from llm_core.tokenizer import load_ranks
from tests.hostile_folders import CARELESS, fill, save_small

with tempfile.TemporaryDirectory() as place:
    FILES = save_small(Path(place) / "small")
GOOD = json.loads(FILES["tokenizer.json"])
SPECIAL, MODEL = GOOD["added_tokens"][0], GOOD["model"]
TEXT = "to be, or not to be?\n 12 \x00 é 语 <|endoftext|>"


def read(place: str | Path, about: object) -> bool:
    """Whether what a tokenizer.json says can be run: then it encodes and decodes. A ValueError is a sentence."""
    text = json.dumps(about).encode("utf-8", "surrogatepass")
    folder = fill(Path(place) / "sent", {**FILES, "tokenizer.json": text})
    try:
        tokenizer = read_tokenizer(folder)
    except ValueError as problem:
        assert str(problem).startswith("sent/tokenizer.json") and len(str(problem)) < 400 and str(problem).isprintable()
        return False
    if tokenizer is None:
        return False
    ids = tokenizer.encode(TEXT)
    assert all(type(id) is int and 0 <= id < tokenizer.vocab_size for id in ids)
    assert set(tokenizer.decode(ids)) <= {*TEXT, "\ufffd"}
    assert tokenizer.end_of_text is None or 0 <= tokenizer.end_of_text < tokenizer.vocab_size
    for id in range(tokenizer.vocab_size):
        assert isinstance(tokenizer.token_bytes(id), bytes)
    return True


def model(**changes) -> dict:
    return {**GOOD, "model": {**MODEL, **changes}}


def token(*contents) -> dict:
    """Further special tokens behind the last id."""
    tokens = [{**SPECIAL, "content": content, "id": SPECIAL["id"] + 1 + i} for i, content in enumerate(contents)]
    return {**GOOD, "added_tokens": [SPECIAL, *tokens]}


VOCAB, MERGES = MODEL["vocab"], MODEL["merges"]
deep: list = []
for _ in range(400):
    deep = [deep]
FAULTS = {
    "an empty token": model(vocab={**VOCAB, "": 264}, merges=[*MERGES, ["", ""]]),
    "an empty token made of nothing": model(vocab={**VOCAB, "": 264}, merges=[*MERGES, []]),
    "half a character": model(vocab={**VOCAB, "\ud800": 264}), "half a special one": token("\ud800"),
    "an id below zero": model(vocab={**VOCAB, "a": -1}), "an id of 2^31": model(vocab={**VOCAB, "a": 2**31}),
    "an id of 2^64": model(vocab={**VOCAB, "a": 2**64}), "an id of a half": model(vocab={**VOCAB, "a": 0.5}),
    "an id that is true": model(vocab={**VOCAB, "a": True}), "an id in words": model(vocab={**VOCAB, "a": "3"}),
    "an id twice": model(vocab={**VOCAB, "a": VOCAB["b"]}), "no tokens": model(vocab={}, merges=[]),
    "tokens in a list": model(vocab=list(VOCAB)), "merges in an object": model(merges=dict.fromkeys(VOCAB)),
    "a merge of numbers": model(merges=[[1, 2]]), "a merge of what is not there": model(merges=[["zz", "z" * 10_000]]),
    "a merge of one": model(merges=[["t"]]), "merges backwards": model(merges=MERGES[::-1]),
    "a special token of a list": token([1]), "special tokens in a text": {**GOOD, "added_tokens": "abc"},
    "a special token of no name": token(""), "one without its id": {**GOOD, "added_tokens": [{"content": "<a>"}]},
    "one that ends in itself": token("<a>", "<a><a>"), "a pattern as a name": token("(a+)+$", "[", "\\", "\x00"),
    "a model of a list": {**GOOD, "model": []}, "steps of steps": {**GOOD, "pre_tokenizer": {
        "type": "Sequence", "pretokenizers": [GOOD["pre_tokenizer"]] * 3}}, "endless steps": {**GOOD, "pre_tokenizer": {
            "type": "Sequence", "pretokenizers": deep}}, "a normalizer without end": {**GOOD, "normalizer": deep},
    "nothing": {}, "a list": []}
MAY_RUN = {"a special token of no name", "one that ends in itself", "a pattern as a name"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_vocabulary_that_cannot_be_is_none_or_a_sentence(tmp_path, fault):
    assert not read(tmp_path, FAULTS[fault]) or fault in MAY_RUN


def test_the_good_one_runs(tmp_path):
    assert read(tmp_path, GOOD) and read(tmp_path, token("<a>", "<b>"))


@pytest.mark.parametrize("end", [True, -1, 10**30, "263", [], [[263]], {}, 263.0, [None, 263], 0])
def test_what_ends_a_text_is_one_of_the_special_tokens_or_the_usual_one(tmp_path, end):
    files = {**FILES, "config.json": json.dumps({**json.loads(FILES["config.json"]), "eos_token_id": end}).encode()}
    tokenizer = read_tokenizer(fill(tmp_path / "sent", files))
    assert tokenizer.end_of_text == SPECIAL["id"] and type(tokenizer.end_of_text) is int


VALUES = st.one_of(st.none(), st.booleans(), st.integers(-2, 266), st.integers(), st.floats(), st.text(max_size=4),
                   st.lists(st.text(max_size=2), max_size=3), st.sampled_from([{}, deep, GOOD, SPECIAL, VOCAB, MERGES]))


@st.composite
def vocabularies(draw) -> dict:
    """The good one with a few entries replaced, anywhere in it."""
    about = json.loads(FILES["tokenizer.json"])
    for _ in range(draw(st.integers(1, 3))):
        part = about
        while True:
            key = draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
            if not isinstance(part[key], (dict, list)) or not part[key] or draw(st.integers(0, 5)) == 0:
                break
            part = part[key]
        if isinstance(part, dict) and draw(st.booleans()):
            part[draw(st.text(max_size=3))] = part.pop(key)
        else:
            part[key] = json.loads(json.dumps(draw(VALUES)))  # a copy, as the next round may change it
    return about


@settings(max_examples=150, **CARELESS)
@given(vocabularies())
def test_any_broken_vocabulary_runs_or_does_not(about):
    with tempfile.TemporaryDirectory() as place:
        read(place, about)


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=5000, **CARELESS)
@given(vocabularies())
def test_any_broken_vocabulary_runs_or_does_not_for_long(about):
    with tempfile.TemporaryDirectory() as place:
        read(place, about)


@settings(max_examples=100, **CARELESS)
@given(st.binary(max_size=60) | st.lists(st.sampled_from([
    b"YQ== 0", b"Yg== 1", b"Yw== 2", b"YQ== 1", b"!! 1", b"YQ==", b"YQ== -1", b"YQ== " + b"9" * 5000, b" ",
    b"\xff"])).map(b"\n".join))
def test_a_file_of_ranks_is_a_vocabulary_or_a_sentence(text):
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "a.tiktoken").write_bytes(text)
        try:
            ranks = load_ranks(Path(place) / "a.tiktoken")
        except ValueError as problem:
            assert str(problem).startswith("a.tiktoken is damaged")
        else:
            assert sorted(ranks.values()) == list(range(len(ranks)))
