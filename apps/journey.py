"""Token journey: follow one token of any sentence through a model, from its id to the probabilities of the next one."""

from __future__ import annotations

import sys

import gradio as gr

from apps import common, writing
from apps import journey_followed as followed
from apps import journey_views as views
from apps.components import Chart
from llm_core import presets, pretrained
from llm_core.tokenizer import data_folder
from llm_core.validation import one_of

TITLE = "Token journey"
PATH = "/journey"
MODELS = (*presets.mini_names(), pretrained.SMOLLM2)
START = {"model": pretrained.SMOLLM2, "sentence": "The capital of France is", "token": 4, "layer": 23, "head": 4}
LECTURE = {"model": "gpt-mini", "sentence": "A true friend accepts you", "token": 2, "layer": 3, "head": 5}
SLOW = 600  # tokens from which SmolLM2 takes seconds
TRY = (
    ("The lecture's sentence in gpt-mini: learned positions, six heads a block", LECTURE),
    ("Two dogs, one embedding: gpt-mini tells them apart by position", {
        **LECTURE, "sentence": "the dog chased another dog", "token": 4, "layer": 0, "head": 0}),
    ("The same head of SmolLM2 with another question: it looks at Berlin", {
        **START, "sentence": "Paris is the capital of France. Berlin is the capital of", "token": 11}),
    ("A DeepSeek: MLA in compartment 2, experts in compartment 5", {**LECTURE, "model": "deepseek-mini", "head": 0}),
)


def state_of(model, sentence, token, layer, head, clicked: dict | None = None):
    """The ids, the place in them, its limits, and what is said of a place that a text or model does not have."""
    loaded, tokenizer = writing.load(model)
    ids = tokenizer.encode(sentence or "")
    if not ids:
        raise ValueError("the sentence is empty; type a word to follow")
    config = loaded.config
    if len(ids) > config.max_seq_len:
        raise ValueError(f"the sentence has {len(ids):,} tokens, and the context of {model} holds "
                         f"{config.max_seq_len:,}")
    given = {"token": token, "layer": layer, "head": head} | (clicked or {})
    limits = {"token": (0, len(ids) - 1), "layer": (0, config.n_layers - 1),
              "head": (0, config.attention.n_heads - 1)}
    values, corrected = common.within({name: given[name] for name in limits}, limits)
    return ids, {name: int(value) for name, value in values.items()}, limits, corrected


def waiting(model: str, sentence: str | None) -> str:
    """What to say while something slow goes on; empty if nothing does."""
    if model == pretrained.SMOLLM2 and not writing.is_loaded(model):
        return "Reading SmolLM2 from the disk, which takes some seconds, once."
    if model == pretrained.SMOLLM2 and len(sentence or "") > 3 * SLOW:
        return "A long text: SmolLM2 needs some seconds for a thousand tokens."
    return ""


def drawn(model: str, sentence: str, outputs: list) -> list:
    """The controls as these outputs of `see`, behind the notice, leave them; empty where it drew nothing."""
    sliders = outputs[:3]
    return [model, sentence, *(slider["value"] for slider in sliders)] if "value" in sliders[0] else []


def follow(model, sentence, token, layer, head, before, event: gr.EventData):
    """The page's one event: a control was moved, or a button clicked that says where to go.

    before: the controls as they were drawn last. What the page sets itself comes back as a change: nothing to do then.
    """
    where = event._data if isinstance(event._data, dict) else {}
    clicked = {name: where[name] for name in ("token", "layer", "head") if isinstance(where.get(name), int)}
    now = [model, sentence, token, layer, head]
    if now == before and not clicked:
        yield [gr.skip()] * (5 + followed.N_SHOWN)
        return
    if not before or sentence != before[1]:
        clicked["token"] = sys.maxsize  # of a new text the last token, which tells how it could go on
    dragged = not clicked and now[:2] == before[:2]
    for notice, *outputs in see(*now, clicked):
        after = drawn(model, sentence, outputs)
        if dragged:  # a slider that is being dragged has moved on by now: it must not jump back
            outputs[:3] = [gr.skip()] * 3
        yield notice, *outputs, after


def see(model, sentence, token, layer, head, clicked: dict | None = None):
    """Everything on the page. Outputs: notice, the three sliders, then what is shown."""
    skipped = [gr.skip()] * (3 + followed.N_SHOWN)
    wait = waiting(model, sentence)
    if wait:
        yield common.notice(wait, note=True), *skipped
    try:
        ids, place, limits, _ = state_of(model, sentence, token, layer, head, clicked)
        sliders = [gr.update(maximum=max(1, limits[name][1]), value=place[name], interactive=limits[name][1] > 0)
                   for name in place]
        yield "", *sliders, *followed.shown(model, ids, **place)
    except common.PROBLEMS as problem:
        yield common.notice(common.sentence(problem)), *skipped


def opened(request: gr.Request):
    """The state of the address: what is wrong with it, model and sentence, then see's outputs."""
    values, problem = common.read_query(request, START, {"model": MODELS})
    asked = request is not None and set(request.query_params) & set(START)
    if not asked:
        try:
            data_folder(pretrained.PACKAGED[START["model"]][0])
        except OSError as missing:  # the page goes on with a model that is always there
            values, problem = dict(LECTURE), f"{common.sentence(missing)}. Until then: {LECTURE['model']}."
    elif "sentence" not in request.query_params and values["model"] != START["model"]:
        values = {**LECTURE, **{name: values[name] for name in START if name in request.query_params}}
    for outputs in see(*values.values()):
        if not problem and writing.is_loaded(values["model"]):
            problem = corrections(values)
        before = drawn(values["model"], values["sentence"], outputs[1:])
        yield common.notice(problem, note=True), values["model"], values["sentence"], before, *outputs


