"""Ladder: the steps from GPT-2 to DeepSeek-V3 one by one, and what each does to size, work and cache."""

from __future__ import annotations

import gradio as gr

from apps import code_box, common
from apps.components import Chart
from llm_core import accounting, ladder, plots, presets
from llm_core.as_python import as_python

TITLE = "Ladder"
PATH = "/ladder"
MOST = len(ladder.STEPS)
NAMES = [step.name for step in ladder.STEPS]
SIZES = {where.title: name for name, where in ladder.sizes().items()}
START = {"size": "deepseek-v3", "step": 8, "without": ""}
NOTHING = "It changes neither the size nor the cache."


def read_names(text: str) -> list[str]:
    """ "mla,gqa" -> ["mla", "gqa"]; "" -> []."""
    return [name for name in text.split(",") if name]


def explain(rungs: tuple[ladder.Rung, ...], taken: int, size: str) -> str:
    """What the step did and why, or where the ladder starts."""
    rung = rungs[taken]
    if not taken:
        return (f"The start: a GPT-2 of {size}'s width and depth. It has {accounting.human_count(rung.total)} "
                f"parameters, all of which work on each token, and a token leaves "
                f"{accounting.human_bytes(rung.cache)} in the cache.")
    below, moved = rungs[taken - 1], []
    dense = rung.config.moe is None
    for name, before, after, words in (
            ("total, all of it active," if dense else "total", below.total, rung.total, accounting.human_count),
            ("active part", below.active, rung.active, accounting.human_count),
            ("cache of a token", below.cache, rung.cache, lambda n: accounting.human_bytes(n).partition(" (")[0])):
        if before != after and not (dense and name == "active part"):
            moved.append(f"the {name} goes from {words(before)} to {words(after)}")
    if rung.added_mtp:
        moved.append(f"{accounting.human_count(rung.added_mtp)} parameters are added apart")
    change = f"So {', '.join(moved)}." if moved else NOTHING
    idle = rung.config == below.config
    why = "Nothing is left for it to work on, as a step that it builds on is left out." if idle else _capital(
        rung.step.why)
    heads = [r.config.attention.n_heads for r in (below, rung)]
    more = f" There are {heads[1]} heads now instead of {heads[0]}." if heads[0] != heads[1] else ""
    return f"Step {taken} of {len(rungs) - 1}, {rung.step.label}: {rung.step.what}. {why}{more} {change}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def ends(rungs: tuple[ladder.Rung, ...]) -> str:
    """The whole way in one sentence."""
    first, last = rungs[0], rungs[-1]
    return (f"From the bottom to the top: {accounting.ratio(last.total, first.total)} times the parameters, "
            f"{accounting.ratio(last.active, first.active)} times those that work on a token, and "
            + (f"a cache {accounting.ratio(first.cache, last.cache)} times smaller." if first.cache != last.cache
               else "the same cache."))


def table(rungs: tuple[ladder.Rung, ...], taken: int) -> str:
    def signed(n: int) -> str:
        return f"{n:+,}".replace("-", "−") if n else "0"

    rows = [(f"{i}. {rung.step.label}" if rung.step else "0. start", f"{rung.total:,}", signed(rung.added_total),
             f"{rung.active:,}", signed(rung.added_active), f"{rung.cache:,}", signed(rung.added_cache),
             f"{rung.mtp:,}", "here" if i == taken else "") for i, rung in enumerate(rungs)]
    return common.table(("after step", "total", "change", "active for a token", "change", "cache, bytes a token",
                         "change", "MTP, counted apart", ""), rows,
                        "Every step, exact. Active: all but the experts that a token does not choose. Cache: 16 bits "
                        "a number.", words=(0, 8))


@common.sentence_for(4)
def draw(size, step, without):
    """Both waterfalls, sentence and formula, and the table, for the controls' values."""
    rungs = ladder.climb(size, without or ())
    now, note = common.within({"step": step}, {"step": (0, MOST)})
    taken = min(now["step"], len(rungs) - 1)
    if taken < now["step"] and not note:
        note = f"With steps left out there are {len(rungs) - 1}. "
    rung = rungs[taken]
    parts = " + ".join(f"{n:,} {part}" for part, n in accounting.count_parameters(rung.config).by_part.items())
    text = common.said(note + explain(rungs, taken, _named(size))) + common.said(ends(rungs)) + common.formula(
        f"total = {parts} = {rung.total:,}", f"cache: {accounting.cache_formula(rung.config)}")
    return (plots.parameter_waterfall(rungs, taken), plots.cache_waterfall(rungs, taken), text, table(rungs, taken))


def _named(size: str) -> str:
    return {"gpt2": "GPT-2", "deepseek-v3": "DeepSeek-V3"}[size]


