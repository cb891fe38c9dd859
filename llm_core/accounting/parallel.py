"""What lies on one of many GPUs: weights, gradients and optimiser states in training, the cache when serving."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from llm_core import cache_layout
from llm_core.accounting.parameters import mtp_rows, rows
from llm_core.config import LatentAttentionConfig, ModelConfig
from llm_core.validation import flag, instance_of, nearest_divisors, whole


@dataclass(frozen=True)
class Layout:
    """How training is spread over `gpus` GPUs.

    pipeline: stages that the layers are dealt to. expert: GPUs that share a layer's routed experts between them.
    stage_copies: times that each stage is held, 2 for DualPipe (arXiv:2412.19437, section 3.2.1, table 2).
    sharded_states: ZeRO-1 (arXiv:1910.02054): optimiser states are divided among all copies of a parameter.
    ValueError if pipeline x expert does not divide gpus.
    """

    gpus: int
    pipeline: int = 1
    expert: int = 1
    stage_copies: int = 1
    sharded_states: bool = True

    def __post_init__(self):
        for name in ("gpus", "pipeline", "expert", "stage_copies"):
            whole(name, getattr(self, name))
        flag("sharded_states", self.sharded_states)
        if self.gpus % (self.pipeline * self.expert):
            near = ", ".join(map(str, nearest_divisors(self.gpus, self.pipeline * self.expert)))
            raise ValueError(f"pipeline {self.pipeline} x expert {self.expert} does not divide the {self.gpus} GPUs; "
                             f"nearest products: {near}")


V3_LAYOUT = Layout(2048, pipeline=16, expert=64, stage_copies=2)  # arXiv:2412.19437, sections 3.1, 3.2 and 3.2.1


@dataclass(frozen=True)
class GpuMemory:
    """Bytes on a GPU, on average over all: stages need not be equal. Activations come on top and are not counted."""

    parameters: int  # held, not owned: copies count
    weights: int
    gradients: int
    master_weights: int
    moments: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.master_weights + self.moments


def training_memory_per_gpu(config: ModelConfig, layout: Layout = V3_LAYOUT, *, weight_bits: int = 16,
                            gradient_bits: int = 32, master_bits: int = 32, moment_bits: int = 16) -> GpuMemory:
    """Bytes a GPU for the parameters of the main model and MTP; sums are rounded up.

    Routed experts are divided by pipeline x expert, everything else by pipeline alone; optimiser states are divided
    among all GPUs under ZeRO-1. The defaults are V3's as published: gradients and master weights in FP32, AdamW's two
    moments in BF16 (arXiv:2412.19437, section 3.3.3). Not published, and assumed here: the working copy of the weights
    is BF16, and each copy of a stage has gradients of its own.
    Not counted: activations, buffers of the network, FP8 copies with their scales, the EMA (it lies in CPU memory), and
    that 61 layers do not divide by 16.
    """
    instance_of("layout", layout, (Layout,))
    for name, bits, least in (("weight_bits", weight_bits, 1), ("gradient_bits", gradient_bits, 1),
                              ("master_bits", master_bits, 0), ("moment_bits", moment_bits, 1)):
        whole(name, bits, least)
    everything = rows(config) + mtp_rows(config)
    experts = sum(row.total for row in everything if row.part == "routed experts")
    others = sum(row.total for row in everything) - experts
    on_a_stage = layout.stage_copies * (others * layout.expert + experts)  # in units of 1 / (pipeline x expert)
    parts = layout.pipeline * layout.expert
    states, among = (experts + others, layout.gpus) if layout.sharded_states else (on_a_stage, parts)
    return GpuMemory(_up(on_a_stage, parts), _up(on_a_stage * weight_bits, 8 * parts),
                     _up(on_a_stage * gradient_bits, 8 * parts), _up(states * master_bits, 8 * among),
                     _up(states * 2 * moment_bits, 8 * among))


def cache_bytes_per_gpu(config: ModelConfig, tensor_parallel: int, batch: int = 1, tokens: int = 1, bits: int = 16, *,
                        data_parallel_attention: bool = False) -> int:
    """Bytes of cache on the fullest of `tensor_parallel` GPUs that serve `batch` sequences of `tokens` tokens together.

    Tensor parallelism gives each GPU its share of the query heads. In grouped attention the key-value heads go with
    them, and beyond one GPU for each key-value head they are copied. MLA's latent and rope key are what *every* head
    reads, so each GPU keeps all of them: nothing is divided.
    data_parallel_attention: each GPU runs all heads for its own share of the sequences, as DeepSeek decodes (their
    overview of the V3/R1 inference system, 2025: MLA in DP144). Then any cache is divided by sequences, whole ones.
    ValueError unless the GPUs divide the query heads, and divide the key-value heads or are a multiple of them.
    """
    instance_of("config", config, (ModelConfig,))
    for name, value, least in (("tensor_parallel", tensor_parallel, 1), ("batch", batch, 1), ("tokens", tokens, 0),
                               ("bits", bits, 1)):
        whole(name, value, least)
    flag("data_parallel_attention", data_parallel_attention)
    numbers = cache_layout.elements_per_token(config)
    if data_parallel_attention:
        return _up(numbers * -(-batch // tensor_parallel) * tokens * bits, 8)
    heads = config.attention.n_heads
    if heads % tensor_parallel:
        near = ", ".join(map(str, nearest_divisors(heads, tensor_parallel)))
        raise ValueError(f"tensor_parallel {tensor_parallel} does not divide the {heads} query heads; nearest: {near}")
    if not isinstance(config.attention, LatentAttentionConfig):
        kv = config.attention.kv_heads
        if kv % tensor_parallel and tensor_parallel % kv:
            near = ", ".join(map(str, nearest_divisors(kv, min(tensor_parallel, kv))))
            raise ValueError(f"tensor_parallel {tensor_parallel} neither divides the {kv} key-value heads nor is a "
                             f"multiple of them; nearest: {near}")
        shapes = cache_layout.entry_shapes(config).values()
        numbers = config.n_layers * sum(max(1, kv // tensor_parallel) * prod(shape[1:]) for shape in shapes)
    return _up(numbers * batch * tokens * bits, 8)


def _up(n: int, parts: int) -> int:
    return -(-n // parts)
