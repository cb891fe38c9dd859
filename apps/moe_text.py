"""MoE lab, second part: a text of the learner's own, each token in the colour of its expert, and what that proves."""

from __future__ import annotations

import functools
import html

import gradio as gr
import torch

from apps import common, writing
from apps.components import Chart
from llm_core import data, plots, presets, routed_text
from llm_core.model import LanguageModel

MODEL = "deepseek-mini"
CONFIG = presets.get(MODEL)
BLOCKS = list(range(CONFIG.n_dense_layers, CONFIG.n_layers))
ROUTERS = ["trained", "untrained"]
START = {"text": "O Romeo, Romeo! wherefore art thou Romeo? Deny thy father and refuse thy name.", "router": "trained",
         "block": 1}
MOST_CHARACTERS = 2000
HELD_OUT_TEXTS = 8  # of max_seq_len tokens each

WHY = {
    "text": "another text.",
    "router": "the same model, trained or with random weights.",
    "block": "each block has a router of its own, and experts of its own.",
}
CSS = """
.routed {display: flex; flex-wrap: wrap; gap: 3px; max-height: 22rem; overflow-y: auto; padding: 2px; margin: 0;
  list-style: none}
.routed li {display: block; text-align: center; padding: 0.15rem 0.4rem; border-radius: 0.35rem; line-height: 1.3;
  margin: 0}
.routed b {display: block; font-weight: 600; white-space: pre-wrap; overflow-wrap: anywhere; color: inherit}
.routed small {font-size: 0.8rem; font-variant-numeric: tabular-nums; color: inherit}
.long {max-height: 24rem; overflow-y: auto}
"""


@functools.cache
def models() -> dict[str, LanguageModel]:
    """The trained model and the same with random weights, shared by all visitors; nothing may change them."""
    trained, _ = writing.load(MODEL)
    return {"trained": trained, "untrained": routed_text.untrained(trained.config)}


@functools.lru_cache(maxsize=32)
def read(text: str) -> tuple[list[int], list[str]]:
    """Ids and pieces of a text. Special tokens that are typed are ordinary text. ValueError for none or too many."""
    _, tokenizer = writing.load(MODEL)
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"the text has {len(text):,} characters; the page takes {MOST_CHARACTERS:,}")
    ids = tokenizer.encode(text)
    if not ids:
        raise ValueError("the text is empty; type a word to see its expert")
    return ids, tokenizer.pieces(ids)


@functools.lru_cache(maxsize=64)
def routed(text: str, router: str) -> dict[int, routed_text.RoutedText]:
    return routed_text.route(models()[router], read(text)[0])


@functools.lru_cache(maxsize=32)
def bits_of(text: str) -> dict[str, dict[int, float]]:
    return routed_text.information(models(), torch.tensor([read(text)[0]]))


@functools.cache
def held_out_bits() -> dict[str, dict[int, float]]:
    """The same for text that the model has never seen. OSError if the plays are not there."""
    _, tokenizer = writing.load(MODEL)
    n = CONFIG.max_seq_len
    ids = tokenizer.encode("".join(data.shakespeare().held_out)[:12 * HELD_OUT_TEXTS * n])[:HELD_OUT_TEXTS * n]
    return routed_text.information(models(), torch.tensor(ids).view(-1, n))


def choices(experts: list[int], weights: list[float]) -> str:
    """"expert 0 with 0.41, expert 5 with 0.32": best first."""
    return ", ".join(f"expert {e} with {w:.2f}" for e, w in zip(experts, weights, strict=True))


def coloured(pieces: list[str], found: routed_text.RoutedText) -> str:
    """The text, each token in the colour of its first choice, whose number stands below it."""
    items = []
    for piece, experts, weights in zip(pieces, found.experts, found.weights, strict=True):
        paper, ink = plots.expert_colour(experts[0])
        items.append(f'<li style="background:{paper};color:{ink}" title="{html.escape(choices(experts, weights))}">'
                     f"<b>{html.escape(writing.visible(piece))}</b><small>{experts[0]}</small></li>")
    return (f'<ol class="routed" tabindex="0" aria-label="The text, token by token, with the number of its expert">'
            f'{"".join(items)}</ol>')


