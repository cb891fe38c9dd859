"""MoE lab: experts counted, a text coloured by its experts, and a router that is kept in balance while one watches."""

from __future__ import annotations

import gradio as gr

from apps import common, moe_balance, moe_sizes, moe_text
from llm_core import presets
from llm_core.accounting import experts

TITLE = "MoE lab"
PATH = "/moe"
TABS = {"sizes": ("Sizes", moe_sizes), "text": ("Your text", moe_text), "balance": ("Balance", moe_balance)}
START = {"tab": "sizes"}


def expert_sizes(preset: str = "deepseek-v3", pieces: int = 1, n_routed_experts: int = 0,
                 n_experts_per_token: int = 0) -> dict:
    """What a model with experts holds and what a token uses of it, from its config alone.

    preset: one of the models with experts, such as mixtral-8x7b, deepseek-v2, deepseek-v3, kimi-k2, deepseek-mini.
    pieces: cut each expert into that many (1, 2, 4, 8, 16; must divide the expert's width), as many times more chosen.
    n_routed_experts, n_experts_per_token: 0 leaves the model's own. Comes back: total_parameters, active_parameters,
    one_expert, layer_holds, token_uses_of_layer, expert_layers, flops_a_token (seeing 4,096), experts, chosen,
    ways_to_choose (as text, since it may have thousands of digits).
    """
    if preset not in moe_sizes.MODELS:
        raise ValueError(f"{preset!r} is no model with experts; those are {', '.join(moe_sizes.MODELS)}")
    given = {"n_routed_experts": n_routed_experts, "n_experts_per_token": n_experts_per_token}
    values = moe_sizes.sizes(preset) | {name: value for name, value in given.items() if value}
    config = moe_sizes.config_of(preset, pieces, values)
    n = experts.expert_sizes(config)
    return {"total_parameters": n.parameters.total, "active_parameters": n.parameters.active, "one_expert": n.one,
            "layer_holds": n.held, "token_uses_of_layer": n.used, "expert_layers": n.layers, "flops_a_token": n.flops,
            "experts": config.moe.n_routed_experts, "chosen": config.moe.n_experts_per_token,
            "ways_to_choose": experts.in_words(n.ways)}


def experts_of_text(text: str = "O Romeo, Romeo!", block: int = 1, trained: bool = True) -> dict:
    """Which experts of deepseek-mini, a small DeepSeek trained on Shakespeare, each token of a text is sent to.

    text: at most 256 tokens. block: 1, 2 or 3. trained False: the same model with random weights, to hold beside it.
    Comes back: tokens, a list of {token, experts (best first), weights}; load, the visits of each of the 8 experts;
    imbalance, the largest load over the mean one; bits, what a token's id tells about its experts: trained, untrained,
    by chance.
    """
    if block not in moe_text.BLOCKS:
        raise ValueError(f"block {block!r} has no experts; those with experts are {moe_text.BLOCKS}")
    _, pieces = moe_text.read(text)
    found = moe_text.routed(text, "trained" if trained else "untrained")[block]
    return {"tokens": [{"token": piece, "experts": chosen, "weights": weights} for piece, chosen, weights in
                       zip(pieces, found.experts, found.weights, strict=True)],
            "load": found.load, "imbalance": found.imbalance,
            "bits": {name: row[block] for name, row in moe_text.bits_of(text).items()}}


API = (expert_sizes, experts_of_text)


def opens(name: str):
    """A function that opens this part if the address asks for it."""
    def choose(request: gr.Request):
        values, _ = common.read_query(request, START, {"tab": list(TABS)})
        return gr.Tabs(selected=name) if values["tab"] == name else gr.skip()
    return choose


def build(demo: gr.Blocks) -> None:
    v3 = presets.get("deepseek-v3").moe
    common.question("How can a model have many parameters and use few?",
                    f"By experts: DeepSeek-V3 has {v3.n_routed_experts} small networks in each of its upper layers, "
                    f"and a router that sends a token to {v3.n_experts_per_token} of them. Three things to try: what "
                    "that holds and uses, where the tokens of a text go, and how one keeps all experts busy.")
    with gr.Tabs(selected=START["tab"]) as tabs:
        for name, (label, part) in TABS.items():
            with gr.Tab(label, id=name, elem_classes="part") as tab:
                loaded = part.build(demo, tab, gr.Textbox(name, visible=False))
            # Only when the part has read its state from the address: opened before, it would draw that of the start.
            loaded.then(opens(name), None, tabs, api_name=f"moe_open_{name}", **common.FIGURES)
    common.try_this([
        ("DeepSeek's own example: 16 experts of which 2 are chosen, cut in 4: 120 ways become 4,426,165,368",
         common.link("", preset="mixtral-8x7b", n_routed_experts=16, pieces=4)),
        ("Does an untrained router specialise, too? The same text, random weights",
         common.link("", tab="text", router="untrained")),
        ("Left alone for 300 steps: the router collapses",
         common.link("", tab="balance", balance="nothing", step=300))])
    common.lesson("`course/06_moe/01_experts_and_routing.ipynb` builds the layer by hand and measures what a token "
                  "tells about its expert; `02_balancing.ipynb` lets a router collapse and steps V3's bias; "
                  "`03_deepseek_moe.ipynb` cuts experts finer and limits groups. The papers: DeepSeekMoE "
                  "(arXiv:2401.06066), DeepSeek-V2 (2405.04434), DeepSeek-V3 (2412.19437, section 2.1.2).")


if __name__ == "__main__":
    from apps import moe_lab, starting

    starting.run_alone(moe_lab)
