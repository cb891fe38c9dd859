"""MLA lab: what latent attention keeps, the two ways it computes, and a trained model whose latent is shrunk."""

from __future__ import annotations

import gradio as gr

from apps import code_box, common, contexts, kv_cache, mla_shrink
from apps.components import Chart
from llm_core import ModelConfig, accounting, cache_layout, plots, presets
from llm_core.as_python import as_python
from llm_core.config import LatentAttentionConfig

TITLE = "MLA lab"
PATH = "/mla"
START = "deepseek-v3"

# Name in the query -> what the slider shows: label, least, greatest, step, hint.
SIZES = {
    "kv_lora_rank": ("Latent (kv_lora_rank, d_c)", 1, 2048, 1, "all that is kept of a token's content, for all heads"),
    "qk_rope_head_dim": ("Rope key (qk_rope_head_dim, d_r)", 0, 256, 2, "kept beside it: the position, for all heads"),
    "n_heads": ("Heads (n_heads)", 1, 256, 1, None),
    "head_dim": ("Width of a head (head_dim)", 2, 512, 2, "of its content key and of its value"),
    "q_lora_rank": ("Query latent (q_lora_rank; 0: none)", 0, 4096, 1, "queries are squeezed too, but never kept"),
}
TOKENS = ("New tokens at once", 1, 1024, 1, "1: the model writes; many: it reads a prompt")
SLIDERS = {"tokens": TOKENS, **SIZES}
LIMITS = {name: (least, most) for name, (_, least, most, *_) in SLIDERS.items()}
COUNTED = {"attention": "what the ways do not share", "whole": "the whole model"}
HELD = {"k": "keys", "v": "values", "latent": "latent", "k_rope": "rope key"}
BITS = 16
H100 = accounting.HARDWARE["h100"]

WHY = {
    "kv_lora_rank": "only MLA keeps a latent, and all heads' keys and values are rebuilt from it.",
    "qk_rope_head_dim": "only MLA keeps a rope key of its own, one for all heads.",
    "n_heads": "MHA keeps a key and a value for each head. MLA's heads all read the same latent, so its cache stays.",
    "head_dim": "keys and values of MHA, GQA and MQA are this wide. MLA's latent has a width of its own.",
    "q_lora_rank": "it changes how many parameters make the queries. Queries are not kept, so no cache sees it.",
    "context": "a token's bytes stay as they are, and each way has more tokens to look at.",
    "tokens": "a latent that is rebuilt serves all new tokens, while absorbing costs more for each of them.",
    "counted": "all that the ways share came or went, by the same amount in each.",
}


def sizes(preset: str) -> dict[str, int]:
    """The sliders' values for a preset; where it has no MLA, one with DeepSeek-V2's proportions, as on KV cache."""
    a, own = presets.get(preset).attention, kv_cache.sizes(preset)
    squeezed = (a.q_lora_rank or 0) if isinstance(a, LatentAttentionConfig) else 0
    return {name: own[name] for name in SIZES if name != "q_lora_rank"} | {"q_lora_rank": squeezed}


def variants(preset: str, kv_lora_rank: int, qk_rope_head_dim: int, n_heads: int, head_dim: int, q_lora_rank: int
             ) -> dict[str, ModelConfig]:
    """The model with each kind of attention of the same heads. GQA has 8 key-value heads, or as many as divide."""
    groups = max(n for n in range(1, 9) if n_heads % n == 0)
    out = kv_cache.variants(preset, presets.get(preset).n_layers, n_heads, head_dim, groups, kv_lora_rank,
                            qk_rope_head_dim)
    latent = out["MLA"].attention.replace(q_lora_rank=q_lora_rank or None)
    return {**out, "MLA": out["MLA"].replace(attention=latent)}


def own_code(preset, context, counted, tokens, *values) -> str:
    """The config with MLA of the controls' sizes, as Python."""
    now, _ = common.within(dict(zip(SIZES, values)), {name: LIMITS[name] for name in SIZES})
    return as_python(variants(preset, **now)["MLA"], preset)


def what_changed(now: dict, before: dict | None) -> str:
    changed = [name for name in now if before and name != "preset" and now[name] != before[name]]
    if len(changed) != 1 or before["preset"] != now["preset"]:
        return ""
    name = changed[0]
    if name == "counted":
        return f"Now {COUNTED[now[name]]} is counted: {WHY[name]} "
    return f"{name} went from {before[name]:,} to {now[name]:,}: {WHY[name]} "


