"""Hostile input: whatever a program sends to the site's functions, it gets a right answer or a sentence, soon.

500 calls in the ordinary tests; `make test-long` makes 20,000 (marked long).
"""

import inspect
import json
import math
import resource
import time

import gradio as gr
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps import site
from apps.endpoints import endpoint, functions
from llm_core import presets
from llm_core.hf_config import to_hf

FUNCTIONS = {name: endpoint(function) for name, function in functions(site.offering()).items()}
RUN_A_MODEL = {"train_briefly"}  # bounded by its own seconds, which are many

DEFAULTS = {p.default for f in FUNCTIONS.values() for p in inspect.signature(f).parameters.values()
            if isinstance(p.default, str)}
V3 = to_hf(presets.get("deepseek-v3"))
CONFIGS = st.one_of(
    st.sampled_from(["{}", "[" * 5000, '{"a":' * 2000, '{"num_hidden_layers": 1000000000}', '{"hidden_size": "512"}']),
    st.builds(lambda key, value: json.dumps(V3 | {key: value}), st.sampled_from(sorted(V3)),
              st.sampled_from([0, -1, 10**9, 10**30, 10**400, 0.5, "512", None, [], {}, True, 2, 64])))
TEXTS = st.one_of(
    st.sampled_from(sorted({*DEFAULTS, *presets.names()})), CONFIGS, st.text(max_size=80),
    st.sampled_from(["", " ", "<|endoftext|>", "<|im_start|>system", "\u202eright to left", "👩‍👩‍👧‍👦", "\x00\x1b[2J",
                     "../../etc/passwd", "NaN", "1e999", "-1", "\ud800", "a" * 1_000_000, "1, nan, -inf, 1e39"]))
WHOLE = st.one_of(st.integers(0, 20), st.integers(), st.sampled_from(
    [64, 128, 4096, 2**31, 2**53, 2**63, 2**64, -2**63, 10**9, 10**12, 10**30, 10**400]))
NUMBERS = st.one_of(WHOLE, st.floats(0, 3), st.floats(), st.sampled_from(
    [-0.0, 1e308, 1e-320, math.nan, math.inf, -math.inf, True, False]))
BY_TYPE = {int: WHOLE, float: NUMBERS, str: TEXTS, bool: st.booleans()}
VALUES = st.recursive(st.one_of(st.none(), TEXTS, NUMBERS), lambda inner: st.one_of(
    st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)), max_leaves=8)


@st.composite
def calls(draw):
    """A function and its arguments: most as they are by default, some hostile."""
    name = draw(st.sampled_from(sorted(FUNCTIONS.keys() - RUN_A_MODEL)))
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    hostile = draw(st.sets(st.integers(0, max(len(parameters) - 1, 0)), min_size=1, max_size=3))
    of_type = draw(st.integers(0, 9)) > 0  # a value of the right type gets further in
    return name, [draw(BY_TYPE.get(p.annotation, VALUES) if of_type else VALUES)
                  if i in hostile or p.default is inspect.Parameter.empty else p.default
                  for i, p in enumerate(parameters)]


def answers_or_says(call) -> None:
    name, values = call
    began = time.monotonic()
    try:
        answer = FUNCTIONS[name](*values)
    except gr.Error as refused:
        said = refused.message
        assert 10 < len(said) < 1500 and "Traceback" not in said, said[:300]
    else:
        assert isinstance(answer, dict) and answer
        json.dumps(answer)
    assert time.monotonic() - began < 60


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}


def test_any_values():
    before = []

    @settings(max_examples=500, **SLOW)
    @given(calls())
    def run(call):
        answers_or_says(call)
        before.append(memory())

    run()
    assert before[-1] - before[len(before) // 2] < 500e6


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=20_000, **SLOW)
@given(calls())
def test_any_values_for_long(call):
    answers_or_says(call)
