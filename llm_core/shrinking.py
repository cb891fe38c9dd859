"""How far a trained model's latent can be shrunk: measured here, and recorded for models that take a while.

    python -m llm_core.shrinking      measures every rank of every subject again, into recorded_shrinking.json

Keys and values go through a latent of `rank` numbers a token and layer (low_rank). Its directions come from the weights
alone ("plain") or from what the model computed on 1,024 tokens of text ("data"). The loss is the mean over a short
piece of other text, in nats a token: enough to compare ranks of one model, too little to rate the model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_core import accounting, data, low_rank
from llm_core.config import ModelConfig
from llm_core.generation import generate
from llm_core.model import LanguageModel
from llm_core.pretrained import SMOLLM2, card, load_pretrained
from llm_core.tokenizer import Tokenizer
from llm_core.validation import one_of, whole

METHODS = ("plain", "data")
LEARN_FROM = 1024  # tokens that show in which directions keys and values vary
PIECE = 256  # tokens of one piece of held-out text
WRITTEN = 16  # tokens of text that are recorded
RECORDED = Path(__file__).with_name("recorded_shrinking.json")


@dataclass(frozen=True)
class Subject:
    """A trained model with MHA or GQA: the ranks that are tried, the whole first, pieces of held-out text, a prompt."""

    ranks: tuple[int, ...]
    pieces: int
    prompt: str


SUBJECTS = {
    SMOLLM2: Subject((384, 320, 288, 256, 224, 192, 160, 128, 96, 64), 1, "The capital of France is"),
    "gpt-mini": Subject((384, 256, 192, 160, 128, 96, 64, 48, 32, 16), 4, "ROMEO:\n"),
}


@dataclass(frozen=True)
class Measured:
    """kept: the mean over layers of what Factor.kept says; loss in nats a token; text: what follows the prompt."""

    rank: int
    kept: float
    loss: float
    text: str = ""


def directions(model: LanguageModel, tokenizer: Tokenizer, method: str) -> list[low_rank.Factor]:
    """Each layer's directions, by one of METHODS. FileNotFoundError for "data" where the plays are missing."""
    one_of("method", method, METHODS)
    if method == "plain":
        return low_rank.factors(model)
    width = min(LEARN_FROM, model.config.max_seq_len)
    ids = tokenizer.encode(data.shakespeare().train[0][:8 * LEARN_FROM])[:LEARN_FROM]
    twin = LanguageModel.unfilled(model.config)  # the same weights: others may be using the model meanwhile
    twin.load_state_dict(model.state_dict(), assign=True)
    twin.eval()
    return low_rank.factors(twin, low_rank.input_moments(twin, torch.tensor(ids).view(-1, width)))


def shrunk(model: LanguageModel, found: list[low_rank.Factor], rank: int) -> LanguageModel:
    """The model with a latent of `rank` numbers: real MLA where it has no RoPE, else what MLA would compute."""
    return (low_rank.compress if model.config.rope else low_rank.as_latent)(model, found, rank)


@cache
def held_out(name: str, tokenizer: Tokenizer) -> Tensor:
    """Pieces of text from which no directions are taken, [N, PIECE + 1]: the held-out beginnings of the first plays."""
    plays = data.shakespeare().held_out[:SUBJECTS[name].pieces]
    return torch.tensor([tokenizer.encode(play[:16 * PIECE])[:PIECE + 1] for play in plays])


@torch.inference_mode()
def mean_loss(model: LanguageModel, ids: Tensor) -> float:
    """Mean cross-entropy of ids [N, T + 1] but each row's first token, in nats."""
    logits = model(ids[:, :-1]).logits  # [N, T, V]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item()


def kept(found: list[low_rank.Factor], rank: int) -> float:
    """The share of squares that `rank` directions keep, the mean over the layers."""
    return sum(factor.kept(rank) for factor in found) / len(found)


@cache
def config_of(name: str) -> ModelConfig:
    return ModelConfig.from_dict(card(name)["config"])


def cache_bytes(name: str, rank: int | None = None, bits: int = 16) -> int:
    """Bytes a token of a subject's own cache (rank None), or of a latent of `rank` numbers a layer in its place."""
    config = config_of(name)
    return accounting.cache_bytes_per_token(config if rank is None else low_rank.latent_config(config, rank), bits)


def check(name: str, rank: int) -> None:
    """ValueError, with the nearest, for a model that is no subject or a rank that is not among those tried."""
    one_of("model", name, tuple(SUBJECTS))
    whole("rank", rank)
    ranks = SUBJECTS[name].ranks
    if rank not in ranks:
        near = sorted(sorted(ranks, key=lambda r: abs(r - rank))[:2])
        raise ValueError(f"rank {rank} was not tried with {name}; nearest: {', '.join(map(str, near))}")


@cache
def recorded(name: str) -> dict[str, list[Measured]]:
    """What was recorded of a subject: method -> one Measured a rank, as SUBJECTS lists them."""
    one_of("model", name, tuple(SUBJECTS))
    made = json.loads(RECORDED.read_text(encoding="utf-8"))[name]
    return {method: [Measured(**row) for row in made[method]] for method in METHODS}


def record(name: str) -> dict[str, list[dict]]:
    """Measure a subject at every rank, by both methods, and write after its prompt, greedily."""
    (model, tokenizer), subject = load_pretrained(name), SUBJECTS[name]
    out: dict[str, list[dict]] = {}
    for method in METHODS:
        found, out[method] = directions(model, tokenizer, method), []
        for rank in subject.ranks:
            small, ids = shrunk(model, found, rank), tokenizer.encode(subject.prompt)
            new = generate(small, ids, WRITTEN, stop_token=tokenizer.end_of_text)[0, len(ids):].tolist()
            text = tokenizer.decode([token for token in new if token != tokenizer.end_of_text])
            loss = round(mean_loss(small, held_out(name, tokenizer)), 3)
            out[method].append({"rank": rank, "kept": round(kept(found, rank), 4), "loss": loss, "text": text})
            print(name, method, out[method][-1], flush=True)
    return out


if __name__ == "__main__":
    everything = {name: record(name) for name in SUBJECTS}
    RECORDED.write_text(json.dumps(everything, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n")
