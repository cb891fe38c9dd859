"""The MoE lab: what its three parts show, moved by real controls, equals llm_core's own figures."""

import re
import statistics

import pytest
from conftest import (
    choose,
    has_no_sideways_scroll,
    numbers,
    redraw_milliseconds,
    settle,
    table_cells,
    wait_for_text,
)

from apps import moe_balance, moe_lab, moe_sizes, moe_text
from llm_core import accounting, balancing_steps, load_pretrained, plots, presets, routed_text
from llm_core.accounting import experts
from llm_core.balancing_steps import Setting

OWN = presets.get("deepseek-v3")


def open_page(page, site, query="", until="#figures tbody"):
    page.goto(f"{site}/moe{query}")
    page.locator(until).first.wait_for()
    page.locator(".answered, .notice").first.wait_for(state="attached")  # the address has been read


def type_number(page, control: str, value) -> None:
    page.locator(f"#{control} input[type=number]").fill(str(value))


# Sizes

def test_sizes_of_deepseek_v3(page, site):
    open_page(page, site)
    n = experts.expert_sizes(OWN)
    parts, figures = table_cells(page, "#parts"), table_cells(page, "#figures")
    for part, count in n.parameters.by_part.items():
        assert [numbers(cell)[0] for cell in parts[part][:2]] == [count, n.parameters.active_by_part[part]]
    assert parts["all"] == ["671,026,404,352", "37,552,282,624", "5.6 %"]
    assert figures["ways to choose"] == ["71,614,201,382,880"] * 2
    assert numbers(figures["FLOPs for a token that sees 4,096"][1]) == [n.flops]
    assert figures["groups of a free choice, by chance"][1] == "5.29"
    assert "5.6 %" in page.locator("#sizes-text").inner_text()
    for line in experts.expert_formula(OWN):
        assert line in page.locator("#sizes-formula").inner_text()


def test_every_slider_and_the_cut_move_the_figures(page, site):
    open_page(page, site)
    moe = OWN.moe
    for name, value in (("n_limited_groups", 3), ("n_experts_per_token", 6), ("n_shared_experts", 2),
                        ("n_routed_experts", 128), ("d_expert", 1024), ("n_expert_groups", 4)):
        before = page.locator("#sizes-text").inner_text()
        type_number(page, name.replace("_", "-"), value)
        wait_for_text(page, "#sizes-text", f"{name} went from {getattr(moe, name):,} to {value:,}: ")
        assert page.locator("#sizes-text").inner_text() != before
        moe = moe.replace(**{name: value})
        n = experts.expert_sizes(OWN.replace(moe=moe))
        shown = table_cells(page, "#figures")
        assert shown["total parameters"][1] == f"{n.parameters.total:,}"
        assert shown["active parameters"][1] == f"{n.parameters.active:,}"
        assert shown["ways to choose"][1] == experts.in_words(n.ways)
    page.locator("#pieces").get_by_text("4", exact=True).click()
    wait_for_text(page, "#sizes-text", "the cut of each expert (m) went from 1 to 4")
    fine = experts.expert_sizes(OWN.replace(moe=experts.finer(moe, 4)))
    shown = table_cells(page, "#figures")
    assert shown["ways to choose"][1] == experts.in_words(fine.ways)
    assert shown["total parameters"][1] == f"{fine.parameters.total:,}"
    page.locator("#as-python").click()
    wait_for_text(page, "#python", 'ModelConfig.preset("deepseek-v3")')
    assert "n_routed_experts=512" in page.locator("#python").inner_text()


def test_choosing_a_model_and_the_paper_s_example(page, site):
    open_page(page, site, "?preset=mixtral-8x7b&n_routed_experts=16&pieces=4")
    assert table_cells(page, "#figures")["ways to choose"] == ["28", "4,426,165,368"]
    choose(page, "#preset", "deepseek-mini")
    wait_for_text(page, "#figures", "deepseek-mini itself")
    mini = presets.get("deepseek-mini")
    n = accounting.count_parameters(mini.replace(moe=experts.finer(mini.moe, 4)))
    assert table_cells(page, "#figures")["total parameters"] == ["2,928,448", f"{n.total:,}"]


