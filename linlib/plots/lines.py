"""Lines against depth or training step: tidy frame and axes in, axes out."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from linlib.intervals import over_seeds
from linlib.plots.style import NULL_COLOUR, markers, palette


def linearity_lines(
    frame: pd.DataFrame, score: str, ax: Axes, band: str | None = None, style: str = "--"
) -> Axes:
    """One line a model: a score against normalised depth (paper, Figure 1), and the null value.

    Args:
        frame: a linearity frame, one protocol and one token group.
        score: the column drawn.
        ax: where.
        band: a column with `_low` and `_high` beside it, drawn as a shaded interval.
        style: of the lines.
    """
    colours, shapes = palette(frame["model"]), markers(frame["model"])
    for model, rows in frame.groupby("model"):
        ax.plot(
            rows["depth"],
            rows[score],
            style,
            marker=shapes[model],
            color=colours[model],
            label=model,
        )
        if band is not None:
            low, high = rows[f"{band}_low"], rows[f"{band}_high"].clip(upper=1)
            ax.fill_between(rows["depth"], low, high, color=colours[model], alpha=0.18, lw=0)
    null = frame.groupby("depth")["null_score"].max()
    ax.plot(null.index, null, ":", color=NULL_COLOUR, label="noise would score, d/(n-1)")
    ax.set(xlabel="Normalized depth (layer / L)", ylabel="Share of variance explained")
    lowest = min(panel.dataLim.y0 for panel in ax.get_shared_y_axes().get_siblings(ax))
    ax.set(xlim=(0, 1.03), ylim=(min(-0.02, lowest), 1.04))
    return ax


def thin_lines(frame: pd.DataFrame, score: str, ax: Axes, label: str) -> Axes:
    """A baseline score against depth, thin and without markers, in each model's colour."""
    colours = palette(frame["model"])
    for model, rows in frame.groupby("model"):
        ax.plot(rows["depth"], rows[score], color=colours[model], lw=0.8, alpha=0.8)
    ax.plot([], [], color="black", lw=0.8, label=label)
    return ax


def quartile_lines(frame: pd.DataFrame, ax: Axes, style: str = "--") -> Axes:
    """Median over tokens against depth, quartiles as a band; one line a model (Figure 3)."""
    colours, shapes = palette(frame["model"]), markers(frame["model"])
    for model, rows in frame.groupby("model"):
        colour = colours[model]
        ax.plot(
            rows["depth"], rows["median"], style, marker=shapes[model], color=colour, label=model
        )
        ax.fill_between(rows["depth"], rows["q25"], rows["q75"], color=colour, alpha=0.18, lw=0)
    ax.set(xlabel="Normalized depth (layer / L)", xlim=(0, 1.03))
    return ax


def norm_lines(frame: pd.DataFrame, ax: Axes) -> Axes:
    """Norm of one model's block outputs beside the stream they are added to (Figure 3)."""
    drawn = {
        "stream_norm": ("o", "C0", "residual stream $h_{l-1}$"),
        "delta_norm": ("s", "C3", r"block output $\Delta_l$"),
    }
    for quantity, (marker, colour, label) in drawn.items():
        rows = frame[frame["quantity"] == quantity]
        ax.plot(rows["layer"], rows["median"], marker=marker, color=colour, label=label)
        ax.fill_between(rows["layer"], rows["q25"], rows["q75"], color=colour, alpha=0.2, lw=0)
    ax.set(xlabel="Layer", xticks=sorted(frame["layer"].unique()), ylim=(0, None))
    return ax


def dynamics_lines(frame: pd.DataFrame, score: str, ax: Axes) -> Axes:
    """Mean over layers of a score against training step, one line a model (Figure 2).

    Args:
        frame: one row a model, seed, step and layer, one token group. The band of a model with
            several seeds is their 95% interval.
        score: the column drawn, at most 1.
        ax: where.
    """
    means = frame.groupby(["model", "seed", "step"])[[score, "null_score"]].mean().reset_index()
    interval_lines(means, score, "model", ax, x="step")
    null = means["null_score"].max()
    ax.axhline(null, ls=":", color=NULL_COLOUR, label="noise would score, d/(n-1)")
    ax.set(ylim=(None, 1.04))
    return step_axis(ax, means["step"].max())


