"""MTP lab: which row guesses what, guesses checked as a text is written, and when a second row of a pass is free."""

from __future__ import annotations

import html

import gradio as gr

from apps import common, mtp_gain, mtp_rows, mtp_writing, writing
from apps.components import Chart, TypedSlider
from apps.limits import MAX_GUESSED_TOKENS
from apps.line import in_line, noticed, without_place
from llm_core import plots, pretrained

TITLE = "MTP lab"
PATH = "/mtp"
SLOWLY, AT_ONCE = "a guess at a time", "as fast as it can"

START = {"text": "The king is dead; long live the king", "depth": 1,
         "prompt": "ROMEO:\nWhat say you of this", "draft": "mtp", "guesses": 1, "tokens": 40, "temperature": 0.0,
         "p": 85, "ahead": 1, "texts": 128, "context": 1024}
SLIDERS = {
    "depth": ("Depth: MTP modules behind the model", 1, 3, 1, "DeepSeek-V3 and deepseek-mini have one"),
    "guesses": ("Guesses a pass, at most", 1, mtp_writing.MAX_GUESSES, 1,
                "the MTP module is applied again to its own output for the second and later ones"),
    "tokens": ("Tokens to write", 1, MAX_GUESSED_TOKENS, 1),
    "p": ("p: guesses that stand, %", 0, 100, 1, "DeepSeek reports 85 to 90 for V3's second token"),
    "ahead": ("Guesses a pass", 1, 4, 1, "each with the same p, on its own"),
}
LIMITS = {name: (least, most) for name, (_, least, most, *_) in SLIDERS.items()}
CHOICES = {"draft": list(mtp_writing.DRAFTS), "texts": mtp_gain.BATCHES, "context": mtp_gain.CONTEXTS}
WRITE = ("prompt", "draft", "guesses", "tokens", "temperature")
TRY = (
    ("One text alone: what the second row costs DeepSeek-V3", {"texts": 1}),
    ("Four guesses by the same small module, applied to itself", {"guesses": 4, "tokens": 60}),
    ("A table that only counts, as the draft, drawing at temperature 1", {"draft": "bigram", "guesses": 2,
                                                                         "temperature": 1}),
)


# The events --------------------------------------------------------------------------------------------------------

def settings_of(prompt, draft, guesses, tokens, temperature) -> tuple[mtp_writing.Settings, str]:
    spans = {name: LIMITS[name] for name in ("guesses", "tokens")}
    now, note = common.within({"guesses": guesses, "tokens": tokens}, spans)
    return mtp_writing.Settings(prompt or "", draft, now["guesses"], now["tokens"], float(temperature or 0), 0), note


@common.sentence_for(2)
def align(text, depth):
    """The table of rows for the learner's text."""
    now, note = common.within({"depth": depth}, {"depth": LIMITS["depth"]})
    table, sentence = mtp_rows.draw(text, now["depth"])
    return table, common.said(note) * bool(note) + sentence


@common.sentence_for(4)
def gain(before, p, ahead, texts, context):
    """Outputs: chart, text, table, state."""
    now, note = common.within({"p": p, "ahead": ahead}, {name: LIMITS[name] for name in ("p", "ahead")})
    now |= {"texts": texts, "context": context}
    if now == before:
        return (*(gr.skip() for _ in range(3)), now)
    return *mtp_gain.draw(now, before, note), now


WRITING, STOPPED = "Writing …", "Stopped."
COMPARING = "Now as many tokens without guesses, to compare …"


@common.sentence_for(4)
def write(prompt, draft, guesses, tokens, temperature, pace):
    """Stream a text. Outputs: text, status, sentence, figures."""
    settings, note = settings_of(prompt, draft, guesses, tokens, temperature)
    if draft == "bigram":
        yield gr.skip(), by("Counting which token follows which in ten plays, which takes a second or two, once."), \
            gr.skip(), gr.skip()
    for run in mtp_writing.write(settings, slowly=pace == SLOWLY):
        yield shown(run, settings, note)


def shown(run, settings, note=""):
    status = note + (run.ended or WRITING)
    if run.ended and run.plain is None:
        status += f" {COMPARING}"
    return (mtp_writing.text_html(settings.prompt, run), by(status), mtp_writing.told(run, settings),
            mtp_writing.figures(run))


def by(line: str) -> str:
    return f'<p class="by">{html.escape(line)}</p>'


def stopped(notice: str, status: str) -> tuple[str, str]:
    status = (status or "").replace(WRITING, STOPPED).replace(COMPARING, "Stopped before the comparison.")
    return without_place(notice), status


@common.sentence_for(4)
def at_first(*values):
    """The text of the address's state, written at once."""
    settings, note = settings_of(*values)
    return shown(mtp_writing.written(settings), settings, note)


# How good a draft is ------------------------------------------------------------------------------------------------

UNTAUGHT = "MTP module, untaught"


