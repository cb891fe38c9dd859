"""Comparisons that need more than one run to mean anything: small models, one budget, three seeds for each arm.

    python -m llm_core.training.studies attention       into llm_core/training/recorded/attention.json
    python -m llm_core.training.studies --list

The lessons show what these files hold. A run takes a minute or three on one core, all of a study up to an hour;
stopped, the same command goes on. What differs between arms is in their configs or recipes alone; the order of the
batches is the seed's, the same for all arms.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from llm_core import accounting, data, presets, tokenizer
from llm_core.config import (
    FeedForwardConfig,
    GroupedAttentionConfig,
    LatentAttentionConfig,
    ModelConfig,
    MoEConfig,
    RopeConfig,
)
from llm_core.training.card import machine
from llm_core.training.log import Log
from llm_core.training.loop import train
from llm_core.training.recipe import Recipe

RECORDED = Path(__file__).parent / "recorded"
SEEDS = (0, 1, 2)
STEPS = 1000
FEWER = {"precision": 500}  # FP8 is simulated: a step takes many times as long as one in 32 bits


@dataclass(frozen=True)
class Arm:
    """One of the things that are compared: a config, and what its recipe has otherwise."""

    config: ModelConfig
    changes: dict = field(default_factory=dict)


def _llama(attention: GroupedAttentionConfig | LatentAttentionConfig) -> ModelConfig:
    """Three Llama-like blocks, in which only the attention is swapped."""
    return ModelConfig(vocab_size=presets.COURSE_VOCAB, max_seq_len=256, d_model=96, n_layers=3, attention=attention,
                       feed_forward=FeedForwardConfig(256, "swiglu"), rope=RopeConfig(10000.0), tie_embeddings=True)


def _latent(rank: int) -> LatentAttentionConfig:
    return LatentAttentionConfig(8, kv_lora_rank=rank, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=12)


def _experts(**changes) -> ModelConfig:
    """A small DeepSeek: MLA, a dense block, then 16 experts of which a token uses 2, and a shared one."""
    moe = MoEConfig(16, 2, 64, n_shared_experts=1, first_k_dense=1, scoring="sigmoid", norm_topk_prob=True,
                    selection_bias=True, group_score="top2", **changes)
    return _llama(_latent(32)).replace(moe=moe)


def _gpt() -> ModelConfig:
    """GPT-2's architecture with about the active parameters of the small DeepSeek."""
    return ModelConfig(vocab_size=presets.COURSE_VOCAB, max_seq_len=256, d_model=96, n_layers=3,
                       attention=GroupedAttentionConfig(8, qkv_bias=True, output_bias=True), norm="layernorm",
                       feed_forward=FeedForwardConfig(384, "gelu", bias=True), norm_eps=1e-5, tie_embeddings=True)


STUDIES: dict[str, dict[str, Arm]] = {
    "attention": {kind: Arm(_llama(GroupedAttentionConfig(8, n_kv_heads=n)))
                  for kind, n in (("MHA", 8), ("GQA", 2), ("MQA", 1))},
    "latent": {f"d_c = {rank}": Arm(_llama(_latent(rank))) for rank in (8, 16, 32, 64)},
    "balancing": {"with the bias": Arm(_experts()), "without": Arm(_experts(), {"bias_update_speed": 0.0})},
    "precision": {name: Arm(_experts(), {"precision": name}) for name in ("bf16", "fp8")},
    "architecture": {"GPT": Arm(_gpt()), "DeepSeek": Arm(_experts())},
}
ABOUT = {
    "attention": "How many key-value heads does attention need? 8 query heads with 8, 2 or 1 of them.",
    "latent": "How narrow may MLA's latent be? The width d_c alone is changed.",
    "balancing": "What does V3's selection bias do to the experts' load, and to the loss?",
    "precision": "Does training in (simulated) FP8 cost quality against BF16?",
    "architecture": "GPT-2's architecture and DeepSeek-V3's at one budget of tokens and about equal active parameters.",
}


def recipe_of(study: str, arm: str, seed: int) -> Recipe:
    plain = Recipe(f"{study}: {arm}", steps=FEWER.get(study, STEPS), learning_rate=4e-3, evaluate_every=250, seed=seed)
    return dataclasses.replace(plain, **STUDIES[study][arm].changes)


