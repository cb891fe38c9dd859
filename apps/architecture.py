"""Architecture: take any model, move any of its dimensions, and see where its parameters are."""

from __future__ import annotations

import gradio as gr

from apps import code_box, common
from llm_core import ModelConfig, accounting, plots, presets
from llm_core.as_python import as_python
from llm_core.config import GroupedAttentionConfig, LatentAttentionConfig, MoEConfig, RopeConfig

TITLE = "Architecture"
PATH = "/architecture"
START, BESIDE = "deepseek-v3", "deepseek-v2"

# Name in ModelConfig or its parts, and in the query -> label, least, greatest, step, and why it changes the count.
SLIDERS = {
    "d_model": ("Width of the stream (d_model)", 8, 20480, 4, "every matrix has a side of this width"),
    "n_layers": ("Layers", 1, 160, 1, "each layer is another copy of attention and feed-forward"),
    "vocab_size": ("Vocabulary", 256, 262144, 1, "embedding and head have a row for each entry"),
    "max_seq_len": ("Context (max_seq_len)", 64, 1048576, 64, "learned positions have a row each; RoPE has none"),
    "n_heads": ("Query heads", 1, 256, 1, "each head brings its own slice of the projections"),
    "n_kv_heads": ("Key and value heads", 1, 256, 1, "only the key and value projections see it"),
    "head_dim": ("Width of a head (0: d_model / heads)", 0, 512, 1, "all four projections have heads of this width"),
    "q_lora_rank": ("Query latent (q_lora_rank; 0: none)", 0, 4096, 1, "queries are squeezed through this width"),
    "kv_lora_rank": ("Key-value latent (kv_lora_rank)", 1, 2048, 1, "keys and values are rebuilt from this width"),
    "qk_nope_head_dim": ("Query and key, content", 1, 512, 1, "each head's query and key have this much content"),
    "qk_rope_head_dim": ("Query and key, position (rope)", 0, 256, 1, "each query and the one rope key grow by it"),
    "v_head_dim": ("Value of a head", 1, 512, 1, "each head's value, and its slice of the output, have this width"),
    "d_ff": ("Inner width (d_ff)", 8, 65536, 4, "dense feed-forward matrices have a side of this width"),
    "n_routed_experts": ("Routed experts", 1, 1024, 1, "each is a network; a token uses as many as before"),
    "n_experts_per_token": ("Chosen for a token", 1, 64, 1, "all experts are there anyway: only the active part moves"),
    "n_shared_experts": ("Shared experts", 0, 16, 1, "shared experts work on every token"),
    "d_expert": ("Inner width of an expert", 8, 32768, 4, "all experts' matrices have a side of this width"),
    "first_k_dense": ("First layers that stay dense", 0, 160, 1, "a dense layer has one network instead of experts"),
    "n_expert_groups": ("Groups of experts", 1, 64, 1, "groups only limit the choice; they have no weights"),
    "n_limited_groups": ("Groups open to a token", 1, 64, 1, "groups only limit the choice; they have no weights"),
    "n_mtp_modules": ("MTP modules", 0, 4, 1, "an MTP module is one more layer and a projection, counted apart"),
}
CHOICES = {
    "attention": ("Attention", ["MHA", "GQA", "MQA", "MLA"], "the kinds differ in how they make keys and values"),
    "activation": ("Feed-forward", ["gelu", "swiglu"], "swiglu has a third matrix, the gate"),
    "norm": ("Norm", ["layernorm", "rmsnorm"], "layernorm has a bias beside its weight"),
    "positions": ("Positions", ["learned", "rope"], "learned positions are a table; RoPE has no weights"),
}
SWITCHES = {
    "moe": ("Mixture of experts", "experts replace the dense network in all but the first layers"),
    "tie_embeddings": ("Output head tied to the embedding", "a tied head is the embedding, so it is counted once"),
}
LIMITS = {name: (least, most) for name, (_, least, most, *_) in SLIDERS.items()}
GROUPED = ("n_kv_heads", "head_dim")
LATENT = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
EXPERTS = ("n_routed_experts", "n_experts_per_token", "n_shared_experts", "d_expert", "first_k_dense",
           "n_expert_groups", "n_limited_groups")
# In the order of the page; also the order of the events' inputs.
ORDER = ("d_model", "n_layers", "vocab_size", "max_seq_len", "attention", "n_heads", *GROUPED, *LATENT, "d_ff",
         "activation", "moe", *EXPERTS, "norm", "tie_embeddings", "positions", "n_mtp_modules")


