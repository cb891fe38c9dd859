"""Does a model fit into a memory, and the most that would: bytes by part, the longest context, the largest batch.

Everything is counted, nothing measured, and what a runtime takes for itself (buffers, fragments, its own code) comes on
top. Over several GPUs all is taken as divided evenly; tensor parallelism really copies MLA's cache to each of them
(parallel.cache_bytes_per_gpu).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llm_core.accounting.cache import cache_bytes
from llm_core.accounting.compute import decode_bound, training_memory
from llm_core.accounting.hardware import Hardware
from llm_core.accounting.parameters import count_parameters
from llm_core.accounting.training_run import training_flops
from llm_core.config import ModelConfig
from llm_core.validation import flag, instance_of, whole

MOST = 2**40  # tokens or sequences; beyond it nothing is searched
TRAINING_BITS = {16: (16, 16, 32, 32), 32: (32, 32, 0, 32)}  # weights, gradients, master copy, each of two moments


@dataclass(frozen=True)
class Need:
    """Bytes by part, in display order. weights_by_part: the weights by part of the model; they sum to the weights."""

    by_part: dict[str, int]
    weights_by_part: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.by_part.values())


def memory_need(config: ModelConfig, batch: int = 1, context: int = 1, weight_bits: int = 16, cache_bits: int = 16,
                training: bool = False) -> Need:
    """What must be in memory at the least, for `batch` sequences of `context` tokens each.

    Running it: the main model's weights, every one of weight_bits (scales of quantised weights are not counted, and MTP
    modules are left at home); the cache; and of one decoding step's activations the stream in 16 bits and the logits in
    32, batch x (2 d_model + 4 vocab) bytes.
    Training it: accounting.training_memory in mixed precision (weight_bits 16: bf16 weights and gradients, an fp32
    master copy and moments) or in plain fp32 (32), main model and MTP; no cache; and the activations of full
    recomputation, each layer's input and the logits: 2 s b d (L + 1) + 4 s b V bytes (Korthikanti et al. 2022,
    arXiv:2205.05198, sections 4.3 and 5). An MTP module counts as a layer with logits of its own.
    ValueError for counts below 1, and for training with other than 16 or 32 bits.
    """
    instance_of("config", config, (ModelConfig,))
    for name, value in (("batch", batch), ("context", context), ("weight_bits", weight_bits),
                        ("cache_bits", cache_bits)):
        whole(name, value)
    flag("training", training)
    counted, d, vocab = count_parameters(config), config.d_model, config.vocab_size
    parts = {**counted.by_part, **({"MTP": counted.mtp} if training and counted.mtp else {})}
    weights, so_far = {}, 0
    for part, n in parts.items():  # each up to the next whole byte of all before it, so that the sum is exact
        weights[part] = -(-(so_far + n) * weight_bits // 8) - -(-so_far * weight_bits // 8)
        so_far += n
    if not training:
        return Need({"weights": -(-counted.total * weight_bits // 8),
                     "cache": cache_bytes(config, batch, context, cache_bits),
                     "activations": batch * (2 * d + 4 * vocab)}, weights)
    if weight_bits not in TRAINING_BITS:
        raise ValueError(f"training is counted with weights of 16 or 32 bits, not {weight_bits}; "
                         f"nearest: {16 if weight_bits < 24 else 32}")
    held, heads = training_memory(config, *TRAINING_BITS[weight_bits]), 1 + config.n_mtp_modules
    layers = config.n_layers + heads  # the + 1 is the head's own input
    states = {"weights": held.weights, "gradients": held.gradients, "master weights": held.master_weights,
              "Adam's moments": held.adam_moments,
              "activations": batch * context * (2 * d * layers + 4 * vocab * heads)}
    return Need({part: n for part, n in states.items() if n}, weights)


def largest_context(config: ModelConfig, memory: int, batch: int = 1, **kinds) -> int:
    """The longest context with which memory_need stays within `memory` bytes; 0 if not even 1 token does.

    The memory's limit alone: the model's own is config.max_seq_len. kinds: as memory_need has them.
    """
    whole("memory", memory)
    return largest(lambda n: memory_need(config, batch, n, **kinds).total <= memory)


def largest_batch(config: ModelConfig, memory: int, context: int = 1, **kinds) -> int:
    """The most sequences of `context` tokens with which memory_need stays within `memory` bytes; 0 if not even 1."""
    whole("memory", memory)
    return largest(lambda n: memory_need(config, n, context, **kinds).total <= memory)


def machines_needed(need: Need, hardware: Hardware) -> int:
    """How many of a machine have enough memory together, if all is divided evenly. ValueError if its memory is None."""
    whole("memory", hardware.memory)
    return -(-need.total // hardware.memory)


def training_bound(config: ModelConfig, hardware: Hardware, context: int = 1) -> float:
    """The most tokens a second to train on, in sequences of `context`: the 16-bit peak over training_flops.

    Forward and backward, MTP modules too; nothing recomputed. Real runs reach a third to a half of it.
    """
    instance_of("hardware", hardware, (Hardware,))
    return hardware.flops_per_second / training_flops(config, context, context, mtp=config.n_mtp_modules > 0).per_token


def compute_bound_from(config: ModelConfig, hardware: Hardware, context: int = 1, **kinds) -> int | None:
    """The smallest batch at which a decoding step is limited by FLOPs and no longer by the memory's bandwidth.

    From there on a larger batch brings no more tokens a second. None if no batch does: where each sequence's own cache
    takes longer to read than its token to compute. kinds: weight_bits, cache_bits and naive, as decode_bound has them.
    A step's FLOPs grow in step with the batch, its bytes more slowly, so the two cross once at most.
    """
    def reading(batch: int) -> bool:
        return decode_bound(config, hardware, batch, context, **kinds).limited_by == "memory"

    most = 2**30
    return None if reading(most) else largest(reading, most) + 1


def largest(good: Callable[[int], bool], most: int = MOST) -> int:
    """The largest n from 1 to `most` that is good, 0 if none is; where n is good, every smaller one is."""
    low, high = 0, 1
    while high <= most and good(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if good(middle) else (low, middle)
    return low