def from_card() -> dict[str, tuple[float, float]]:
    card = pretrained.card(mtp_writing.MODEL)
    before = {UNTAUGHT: card["drafting"]["before"]} if "drafting" in card else {}  # whose weights are gone
    found = {mtp_writing.DRAFTS["mtp"]: card["second_token"]["MTP"], **before, **card["second_token"]}
    return {name: (a["greedy"], a["expected"]) for name, a in found.items() if name != "MTP"}


@common.sentence_for(2)
def known():
    """Chart and table of what the model's card says."""
    return plots.acceptance_bars(from_card()), acceptance_table()


def acceptance_table(here=None) -> str:
    """The card's figures, and those measured on this machine beside them."""
    places = pretrained.card(mtp_writing.MODEL)["second_token"]["MTP"]["positions"]
    head, rows = ["draft", "likeliest the same", "overlap", "places"], []
    for name, (greedy, expected) in from_card().items():
        row = [name, f"{100 * greedy:.1f} %", f"{100 * expected:.1f} %", f"{places:,}"]
        if here and name not in here:
            row += ["", "", ""]
        elif here:
            row += [f"{100 * here[name].greedy:.1f} %", f"{100 * here[name].expected:.1f} %",
                    f"{here[name].positions:,}"]
        rows.append(row)
    more = ["likeliest the same, here", "overlap, here", "places, here"] if here else []
    return common.table(head + more, rows, "From the model's card"
                        + (", and measured on this machine just now" if here else "") + "; held-out text")


@common.sentence_for(1)
def measure():
    return acceptance_table(mtp_writing.measured_here())


# The page -----------------------------------------------------------------------------------------------------------

def state(request: gr.Request | None) -> tuple[dict, str]:
    values, problem = common.read_query(request, START, CHOICES, {**LIMITS, "temperature": (0, 2)})
    values["text"], values["prompt"] = values["text"][:400], values["prompt"][:1000]
    return values, problem


