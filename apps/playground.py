"""Playground: trained models write, and show at each token what else they might have written."""

from __future__ import annotations

import gradio as gr

from apps import common, writing
from apps.line import in_line, noticed, without_place
from llm_core import accounting, presets, pretrained
from llm_core.config import ModelConfig
from llm_core.training.card import PROMPTS, SAMPLE_SEED, TEMPERATURE, TOP_K
from llm_core.validation import one_of

TITLE = "Playground"
PATH = "/playground"
MODELS = (*presets.mini_names(), pretrained.SMOLLM2)
SLOWLY, AT_ONCE = "a token at a time", "as fast as it can"
HOTTEST, LEAST_P = 2, 0.05  # ends of the sliders
START = {"model": "deepseek-mini", "prompt": PROMPTS[1], "tokens": 80, "temperature": TEMPERATURE, "top_k": TOP_K,
         "top_p": 1.0, "seed": SAMPLE_SEED}
LIMITS = {"tokens": (1, writing.MAX_NEW_TOKENS), "temperature": (0, HOTTEST), "top_p": (LEAST_P, 1)}
TRY = (
    ("Temperature 0: always the likeliest token, and soon it repeats itself", {"temperature": 0, "prompt": "The king"}),
    ("Temperature 2 and every token allowed: what chance alone writes", {"temperature": 2, "top_k": ""}),
    ("A real language model, SmolLM2, that has read more than Shakespeare", {
        "model": pretrained.SMOLLM2, "prompt": "The capital of France is", "temperature": 0, "tokens": 30}),
    ("Top-p 0.5: how few tokens are left", {"top_p": 0.5, "top_k": "", "prompt": "ROMEO:\n"}),
)


def facts(name: str) -> str:
    """What the model's card says, as Markdown; or why it cannot be read."""
    try:
        about = pretrained.card(name)
        config = ModelConfig.from_dict(about["config"])
        counts = accounting.count_parameters(config)
        learned = about["origin"] if "origin" in about else (
            f"On held-out text **{about['bits_per_byte']:.2f} bits per byte**, after {about['tokens_read']:,} tokens "
            "of training.")
        return (f"{counts.total:,} parameters, {counts.active:,} of them active for a token. {learned} Cache: "
                f"{accounting.cache_bytes_per_token(config, bits=32):,} bytes a token (32 bits a number).")
    except common.PROBLEMS as problem:
        return common.sentence(problem)


@common.sentence_for(5)
def look(name, prompt, temperature, top_k, top_p, seed):
    """The next token after the prompt, with nothing written yet. Outputs: text, status, bars, sentence, formula."""
    if name == pretrained.SMOLLM2 and not writing.is_loaded(name):
        yield gr.skip(), by("Reading SmolLM2 from the disk, which takes some seconds, once."), *[gr.skip()] * 3
    model, tokenizer = writing.load(name)
    settings = writing.sampler(temperature, top_k, top_p, seed)
    ids = tokenizer.encode(prompt or "")
    logits = writing.next_logits(model, ids)
    rows = writing.candidates(logits, settings, tokenizer)
    said = f"After these {writing.count(len(ids), 'token')}, {describe(rows[0])}. {left_over(logits, settings)}"
    yield (writing.text_html(prompt), by("Nothing is written yet: press Write."), writing.bars_html(rows),
           common.said(said), common.formula(writing.cache_line(model, len(ids))))


@common.sentence_for(5)
def write(name, prompt, tokens, temperature, top_k, top_p, seed, pace):
    """Stream a text. Outputs as in look."""
    model, tokenizer = writing.load(name)
    settings = writing.sampler(temperature, top_k, top_p, seed)
    ids = tokenizer.encode(prompt or "")
    for now in writing.write(model, tokenizer, ids, writing.whole("the number of tokens", tokens), settings,
                             slowly=pace == SLOWLY):
        rows = writing.candidates(now.logits, settings, tokenizer, now.token)
        drawn = next(row for row in rows if row.chosen)
        said = (f"For token {now.tokens}, {describe(rows[0])}. Drawn was {writing.quoted(drawn.text)}, number "
                f"{drawn.rank:,} by likelihood. {left_over(now.logits, settings)}")
        status = (f"{now.ended or WRITING} {writing.count(now.tokens, 'token')} at {now.tokens_a_second:,.0f} tokens a "
                  "second on this machine, pauses not counted.")
        yield (writing.text_html(prompt, now.text, now.last), by(status), writing.bars_html(rows), common.said(said),
               common.formula(writing.cache_line(model, now.cached)))


