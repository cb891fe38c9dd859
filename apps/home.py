"""Home: what this is, where to go, and the models on the way from GPT-2 to DeepSeek-V3."""

from __future__ import annotations

import html

import gradio as gr

from apps import common
from llm_core import accounting, presets

TITLE = "Home"
PATH = "/"

CARDS = (
    ("/journey", "Token journey", "What happens to a word inside a model? Follow it through every compartment."),
    ("/architecture", "Architecture", "Where are a model's parameters? Take any model and move any of its sizes."),
    ("/ladder", "Ladder", "Which change does what on the way from GPT-2 to DeepSeek-V3? Climb it step by step."),
    ("/kv-cache", "KV cache", "How much memory does the past take? MHA, GQA, MQA and MLA, side by side."),
    ("/rope", "RoPE lab", "How does a model know where a token stands? Turn its pairs, and go past its context."),
    ("/mla", "MLA lab", "How can every head have its own keys and values, and the cache keep none of them?"),
    ("/moe", "MoE lab", "How can a model have many parameters and use few? Experts, counted, coloured and balanced."),
    ("/mtp", "MTP lab", "Can a model write two tokens at once, and stay right? Guesses, checked as they are made."),
    ("/quantization", "Quantization lab", "How few bits does a number need? Integers, FP8, and where a model breaks."),
    ("/what-fits", "What fits", "Does it fit on my GPU, and how fast could it be? Weights, cache, and a roofline."),
    ("/playground", "Playground", "What could come next, and what does the model choose? Trained models write."),
    ("/tweak", "Tweak and see", "What does one change do to size, quality and text? Every step is a model of its own."),
    ("/training", "Training lab", "What does a minute of training buy? Train a small model of your own, and keep it."),
    ("/wrong-elsewhere", "Wrong elsewhere", "Which published figures do not come out, and what is the right sum?"),
)
LADDER = (  # preset, and what it brings
    ("gpt2", "learned positions, MHA, one tied table of tokens"),
    ("gpt2-xl", "the same, wider and deeper"),
    ("gpt3-175b", "the same, a hundred times larger"),
    ("llama-3.1-8b", "RoPE, RMSNorm, SwiGLU, and GQA for a smaller cache"),
    ("mixtral-8x7b", "a few large experts, of which a token uses two"),
    ("deepseek-v2", "MLA, and many small experts beside shared ones"),
    ("deepseek-v3", "a sigmoid router that balances by a bias, and MTP"),
)


def ladder() -> str:
    """The course's path as a table, every figure from llm_core.accounting."""
    rows = []
    for name, brings in LADDER:
        config = presets.get(name)
        n = accounting.count_parameters(config)
        rows.append((name, f"{n.total:,}", f"{n.active:,}", config.attention.kind,
                     f"{accounting.cache_bytes_per_token(config):,}", brings))
    return common.table(("model", "total parameters", "active for a token", "attention", "cache, bytes a token",
                         "what is new"), rows,
                        "Active: all but the experts that a token does not choose. Cache: 16 bits a number.",
                        words=(0, 3, 5))


def cards() -> str:
    return '<nav class="cards" aria-label="Pages">' + "".join(
        f'<a href="{path}"><strong>{html.escape(title)}</strong>{html.escape(text)}</a>' for path, title, text in CARDS
    ) + "</nav>"


def list_models() -> dict:
    """List the models that can be asked for by name, real ones and the course's own small ones.

    Returns:
        models: for each name its total and active parameters (active: all but the experts that a token does not
        choose), kind of attention, layers, and bytes that one token leaves in the cache at 16 bits a number.
    """
    def about(config) -> dict:
        n = accounting.count_parameters(config)
        return {"total": n.total, "active": n.active, "attention": config.attention.kind, "n_layers": config.n_layers,
                "cache_bytes_per_token": accounting.cache_bytes_per_token(config)}

    return {"models": {name: about(presets.get(name)) for name in presets.names()}}


API = (list_models,)


def build(demo: gr.Blocks) -> None:
    common.question("How does a GPT become a DeepSeek?",
                    "This is the companion to the lectures *Build DeepSeek from scratch*: one model definition that "
                    "grows from GPT-2 to DeepSeek-V3 by its config alone. The sliders here move that very config, so "
                    "the parameter count of a 671 B model, the bytes of its cache and the text of a small trained "
                    "model come from the same few functions. The lessons in `course/` build each idea from nothing "
                    "and check it against them.")
    gr.HTML(cards())
    gr.Markdown("## The way from GPT-2 to DeepSeek-V3")
    first, last = presets.get(LADDER[0][0]), presets.get(LADDER[-1][0])
    one, other = accounting.count_parameters(first), accounting.count_parameters(last)
    gr.HTML(common.said(
        f"DeepSeek-V3 has {accounting.ratio(other.total, one.total)} times GPT-2's parameters, but a token works "
        f"with {accounting.human_count(other.active)} of its {accounting.human_count(other.total)}, and leaves less in "
        f"the cache than a token of Llama 3.1 8B, a model of {accounting.human_count(_total('llama-3.1-8b'))}."))
    gr.HTML(ladder(), elem_id="ladder")
    gr.HTML(common.formula(*(f"cache of {name}: {accounting.cache_formula(presets.get(name))}"
                             for name in ("gpt2", "llama-3.1-8b", "deepseek-v3"))))
    common.try_this([
        ("DeepSeek-V3 beside GPT-2, part by part", common.link("/architecture", preset="deepseek-v3", beside="gpt2")),
        ("DeepSeek-V3's four possible caches at 1M tokens",
         common.link("/kv-cache", preset="deepseek-v3", context="1M"))])
    gr.Markdown("**Offline.** All of this works without a network: models, vocabularies, text and charts are on this "
                "computer, and nothing that you type leaves it.")
    common.lesson("Begin with `course/01_architecture/01_journey_of_a_token.ipynb`; `make lab` opens it.")


def _total(name: str) -> int:
    return accounting.count_parameters(presets.get(name)).total


if __name__ == "__main__":
    from apps import home, starting

    starting.run_alone(home)