def size_text(configs: dict[str, ModelConfig]) -> str:
    mha, mla = (accounting.cache_bytes_per_token(configs[kind], BITS) for kind in ("MHA", "MLA"))
    a = configs["MLA"].attention
    return (f"With {a.n_heads:,} heads, MHA keeps {accounting.human_bytes(mha)} a token, and MLA "
            f"{accounting.human_bytes(mla)}: MHA's is {accounting.ratio(mha, mla)} times as much. Still each of MLA's "
            f"heads has keys and values of its own. They are rebuilt from {a.kv_lora_rank:,} numbers, or never built.")


def way_text(config: ModelConfig, tokens: int, context: int) -> str:
    steps = {way: accounting.attention_step(config, tokens, context, way, BITS) for way in accounting.WAYS}
    least, many = accounting.absorbed_from(config, tokens), accounting.rebuilt_from(config, context)
    new = "one new token" if tokens == 1 else f"{tokens:,} new tokens"
    cheaper = (f"for {new} it is cheaper from a context of {least:,} on" if least
               else f"for {new} it is cheaper in no context up to 1,048,576")
    other = (f"rebuilding is cheaper from {many:,} new tokens on" if many
             else "rebuilding is never cheaper, however many tokens are new")
    balance = accounting.attention_step(config, tokens, context, "absorb", BITS).flops_per_byte
    return (f"Over {context:,} tokens, absorbing takes {accounting.human_count(steps['absorb'].flops)} FLOPs, and "
            f"rebuilding all keys and values {accounting.ratio(steps['rebuild'].flops, steps['absorb'].flops)} times "
            f"as many. Absorbing: {cheaper}. With this context {other}. Absorbing does {balance:,.0f} FLOPs for each "
            f"byte of the cache; an H100 does {H100.flops_per_second / H100.bytes_per_second:.0f} in the time in which "
            "it reads a byte.")


def own_keys(config: ModelConfig) -> str:
    """Whether a head has keys and values of its own."""
    a = config.attention
    if isinstance(a, LatentAttentionConfig):
        return "yes, rebuilt"
    return "yes" if a.kv_heads == a.n_heads else f"{a.n_heads // a.kv_heads} share them"


def size_table(configs: dict[str, ModelConfig], preset: str, context: int) -> str:
    least = accounting.cache_bytes_per_token(configs["MLA"], BITS)
    rows = []
    for kind, config in configs.items():
        held = {HELD[name]: list(shape) for name, shape in cache_layout.entry_shapes(config).items()}
        a_token = accounting.cache_bytes_per_token(config, BITS)
        rows.append((kind, ", ".join(f"{name} {shape}" for name, shape in held.items()), own_keys(config),
                     f"{cache_layout.elements_per_token(config):,}", f"{a_token:,}",
                     accounting.human_bytes(accounting.cache_bytes(config, 1, context, BITS)),
                     accounting.times(a_token, least), f"{accounting.count_parameters(config).by_part['attention']:,}"))
    return common.table(
        ("attention", "kept of a token, in each layer", "own keys for a head?", "numbers a token", "bytes a token",
         f"{context:,} tokens", "against MLA", "parameters of attention"), rows,
        f"{preset} with each kind of attention, {BITS} bits a number; norms and biases are not counted",
        words=(0, 1, 2))


def way_table(config: ModelConfig, tokens: int, context: int) -> str:
    """The three ways, and the two that read the latent as shapes."""
    rows = []
    for way, does in (("rebuild", "every latent becomes keys and values again (naive)"),
                      ("keep", "the expanded keys and values are kept, as MHA would"),
                      ("absorb", "queries and results go to the latents (absorbed)")):
        step = accounting.attention_step(config, tokens, context, way, BITS)
        arithmetic, memory = step.seconds(H100)
        rows.append((way, does, f"{step.flops:,}", f"{step.cache_read:,}", f"{step.flops_per_byte:,.0f}",
                     f"{1000 * arithmetic:,.3f}", f"{1000 * memory:,.3f}"))
    return common.table(
        ("way", "what it does", "FLOPs", "bytes read of the cache", "FLOPs a byte", "ms, arithmetic", "ms, reading"),
        rows, "What the ways do not share, all layers. Times: an H100's least, by its data sheet; the longer counts",
        words=(0, 1), colours={way: colour for way, (_, colour) in plots.LATENT_WAYS.items()}) + common.table(
        ("one new token, in one layer", "rebuild", "absorb"), accounting.shapes_of_a_step(config, context),
        "What the cache is used for, as shapes: heads first, then widths", words=(0, 1, 2))


