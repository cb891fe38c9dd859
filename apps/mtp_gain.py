"""What the MTP lab shows of large models: when a second row of a pass is free, and what guesses gain then."""

from __future__ import annotations

import functools

from apps import common, mtp_writing, writing
from llm_core import accounting, plots, presets

MODELS = {"deepseek-v3": "routed experts", "llama-3.1-70b": "dense feed-forward"}  # and the part that gives the colour
NAMES = {"deepseek-v3": "DeepSeek-V3", "llama-3.1-70b": "Llama 3.1 70B"}
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
IN_TABLE = (1, 4, 32, 128, 512)
CONTEXTS = (1024, 4096, 32768)
CONTROLS = ("p", "ahead", "texts", "context")
WHY = {
    "p": "a pass costs as much as before and brings another number of tokens.",
    "ahead": "a pass reads another number of rows and brings another number of tokens, each guess behind the first "
             "only where all before it stood.",
    "texts": "with more texts, more of the experts are read anyway, and there is more arithmetic for the same weights.",
    "context": "each text's cache has to be read too, but its rows share it.",
}


@functools.lru_cache(maxsize=512)
def bound(model: str, guesses: int, texts: int, context: int) -> accounting.SpeculativeBound:
    return accounting.speculative_bound(presets.get(model), accounting.HARDWARE["h100"], guesses, texts, context)


def draw(now: dict, before: dict | None = None, note: str = "") -> tuple:
    """Chart, text and table for p (per cent), ahead (guesses a pass), texts and context."""
    share, ahead, texts, context = (now[name] for name in CONTROLS)
    share /= 100
    curves = {NAMES[model]: (part, {n: bound(model, ahead, n, context).speed_up(share) for n in BATCHES})
              for model, part in MODELS.items()}
    here = {model: bound(model, ahead, texts, context) for model in MODELS}
    rows = [[f"{n:,}"] + [cell for model in MODELS for cell in cells(bound(model, ahead, n, context), share)]
            for n in sorted({*IN_TABLE, texts})]
    head = ["texts at once"] + [f"{NAMES[model]}: {what}" for model in MODELS
                                for what in ("c, rows + guessing", "speed-up", "waits for")]
    table = common.table(head, rows, f"p = {share:.2f}, {mtp_writing.guesses(ahead)} a pass, {context:,} tokens in "
                         "each text; costs in plain steps; one H100's bandwidth and arithmetic, 16 bits a number")
    return plots.speed_up_lines(curves, texts), text(note, now, before, here), table


def cells(b: accounting.SpeculativeBound, p: float) -> list[str]:
    return [f"{b.rows_cost:.3f} + {b.guessing_cost:.3f}", f"{b.speed_up(p):.2f}", b.limited_by]


def text(note: str, now: dict, before: dict | None, here: dict) -> str:
    """What changed and why, the formula for both models, and what was published."""
    share, changed = now["p"] / 100, [name for name in CONTROLS if before and before[name] != now[name]]
    what = ""
    if len(changed) == 1:
        unit = " %" if changed[0] == "p" else ""
        name = {"ahead": "guesses a pass"}.get(changed[0], changed[0])
        what = f"{name} went from {before[changed[0]]:,}{unit} to {now[changed[0]]:,}{unit}: {WHY[changed[0]]} "
    b = here["deepseek-v3"]
    free = b.rows_cost < 0.02
    cost = "hardly anything" if free else f"{b.rows_cost:.2f} of a plain step"
    why = ("nearly all experts are read for the first rows already" if free else
           "they choose experts that the first rows have not read" if b.limited_by == "memory" else
           "the pass waits for arithmetic, of which each row has its own")
    lead = (f"{note}{what}With {writing.count(now['texts'], 'text')} at once, {mtp_writing.guesses(now['ahead'])} a "
            f"pass makes DeepSeek-V3 {b.speed_up(share):.2f} times as fast at best, and Llama 3.1 70B "
            f"{here['llama-3.1-70b'].speed_up(share):.2f} times. V3's rows more cost {cost}, since {why}.")
    top = "1 + p" if now["ahead"] == 1 else "1 + p + … + p^" + str(now["ahead"])
    lines = [f"{NAMES[m]}: ({top}) / (1 + c), c = {x.rows_cost:.3f} rows + {x.guessing_cost:.3f} guessing: "
             f"{x.speed_up(share) * (1 + x.c):.3f} / {1 + x.c:.3f} = {x.speed_up(share):.2f}" for m, x in here.items()]
    low, high = accounting.V3_ACCEPTED
    n = accounting.count_parameters(presets.get("deepseek-v3"))
    one = bound("deepseek-v3", 1, now["texts"], now["context"])
    published = (f"Published for V3 (arXiv:2412.19437, section 5.4.3): {100 * low:.0f} to {100 * high:.0f} % of the "
                 f"second tokens accepted, {accounting.V3_SPEED_UP} times the tokens a second; for how many texts it "
                 f"does not say. One guess at {now['texts']:,} texts here: {one.speed_up(low):.2f} to "
                 f"{one.speed_up(high):.2f}. Its MTP module has {n.mtp:,} parameters of its own, of which a token uses "
                 f"{n.mtp_active:,}; embedding and head are the model's.")
    return common.said(lead) + common.formula(*lines) + common.said(published)


def mtp_speed_up(p: float = 0.85, guesses: int = 1, texts: int = 128, context: int = 1024) -> dict:
    """How much faster guesses make DeepSeek-V3 and Llama 3.1 70B at best, by the roofline of an H100.

    p: the share of guesses that stand, 0 to 1. guesses: of one MTP module a pass, 1 to 4. texts: decoded at once, 1 to
    4096. context: tokens in each. Back comes for each model: speed_up, and what its checking pass waits for; costs are
    in plain decoding steps.
    """
    for name, value, most in (("guesses", guesses, 4), ("texts", texts, 4096), ("context", context, 1 << 20)):
        if not isinstance(value, int) or not 1 <= value <= most:
            raise ValueError(f"{name} must be a whole number from 1 to {most:,}, not {value!r}")
    out = {}
    for model in MODELS:
        b = bound(model, guesses, texts, context)
        out[model] = {"speed_up": b.speed_up(p), "rows_cost": b.rows_cost, "guessing_cost": b.guessing_cost,
                      "limited_by": b.limited_by}
    return out
