"""What a learner may set, the model and the recipe that this makes, and what a step of it takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from llm_core import accounting
from llm_core.config import (
    FeedForwardConfig,
    GroupedAttentionConfig,
    LatentAttentionConfig,
    ModelConfig,
    MoEConfig,
    RopeConfig,
)
from llm_core.presets import COURSE_VOCAB
from llm_core.training.recipe import Recipe
from llm_core.validation import one_of

BLOCKS, ATTENTIONS, FEED_FORWARDS = ("gpt2", "deepseek"), ("MHA", "GQA", "MLA"), ("dense", "moe")
LIMITS = {"n_layers": (1, 6), "d_model": (32, 192), "n_heads": (1, 12), "context": (32, 128), "batch_size": (1, 32),
          "seed": (0, 9999)}
LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 1.0)
SECONDS = (5, 120)  # the shortest and the longest run
CLASS_SECONDS = 20  # the longest where a class shares one computer
MOST_PARAMETERS = 3_200_000
MOST_FLOPS = 40e9  # a step; about a second on one core
WARMUP_STEPS = 20
EXPERTS, CHOSEN = 8, 2  # routed experts of a layer, and how many a token uses


@dataclass(frozen=True)
class Settings:
    """One run, but for its text and its length. ValueError, with the nearest that will do, for what cannot be.

    block "gpt2": learned positions, LayerNorm, GELU, biases; "deepseek": RoPE, RMSNorm, SwiGLU. feed_forward "moe": 8
    experts of which a token uses 2, with as many active parameters as the dense network has.
    """

    block: str = "gpt2"
    attention: str = "MHA"
    feed_forward: str = "dense"
    n_layers: int = 3
    d_model: int = 96
    n_heads: int = 4
    context: int = 64
    batch_size: int = 8
    learning_rate: float = 3e-3
    seed: int = 0

    def __post_init__(self):
        one_of("block", self.block, BLOCKS)
        one_of("attention", self.attention, ATTENTIONS)
        one_of("feed_forward", self.feed_forward, FEED_FORWARDS)
        for name, (least, most) in LIMITS.items():
            _between(name, getattr(self, name), least, most)
        if self.learning_rate not in LEARNING_RATES:
            raise ValueError(f"learning_rate must be one of {', '.join(f'{r:g}' for r in LEARNING_RATES)}, "
                             f"not {self.learning_rate!r}")
        if self.block == "gpt2" and (self.attention, self.feed_forward) != ("MHA", "dense"):
            raise ValueError(f"GPT-2's block has MHA and one dense network, not {self.attention} and "
                             f"{'experts' if self.feed_forward == 'moe' else 'a dense network'}; choose DeepSeek's "
                             "block for these")
        if self.attention == "GQA" and self.n_heads % 2:
            raise ValueError(f"GQA here shares each key and value between two heads, and n_heads {self.n_heads} is "
                             f"odd; nearest: {', '.join(str(n) for n in (self.n_heads - 1, self.n_heads + 1) if n)}")
        self.config()

    def config(self) -> ModelConfig:
        """The model. Each can be written in a published form: GPT-2's, Llama's, Mixtral's or DeepSeek-V3's."""
        d, heads = self.d_model, self.n_heads
        shared = {"vocab_size": COURSE_VOCAB, "max_seq_len": self.context, "d_model": d, "n_layers": self.n_layers,
                  "tie_embeddings": True, "init_std": 0.04}  # at these widths, as in presets' minis
        if self.block == "gpt2":
            return ModelConfig(attention=GroupedAttentionConfig(heads, qkv_bias=True, output_bias=True),
                               feed_forward=FeedForwardConfig(4 * d, "gelu", bias=True), norm="layernorm",
                               norm_eps=1e-5, **shared)
        if self.attention == "MLA":
            head = max(1, d // heads)
            attention = LatentAttentionConfig(heads, kv_lora_rank=d // 2, qk_nope_head_dim=head, qk_rope_head_dim=8,
                                              v_head_dim=head)
        else:
            attention = GroupedAttentionConfig(heads, heads if self.attention == "MHA" else heads // 2)
        d_ff = 48 * round(d * 8 / 3 / 48)  # as many weights as GPT-2's two matrices of 4 d; both splits below are whole
        return ModelConfig(attention=attention, feed_forward=FeedForwardConfig(d_ff, "swiglu"), moe=self._moe(d_ff),
                           rope=RopeConfig(10000.0), **shared)

    def _moe(self, d_ff: int) -> MoEConfig | None:
        """Experts of which a token uses d_ff numbers in all, as the dense network has."""
        if self.feed_forward == "dense":
            return None
        if self.attention != "MLA":  # Mixtral's
            return MoEConfig(EXPERTS, CHOSEN, d_ff // CHOSEN, norm_topk_prob=True)
        return MoEConfig(EXPERTS, CHOSEN, d_ff // (CHOSEN + 1), n_shared_experts=1,  # V3's: a dense layer comes first
                         first_k_dense=min(1, self.n_layers - 1), scoring="sigmoid", norm_topk_prob=True,
                         selection_bias=True, group_score="top2")

    def recipe(self) -> Recipe:
        """The learning rate rises for WARMUP_STEPS and then stays, as nobody knows which step will be the last. So a
        short run is the beginning of a longer one, number for number."""
        return Recipe("training lab", steps=10**9, batch_size=self.batch_size, context=self.context,
                      learning_rate=self.learning_rate, final_learning_rate=self.learning_rate,
                      warmup_steps=WARMUP_STEPS, evaluate_every=10**9, seed=self.seed)

    @property
    def name(self) -> str:
        """ "GPT-2 block, MHA, dense, 3 layers of 96": what a chart calls the run."""
        block = "GPT-2 block" if self.block == "gpt2" else "DeepSeek block"
        feed = "experts" if self.feed_forward == "moe" else "dense"
        layers = f"{self.n_layers} layer{'s' if self.n_layers > 1 else ''}"
        return f"{block}, {self.attention}, {feed}, {layers} of {self.d_model}"

    @property
    def file_name(self) -> str:
        return f"lab-{self.block}-{self.attention}-{self.feed_forward}-{self.n_layers}x{self.d_model}".lower()


@dataclass(frozen=True)
class Plan:
    """What a run takes. parameters: all trained ones; active: those a token uses. flops_per_step: forward and backward.
    seconds_per_step: roughly, on one core (see roughly_seconds); steps: in the whole run, as roughly."""

    parameters: int
    active_parameters: int
    tokens_per_step: int
    flops_per_step: int
    training_bytes: int
    seconds_per_step: float
    seconds: int
    steps: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan(settings: Settings, seconds: int, most_seconds: int = SECONDS[1]) -> Plan:
    """ValueError, with what would do, for a model or a step that is too large, or a run that is too long."""
    _between("seconds", seconds, SECONDS[0], most_seconds)
    config = settings.config()
    counts = accounting.count_parameters(config)
    if counts.total > MOST_PARAMETERS:
        raise ValueError(f"this model has {counts.total:,} parameters, and here it may have {MOST_PARAMETERS:,}, so "
                         f"that a minute teaches it something; nearest: {_smaller(settings)}")
    tokens = settings.batch_size * settings.context
    flops = accounting.training_flops(config, tokens, settings.context).total
    if flops > MOST_FLOPS:
        batch = max(1, int(settings.batch_size * MOST_FLOPS / flops))
        raise ValueError(f"a step would take {accounting.human_count(flops)} FLOPs, more than "
                         f"{accounting.human_count(int(MOST_FLOPS))}, about a second on one core; nearest: a batch "
                         f"of {batch}")
    a_step = roughly_seconds(config, flops)
    return Plan(counts.total, counts.active, tokens, flops, accounting.training_memory(config, 32, 32, 0, 32).total,
                a_step, seconds, max(1, round(seconds / a_step)))


def roughly_seconds(config: ModelConfig, flops: int) -> float:
    """A step's time on one core, within a factor of two or three on most laptops.

    Measured in November 2026 over 11 configs within these limits, where it is off by a third at most: large products
    run at about 35 GFLOP/s, and calling the many small operations of a layer, and of its experts, takes milliseconds.
    """
    return flops / 35e9 + 0.002 * config.n_layers + 0.004 * config.n_moe_layers


def _smaller(settings: Settings) -> str:
    """The most layers, and the greatest width in steps of 16, with which the rest would do."""
    def fits(**changes) -> bool:
        try:
            config = Settings(**{**asdict(settings), **changes}).config()
        except ValueError:
            return False
        return accounting.count_parameters(config).total <= MOST_PARAMETERS

    layers = next((n for n in range(settings.n_layers - 1, 0, -1) if fits(n_layers=n)), 0)
    width = next((d for d in range(settings.d_model // 16 * 16, 31, -16) if fits(d_model=d)), 0)
    ways = [f"{layers} layer{'s' if layers > 1 else ''}"] * bool(layers) + [f"a width of {width}"] * bool(width)
    return " or ".join(ways)


def _between(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}; nearest: {least}")
    if not least <= value <= most:
        raise ValueError(f"{name} goes from {least} to {most}, and was {value:,}; nearest: "
                         f"{min(max(value, least), most)}")