def step_axis(ax: Axes, last: int) -> Axes:
    """A logarithmic axis of training steps up to `last`, with a place for step 0."""
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    ticks = [0, *(10**power for power in range(len(str(last))))]
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks], minor=False)
    ax.set_xticks([], minor=True)
    ax.set(xlabel="Training step", xlim=(-0.3, 1.5 * last))
    return ax


def interval_lines(
    frame: pd.DataFrame,
    score: str,
    by: str,
    ax: Axes,
    x: str = "depth",
    groups: Sequence[str] | None = None,
) -> Axes:
    """Mean over seeds of a score against `x`, its 95% interval as a band, every seed a thin line.

    Args:
        frame: one row a group, seed and `x`.
        score: the column drawn; a band ends at 1, which no score exceeds.
        by: the column that tells the groups apart.
        ax: where.
        x: the column of the horizontal axis.
        groups: all groups of the figure, so that panels share colours; None: those of `frame`.
    """
    groups = frame[by] if groups is None else groups
    colours = palette(groups)
    for (group, _), rows in frame.groupby([by, "seed"]):
        ax.plot(rows[x], rows[score], color=colours[group], lw=0.7, alpha=0.5)
    rows = over_seeds(frame, [by, x], score)
    return _bands(rows.assign(high=rows["high"].clip(upper=1)), by, ax, x, groups)


def control_lines(frame: pd.DataFrame, score: str, by: str, ax: Axes, x: str = "depth") -> Axes:
    """Mean of a score over everything but `by` and `x`: grey lines, one a control."""
    for (control, rows), style in zip(frame.groupby(by), (":", "-.", "--"), strict=False):
        means = rows.groupby(x)[score].mean()
        ax.plot(means.index, means, style, color=NULL_COLOUR, label=control)
    return ax


def difference_lines(
    differences: pd.DataFrame,
    by: str,
    ax: Axes,
    x: str = "step",
    groups: Sequence[str] | None = None,
) -> Axes:
    """Differences from a control with their intervals, beside the line of no difference.

    Args:
        differences: as `intervals.paired_differences` gives them.
        by: the column that tells the groups apart.
        ax: where.
        x: the column of the horizontal axis.
        groups: all groups of the figure, so that panels share colours.
    """
    ax.axhline(0, ls=":", color=NULL_COLOUR)
    return _bands(differences, by, ax, x, differences[by] if groups is None else groups)


def path_lines(
    frame: pd.DataFrame, x: str, y: str, by: str, ax: Axes, groups: Sequence[str] | None = None
) -> Axes:
    """Two measurements against each other along training, as means over seeds; one line a group.

    Args:
        frame: one row a group, seed and `step`.
        x: the column of the horizontal axis.
        y: the column of the vertical axis.
        by: the column that tells the groups apart.
        ax: where.
        groups: all groups of the figure, so that panels share colours.
    """
    groups = frame[by] if groups is None else groups
    colours, shapes = palette(groups), markers(groups)
    for group, rows in frame.groupby(by):
        means = rows.groupby("step")[[x, y]].mean()
        ax.plot(means[x], means[y], "--", marker=shapes[group], color=colours[group], label=group)
    return ax


def _bands(rows: pd.DataFrame, by: str, ax: Axes, x: str, groups: Sequence[str]) -> Axes:
    colours, shapes = palette(groups), markers(groups)
    for group, line in rows.groupby(by):
        colour = colours[group]
        ax.plot(line[x], line["mean"], "--", marker=shapes[group], color=colour, label=group)
        ax.fill_between(line[x], line["low"], line["high"], color=colour, alpha=0.18, lw=0)
    return ax
