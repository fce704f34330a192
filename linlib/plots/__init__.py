"""Tidy frame and axes in, axes out; one palette and one style sheet for every figure."""

from linlib.plots.histograms import MOST_LAYERS, error_histogram
from linlib.plots.lines import (
    control_lines,
    difference_lines,
    dynamics_lines,
    interval_lines,
    linearity_lines,
    norm_lines,
    path_lines,
    quartile_lines,
    step_axis,
    thin_lines,
)
from linlib.plots.points import interval_points, measured_lines, path_points
from linlib.plots.style import (
    NULL_COLOUR,
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
    "MOST_LAYERS",
    "NULL_COLOUR",
    "control_lines",
    "difference_lines",
    "dynamics_lines",
    "error_histogram",
    "interval_lines",
    "interval_points",
    "label_outer",
    "legend",
    "linearity_lines",
    "markers",
    "measured_lines",
    "norm_lines",
    "palette",
    "panels",
    "path_lines",
    "path_points",
    "plain_log_ticks",
    "quartile_lines",
    "save",
    "show",
    "step_axis",
    "thin_lines",
    "use_style",
]
