"""What a model weighs, keeps and costs, counted from its config alone. Nothing here needs torch.

parameters.py  every trained tensor, summed by part      cache.py    bytes that the cache takes
compute.py     FLOPs, training memory, decoding speed    units.py    numbers as people read them
table.py       one table to paste: `python -m llm_core.accounting deepseek-v3 --context 128k`
journey.py     the stops of a token on its way, with what each owns and leaves in the cache
wrong_elsewhere.py  published figures that do not come out, beside the sums that do

Counts are exact integers, also for models that no machine could hold: layers are multiplied, never looped over.
"""

from llm_core.accounting.cache import cache_bytes, cache_bytes_per_token, cache_formula
from llm_core.accounting.compute import (
    HARDWARE,
    DecodeBound,
    Flops,
    Hardware,
    TrainingMemory,
    decode_bound,
    forward_flops,
    training_memory,
)
from llm_core.accounting.journey import Stop, journey
from llm_core.accounting.parameters import (
    PARTS,
    Parameters,
    Row,
    count_parameters,
    mtp_rows,
    per_layer,
    rows,
)
from llm_core.accounting.table import table
from llm_core.accounting.units import exact, human_bytes, human_count, parse_tokens, percent, ratio, times

__all__ = [
    "HARDWARE", "PARTS", "DecodeBound", "Flops", "Hardware", "Parameters", "Row", "Stop", "TrainingMemory",
    "cache_bytes", "cache_bytes_per_token", "cache_formula", "count_parameters", "decode_bound", "exact",
    "forward_flops", "human_bytes", "human_count", "journey", "mtp_rows", "parse_tokens", "per_layer", "percent",
    "ratio", "rows", "table", "times", "training_memory",
]
