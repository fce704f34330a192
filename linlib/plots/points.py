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