WRITING, STOPPED = "Writing …", "Stopped."


def by(line: str) -> str:
    """The line below the text, as HTML."""
    return f'<p class="by">{line}</p>'


def stopped(notice: str, status: str) -> tuple[str, str]:
    return without_place(notice), (status or "").replace(WRITING, STOPPED)


def describe(likeliest: writing.Candidate) -> str:
    own, drawn = f"{100 * likeliest.raw:.1f} %", f"{100 * likeliest.shaped:.1f} %"
    shaped = "and the settings leave it there" if own == drawn else f"which the settings turn into {drawn}"
    return f"the model gives {writing.quoted(likeliest.text)} the most, {own}, {shaped}"


def left_over(logits, settings) -> str:
    remark = writing.remarks(settings, len(logits))
    n = writing.can_be_drawn(logits, settings)
    return f"{n:,} of {len(logits):,} tokens can be drawn." + (f" {remark}" if remark else "")


def opened(request: gr.Request):
    """The state of the address: what is wrong with it, notice, controls, the model's facts, and what look shows.

    With the settings of the model's card the text that the card holds is shown, so that the page opens with one.
    """
    everything = request is not None and request.query_params.get("top_k") == ""  # the field is empty: all tokens stay
    values, problem = common.read_query(request, {**START, "top_k": ""} if everything else START, {"model": MODELS},
                                        LIMITS)
    values["top_k"] = None if everything else values["top_k"]
    *_, (notice, text, status, bars, said, formula) = look(*(values[key] for key in (
        "model", "prompt", "temperature", "top_k", "top_p", "seed")))
    samples = pretrained.card(values["model"]).get("samples") if not notice else None
    if samples and values == {**START, "model": values["model"]}:
        sample = samples[PROMPTS.index(values["prompt"])]
        text = writing.text_html(values["prompt"], sample.removeprefix(values["prompt"]))
        status = by("This text stands in the model's card, written with these settings. Press Write to see it written.")
    return (common.notice(problem, note=True), notice, *values.values(), facts(values["model"]),
            text, status, bars, said, formula)


def next_tokens(model: str = "deepseek-mini", prompt: str = PROMPTS[1], temperature: float = TEMPERATURE,
                top_k: int | None = TOP_K, top_p: float = 1.0) -> dict:
    """Give the likeliest next tokens after a prompt, by a small model that was really trained.

    Args:
        model: gpt-mini or deepseek-mini (both have read Shakespeare alone), or smollm2-135m-instruct.
        prompt: the text to go on from; the minis hold 256 tokens.
        temperature: below 1 sharpens, above 1 flattens; 0 takes the likeliest, always.
        top_k: only the k likeliest stay; null keeps all.
        top_p: of those, the fewest that reach p together.

    Returns:
        prompt_tokens; candidates: rank, id, text, own (the model's own probability) and drawn_with (the one after the
        settings) of the ten likeliest; can_be_drawn: how many tokens the settings leave; vocab_size.
    """
    loaded, tokenizer = loaded_by_name(model)
    ids, settings = tokenizer.encode(prompt), writing.sampler(temperature, top_k, top_p)
    logits = writing.next_logits(loaded, ids)
    rows = [{"rank": c.rank, "id": c.id, "text": c.text, "own": c.raw, "drawn_with": c.shaped}
            for c in writing.candidates(logits, settings, tokenizer)]
    return {"prompt_tokens": len(ids), "candidates": rows, "can_be_drawn": writing.can_be_drawn(logits, settings),
            "vocab_size": len(logits)}


def write_text(model: str = "deepseek-mini", prompt: str = PROMPTS[1], tokens: int = 40,
               temperature: float = TEMPERATURE, top_k: int | None = TOP_K, top_p: float = 1.0,
               seed: int = SAMPLE_SEED) -> dict:
    """Let a small trained model go on from a prompt: at most 200 tokens and 30 seconds.

    Args:
        model, prompt, temperature, top_k, top_p: as next_tokens has them.
        tokens: how many to write, 1 to 200.
        seed: the same seed draws the same text.

    Returns:
        text (without the prompt), tokens (how many were written) and ended (why it stopped).
    """
    if not 1 <= tokens <= writing.MAX_NEW_TOKENS:
        raise ValueError(f"tokens must be from 1 to {writing.MAX_NEW_TOKENS}, not {tokens}")
    loaded, tokenizer = loaded_by_name(model)
    settings = writing.sampler(temperature, top_k, top_p, seed)
    *_, last = writing.write(loaded, tokenizer, tokenizer.encode(prompt), tokens, settings)
    return {"text": last.text, "tokens": last.tokens, "ended": last.ended}


