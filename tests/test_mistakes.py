"""Each mistake is seen by its check, each check passes where nothing is broken, and everything is put back."""

import re
from functools import cache

import pytest
import torch

from llm_core import load_pretrained, mistakes, presets
from llm_core.mistakes import by_hand
from llm_core.mistakes.checks import Check, recorded, same
from llm_core.mistakes.switches import Switches
from tests import strategies
from tests.tiny_configs import CONFIGS, build, some_ids

MTP = "DeepSeek-V3 with MTP"
NAMES = [*CONFIGS, MTP]
SHARED = {"rope_key_not_counted", "rejected_drawn_from_the_model", "drafts_accepted_unverified"}  # for all models
PAIRS = [(name, mistake) for name in NAMES for mistake, m in mistakes.MISTAKES.items()
         if m.of_model and not m.lacks(CONFIGS.get(name, CONFIGS["DeepSeek-V3"].replace(n_mtp_modules=2)))]


def model_of(name: str):
    if name == MTP:
        return strategies.build(CONFIGS["DeepSeek-V3"].replace(n_mtp_modules=2))
    return build(name)


@pytest.mark.parametrize("name", NAMES)
def test_with_nothing_broken_all_checks_pass(name):
    outcomes = {check: run(model_of(name)) for check, run in mistakes.CHECKS.items()}
    assert {check: str(o) for check, o in outcomes.items() if o.passed is False} == {}
    assert sum(o.passed is True for o in outcomes.values()) >= 20


