"""Figures shared by lessons and app, and the one colour that each part of a model has everywhere.

The only folder that imports Plotly: stage.py is what all figures share, and each family of figures has a file.
Figures have transparent backgrounds and no template: they weigh a kilobyte or two, suit light and dark pages, and stay
the same when Plotly changes its defaults. Values are exact or rounded, so that a stored notebook compares equal.
Classic traces only (bar, scatter, treemap, heatmap). A chart has no text for those who cannot see it: put a sentence
or a table beside each.
"""

from llm_core.plots.inside import (
    attention_map,
    attention_tiles,
    compartment_effects,
    logit_lens,
    strips,
)
from llm_core.plots.sizes import (
    cache_bars,
    cache_lines,
    measured_cache,
    parameter_treemap,
    part_shares,
    quality_against_cache,
)
from llm_core.plots.stage import COLOURS, DIVERGING, KINDS, SEQUENTIAL, bars, figure
from llm_core.plots.training import training_curves

__all__ = [
    "COLOURS", "DIVERGING", "KINDS", "SEQUENTIAL", "attention_map", "attention_tiles", "bars", "cache_bars",
    "cache_lines", "compartment_effects", "figure", "logit_lens", "measured_cache", "parameter_treemap",
    "part_shares", "quality_against_cache", "strips", "training_curves",
]
