"""The RoPE lab's state: what its controls go through, a model's own values, the config that they make, the address."""

from __future__ import annotations

import gradio as gr

from apps import common
from llm_core import ModelConfig, accounting, past_context, presets, turning
from llm_core.config import LatentAttentionConfig, Llama3RopeConfig, YarnConfig
from llm_core.validation import whole

START = "deepseek-v3"
MODELS = [name for name in presets.names() if presets.get(name).rope is not None]
REACH = {"128 tokens": "128", "trained on": "original", "whole context": "context"}
SCALINGS = {"none": "none", "YaRN": "yarn", "Llama 3.1's": "llama3"}
TURNS = {"none": (32, 1), "yarn": (32, 1), "llama3": (4, 1)}  # fast, slow: what each is published with
MSCALES = {"1 (DeepSeek-V3)": 1.0, "0.707 (DeepSeek-V2)": 0.707, "0 (scale unchanged)": 0.0}
LONGEST = 1 << 20  # of a context that can be typed
BASES = sorted({round(lead * 10**power) for power in range(2, 7) for lead in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)} | {10**7})
DIALS = 6
# Name in the query -> what the slider shows: label, least, greatest, step, hint.
SLIDERS = {
    "m": ("Query at position m", 0, LONGEST - 1, 1),
    "n": ("Key at position n", 0, LONGEST - 1, 1),
    "shift": ("Move both by", 0, LONGEST - 1, 1, "the angle between them stays"),
    "factor": ("Factor", 1, 64, 1, "slow pairs are slowed by this"),
    "rope_dim": ("Numbers of a head that are turned", 2, 256, 2, "two form a pair"),
    "fast": ("Kept: pairs with more turns than", 1, 64, 1, "over the context trained on (YaRN: β_fast)"),
    "slow": ("Slowed by the factor: fewer than", 1, 64, 1, "between the two a ramp (YaRN: β_slow)"),
}
LIMITS = {name: (least, most) for name, (_, least, most, *_) in SLIDERS.items()}
PLACES = {"m": 40, "n": 20, "shift": 0, "reach": "128", "vectors": turning.ALIKE}
MEASURED = {"model": "deepseek-mini", "stretch": 4}


def own_values(preset: str) -> dict:
    """The controls' values for a model's own RoPE. ValueError for a model that has none."""
    config = presets.get(preset)
    if config.rope is None:
        raise ValueError(f"{preset} has no rotary positions; models that have: {', '.join(MODELS)}")
    s, context = config.rope.scaling, config.max_seq_len
    own = {"scaling": "none", "theta": float(config.rope.theta), "factor": 4, "rope_dim": config.rope_dim,
           "original": context, "context": context, "fast": 32, "slow": 1, "mscale": 1.0}
    if s is not None:
        own |= {"factor": round(s.factor), "original": s.original_max_seq_len}
    if isinstance(s, YarnConfig):
        own |= {"scaling": "yarn", "fast": round(s.beta_fast), "slow": round(s.beta_slow), "mscale": s.mscale_all_dim}
    elif isinstance(s, Llama3RopeConfig):
        own |= {"scaling": "llama3", "fast": round(s.high_freq_factor), "slow": round(s.low_freq_factor)}
    return own


CONTROLS = ["preset", *PLACES, *own_values(START)]  # in the order of the address, of the inputs, and of draw's values


def config_of(now: dict) -> ModelConfig:
    """The model with the controls' RoPE. ValueError if it cannot be built."""
    base = presets.get(now["preset"])
    rope = turning.scaled_rope(now["theta"], base.rope.layout, now["scaling"], now["factor"], now["original"],
                               now["fast"], now["slow"], now["mscale"])
    if base.rope_dim == now["rope_dim"]:
        return base.replace(rope=rope, max_seq_len=now["context"])
    width = "qk_rope_head_dim" if isinstance(base.attention, LatentAttentionConfig) else "head_dim"
    return base.replace(rope=rope, max_seq_len=now["context"],
                        attention=base.attention.replace(**{width: now["rope_dim"]}))


def settled(values) -> tuple[dict, str]:
    """The controls' values as numbers within their limits, and a sentence about what was not. ValueError if one of the
    typed ones is no number at all."""
    now = dict(zip(CONTROLS, values))
    for name in ("original", "context"):
        now[name] = accounting.parse_tokens(now[name])
        if now[name] > LONGEST:
            raise ValueError(f"contexts go up to {LONGEST:,} tokens here, not {now[name]:,}")
    most = reach(now) - 1
    return common.within(now, {**LIMITS, "m": (0, most), "n": (0, most), "shift": (0, most)})


def reach(now: dict) -> int:
    """How many positions the sliders go through."""
    return {"128": 128, "original": now["original"], "context": now["context"]}[now["reach"]]


def state(request: gr.Request | None) -> tuple[dict, dict, str]:
    """The controls' values for an address, those of the measurement, and a sentence about what could not be used."""
    chosen, problem = common.read_query(request, {"preset": START}, {"preset": MODELS})
    own = shown_values(chosen["preset"])
    values, more = common.read_query(request, {**PLACES, **own}, {
        "reach": list(REACH.values()), "vectors": list(turning.VECTORS), "scaling": list(SCALINGS.values()),
        "mscale": list(MSCALES.values())}, LIMITS)
    for name in ("original", "context"):
        try:
            values[name] = f"{accounting.parse_tokens(values[name]):,}"
        except ValueError as wrong:
            values[name], more = own[name], f"{more} From the address: {wrong}."
    experiment, last = common.read_query(request, MEASURED, {
        "model": list(past_context.TEXTS), "stretch": list(past_context.FACTORS[1:])})
    return {**chosen, **values}, experiment, " ".join(filter(None, (problem, more, last)))


def base_step(theta: float) -> int:
    """The slider's step nearest to a base."""
    return min(range(len(BASES)), key=lambda i: abs(BASES[i] / theta - 1))


def shown_values(preset: str) -> dict:
    """A model's own values as the controls hold them: contexts are written out."""
    own = own_values(preset)
    return own | {name: f"{own[name]:,}" for name in ("original", "context")}


def with_room(values: dict) -> dict:
    """The values where another scaling was chosen: its usual turns, and at least the context that it reaches."""
    fast, slow = TURNS[values["scaling"]]
    try:
        reaches = accounting.parse_tokens(values["original"]) * int(values["factor"])
        context = max(accounting.parse_tokens(values["context"]), min(reaches, LONGEST))
    except (ValueError, TypeError):  # draw will say what is wrong with them
        return values | {"fast": fast, "slow": slow}
    return values | {"fast": fast, "slow": slow,
                     "context": f"{context:,}" if values["scaling"] != "none" else values["context"]}


def asked(preset: str, given: dict) -> tuple[dict, ModelConfig]:
    """What a program asks for: a model's own values, with those changed that are not 0 or ""; and the config.

    ValueError for what cannot be.
    """
    if preset not in MODELS:
        raise ValueError(f"preset must be one of {', '.join(MODELS)}, not {preset!r}")
    own = own_values(preset)
    now = {"preset": preset, **own, **{name: value for name, value in given.items() if value}}
    if now["scaling"] != own["scaling"] and now["scaling"] in TURNS:
        now["fast"], now["slow"] = TURNS[now["scaling"]]
    return now, config_of(now)


def check_positions(**positions: int) -> None:
    """ValueError for a position below 0 or beyond the longest context."""
    for name, position in positions.items():
        whole(name, position, least=0)
        if position >= LONGEST:
            raise ValueError(f"{name} goes up to {LONGEST - 1:,}, not {position:,}")
