"""Figures over layers and blocks: scores, norms, errors (Figures 1, 3, 9; notebooks 21 and 22)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullLocator,
    StrMethodFormatter,
)

from linlib.plots.style import (
    NULL_COLOUR,
    NULL_LABEL,
    draw,
    lines,
    marker_size,
    markers,
    palette,
    with_0_and_1,
)

HOLLOW_LABEL = "hollow: fewer effective\ntokens than dimensions"
BLOCK_1_LABEL = "block 1, which reads\nthe embedding"
WORST_LABEL = "worst 1% of tokens"
DEPTH_COLOURS = "viridis"


def linearity_lines(
    frame: pd.DataFrame, score: str, ax: Axes, band: str | None = None, hollow: str | None = None
) -> Axes:
    """A score against normalised depth, one line per model (Figure 1), and the null value.

    The linearity frame has one protocol and one token group. The columns `<band>_low` and
    `<band>_high` are drawn as a shaded interval; where the column `hollow` is true, markers are.
    """
    y = score if band is None else (f"{band}_low", score, f"{band}_high")
    lines(frame, "depth", y, "model", ax)
    if hollow is not None:
        shapes, colours = markers(frame["model"]), palette(frame["model"])
        open_marks = {
            "ls": "",
            "mfc": "white",
            "mew": 1.1,
            "ms": marker_size(frame, "depth", "model"),
        }
        for model, rows in frame[frame[hollow].astype(bool)].groupby("model"):
            options = {"marker": shapes[model], "color": colours[model], "zorder": 3}
            ax.plot(rows["depth"], rows[score], **open_marks | options)
        ax.plot([], [], marker="o", color=NULL_COLOUR, label=HOLLOW_LABEL, **open_marks)
    null = frame.groupby("depth")["null_score"].max()
    ax.plot(null.index, null, ":", color=NULL_COLOUR, label=NULL_LABEL)
    ax.set(xlabel="Normalized depth (layer / L)", ylabel="Share of variance explained")
    ax.set(xlim=(0, 1.03))
    return with_0_and_1(ax)


def thin_lines(frame: pd.DataFrame, score: str, ax: Axes, label: str) -> Axes:
    """A baseline score against depth: thin lines without markers in the colours of the models."""
    draw(sns.lineplot, frame, "depth", score, "model", ax, lw=0.8, alpha=0.8, legend=False)
    ax.plot([], [], color="black", lw=0.8, label=label)
    return ax


def magnified_lines(frame: pd.DataFrame, score: str, ax: Axes) -> Axes:
    """A score against depth on the axis of `magnify_near_1`, one line per model (Figure 1).

    Scores of exactly 1 have no place on it.
    """
    groups = sorted(frame["model"].unique())
    lines(frame[frame[score] < 1], "depth", score, "model", ax, groups)
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
    lines(frame.query("layer > 1"), "depth", ("q25", "median", "q75"), "model", ax, groups)
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
    lines(inside, "layer", y, "quantity", ax, list(colours), palette=colours)
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


def survival_curves(frame: pd.DataFrame, ax: Axes, heaviest: int | None = None) -> Axes:
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
    """Say which colour stands for which depth in all panels of `survival_curves`."""
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
    looks = {"ha": "center", "weight": "bold", "transform": ax.get_xaxis_transform()}
    looks |= {"size": "x-small"} if len(models) > 1 else {}  # so that neighbours do not touch
    for bars, model in zip(ax.containers, models, strict=True):
        bars.set_label(f"{model}\nbars: medians over blocks\npoints: single blocks")
        for bar in bars:
            ax.text(bar.get_center()[0], 1.01, f"{bar.get_height():.3f}", **looks)
    sns.stripplot(frame, dodge=len(models) > 1, jitter=0.3, size=3.5, zorder=1, **options)
    ax.set(xlabel="", ylabel="")
    return ax


def block_lines(frame: pd.DataFrame, x: str, y: str, ax: Axes) -> Axes:
    """A value against a count, one thin line per `layer` and a thick one for the median over them.

    The frame has one row per `model`, layer and count `x`, whose axis is logarithmic, with a 0.
    """
    single = {"units": "layer", "estimator": None, "lw": 0.6, "alpha": 0.35, "legend": False}
    draw(sns.lineplot, frame, x, y, "model", ax, **single)
    draw(sns.lineplot, frame, x, y, "model", ax, estimator="median", errorbar=None, lw=3)
    ax.set_xscale("symlog", linthresh=1)
    ticks = [0, *(10**power for power in range(len(str(int(frame[x].max())))))]
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.set(xlim=(-0.2, 1.3 * frame[x].max()))
    return ax
