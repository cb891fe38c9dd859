"""Token journey: follow one token of any sentence through a model, from its id to the probabilities of the next one."""

from __future__ import annotations

import functools
import sys

import gradio as gr

from apps import common, writing
from apps import journey_views as views
from llm_core import accounting, plots, presets, pretrained, trace
from llm_core.tokenizer import data_folder

TITLE = "Token journey"
PATH = "/journey"
MODELS = (*presets.mini_names(), pretrained.SMOLLM2)
START = {"model": pretrained.SMOLLM2, "sentence": "The capital of France is", "token": 4, "layer": 23, "head": 4}
LECTURE = {"model": "gpt-mini", "sentence": "A true friend accepts you", "token": 2, "layer": 3, "head": 5}
WATCHED = 16  # tokens whose every step is kept and drawn; the slider moves this window over any text
SLOW = 600  # tokens from which SmolLM2 takes seconds
TRY = (
    ("The lecture's sentence in gpt-mini: learned positions, six heads a block", LECTURE),
    ("Two dogs, one embedding: gpt-mini tells them apart by position", {
        **LECTURE, "sentence": "the dog chased another dog", "token": 4, "layer": 0, "head": 0}),
    ("The same head of SmolLM2 with another question: it looks at Berlin", {
        **START, "sentence": "Paris is the capital of France. Berlin is the capital of", "token": 11}),
    ("A DeepSeek: MLA in compartment 2, experts in compartment 5", {**LECTURE, "model": "deepseek-mini", "head": 0}),
)
SIZES = ("entering", "attention_normed", "attended", "between", "feed_forward_normed", "fed", "leaving")


@functools.lru_cache(maxsize=16)
def watch(name: str, ids: tuple[int, ...], start: int, end: int):
    """The trace of a window, what would be said after each block [L + 1, W, V] as (likeliest, probability), losses."""
    model, _ = writing.load(name)
    seen = trace.trace(model, list(ids), start, end)
    likeliest = trace.logit_lens(model, seen).max(dim=-1)
    return seen, likeliest.indices, likeliest.values


def window(n_tokens: int, token: int) -> tuple[int, int]:
    """The watched positions: all of a short text, of a long one those up to the followed token and a few behind it."""
    start = max(0, min(token - WATCHED + 5, n_tokens - WATCHED))
    return start, min(start + WATCHED, n_tokens)


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


N_SHOWN = 17


def follow(model, sentence, token, layer, head, before, event: gr.EventData):
    """The page's one event: a control was moved, or a button clicked that says where to go. before: last sentence."""
    where = event._data if isinstance(event._data, dict) else {}
    clicked = {name: where[name] for name in ("token", "layer", "head") if isinstance(where.get(name), int)}
    if sentence != before:
        clicked["token"] = sys.maxsize  # of a new text the last token, which tells how it could go on
    for outputs in see(model, sentence, token, layer, head, clicked):
        yield *outputs, sentence


def see(model, sentence, token, layer, head, clicked: dict | None = None):
    """Everything on the page. Outputs: notice, the three sliders, then what is shown."""
    skipped = [gr.skip()] * (3 + N_SHOWN)
    wait = waiting(model, sentence)
    if wait:
        yield common.notice(wait, note=True), *skipped
    try:
        ids, place, limits, _ = state_of(model, sentence, token, layer, head, clicked)
        sliders = [gr.Slider(maximum=max(1, limits[name][1]), value=place[name], interactive=limits[name][1] > 0)
                   for name in place]
        yield "", *sliders, *shown(model, ids, **place)
    except (ValueError, OSError) as problem:
        yield common.notice(common.sentence(problem)), *skipped


