"""What a model weighs, keeps and costs, counted from its config alone. Nothing here needs torch.

parameters.py  every trained tensor, summed by part      cache.py    bytes that the cache takes
compute.py     FLOPs, training memory, decoding speed    units.py    numbers as people read them
latent.py      the ways of latent attention: FLOPs and bytes of a step, and where they cross
training_run.py  hours and cost of a training run, and what was published about real ones
parallel.py    what lies on one of many GPUs             precision.py  what V3 trains in FP8, and what it does not
table.py       one table to paste: `python -m llm_core.accounting deepseek-v3 --context 128k`
speculation.py when a second row of a pass is free, and what guesses can gain
hardware.py    machines by their makers' figures          fits.py    whether a model fits, and the most that would
published_sizes.py  what DeepSeek-V3's file holds, and models whose size nobody published
journey.py     the stops of a token on its way, with what each owns and leaves in the cache
experts.py     mixtures of experts: finer ones, ways to choose, what is held and what is used
wrong_elsewhere.py  published figures that do not come out, beside the sums that do

Counts are exact integers, also for models that no machine could hold: layers are multiplied, never looped over.
"""

from llm_core.accounting.cache import cache_bytes, cache_bytes_per_token, cache_formula
from llm_core.accounting.compute import (
    DecodeBound,
    Flops,
    TrainingMemory,
    decode_bound,
    forward_flops,
    training_memory,
)
from llm_core.accounting.fits import (
    TRAINING_BITS,
    Need,
    compute_bound_from,
    largest_batch,
    largest_context,
    machines_needed,
    memory_need,
    training_bound,
)
from llm_core.accounting.fits_formulas import decode_formula, need_formulas, per_second
from llm_core.accounting.hardware import HARDWARE, Hardware
from llm_core.accounting.journey import Stop, journey
from llm_core.accounting.latent import (
    WAYS,
    Step,
    absorbed_from,
    attention_step,
    rebuilt_from,
    shapes_of_a_step,
    step_formula,
    way_flops,
)
from llm_core.accounting.parallel import (
    V3_LAYOUT,
    GpuMemory,
    Layout,
    cache_bytes_per_gpu,
    training_memory_per_gpu,
)
from llm_core.accounting.parameters import (
    PARTS,
    Parameters,
    Row,
    count_parameters,
    mtp_rows,
    per_layer,
    rows,
)
from llm_core.accounting.precision import Work, fp8_share, precision_map
from llm_core.accounting.published_sizes import (
    ESTIMATES,
    NEVER_PUBLISHED,
    V3_ON_THE_HUB,
    Estimate,
    numbers_in_v3_file,
)
from llm_core.accounting.speculation import V3_ACCEPTED, V3_SPEED_UP, SpeculativeBound, speculative_bound
from llm_core.accounting.table import table
from llm_core.accounting.training_run import (
    GPUS,
    RUNS,
    Gpu,
    PublishedRun,
    Stage,
    TrainingFlops,
    days,
    gpu_hours,
    published_utilisation,
    training_flops,
    utilisation,
)
from llm_core.accounting.units import exact, human_bytes, human_count, parse_tokens, percent, ratio, times

__all__ = [
    "ESTIMATES", "GPUS", "HARDWARE", "NEVER_PUBLISHED", "PARTS", "RUNS", "TRAINING_BITS", "V3_ACCEPTED",
    "V3_LAYOUT", "V3_ON_THE_HUB", "V3_SPEED_UP", "WAYS", "DecodeBound", "Estimate", "Flops", "Gpu", "GpuMemory",
    "Hardware", "Layout", "Need", "Parameters", "PublishedRun", "Row", "SpeculativeBound", "Stage", "Step", "Stop",
    "TrainingFlops", "TrainingMemory", "Work", "absorbed_from", "attention_step", "cache_bytes",
    "cache_bytes_per_gpu", "cache_bytes_per_token", "cache_formula", "compute_bound_from", "count_parameters",
    "days", "decode_bound", "decode_formula", "exact", "forward_flops", "fp8_share", "gpu_hours", "human_bytes",
    "human_count", "journey", "largest_batch", "largest_context", "machines_needed", "memory_need", "mtp_rows",
    "need_formulas", "numbers_in_v3_file", "parse_tokens", "per_layer", "per_second", "percent", "precision_map",
    "published_utilisation", "ratio", "rebuilt_from", "rows", "shapes_of_a_step", "speculative_bound",
    "step_formula", "table", "times", "training_bound", "training_flops", "training_memory",
    "training_memory_per_gpu", "utilisation", "way_flops",
]