def test_what_cannot_be_is_said_and_the_last_good_figures_stay(page, site):
    open_page(page, site)
    type_number(page, "n-expert-groups", 7)
    wait_for_text(page, ".notice", "n_expert_groups 7 does not divide n_routed_experts 256; nearest: 4, 8")
    assert table_cells(page, "#figures")["ways to choose"][1] == "71,614,201,382,880"
    page.wait_for_function("getComputedStyle(document.querySelector('.shown:has(#sizes-bars)')).opacity < 1")
    page.get_by_role("tab", name="Balance").click()
    page.locator("#biases tbody").wait_for()
    assert page.locator("#biases").evaluate("e => getComputedStyle(e).opacity") == "1"  # it is another part's mistake
    page.get_by_role("tab", name="Sizes").click()
    type_number(page, "n-expert-groups", 8)
    page.locator(".notice").wait_for(state="detached")
    type_number(page, "n-shared-experts", "")
    wait_for_text(page, "#sizes-text", "n_shared_experts is empty, so 0 is shown")


def test_keyboard_and_redraw(page, site):
    open_page(page, site)
    taken = redraw_milliseconds(page, "#n-routed-experts", "#sizes-bars", "#figures", [])
    page.locator("#n-shared-experts input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    wait_for_text(page, "#sizes-text", "n_shared_experts went from 1 to 2")
    keys = ["ArrowRight", "ArrowLeft"] * 4
    taken += redraw_milliseconds(page, "#n-shared-experts", "#sizes-bars", "#figures", keys)
    print(f"\nMoE sizes: a redraw takes {statistics.median(taken):.0f} ms in the median, {max(taken):.0f} at most")
    assert statistics.median(taken) < 1000


# A text

def shown_tokens(page) -> list[tuple[str, int, str]]:
    """(token, expert, colour) of each coloured token."""
    return [tuple(item) for item in page.evaluate("""() => [...document.querySelectorAll("#routed li")].map(
        li => [li.querySelector("b").innerText, Number(li.querySelector("small").innerText), li.style.background])""")]


def test_a_text_of_ones_own_in_the_colours_of_its_experts(page, site):
    open_page(page, site, "?tab=text", "#routed li")
    model, words = load_pretrained("deepseek-mini")
    typed = "To be, or not to be <|endoftext|> <b>bold</b>"
    page.locator("#text textarea").fill(typed)
    wait_for_text(page, "#routed", "old")
    ids = words.encode(typed)
    assert len(ids) > 10 and words.end_of_text not in ids  # what is typed is plain text
    for block in (3, 1):
        page.locator("#block").get_by_text(str(block), exact=True).click()
        wait_for_text(page, "#routed-said", f"In block {block} of the trained model, {len(ids)} tokens")
        found = routed_text.route(model, ids)[block]
        shown = shown_tokens(page)
        assert [expert for _, expert, _ in shown] == [row[0] for row in found.experts]
        assert "".join(token for token, *_ in shown).replace("␣", " ") == typed
        colours = {expert: colour for _, expert, colour in shown}
        assert len(set(colours.values())) == len(colours)
        assert f"Expert {found.load.index(max(found.load))} got the most, {max(found.load)}, " in (
            page.locator("#routed-said").inner_text())
        assert f"experts 0 to 7: {', '.join(map(str, found.load))}" in page.locator("#routed-said").inner_text()
    title = page.locator("#routed li").first.get_attribute("title")
    assert title == ", ".join(f"expert {e} with {w:.2f}" for e, w in zip(found.experts[0], found.weights[0]))
    bits = routed_text.information({"trained": model, "untrained": routed_text.untrained(model.config)},
                                   moe_text.torch.tensor([ids]))
    for name, cells in table_cells(page, "#bits").items():
        assert cells == [f"{value:.2f}" for value in bits[name].values()]
    page.locator("#router").get_by_text("untrained", exact=True).click()
    wait_for_text(page, "#routed-said", "In block 1 of the untrained model")
    page.get_by_text("Every token, its experts").click()
    page.locator("#tokens tbody tr").first.wait_for()
    assert page.locator("#tokens tbody tr").count() == len(ids)
    held_out = table_cells(page, "#held-out-said")
    assert held_out["trained"] == [f"{value:.2f}" for value in moe_text.held_out_bits()["trained"].values()]
    settle(page)


def test_texts_that_cannot_be_sent_are_said(page, site):
    open_page(page, site, "?tab=text&block=0&router=none&text=Hello", "#routed li")
    said = page.locator(".notice").first.inner_text()
    assert "block cannot be '0'" in said and "router cannot be 'none'" in said
    shown = shown_tokens(page)
    page.locator("#text textarea").fill("")
    wait_for_text(page, ".notice", "the text is empty; type a word")
    page.locator("#text textarea").fill("zqx " * 200)
    wait_for_text(page, ".notice", "the model's context holds 256; shorten it")
    assert shown_tokens(page) == shown and "".join(token for token, *_ in shown) == "Hello"
    settle(page)


# Balance

def path_of(step, gamma=0.0, alpha=0.0, seed=0):
    return balancing_steps.run(Setting(gamma, alpha, seed)).until(step)[-1]


def shown_step(page, with_bias: bool = True) -> tuple[list[int], list[float]]:
    cells = table_cells(page, "#biases").values()
    return [int(row[0]) for row in cells], [float(row[1]) for row in cells] if with_bias else []


def test_the_router_is_stepped_by_buttons_and_sliders(page, site):
    open_page(page, site, "?tab=balance&balance=bias&gamma=0.02&step=10&seed=3", "#biases tbody")
    wait_for_text(page, "#balance-text", "At step 10 ")
    for button, step in (("#one-step", 11), ("#fifty-steps", 61), ("#reset", 0), ("#one-step", 1)):
        page.locator(button).click()
        wait_for_text(page, "#biases", f"Step {step}:")
        here = path_of(step, 0.02, seed=3)
        load, bias = shown_step(page)
        assert load == list(here.load) and bias == pytest.approx(here.bias, abs=5e-4)
        assert f"has {here.imbalance:.2f} times the mean load" in page.locator("#balance-text").inner_text()
        assert page.locator("#step input[type=number]").input_value() == str(step)
    type_number(page, "step", 40)
    wait_for_text(page, "#balance-text", "step went from 1 to 40")
    type_number(page, "gamma", 0.1)
    wait_for_text(page, "#balance-text", "gamma went from 0.02 to 0.1")
    assert shown_step(page)[0] == list(path_of(40, 0.1, seed=3).load)
    page.locator("#balance").get_by_text("a balance loss").click()
    wait_for_text(page, "#balance-text", "balance went from V3's bias to a balance loss")
    type_number(page, "alpha", 0.5)
    wait_for_text(page, "#balance-text", "alpha went from 0.1 to 0.5")
    assert shown_step(page, False)[0] == list(path_of(40, alpha=0.5, seed=3).load)
    page.locator("#balance").get_by_text("nothing").click()
    wait_for_text(page, "#balance-text", "nobody told the router to be fair")
    type_number(page, "seed", 0)
    wait_for_text(page, "#balance-text", "seed went from 3 to 0")
    assert shown_step(page, False)[0] == list(path_of(40).load)
    settle(page)


def test_play_and_stop(page, site):
    open_page(page, site, "?tab=balance&step=0", "#biases tbody")
    page.locator("#play").click()
    page.wait_for_function("Number(document.querySelector('#step input[type=number]').value) >= 10")
    page.locator("#stop").click()
    settle(page, 600)
    step = int(page.locator("#step input[type=number]").input_value())
    wait_for_text(page, "#biases", f"Step {step}:")
    assert 10 <= step < balancing_steps.MOST_STEPS
    page.wait_for_timeout(700)
    assert page.locator("#step input[type=number]").input_value() == str(step)
    assert shown_step(page)[0] == list(path_of(step, moe_balance.START["gamma"]).load)


def test_numbers_that_cannot_be_and_a_bad_address(page, site):
    open_page(page, site, "?tab=balance&gamma=7&balance=magic&step=401&seed=x", "#biases tbody")
    said = page.locator(".notice").first.inner_text()
    for part in ("gamma cannot be '7' (it goes from 0.0 to 0.2)", "balance cannot be 'magic'", "step cannot be '401'",
                 "seed cannot be 'x'"):
        assert part in said
    type_number(page, "gamma", "")
    wait_for_text(page, "#balance-text", "gamma goes from 0 to 0.2, so 0.02 is shown")
    settle(page)


# All three

def test_links_carry_the_state_of_their_part(page, site):
    open_page(page, site, "?tab=balance&seed=5&step=20", "#biases tbody")
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_url(re.compile(r"tab=balance.*seed=5&step=20"))
    page.get_by_role("tab", name="Your text").click()
    page.locator("#routed li").first.wait_for()
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_url(re.compile(r"tab=text&text=O\+Romeo.*block=1"))
    page.reload()
    page.locator("#routed li").first.wait_for()
    settle(page)


@pytest.mark.parametrize("tab, until, chart", [("sizes", "#figures tbody", "#sizes-bars"),
                                               ("text", "#routed li", "#text-load"),
                                               ("balance", "#biases tbody", "#history")])
def test_phone_and_dark(new_page, site, tab, until, chart):
    page = new_page(width=390)
    open_page(page, site, f"?tab={tab}&__theme=dark", until)
    page.locator(f"{chart} .main-svg").first.wait_for()
    assert has_no_sideways_scroll(page)
    paper = page.locator(f"{chart} .main-svg").first.evaluate("e => e.style.background || 'none'")
    assert "255, 255, 255" not in paper or "0)" in paper
    settle(page)


# Without a browser

def test_every_model_opens_with_sliders_that_hold_its_sizes():
    assert {"mixtral-8x7b", "deepseek-moe-16b", "deepseek-v2", "deepseek-v3", "kimi-k2", "deepseek-mini"} <= set(
        moe_sizes.MODELS)
    for name in moe_sizes.MODELS:
        own = moe_sizes.sizes(name)
        assert moe_sizes.config_of(name, 1, own) == presets.get(name)
        assert all(least <= own[key] <= most for key, (least, most) in moe_sizes.LIMITS.items()), name


def test_the_functions_for_programs():
    found = moe_lab.expert_sizes("mixtral-8x7b", pieces=4, n_routed_experts=16)
    assert found["ways_to_choose"] == "4,426,165,368" and (found["experts"], found["chosen"]) == (64, 8)
    assert moe_lab.expert_sizes()["active_parameters"] == 37_552_282_624
    text = moe_lab.experts_of_text("Romeo", 2, trained=False)
    assert sum(text["load"]) == 3 * len(text["tokens"]) and set(text["bits"]) == {"trained", "untrained", "by chance"}
    for wrong, sentence in ((lambda: moe_lab.expert_sizes("gpt2"), "no model with experts"),
                            (lambda: moe_lab.expert_sizes(pieces=3), "does not divide"),
                            (lambda: moe_lab.experts_of_text("a", 0), "block 0 has no experts"),
                            (lambda: moe_lab.experts_of_text(""), "text is empty"),
                            (lambda: moe_lab.experts_of_text("a" * 2001), "the page takes 2,000")):
        with pytest.raises(ValueError, match=sentence):
            wrong()


def test_experts_can_be_told_apart_without_colours():
    assert len({plots.expert_colour(e) for e in range(8)}) == 8
    assert plots.expert_colour(0)[1] == "#FFFFFF" and plots.expert_colour(4)[1] == "#000000"
