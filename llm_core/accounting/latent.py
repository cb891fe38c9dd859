"""The ways of latent attention, counted: what one step multiplies, what it reads of the cache, and where ways cross.

Only what the ways do not share is counted: rebuilding keys and values from latents, scores, and mixing. The other
projections, the feed-forward networks and the head are the same in all of them; forward_flops has the whole.
Rebuild (naive) and absorb: DeepSeek-V2, arXiv:2405.04434, section 2.1.2. Keep: cache what was rebuilt, as MHA does.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_core.accounting.cache import cache_bytes
from llm_core.accounting.compute import Hardware, forward_flops
from llm_core.accounting.fits import largest
from llm_core.accounting.parameters import rows
from llm_core.config import LatentAttentionConfig, ModelConfig
from llm_core.validation import instance_of, one_of, whole

WAYS = ("rebuild", "keep", "absorb")


@dataclass(frozen=True)
class Step:
    """One step, all layers together: FLOPs, and bytes of the cache that are read once."""

    flops: int
    cache_read: int

    @property
    def flops_per_byte(self) -> float:
        return self.flops / self.cache_read

    def seconds(self, hardware: Hardware) -> tuple[float, float]:
        """The least time for the arithmetic, and for reading the cache."""
        return self.flops / hardware.flops_per_second, self.cache_read / hardware.bytes_per_second


def attention_step(config: ModelConfig, tokens: int, context: int, way: str, bits: int = 16) -> Step:
    """What `tokens` new tokens cost, the last of which sees `context` tokens, by one of WAYS.

    The difference of two ways is that of forward_flops. "keep" reads a key of nope + rope numbers and a value for each
    head, the others the latent and the rope key. ValueError for attention without a latent, and as in forward_flops.
    """
    a = _latent(config)
    one_of("way", way, WAYS)
    whole("bits", bits)
    looked = forward_flops(config, tokens, context, absorbed=way == "absorb").by_part["attention scores and values"]
    expanded = context if way == "rebuild" else tokens
    up = sum(row.active for row in rows(config) if row.name == "kv_up")  # W_uk and W_uv of all heads and layers
    read = cache_bytes(config, 1, context, bits)
    if way == "keep":
        numbers = a.n_heads * (a.qk_head_dim + a.v_head_dim) * config.n_layers * context
        read = -(-numbers * bits // 8)
    return Step(looked + 2 * expanded * up, read)


def way_flops(config: ModelConfig, tokens: int, context: int, way: str, whole_model: bool = False) -> int:
    """attention_step's FLOPs, or those of the whole model when its attention goes this way."""
    flops = attention_step(config, tokens, context, way).flops
    if not whole_model:
        return flops
    shared = forward_flops(config, tokens, context, absorbed=True).total
    return flops + shared - attention_step(config, tokens, context, "absorb").flops


def absorbed_from(config: ModelConfig, tokens: int = 1, most: int = 1 << 20) -> int | None:
    """The least context, from `tokens` to `most`, in which `tokens` new tokens take fewer FLOPs absorbed than rebuilt.

    None if there is none. What is saved is a straight line over the context, so two counts give all others exactly.
    For one token it is nearly always 2, since rebuilding even one old token costs more than absorbing.
    """
    _latent(config)
    at_first = _saved(config, tokens, tokens)
    slope = _saved(config, tokens, tokens + 1) - at_first
    if at_first > 0:
        return tokens
    if slope <= 0:
        return None
    found = tokens + -at_first // slope + 1
    return found if found <= most else None


def rebuilt_from(config: ModelConfig, context: int) -> int | None:
    """The least number of new tokens, up to the whole `context`, that take fewer FLOPs rebuilt than absorbed.

    None if there is none. Rebuilding serves all new tokens at once, absorbing costs more for each pair of tokens: once
    it costs more in all, it does so for any more tokens too, and a search by halves is exact.
    """
    _latent(config)
    whole("context", context)
    found = largest(lambda tokens: _saved(config, tokens, context) >= 0, context) + 1
    return found if found <= context else None


def step_formula(config: ModelConfig, tokens: int, context: int, way: str) -> str:
    """attention_step's FLOPs with this config's numbers in them, in one line."""
    total = attention_step(config, tokens, context, way).flops  # refuses what cannot be, before anything is calculated
    a, pairs = _latent(config), tokens * (2 * context - tokens + 1) // 2
    expanded, noun = (context, "latents") if way == "rebuild" else (tokens, "new")
    wide = (f"{a.kv_lora_rank:,} + {a.qk_rope_head_dim} + {a.kv_lora_rank:,}" if way == "absorb" else
            f"{a.qk_nope_head_dim} + {a.qk_rope_head_dim} + {a.v_head_dim}")
    return (f"2 × {config.n_layers:,} layers × {a.n_heads:,} heads × ({expanded:,} {noun} × {a.kv_lora_rank:,} × "
            f"({a.qk_nope_head_dim} + {a.v_head_dim}) + {pairs:,} pairs × ({wide})) = {total:,} FLOPs")


def shapes_of_a_step(config: ModelConfig, context: int) -> list[tuple[str, str, str]]:
    """One new token's attention in one layer as shapes: (what, rebuilt, absorbed), in the order of computing."""
    a = _latent(config)
    H, n, r, v, c = a.n_heads, a.qk_nope_head_dim, a.qk_rope_head_dim, a.v_head_dim, a.kv_lora_rank
    q, k, mixed = f"[{H:,}, {n + r:,}]", f"[{context:,}, {H:,}, {n + r:,}]", f"[{H:,}, {v:,}]"
    absorbed = f"[{H:,}, {c + r:,}]"
    return [
        ("read from the cache", *[f"latents [{context:,}, {c:,}], rope keys [{context:,}, {r}]"] * 2),
        ("queries of all heads", q, f"{q} × W_uk → {absorbed}"),
        ("scored against", f"keys {k}, rebuilt: latents × W_uk", f"what was read, as it is: [{context:,}, {c + r:,}]"),
        ("scores", *[f"[{H:,}, {context:,}]"] * 2),
        ("mixed", f"values [{context:,}, {H:,}, {v:,}], rebuilt: latents × W_uv", f"latents [{context:,}, {c:,}]"),
        ("result", mixed, f"[{H:,}, {c:,}] × W_uv → {mixed}"),
    ]


def _saved(config: ModelConfig, tokens: int, context: int) -> int:
    """FLOPs that absorbing saves; below 0 if it costs more."""
    rebuilt, absorbed = (forward_flops(config, tokens, context, absorbed=way).total for way in (False, True))
    return rebuilt - absorbed


def _latent(config: ModelConfig) -> LatentAttentionConfig:
    instance_of("config", config, (ModelConfig,))
    if not isinstance(config.attention, LatentAttentionConfig):
        raise ValueError(f"this config has {config.attention.kind}, which keeps no latent; give one with MLA")
    return config.attention
