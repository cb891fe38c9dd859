"""Figures shared by lessons and app, and the one colour that each part of a model has everywhere.

The only folder that imports Plotly: stage.py is what all figures share, and each family of figures has a file.
Figures have transparent backgrounds and no template: they weigh a kilobyte or two, suit light and dark pages, and stay
the same when Plotly changes its defaults. Values are exact or rounded, so that a stored notebook compares equal.
Classic traces only (bar, scatter, treemap, heatmap). A chart has no text for those who cannot see it: put a sentence
or a table beside each.
"""

from llm_core.plots.experts import (
    EXPERT_COLOURS,
    expert_colour,
    imbalance_lines,
    information_bars,
    load_bars,
    total_and_active,
    ways_by_pieces,
)
from llm_core.plots.few_bits import error_heatmap, loss_against_bits, number_rulers, values_and_levels
from llm_core.plots.fits import decode_roofline, memory_stack, waterfall
from llm_core.plots.inside import (
    attention_map,
    attention_tiles,
    compartment_effects,
    logit_lens,
    strips,
)
from llm_core.plots.ladder import cache_waterfall, parameter_waterfall
from llm_core.plots.latent import LATENT_WAYS, loss_against_rank, ways_lines
from llm_core.plots.rope import past_context, rope_dials, rope_scores, rope_wavelengths
from llm_core.plots.script import PLOTLY_VERSION, plotly_script
from llm_core.plots.sizes import (
    cache_bars,
    cache_lines,
    measured_cache,
    parameter_treemap,
    part_shares,
    quality_against_cache,
)
from llm_core.plots.speculation import acceptance_bars, speed_up_lines
from llm_core.plots.stage import COLOURS, DIVERGING, KINDS, SEQUENTIAL, bars, figure
from llm_core.plots.training import training_curves

__all__ = [
    "COLOURS", "DIVERGING", "EXPERT_COLOURS", "KINDS", "LATENT_WAYS", "PLOTLY_VERSION", "SEQUENTIAL",
    "acceptance_bars", "attention_map", "attention_tiles", "bars", "cache_bars", "cache_lines", "cache_waterfall",
    "compartment_effects", "decode_roofline", "error_heatmap", "expert_colour", "figure", "imbalance_lines",
    "information_bars", "load_bars", "logit_lens", "loss_against_bits", "loss_against_rank", "measured_cache",
    "memory_stack", "number_rulers", "parameter_treemap", "parameter_waterfall", "part_shares", "past_context",
    "plotly_script", "quality_against_cache", "rope_dials", "rope_scores", "rope_wavelengths", "speed_up_lines",
    "strips", "total_and_active", "training_curves", "values_and_levels", "waterfall", "ways_by_pieces", "ways_lines",
]
