"""The controls of the page Architecture: every size of a ModelConfig, and the way from a config to them and back."""

from __future__ import annotations

import gradio as gr

from apps import common
from llm_core import ModelConfig
from llm_core.config import GroupedAttentionConfig, LatentAttentionConfig, MoEConfig, RopeConfig

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
    lacking = (GROUPED if latent else LATENT) + (() if m else EXPERTS)
    values |= {name: _on_slider(name, values[name]) for name in lacking}
    return {name: values[name] if name in values else getattr(config, name) for name in ORDER}


def _on_slider(name: str, value: int) -> int:
    """The step of a slider at a value or just below."""
    _, least, most, step, _ = SLIDERS[name]
    return least + (min(max(value, least), most) - least) // step * step


def off_their_sliders(base: ModelConfig) -> dict[str, int]:
    """The sizes of a config that lie beyond their slider, or between two of its steps. They are held as they are."""
    values = values_of(base)
    return {name: values[name] for name in SLIDERS if values[name] != _on_slider(name, values[name])}


def config_of(base: ModelConfig, values: dict) -> ModelConfig:
    """The base with the controls' values in it; what has no control stays. ValueError if it cannot be built."""
    v = values
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


def place(values: dict) -> tuple[dict[str, gr.components.Component], list[gr.Column]]:
    """Place all controls. They come back by name in ORDER, with the groups that some kinds of model have only."""
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


def seen(values: dict) -> list[gr.Column]:
    """Only the sizes that the chosen kind of model has are shown: updates for the groups of `place`."""
    kind = values["attention"]
    return [gr.Column(visible=kind == "GQA"), gr.Column(visible=kind != "MLA"), gr.Column(visible=kind == "MLA"),
            gr.Column(visible=bool(values["moe"]))]
