"""The MLA lab's last part: a trained model's keys and values through a latent that is made smaller and smaller.

What is shown at once was recorded (llm_core.shrinking); the button measures the same here, with the learner's prompt.
"""

from __future__ import annotations

import functools
import html

import gradio as gr

from apps import common, writing
from apps.components import Chart
from apps.line import in_line, noticed
from llm_core import accounting, low_rank, plots, shrinking
from llm_core.model import LanguageModel
from llm_core.pretrained import SMOLLM2
from llm_core.shrinking import SUBJECTS

METHODS = {"plain": "from the weights alone (plain SVD)", "data": "from what the model computes on a text"}
START = {"model": SMOLLM2, "method": "plain", "rank": 256, "prompt": SUBJECTS[SMOLLM2].prompt}
MOST_LETTERS, NEW_TOKENS = 200, 24  # of the prompt, and of what is written
CSS = writing.CSS + ".written {height: 7.5rem}"

_seen: dict[tuple[str, str], dict[int, float]] = {}  # what was measured since the server started: rank -> loss


@functools.cache
def directions(name: str, method: str) -> list[low_rank.Factor]:
    """Found once a server, from the model that all pages share."""
    return shrinking.directions(*writing.load(name), method)


@functools.lru_cache(maxsize=4)
def shrunk(name: str, method: str, rank: int) -> LanguageModel:
    """The model whose keys and values go through `rank` numbers; it shares its other weights with the whole one."""
    return shrinking.shrunk(writing.load(name)[0], directions(name, method), rank)


@functools.lru_cache(maxsize=64)
def whole_text(name: str, prompt: str) -> str:
    """What the model writes as it was trained."""
    *_, last = _write(name, writing.load(name)[0], prompt)
    return last.text


def _write(name: str, model: LanguageModel, prompt: str):
    tokenizer = writing.load(name)[1]
    return writing.write(model, tokenizer, tokenizer.encode(prompt), NEW_TOKENS, writing.sampler(0))


def curve(name: str, rank: int):
    recorded = shrinking.recorded(name)
    return plots.loss_against_rank(
        {method: [(m.rank, m.loss) for m in rows] for method, rows in recorded.items()},
        {method: sorted(_seen.get((name, method), {}).items()) for method in METHODS}, rank,
        recorded["plain"][0].loss)


def sentence(name: str, method: str, rank: int) -> str:
    here = {m.rank: m for m in shrinking.recorded(name)[method]}
    whole, now = here[SUBJECTS[name].ranks[0]], here[rank]
    small, own = shrinking.cache_bytes(name, rank), shrinking.cache_bytes(name)
    measured = _seen.get((name, method), {}).get(rank)
    said = (f"Measured here: {measured:.3f} nats a token." if measured is not None else
            "This was recorded; the button measures it here.")
    return common.said(
        f"With {rank} numbers a token and layer, found {METHODS[method]}, {name} would cache {small:,} bytes a token "
        f"instead of {own:,}, and its loss on text that it is not fitted to goes from {whole.loss:.3f} to "
        f"{now.loss:.3f} nats a token. {said} {why(name, method, rank)}")


def why(name: str, method: str, rank: int) -> str:
    config = shrinking.config_of(name)
    if rank == low_rank.full_rank(config):
        return "As many numbers as the keys and values are: nothing is lost, and nothing saved."
    if rank >= config.d_model:
        return (f"Nothing is lost: keys and values are made from the token's {config.d_model} numbers, so they can "
                "never hold more.")
    if method == "plain":
        return "Plain SVD keeps what is large in the weights, whether or not a text ever asks for it."
    return "The directions in which real keys and values vary are kept, so fewer of them do."


def cache_note(name: str, method: str, rank: int, measured: bool) -> str:
    """The formula; and where the model is built as MLA, the bytes of its real cache."""
    line = accounting.cache_formula(low_rank.latent_config(shrinking.config_of(name), rank))
    if shrinking.config_of(name).rope:
        more = ("This model turns its keys with RoPE, so they must be rebuilt from the latent and turned at each step; "
                "nothing can be absorbed. MLA's rope key avoids that.")
    elif measured:
        more = (f"Built as real MLA here, absorbed while it writes: its cache takes "
                f"{shrunk(name, method, rank).new_cache(1, 1).nbytes:,} bytes a token in its tensors of 32 bits.")
    else:
        more = "This model has no RoPE, so the button builds it as real MLA, which absorbs while it writes."
    return common.formula(line) + common.said(more)


