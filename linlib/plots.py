"""Figures: a tidy frame and axes in, the axes out; one palette and one style for all figures.

Lines and points are drawn by seaborn. Intervals come either from `stats.mean_interval`, over the
rows that share a place in the figure, or from columns of the frame. No axis ends before what is
drawn on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullLocator,
    StrMethodFormatter,
)

from linlib.stats import mean_interval, over_seeds

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
HOLLOW_LABEL = "hollow: fewer effective\ntokens than dimensions"
BLOCK_1_LABEL = "block 1, which reads\nthe embedding"
WARMUP_LABEL = "ring: first checkpoint\nafter warm-up"
WORST_LABEL = "worst 1% of tokens"
DEPTH_COLOURS = "viridis"
MANY = 12  # points of a line from which on its markers are small
# One colour per model and per variant in all figures; a model is known by how its name begins.
COLOURS = {
    "SmolLM2": "#0173b2",
    "Gemma": "#de8f05",
    "Llama": "#029e73",
    "GPT-2": "#d55e00",
    "OPT": "#cc78bc",
    "Pythia": "#56b4e9",
    "BLOOM": "#ca9161",
    "Mistral": "#949494",
    "MiniLM": "#b8860b",
    "plain": "#333333",
    "cosine-0.5-from-embeddings": "#e377c2",
    "cosine": "#c1272d",
    "mse-0.5": "#2a7fba",
    "mse-2.0": "#7bbbe3",
    "removed": "#d1495b",
    "replaced + distilled": "#1d3557",
    "replaced (stories)": "#4f86c6",
    "replaced": "#66a182",
}

VERDICT_COLOURS = {
    "supported": "#029e73",
    "smaller than the paper's": "#de8f05",
    "inconclusive": "#949494",
    "contradicted": "#c1272d",
    "not testable at this profile": "#999999",
}

Groups = Sequence[str] | None
Y = str | tuple[str, str, str]


def use_style() -> None:
    """Apply the style of the project to all figures that follow."""
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", rc=STYLE)


def palette(groups: Sequence[str]) -> dict[str, tuple]:
    """One colour per group; models and variants have the same ones in every figure (`COLOURS`).

    Of several models of a family, the first has its colour. Other groups, and the rest of a family,
    have colours that are left.
    """
    names, fixed = sorted(set(groups)), {}
    for start, colour in COLOURS.items():
        members = [name for name in names if name.startswith(start) and name not in fixed]
        if members:
            fixed[members[0]] = to_rgb(colour)
    rest = [name for name in names if name not in fixed]
    free = [one for one in sns.color_palette("colorblind", 10) if one not in fixed.values()]
    if len(rest) > len(free):
        free = sns.color_palette("husl", len(rest))
    return {**fixed, **dict(zip(rest, free, strict=False))}


def markers(groups: Sequence[str]) -> dict[str, str]:
    """One marker per group, so that figures can be read without colour."""
    return {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(sorted(set(groups)))}


def linearity_lines(
    frame: pd.DataFrame, score: str, ax: Axes, band: str | None = None, hollow: str | None = None
) -> Axes:
    """A score against normalised depth, one line per model (Figure 1), and the null value.

    The linearity frame has one protocol and one token group. The columns `<band>_low` and
    `<band>_high` are drawn as a shaded interval; where the column `hollow` is true, markers are.
    """
    y = score if band is None else (f"{band}_low", score, f"{band}_high")
    _lines(frame, "depth", y, "model", ax)
    if hollow is not None:
        shapes, colours = markers(frame["model"]), palette(frame["model"])
        open_marks = {
            "ls": "",
            "mfc": "white",
            "mew": 1.1,
            "ms": _marker_size(frame, "depth", "model"),
        }
        for model, rows in frame[frame[hollow].astype(bool)].groupby("model"):
            options = {"marker": shapes[model], "color": colours[model], "zorder": 3}
            ax.plot(rows["depth"], rows[score], **open_marks | options)
        ax.plot([], [], marker="o", color=NULL_COLOUR, label=HOLLOW_LABEL, **open_marks)
    null = frame.groupby("depth")["null_score"].max()
    ax.plot(null.index, null, ":", color=NULL_COLOUR, label=NULL_LABEL)
    ax.set(xlabel="Normalized depth (layer / L)", ylabel="Share of variance explained")
    ax.set(xlim=(0, 1.03))
    return _with_0_and_1(ax)


def thin_lines(frame: pd.DataFrame, score: str, ax: Axes, label: str) -> Axes:
    """A baseline score against depth: thin lines without markers in the colours of the models."""
    _draw(sns.lineplot, frame, "depth", score, "model", ax, lw=0.8, alpha=0.8, legend=False)
    ax.plot([], [], color="black", lw=0.8, label=label)
    return ax


def magnified_lines(frame: pd.DataFrame, score: str, ax: Axes) -> Axes:
    """A score against depth on the axis of `magnify_near_1`, one line per model (Figure 1).

    Scores of exactly 1 have no place on it.
    """
    groups = sorted(frame["model"].unique())
    _lines(frame[frame[score] < 1], "depth", score, "model", ax, groups)
    ax.set(xlabel="Normalized depth (layer / L)", xlim=(0, 1.03))
    return magnify_near_1(ax)


def magnify_near_1(ax: Axes) -> Axes:
    """Make the vertical axis that of log(1 - y), for values below 1, with its ticks named by y.

    Upwards is nearer to 1, and 0.99 lies as far from 0.999 as 0.9 from 0.99. To be called when all
    is drawn.
    """

    def forward(y: np.ndarray) -> np.ndarray:
        return -np.log10(np.clip(1 - np.asarray(y, dtype=float), 1e-9, None))

    def inverse(place: np.ndarray) -> np.ndarray:
        return 1 - 10.0 ** -np.asarray(place, dtype=float)

    low, high = forward(ax.dataLim.intervaly)
    beyond = 0.06 * (high - low)
    ax.set_yscale("function", functions=(forward, inverse))
    ax.set_ylim(inverse(low - beyond), inverse(high + beyond))
    fine = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
    ticks = fine if high <= 3 else (0, *(1 - 10.0**-power for power in range(1, 9)))
    ticks = [tick for tick in ticks if low - beyond <= forward(tick) <= high + beyond]
    ax.set_yticks(ticks, [f"{tick:.9g}" for tick in ticks])
    return ax


def quartile_lines(
    frame: pd.DataFrame, ax: Axes, threshold: float | None = None, name: str = ""
) -> Axes:
    """Median over tokens against depth, with quartiles as a band; one line per model (Figure 3).

    Block 1 stands apart: a point with its quartiles as a bar. A `threshold` is a dashed line with
    its `name` beside the panel.
    """
    groups = sorted(frame["model"].unique())
    _lines(frame.query("layer > 1"), "depth", ("q25", "median", "q75"), "model", ax, groups)
    _block_1(frame, "depth", "model", ax, palette(groups))
    ax.set(xlabel="Normalized depth (layer / L)", xlim=(0, 1.03))
    if threshold is not None:
        ax.axhline(threshold, ls="--", lw=1.4, color="black", zorder=3)
        words = {"ha": "left", "va": "center", "fontsize": 10}
        ax.text(1.01, threshold, name, transform=ax.get_yaxis_transform(), **words)
    return ax


def norm_lines(frame: pd.DataFrame, ax: Axes) -> Axes:
    """Norm of one model's block outputs beside that of the resulting stream (Figure 3).

    Block 1 stands apart: points with their quartiles as bars.
    """
    names = {"output_norm": "resulting stream $h_l$", "delta_norm": r"block output $\Delta_l$"}
    rows = frame[frame["quantity"].isin(names)].replace({"quantity": names})
    colours = dict(zip(names.values(), sns.color_palette("colorblind")[:4:3], strict=True))
    y, inside = ("q25", "median", "q75"), rows.query("layer > 1")
    _lines(inside, "layer", y, "quantity", ax, list(colours), palette=colours)
    _block_1(rows, "layer", "quantity", ax, colours)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.set(xlabel="Layer", ylim=(0, None))
    return ax


def _block_1(frame: pd.DataFrame, x: str, by: str, ax: Axes, colours: Mapping[str, tuple]) -> None:
    """Draw the rows of layer 1 as points with their quartiles, in the colours of their groups."""
    bars = {"fmt": "*", "ms": 9, "elinewidth": 1.2, "mew": 0}
    for group, row in frame.query("layer == 1").groupby(by):
        beyond = [row["median"] - row["q25"], row["q75"] - row["median"]]
        ax.errorbar(row[x], row["median"], beyond, color=colours[group], **bars)
    ax.plot([], [], "*", ms=9, mew=0, color=NULL_COLOUR, label=BLOCK_1_LABEL)


def dynamics_lines(frame: pd.DataFrame, score: str, ax: Axes) -> Axes:
    """Share of variance that is not linear, 1 - score, against training step (Figure 2).

    It is the geometric mean over layers, on a logarithmic axis: the mean of log(1 - score), which
    no layer near 1 hides in. The frame has one row per model, seed, step and layer, of one token
    group. Models with several seeds have a band, the 95% interval of that mean over them.
    """
    means = _mean_logs(frame, score)
    rows = over_seeds(means, ["model", "step"], "log")
    rows[["mean", "low", "high"]] = np.exp(rows[["mean", "low", "high"]])
    seeds = {"units": "seed", "estimator": None, "lw": 0.7, "alpha": 0.5, "legend": False}
    several = means[means.groupby("model")["seed"].transform("nunique") > 1]
    groups = sorted(means["model"].unique())
    _draw(sns.lineplot, several, "step", "share", "model", ax, groups, **seeds)
    _lines(rows, "step", ("low", "mean", "high"), "model", ax, groups)
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
    thin = {"linewidth": 1.2, "markersize": 6}
    return _lines(means, x, y, by, ax, groups, sort=False, estimator=None, **thin)


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


def measured_lines(
    frame: pd.DataFrame, value: str, by: str, ax: Axes, x: str, groups: Sequence[str]
) -> Axes:
    """A value with its own interval `low` .. `high` against `x`, a number, one line per group.

    Lines are shifted a little, so that no bar hides another.
    """
    options = {"native_scale": True, "dodge": 0.08 * (len(groups) - 1), "linestyle": "--"}
    return _points(frame, x, ("low", value, "high"), by, ax, groups, linewidth=1.8, **options)


def error_histogram(frame: pd.DataFrame, ax: Axes, heaviest: int | None = None) -> Axes:
    """Share of tokens whose error is at least so large: one survival curve per layer (Figure 9).

    Both axes are logarithmic. Lines have the colours of `depth_bar`. The thin grey line of each
    layer is what Gaussian residuals with that layer's covariance would show. The layer `heaviest`
    is black and thick, and its Gaussian dashed. The frame has one row per layer, `cloud`
    ("measured" or "gaussian") and bin that is not empty, of one model and token group.
    """
    width = (frame["error_high"] - frame["error_low"]).iloc[0]
    bins = (frame["error_low"] / width).round().astype(int).rename("bin")
    counts = frame.pivot_table("count", bins, ["cloud", "layer"])
    shares = counts.reindex(range(bins.max() + 1)).fillna(0)[::-1].cumsum()[::-1]
    shares = (shares / shares.iloc[0])[1:]  # a logarithmic axis has no 0, where all shares are 1
    shares = shares.where(shares > 0)  # nothing is drawn beyond the largest error
    errors = width * shares.index.to_numpy()
    colours, grey = plt.get_cmap(DEPTH_COLOURS), {"color": "0.72", "lw": 0.7, "zorder": 1}
    label = "Gaussian residuals,\nsame covariances"
    for layer, depth in sorted(set(zip(frame["layer"], frame["depth"], strict=True))):
        null, options = {**grey, "label": label}, {"color": colours(depth), "lw": 1.1}
        label = None  # one for all
        if layer == heaviest:
            options = {"color": "black", "lw": 2.6, "zorder": 4, "label": "heaviest tail"}
            ours = {"color": "black", "lw": 1.8, "ls": "--", "zorder": 3}
            ax.plot(errors, shares["gaussian", layer], label="its Gaussian", **ours)
        ax.plot(errors, shares["gaussian", layer], **null)
        ax.plot(errors, shares["measured", layer], **options)
    ax.axhline(0.01, ls=":", lw=1.2, color=NULL_COLOUR, label=WORST_LABEL)
    first = errors[(shares < 0.97).any(axis=1).argmax()]  # to the left, all tokens err more
    ax.set(xscale="log", yscale="log", xlim=(first, None), ylim=(None, 1.3))
    ax.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    return ax


def depth_bar(fig: Figure, axes: Sequence[Axes]) -> None:
    """Say which colour stands for which depth in all panels of `error_histogram`."""
    colours = ScalarMappable(Normalize(0, 1), DEPTH_COLOURS)
    fig.colorbar(colours, ax=list(axes), label="Normalized depth (layer / L)", aspect=35)


def block_bars(frame: pd.DataFrame, x: str, y: str, ax: Axes) -> Axes:
    """A value of each block as a point, and the median over blocks as a bar, one colour per model.

    The frame has one row per `model`, block and `x`, in the order of the frame from left to right.
    """
    models = sorted(frame["model"].unique())
    options = {"x": x, "y": y, "hue": "model", "hue_order": models, "palette": palette(models)}
    options |= {"ax": ax, "legend": False}
    sns.barplot(frame, estimator="median", errorbar=None, saturation=1, alpha=0.4, **options)
    for bars, model in zip(ax.containers, models, strict=True):
        bars.set_label(f"{model}\nbars: medians over blocks\npoints: single blocks")
        for bar in bars:
            place, value = (bar.get_center()[0], 1.01), f"{bar.get_height():.3f}"
            ax.text(*place, value, ha="center", weight="bold", transform=ax.get_xaxis_transform())
    sns.stripplot(frame, dodge=len(models) > 1, jitter=0.3, size=3.5, zorder=1, **options)
    ax.set(xlabel="", ylabel="")
    return ax


def block_lines(frame: pd.DataFrame, x: str, y: str, ax: Axes) -> Axes:
    """A value against a count, one thin line per `layer` and a thick one for the median over them.

    The frame has one row per `model`, layer and count `x`, whose axis is logarithmic, with a 0.
    """
    single = {"units": "layer", "estimator": None, "lw": 0.6, "alpha": 0.35, "legend": False}
    _draw(sns.lineplot, frame, x, y, "model", ax, **single)
    _draw(sns.lineplot, frame, x, y, "model", ax, estimator="median", errorbar=None, lw=3)
    ax.set_xscale("symlog", linthresh=1)
    ticks = [0, *(10**power for power in range(len(str(int(frame[x].max())))))]
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.set(xlim=(-0.2, 1.3 * frame[x].max()))
    return ax


def _with_0_and_1(ax: Axes) -> Axes:
    """Keep 0 and 1, between which most scores lie, in sight beside all that is drawn."""
    ax.update_datalim([(ax.dataLim.x0, 0), (ax.dataLim.x0, 1)])
    ax.autoscale_view(scalex=False)
    return ax


def _interval(values: pd.Series) -> tuple[float, float]:
    return mean_interval(values)[1:]


def _lines(
    frame: pd.DataFrame, x: str, y: Y, by: str, ax: Axes, groups: Groups = None, **options
) -> Axes:
    shapes = markers(frame[by] if groups is None else groups)
    size = _marker_size(frame, x, by)
    looks = {"linestyle": "--" if size > 4 else "-", "markersize": size}
    options = looks | {"errorbar": None, "err_kws": {"alpha": 0.18, "lw": 0}} | options
    options |= {"style": by, "markers": shapes, "dashes": False, "markeredgewidth": 0}
    return _draw(sns.lineplot, frame, x, y, by, ax, groups, **options)


def _marker_size(frame: pd.DataFrame, x: str, by: str) -> float:
    """Markers of a line with many points are small, so that the line stays in sight."""
    return 7 if frame.empty or frame.groupby(by)[x].nunique().max() < MANY else 4


def _points(
    frame: pd.DataFrame, x: str, y: Y, by: str, ax: Axes, groups: Sequence[str], **options
) -> Axes:
    shapes = [markers(groups)[group] for group in groups if group in set(frame[by])]
    options = {"markersize": 6, "markers": shapes} | options
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
    high = 3 if rows > 1 else 4
    size = (1.2 * high * columns + (1.8 if rows * columns == count else 0), high * rows)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **options)
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