@pytest.mark.parametrize(("name", "mistake"), PAIRS)
def test_each_mistake_is_seen_by_its_check_and_put_back(name, mistake):
    model = model_of(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    attributes = {path: set(vars(module)) for path, module in model.named_modules()}
    check = mistakes.CHECKS[mistakes.MISTAKES[mistake].caught_by]
    with mistakes.on(mistake, model):
        assert check(model).passed is False
    assert check(model).passed is (True if check.name != "as recorded" else None)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert attributes == {path: set(vars(module)) for path, module in model.named_modules()}


@pytest.mark.parametrize("mistake", mistakes.names())
def test_mistakes_that_need_no_model(mistake):
    check = mistakes.CHECKS[mistakes.MISTAKES[mistake].caught_by]
    with mistakes.on(mistake):
        assert check().passed is False
    assert check().passed is True


def test_every_mistake_was_tried_and_every_check_has_one():
    assert {mistake for _, mistake in PAIRS} | set(mistakes.names()) == set(mistakes.MISTAKES)
    by_name = {m.caught_by for m in mistakes.MISTAKES.values()}
    assert set(mistakes.CHECKS) - by_name == {"shapes fit", "the same, at position 0 only"}  # the two weak ones


@pytest.mark.parametrize(("name", "mistake"), [(n, m) for n, m in PAIRS if n == MTP and m not in SHARED])
def test_another_model_stays_well(name, mistake):
    """What is replaced belongs to one model, so a healthy one can stand beside the broken one."""
    broken, healthy = model_of(name), model_of(name)
    check = mistakes.CHECKS[mistakes.MISTAKES[mistake].caught_by]
    with mistakes.on(mistake, broken):
        broken(some_ids())
        outcome = check(healthy)
    assert outcome.passed is not False, outcome


@pytest.mark.parametrize("name", presets.mini_names())
def test_the_shipped_minis_show_every_mistake_that_they_can_have(name):
    """Lessons break these: trained weights must be as good at showing a mistake as wide random ones."""
    model, _ = load_pretrained(name)
    assert [check for check, run in mistakes.CHECKS.items() if run(model).passed is False] == []
    unseen = []
    for mistake in mistakes.names(model):
        with mistakes.on(mistake, model) as made:
            if mistakes.CHECKS[made.caught_by](model).passed is not False:
                unseen.append(mistake)
    assert unseen == []


# Which checks do not see it: what a lesson says about a mistake

@cache
def passes(mistake: str, check: str, name: str = "DeepSeek-V3") -> bool | None:
    model = build(name)
    with mistakes.on(mistake, model):
        return mistakes.CHECKS[check](model).passed


def test_no_mistake_at_all_shows_in_the_shapes():
    assert all(passes(mistake, "shapes fit") for mistake in mistakes.names(build("DeepSeek-V3")))


@pytest.mark.parametrize("mistake", ["rope_layout_swapped", "yarn_scale_forgotten", "yarn_scale_on_the_rotation",
                                     "content_and_position_scaled_apart", "keys_turned_backwards", "no_causal_mask"])
def test_position_0_hides_it(mistake):
    assert passes(mistake, "the same, at position 0 only") is True
    assert passes(mistake, "equal to a second implementation") is False


@pytest.mark.parametrize("mistake", ["latent_without_norm", "content_and_position_scaled_apart",
                                     "yarn_scale_forgotten", "softmax_for_sigmoid", "no_routed_scaling_factor"])
def test_a_model_that_is_wrong_everywhere_agrees_with_itself(mistake):
    for check in ("cached = uncached", "two chunks = one", "naive = absorbed", "no leak", "relative position only"):
        assert passes(mistake, check) is True


@pytest.mark.parametrize("mistake", ["mask_top_left", "first_layer_moves_the_position", "positions_start_again",
                                     "cache_kept_between_calls", "mask_top_left_for_chunks"])
def test_reading_all_at_once_sees_no_mistake_of_the_cache(mistake):
    assert passes(mistake, "equal to a second implementation") is True and passes(mistake, "as recorded") is True


def test_single_facts():
    assert passes("mask_top_left_for_chunks", "cached = uncached")  # single tokens are right
    assert passes("cache_kept_between_calls", "cached = uncached")  # the first text is right
    assert passes("groups_masked_with_zero", "equal to a second implementation")  # where few biases are negative
    assert passes("bias_lost_on_save", "as recorded") and passes("zero_by_zero", "as recorded")
    assert passes("rejected_drawn_from_the_model", "speculation = plain greedy")
    for check in ("equal to a second implementation", "cached = uncached", "as recorded"):  # only the bytes tell
        assert passes("cache_of_expanded_keys", check)


def test_a_second_implementation_with_the_same_weights_does_not_see_that_weights_are_wrong():
    assert passes("square_matrix_not_transposed", "equal to a second implementation", "GPT-2") is True
    assert passes("square_matrix_not_transposed", "as recorded", "GPT-2") is False


# The checks themselves

@pytest.mark.parametrize("name", NAMES)
def test_the_second_implementation_is_near_to_32_bits(name):
    model, ids = model_of(name), some_ids(2, 30)
    torch.testing.assert_close(model(ids).logits.double(), by_hand.logits(model, ids), atol=1e-4, rtol=1e-4)


def test_the_shape_check_can_fail():
    model = build("MHA")
    with Switches() as switches:
        switches.wrap(model, "logits", lambda right, hidden: right(hidden)[:, :-1])
        assert mistakes.CHECKS["shapes fit"](model).passed is False
    assert mistakes.CHECKS["shapes fit"](model).passed is True


def test_a_check_puts_mode_and_random_numbers_back_and_counts_an_error_as_failed():
    model = build("DeepSeek-V3").train()
    state, before = torch.get_rng_state(), {key: t.clone() for key, t in model.state_dict().items()}
    for run in mistakes.CHECKS.values():
        run(model)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert all(block.attention.absorbed is None for block in model.blocks)

    def stops(model):
        raise RuntimeError("oh")

    assert str(Check("x", "", stops, True)(model)) == "FAILS: stops with RuntimeError"
    assert Check("x", "", lambda m: same(torch.tensor([float("nan")]), torch.ones(1)), True)(model).passed is False
    assert str(mistakes.CHECKS["no leak"]()) == "does not apply: it needs a model"


def test_what_was_recorded_is_from_before_the_first_mistake_and_forgotten():
    model, check = build("MHA"), mistakes.CHECKS["as recorded"]
    with recorded(model):
        assert check(model).passed is True
        with mistakes.on("no_causal_mask", model):
            assert check(model).passed is False
            with mistakes.on("mask_top_left", model):  # shows in no text that is read all at once
                assert check(model).passed is False
        assert check(model).passed is True
    assert check(model).passed is None


# What is printed

def test_every_mistake_says_what_it_is():
    for name, m in mistakes.MISTAKES.items():
        assert m.what.endswith(".") and len(m.what) > 40 and m.where and m.caught_by in mistakes.CHECKS
        assert mistakes.explain(name).count("\n") == 2


def test_the_report_has_a_line_for_each_check_that_applies():
    model = build("MLA")
    lines = mistakes.report(model).splitlines()
    assert all(line.endswith("passes") for line in lines) and not any("no leak in MTP" in line for line in lines)
    with mistakes.on("latent_without_norm", model):
        broken = mistakes.report(model, ["naive = absorbed", "equal to a second implementation"])
    assert re.fullmatch(r"naive = absorbed                  passes\n"
                        r"equal to a second implementation  FAILS: differs by \S+ of the largest number", broken)


def test_the_table_marks_what_is_seen():
    text = mistakes.table(build("MHA"), ["no_causal_mask", "mask_top_left"])
    head, *rows = text.partition("\n\n")[0].splitlines()
    legend = dict(line.split(maxsplit=1) for line in text.partition("\n\n")[2].splitlines())
    assert [row.split()[0] for row in rows] == ["no_causal_mask", "mask_top_left"]
    marks = [dict(zip(head.split(), row.split()[1:], strict=True)) for row in rows]
    of = {check: number for number, check in legend.items()}
    assert (marks[0][of["no leak"]], marks[1][of["no leak"]]) == ("X", ".")
    assert (marks[0][of["cached = uncached"]], marks[1][of["cached = uncached"]]) == ("X", "X")
    assert "naive = absorbed" not in of


@pytest.mark.parametrize(("call", "says"), [
    (lambda: mistakes.on("mask_topleft", build("MHA")), "no mistake is called 'mask_topleft'; nearest: mask_top_left"),
    (lambda: mistakes.on("latent_without_norm", build("MHA")), r"needs latent attention \(MLA\); this model can have "),
    (lambda: mistakes.on("no_causal_mask"), "no_causal_mask is made in a model, so give one")])
def test_what_cannot_be_gets_a_sentence(call, says):
    with pytest.raises(ValueError, match=says):
        call().__enter__()


def test_an_error_inside_puts_everything_back():
    model = build("MHA")
    with pytest.raises(KeyError), mistakes.on("no_causal_mask", model):
        raise KeyError
    assert mistakes.CHECKS["no leak"](model).passed is True
