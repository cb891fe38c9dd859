"""Configs that somebody broke on purpose: each is a model that can be counted, or a ValueError with a sentence.

500 of them in the ordinary tests; `make test-long` tries 20,000 (marked long).
"""

import dataclasses
import inspect
import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_core import ModelConfig, accounting, presets
from llm_core.accounting import experts
from llm_core.as_python import as_python
from llm_core.config import LatentAttentionConfig
from llm_core.hf_config import MOST_BYTES, from_hf, read_pasted, to_hf
from llm_core.validation import LARGEST, Part

CONFIGS = [presets.get(name) for name in ("gpt2", "llama-3.1-70b", "mixtral-8x7b", "deepseek-v2", "deepseek-v3")]
PUBLISHED = [to_hf(config) for config in CONFIGS]
H100 = accounting.HARDWARE["h100"]

circle: dict = {"type": "ModelConfig"}
circle["attention"] = circle
NUMBERS = st.one_of(st.integers(-3, 300), st.integers(), st.floats(), st.sampled_from(
    [0, -1, True, 2, 64, 2**31 - 1, 2**31, 10**9, 10**12, 2**63, LARGEST - 2, LARGEST, LARGEST + 1, 10**400, -10**4000,
     0.5, -0.0, 1e30, 1e-30, 1.0000000000000002, 5e-324, 1e308, math.nan, math.inf, -math.inf]))
PLAIN = st.one_of(st.none(), NUMBERS, st.text(max_size=6), st.sampled_from(
    ["512", "yarn", "llama3", "sigmoid", "halves", "\ud800", "\x1b[2J", "../../etc/passwd", "a" * 50_000]))
NESTED = st.recursive(PLAIN, lambda inner: st.one_of(
    st.lists(inner, max_size=3),
    st.dictionaries(st.sampled_from(["factor", "type", "mscale", "a", ""]), inner, max_size=3)), max_leaves=6)
OBJECTS = st.sampled_from([circle, (), {1}, b"\0", 1j, object(), int, ModelConfig, *CONFIGS, CONFIGS[-1].moe])
# What no value becomes when it is written as JSON.
RAW = st.sampled_from(["NaN", "-Infinity", "1e999", "9" * 5000, "[" * 3000, '{"a":' * 3000, '"\\ud800"', "nul", "",
                       "01", '{"a": 1, "a": 1}', "'x'", "1 /* one */", "1e-400", "-0"])


def written(value) -> str:
    try:
        return json.dumps(value)
    except ValueError:  # Python does not write numbers of thousands of digits
        return "9" * 5000


def keys_of(base: dict) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from([*base, "rope_scaling", "rope_parameters", "quantization_config", "head_dim"]),
                     st.text(max_size=6))


