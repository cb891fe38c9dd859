"""The stops of a token's journey, in order, each with the parameters it owns and the bytes it leaves in the cache."""

from __future__ import annotations

from dataclasses import dataclass

from llm_core.accounting.cache import cache_bytes
from llm_core.accounting.parameters import Row, count_parameters, rows
from llm_core.config import ModelConfig
from llm_core.validation import instance_of, shown

LATENT_NORMS = ("q_norm", "kv_norm")  # MLA's own norms stand inside its attention


@dataclass(frozen=True)
class Stop:
    """One stop. part: as in count_parameters, for its colour. copies: blocks that have this stop.

    parameters, active: of one copy; active is what one token works with. cache_bytes: what the text leaves in one
    copy's cache.
    """

    name: str
    part: str
    parameters: int
    active: int
    cache_bytes: int = 0
    copies: int = 1


def journey(config: ModelConfig, layer: int = 0, tokens: int = 1, bits: int = 16) -> list[Stop]:
    """From the token embedding through block `layer` (from 0) to the output head. Dropout owns nothing and is no stop.

    The cache is counted for a text of `tokens` tokens, with `bits` bits a number.

    Parameters times copies add up to the model's total only where all blocks are alike: a model with experts may have
    dense blocks first, and `layer` says which kind is shown. A tied head owns nothing: it is the token embedding.
    ValueError for a layer that the model does not have.
    """
    instance_of("config", config, (ModelConfig,))
    if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < config.n_layers:
        raise ValueError(f"the model has the layers 0 to {config.n_layers - 1}, and no layer {shown(layer)}")
    dense = layer < config.n_dense_layers
    where, copies = ("dense layers", config.n_dense_layers) if dense else ("MoE layers", config.n_moe_layers)
    mine = [row for row in rows(config) if row.where == where]

    def stop(name: str, part: str, members, cache: int = 0) -> Stop:
        chosen = [row for row in mine if members(row)]
        return Stop(name, part, sum(row.total for row in chosen) // copies, sum(row.active for row in chosen) // copies,
                    cache, copies)

    def norm(name: str):
        return lambda row: row.name.split(".")[0] == name

    def attention(row: Row) -> bool:
        return row.part == "attention" or row.name in LATENT_NORMS

    def feed_forward(row: Row) -> bool:
        return row.part in ("dense feed-forward", "router", "routed experts", "shared experts")

    whole = count_parameters(config).by_part
    table, places = whole["token embedding"], whole.get("position embedding", 0)
    final = sum(row.total for row in rows(config) if row.where == "output" and row.part == "norms")
    head = whole.get("output head", 0)
    return [
        Stop("token embedding", "token embedding", table, config.d_model),
        *([Stop("position embedding", "position embedding", places, config.d_model)] if places else []),
        stop("norm 1", "norms", norm("attention_norm")),
        stop("attention", "attention", attention, cache_bytes(config.replace(n_layers=1), 1, tokens, bits)),
        stop("norm 2", "norms", norm("feed_forward_norm")),
        stop("feed-forward" if dense else "experts", "dense feed-forward" if dense else "experts", feed_forward),
        Stop("final norm", "norms", final, final),
        Stop("output head", "output head", head, config.vocab_size * config.d_model),
    ]
