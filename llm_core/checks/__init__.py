"""Checks of the lessons' exercises. `checks.NAME(your_function)` prints one sentence and never raises.

core.py      how a function is tried, and how a mistake gets its name
journey.py   course/01_architecture/01_journey_of_a_token.ipynb
cases.py     several cases at once, against known wrong functions
tokenisation.py   course/01_architecture/02_tokenisation.ipynb
training.py  course/01_architecture/03_training_a_gpt.ipynb
self_attention.py   course/02_attention/01_self_attention.ipynb
causal_attention.py   course/02_attention/02_causal_attention.ipynb
multi_head.py   course/02_attention/03_multi_head_attention.ipynb
kv_cache.py, cached_reading.py   course/03_kv_cache/01_the_cache.ipynb
shared_heads.py   course/03_kv_cache/02_mqa_and_gqa.ipynb
positions.py   course/04_rope/01_counting_positions.ipynb
rope.py   course/04_rope/02_rotary_positions.ipynb
long_context.py   course/04_rope/03_long_context.ipynb
latent.py   course/05_mla/01_latent_attention.ipynb
mla_rope.py   course/05_mla/02_mla_with_rope.ipynb
how_small.py   course/05_mla/03_how_small.ipynb
routing.py   course/06_moe/01_experts_and_routing.ipynb
balance.py   course/06_moe/02_balancing.ipynb
deepseek_moe.py   course/06_moe/03_deepseek_moe.ipynb
multi_token.py   course/07_mtp/01_multi_token_prediction.ipynb
speculation.py   course/07_mtp/02_speculative_decoding.ipynb
integer_formats.py   course/08_quantization/01_integers.ipynb
fp8_formats.py   course/08_quantization/02_fp8.ipynb
fp8_lesson.py   course/08_quantization/03_training_in_fp8.ipynb
capstone.py   course/09_capstone/01_mini_deepseek.ipynb
conversion.py   course/09_capstone/02_real_checkpoints.ipynb
training_cost.py   course/09_capstone/03_what_training_took.ipynb

`python -m llm_core.checks --help`: a working copy of the lessons, what is solved, a table for a class.
"""

from importlib import import_module

# Check -> its file in this folder. To add a check, add one line here, in the order of the lessons: nothing is imported
# at the top, so that the command works at once, without torch. A check must not have the name of a file here.
_HOME = {
    "input_embedding": "journey",
    "layer_norm": "journey",
    "causal_attention_by_hand": "journey",
    "count_gpt": "journey",
    "one_trillion": "journey",
    "token_pairs": "tokenisation",
    "join_pair": "tokenisation",
    "encode_word": "tokenisation",
    "show_as_written": "tokenisation",
    "chat_ids": "tokenisation",
    "shifted_tasks": "training",
    "mean_loss": "training",
    "adamw_step": "training",
    "rate_at": "training",
    "bits_per_byte_of": "training",
    "clipped": "training",
    "stable_softmax": "self_attention",
    "self_attention_by_hand": "self_attention",
    "tokens_looked_at": "self_attention",
    "attention_flops": "self_attention",
    "pronoun_finds_name": "self_attention",
    "causal_shares": "causal_attention",
    "mask_for_new_tokens": "causal_attention",
    "drop_shares": "causal_attention",
    "may_look_past_padding": "causal_attention",
    "leaks": "causal_attention",
    "split_heads": "multi_head",
    "head_writes": "multi_head",
    "fused_multi_head": "multi_head",
    "induction_score": "multi_head",
    "induction_by_hand": "multi_head",
    "tokens_read": "kv_cache",
    "cache_bytes_by_hand": "kv_cache",
    "attend_with_past": "cached_reading",
    "users_that_fit": "kv_cache",
    "score_endings": "cached_reading",
    "key_head_of": "shared_heads",
    "grouped_attention_by_hand": "shared_heads",
    "pool_heads": "shared_heads",
    "as_multi_head": "shared_heads",
    "kv_heads_that_fit": "shared_heads",
    "position_bits": "positions",
    "sinusoidal_table": "positions",
    "shift_matrix": "positions",
    "score_parts": "positions",
    "order_blind": "positions",
    "turn_pairs": "rope",
    "rope_angles": "rope",
    "rotate_in_halves": "rope",
    "to_halves": "rope",
    "knows_only_distance": "rope",
    "pairs_in_danger": "long_context",
    "base_for_pair": "long_context",
    "yarn_speeds": "long_context",
    "yarn_softmax_scale": "long_context",
    "stretch_with_yarn": "long_context",
    "heads_as_small": "latent",
    "attend_absorbed": "latent",
    "through_latent": "latent",
    "pays_from": "latent",
    "one_bias": "latent",
    "kept_numbers": "mla_rope",
    "two_part_scores": "mla_rope",
    "matrix_for_distance": "mla_rope",
    "absorbed_step": "mla_rope",
    "new_tokens_for_naive": "mla_rope",
    "largest_rank": "how_small",
    "down_and_up": "how_small",
    "down_and_up_for": "how_small",
    "ranks_for": "how_small",
    "choose_experts": "routing",
    "sparse_layer": "routing",
    "layer_parameters": "routing",
    "bits_about_expert": "routing",
    "uneven_by": "balance",
    "switch_loss": "balance",
    "choose_with_bias": "balance",
    "next_bias": "balance",
    "finds_place": "balance",
    "ways_to_choose": "deepseek_moe",
    "open_experts": "deepseek_moe",
    "v3_gate": "deepseek_moe",
    "active_from_total": "deepseek_moe",
    "ways_within_groups": "deepseek_moe",
    "tasks_at_depth": "multi_token",
    "block_input": "multi_token",
    "loss_ahead": "multi_token",
    "module_size": "multi_token",
    "chain_of_guesses": "multi_token",
    "tokens_of_pass": "speculation",
    "replacement": "speculation",
    "draft_quality": "speculation",
    "best_gamma": "speculation",
    "comes_out_as": "speculation",
    "symmetric_codes": "integer_formats",
    "codes_with_zero_point": "integer_formats",
    "kept_in_groups": "integer_formats",
    "two_in_a_byte": "integer_formats",
    "best_fraction": "integer_formats",
    "e4m3_value": "fp8_formats",
    "tile_scales": "fp8_formats",
    "fp8_bytes": "fp8_formats",
    "smallest_kept": "fp8_formats",
    "promoted_product": "fp8_formats",
    "three_products": "fp8_lesson",
    "fp8_weight_gradient": "fp8_lesson",
    "power_of_two_scale": "fp8_lesson",
    "delayed_scales": "fp8_lesson",
    "whole_speedup": "fp8_lesson",
    "block_output": "capstone",
    "expert_layer": "capstone",
    "write_greedily": "capstone",
    "fair_d_ff": "capstone",
    "beyond_luck": "capstone",
    "our_name": "conversion",
    "converted_bytes": "conversion",
    "turn_some": "conversion",
    "queries_for_one_key": "conversion",
    "run_flops": "training_cost",
    "utilisation_of": "training_cost",
    "bill": "training_cost",
    "bytes_on_a_gpu": "training_cost",
    "cache_on_a_gpu": "training_cost",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"there is no check {name!r}; there are {', '.join(_HOME)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(globals().keys() | _HOME.keys())  # so that Tab completes the names
