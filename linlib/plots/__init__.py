"""Figures: a tidy frame and axes in, the axes out; one palette and one style for all figures.

Lines and points are drawn by seaborn. Intervals come either from `stats.mean_interval`, over the
rows that share a place in the figure, or from columns of the frame. No axis ends before what is
drawn on it.
"""

from __future__ import annotations

from linlib.plots.layers import (
    BLOCK_1_LABEL,
    DEPTH_COLOURS,
    HOLLOW_LABEL,
    WORST_LABEL,
    block_bars,
    block_lines,
    depth_bar,
    linearity_lines,
    magnified_lines,
    magnify_near_1,
    norm_lines,
    quartile_lines,
    survival_curves,
    thin_lines,
)
from linlib.plots.pruning import (
    accuracy_axis,
    added_loss_axis,
    block_ticks,
    measured_lines,
    random_band,
)
from linlib.plots.runs import (
    VERDICT_COLOURS,
    WARMUP_LABEL,
    control_lines,
    difference_lines,
    dynamics_lines,
    interval_lines,
    interval_points,
    path_lines,
    step_axis,
    verdict_bars,
    warmup_marks,
)
from linlib.plots.style import (
    COLOURS,
    NULL_COLOUR,
    NULL_LABEL,
    label_outer,
    legend,
    markers,
    palette,
    panels,
    plain_log_ticks,
    save,
    show,
    use_style,
)

__all__ = [
    "BLOCK_1_LABEL",
    "COLOURS",
    "DEPTH_COLOURS",
    "HOLLOW_LABEL",
    "NULL_COLOUR",
    "NULL_LABEL",
    "VERDICT_COLOURS",
    "WARMUP_LABEL",
    "WORST_LABEL",
    "accuracy_axis",
    "added_loss_axis",
    "block_bars",
    "block_lines",
    "block_ticks",
    "control_lines",
    "depth_bar",
    "difference_lines",
    "dynamics_lines",
    "interval_lines",
    "interval_points",
    "label_outer",
    "legend",
    "linearity_lines",
    "magnified_lines",
    "magnify_near_1",
    "markers",
    "measured_lines",
    "norm_lines",
    "palette",
    "panels",
    "path_lines",
    "plain_log_ticks",
    "quartile_lines",
    "random_band",
    "save",
    "show",
    "step_axis",
    "survival_curves",
    "thin_lines",
    "use_style",
    "verdict_bars",
    "warmup_marks",
]
