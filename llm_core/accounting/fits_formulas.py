"""The arithmetic behind fits.py and decode_bound with the numbers in it, a line for each sum."""

from __future__ import annotations

from llm_core.accounting.cache import cache_formula
from llm_core.accounting.compute import DecodeBound
from llm_core.accounting.fits import TRAINING_BITS, Need
from llm_core.accounting.hardware import Hardware
from llm_core.accounting.parameters import count_parameters
from llm_core.accounting.units import human_bytes, human_count
from llm_core.config import ModelConfig


def need_formulas(config: ModelConfig, need: Need, batch: int, context: int, weight_bits: int, cache_bits: int,
                  training: bool = False) -> list[str]:
    """The lines of memory_need, the sum last. The arguments are those that `need` was made with."""
    n, d, vocab, parts = count_parameters(config), config.d_model, config.vocab_size, need.by_part
    if training:
        names = ("weights", "gradients", "master weights", "Adam's moments")
        weights, gradients, master, moments = TRAINING_BITS[weight_bits]
        every = n.total + n.mtp
        out = [f"{name}: {every:,} parameters × {bits // 8} bytes = {parts[name]:,} bytes"
               for name, bits in zip(names, (weights, gradients, master, 2 * moments), strict=True) if bits]
        heads = 1 + config.n_mtp_modules
        logits = f"4 × {vocab:,}" + (f" × {heads}" if heads > 1 else "")
        out.append(f"activations, all but each layer's input computed again: {batch:,} × {context:,} × (2 × {d:,} × "
                   f"({config.n_layers:,} + {heads}) + {logits}) = {parts['activations']:,} bytes")
    else:
        out = [f"weights: {n.total:,} parameters × {weight_bits} bits ÷ 8 = {parts['weights']:,} bytes",
               f"cache: {cache_formula(config, batch, context, cache_bits)}",
               f"activations of a step: {batch:,} × (2 × {d:,} + 4 × {vocab:,}) = {parts['activations']:,} bytes"]
    return [*out, f"in all: {' + '.join(f'{part:,}' for part in parts.values())} = {need.total:,} bytes"]


def decode_formula(bound: DecodeBound, hardware: Hardware, batch: int, weight_bits: int) -> str:
    """decode_bound in one line: the batch over the longer of two times."""
    memory, compute = (_milliseconds(s) for s in (bound.memory_seconds, bound.compute_seconds))
    read = f"({bound.weight_bytes:,} + {bound.cache_bytes:,}) bytes ÷ {per_second(hardware.bytes_per_second)}B/s"
    work = f"{bound.flops:,} FLOPs ÷ {per_second(hardware.peak(weight_bits))}FLOPS"
    return (f"tokens a second ≤ {batch:,} ÷ max({read}, {work}) = {batch:,} ÷ max({memory}, {compute}) = "
            f"{human_count(float(bound.tokens_per_second))}")


def per_second(rate: float) -> str:
    """A rate with its prefix, the unit still to come: 448e9 -> "448 G", 40.6e12 -> "40.6 T"."""
    return human_bytes(round(rate)).split(" (")[0].removesuffix("B")


def _milliseconds(seconds: float) -> str:
    return f"{human_count(1000 * seconds)} ms"