def values_of(config: ModelConfig) -> dict:
    """The controls' values for a config. For a part that it lacks, a fitting size to begin with."""
    a, m = config.attention, config.moe
    latent = isinstance(a, LatentAttentionConfig)
    head = a.v_head_dim if latent else config.head_dim
    attention = {"n_kv_heads": max(n for n in range(1, 9) if a.n_heads % n == 0) if latent else a.kv_heads,
                 "head_dim": head if latent else a.head_dim or 0}
    # DeepSeek-V2's proportions (arXiv:2405.04434, section 3.1.2): a latent of 4 heads, a rope key of half a head.
    fitting = {"q_lora_rank": 0, "kv_lora_rank": 4 * head, "qk_nope_head_dim": head, "v_head_dim": head,
               "qk_rope_head_dim": 2 * (head // 4)}
    attention |= {name: (getattr(a, name) or 0) if latent else fitting[name] for name in LATENT}
    few = {"n_routed_experts": 8, "n_experts_per_token": 2, "n_shared_experts": 1, "first_k_dense": 0,
           "d_expert": max(8, config.feed_forward.d_ff // 4), "n_expert_groups": 1, "n_limited_groups": 1}
    values = {
        "attention": a.kind, "n_heads": a.n_heads, **attention,
        "d_ff": config.feed_forward.d_ff, "activation": config.feed_forward.activation, "moe": m is not None,
        **{name: getattr(m, name) if m else few[name] for name in EXPERTS},
        "positions": "learned" if config.rope is None else "rope"}
    return {name: values[name] if name in values else getattr(config, name) for name in ORDER}


def config_of(preset: str, values: dict) -> ModelConfig:
    """The preset with the controls' values in it; what has no control stays. ValueError if it cannot be built."""
    base, v = presets.get(preset), values
    if v["attention"] == "MLA":
        sizes = {name: v[name] for name in LATENT} | {"n_heads": v["n_heads"], "q_lora_rank": v["q_lora_rank"] or None}
        cls = LatentAttentionConfig
    else:
        kv_heads = {"MHA": None, "GQA": v["n_kv_heads"], "MQA": 1}[v["attention"]]
        sizes = {"n_heads": v["n_heads"], "n_kv_heads": kv_heads, "head_dim": v["head_dim"] or None}
        cls = GroupedAttentionConfig
    attention = base.attention.replace(**sizes) if isinstance(base.attention, cls) else cls(**sizes)
    experts = {name: v[name] for name in EXPERTS}
    moe = (base.moe.replace(**experts) if base.moe else MoEConfig(**experts)) if v["moe"] else None
    rope = None if v["positions"] == "learned" else base.rope or RopeConfig()
    plain = {name: v[name] for name in ("d_model", "n_layers", "vocab_size", "max_seq_len", "norm", "tie_embeddings",
                                        "n_mtp_modules")}
    return base.replace(**plain, attention=attention, moe=moe, rope=rope,
                        feed_forward=base.feed_forward.replace(d_ff=v["d_ff"], activation=v["activation"]))


def explain(now: dict, before: dict | None, counted: accounting.Parameters) -> str:
    """What changed and why, then what the model is."""
    what = ""
    changed = [name for name in ORDER if before and before["preset"] == now["preset"] and now[name] != before[name]]
    if len(changed) == 1:
        name = changed[0]
        why = {**SLIDERS, **CHOICES, **SWITCHES}[name][-1]
        moved = before["total"] != counted.total
        what = (f"{name} went from {_shown(before[name])} to {_shown(now[name])}, and the total "
                + (f"from {accounting.human_count(before['total'])} to {accounting.human_count(counted.total)}"
                   if moved else "stayed as it was") + f": {why}. ")
    largest = max(counted.by_part, key=counted.by_part.get)
    return (f"{what}Of {accounting.human_count(counted.total)} parameters, {accounting.human_count(counted.active)} "
            f"({accounting.percent(counted.active, counted.total)}) work on each token. The largest part: {largest}, "
            f"with {accounting.percent(counted.by_part[largest], counted.total)} of all.")


def table(config: ModelConfig, preset: str, beside: str) -> str:
    """Every part, exact, and the figures that stand for the whole; a second model and the ratio beside it."""
    other = presets.get(beside)
    mine, its = accounting.count_parameters(config), accounting.count_parameters(other)
    rows = []
    for part in accounting.PARTS:
        if part in mine.by_part or part in its.by_part:
            n, active, m = mine.by_part.get(part, 0), mine.active_by_part.get(part, 0), its.by_part.get(part, 0)
            rows.append((part, f"{n:,}", accounting.percent(n, mine.total), f"{active:,}", f"{m:,}",
                         accounting.times(n, m)))

    def whole(label, n, m, share=True):
        part = accounting.percent(n, mine.total) if share else ""
        rows.append((label, f"{n:,}", part, "", f"{m:,}", accounting.times(n, m)))

    whole("total: the main model", mine.total, its.total)
    whole("active (rule_all: all but the experts not chosen)", mine.active, its.active)
    whole("active, without the input embedding", mine.active_no_input_embedding, its.active_no_input_embedding)
    whole("active, without embedding and head", mine.active_no_embed_no_head, its.active_no_embed_no_head)
    whole("apart: MTP modules (embedding and head shared)", mine.mtp, its.mtp, share=False)
    whole("apart: router biases (buffers, moved by a rule)", mine.router_biases, its.router_biases, share=False)
    whole("cache, bytes a token (16 bits)", accounting.cache_bytes_per_token(config),
          accounting.cache_bytes_per_token(other), share=False)
    return common.table(("part", "this model", "share", "active for a token", beside, "ratio"), rows,
                        f"Parameters of {preset} as the controls have it, and of {beside} as it is",
                        colours=plots.COLOURS)


def total_formula(counted: accounting.Parameters) -> str:
    """The total as the sum of its parts."""
    parts = " + ".join(f"{n:,} {part}" for part, n in counted.by_part.items())
    return common.formula(f"total = {parts} = {counted.total:,}")


def tensor_formulas(config: ModelConfig) -> str:
    """Every tensor as its sizes × its copies, those of MTP modules too."""
    def line(row: accounting.Row) -> str:
        copies = (row.copies,) if row.copies > 1 else ()
        factors = " × ".join(f"{n:,}" for n in (*row.shape, *copies))
        return f"{row.part}, {row.name}, {row.where}: {factors} = {row.total:,}"

    return common.formula(*map(line, [*accounting.rows(config), *accounting.mtp_rows(config)]))


@common.sentence_for(5)
def draw(before, preset, beside, *values):
    """For the controls' values: chart, sentence and formula, table, all tensors, and what to compare the next with."""
    now = {"preset": preset, "beside": beside, **dict(zip(ORDER, values))}
    now, note = common.within(now, LIMITS)
    config = config_of(preset, now)
    counted = accounting.count_parameters(config)
    now["total"] = counted.total
    text = common.said(note + explain(now, before, counted)) + total_formula(counted)
    return (plots.parameter_treemap(config, "all parameters"), text, table(config, preset, beside),
            tensor_formulas(config), now)


def own_code(preset, beside, *values) -> str:
    """The config that the controls make, as Python."""
    now, _ = common.within(dict(zip(ORDER, values)), LIMITS)
    return as_python(config_of(preset, now), preset)


def _shown(value) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else str(value)


def published(preset: str) -> tuple:
    """Heading and chart of the model beside."""
    return f"### {preset}, as it is", plots.parameter_treemap(presets.get(preset), "all parameters")


def state(request: gr.Request | None) -> tuple[dict, str]:
    """The controls' values for an address, and a sentence about what in it could not be used."""
    known = {"preset": presets.names(), "beside": presets.names()}
    models, problem = common.read_query(request, {"preset": START, "beside": BESIDE}, known)
    choices = {name: choice[1] for name, choice in CHOICES.items()}
    values, more = common.read_query(request, values_of(presets.get(models["preset"])), choices, LIMITS)
    return {**models, **values}, f"{problem} {more}".strip()


def build(demo: gr.Blocks) -> None:
    first, _ = state(None)
    shown = draw(None, *first.values())[1:]
    common.question("Where are a model's parameters?", "Take any model, move any of its sizes, and see what it weighs "
                    "and what works on each token. Every control changes a field of the same `ModelConfig`.")
    notice = common.notice_box()
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            preset = gr.Dropdown(presets.names(), value=START, label="Start from", elem_id="preset")
            beside = gr.Dropdown(presets.names(), value=BESIDE, label="Compare with", elem_id="beside")
            controls, groups = _controls(first)
            everything = {"preset": preset, "beside": beside, **controls}
            common.copy_link_button(everything)
            code_box.python_button(own_code, list(everything.values()), notice, "architecture_python")
            common.try_this([
                ("DeepSeek-V3 with every expert made dense: what one network of that width weighs",
                 common.link("", preset="deepseek-v3", beside="deepseek-v3", moe=False)),
                ("GPT-2 with DeepSeek's attention", common.link(
                    "", preset="gpt2", beside="gpt2", attention="MLA", positions="rope", kv_lora_rank=128)),
                ("Kimi K2 beside DeepSeek-V3: more experts, fewer heads",
                 common.link("", preset="kimi-k2", beside="deepseek-v3"))])
        with gr.Column(scale=2, min_width=300):
            with gr.Row():
                with gr.Column(scale=3, min_width=260, elem_classes="result"):
                    gr.Markdown("### As the controls have it")
                    chart = gr.Plot(shown[0], show_label=False, elem_id="chart")
                with gr.Column(scale=2, min_width=260):
                    title, other = gr.Markdown(), gr.Plot(show_label=False, elem_id="other")  # filled at opening
            with gr.Column(elem_classes="result"):
                text = gr.HTML(shown[1], elem_id="text")
                parts = gr.HTML(shown[2], elem_id="table")
                with gr.Accordion("The formula tensor by tensor: out × in × how many", open=False):
                    tensors = gr.HTML(shown[3], elem_id="tensors")
    common.lesson("`course/01_architecture/01_journey_of_a_token.ipynb` follows one token through GPT-2 and counts its "
                  "parameters. The rules of counting are those of `llm_core.accounting`, which also prints a table: "
                  "`python -m llm_core.accounting deepseek-v3`.")
    before = gr.State(shown[4])
    outputs = [notice, chart, text, parts, tensors, before]
    inputs = [before, *everything.values()]

    def seen(values: dict) -> list:
        """Only the sizes that the chosen kind of model has are shown."""
        kind = values["attention"]
        return [gr.Column(visible=kind == "GQA"), gr.Column(visible=kind != "MLA"), gr.Column(visible=kind == "MLA"),
                gr.Column(visible=bool(values["moe"]))]

    def kind_changed(*given):
        return *seen(dict(zip(ORDER, given[3:]))), *draw(*given)

    def preset_chosen(before, preset, beside, *_):
        values = values_of(presets.get(preset))
        return *values.values(), *seen(values), *draw(before, preset, beside, *values.values())

    def beside_chosen(*given):
        return *published(given[2]), *draw(*given)

    def opened(request: gr.Request):
        values, problem = state(request)
        told, *rest = draw(None, *values.values())
        if told:  # show the model as it is, greyed, under the sentence that says why not what was asked for
            _, *rest = draw(None, *(values | values_of(presets.get(values["preset"]))).values())
        told = told or common.notice(problem, note=True)
        return *values.values(), *seen(values), *published(values["beside"]), told, *rest

    kinds = [controls["attention"], controls["moe"]]
    gr.on([c.input for c in controls.values() if c not in kinds], draw, inputs, outputs, api_name="architecture",
          **common.FIGURES)
    gr.on([c.input for c in kinds], kind_changed, inputs, [*groups, *outputs], api_name="architecture_kind",
          **common.FIGURES)
    preset.input(preset_chosen, inputs, [*controls.values(), *groups, *outputs], api_name="architecture_preset",
                 **common.FIGURES)
    beside.input(beside_chosen, inputs, [title, other, *outputs], api_name="architecture_beside", **common.FIGURES)
    demo.load(opened, None, [*everything.values(), *groups, title, other, *outputs], api_name="architecture_open",
              **common.FIGURES)


def _controls(values: dict) -> tuple[dict[str, gr.components.Component], list[gr.Column]]:
    """All controls by name in ORDER, and the groups that are shown for some kinds of model only."""
    made, kind = {}, values["attention"]

    def add(*names):
        for name in names:
            key = name.replace("_", "-")
            if name in SLIDERS:
                made[name] = common.whole_slider(name, values[name], SLIDERS[name][:4])
            elif name in CHOICES:
                made[name] = gr.Radio(CHOICES[name][1], value=values[name], label=CHOICES[name][0], elem_id=key)
            else:
                made[name] = gr.Checkbox(values[name], label=SWITCHES[name][0], elem_id=key)

    with gr.Accordion("Size", open=True):
        add("d_model", "n_layers", "vocab_size", "max_seq_len")
    with gr.Accordion("Attention", open=True):
        add("attention", "n_heads")
        with gr.Column(visible=kind == "GQA") as shared:
            add("n_kv_heads")
        with gr.Column(visible=kind != "MLA") as grouped:
            add("head_dim")
        with gr.Column(visible=kind == "MLA") as latent:
            add(*LATENT)
    with gr.Accordion("Feed-forward and experts", open=False):
        add("d_ff", "activation", "moe")
        with gr.Column(visible=values["moe"]) as experts:
            add(*EXPERTS)
    with gr.Accordion("Norms, head, positions, MTP", open=False):
        add("norm", "tie_embeddings", "positions", "n_mtp_modules")
    return {name: made[name] for name in ORDER}, [shared, grouped, latent, experts]


if __name__ == "__main__":
    from apps import architecture

    common.run_alone(architecture)
