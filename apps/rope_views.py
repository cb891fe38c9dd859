"""What the RoPE lab says about its figures: sentences, formulas with their numbers, and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from apps import common
from llm_core import ModelConfig, past_context, turning
from llm_core.turning import Pair

WHY = {
    "m": "its pairs turn on, each at its own speed: {fast} turned by {fast_turn}, {slow} by {slow_turn}.",
    "n": "its pairs turn on, each at its own speed: {fast} turned by {fast_turn}, {slow} by {slow_turn}.",
    "shift": "all arrows turn, but both of a pair by the same angle, so the angle between them stays, and the score.",
    "vectors": "other vectors have other scores, but the angles between positions are the same.",
    "theta": "a larger base slows every pair but the first, the last one most.",
    "rope_dim": "the same range of speeds is shared out among {count:,} pairs.",
    "scaling": "fast pairs turn as before, slow ones are slowed.",
    "factor": "the slow pairs turn a factor's part as fast as by the base alone.",
    "original": "a pair counts as fast or slow by its turns over this length.",
    "context": "the pairs stay; this is only how far they are used.",
    "fast": "fewer or more pairs count as fast and are kept.",
    "slow": "fewer or more pairs count as slow and are interpolated.",
    "mscale": "this moves the softmax scale alone; no pair turns otherwise.",
}
NAMES = {"m": "The query's position", "n": "The key's position", "shift": "The move of both", "theta": "The base"}


def number(value: float, digits: int = 3) -> str:
    """3 significant digits, thousands separated, and no exponent between a millionth and 10^15."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    size = math.floor(math.log10(abs(value)))
    return f"{value:,.{max(digits - 1 - size, 0)}f}" if -6 <= size < 15 else f"{value:.{digits - 1}e}"


def degrees(radians: float) -> str:
    return f"{number(math.degrees(radians))}°"


def explain(now: dict, before: dict | None, turned: Sequence[Pair], score: float) -> str:
    """What changed and why, then where it stands."""
    changed = [name for name in now if before and now[name] != before[name]]
    what = ""
    if "scaling" in changed:
        changed = ["scaling"]  # its turns and the context came along
    if before and before["preset"] == now["preset"] and len(changed) == 1 and changed[0] in WHY:
        name, first, last = changed[0], turned[0], turned[-1]
        old, new = (value if isinstance(value, str) else f"{value:,.10g}" for value in (before[name], now[name]))
        steps = now[name] - before[name] if name in ("m", "n") else 0
        why = WHY[name].format(fast=f"pair {first.index}", slow=f"pair {last.index}", count=len(turned),
                               fast_turn=degrees(steps * first.speed), slow_turn=degrees(steps * last.speed))
        what = f"{NAMES.get(name, name)} went from {old} to {new}: {why} "
    m, n = now["m"] + now["shift"], now["n"] + now["shift"]
    where = f"{m - n:,} tokens before it" if m >= n else f"{n - m:,} tokens after it, where a causal mask would hide it"
    return (f"{what}The query stands at {m:,}, the key at {n:,}, {where}. Their score is {number(score, 4)}, here as "
            "anywhere else at this distance.")