@common.sentence_for(6)
def draw(before, preset, context, counted, *values):
    """All that sizes and ways show, for the controls' values. Outputs in build's order."""
    now = {"preset": preset, "context": accounting.parse_tokens(context), "counted": counted,
           **dict(zip(SLIDERS, values))}
    now, note = common.within(now, LIMITS)
    if now == before:
        return (*(gr.skip() for _ in range(5)), now)
    tokens, context = now["tokens"], now["context"]
    configs = variants(preset, *(now[name] for name in SIZES))
    mla = configs["MLA"]
    flops = {way: lambda n, way=way: accounting.way_flops(mla, tokens, n, way, counted == "whole")
             for way in accounting.WAYS}
    lines = plots.ways_lines(flops, tokens, context, accounting.absorbed_from(mla, tokens))
    text = common.said(note + what_changed(now, before) + size_text(configs)) + common.said(
        way_text(mla, tokens, context)) + common.formula(
        *(f"{kind}: {accounting.cache_formula(configs[kind], bits=BITS)}" for kind in ("MHA", "MLA")),
        *(f"{way}: {accounting.step_formula(mla, tokens, context, way)}" for way in ("rebuild", "absorb")))
    bars = (gr.skip(), gr.skip())
    if not before or any(before[name] != now[name] for name in ("preset", *SIZES)):
        bars = size_bars(configs)
    return *bars, lines, text, size_table(configs, preset, context) + way_table(mla, tokens, context), now


def size_bars(configs: dict[str, ModelConfig]):
    """Bytes of the cache a token, and parameters of attention."""
    a_token = {kind: accounting.cache_bytes_per_token(config, BITS) for kind, config in configs.items()}
    weights = {kind: accounting.count_parameters(config).by_part["attention"] for kind, config in configs.items()}
    return plots.cache_bars(a_token), plots.bars(
        list(weights), list(weights.values()), [accounting.human_count(n) for n in weights.values()],
        colours=plots.COLOURS["attention"])


def mla_sizes(preset: str = START, kv_lora_rank: int = 512, qk_rope_head_dim: int = 64, n_heads: int = 128,
              head_dim: int = 128, q_lora_rank: int = 1536, context: int = 131072, tokens: int = 1) -> dict:
    """Cache bytes a token (16 bits) of MHA, GQA, MQA and MLA with the same heads, and what MLA's ways cost in FLOPs.

    preset: whose layers and width are taken. context: tokens that the last of `tokens` new tokens sees. Comes back:
    cache_bytes_per_token and attention_parameters by kind; ways: rebuild, keep and absorb, each with flops, cache_read
    and flops_per_byte; absorbed_from (the least context in which absorbing is cheaper, or null) and rebuilt_from (the
    least number of new tokens for which rebuilding is). ValueError for sizes that cannot be.
    """
    configs = variants(preset, kv_lora_rank, qk_rope_head_dim, n_heads, head_dim, q_lora_rank)
    steps = {way: accounting.attention_step(configs["MLA"], tokens, context, way, BITS) for way in accounting.WAYS}
    return {
        "cache_bytes_per_token": {kind: accounting.cache_bytes_per_token(c, BITS) for kind, c in configs.items()},
        "attention_parameters": {kind: accounting.count_parameters(c).by_part["attention"]
                                 for kind, c in configs.items()},
        "ways": {way: {"flops": step.flops, "cache_read": step.cache_read, "flops_per_byte": step.flops_per_byte}
                 for way, step in steps.items()},
        "absorbed_from": accounting.absorbed_from(configs["MLA"], tokens),
        "rebuilt_from": accounting.rebuilt_from(configs["MLA"], context)}


API = (mla_sizes, mla_shrink.latent_curve)


