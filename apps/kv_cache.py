"""KV cache: what MHA, GQA, MQA and MLA keep in memory for the same model, over context, batch and precision."""

from __future__ import annotations

import functools

import gradio as gr
import torch

from apps import code_box, common, contexts
from apps.components import Chart
from llm_core import ModelConfig, accounting, plots, presets
from llm_core.as_python import as_python
from llm_core.cache import Cache
from llm_core.config import GroupedAttentionConfig, LatentAttentionConfig, RopeConfig

TITLE = "KV cache"
PATH = "/kv-cache"
START = "deepseek-v3"

# Name in the query -> what the slider shows: label, least, greatest, step, hint.
SLIDERS = {
    "batch": ("Batch: sequences at once", 1, 256, 1, None),
    "n_layers": ("Layers", 1, 160, 1, None),
    "n_heads": ("Query heads (n_heads)", 1, 256, 1, None),
    "head_dim": ("Width of a head (head_dim)", 2, 512, 2, None),
    "n_kv_heads": ("GQA: key and value heads", 1, 256, 1, "each shared by a group of heads; must divide the heads"),
    "kv_lora_rank": ("MLA: latent (kv_lora_rank, d_c)", 1, 2048, 1, "kept in place of all heads' keys and values"),
    "qk_rope_head_dim": ("MLA: rope key (qk_rope_head_dim)", 0, 256, 2, "one key for the position, for all heads"),
}
LIMITS = {name: (least, most) for name, (_, least, most, *_) in SLIDERS.items()}
BITS = {32: torch.float32, 16: torch.bfloat16, 8: torch.float8_e4m3fn, 4: None}  # torch has no type of 4 bits

WHY = {
    "context": "every cached token takes the same bytes, so each cache grows in step with the context.",
    "batch": "each sequence keeps a cache of its own, so all four grow in step with the batch.",
    "bits": "the cache holds as many numbers as before, each of another size.",
    "n_layers": "every layer keeps a cache of its own, so all four change in step.",
    "n_heads": "only MHA keeps a key and a value for every query head; the other three do not see it.",
    "head_dim": "keys and values of MHA, GQA and MQA change in step; MLA's latent has a width of its own.",
    "n_kv_heads": "only GQA's cache is made of this many keys and values.",
    "kv_lora_rank": "only MLA keeps a latent, and nothing but its width counts.",
    "qk_rope_head_dim": "only MLA keeps a rope key of its own, beside the latent.",
}


