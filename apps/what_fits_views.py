"""What the page What fits shows: all figures of a state, the sentence about them, and its tables."""

from __future__ import annotations

from apps import common
from apps.kv_cache import two_units
from llm_core import ModelConfig, accounting, plots
from llm_core.accounting import HARDWARE, Hardware
from llm_core.config import LatentAttentionConfig

RUN, TRAIN = "run it", "train it"
BATCHES = [2**power for power in range(13)]  # of the roofline: 1 to 4,096

WHY = {
    "hardware": "another machine has another memory, bandwidth and peak.",
    "gpus": "memory, bandwidth and peak grow in step, if all is divided evenly and nothing has to be sent.",
    "mode": "training keeps gradients, a master copy and Adam's moments for every parameter; running keeps a cache.",
    "weight_bits": "each weight takes another number of bits, to hold and to read.",
    "cache_bits": "only the cache's numbers take another number of bits.",
    "context": "the cache, or in training the activations, grow in step with the context.",
    "batch": "each sequence has a cache of its own, but all share one reading of the weights.",
}


def short(hardware: Hardware) -> str:
    return hardware.name.split(" (")[0]


def facts(config: ModelConfig, hardware: Hardware, gpus: int, training: bool, weight_bits: int, cache_bits: int,
          context: int, batch: int) -> dict:
    """All that the page shows, from llm_core. kinds: what memory_need was asked for."""
    machine = hardware.times(gpus)
    kinds = {"weight_bits": weight_bits, "cache_bits": cache_bits, "training": training}
    need = accounting.memory_need(config, batch, context, **kinds)
    out = {"machine": machine, "need": need, "kinds": kinds, "fits": need.total <= machine.memory,
           "machines": accounting.machines_needed(need, hardware),
           "longest": accounting.largest_context(config, machine.memory, batch, **kinds),
           "most": accounting.largest_batch(config, machine.memory, context, **kinds)}
    if training:
        return {**out, "per_token": accounting.training_flops(config, context, context, mtp=config.n_mtp_modules > 0)
                .per_token, "speed": accounting.training_bound(config, machine, context)}
    bits = {"weight_bits": weight_bits, "cache_bits": cache_bits}
    mla = isinstance(config.attention, LatentAttentionConfig)
    ways = {"absorbed": False, "naive": True} if mla else {"decoding": False}
    bounds = {way: {n: accounting.decode_bound(config, machine, n, context, **bits, naive=naive)
                    for n in sorted({*BATCHES, batch})} for way, naive in ways.items()}
    turns = {way: accounting.compute_bound_from(config, machine, context, **bits, naive=naive)
             for way, naive in ways.items()}
    return {**out, "bounds": bounds, "turns": turns,
            "per_token": {way: accounting.forward_flops(config, 1, context, absorbed=mla and not naive).total
                          for way, naive in ways.items()}}


def explain(now: dict, before: dict | None, name: str, f: dict) -> str:
    """What changed and why, then whether it fits, then how fast it could be."""
    changed = [key for key in now if before and now[key] != before[key]]
    what = ""
    if len(changed) == 1 and changed[0] in WHY:
        key = changed[0]
        what = f"{key} went from {_shown(before[key])} to {_shown(now[key])}: {WHY[key]} "
    need, machine = f["need"].total, f["machine"]
    memory = f"{two_units(machine.memory)[0]} of {short(machine)}"
    if f["fits"]:
        what += (f"It fits: {name} takes {two_units(need)[0]} of the {memory} "
                 f"({accounting.percent(need, machine.memory)}). ")
    else:
        what += (f"It does not fit: {name} takes {two_units(need)[0]}, and there are {memory}. "
                 f"{f['machines']:,} of this machine would hold it. ")
    if now["mode"] == TRAIN:
        return (f"{what}At its peak the machine would train on {accounting.human_count(f['speed'])} tokens a second; "
                "real runs reach a third to a half of that.")
    bound = next(iter(f["bounds"].values()))[now["batch"]]
    limit = "reading memory" if bound.limited_by == "memory" else "computing"
    each = "" if now["batch"] == 1 else f", {accounting.human_count(bound.each)} for each"
    return (f"{what}It could write at most {accounting.human_count(float(bound.tokens_per_second))} tokens a second"
            f"{each}, limited by {limit}; no machine reaches that.")


def memory_table(f: dict, caption: str) -> str:
    memory, need = f["machine"].memory, f["need"]
    states = {part: n for part, n in need.by_part.items() if part != "weights"}
    parts = {**need.weights_by_part, "weights, together": need.by_part["weights"], **states, "in all": need.total,
             "memory": memory}
    rows = [(part, f"{n:,}", *two_units(n), accounting.percent(n, memory)) for part, n in parts.items()]
    colours = {part: plots.COLOURS.get(part, plots.COLOURS["MTP"]) for part in (*need.weights_by_part, *states)}
    return common.table(("", "bytes", "decimal (GB: 10⁹ bytes)", "binary (GiB: 2³⁰ bytes)", "of the memory"), rows,
                        caption, colours=colours)


def limits_table(config: ModelConfig, now: dict, f: dict) -> str:
    """How much would fit, and how fast it could be."""
    context, batch = now["context"], now["batch"]
    rows = [(f"longest context that fits, batch {batch:,}", f"{f['longest']:,}"),
            ("longest context that the model itself reads", f"{config.max_seq_len:,}"),
            (f"largest batch that fits, {context:,} tokens each", f"{f['most']:,}")]
    if now["mode"] == TRAIN:
        rows += [("FLOPs for a token, forward and backward", f"{round(f['per_token']):,}"),
                 ("tokens a second, at most", accounting.human_count(f["speed"]))]
        return common.table(("", "training"), rows, "Speeds are upper bounds: the peak, as the maker states it")
    ways = list(f["bounds"])
    rows = [(label, value, *[value] * (len(ways) - 1)) for label, value in rows]
    bounds = [f["bounds"][way][batch] for way in ways]

    def row(label, values):
        rows.append((label, *values))

    row("FLOPs for a token", [f"{f['per_token'][way]:,}" for way in ways])
    row("bytes of weights read for a step", [f"{b.weight_bytes:,}" for b in bounds])
    row("bytes of cache read for a step", [f"{b.cache_bytes:,}" for b in bounds])
    row("limited by", [b.limited_by for b in bounds])
    row("tokens a second, at most", [accounting.human_count(float(b.tokens_per_second)) for b in bounds])
    row("for each sequence, at most", [accounting.human_count(b.each) for b in bounds])
    row("limited by FLOPs from batch", [f"{n:,}" if n else "never" for n in f["turns"].values()])
    return common.table(("", *ways), rows, "Speeds are upper bounds: no machine reaches its sheet's figures")


def hardware_table() -> str:
    rows = [(short(h), two_units(h.memory)[0], f"{accounting.per_second(h.bytes_per_second)}B/s",
             f"{accounting.per_second(h.flops_per_second)}FLOPS",
             f"{accounting.per_second(h.fp8_flops_per_second)}FLOPS" if h.fp8_flops_per_second else "–", h.source)
            for h in HARDWARE.values()]
    return common.table(("machine", "memory", "bandwidth", "peak, 16 bits", "peak, FP8", "source"), rows,
                        "Dense products, without sparsity, which makers' sheets like to print", words=(0, 5))


def _shown(value) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