def score_formula(now: dict, turned: Sequence[Pair], score: float) -> str:
    some = [turned[0], turned[len(turned) // 2], turned[-1]]
    own = ", ".join(f"pair {pair.index}: {number(pair.plain)}" for pair in dict.fromkeys(some))
    return common.formula(
        f"pair i turns {now['theta']:,.10g}^(−2i / {2 * len(turned)}) radians a token by the base alone: {own}",
        f"score = Σ |q_i| |k_i| cos((m − n) θ_i + φ_i) over {len(turned)} pairs, at m − n = {now['m'] - now['n']:,}: "
        f"{number(score, 4)}   (φ_i: the angle between q_i and k_i before they are turned)")


DECAY = {
    turning.ALIKE: "Every pair starts from the same angle, so near tokens agree in all pairs and far ones in fewer: "
                   "the decay that RoPE is said to bring. It is not smooth, and what is far may still score well.",
    turning.SAME: "A random vector against itself decays in the same way, with its larger pairs counting more.",
    turning.APART: "Two random vectors have nothing in common that distance could spoil: no decay. RoPE alone does not "
                   "prefer what is near; a model has to learn queries and keys that do.",
}


def decay_text(vectors: str, distances: Sequence[int], envelope: Sequence[float], at_zero: float) -> str:
    """How far the envelope falls, and what that means for these vectors."""
    at = dict(zip(distances, envelope))
    places = [min(distances, key=lambda d: abs(d / wanted - 1)) for wanted in (10, 1000, distances[-1])]
    found = ", ".join(f"{number(at[d])} at {d:,}" for d in sorted(set(places)))
    return common.said(f"The score is {number(at_zero)} at a distance of 0. The dotted envelope, the most that it "
                       f"could be if the key's pairs were all turned by one further angle, is {found}. "
                       f"{DECAY[vectors]}")


def dial_table(now: dict, shown: Sequence[Pair], query: Tensor, key: Tensor, adds: Tensor) -> str:
    """The dials in numbers."""
    m, n = now["m"] + now["shift"], now["n"] + now["shift"]
    rows = [(f"pair {pair.index}", number(pair.speed, 6), degrees(pair.angle(m)), degrees(pair.angle(n)),
             degrees((m - n) * pair.speed), f"{adds[pair.index].item() + 0.0:.4f}") for pair in shown]
    return common.table(("of the head", "radians a token", f"turned at {m:,}", f"turned at {n:,}", "turned apart",
                         "adds to the score"), rows, "The dials in numbers; whole turns are left out, except in "
                        "“turned apart”, which is m − n times the speed")


def moved_table(config: ModelConfig, now: dict, query: Tensor, key: Tensor, turned: Sequence[Pair]) -> str:
    """The same distance at other places: the score in 64 bits, and as the model calculates it."""
    room = config.max_seq_len - 1 - max(now["m"], now["n"])
    rows = []
    for shift in sorted({0, 1, now["shift"], 1000, max(room, 0)}):
        m, n = now["m"] + shift, now["n"] + shift
        exact = turning.contributions(query, key, turned, m, n).sum().item()
        rows.append((f"moved by {shift:,}", f"{m:,}", f"{n:,}", f"{exact:.6f}",
                     f"{turning.score_in_32_bits(config.rope, query, key, m, n):.6f}"))
    return common.table(("both", "m", "n", "score", "in the model's 32 bits"), rows,
                        "Moving both leaves the score as it is. The model's own table of angles has 32 bits, which "
                        "round large angles a little")


def zone_text(config: ModelConfig, now: dict, turned: Sequence[Pair]) -> str:
    """Which pairs are kept, slowed and in between, which never came round; and the softmax scale."""
    original, context = now["original"], config.max_seq_len
    unseen = [pair for pair in turned if original < pair.plain_wavelength]
    never = (f"{len(unseen)} of {len(turned)} pairs never came round once over the {original:,} tokens trained on"
             if unseen else f"Every pair came round at least once over the {original:,} tokens trained on")
    slowest = turned[-1]
    then, now_turns = slowest.plain * original, slowest.speed * context
    said = f"{never}. "
    if now["scaling"] == "none":
        if context > original:
            said += (f"Nothing is scaled: pair {slowest.index}, which training showed no angle beyond {degrees(then)}, "
                     f"goes to {degrees(now_turns)} over {context:,} tokens.")
    else:
        found = turning.zones(turned)
        said += " ".join(f"{_span(*found[zone])} {verb}." for zone, verb in (
            (turning.KEPT, "turn as fast as before" if found.get(turning.KEPT, (0, 0))[1] else "turns as before"),
            (turning.BETWEEN, "stand on the ramp in between"),
            (turning.INTERPOLATED, f"are slowed to 1/{now['factor']}")) if zone in found)
        said += (f" So pair {slowest.index} goes to {degrees(now_turns)} over {context:,} tokens; training showed it "
                 f"{degrees(then)}.")
    lines = [f"softmax scale = {turning.scale_formula(config)}"]
    if now["scaling"] != "none":
        lines.insert(0, f"kept: more than {now['fast']} turns over {original:,} tokens; slowed by {now['factor']}: "
                        f"fewer than {now['slow']}; between them a ramp, along the pair's "
                        f"{'index' if now['scaling'] == 'yarn' else 'turns'}")
    return common.said(said) + common.formula(*lines)


def _span(first: int, last: int) -> str:
    return f"Pair {first}" if first == last else f"Pairs {first} to {last}"


def pair_table(turned: Sequence[Pair], original: int) -> str:
    rows = [(str(pair.index), number(pair.plain, 6), number(pair.speed, 6), f"{pair.share:.4f}", pair.zone,
             f"{pair.wavelength:,.1f}", f"{original / pair.plain_wavelength:,.2f}") for pair in turned]
    return common.table(("pair", "radians a token, by the base", "with scaling", "share kept", "zone",
                         "tokens for a turn", f"turns over {original:,} tokens"), rows,
                        "All pairs; turns over the context trained on are by the base alone", words=(0, 4))


def partner_table(width: int, layout: str) -> str:
    """Which numbers of a head are partners in both layouts, for the first pairs and the last."""
    both = {name: turning.partners(width, name) for name in ("interleaved", "halves")}
    half = width // 2
    places = sorted({i for i in (0, 1, 2, half - 1) if 0 <= i < half})
    rows = [(name + (" (this model)" if name == layout else ""),
             *(f"{both[name][i][0]} with {both[name][i][1]}" for i in places)) for name in both]
    return common.table(("layout", *(f"pair {i}" for i in places)), rows,
                        f"Which of a head's {width} turned numbers are partners; each turns as one pair")


def measured_text(name: str, factor: int, plain: past_context.Curve, yarn: past_context.Curve | None) -> str:
    """What the curves show, in one sentence, and both in a table."""
    context = past_context.trained_context(name)
    if name == "copying":
        values, unit, lead = "{:.0%}", "", "{} of the questions are answered rightly"
    else:
        values, unit, lead = "{:.2f}", " nats", "A token costs {}"

    def show(value: float) -> str:
        return "–" if value != value else values.format(value) + unit

    where = "told" if name == "copying" else "read"
    said = (f"{lead.format(show(plain.mean(upto=context)))} up to the {context:,} tokens that training showed, and "
            f"{show(plain.mean(after=context))} beyond.")
    if yarn is None:
        said += " The same with YaRN is being measured."
    else:
        within, beyond = factor * context, yarn.mean(after=context)
        said += (f" With YaRN by {factor} it is {show(beyond)} beyond and {show(yarn.mean(upto=context))} up to "
                 f"{context:,}. Nothing was trained for it.")
        if within < plain.ends[-1]:
            said += (f" A factor of {factor} reaches to {within:,} tokens: "
                     f"{show(yarn.mean(after=context, upto=within))} up to there, {show(yarn.mean(after=within))} "
                     "beyond.")
    rows = [(f"{end:,}", show(plain.values[i]), show(yarn.values[i]) if yarn else "…", f"{plain.counts[i]:,}")
            for i, end in enumerate(plain.ends)]
    return common.said(said) + common.table(
        (f"tokens {where}, up to", "without YaRN", f"YaRN, factor {factor}", "answers"), rows,
        f"{name}, measured on this computer; each row from the one above on")
