"""What the training lab shows, as HTML: the plan, how far a run is, what it writes, what came out."""

from __future__ import annotations

import html

from apps import common
from llm_core import accounting
from llm_core.training.lab.plan import MOST_PARAMETERS, WARMUP_STEPS, Plan, Settings
from llm_core.training.lab.record import Record


def plan_html(settings: Settings, planned: Plan, note: str = "") -> str:
    """What the run will take: one sentence, the formulas with their numbers, the bytes."""
    a_step, steps = planned.seconds_per_step, about_number(planned.steps)
    flops = accounting.training_flops(settings.config(), planned.tokens_per_step, settings.context)
    active = "" if planned.active_parameters == planned.parameters else (
        f", of which a token uses {planned.active_parameters:,}")
    return common.said(
        f"{note}{settings.name}: {planned.parameters:,} parameters{active} (at most {MOST_PARAMETERS:,} here). A step "
        f"takes roughly {duration(a_step)} on one core, so {planned.seconds} seconds are about "
        f"{steps:,} steps and {accounting.human_count(steps * planned.tokens_per_step)} tokens; "
        "half or twice as many on another machine.") + common.formula(
        f"a step: {settings.batch_size} texts × {settings.context} tokens = {planned.tokens_per_step:,} tokens; "
        f"forward {flops.forward:,} + backward {flops.backward:,} = {planned.flops_per_step:,} FLOPs "
        f"({accounting.human_count(planned.flops_per_step)})",
        f"weights, gradients and AdamW's two moments: {planned.parameters:,} × 16 bytes = "
        f"{planned.training_bytes:,} bytes, {accounting.human_bytes(planned.training_bytes)}",
        f"learning rate: up to {settings.learning_rate:g} over {WARMUP_STEPS} steps, then as it is, so that a short "
        "run is the beginning of a longer one with the same seed")


def about_number(n: int) -> int:
    """Two digits of it: 1107 -> 1100."""
    return int(float(f"{n:.1e}"))


def duration(seconds: float) -> str:
    return f"{seconds * 1000:.2g} ms" if seconds < 0.0995 else f"{seconds:.2f} s"


def bar(done: float, whole: float) -> str:
    return (f'<progress max="{whole:g}" value="{min(done, whole):g}" style="width:100%; accent-color:#0072B2" '
            'aria-label="how far the training is"></progress>')


def status_html(text: str, above: str = "") -> str:
    return f'{above}<p class="sentence">{html.escape(text)}</p>'


def waiting_html(place: int) -> str:
    ahead = "one is" if place == 1 else f"{place} are"
    return status_html(f"Busy: somebody trains. Your place in the line is {place}: {ahead} before you. Stop leaves the "
                       "line.")


def running_html(record: Record) -> str:
    return status_html(f"Training: {record.seconds:.0f} of {record.limit:g} seconds, step {record.step:,}, "
                       f"{record.tokens:,} tokens read.", bar(record.seconds, record.limit))


def done_html(record: Record) -> str:
    done = record.done
    why = "Stopped" if done["why"] == "stopped" else "The time is up"
    return status_html(
        f"{why}: {done['step']:,} steps in {done['seconds']:.1f} seconds. The file holds the weights of step "
        f"{done['best_step']:,}, the best on held-out text, as safetensors with config.json; "
        "load_pretrained opens the folder in it. It is deleted when this page closes, or after half an hour.",
        bar(record.limit, record.limit))


def recorded_html(record: Record | None) -> str:
    if record is None:
        return status_html("Press Train.")
    return status_html(f"Recorded: a run of {record.limit:g} seconds on one core of an ordinary computer, and, dashed, "
                       "one of a GPT of as many active parameters. Press Train for one of your own.")


def sample_html(record: Record) -> str:
    """What the model writes after the same words, at the first step and now."""
    if not record.samples:
        return ""

    def one(sample: dict) -> str:
        return (f'<h4>After step {sample["step"]:,} it writes</h4><pre tabindex="0" style="white-space:pre-wrap;'
                f'overflow-wrap:anywhere;margin:0"><b>{html.escape(sample["prompt"])}</b>'
                f'{html.escape(sample["text"])}</pre>')

    first, last = record.samples[0], max(record.samples, key=lambda sample: sample["step"])
    return one(last) + (one(first) if last is not first else "")


def explain(record: Record, before: Record | None) -> str:
    """What the run has bought, what its curve says, and how it stands to the one before."""
    if not record.looks:
        return ""
    blind, last, best = record.started["blind"], record.looks[-1], record.best
    read = f"In {last[0]:.1f} seconds {record.name} read {record.tokens:,} tokens, {times(record.passes)}"
    verdict = {
        "": f"{read}. Held-out text costs {last[2]:.2f} bits per byte; a blind guess costs {blind:.2f}.",
        "learned": f"{read}, and held-out text went from {blind:.2f} bits per byte, what a blind guess costs, to "
                   f"{last[2]:.2f}.",
        "memorised": f"{read}. Held-out text was at its best at step {best[1]:,.0f}, {best[2]:.2f} bits per byte, and "
                     f"costs {last[2]:.2f} now, while the training loss goes on falling: it learns the text by heart "
                     "(over-fitting).",
        "overshot": f"{read}, and learned nothing: held-out text costs {last[2]:.2f} bits per byte, and a blind guess "
                    f"{blind:.2f}. The learning rate is too high: each step overshoots.",
    }[record.verdict]
    return f"{verdict} {compare(record, before)}".strip()


def compare(record: Record, before: Record | None) -> str:
    """At the same second, and at the same step; texts that differ cannot be compared."""
    if before is None or before.started.get("train_tokens") != record.started.get("train_tokens"):
        return ""
    last = record.looks[-1]
    then, there = before.look_at(seconds=last[0]), before.look_at(step=last[1])
    if then is None or there is None:
        return ""
    return (f"Before, dashed: {before.name}, {then[2]:.2f} after as many seconds (step {then[1]:,.0f}), "
            f"{there[2]:.2f} after as many steps (step {there[1]:,.0f}).")


def times(passes: float) -> str:
    return f"{passes:.0f} times all of the text" if passes >= 1.5 else f"{100 * passes:.3g} % of the text"


def tables_html(record: Record) -> str:
    rows = [(f"{row['seconds']:.1f}", f"{row['step']:,.0f}", f"{row['tokens']:,.0f}",
             accounting.human_count(int(row["flops"])), f"{row['training']:.4f}" if row["training"] else "",
             f"{row['held_out']:.4f}") for row in record.rows()]
    if not rows:
        return ""
    bytes_, tokens = record.started["held_out_bytes"], record.started["held_out_tokens"]
    return common.table(
        ("second", "step", "tokens read", "FLOPs so far", "training, bits per byte", "held out, bits per byte"), rows,
        f"{record.name}. Bits per byte: loss in nats / ln 2 / bytes of text. Held out: {tokens:,} tokens, "
        f"{bytes_:,} bytes, from all over the text that is never learned from.", words=()) + common.table(
        ("step", *(f"{step:,}" for step in record.marks)),
        [("training loss, nats a token", *(f"{loss:.4f}" for loss in record.marks.values()))],
        "The same seed and settings give these again, to the last digit on the same computer.")


def brief(settings: Settings, parameters: int, record: Record) -> dict:
    """A run for programs."""
    return {"name": settings.name, "parameters": parameters, "steps": record.done["step"],
            "seconds": record.done["seconds"], "blind": record.started["blind"], "bits_per_byte": record.looks,
            "losses": record.marks, "sample": record.samples[-1]["text"], "verdict": record.verdict}
