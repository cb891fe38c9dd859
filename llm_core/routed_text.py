"""Which experts a text's tokens were sent to, layer by layer, and whether that says anything about the experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_core.balancing import load, max_violation
from llm_core.config import ModelConfig
from llm_core.model import LanguageModel
from llm_core.moe import Routing
from llm_core.specialisation import by_chance, mutual_information


@dataclass(frozen=True)
class RoutedText:
    """Of one layer: experts [N][K] as chosen, best first (by score plus bias); their gate weights [N][K]; the load of
    each expert [E], tokens; imbalance, the largest load over the mean one, 1 in balance."""

    layer: int
    experts: list[list[int]]
    weights: list[list[float]]
    load: list[int]
    imbalance: float


@torch.no_grad()
def routings(model: LanguageModel, ids: Tensor) -> dict[int, Routing]:
    """What each router decides for texts [B, T]: number of the layer, from 0 -> its Routing of the B * T tokens.

    ValueError if the model has no experts, or if there is nothing to send.
    """
    if not model.config.moe or not model.config.n_moe_layers:
        raise ValueError("this model has no experts, so there is no router to look at")
    if ids.dim() != 2 or not ids.numel():
        raise ValueError("there is no token to send to an expert; give at least one")
    if ids.shape[1] > model.config.max_seq_len:
        raise ValueError(f"the text has {ids.shape[1]:,} tokens, and the model's context holds "
                         f"{model.config.max_seq_len:,}; shorten it")
    return dict(enumerate(model(ids).routing, start=model.config.n_dense_layers))


def route(model: LanguageModel, ids: Sequence[int]) -> dict[int, RoutedText]:
    """The same for one text of N tokens, as plain numbers."""
    out = {}
    for layer, routing in routings(model, torch.tensor([list(ids)], dtype=torch.long)).items():
        counts = load(routing)
        out[layer] = RoutedText(layer, routing.experts.tolist(), routing.weights.tolist(), counts.tolist(),
                                max_violation(counts) + 1)
    return out


def untrained(config: ModelConfig, seed: int = 1) -> LanguageModel:
    """The same model with random weights, to hold beside the trained one. Other random numbers are left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LanguageModel(config).eval()


def information(models: dict[str, LanguageModel], ids: Tensor) -> dict[str, dict[int, float]]:
    """How many bits a token's id tells about its experts: name of the model -> layer -> bits, for texts [B, T].

    One more entry, "by chance": the first model's choices, the ids shuffled. In a short text that is nearly as much.
    """
    tokens, out = ids.flatten(), {}
    for name, model in models.items():
        found = routings(model, ids)
        out[name] = {layer: mutual_information(tokens, r.experts) for layer, r in found.items()}
        if "by chance" not in out:
            chance = {layer: by_chance(tokens, r.experts) for layer, r in found.items()}
            out = {**out, "by chance": chance}
    return {**{name: out[name] for name in models}, "by chance": out["by chance"]}