def build(demo: gr.Blocks) -> None:
    first = gain(None, *(START[name] for name in mtp_gain.CONTROLS))[1:]
    common.question("Can a model write two tokens at once, and stay right?",
                    "A small module behind the model, for multi-token prediction (MTP), guesses the token *after* the "
                    "next one. The model then checks the guess in the same pass in which it reads it, and what it "
                    "would not have written itself is thrown away. This is *speculative decoding*.")
    remark = common.notice_box()
    gr.Markdown("### Who guesses what")
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            text = gr.Textbox(START["text"], label="A short text of yours", elem_id="text-box", max_length=400,
                              info=f"its first {mtp_rows.MAX_TEXT} tokens are taken")
            depth = common.whole_slider("depth", START["depth"], SLIDERS["depth"])
        with gr.Column(scale=2, min_width=300):
            wrong_text = common.notice_box()
            rows = gr.HTML(css_template=mtp_writing.CSS, elem_classes="result", elem_id="rows")
            row_said = gr.HTML(elem_classes="result", elem_id="row-said")
    gr.Markdown("### Guesses, as they are checked")
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            prompt = gr.Textbox(START["prompt"], label="Prompt for deepseek-mini", lines=2, elem_id="prompt",
                                max_length=1000)
            draft = gr.Radio([(label, name) for name, label in mtp_writing.DRAFTS.items()], value=START["draft"],
                             label="Who guesses", elem_id="draft")
            guesses, tokens = (common.whole_slider(name, START[name], SLIDERS[name]) for name in ("guesses", "tokens"))
            temperature = TypedSlider(0, 2, START["temperature"], step=0.1, label="Temperature",
                                      elem_id="temperature", buttons=[],
                                      info="0 is greedy: always the likeliest token")
            pace = gr.Radio((SLOWLY, AT_ONCE), value=SLOWLY, label="Pace", elem_id="pace")
            with gr.Row():
                start = gr.Button("Write", variant="primary", min_width=100, elem_id="write")
                stop = gr.Button("Stop", variant="stop", min_width=100, elem_id="stop")
            wrong_run = common.notice_box()
        with gr.Column(scale=2, min_width=300):
            drafted = gr.HTML(css_template=mtp_writing.CSS, elem_classes="result", elem_id="drafted")
            gr.HTML('<p class="by drafted"><ins>green</ins> a guess that stood · <del>red, struck</del> one that was '
                    'rejected, and behind it the model\'s own token · <del class="vain">dotted, struck</del> guessed '
                    "in vain behind a wrong one · no mark: the model's own</p>", css_template=mtp_writing.CSS)
            status = gr.HTML(css_template=mtp_writing.CSS, elem_classes="result", elem_id="status")
            run_said = gr.HTML(elem_classes="result", elem_id="run-said")
            figures = gr.HTML(elem_classes="result", elem_id="figures")
    gr.Markdown("### How good is a draft? Held-out text tells\n\nWhat a small model writes freely soon repeats itself "
                "and is easy to guess. So both read text that was written by others and that neither has learned. The "
                "module was trained beside the model (*untaught*), and then alone to say what the model says.")
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            again = gr.Button("Measure it here too", elem_id="measure")
            gr.Markdown("510 places of held-out plays, about two seconds.")
            wrong_measure = common.notice_box()
        with gr.Column(scale=2, min_width=300):
            accepted_bars = Chart(elem_id="acceptance")
    accepted = gr.HTML(elem_id="accepted")
    gr.Markdown("### What is it worth in a large model? When the second row is free")
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            p, ahead = (common.whole_slider(name, START[name], SLIDERS[name]) for name in ("p", "ahead"))
            texts = gr.Radio(list(mtp_gain.BATCHES), value=START["texts"], elem_id="texts",
                             label="Texts at once (batch)")
            context = gr.Radio([(f"{n:,}", n) for n in mtp_gain.CONTEXTS], value=START["context"], elem_id="context",
                               label="Tokens in each text")
            controls = {"text": text, "depth": depth, "prompt": prompt, "draft": draft, "guesses": guesses,
                        "tokens": tokens, "temperature": temperature, "p": p, "ahead": ahead, "texts": texts,
                        "context": context}
            common.copy_link_button(controls)
            common.try_this((what, common.link("", **query)) for what, query in TRY)
        with gr.Column(scale=2, min_width=300, elem_classes="result"):
            wrong_gain = common.notice_box()
            lines = Chart(first[0], elem_id="lines")
    gained = gr.HTML(first[1], elem_id="gained", elem_classes="result")
    table = gr.HTML(first[2], elem_id="table", elem_classes="result")
    gr.Markdown("A bound, as a roofline gives it: bytes over bandwidth or arithmetic over peak, whichever takes "
                "longer. DeepSeek-V3 does not fit into one H100; several share its bytes and its arithmetic alike, so "
                "that the ratios stay. Not counted: talk between them, and that neighbouring tokens may choose the "
                "same experts. Llama has no MTP module: it is given one, made of a layer like its own.")
    common.lesson("`course/07_mtp/01_multi_token_prediction.ipynb` builds the module by hand, and "
                  "`02_speculative_decoding.ipynb` beside it proves that checked guesses change nothing. The papers: "
                  "DeepSeek-V3 (arXiv:2412.19437, sections 2.2 and 5.4.3), Leviathan et al. (arXiv:2211.17192).")
    before = gr.State(first[3])
    settings = [controls[name] for name in WRITE]
    written = [wrong_run, drafted, status, run_said, figures]
    gains = [wrong_gain, lines, gained, table, before]

    gr.on([text.submit, text.blur, depth.input], align, [text, depth], [wrong_text, rows, row_said],
          api_name="mtp_rows", **common.FIGURES)
    writer = start.click(in_line(write, noticed(4)), [*settings, pace], written, api_name="mtp_write",
                         **common.GENERATION)
    start.click(None, js="() => document.getElementById('drafted').scrollIntoView({block: 'nearest'})")  # on a phone
    stop.click(None, cancels=[writer]).then(stopped, [wrong_run, status], [wrong_run, status], api_name="mtp_stop",
                                            **common.FIGURES)
    again.click(in_line(measure, noticed(1)), None, [wrong_measure, accepted], api_name="mtp_measure",
                **common.GENERATION)
    gr.on([p.input, ahead.input, texts.input, context.input], gain, [before, p, ahead, texts, context], gains,
          api_name="mtp_gain", **common.FIGURES)

    def opened(request: gr.Request):
        values, problem = state(request)
        return (common.notice(problem, note=True), *values.values(), *align(values["text"], values["depth"]), *known(),
                *gain(None, *(values[name] for name in mtp_gain.CONTROLS)))

    demo.load(opened, None, [remark, *controls.values(), wrong_text, rows, row_said, wrong_measure, accepted_bars,
                            accepted, *gains], api_name="mtp_open",
              **common.FIGURES).then(
        in_line(at_first, noticed(4)), settings, written, api_name="mtp_first", **common.GENERATION)


# For programs -------------------------------------------------------------------------------------------------------

def mtp_drafts(prompt: str = START["prompt"], draft: str = "mtp", guesses: int = 1, tokens: int = 40) -> dict:
    """Let deepseek-mini write greedily after a prompt, with guesses that it checks.

    draft: mtp, bigram or lookup. guesses: a pass, 1 to 4. tokens: to write, 1 to 120. Back comes the text, the marks in
    order (piece of text; own, accepted, rejected or vain), passes, guesses, accepted, and same_as_plain: whether plain
    greedy writing gives the same tokens.
    """
    for name, value in (("guesses", guesses), ("tokens", tokens)):
        least, most = LIMITS[name]
        if not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
    run = mtp_writing.written(mtp_writing.Settings(prompt, draft, guesses, tokens, 0.0, 0))
    count = run.tally
    return {"text": writing.load(mtp_writing.MODEL)[1].decode(run.tokens), "marks": [list(mark) for mark in run.marks],
            "passes": count.passes + 1, "guesses": count.guesses, "accepted": count.accepted,
            "same_as_plain": run.plain == run.tokens}


API = (mtp_gain.mtp_speed_up, mtp_drafts)

if __name__ == "__main__":
    from apps import mtp_lab, starting

    starting.run_alone(mtp_lab)
