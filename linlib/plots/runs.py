"""Figures over training runs, with one point or line per seed, and the picture of the verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import (
    LogLocator,
    NullLocator,
    StrMethodFormatter,
)

from linlib.plots.style import (
    NULL_COLOUR,
    Groups,
    draw,
    interval_of,
    lines,
    markers,
    palette,
)
from linlib.stats import mean_interval, over_seeds

WARMUP_LABEL = "ring: first checkpoint\nafter warm-up"
VERDICT_COLOURS = {
    "supported": "#029e73",
    "smaller than the paper's": "#de8f05",
    "inconclusive": "#6b6b6b",
    "contradicted": "#c1272d",
    "not testable at this profile": "#b0b0b0",
}


def dynamics_lines(frame: pd.DataFrame, score: str, ax: Axes) -> Axes:
    """Share of variance that is not linear, 1 - score, against training step (Figure 2).

    It is the geometric mean over layers, on a logarithmic axis: the mean of log(1 - score), which
    no layer near 1 hides in. The frame has one row per model, seed, step and layer, of one token
    group. Models with several seeds have a thin line for each, and from three seeds on a band, the
    95% interval of that mean over them.
    """
    means = _mean_logs(frame, score)
    rows = over_seeds(means, ["model", "step"], "log")
    few = rows["seeds"] < 3  # an interval over two seeds spans decades
    rows.loc[few, ["low", "high"]] = rows.loc[few, "mean"]
    rows[["mean", "low", "high"]] = np.exp(rows[["mean", "low", "high"]])
    seeds = {"units": "seed", "estimator": None, "lw": 0.7, "alpha": 0.5, "legend": False}
    several = means[means.groupby("model")["seed"].transform("nunique") > 1]
    groups = sorted(means["model"].unique())
    draw(sns.lineplot, several, "step", "share", "model", ax, groups, **seeds)
    lines(rows, "step", ("low", "mean", "high"), "model", ax, groups)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(10, subs=(1, 3)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
    return step_axis(ax, rows["step"].max())


def warmup_marks(frame: pd.DataFrame, score: str, ax: Axes) -> Axes:
    """Ring the first checkpoint at or after the end of warm-up on each line of `dynamics_lines`.

    The frame is that of `dynamics_lines`, with the column `warmup_steps`. What lies before a ring
    is shaded where all models have the same warm-up.
    """
    means = _mean_logs(frame[frame["step"] >= frame["warmup_steps"]], score)
    first = means[means["step"] == means.groupby("model")["step"].transform("min")]
    colours = palette(sorted(frame["model"].unique()))
    ring = {"marker": "o", "mfc": "none", "ms": 14, "mew": 1.8, "ls": "", "zorder": 4}
    for model, rows in first.groupby("model"):
        ax.plot(rows["step"].iloc[0], np.exp(rows["log"].mean()), color=colours[model], **ring)
    ax.plot([], [], color=NULL_COLOUR, label=WARMUP_LABEL, **ring)
    if frame["warmup_steps"].nunique() == 1:
        ax.axvspan(ax.get_xlim()[0], frame["warmup_steps"].iloc[0], color="0.94", zorder=0)
    return ax


def _mean_logs(frame: pd.DataFrame, score: str) -> pd.DataFrame:
    """Mean over layers of log(1 - score), by model, seed and step, and its exponential `share`."""
    logs = np.log((1 - frame[score]).clip(lower=1e-12)).rename("log")
    keys = [frame[name] for name in ("model", "seed", "step")]
    means = logs.groupby(keys).mean().reset_index()
    return means.assign(share=np.exp(means["log"]))


def step_axis(ax: Axes, last: int) -> Axes:
    """Make the horizontal axis one of training steps up to `last`: logarithmic, but with a 0."""
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
    groups: Groups = None,
    at_most: float = math.inf,
) -> Axes:
    """Mean over seeds of a score with its 95% interval as a band; one thin line per seed.

    The frame has one row per group (column `by`), `seed` and `x`. In this and the following
    functions, `groups` are all groups of the figure, so that its panels share colours; None stands
    for those of the frame. The band ends at `at_most`, which the score cannot exceed.
    """

    def band(values: pd.Series) -> tuple[float, float]:
        low, high = interval_of(values)
        return low, min(high, at_most)

    seeds = {"units": "seed", "estimator": None, "lw": 0.7, "alpha": 0.5, "legend": False}
    draw(sns.lineplot, frame, x, score, by, ax, groups, **seeds)
    return lines(frame, x, score, by, ax, groups, errorbar=band)


def control_lines(frame: pd.DataFrame, score: str, by: str, ax: Axes) -> Axes:
    """Mean of a score at each depth: a grey line per group of the column `by`."""
    grey = {"palette": dict.fromkeys(frame[by], NULL_COLOUR), "errorbar": None}
    return draw(sns.lineplot, frame, "depth", score, by, ax, style=by, **grey)


def difference_lines(differences: pd.DataFrame, by: str, ax: Axes, groups: Groups = None) -> Axes:
    """Differences from a control along training, beside the line of no difference.

    The frame is one of `stats.paired_differences`, with a column `step`.
    """
    ax.axhline(0, ls=":", color=NULL_COLOUR)
    return lines(differences, "step", ("low", "mean", "high"), by, ax, groups)


def path_lines(
    frame: pd.DataFrame, x: str, y: str, by: str, ax: Axes, groups: Groups = None
) -> Axes:
    """Two measurements against each other along training, as means over the rows of each `step`."""
    means = frame.groupby([by, "step"])[[x, y]].mean().reset_index()
    thin = {"linewidth": 1.2, "markersize": 6}
    return lines(means, x, y, by, ax, groups, sort=False, estimator=None, **thin)


def interval_points(
    frame: pd.DataFrame, value: str, rows: str, by: str, ax: Axes, groups: Sequence[str]
) -> Axes:
    """Mean over seeds of a value with its 95% interval as a bar, and one small point per seed.

    The frame has one row per row of the panel (column `rows`, in the order of the frame from top to
    bottom), group and seed; groups stand one below the other within a row, in the order of
    `groups`.
    """
    ax.axvline(0, ls=":", color=NULL_COLOUR)
    order = list(dict.fromkeys(frame[rows]))
    colours, shapes = palette(groups), markers(groups)
    for number, group in enumerate(groups):
        offset = 0.6 * ((number + 0.5) / len(groups) - 0.5)
        looks = {"color": colours[group], "ls": "", "marker": shapes[group]}
        label = group
        for place, row in enumerate(order):
            values = frame.loc[(frame[rows] == row) & (frame[by] == group), value].dropna()
            if values.empty:
                continue
            mean, low, high = mean_interval(values)
            at = np.full(len(values), place + offset)
            ax.plot(values, at, ms=3.5, alpha=0.5, mew=0, **looks)
            ax.plot([low, high], at[:1].repeat(2), color=colours[group], lw=1.8)
            ax.plot(mean, at[0], ms=7, mec="white", mew=0.6, label=label, **looks)
            label = None  # once in the legend
    ax.set_yticks(range(len(order)), order)
    ax.set(ylim=(len(order) - 0.5, -0.5))
    ax.yaxis.grid(True)
    return ax


def verdict_bars(frame: pd.DataFrame, ax: Axes) -> Axes:
    """Effect and interval of each claim beside the paper's effect, coloured by verdict.

    Effects have different units. Here 0 is where a claim begins to hold, and 1 where it holds in
    full: the paper's effect (a diamond), or else one that would matter (a line). The axis is
    logarithmic beyond 1. What could not be tested has no bar. Circles are real decoders, squares
    models trained here.

    The frame is that of `claims.findings`.
    """
    size = frame["goal"] - frame["threshold"]
    for end in ("effect", "low", "high"):
        frame = frame.assign(**{end: (frame[end] - frame["threshold"]) / size})
    ax.axvspan(0, 1e4, color="0.96", zorder=0)
    ax.axvline(0, color="black", lw=1)
    for place, row in enumerate(frame.itertuples()):
        colour = VERDICT_COLOURS[row.verdict]
        goal = {"marker": "D" if row.from_paper else "|", "ms": 7 if row.from_paper else 11}
        ax.plot(1, place, mfc="white", mec="black", mew=1.1, ls="", zorder=2, **goal)
        if np.isfinite(row.low):
            ax.plot([row.low, row.high], [place, place], color=colour, lw=4, solid_capstyle="butt")
        if np.isfinite(row.effect):
            shape = "o" if row.scope == "real decoders" else "s"
            ax.plot(row.effect, place, shape, color=colour, mec="white", ms=9, zorder=3)
    ax.set_xscale("symlog", linthresh=1, linscale=1.2)
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ends = frame[["effect", "low", "high"]].to_numpy()
    ax.set_xlim(min(-1.3, 1.2 * np.nanmin(ends)), max(1.6, 1.2 * np.nanmax(ends)))
    ax.set_yticks(range(len(frame)), [f"{row.number}  {row.claim}" for row in frame.itertuples()])
    ax.set(ylim=(len(frame) - 0.5, -0.5))
    ax.tick_params("y", length=0)
    ax.yaxis.grid(False)
    return ax