def token_table(pieces: list[str], found: routed_text.RoutedText) -> str:
    rows = [(str(t), writing.visible(piece), *(f"{e} ({w:.3f})" for e, w in zip(experts, weights, strict=True)))
            for t, (piece, experts, weights) in enumerate(zip(pieces, found.experts, found.weights, strict=True))]
    places = ("first choice", "second", "third", "fourth", "fifth", "sixth")[:len(found.experts[0])]
    return '<div class="long">' + common.table(
        ("position", "token", *places), rows, "Expert, and in brackets its gate weight. Choices are by score plus "
        "bias, weights by the score alone, so a later choice may weigh more.", words=(1,)) + "</div>"


def bits_table(bits: dict[str, dict[int, float]], caption: str) -> str:
    rows = [(name, *(f"{value:.2f}" for value in row.values())) for name, row in bits.items()]
    return common.table(("bits, of 3 at most", *(f"block {layer}" for layer in BLOCKS)), rows, caption)


def explain(now: dict, before: dict | None, pieces: list[str], found: routed_text.RoutedText) -> str:
    what = ""
    changed = [name for name in now if before and now[name] != before[name]]
    if len(changed) == 1 and changed[0] != "text":
        name = changed[0]
        what = f"{name} went from {before[name]} to {now[name]}: {WHY[name]} "
    busy = found.load.index(max(found.load))
    return (f"{what}In block {found.layer} of the {now['router']} model, {writing.count(len(pieces), 'token')} made "
            f"{sum(found.load):,} visits. Expert {busy} got the most, {max(found.load):,}, "
            f"{found.imbalance:.2f} times the mean.")


def about_bits(now: dict) -> str:
    """Whether the colours prove anything, in this text and in a longer one."""
    bits, block = bits_of(now["text"]), now["block"]
    trained, untrained, chance = (bits[name][block] for name in ("trained", "untrained", "by chance"))
    n = len(read(now["text"])[0])
    return common.said(
        f"In your {writing.count(n, 'token')} a token's id tells {trained:.2f} bits about its experts in block "
        f"{block}; in an untrained model {untrained:.2f}, and with ids shuffled, by chance, {chance:.2f}. "
        + ("So short a text looks specialised by chance alone. " if chance > trained / 2 else "")
        + "A coloured text proves nothing until an untrained one hangs beside it.")


def held_out() -> tuple:
    """The chart of the longer text, and what is said of it."""
    try:
        bits = held_out_bits()
    except OSError as missing:
        return gr.skip(), common.said(f"No longer text to measure: {common.sentence(missing)}")
    ahead = [layer for layer in BLOCKS if bits["trained"][layer] > bits["untrained"][layer] + 0.1]
    where = f"only in block {', '.join(map(str, ahead))}" if ahead else "in no block"
    tokens = HELD_OUT_TEXTS * CONFIG.max_seq_len
    return plots.information_bars(bits), common.said(
        f"{tokens:,} tokens that no model was trained on: the trained router is clearly ahead of the untrained one "
        f"{where}. Equal tokens have similar vectors, so any matrix sends them to similar experts.") + bits_table(
        bits, f"Mutual information of token and expert, {tokens:,} held-out tokens")


@common.sentence_for(7)
def see(before, text, router, block):
    """All that is shown of a text: the coloured text, what is said, loads, bits, tokens; the state for the next."""
    now = {"text": text or "", "router": router, "block": int(block)}
    _, pieces = read(now["text"])
    found = routed(now["text"], router)[now["block"]]
    visits = f"visits of experts 0 to {len(found.load) - 1}: {', '.join(map(str, found.load))}"
    return (coloured(pieces, found), common.said(explain(now, before, pieces, found)) + common.formula(visits),
            plots.load_bars(found.load, colours=True), about_bits(now),
            bits_table(bits_of(now["text"]), "Mutual information of token and expert, your text"),
            token_table(pieces, found), now)


