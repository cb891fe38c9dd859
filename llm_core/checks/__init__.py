"""Checks of the lessons' exercises. `checks.NAME(your_function)` prints one sentence and never raises.

core.py      how a function is tried, and how a mistake gets its name
journey.py   course/01_architecture/01_journey_of_a_token.ipynb
"""

from llm_core.checks.journey import causal_attention_by_hand, count_gpt, input_embedding, layer_norm, one_trillion

__all__ = ["causal_attention_by_hand", "count_gpt", "input_embedding", "layer_norm", "one_trillion"]