def shown(name: str, ids: list[int], token: int, layer: int, head: int) -> tuple:
    """The page's outputs below the controls, in order."""
    model, tokenizer = writing.load(name)
    config, pieces = model.config, tokenizer.pieces(ids)
    start, end = window(len(ids), token)
    seen, likeliest, chance = watch(name, tuple(ids), start, end)
    row, block = token - start, seen.layers[layer]
    here = pieces[start:end]
    sizes = {field: trace.size(getattr(block, field)[row]).item() for field in SIZES}
    experts = None if block.experts is None else block.experts[row].tolist()
    stops = accounting.journey(config, layer, len(ids), bits=32)
    labels = [f"{writing.visible(text)} ({start + t})" for t, text in enumerate(here)]

    vectors = [("token embedding", seen.token_embedding[row].tolist())]
    if seen.position_embedding is not None:
        vectors += [("+ position embedding", seen.position_embedding[row].tolist()),
                    ("= input embedding", seen.layers[0].entering[row].tolist())]
    fed = "feed-forward" if experts is None else "experts"
    names = ("enters", "1 norm", "2 attention", "after skip", "4 norm", f"5 {fed}", "leaves")
    steps = [(f"{label}, size {sizes[field]:.2f}", getattr(block, field)[row].tolist())
             for label, field in zip(names, SIZES)]
    effects = trace.added(seen, row)
    shares = [of.shares.tolist() for of in seen.layers]
    best = trace.strongest_heads(seen, row)
    titles = [[f"block {n}, head {h}: {writing.visible(here[row])} looks most at "
               f"{writing.visible(here[max(range(row + 1), key=lambda s: of[row][s])])}"
               for h, of in enumerate(maps)] for n, maps in enumerate(shares)]
    percent = [[round(100 * share) if s <= t else None for s, share in enumerate(line)]
               for t, line in enumerate(shares[layer][head])]
    said = [[writing.visible(tokenizer.pieces([id])[0]) for id in line] for line in likeliest.tolist()]
    rows = writing.candidates(seen.logits[row], writing.sampler(1.0), tokenizer)
    around = {"token embedding": seen.token_embedding, "position embedding": seen.position_embedding,
              "final norm": seen.final, "output head": seen.logits}
    after = {"norm 1": sizes["attention_normed"], "attention": sizes["attended"], "norm 2":
             sizes["feed_forward_normed"], fed: sizes["fed"],
             **{name: trace.size(of[row]).item() for name, of in around.items() if of is not None}}
    settled = trace.settles(likeliest[:, row].tolist())
    return (
        views.tokens(pieces, ids, token),
        common.said(f"{writing.quoted(pieces[token])} is token {token + 1:,} of {len(ids):,}: position {token:,}, "
                    f"counted from 0, and row {ids[token]:,} of a table with {config.vocab_size:,} rows. After "
                    f"{config.n_layers} blocks the model expects {writing.quoted(rows[0].text)} next, with "
                    f"{accounting.percent(rows[0].raw, 1)}."),
        plots.strips(vectors), common.said(position_sentence(model, token)),
        views.train(config, layer, sizes, stops, experts),
        plots.strips(steps),
        plots.compartment_effects(*zip(*effects), "dense feed-forward" if config.moe is None else "experts", layer),
        common.said(effect_sentence(effects, layer)),
        views.heads(plots.attention_tiles(shares), config.n_layers, config.attention.n_heads, layer, head, titles),
        plots.attention_map(percent, here), common.said(head_sentence(block, here, row, layer, head, start)),
        views.looked_at([(here[s], accounting.percent(block.shares[head, row, s].item(), 1),
                          (n, h, accounting.percent(share, 1))) for s, (n, h, share) in enumerate(best)], layer, head),
        plots.logit_lens([[round(100 * p, 1) for p in line] for line in chance.tolist()], said, labels, row),
        common.said(f"At {writing.quoted(pieces[token])}, {writing.quoted(rows[0].text)} is the likeliest "
                    + (f"from after block {settled - 1} on." if settled else "from the very beginning.")),
        writing.bars_html(rows, shaped=False), views.tasks(task_rows(tokenizer, ids, here, seen)),
        views.steps(config, len(ids), layer, stops, after)
        + common.formula(f"Cache of this text: {accounting.cache_formula(config, 1, len(ids), bits=32)}"))


def position_sentence(model, token: int) -> str:
    """Where a token's place comes in."""
    if model.config.rope is None:
        return (f"The token's own row, plus row {token:,} of the table of positions, number by number: that sum boards "
                "the train.")
    return ("The token's own row boards the train as it is. This model has no table of positions: RoPE turns queries "
            f"and keys in compartment 2 instead, here by {token:,} steps.")


def effect_sentence(effects: list[tuple[float, float]], layer: int) -> str:
    attention, feed_forward = effects[layer]
    return (f"In block {layer}, attention adds a vector of {attention:.1f} % of the stream's size, and compartment 5 "
            f"one of {feed_forward:.1f} %. A block does not replace the token's vector: it adds to it.")


def head_sentence(block: trace.Layer, here: list[str], row: int, layer: int, head: int, start: int) -> str:
    line = block.shares[head, row, :row + 1]
    s, first = int(line.argmax()), block.to_first[head, row].item()
    out = (f"Block {layer}, head {head}: {writing.quoted(here[row])} looks most at "
           f"{'itself' if s == row else writing.quoted(here[s])}, with {accounting.percent(line[s].item(), 1)}.")
    if start:
        earlier = accounting.percent(block.to_earlier[head, row].item(), 1)
        out += f" All tokens before this window get {earlier}, of which the very first {accounting.percent(first, 1)}."
    elif s:
        out += f" The first token of the text gets {accounting.percent(first, 1)}."
    if first > 0.5 and row + start:
        out += (" The first token is where a head often puts attention that it has no other use for: an attention "
                "sink, and no sign of meaning.")
    return out


def task_rows(tokenizer, ids: list[int], here: list[str], seen: trace.Trace) -> list[tuple[str, ...]]:
    rows = []
    for text, task in zip(here, trace.tasks(seen, ids)):
        bet = f"{writing.visible(tokenizer.pieces([task.likeliest])[0])} {accounting.percent(task.chance, 1)}"
        follows = ("nothing in this text", "–", "–") if task.target is None else (
            writing.visible(tokenizer.pieces([task.target])[0]), accounting.percent(task.target_chance, 1),
            f"{task.loss:.2f}")
        rows.append((writing.visible(text), bet, *follows))
    return rows


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
        yield common.notice(problem, note=True), values["model"], *[values["sentence"]] * 2, *outputs


def place_slider(name: str, label: str, most: int) -> gr.Slider:
    return common.whole_slider(name, START[name], (label, 0, most, 1))


def corrections(values: dict) -> str:
    """What of an address's place had to be set right."""
    try:
        *_, corrected = state_of(*values.values())
    except (ValueError, OSError):  # see says it
        return ""
    return f"From the address: {corrected}" if corrected else ""


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

    def page(name: str, **options) -> gr.HTML:
        return gr.HTML(elem_id=name, css_template=views.CSS, js_on_load=views.GO, elem_classes="result", **options)

    def plot(name: str) -> gr.Plot:
        return gr.Plot(show_label=False, elem_id=name, elem_classes="result")

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
    before = gr.State(START["sentence"])
    moved = [model.input, sentence.change, token.input, layer.input, head.input,
             *(box.click for box in (tokens, train, heads, looked_at))]
    gr.on(moved, follow, [*controls.values(), before], [*outputs, before], api_name="follow", **common.FIGURES)
    demo.load(opened, None, [remark, model, sentence, before, *outputs], api_name="open_journey", **common.FIGURES)


if __name__ == "__main__":
    from apps import journey

    common.run_alone(journey)