def state(request: gr.Request | None) -> tuple[dict, str]:
    """The controls' values for an address, and a sentence about what in it could not be used."""
    chosen, problem = common.read_query(request, {"preset": START}, {"preset": presets.names()})
    others = {"context": "131,072", "counted": "attention", "tokens": 1, **sizes(chosen["preset"])}
    values, more = common.read_query(request, others, {"counted": list(COUNTED)}, LIMITS)
    try:
        values["context"] = f"{accounting.parse_tokens(values['context']):,}"
    except ValueError as wrong:
        values["context"], more = others["context"], f"{more} From the address: {wrong}."
    return {**chosen, **values}, f"{problem} {more}".strip()


def build(demo: gr.Blocks) -> None:
    first, _ = state(None)
    shown = draw(None, *first.values())[1:]
    common.question("How can every head have its own keys and values, and the cache keep none of them?",
                    "Multi-head latent attention (MLA) keeps one small vector of a token, the **latent**, and one key "
                    "for its position. All heads' keys and values can be rebuilt from the latent by two matrices, "
                    "W_uk and W_uv. Or the matrices go to the queries and the results (**absorbed**), and no key or "
                    "value is ever built.")
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300) as left:
            preset = gr.Dropdown(presets.names(), value=START, label="Model, whose sizes are taken", elem_id="preset")
            sliders = {name: common.whole_slider(name, first[name], spec) for name, spec in SIZES.items()}
            step, context = contexts.place(first["context"])
            sliders = {"tokens": common.whole_slider("tokens", 1, TOKENS), **sliders}
            counted = gr.Radio([(label, name) for name, label in COUNTED.items()], value="attention",
                               label="FLOPs of", elem_id="counted")
            controls = {"preset": preset, "context": context, "counted": counted, **sliders}
        with gr.Column(scale=2, min_width=300, elem_classes="result"):
            gr.Markdown("### Cache of one token, bytes")
            bars = Chart(shown[0], elem_id="bars")
            gr.Markdown("### Parameters of attention")
            weights = Chart(shown[1], elem_id="weights")
            gr.Markdown("### FLOPs of a step, by its way")
            lines = Chart(shown[2], elem_id="lines")
    with gr.Column(elem_classes="result"):
        text = gr.HTML(shown[3], elem_id="text")
        table = gr.HTML(shown[4], elem_id="table")
    others = mla_shrink.build(demo)
    with left:
        common.copy_link_button({**controls, **others})
        code_box.python_button(own_code, list(controls.values()), notice, "mla_python")
        common.try_this([
            ("171 new tokens at once: where rebuilding begins to pay", common.link("", tokens=171, context="128k")),
            ("256 heads: MHA's cache doubles, MLA's stays", common.link("", n_heads=256)),
            ("The capital of France, from 224 numbers found by plain SVD", common.link("", method="plain", rank=224))])
    common.lesson("`course/05_mla/01_latent_attention.ipynb` builds the latent and absorbs it. Beside it, "
                  "`02_mla_with_rope.ipynb` adds the rope key and counts the ways, and `03_how_small.ipynb` asks how "
                  "small a latent may be. The paper: DeepSeek-V2 (arXiv:2405.04434, section 2.1).")
    before = gr.State(shown[5])
    outputs, inputs = [notice, bars, weights, lines, text, table, before], [before, *controls.values()]

    def chosen(before, preset, context, counted, tokens, *_):
        own = sizes(preset)
        return *own.values(), *draw(before, preset, context, counted, tokens, *own.values())

    def opened(request: gr.Request):
        values, problem = state(request)
        said, *rest = draw(None, *values.values())
        if said:  # show the model as it is, greyed, under the sentence that says why not what was asked for
            _, *rest = draw(None, *(values | sizes(values["preset"]) | {"tokens": 1}).values())
        position = contexts.step_of(values["context"])
        return *values.values(), position, said or common.notice(problem, note=True), *rest

    contexts.connect(step, context, draw, inputs, outputs, "mla")
    preset.input(chosen, inputs, [*[sliders[name] for name in SIZES], *outputs], api_name="mla_preset",
                 **common.FIGURES)
    gr.on([counted.input, *(slider.input for slider in sliders.values())], draw, inputs, outputs, api_name="mla",
          **common.FIGURES)
    common.on_opening(demo, opened, [*controls.values(), step, *outputs], notice, "mla_open")


if __name__ == "__main__":
    from apps import mla_lab, starting

    starting.run_alone(mla_lab)
