"""Points with intervals: a comparison of a few groups, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from linlib.intervals import over_seeds
from linlib.plots.style import NULL_COLOUR, markers, palette


def interval_points(
    frame: pd.DataFrame, value: str, rows: str, by: str, ax: Axes, groups: Sequence[str]
) -> Axes:
    """Mean over seeds with its 95% interval, one line of the panel a row; single seeds small.

    Args:
        frame: one row a cell, group and seed.
        value: the column drawn, on the horizontal axis.
        rows: the column that gives the vertical axis.
        by: the column that tells groups apart: side by side within a row.
        ax: where.
        groups: all groups, in their order from top to bottom.
    """
    names = list(dict.fromkeys(frame[rows]))
    colours, shapes = palette(groups), markers(groups)
    ax.axvline(0, ls=":", color=NULL_COLOUR)
    for place, group in enumerate(groups):
        of_group = frame[frame[by] == group]
        shift = 0.5 * ((place + 0.5) / len(groups) - 0.5)
        height = {name: number + shift for number, name in enumerate(names)}
        style = {"color": colours[group], "marker": shapes[group]}
        ax.scatter(of_group[value], of_group[rows].map(height), s=9, alpha=0.5, **style)
        means = over_seeds(of_group, [rows], value)
        error = [means["mean"] - means["low"], means["high"] - means["mean"]]
        ax.errorbar(
            means["mean"], means[rows].map(height), xerr=error, ls="", lw=1.6, label=group, **style
        )
    ax.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    return ax


def measured_lines(
    frame: pd.DataFrame, value: str, by: str, ax: Axes, x: str, groups: Sequence[str]
) -> Axes:
    """A value with its own interval `low` .. `high` against `x`, one line a group.

    Args:
        frame: one row a group and `x`.
        value: the column drawn.
        by: the column that tells the groups apart.
        ax: where.
        x: the column of the horizontal axis.
        groups: all groups of the figure; lines are shifted a little, so that bars do not hide one
            another.
    """
    colours, shapes = palette(groups), markers(groups)
    for place, group in enumerate(groups):
        rows = frame[frame[by] == group].sort_values(x)
        shift = 0.08 * (place - (len(groups) - 1) / 2)
        error = [rows[value] - rows["low"], rows["high"] - rows[value]]
        style = {"color": colours[group], "marker": shapes[group], "label": group}
        ax.errorbar(rows[x] + shift, rows[value], yerr=error, ls="--", **style)
    return ax


def path_points(
    frame: pd.DataFrame, x: str, y: str, by: str, ax: Axes, groups: Sequence[str]
) -> Axes:
    """Two measurements against each other, rows joined in their order; one line a group.

    Args:
        frame: one row a group and point.
        x: the column of the horizontal axis.
        y: the column of the vertical axis.
        by: the column that tells the groups apart.
        ax: where.
        groups: all groups of the figure, so that panels share colours.
    """
    colours, shapes = palette(groups), markers(groups)
    for group in groups:
        rows = frame[frame[by] == group]
        style = {"color": colours[group], "marker": shapes[group], "label": group}
        ax.plot(rows[x], rows[y], "--", lw=1.2, ms=5, **style)
    return ax