def own_code(size, step, without) -> str:
    """The config after the step as Python; a preset where it is one."""
    rungs = ladder.climb(size, without or ())
    now, _ = common.within({"step": step}, {"step": (0, len(rungs) - 1)})
    config = rungs[now["step"]].config
    return as_python(config, size if config == presets.get(size) else None)


def state(request: gr.Request | None) -> tuple[dict, str]:
    """The controls' values for an address, and a sentence about what in it could not be used."""
    values, problem = common.read_query(request, START, {"size": list(ladder.sizes())}, {"step": (0, MOST)})
    names = read_names(values["without"])
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        problem = f"{problem} From the address: there is no step {unknown[0][:40]!r} to leave out.".strip()
    return {**values, "without": [name for name in NAMES if name in names]}, problem


def climb_ladder(size: str = "deepseek-v3", without: list[str] | None = None) -> dict:
    """Count every step on the way from GPT-2 to DeepSeek-V3, each of which swaps one component of the model.

    Args:
        size: gpt2 or deepseek-v3, whose width and depth all steps have.
        without: names of steps to leave out, for instance ["mla", "query-latent"]; null takes all.

    Returns:
        steps, from the start up: name, what (was swapped), why, total, active, mtp (counted apart from total) and
        cache_bytes_per_token (16 bits a number) after it.
    """
    return {"size": size, "steps": [
        {"name": r.step.name if r.step else "start", "what": r.step.what if r.step else "", "why": r.step.why if r.step
         else "", "total": r.total, "active": r.active, "mtp": r.mtp, "cache_bytes_per_token": r.cache}
        for r in ladder.climb(size, without or ())]}


API = (climb_ladder,)


def build(demo: gr.Blocks) -> None:
    first, _ = state(None)
    shown = draw(*first.values())[1:]
    common.question("Which change does what on the way from GPT-2 to DeepSeek-V3?", "Fourteen steps, each of which "
                    "swaps one component of the same `ModelConfig`. Climb them with the slider and see what each does "
                    "to the parameters that are stored, to those that work on a token, and to the cache.")
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            size = gr.Radio(list(SIZES.items()), value=first["size"], label="Width and depth of all steps",
                            elem_id="size")
            step = common.whole_slider("step", first["step"], ("Steps climbed", 0, MOST, 1,
                                                               "0 is GPT-2's architecture; the arrow keys move it"))
            with gr.Accordion("Leave steps out", open=False):
                without = gr.CheckboxGroup([(s.label, s.name) for s in ladder.STEPS], value=[], elem_id="without",
                                           label="Without", info="What would the others do alone?")
            controls = {"size": size, "step": step, "without": without}
            common.copy_link_button(controls)
            code_box.python_button(own_code, list(controls.values()), notice, "ladder_python")
            common.try_this([
                ("Experts: 18 times the parameters, and less work on a token", common.link("", step=11)),
                ("Without MLA: where the cache stays", common.link("", step=14, without="mla,query-latent")),
                ("GPT-2's own size: the vocabulary weighs more than all layers", common.link("", size="gpt2", step=6))])
        with gr.Column(scale=2, min_width=300, elem_classes="result"):
            with gr.Row():
                with gr.Column(min_width=280):
                    gr.Markdown("## Parameters")
                    parameters = Chart(shown[0], elem_id="parameters")
                with gr.Column(min_width=280):
                    gr.Markdown("## Cache, bytes a token")
                    cache = Chart(shown[1], elem_id="cache")
    with gr.Column(elem_classes="result"):
        text = gr.HTML(shown[2], elem_id="text")
        steps = gr.HTML(shown[3], elem_id="table")
    common.lesson("All of `course/` climbs this ladder: 02 and 03 up to GQA, 04 and 05 to RoPE and MLA, 06 to experts, "
                  "07 to MTP; `course/09_capstone` puts them together. Sources: GPT-2 (Radford et al. 2019), GQA "
                  "(arXiv:2305.13245), Mixtral (arXiv:2401.04088), DeepSeek-V2 (arXiv:2405.04434) and V3 "
                  "(arXiv:2412.19437).")
    outputs = [notice, parameters, cache, text, steps]

    def opened(request: gr.Request):
        values, problem = state(request)
        said, *rest = draw(*values.values())
        return *values.values(), said or common.notice(problem, note=True), *rest

    gr.on([control.input for control in controls.values()], draw, list(controls.values()), outputs,
          api_name="ladder", **common.FIGURES)
    common.on_opening(demo, opened, [*controls.values(), *outputs], notice, "ladder_open")


if __name__ == "__main__":
    from apps import ladder as page
    from apps import starting

    starting.run_alone(page)
