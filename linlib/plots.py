"""Figures: a tidy frame and axes in, the axes out; one palette and one style for all figures.

Lines and points are drawn by seaborn. Intervals come either from `stats.mean_interval`, over the
rows that share a place in the figure, or from columns of the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from linlib.stats import mean_interval

STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "0.88",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 7,
}
MARKERS = "osD^vPX*<>"
NULL_COLOUR = "0.45"
NULL_LABEL = "noise would score, d/(n-1)"
MOST_LAYERS = 6  # in one histogram

Groups = Sequence[str] | None
Y = str | tuple[str, str, str]


def use_style() -> None:
    """Apply the style of the project to all figures that follow."""
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", rc=STYLE)


def palette(groups: Sequence[str]) -> dict[str, tuple]:
    """One colour per group; the same groups have the same colours in every figure."""
    names = sorted(set(groups))
    few = len(names) <= 10
    colours = sns.color_palette("colorblind" if few else "husl", len(names))
    return dict(zip(names, colours, strict=True))


def markers(groups: Sequence[str]) -> dict[str, str]:
    """One marker per group, so that figures can be read without colour."""
    return {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(sorted(set(groups)))}


def linearity_lines(frame: pd.DataFrame, score: str, ax: Axes, band: str | None = None) -> Axes:
    """A score against normalised depth, one line per model (Figure 1), and the null value.

    The linearity frame has one protocol and one token group; the columns `<band>_low` and
    `<band>_high` are drawn as a shaded interval.
    """
    y = score if band is None else (f"{band}_low", score, f"{band}_high")
    _lines(frame, "depth", y, "model", ax)
    null = frame.groupby("depth")["null_score"].max()
    ax.plot(null.index, null, ":", color=NULL_COLOUR, label=NULL_LABEL)
    ax.set(xlabel="Normalized depth (layer / L)", ylabel="Share of variance explained")
    ax.set(xlim=(0, 1.03), ylim=_score_limits(ax))
    return ax


def thin_lines(frame: pd.DataFrame, score: str, ax: Axes, label: str) -> Axes:
    """A baseline score against depth: thin lines without markers in the colours of the models."""
    _draw(sns.lineplot, frame, "depth", score, "model", ax, lw=0.8, alpha=0.8, legend=False)
    ax.plot([], [], color="black", lw=0.8, label=label)
    return ax


def quartile_lines(frame: pd.DataFrame, ax: Axes) -> Axes:
    """Median over tokens against depth, with quartiles as a band; one line per model (Figure 3)."""
    _lines(frame, "depth", ("q25", "median", "q75"), "model", ax)
    ax.set(xlabel="Normalized depth (layer / L)", xlim=(0, 1.03))
    return ax


def norm_lines(frame: pd.DataFrame, ax: Axes) -> Axes:
    """Norm of one model's block outputs beside that of the stream they are added to (Figure 3)."""
    names = {"stream_norm": "residual stream $h_{l-1}$", "delta_norm": r"block output $\Delta_l$"}
    rows = frame[frame["quantity"].isin(names)].replace({"quantity": names})
    groups = list(names.values())
    options = {"palette": dict(zip(groups, ("C0", "C3"), strict=True)), "linestyle": "-"}
    _lines(rows, "layer", ("q25", "median", "q75"), "quantity", ax, groups, **options)
    ax.set(xlabel="Layer", xticks=sorted(frame["layer"].unique()), ylim=(0, None))
    return ax


def dynamics_lines(frame: pd.DataFrame, score: str, ax: Axes) -> Axes:
    """Mean over layers of a score, at most 1, against training step, one line per model (Figure 2).

    The frame has one row per model, seed, step and layer, of one token group. Models with several
    seeds have a band, the 95% interval over them.
    """
    means = frame.groupby(["model", "seed", "step"])[[score, "null_score"]].mean().reset_index()
    interval_lines(means, score, "model", ax, x="step")
    ax.axhline(means["null_score"].max(), ls=":", color=NULL_COLOUR, label=NULL_LABEL)
    ax.set(ylim=_score_limits(ax))
    return step_axis(ax, means["step"].max())


def step_axis(ax: Axes, last: int) -> Axes:
    """Make the horizontal axis one of training steps up to `last`: logarithmic, but with a 0."""
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    ticks = [0, *(10**power for power in range(len(str(last))))]
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks], minor=False)
    ax.set_xticks([], minor=True)
    ax.set(xlabel="Training step", xlim=(-0.3, 1.5 * last))
    return ax