def loaded_by_name(name: str):
    """A model of this page. ValueError for any other name: a program may not open files or folders with it."""
    one_of("model", name, MODELS)
    return writing.load(name)


API = (next_tokens, write_text)


def build(demo: gr.Blocks) -> None:
    common.question("What could come next, and what is drawn?",
                    "A language model gives each token of its vocabulary a probability. The settings reshape these, "
                    "one token is drawn and added, and the model reads on. The minis have read Shakespeare alone; "
                    "SmolLM2 is a small real language model.")
    # Two rows, so that on a phone too the settings stand right above the bars that they move.
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            model = gr.Dropdown(MODELS, value=START["model"], label="Model", filterable=False)
            about = gr.Markdown()
            prompt = gr.Textbox(START["prompt"], label="Prompt", lines=2)
            tokens = gr.Slider(1, writing.MAX_NEW_TOKENS, START["tokens"], step=1, label="Tokens to write")
            pace = gr.Radio((SLOWLY, AT_ONCE), value=SLOWLY, label="Pace")
            with gr.Row():
                start = gr.Button("Write", variant="primary", min_width=100)
                stop = gr.Button("Stop", variant="stop", min_width=100)
            notice = common.notice_box()  # on the last input, or the place in the line
        with gr.Column(scale=2, min_width=300):
            remark = common.notice_box()  # on the address, which stays
            text = gr.HTML(css_template=writing.CSS, elem_classes="result", elem_id="written")
            status = gr.HTML(css_template=writing.CSS, elem_classes="result", elem_id="status")
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            temperature = gr.Slider(0, HOTTEST, START["temperature"], step=0.05, label="Temperature",
                                    info="Below 1 sharpens, above 1 flattens; 0 takes the likeliest, always.")
            top_k = gr.Number(START["top_k"], label="Top-k", info="Only the k likeliest stay; empty keeps all.")
            top_p = gr.Slider(LEAST_P, 1, START["top_p"], step=0.05, label="Top-p",
                              info="Of those, the fewest that reach p together.")
            seed = gr.Number(START["seed"], label="Seed", info="The same seed draws the same text.")
        with gr.Column(scale=2, min_width=300):
            bars = gr.HTML(css_template=writing.CSS, elem_classes="result", elem_id="bars")
            said = gr.HTML(elem_classes="result", elem_id="said")
            formula = gr.HTML(elem_classes="result", elem_id="formula")
    controls = {"model": model, "prompt": prompt, "tokens": tokens, "temperature": temperature, "top_k": top_k,
                "top_p": top_p, "seed": seed}
    common.try_this((what, common.link("", **state)) for what, state in TRY)
    common.copy_link_button(controls)
    common.lesson("`course/01_architecture/01_journey_of_a_token.ipynb` follows five tokens through such a model, up "
                  "to the probabilities above.")

    settings = [temperature, top_k, top_p, seed]
    shown = [text, status, bars, said, formula]
    writer = start.click(in_line(write, noticed(5)), [model, prompt, tokens, *settings, pace], [notice, *shown],
                         api_name="write", **common.GENERATION)
    start.click(None, js="() => document.getElementById('written').scrollIntoView({block: 'nearest'})")  # on a phone
    stop.click(None, cancels=[writer]).then(stopped, [notice, status], [notice, status], api_name="stop",
                                            **common.FIGURES)
    # A changed setting also ends the text that was begun with another. In two steps, since one that cancels and
    # computes fails in Gradio 6.31; and by `change`, since a text box's `input` misses what is pasted or deleted.
    moved = [model.input, prompt.change, *(control.input for control in settings)]
    gr.on(moved, None, cancels=[writer]).then(look, [model, prompt, *settings], [notice, *shown], api_name="look",
                                              **common.FIGURES)
    model.input(facts, model, about, api_name="facts", **common.FIGURES)
    demo.load(opened, None, [remark, notice, *controls.values(), about, *shown], api_name="open_playground",
              **common.FIGURES)


if __name__ == "__main__":
    from apps import playground, starting

    starting.run_alone(playground)
