"""What a training run takes: FLOPs, hours, days and dollars, beside what was published about real runs.

A product y = x W^T costs 2 FLOPs a multiply-add. The backward pass has two products of the same size, dx = dy W and
dW = dy^T x, so a step costs three forward passes. Attention's two products have two each in the backward pass as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_core.accounting.compute import forward_flops
from llm_core.accounting.parameters import count_parameters, mtp_rows, rows
from llm_core.accounting.precision import fp8_share
from llm_core.config import LatentAttentionConfig, ModelConfig
from llm_core.validation import flag, instance_of, one_of, real, whole

RECOMPUTE = ("nothing", "up-projections", "all")


@dataclass(frozen=True)
class TrainingFlops:
    """FLOPs of a run. total = forward + backward + recomputed; model = forward + backward, what utilisation is of.

    rule_of_thumb: 6 x N x D, D the tokens and N the active parameters without the input embedding (Kaplan et al. 2020,
    arXiv:2001.08361, section 2.1, for dense models). It leaves out attention's scores and values, and MTP.
    """

    tokens: int
    forward: int
    backward: int
    recomputed: int
    rule_of_thumb: int

    @property
    def model(self) -> int:
        return self.forward + self.backward

    @property
    def total(self) -> int:
        return self.model + self.recomputed

    @property
    def per_token(self) -> float:
        """model / tokens"""
        return self.model / self.tokens


def training_flops(config: ModelConfig, tokens: int, context: int, *, causal: bool = True, mtp: bool = False,
                   router: bool = True, recompute: str = "nothing") -> TrainingFlops:
    """FLOPs to train on `tokens` tokens in sequences of `context`: three times forward_flops, and what is recomputed.

    causal: scores of pairs that the mask hides are not counted, as FlashAttention does not compute them; False counts
    the whole square. mtp: the extra modules too, each a layer, its projection and the head once more (as if a module
    had a target at every position). router False: without the routers' products, which some counts leave out.
    recompute: what the backward pass does over again to save memory. "up-projections": MLA's kv_up and q_up, as V3
    does (arXiv:2412.19437, section 3.2.3; its recomputed norms and activations are no products and cost nothing here).
    "all": the whole forward pass. Whole sequences are counted in proportion, rounded down to a whole FLOP.
    ValueError for counts below 1, an unknown `recompute`, or "up-projections" without MLA.
    """
    whole("tokens", tokens)
    whole("context", context)
    for name, value in (("causal", causal), ("mtp", mtp), ("router", router)):
        flag(name, value)
    one_of("recompute", recompute, RECOMPUTE)
    once = forward_flops(config, context)
    scores = once.by_part["attention scores and values"]
    if not causal:
        scores = 2 * context * scores // (context + 1)  # context (context + 1) / 2 pairs become context^2, exactly
    sequence = once.total - once.by_part["attention scores and values"] + scores
    if not router:
        sequence -= once.by_part.get("router", 0)
    if mtp:
        products = [row for row in mtp_rows(config) if len(row.shape) == 2 and (router or row.part != "router")]
        sequence += 2 * context * sum(row.active for row in products)
        sequence += config.n_mtp_modules * (scores // config.n_layers + once.by_part["output head"])
    again = 0
    if recompute == "all":
        again = sequence
    elif recompute == "up-projections":
        if not isinstance(config.attention, LatentAttentionConfig):
            raise ValueError(f"recompute='up-projections' needs latent attention (MLA), and this config has "
                             f"{config.attention.kind}; nearest: nothing")
        again = 2 * context * sum(row.active for row in rows(config) + (mtp_rows(config) if mtp else [])
                                  if row.name in ("kv_up", "q_up"))
    forward = sequence * tokens // context
    return TrainingFlops(tokens, forward, 2 * forward, again * tokens // context,
                         6 * count_parameters(config).active_no_input_embedding * tokens)


@dataclass(frozen=True)
class Gpu:
    """Peaks of dense products in FLOPs a second, as the maker states them, and memory in bytes."""

    name: str
    bf16: float
    fp8: float
    memory: int

    def __post_init__(self):
        real("bf16", self.bf16)
        real("fp8", self.fp8)
        whole("memory", self.memory)

    def mixed(self, share: float) -> float:
        """The peak of a mix with `share` of its FLOPs in FP8 and the rest in BF16: times add up, so rates do not."""
        real("share", share, or_zero=True)
        if share > 1:
            raise ValueError(f"share must be from 0 to 1, not {share!r}; nearest: 1")
        return 1 / (share / self.fp8 + (1 - share) / self.bf16)


# H100's sheet prints 1,979 and 3,958 TFLOPS with sparsity, twice the dense. H800's cores are H100's, its links slower.
# 989, not 989.5: with it the utilisations that DeepSeek published come out to the last digit (PublishedRun below).
GPUS = {"h800": Gpu("NVIDIA H800 SXM (as H100's data sheet: dense BF16 989, FP8 1,979 TFLOPS; 80 GB)",
                    989e12, 1979e12, 80 * 10**9)}


def gpu_hours(flops: float, peak: float, utilisation: float) -> float:
    """Hours that one GPU needs, or that all GPUs need together. peak: FLOPs a second. utilisation: from 0 to 1."""
    _fraction(utilisation)
    real("flops", flops)
    real("peak", peak)
    return flops / (peak * utilisation) / 3600


def utilisation(flops: float, hours: float, peak: float) -> float:
    """The part of the peak that `flops` in so many GPU hours are (PaLM, arXiv:2204.02311, section 4.1: MFU).

    With TrainingFlops.model it is the model FLOPs' utilisation, with .total the hardware's. A result above 1 cannot be:
    then flops, hours or peak are not what they are taken for. It is returned as it is, so that one can see it.
    """
    for name, value in (("flops", flops), ("hours", hours), ("peak", peak)):
        real(name, value)
    return flops / (hours * 3600) / peak


def days(hours: float, gpus: int) -> float:
    """Days that so many GPU hours take on `gpus` GPUs at once."""
    real("hours", hours)
    whole("gpus", gpus)
    return hours / gpus / 24


@dataclass(frozen=True)
class Stage:
    """hours: GPU hours. tokens by context length, empty where nobody published them."""

    hours: int
    tokens: dict[int, int]


@dataclass(frozen=True)
class PublishedRun:
    """What a maker published about one training run.

    price: dollars a GPU hour, as they assume. measured: tokens a day of all GPUs and the model FLOPs' utilisation in
    percent, as printed (causal, and counting the whole square of attention).
    """

    model: str
    gpu: str
    gpus: int
    price: float
    stages: dict[str, Stage]
    measured: dict[str, tuple[float, float, float]]
    source: str

    @property
    def hours(self) -> int:
        return sum(stage.hours for stage in self.stages.values())

    @property
    def cost(self) -> float:
        """Dollars. It leaves out research, experiments that failed, data, people, and the machines between runs."""
        return self.hours * self.price


RUNS = {"deepseek-v3": PublishedRun(
    "deepseek-v3", "h800", 2048, 2.0,
    {"pre-training": Stage(2_664_000, {4096: 14_800 * 10**9}),
     "context extension": Stage(119_000, {32_768: 1000 * 1920 * 32_768, 131_072: 1000 * 480 * 131_072}),
     "post-training": Stage(5_000, {})},
    {"multi-plane network": (272.80e9, 38.94, 43.73), "single-plane network": (272.52e9, 38.90, 43.68)},
    "arXiv:2412.19437, table 1 and sections 4.2 and 4.3; measured: arXiv:2505.09343, table 4")}


def published_utilisation(run: PublishedRun, config: ModelConfig, stage: str = "pre-training", *,
                          peak: str = "bf16", **counting) -> float:
    """The utilisation that a stage's published hours mean, from 0 to 1. counting: as training_flops has it.

    peak: "bf16", "fp8", or "mixed", the peak of V3's own mix of the two. ValueError for a stage without tokens.
    """
    instance_of("run", run, (PublishedRun,))
    one_of("stage", stage, tuple(run.stages))
    one_of("peak", peak, ("bf16", "fp8", "mixed"))
    done, gpu = run.stages[stage], GPUS[run.gpu]
    if not done.tokens:
        having = next(name for name, other in run.stages.items() if other.tokens)
        raise ValueError(f"nobody published the tokens of {stage}; nearest: {having}")
    flops = {context: training_flops(config, tokens, context, **counting).model
             for context, tokens in done.tokens.items()}
    rate = getattr(gpu, peak) if peak != "mixed" else gpu.mixed(
        sum(fp8_share(config, context) * n for context, n in flops.items()) / sum(flops.values()))
    return utilisation(sum(flops.values()), done.hours, rate)


def _fraction(value: float) -> None:
    real("utilisation", value)
    if value > 1:
        raise ValueError(f"utilisation must be above 0 and at most 1, not {value!r}; nearest: 1")