def table(name: str, method: str) -> str:
    """Every rank: cache, what the directions keep, losses, and what is written, all recorded."""
    recorded, own = shrinking.recorded(name), shrinking.cache_bytes(name)
    rows = []
    for plain, data in zip(recorded["plain"], recorded["data"]):
        small = shrinking.cache_bytes(name, plain.rank)
        said = (plain if method == "plain" else data).text.replace("\n", "↵")
        rows.append((f"{plain.rank}", f"{small:,}", accounting.percent(small, own), f"{100 * plain.kept:.1f} %",
                     f"{100 * data.kept:.1f} %", f"{plain.loss:.3f}", f"{data.loss:.3f}", said))
    prompt = SUBJECTS[name].prompt.replace("\n", "↵")
    return common.table(
        ("rank", "cache, bytes a token", "of its own", "kept: plain", "kept: from data", "loss: plain",
         "loss: from data", f"written after “{prompt}”, {method}"), rows,
        f"{name}, recorded. 16 bits a number. Kept: of the squares of the weights (plain) or of real keys and values "
        "(data). Loss: nats a token.", words=(0, 7))


def texts(name: str, method: str, rank: int, prompt: str) -> tuple[str, str, str]:
    """The recorded texts of the whole and the shrunk model and a line about them; empty for another prompt."""
    if prompt != SUBJECTS[name].prompt:
        return writing.text_html(prompt), writing.text_html(prompt), by("Press the button: this prompt is new.")
    whole, *_ = shrinking.recorded(name)["plain"]
    [now] = [m for m in shrinking.recorded(name)[method] if m.rank == rank]
    return (writing.text_html(prompt, whole.text), writing.text_html(prompt, now.text),
            by("Recorded. The button lets both write here, and measures the loss."))


def by(line: str) -> str:
    return f'<p class="by">{html.escape(line)}</p>'


def checked(name: str, method: str, rank: int, prompt: str) -> None:
    shrinking.check(name, rank)
    if len(prompt or "") > MOST_LETTERS:
        raise ValueError(f"the prompt has {len(prompt):,} letters, and this page reads {MOST_LETTERS} at most")


@common.sentence_for(7)
def look(name, method, rank, prompt):
    """All that is known without running a model. Outputs in build's order."""
    checked(name, method, rank, prompt)
    seen = rank in _seen.get((name, method), {})
    return (curve(name, rank), sentence(name, method, rank), cache_note(name, method, rank, seen),
            *texts(name, method, rank, prompt), table(name, method))


@common.sentence_for(6)
def measure(name, method, rank, prompt):
    """Both models write, then the loss is measured. Outputs: chart, sentence, note, texts, status."""
    checked(name, method, rank, prompt)

    def shown(first=None, second=None, line=""):
        return *[gr.skip()] * 3, first or gr.skip(), second or gr.skip(), by(line)

    if not writing.is_loaded(name):
        yield shown(line=f"Reading {name} from the disk, once …")
    writing.load(name)
    yield shown(line="Looking for its directions, once for each way, which may take half a minute …")
    small = shrunk(name, method, rank)
    for now in _write(name, small, prompt):
        yield shown(writing.text_html(prompt), writing.text_html(prompt, now.text, now.last), f"Writing … {now.tokens}")
    both = writing.text_html(prompt, whole_text(name, prompt)), writing.text_html(prompt, now.text)
    yield shown(*both, "Measuring the loss …")
    _, tokenizer = writing.load(name)
    loss = shrinking.mean_loss(small, shrinking.held_out(name, tokenizer))
    _seen.setdefault((name, method), {})[rank] = loss
    count = shrinking.held_out(name, tokenizer)[:, 1:].numel()
    yield (curve(name, rank), sentence(name, method, rank), cache_note(name, method, rank, True), *both,
           by(f"Both written here: always the likeliest token, {NEW_TOKENS} tokens at most. Loss over {count:,} "
              "tokens of held-out text."))


def latent_curve(model: str = SMOLLM2) -> dict:
    """Recorded losses of a trained model whose keys and values go through a smaller and smaller latent.

    model: "smollm2-135m-instruct" or "gpt-mini". Comes back: own_cache_bytes (a token, 16 bits), and for "plain" (SVD
    of the weights) and "data" (principal components of real keys and values) a list, the whole rank first, of rank,
    cache_bytes, kept (share of squares, 0 to 1), loss (nats a token, held-out text) and text (after the prompt).
    """
    rows = {method: [{"rank": m.rank, "cache_bytes": shrinking.cache_bytes(model, m.rank), "kept": m.kept,
                      "loss": m.loss, "text": m.text} for m in measured]
            for method, measured in shrinking.recorded(model).items()}
    return {"model": model, "prompt": SUBJECTS[model].prompt, "own_cache_bytes": shrinking.cache_bytes(model), **rows}


