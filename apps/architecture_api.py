"""What the page Architecture shows, for programs: a preset with some of its fields changed, counted part by part."""

from __future__ import annotations

from dataclasses import fields

from apps import config_json
from llm_core import ModelConfig, accounting, presets
from llm_core.validation import Part

PARTS = ("attention", "feed_forward", "moe", "rope")


def count_parameters(preset: str = "deepseek-v3", changes: dict | None = None, config_json_text: str = "") -> dict:
    """Count a model's parameters, part by part, from its config alone.

    Args:
        preset: a model's name, as list_models gives them.
        changes: fields of the config to change first, by name, for instance {"n_layers": 30, "kv_lora_rank": 256}.
            A field of a part (attention, feed_forward, moe, rope) is named without the part.
        config_json_text: instead of a preset, the text of a Hugging Face config.json (gpt2, llama, qwen2, mistral,
            mixtral, deepseek, deepseek_v2, deepseek_v3 or kimi_k2; at most 200,000 bytes).

    Returns:
        total (the main model), active (all but the experts that a token does not choose; also by two other rules), mtp
        and router_biases (both counted apart from total), by_part and active_by_part (their parts, which sum to the
        two), cache_bytes_per_token at 16 bits a number, config, the whole description, and not_read, a sentence about
        keys of a config.json that were not used.
    """
    pasted = config_json.read(config_json_text) if config_json_text else None
    config = changed(pasted.config if pasted else presets.get(preset), changes or {})
    n = accounting.count_parameters(config)
    return {
        "model": config_json.NAME if pasted else preset, "total": n.total, "active": n.active,
        "active_no_input_embedding": n.active_no_input_embedding, "active_no_embed_no_head": n.active_no_embed_no_head,
        "mtp": n.mtp, "router_biases": n.router_biases, "by_part": dict(n.by_part),
        "active_by_part": dict(n.active_by_part), "cache_bytes_per_token": accounting.cache_bytes_per_token(config),
        "config": config.to_dict(), "not_read": pasted.remark if pasted else ""}


def changed(config: ModelConfig, changes: dict) -> ModelConfig:
    """The config with single fields replaced, wherever they are. ValueError for a field that this model lacks."""
    parts = {name: part for name in PARTS if isinstance(part := getattr(config, name), Part)}
    own, inside = {}, {name: {} for name in parts}
    for name, value in changes.items():
        place = next((of for of, part in parts.items() if name in {f.name for f in fields(part)}), None)
        if place is None:
            if name not in {f.name for f in fields(config)} or name in PARTS:
                known = sorted({f.name for part in (config, *parts.values()) for f in fields(part)} - set(PARTS))
                raise ValueError(f"this model has no field {str(name)[:40]!r} to change; it has {', '.join(known)}")
            own[name] = value
        else:
            inside[place][name] = value
    return config.replace(**own, **{of: parts[of].replace(**given) for of, given in inside.items() if given})
