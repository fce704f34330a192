"""Figures of pruned models: a value against the number of blocks removed (Figures 6 to 8)."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import (
    StrMethodFormatter,
)

from linlib.plots.style import NULL_COLOUR, points


def measured_lines(
    frame: pd.DataFrame, value: str, by: str, ax: Axes, x: str, groups: Sequence[str]
) -> Axes:
    """A value with its own interval `low` .. `high` against `x`, a number, one line per group.

    Lines are shifted a little, so that no bar hides another.
    """
    options = {"native_scale": True, "dodge": 0.08 * (len(groups) - 1), "linestyle": "--"}
    return points(frame, x, ("low", value, "high"), by, ax, groups, linewidth=1.8, **options)


def random_band(sets: pd.DataFrame, x: str, y: str, ax: Axes) -> Axes:
    """A value of random sets against their number of blocks `x`, in grey.

    The band is from the 5th to the 95th percentile over the sets of one size, the line their
    median. `sets` has one row per set.
    """
    low, median, high = (sets.groupby(x)[y].quantile(share) for share in (0.05, 0.5, 0.95))
    ax.fill_between(
        low.index, low, high, color="0.88", lw=0, label="removed at random,\n5th to 95th percentile"
    )
    ax.plot(median.index, median, color="0.6", lw=1.5, label="removed at random,\nmedian")
    return ax


def added_loss_axis(ax: Axes, little: float) -> Axes:
    """Make the vertical axis one of added loss: linear up to `little`, then logarithmic.

    The dense model is the line of zero; a dotted one marks `little`, in nats per token.
    """
    ax.axhline(0, color="black", lw=1, label="dense model")
    ax.axhline(little, color=NULL_COLOUR, ls=":", lw=1.4, label=f"little: {little:g} nats")
    lowest = ax.dataLim.y0  # without the margin, which a logarithm would make large
    ax.set_yscale("symlog", linthresh=little, linscale=1)
    ax.set_ylim(bottom=min(-0.2 * little, lowest - 0.1 * little))
    low, high = ax.get_ylim()
    ticks = [sign * one for sign in (-1, 1) for one in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)]
    ax.set_yticks([0, *(tick for tick in ticks if low <= tick <= high)])
    ax.set_yticks([], minor=True)
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.set(ylabel="Added loss, nats per token")
    return ax


def block_ticks(numbers: Sequence[int], removed: Sequence[str], ax: Axes) -> Axes:
    """Ticks at numbers of blocks, each with the removed blocks, such as "12 15", beneath it."""
    names = dict(zip(numbers, removed, strict=True))
    ax.set_xticks(list(names), [f"{n}\n{fill(names[n], 12)}" for n in names])
    ax.set(xlabel="Number of blocks removed, and which (counted from 0)")
    return ax


def accuracy_axis(dense: float, low: float, high: float, chance: float, ax: Axes) -> Axes:
    """Make the vertical axis one of accuracy, from 0 to 1, with two marks.

    The dense model's accuracy is a line with its interval `low` .. `high` as a band, and chance a
    dashed line.
    """
    ax.axhspan(low, high, color="0.92", lw=0, label="dense model,\n95% interval")
    ax.axhline(dense, color="black", lw=1, label="dense model")
    ax.axhline(chance, color=NULL_COLOUR, ls="--", lw=1.4, label="chance")
    ax.set(ylim=(0, 1))
    return ax