@st.composite
def texts(draw) -> str | bytes:
    """A published config, or our own form, with some keys changed, twice, or gone; or any JSON at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.one_of(NESTED.map(written), RAW, st.text(max_size=30), st.binary(max_size=30)))
    config = draw(st.sampled_from(CONFIGS))
    base = to_hf(config) if draw(st.booleans()) else config.to_dict()
    pairs = [(key, written(value)) for key, value in base.items()]
    for key in draw(st.lists(keys_of(base), min_size=1, max_size=3)):
        if draw(st.integers(0, 7)):
            pairs = [pair for pair in pairs if pair[0] != key]
        if draw(st.integers(0, 7)):
            pairs.append((key, draw(st.one_of(NESTED.map(written), NUMBERS.map(written), RAW))))
    text = "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in pairs) + "}"
    how = draw(st.integers(0, 9))
    if how == 0:
        return text[:draw(st.integers(0, len(text)))]
    if how == 1:
        return draw(st.sampled_from(["\ufeff", "\xff", ""])).encode(draw(st.sampled_from(["utf-8", "latin-1"])),
                                                                  "ignore") + text.encode("utf-8", "surrogatepass")
    return text


@st.composite
def given_to(draw):
    """A way to make a config, and what it is given."""
    how = draw(st.integers(0, 5))
    if how < 3:
        return read_pasted, draw(texts())
    values = st.one_of(NESTED, NUMBERS, OBJECTS)
    if how == 3:
        base = draw(st.sampled_from(PUBLISHED))
        return from_hf, {**base, **draw(st.dictionaries(keys_of(base), values, min_size=1, max_size=3))}
    config = draw(st.sampled_from(CONFIGS))
    if how == 4:
        base = config.to_dict()
        return ModelConfig.from_dict, {**base, **draw(st.dictionaries(st.sampled_from([*base]), values, max_size=3))}
    values = st.one_of(NUMBERS, values)
    return changed, (config, draw(st.dictionaries(st.sampled_from(fields(config)), values, min_size=1, max_size=4)))


def fields(part: Part, before: str = "") -> list[str]:
    """Every field, those of parts as "rope.theta"."""
    out = []
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        out += [before + field.name] + (fields(value, f"{before}{field.name}.") if isinstance(value, Part) else [])
    return out


def changed(case: tuple[ModelConfig, dict]) -> ModelConfig:
    config, changes = case
    for path, value in changes.items():
        *parts, name = path.split(".")
        chain = [config]
        for part in parts:
            chain.append(getattr(chain[-1], part))
            if not isinstance(chain[-1], Part):  # an earlier change took it away
                return config
        for owner, field in zip(reversed(chain), reversed([*parts, name]), strict=True):
            value = owner.replace(**{field: value})
        config = value
    return config


def every_answer(config: ModelConfig) -> None:
    """Everything that is counted from a config alone has an answer, and the answers agree with each other."""
    latent = isinstance(config.attention, LatentAttentionConfig)
    n = accounting.count_parameters(config)
    assert n.total == sum(n.by_part.values()) > 0
    flops = accounting.forward_flops(config, 3, 7, absorbed=latent)
    assert flops.total == sum(flops.by_part.values()) > 0
    assert accounting.cache_bytes(config, 2, 5) == 10 * accounting.cache_bytes_per_token(config) > 0
    context = min(config.max_seq_len, LARGEST - 100)  # a few tokens more are asked for below
    bound = accounting.decode_bound(config, H100, 10**6, context)
    assert 0 <= bound.tokens_per_second < math.inf
    for training in (False, True):
        need = accounting.memory_need(config, 3, context, training=training)
        accounting.need_formulas(config, need, 3, context, 16, 16, training)
    accounting.largest_context(config, 10**12)
    accounting.machines_needed(need, H100)
    accounting.training_flops(config, 10**15, context, mtp=True, recompute="all")
    accounting.training_memory_per_gpu(config)
    accounting.training_bound(config, H100, context)
    accounting.compute_bound_from(config, H100, context)
    accounting.speculative_bound(config, H100, 4, 10**6, context).speed_up(0.9)
    accounting.decode_formula(bound, H100, 10**6, 16)
    accounting.cache_formula(config, 3, context)
    accounting.journey(config, config.n_layers - 1, context)
    accounting.fp8_share(config, context)
    accounting.table(config, "this one")
    if latent:
        accounting.step_formula(config, 1, context, "keep")
        accounting.absorbed_from(config)
    made: dict = {}
    exec(as_python(config), made)  # the code that is shown makes this very config
    assert made["config"] == config == ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    for may_refuse in (to_hf, experts.expert_formula):
        says_or(lambda function=may_refuse: function(config))


def says_or(call):
    """What a call returns, or None where it raised a ValueError with a sentence. Anything else is a failure."""
    try:
        return call()
    except ValueError as problem:
        assert 15 < len(str(problem)) <= 1000, str(problem)[:300]
        assert type(problem) is ValueError and "\n" not in str(problem)
        str(problem).encode("utf-8")


def counted_or_said(case) -> None:
    read, text = case
    found = says_or(lambda: read(text))
    if found is None:
        return
    if not isinstance(found, ModelConfig):
        assert len(found.remark) < 5000
        found.remark.encode("utf-8")
        found = found.config
    every_answer(found)


SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}


def test_a_formula_checks_its_numbers_first():
    with pytest.raises(ValueError):
        accounting.step_formula(presets.get("deepseek-v2"), 10**400, 0.0, "rebuild")


def test_a_context_beyond_what_a_list_can_have_is_searched_too():
    assert accounting.rebuilt_from(V3, 2**70) == accounting.rebuilt_from(V3, LARGEST) > 1


V3, LONG = CONFIGS[-1], "a" * 50_000


@pytest.mark.parametrize(("read", "text", "said"), [
    (ModelConfig.from_dict, circle, "nested far too deep"),
    (ModelConfig.from_dict, {**V3.to_dict(), LONG: 1}, "has no field 'aaa.*…'"),
    (ModelConfig.from_dict, {**V3.to_dict(), "type": LONG}, "needs a type, .* not 'aaa.*…'"),
    (changed, (V3, {"norm": LONG}), "norm must be one of layernorm, rmsnorm, not 'aaa.*…'"),
    (changed, (V3, {"tie_embeddings": LONG}), "must be True or False, not 'aaa.*…'"),
    (changed, (V3, {"rope": [LONG]}), "rope must be RopeConfig or None, not a list"),
    (changed, (V3, {"d_model": LARGEST + 1}), r"at most 10\^30, not a number of that size"),
    (changed, (V3, {"rope.theta": 1e31}), "from 1e-30 to 1e30, not 1e\\+31"),
    (changed, (V3, {"dropout": 5e-324}), "from 1e-30 to 1e30 or 0"),
    (ModelConfig.preset, LONG, "no preset is called .aaa.*…"),
    (lambda n: experts.expert_sizes(V3.replace(moe=V3.moe.replace(n_routed_experts=n, n_experts_per_token=n // 8))),
     2**30, "counted for at most 65,536 experts"),
    (lambda n: accounting.speculative_bound(V3, H100, n), 10**9, "guesses must be at most 1,000")])
def test_what_was_given_is_said_in_few_words(read, text, said):
    with pytest.raises(ValueError, match=said) as caught:
        read(text)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("text", "said"), [
    (b'{"a": NaN}', "NaN is no number"), (b'{"a": 1e999}', "1e999 is larger than any"), (b"\xff{}", "no text in UTF-8"),
    (b'{"a": ' + b"9" * 5000 + b"}", "a number of 5000 digits"), (b'{"a":' * 30_000, "nested far too deep"),
    (b'{"a": 1, "a": 1}', "the key 'a' is there twice"), (b" " * MOST_BYTES + b"{}", "a file at most 200,000 are"),
    (b'"' + b"a" * 99_999 + b'"', "must be a JSON object, not 'aaa.*…'"), (b"\xef\xbb\xbf{}", "lacks model_type")])
def test_a_file_that_is_no_plain_json_is_refused_as_a_pasted_text_is(tmp_path, text, said):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(ValueError, match=said) as caught:
        from_hf(tmp_path)
    assert len(str(caught.value)) < 300


def test_a_mark_in_front_and_keys_by_the_thousand_are_read(tmp_path):
    many = {f"_{i}\ud800": 0 for i in range(9000)}
    (tmp_path / "config.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(PUBLISHED[-1] | many).encode())
    assert from_hf(tmp_path) == V3
    remark = read_pasted((tmp_path / "config.json").read_bytes()).remark
    assert len(remark) < 1500 and remark.encode("utf-8")


@settings(max_examples=500, **SLOW)
@given(given_to())
def test_any_config_is_counted_or_refused(case):
    counted_or_said(case)


# Functions that are given numbers beside a config.
COUNTING = (accounting.cache_bytes, accounting.cache_formula, accounting.forward_flops, accounting.training_memory,
            accounting.decode_bound, accounting.memory_need, accounting.largest_context, accounting.largest_batch,
            accounting.training_flops, accounting.training_bound, accounting.training_memory_per_gpu,
            accounting.cache_bytes_per_gpu, accounting.compute_bound_from, accounting.speculative_bound,
            accounting.attention_step, accounting.absorbed_from, accounting.rebuilt_from, accounting.step_formula,
            accounting.precision_map, accounting.journey, accounting.gpu_hours, accounting.utilisation, accounting.days,
            accounting.per_layer, experts.finer, experts.expert_sizes)
SIZES = st.one_of(st.integers(1, 3), st.integers(-1, 10**6), NUMBERS)


def made(kind, otherwise):
    """A machine or a layout of any numbers; where those are refused, one that there is."""
    return st.lists(SIZES, min_size=4, max_size=4).map(lambda sizes: says_or(lambda: kind(*sizes)) or otherwise)


ARGUMENTS = {"config": st.sampled_from(CONFIGS), "moe": st.sampled_from([c.moe for c in CONFIGS if c.moe]),
             "hardware": made(accounting.Hardware, H100), "layout": made(accounting.Layout, accounting.V3_LAYOUT),
             "way": st.sampled_from(accounting.WAYS)}


@st.composite
def countings(draw):
    """A function and what it is given: all that it must have, and some of what it may."""
    function, values = draw(st.sampled_from(COUNTING)), {}
    for name, about in inspect.signature(function).parameters.items():
        if about.default is about.empty or draw(st.booleans()):
            kind = st.booleans() if isinstance(about.default, bool) else SIZES
            values[name] = draw(ARGUMENTS.get(name, kind))
    values.pop("kinds", None)  # further ones, by name
    return function, values


@settings(max_examples=500, **SLOW)
@given(countings())
def test_any_number_beside_a_config_is_counted_with_or_refused(case):
    function, values = case
    says_or(lambda: function(**values))


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=20_000, **SLOW)
@given(given_to())
def test_any_config_is_counted_or_refused_for_long(case):
    counted_or_said(case)


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=20_000, **SLOW)
@given(countings())
def test_any_number_beside_a_config_is_counted_with_or_refused_for_long(case):
    function, values = case
    says_or(lambda: function(**values))