def interval_lines(
    frame: pd.DataFrame, score: str, by: str, ax: Axes, x: str = "depth", groups: Groups = None
) -> Axes:
    """Mean over seeds of a score with its 95% interval as a band; one thin line per seed.

    The frame has one row per group (column `by`), `seed` and `x`. In this and the following
    functions, `groups` are all groups of the figure, so that its panels share colours; None stands
    for those of the frame.
    """
    seeds = {"units": "seed", "estimator": None, "lw": 0.7, "alpha": 0.5, "legend": False}
    _draw(sns.lineplot, frame, x, score, by, ax, groups, **seeds)
    return _lines(frame, x, score, by, ax, groups, errorbar=_interval)


def control_lines(frame: pd.DataFrame, score: str, by: str, ax: Axes) -> Axes:
    """Mean of a score at each depth: a grey line per group of the column `by`."""
    grey = {"palette": dict.fromkeys(frame[by], NULL_COLOUR), "errorbar": None}
    return _draw(sns.lineplot, frame, "depth", score, by, ax, style=by, **grey)


def difference_lines(differences: pd.DataFrame, by: str, ax: Axes, groups: Groups = None) -> Axes:
    """Differences from a control along training, beside the line of no difference.

    The frame is one of `stats.paired_differences`, with a column `step`.
    """
    ax.axhline(0, ls=":", color=NULL_COLOUR)
    return _lines(differences, "step", ("low", "mean", "high"), by, ax, groups)


def path_lines(
    frame: pd.DataFrame, x: str, y: str, by: str, ax: Axes, groups: Groups = None
) -> Axes:
    """Two measurements against each other along training, as means over the rows of each `step`."""
    means = frame.groupby([by, "step"])[[x, y]].mean().reset_index()
    return path_points(means, x, y, by, ax, groups)


def path_points(
    frame: pd.DataFrame, x: str, y: str, by: str, ax: Axes, groups: Groups = None
) -> Axes:
    """Two measurements against each other, the rows of each group joined in their order."""
    thin = {"linewidth": 1.2, "markersize": 6}
    return _lines(frame, x, y, by, ax, groups, sort=False, estimator=None, **thin)


def interval_points(
    frame: pd.DataFrame, value: str, rows: str, by: str, ax: Axes, groups: Sequence[str]
) -> Axes:
    """Mean over seeds of a value with its 95% interval as a bar, and one small point per seed.

    The frame has one row per row of the panel (column `rows`, in the order of the frame from top to
    bottom), group and seed; groups stand one below the other within a row, in the order of
    `groups`.
    """
    ax.axvline(0, ls=":", color=NULL_COLOUR)
    options = {"order": list(dict.fromkeys(frame[rows])), "linestyle": "none", "linewidth": 1.6}
    options |= {"dodge": 0.5 * (1 - 1 / len(groups))}
    small = {"errorbar": None, "markersize": 3, "alpha": 0.5, "legend": False}
    for _, seed in frame.groupby(frame.groupby([rows, by]).cumcount()):
        _points(seed, value, rows, by, ax, groups, **options, **small)
    _points(frame, value, rows, by, ax, groups, **options, errorbar=_interval)
    ax.yaxis.grid(True)
    return ax


def measured_lines(
    frame: pd.DataFrame, value: str, by: str, ax: Axes, x: str, groups: Sequence[str]
) -> Axes:
    """A value with its own interval `low` .. `high` against `x`, a number, one line per group.

    Lines are shifted a little, so that no bar hides another.
    """
    options = {"native_scale": True, "dodge": 0.08 * (len(groups) - 1), "linestyle": "--"}
    return _points(frame, x, ("low", value, "high"), by, ax, groups, linewidth=1.8, **options)