def sizes(preset: str) -> dict[str, int]:
    """The sliders' values for a preset. What its own attention does not have comes from DeepSeek-V2's choices
    (arXiv:2405.04434, section 2.1.2: d_c = 4 d_h, d_h^R = d_h / 2), and 8 groups, or as many as divide the heads."""
    config = presets.get(preset)
    a = config.attention
    if isinstance(a, LatentAttentionConfig):
        groups = max(n for n in range(1, 9) if a.n_heads % n == 0)
        return {"n_layers": config.n_layers, "n_heads": a.n_heads, "head_dim": a.v_head_dim, "n_kv_heads": groups,
                "kv_lora_rank": a.kv_lora_rank, "qk_rope_head_dim": a.qk_rope_head_dim}
    own = 1 < a.kv_heads < a.n_heads
    groups = a.kv_heads if own else max(n for n in range(1, 9) if a.n_heads % n == 0)
    return {"n_layers": config.n_layers, "n_heads": a.n_heads, "head_dim": config.head_dim, "n_kv_heads": groups,
            "kv_lora_rank": 4 * config.head_dim, "qk_rope_head_dim": config.head_dim // 2}


def variants(preset: str, n_layers: int, n_heads: int, head_dim: int, n_kv_heads: int, kv_lora_rank: int,
             qk_rope_head_dim: int) -> dict[str, ModelConfig]:
    """The same model with each of the four kinds of attention. ValueError if one cannot be built."""
    base = presets.get(preset)
    kv_heads = {"MHA": n_heads, "GQA": n_kv_heads, "MQA": 1}
    out = {kind: base.replace(n_layers=n_layers, attention=GroupedAttentionConfig(n_heads, n, head_dim=head_dim))
           for kind, n in kv_heads.items()}
    latent = LatentAttentionConfig(n_heads, kv_lora_rank, head_dim, qk_rope_head_dim, head_dim)
    rope = (base.rope or RopeConfig()) if qk_rope_head_dim else None
    return {**out, "MLA": base.replace(n_layers=n_layers, attention=latent, rope=rope)}


def own_code(preset, context, bits, batch, *values) -> str:
    """The config of the preset's own kind of attention, with the controls' sizes, as Python."""
    now, _ = common.within(dict(zip(list(SLIDERS)[1:], values)), {name: LIMITS[name] for name in list(SLIDERS)[1:]})
    return as_python(variants(preset, **now)[presets.get(preset).attention.kind], preset)


@functools.lru_cache(maxsize=32)
def measure(config: ModelConfig, bits: int, room: int = 8_000_000) -> dict[int, int]:
    """Tokens -> bytes of cache tensors that are really allocated, for about `room` bytes at most (one after another).

    At least one token, unless that alone would take 64 MB or torch has no type of these bits: then nothing.
    """
    a_token = accounting.cache_bytes_per_token(config, bits)
    if BITS[bits] is None or a_token > 64_000_000:
        return {}
    most = max(1, min(4096, room // a_token))
    return {tokens: Cache(config, 1, tokens, dtype=BITS[bits]).nbytes
            for tokens in sorted({max(1, most // part) for part in (16, 8, 4, 2, 1)})}


def explain(now: dict, before: dict | None, configs: dict[str, ModelConfig], caches: dict[str, int]) -> str:
    """What changed and why, then where it stands."""
    changed = [name for name in now if before and name != "preset" and now[name] != before[name]]
    what = ""
    if len(changed) == 1 and before["preset"] == now["preset"]:
        name = changed[0]
        what = f"{name} went from {before[name]:,} to {now[name]:,}: {WHY[name]} "
    own = presets.get(now["preset"]).attention.kind
    where = "the cache" if now["batch"] == 1 else f"each of {now['batch']:,} caches"
    mla, mha = caches["MLA"], caches["MHA"]
    return (f"{what}With {now['context']:,} tokens in {where}, MLA takes {accounting.human_bytes(mla)}. "
            f"MHA, which keeps a key and a value for every head, takes {accounting.human_bytes(mha)}, which is "
            f"{accounting.ratio(mha, mla)} times as much. {now['preset']} itself has {own}.")


def measured_text(configs: dict[str, ModelConfig], dots: dict[str, dict[int, int]], bits: int) -> str:
    """How far the measured bytes are from the formula's, and the largest of each kind in a table."""
    if bits == 4:
        return common.said("torch has no numbers of 4 bits, so nothing is measured here; 8, 16 and 32 bits are.")
    apart = [abs(n - accounting.cache_bytes(configs[kind], 1, tokens, bits))
             for kind, measured in dots.items() for tokens, n in measured.items()]
    if not apart:
        return common.said("One token alone would take more than 64 MB, so nothing is allocated here.")
    most = {kind: max(d) for kind, d in dots.items() if d}
    rows = [(kind, f"{t:,}", f"{dots[kind][t]:,}", f"{accounting.cache_bytes(configs[kind], 1, t, bits):,}")
            for kind, t in most.items()]
    return common.said(
        f"Each dot is a cache of one sequence that was really allocated, its bytes read from the tensors; the lines "
        f"are the formula. Largest difference over {len(apart)} dots: {max(apart):,} bytes.") + common.table(
        ("attention", "tokens", "bytes measured", "bytes by the formula"), rows, "The last dot of each line")


@common.sentence_for(7)
def draw(before, preset, context, bits, batch, *values):
    """All that is shown, for the controls' values. Outputs in build's order."""
    tokens = accounting.parse_tokens(context)
    now = {"preset": preset, "context": tokens, "bits": bits, "batch": batch, **dict(zip(list(SLIDERS)[1:], values))}
    now, note = common.within(now, LIMITS)
    if now == before:
        return (*(gr.skip() for _ in range(6)), now)
    batch = now["batch"]
    configs = variants(preset, *(now[name] for name in SLIDERS if name != "batch"))
    caches = {kind: accounting.cache_bytes(config, batch, tokens, bits) for kind, config in configs.items()}
    rows = [(kind, f"{accounting.cache_bytes_per_token(configs[kind], bits):,}", f"{n:,}", *two_units(n),
             accounting.times(n, caches["MLA"]))
            for kind, n in caches.items()]
    text = common.said(note + explain(now, before, configs, caches)) + common.formula(
        *(f"{kind}: {accounting.cache_formula(c, batch, tokens, bits)}" for kind, c in configs.items()))
    table = common.table(("attention", "bytes a token", "bytes in all", "decimal (GB: 10⁹ bytes)",
                          "binary (GiB: 2³⁰ bytes)", "against MLA"), rows,
                         f"{preset}, {tokens:,} tokens, batch {batch:,}, {bits} bits a number")
    bars, lines = plots.cache_bars(caches), plots.cache_lines(configs, tokens, batch, bits)
    if before and all(before[name] == now[name] for name in now if name not in ("context", "batch")):
        return bars, lines, text, table, gr.skip(), gr.skip(), now  # the measured caches are the same still
    dots = {kind: measure(config, bits) for kind, config in configs.items()}
    return (bars, lines, text, table, plots.measured_cache({k: d for k, d in dots.items() if d}, configs, 1, bits),
            measured_text(configs, dots, bits), now)


def two_units(n: int) -> tuple[str, str]:
    """Bytes in decimal and in binary units: ("9.21 GB", "8.58 GiB"); below 1,000 the same twice."""
    parts = accounting.human_bytes(n).removesuffix(")").split(" (")
    return parts[0], parts[-1]


def state(request: gr.Request | None) -> tuple[dict, str]:
    """The controls' values for an address, and a sentence about what in it could not be used."""
    chosen, problem = common.read_query(request, {"preset": START}, {"preset": presets.names()})
    defaults = {**chosen, "context": "131,072", "bits": 16, "batch": 1, **sizes(chosen["preset"])}
    others = {name: value for name, value in defaults.items() if name != "preset"}
    values, more = common.read_query(request, others, {"bits": list(BITS)}, LIMITS)
    try:
        values["context"] = f"{accounting.parse_tokens(values['context']):,}"
    except ValueError as wrong:
        values["context"], more = defaults["context"], f"{more} From the address: {wrong}."
    return {**chosen, **values}, f"{problem} {more}".strip()


def kv_cache(preset: str = START, context: int | str = "128k", batch: int = 1, bits: int = 16) -> dict:
    """Count the bytes that a model's cache of keys and values takes with each of four kinds of attention.

    Args:
        preset: a model's name, as list_models gives them.
        context: tokens in the cache of each sequence: a number, or a text such as "128k" (131,072) or "1M".
        batch: sequences at once.
        bits: bits a number; 16 is usual.

    Returns:
        own: the kind of attention that the model has itself. bytes_per_token and bytes (all tokens, all sequences):
        for MHA, GQA, MQA and MLA. formula: the same as arithmetic.
    """
    tokens = accounting.parse_tokens(context)
    configs = variants(preset, **sizes(preset))
    return {
        "preset": preset, "tokens": tokens, "batch": batch, "bits": bits, "own": presets.get(preset).attention.kind,
        "bytes_per_token": {kind: accounting.cache_bytes_per_token(c, bits) for kind, c in configs.items()},
        "bytes": {kind: accounting.cache_bytes(c, batch, tokens, bits) for kind, c in configs.items()},
        "formula": {kind: accounting.cache_formula(c, batch, tokens, bits) for kind, c in configs.items()}}


API = (kv_cache,)


def build(demo: gr.Blocks) -> None:
    first, _ = state(None)
    shown = draw(None, *first.values())[1:]
    common.question("How much memory does the past take?", "A model that writes keeps the keys and values of all "
                    "earlier tokens: the KV cache. Here is one model with each of four kinds of attention.")
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            preset = gr.Dropdown(presets.names(), value=START, label="Model, whose sizes are taken", elem_id="preset")
            step, context = contexts.place(first["context"])
            bits = gr.Radio(list(BITS), value=16, label="Bits a number", elem_id="bits")
            sliders = {"batch": common.whole_slider("batch", first["batch"], SLIDERS["batch"])}
            with gr.Accordion("The sizes behind it", open=False):
                sliders |= {name: common.whole_slider(name, first[name], spec)
                            for name, spec in SLIDERS.items() if name != "batch"}
            controls = {"preset": preset, "context": context, "bits": bits, **sliders}
            common.copy_link_button(controls)
            code_box.python_button(own_code, list(controls.values()), notice, "kv_cache_python")
            common.try_this([
                ("Llama 3.1 405B with 1M tokens: its own GQA against the rest",
                 common.link("", preset="llama-3.1-405b", context="1M")),
                ("32 readers at once, each with 128k tokens, with DeepSeek-V3",
                 common.link("", preset="deepseek-v3", context="128k", batch=32)),
                ("GPT-2's whole context, in a few megabytes", common.link("", preset="gpt2", context=1024))])
        with gr.Column(scale=2, min_width=300, elem_classes="result"):
            gr.Markdown("### The four caches, side by side")
            bars = Chart(shown[0], elem_id="bars")
            gr.Markdown("### Over the context")
            lines = Chart(shown[1], elem_id="lines")
    with gr.Column(elem_classes="result"):
        text = gr.HTML(shown[2], elem_id="text")
        table = gr.HTML(shown[3], elem_id="table")
        gr.Markdown("### Is the formula true? Caches that were really allocated")
        dots = Chart(shown[4], elem_id="dots")
        checked = gr.HTML(shown[5], elem_id="checked")
    common.lesson("`course/03_kv_cache/01_the_cache.ipynb` builds a cache by hand and measures its good and bad side; "
                  "`02_mqa_and_gqa.ipynb` beside it makes it smaller. The papers: DeepSeek-V2 (arXiv:2405.04434, "
                  "section 2.1) for MLA, Ainslie et al. (arXiv:2305.13245) for GQA.")
    before = gr.State(shown[6])
    outputs = [notice, bars, lines, text, table, dots, checked, before]
    inputs = [before, *controls.values()]

    def chosen(before, preset, context, bits, batch, *_):
        own = sizes(preset)
        return *own.values(), *draw(before, preset, context, bits, batch, *own.values())

    def opened(request: gr.Request):
        values, problem = state(request)
        said, *rest = draw(None, *values.values())
        if said:  # show the model as it is, greyed, under the sentence that says why not what was asked for
            _, *rest = draw(None, *(values | sizes(values["preset"])).values())
        position = contexts.step_of(values["context"])
        return *values.values(), position, said or common.notice(problem, note=True), *rest

    contexts.connect(step, context, draw, inputs, outputs, "kv_cache")
    preset.input(chosen, inputs, [*list(sliders.values())[1:], *outputs], api_name="kv_cache_preset", **common.FIGURES)
    gr.on([bits.input, *(slider.input for slider in sliders.values())], draw, inputs, outputs, api_name="kv_cache",
          **common.FIGURES)
    common.on_opening(demo, opened, [*controls.values(), step, *outputs], notice, "kv_cache_open")


if __name__ == "__main__":
    from apps import kv_cache, starting

    starting.run_alone(kv_cache)