def opened(request: gr.Request):
    """The state of the address; what it shows only if this part is the one that is asked for."""
    values, problem = common.read_query(request, START, {"router": ROUTERS, "block": BLOCKS})
    if request.query_params.get("tab") != "text":
        return *values.values(), *(gr.skip() for _ in range(8))
    said, *rest = see(None, *values.values())
    if said:
        _, *rest = see(None, *(values | {"text": START["text"]}).values())
    return *values.values(), said or common.notice(problem, note=True), *rest


def moved(before, text, router, block):
    """What is shown when a control was moved; nothing is done where the page itself has set the text."""
    if before == {"text": text or "", "router": router, "block": int(block)}:
        return tuple(gr.skip() for _ in range(8))
    return see(before, text, router, block)


def first_look(before, *values):
    """What is shown when this part is opened, unless it was before."""
    return see(before, *values) if before is None else tuple(gr.skip() for _ in range(8))


def build(demo: gr.Blocks, tab: gr.Tab, name: gr.Textbox):
    moe = CONFIG.moe
    gr.Markdown(f"`{MODEL}` was trained on Shakespeare. Its blocks {BLOCKS[0]} to {BLOCKS[-1]} have "
                f"{moe.n_routed_experts} experts each, of which a token chooses {moe.n_experts_per_token}. Type a text "
                "and see where its tokens go: the colour and the number are the first choice.")
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            text = gr.Textbox(START["text"], label="Your text", elem_id="text", lines=3, max_lines=8,
                              max_length=MOST_CHARACTERS, info=f"up to {CONFIG.max_seq_len} tokens")
            block = gr.Radio(BLOCKS, value=START["block"], label="Block", elem_id="block")
            router = gr.Radio(ROUTERS, value=START["router"], label="Model", elem_id="router",
                              info="untrained: the same config with random weights")
            controls = {"text": text, "router": router, "block": block}
            common.copy_link_button({"tab": name, **controls})
        with gr.Column(scale=2, min_width=300, elem_classes="shown"):
            tokens = gr.HTML(css_template=CSS, elem_id="routed")
            said = gr.HTML(elem_id="routed-said")
            gr.Markdown("### Visits of each expert, in its colour")
            bars = Chart(elem_id="text-load")
    gr.Markdown("### Do the experts have a subject?")
    about = gr.HTML(elem_id="bits-said", elem_classes="shown")
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            bits = gr.HTML(elem_id="bits", elem_classes="shown")
        with gr.Column(scale=1, min_width=300):
            chart = Chart(elem_id="held-out")
            longer = gr.HTML(elem_id="held-out-said")
    with gr.Accordion("Every token, its experts and their gate weights", open=False):
        table = gr.HTML(css_template=CSS, elem_id="tokens", elem_classes="shown")
    gr.HTML(common.formula("I(token; expert) = Σ p(t, e) · log₂( p(t, e) / (p(t) · p(e)) ), in bits: 0 if the id tells "
                           "nothing, log₂ 8 = 3 if each id always goes to one expert alone"))
    before = gr.State(None)
    outputs = [notice, tokens, said, bars, about, bits, table, before]
    inputs = [before, *controls.values()]
    gr.on([text.change, router.input, block.input], moved, inputs, outputs, api_name="moe_text", **common.FIGURES)
    tab.select(first_look, inputs, outputs, api_name="moe_text_first", **common.FIGURES)
    loaded = demo.load(opened, None, [*controls.values(), *outputs], api_name="moe_text_open", **common.FIGURES)
    # After the text, which need not wait for this.
    said.change(held_out, None, [chart, longer], api_name="moe_held_out", **common.FIGURES)
    return loaded