def error_histogram(frame: pd.DataFrame, ax: Axes) -> Axes:
    """Number of tokens by error on a logarithmic scale, one step line per layer (Figure 9).

    Of a deep model, about six layers are drawn, spread over its depth. The grey area is what
    Gaussian residuals of the same covariance would show, at its highest over these layers: a line
    that leaves it has a long tail. The frame has one row per layer, `cloud` ("measured" or
    "gaussian") and bin that is not empty, of one model and token group.
    """
    layers = sorted(frame["layer"].unique())
    layers = layers[:: -(-len(layers) // MOST_LAYERS)]
    frame = frame[frame["layer"].isin(layers)]
    width = (frame["error_high"] - frame["error_low"]).iloc[0]
    bins = (frame["error_low"] / width).round().astype(int).rename("bin")
    counts = frame.pivot_table("count", bins, ["cloud", "layer"])
    counts = counts.reindex(range(bins.max() + 1)).fillna(0)
    edges = width * np.arange(len(counts) + 1)
    null = {"fill": True, "color": "0.85", "label": "Gaussian residuals,\nsame covariance"}
    ax.stairs(counts["gaussian"].max(axis=1), edges, **null)
    for layer, colour in zip(layers, sns.color_palette("viridis", len(layers)), strict=True):
        ax.stairs(counts["measured", layer], edges, color=colour, lw=1.6, label=f"layer {layer}")
    ax.set(yscale="log", ylim=(0.7, None), xlim=(0, None))
    return ax


def _score_limits(ax: Axes) -> tuple[float, float]:
    """Limits from 0, or the lowest value in panels that share the axis, to the highest score, 1."""
    lowest = min(panel.dataLim.y0 for panel in ax.get_shared_y_axes().get_siblings(ax))
    return min(-0.02, lowest), 1.04


def _interval(values: pd.Series) -> tuple[float, float]:
    return mean_interval(values)[1:]


def _lines(
    frame: pd.DataFrame, x: str, y: Y, by: str, ax: Axes, groups: Groups = None, **options
) -> Axes:
    shapes = markers(frame[by] if groups is None else groups)
    options = {"linestyle": "--", "errorbar": None, "err_kws": {"alpha": 0.18, "lw": 0}} | options
    options |= {"style": by, "markers": shapes, "dashes": False, "markeredgewidth": 0}
    return _draw(sns.lineplot, frame, x, y, by, ax, groups, **options)


def _points(
    frame: pd.DataFrame, x: str, y: Y, by: str, ax: Axes, groups: Sequence[str], **options
) -> Axes:
    shapes = [markers(groups)[group] for group in groups]
    options = {"markersize": 6, "hue_order": groups, "markers": shapes} | options
    return _draw(sns.pointplot, frame, x, y, by, ax, groups, **options)


def _draw(
    function: Callable[..., Axes],
    frame: pd.DataFrame,
    x: str,
    y: Y,
    by: str,
    ax: Axes,
    groups: Groups = None,
    **options,
) -> Axes:
    """Call a function of seaborn with the colours of the figure, without its legend and labels.

    What it draws stays labelled, for `legend`. Groups keep the order of `groups`, and those that
    `frame` lacks are left out.

    Where `y` names three columns (low, value, high), seaborn, which reads no intervals from
    columns, is given them as three observations: their median is the value, their range the
    interval.
    """
    if frame.empty:  # seaborn warns of a palette without groups
        return ax
    if not isinstance(y, str):
        frame = frame.melt([x, by], list(y), value_name="drawn")
        y, options = "drawn", options | {"estimator": "median", "errorbar": ("pi", 100)}
    groups = sorted(set(frame[by])) if groups is None else groups
    shown = [group for group in groups if group in set(frame[by])]
    labels = {"xlabel": ax.get_xlabel(), "ylabel": ax.get_ylabel()}
    options = {"hue_order": shown, "palette": palette(groups)} | options
    function(frame, x=x, y=y, hue=by, ax=ax, **options)
    if ax.get_legend() is not None:
        ax.get_legend().remove()
    ax.set(**labels)
    return ax


def panels(count: int, columns: int = 3, **options) -> tuple[Figure, list[Axes]]:
    """A figure of small panels, `columns` to a row; a place left over is for the legend."""
    columns = min(columns, count)
    rows = -(-count // columns)
    width = 3.6 * columns + (1.8 if rows * columns == count else 0)
    fig, axes = plt.subplots(rows, columns, figsize=(width, 3 * rows), squeeze=False, **options)
    flat = list(axes.flat)
    for ax in flat[count:]:
        ax.set_axis_off()
    return fig, flat[:count]


def label_outer(axes: np.ndarray) -> None:
    """Keep axis labels on the left and lower edge of a grid of panels."""
    for ax in axes.flat:
        ax.label_outer()


def plain_log_ticks(ax: Axes) -> None:
    """Write the ticks of a logarithmic axis as numbers, and some between the powers of ten."""
    low, high = ax.get_ylim()
    fine = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
    subs = fine if high < 3 * low else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    ax.yaxis.set_major_locator(LogLocator(10, subs=subs))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    ax.yaxis.set_minor_locator(NullLocator())


def legend(fig: Figure, ax: Axes) -> None:
    """One legend for the whole figure: in an empty panel, or to the right of all."""
    handles, labels = ax.get_legend_handles_labels()
    spare = [other for other in fig.axes if not other.axison]
    if spare:
        spare[0].legend(handles, labels, loc="center")
    else:
        fig.legend(handles, labels, loc="outside right center")


def save(fig: Figure, path: str | Path) -> None:
    """Write `<path>.png` and `<path>.pdf`, the same bytes every time."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for ending, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        partial = path.with_name(f".{path.name}{ending}")
        fig.savefig(partial, format=ending[1:], metadata=metadata)
        partial.replace(path.with_name(path.name + ending))


def show(fig: Figure) -> Figure:
    """Close the figure, so that a notebook shows it once: as the value of its cell."""
    plt.close(fig)
    return fig