def load(study: str) -> dict:
    """A recorded study. FileNotFoundError or ValueError with one sentence if there is none."""
    if study not in STUDIES:
        raise ValueError(f"no study is called {study!r}; there are {', '.join(STUDIES)}")
    path = RECORDED / f"{study}.json"
    if not path.is_file():
        raise FileNotFoundError(f"the study {study} is not recorded; do it: "
                                f"python -m llm_core.training.studies {study}")
    return json.loads(path.read_text(encoding="utf-8"))


def record(study: str, work: Path, seeds: tuple[int, ...] = SEEDS) -> dict:
    """Do all runs of a study, or go on with them, and describe what came out."""
    course = tokenizer.get("course")
    text = data.tokenized(data.shakespeare(), course)
    held_out = data.windows(text.held_out, Recipe("", 1).context)
    arms = {}
    for seed in seeds:  # all arms of a seed, then the next seed
        for number, (name, arm) in enumerate(STUDIES[study].items()):
            recipe, folder = recipe_of(study, name, seed), work / f"{number}-seed-{seed}"
            with tqdm(total=recipe.steps, unit="step", desc=f"{recipe.preset}, seed {seed}") as bar:
                result = train(recipe, text.train, held_out, text.held_out_bytes,
                               lambda row, bar=bar: bar.update(row["step"] - bar.n), folder=folder,
                               checkpoint_every=250, config=arm.config)
            run = {"seed": seed, "bits_per_byte": round(result.best_bits_per_byte, 4), "curve": result.curve,
                   "minutes": round(result.seconds / 60, 1)}
            if arm.config.moe:
                run["max_violation"] = [[row["step"], row["max_violation"]]
                                        for row in Log(folder / "log.csv").rows() if row["step"] % 50 == 0]
            arms.setdefault(name, []).append(run)
    return {
        "study": study, "about": ABOUT[study],
        "command": f"python -m llm_core.training.studies {study}",
        "machine": machine(),
        "tokens": recipe.tokens, "arms": {name: _about(study, name, runs) for name, runs in arms.items()}}


def _about(study: str, name: str, runs: list[dict]) -> dict:
    config = STUDIES[study][name].config
    counts, bits = accounting.count_parameters(config), [run["bits_per_byte"] for run in runs]
    return {"parameters": counts.total, "active_parameters": counts.active,
            "cache_bytes_per_token": accounting.cache_bytes_per_token(config),
            "recipe": dataclasses.asdict(recipe_of(study, name, runs[0]["seed"])), "config": config.to_dict(),
            "mean": round(statistics.fmean(bits), 4),
            "spread": round(max(bits) - min(bits), 4), "runs": runs}


def table(recorded: dict) -> str:
    """A study as a Markdown table: each arm's seeds, mean, and the spread that luck alone makes."""
    rows = [f"{recorded['about']}\n",
            "| | parameters | active | cache bytes a token | bits per byte, each seed | mean | spread |",
            "|---|---|---|---|---|---|---|"]
    for name, arm in recorded["arms"].items():
        seeds = ", ".join(f"{run['bits_per_byte']:.3f}" for run in arm["runs"])
        rows.append(f"| {name} | {arm['parameters']:,} | {arm['active_parameters']:,} | "
                    f"{arm['cache_bytes_per_token']:,} | {seeds} | {arm['mean']:.3f} | {arm['spread']:.3f} |")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m llm_core.training.studies", description="Do a study again.")
    parser.add_argument("study", nargs="?", choices=STUDIES)
    parser.add_argument("--list", action="store_true", help="what studies there are")
    parser.add_argument("--threads", type=int, default=1, help="processor threads (default 1: two studies, two cores)")
    options = parser.parse_args(arguments)
    if options.list or not options.study:
        print("\n".join(f"{name:<14}{about}" for name, about in ABOUT.items()))
        return 0
    torch.set_num_threads(options.threads)
    try:
        recorded = record(options.study, Path("runs") / "studies" / options.study)
    except (ValueError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    RECORDED.mkdir(exist_ok=True)
    path = RECORDED / f"{options.study}.json"
    path.write_text(json.dumps(recorded, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n")
    print(table(recorded))
    return 0


if __name__ == "__main__":
    sys.exit(main())