def state(request: gr.Request | None) -> tuple[dict, str]:
    """The controls' values for an address, and a sentence about what in it could not be used."""
    chosen, problem = common.read_query(request, {"model": START["model"]}, {"model": list(SUBJECTS)})
    subject = SUBJECTS[chosen["model"]]
    others = {**START, "prompt": subject.prompt}
    del others["model"]
    values, more = common.read_query(request, others, {"method": list(METHODS), "rank": subject.ranks})
    if len(values["prompt"]) > MOST_LETTERS:
        values["prompt"] = values["prompt"][:MOST_LETTERS]
        more = f"{more} From the address: the prompt was cut to {MOST_LETTERS} letters."
    return {**chosen, **values}, f"{problem} {more}".strip()


def build(demo: gr.Blocks) -> dict[str, gr.components.Component]:
    """Place the part below what is there, and wire it. Its controls come back, by their names in the address."""
    shown = look(*START.values())[1:]
    gr.Markdown("## How small may a trained model's latent be?\n\nA model with ordinary heads has no latent. But one "
                "can be found afterwards: the best few directions of all its keys and values in a layer (singular "
                "value decomposition, SVD). Fewer directions, a smaller cache, and at some rank the model breaks.")
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            model = gr.Radio(list(SUBJECTS), value=START["model"], label="Model", elem_id="model")
            method = gr.Radio([(label, name) for name, label in METHODS.items()], value=START["method"],
                              label="Directions", elem_id="method")
            rank = gr.Radio(list(SUBJECTS[START["model"]].ranks), value=START["rank"], elem_id="rank",
                            label="Rank: numbers kept a token and layer")
            prompt = gr.Textbox(START["prompt"], label="Prompt", elem_id="prompt", max_length=MOST_LETTERS, lines=2)
            button = gr.Button("Shrink it here, and write", variant="primary", elem_id="measure")
            gr.Markdown("The first press reads the model from the disk and finds the directions: up to half a minute "
                        "for SmolLM2 (540 MB), about two seconds for gpt-mini. After that it takes a few seconds.")
        with gr.Column(scale=2, min_width=300, elem_classes="result"):
            gr.Markdown("### Loss over the rank")
            chart = Chart(shown[0], elem_id="curve")
            said = gr.HTML(shown[1], elem_id="said")
            with gr.Row():
                with gr.Column(min_width=250):
                    gr.Markdown("**As it was trained**")
                    whole = gr.HTML(shown[3], css_template=CSS, elem_id="whole")
                with gr.Column(min_width=250):
                    gr.Markdown("**With the smaller latent**")
                    small = gr.HTML(shown[4], css_template=CSS, elem_id="small")
            status = gr.HTML(shown[5], css_template=CSS, elem_id="status")
    with gr.Column(elem_classes="result"):
        note = gr.HTML(shown[2], elem_id="note")
        listed = gr.HTML(shown[6], elem_id="ranks")
    controls = {"model": model, "method": method, "rank": rank, "prompt": prompt}
    outputs = [notice, chart, said, note, whole, small, status, listed]

    def chosen(name, method, rank, _):
        subject = SUBJECTS[name]
        rank = min(subject.ranks, key=lambda r: abs(r - rank))
        return (gr.Radio(choices=list(subject.ranks), value=rank), subject.prompt,
                *look(name, method, rank, subject.prompt))

    def opened(request: gr.Request):
        values, problem = state(request)
        said, *rest = look(*values.values())
        ranks = gr.Radio(choices=list(SUBJECTS[values["model"]].ranks), value=values["rank"])
        return (*(values | {"rank": ranks}).values(), said or common.notice(problem, note=True), *rest)

    values = list(controls.values())
    moved = [method.input, rank.input, prompt.submit, prompt.blur]
    running = button.click(in_line(measure, noticed(6)), values, outputs[:-1], api_name="mla_measure",
                           **common.GENERATION)
    # A changed control ends what is still being written for another one; cancelling and drawing are two steps.
    gr.on(moved, None, cancels=[running]).then(look, values, outputs, api_name="mla_rank", **common.FIGURES)
    model.input(None, cancels=[running]).then(chosen, values, [rank, prompt, *outputs], api_name="mla_model",
                                              **common.FIGURES)
    demo.load(opened, None, [*values, *outputs], api_name="mla_shrink_open", **common.FIGURES)
    return controls