def prepare() -> None:
    """Read the model of the page's start and work out its sentence, which takes seconds, once."""
    for _ in see(*START.values()):  # what goes wrong, a missing file, the page will say itself
        pass


def place_slider(name: str, label: str, most: int) -> gr.Slider:
    return common.whole_slider(name, START[name], (label, 0, most, 1))


def corrections(values: dict) -> str:
    """What of an address's place had to be set right."""
    try:
        *_, corrected = state_of(*values.values())
    except common.PROBLEMS:  # see says it
        return ""
    return f"From the address: {corrected}" if corrected else ""


def follow_token(model: str = LECTURE["model"], sentence: str = LECTURE["sentence"], token: int | None = None) -> dict:
    """Follow one token of a sentence through a small trained model, block by block.

    Args:
        model: gpt-mini or deepseek-mini, or smollm2-135m-instruct.
        sentence: the text; the minis hold 256 tokens.
        token: the position of the token to follow, from 0; null follows the last one.

    Returns:
        tokens and ids of the sentence; token; added: for each block what attention and feed-forward add, in per cent
        of the size of the token's vector; guesses: what the model would say next if it stopped before the first block
        and after each one (logit lens), with its probability.
    """
    one_of("model", model, MODELS)
    ids, place, *_, corrected = state_of(model, sentence, sys.maxsize if token is None else token, 0, 0)
    if corrected and token is not None:
        raise ValueError(f"token must be from 0 to {len(ids) - 1}, not {token}")
    return followed.path(model, ids, place["token"])


API = (follow_token,)


def build(demo: gr.Blocks) -> None:
    common.question("What happens to a word on its way through a model?",
                    "Type a sentence and follow one of its tokens: from an id to a vector, through every block, to "
                    "what could come next. All numbers are the model's own.")
    remark, notice = common.notice_box(), common.notice_box()  # on the address, which stays; on the last input
    with gr.Row():
        model = gr.Dropdown(MODELS, value=START["model"], label="Model", filterable=False, elem_id="model", scale=1,
                            min_width=220)
        sentence = gr.Textbox(START["sentence"], label="Sentence", elem_id="sentence", scale=3, min_width=280,
                              max_lines=4)

    def block(title: str, about: str) -> None:
        gr.Markdown(f"## {title}\n\n{about}", elem_classes="question")

    def page(name: str) -> gr.HTML:
        return gr.HTML(elem_id=name, css_template=views.CSS, js_on_load=views.GO, elem_classes="result")

    def plot(name: str) -> Chart:
        return Chart(elem_id=name, elem_classes="result")

    block("Part 1: the uniform", "The sentence is taken apart, each piece gets its number from the vocabulary, and "
          "each number a vector. Click a token to follow it.")
    tokens = page("tokens")
    token = place_slider("token", "Token to follow (position)", 4)
    said, vectors, place = page("said"), plot("vectors"), page("place")
    block("Part 2: the train", "One block after another, each of six compartments. What comes in goes past them on the "
          "skip connections, and each compartment adds to it.")
    layer = place_slider("layer", "Block", 29)
    train = page("train")
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            strips = plot("strips")
        with gr.Column(scale=2, min_width=300):
            effects, effect = plot("effects"), page("effect")
    block("Who looks at whom", "Compartment 2 is the only place where tokens meet. Every small picture is one head's "
          "map: each row a token that looks, each column one that is looked at.")
    head = place_slider("head", "Head", 8)
    heads = page("heads")
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            attention = plot("attention")
        with gr.Column(scale=2, min_width=300):
            looks, looked_at = page("looks"), page("looked-at")
    block("Part 3: the output", "Final norm and output head turn a vector into a probability for every entry of the "
          "vocabulary. Put on the stream too early, they show what the model would have said after each block (the "
          "logit lens): a view, since they were trained for the last block alone.")
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            lens, settled = plot("lens"), page("settled")
        with gr.Column(scale=2, min_width=300):
            bars = gr.HTML(css_template=writing.CSS, elem_classes="result", elem_id="bars")
    tasks = page("tasks")
    block("What each stop owns and keeps", "Parameters are learned once and stay. The cache grows with the text.")
    steps = page("steps")
    controls = {"model": model, "sentence": sentence, "token": token, "layer": layer, "head": head}
    common.try_this((what, common.link("", **state)) for what, state in TRY)
    common.copy_link_button(controls)
    common.lesson("`course/01_architecture/01_journey_of_a_token.ipynb` builds every one of these steps by hand.")

    shown_in = [tokens, said, vectors, place, train, strips, effects, effect, heads, attention, looks, looked_at, lens,
                settled, bars, tasks, steps]
    outputs = [notice, token, layer, head, *shown_in]
    before = gr.State(list(START.values()))
    moved = [model.input, sentence.change, token.input, layer.input, head.input,
             *(box.click for box in (tokens, train, heads, looked_at))]
    gr.on(moved, follow, [*controls.values(), before], [*outputs, before], api_name="follow", **common.FIGURES)
    demo.load(opened, None, [remark, model, sentence, before, *outputs], api_name="open_journey", **common.FIGURES)


if __name__ == "__main__":
    from apps import journey, starting

    starting.run_alone(journey)
