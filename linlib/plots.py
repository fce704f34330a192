"""Tidy frame and axes in, axes out; one palette and one style sheet for every figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "0.88",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "svg.hashsalt": "linlib",
}
MARKERS = "osD^vPX*<>"
NULL_COLOUR = "0.45"


def use_style() -> None:
    """Apply the style sheet to every figure that follows."""
    sns.set_theme(context="notebook", style="ticks", rc=STYLE)


def palette(models: Sequence[str]) -> dict[str, tuple]:
    """One colour a model, the same in every figure of a profile."""
    names = sorted(set(models))
    few = len(names) <= 10
    return dict(
        zip(names, sns.color_palette("colorblind" if few else "husl", len(names)), strict=True)
    )


def markers(models: Sequence[str]) -> dict[str, str]:
    """One marker a model, so that figures can be read without colour."""
    return {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(sorted(set(models)))}


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
            low, high = rows[f"{band}_low"].clip(-0.05), rows[f"{band}_high"].clip(upper=1)
            ax.fill_between(rows["depth"], low, high, color=colours[model], alpha=0.18, lw=0)
    null = frame.groupby("depth")["null_score"].max()
    ax.plot(null.index, null, ":", color=NULL_COLOUR, label="noise would score, d/(n-1)")
    ax.set(xlabel="Normalized depth (layer / L)", ylabel="Share of variance explained")
    ax.set(xlim=(0, 1.03), ylim=(-0.02, 1.04))
    return ax


def thin_lines(frame: pd.DataFrame, score: str, ax: Axes) -> Axes:
    """A baseline score against depth, thin and without markers, in each model's colour."""
    colours = palette(frame["model"])
    for model, rows in frame.groupby("model"):
        ax.plot(rows["depth"], rows[score], color=colours[model], lw=0.8, alpha=0.8)
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


def error_histogram(frame: pd.DataFrame, ax: Axes) -> Axes:
    """Counts of tokens by error, log scale, one step line a layer, the Gaussian null dashed."""
    layers = sorted(frame["layer"].unique())
    colours = dict(zip(layers, sns.color_palette("viridis", len(layers)), strict=True))
    for (layer, cloud), rows in frame.groupby(["layer", "cloud"]):
        full = _with_empty_bins(rows)
        measured = cloud == "measured"
        ax.stairs(
            full["count"],
            [*full["error_low"], full["error_high"].iloc[-1]],
            color=colours[layer] if measured else NULL_COLOUR,
            linestyle="-" if measured else ":",
            linewidth=1.8 if measured else 1.0,
            label=f"layer {layer}" if measured else None,
            baseline=None,
        )
    ax.set(yscale="log", ylim=(0.7, None), xlim=(0, None))
    ax.set(xlabel="Error of a token / rms error of its layer", ylabel="Tokens")
    return ax


def _with_empty_bins(rows: pd.DataFrame) -> pd.DataFrame:
    """Histogram rows with the empty bins put back between the first and the last."""
    width = rows["error_high"].iloc[0] - rows["error_low"].iloc[0]
    index = (rows["error_low"] / width).round().astype(int)
    counts = pd.Series(rows["count"].to_numpy(), index=index)
    counts = counts.reindex(range(counts.index.max() + 1), fill_value=0)
    low = counts.index.to_numpy() * width
    return pd.DataFrame({"error_low": low, "error_high": low + width, "count": counts.to_numpy()})


def panels(count: int, columns: int = 3, sharex: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of small panels, `columns` to a row; places that are left over stay empty."""
    columns = min(columns, count)
    rows = -(-count // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(3.5 * columns + 1.6, 2.9 * rows), sharex=sharex, squeeze=False
    )
    flat = list(axes.flat)
    for ax in flat[count:]:
        ax.set_axis_off()
    return fig, flat[:count]


def gaussian_key() -> dict[str, Line2D]:
    """Legend entry of the Gaussian null in `error_histogram`."""
    return {"Gaussian of the same covariance": Line2D([], [], color=NULL_COLOUR, ls=":", lw=1)}


def label_outer(axes: np.ndarray) -> None:
    """Keep axis labels on the left and lower edge of a grid of panels."""
    for ax in axes.flat:
        ax.label_outer()


def legend_right(fig: Figure, ax: Axes, extra: Mapping[str, Line2D] | None = None) -> None:
    """One legend for the whole figure, to the right of all panels."""
    handles, labels = ax.get_legend_handles_labels()
    handles += list((extra or {}).values())
    labels += list(extra or {})
    fig.legend(handles, labels, loc="outside right center")


def save(fig: Figure, path: str | Path) -> None:
    """Write `<path>.png` and `<path>.pdf`, the same bytes every time."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for ending, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        partial = path.with_name(f".{path.name}{ending}")
        fig.savefig(partial, format=ending[1:], metadata=metadata)
        partial.replace(path.with_suffix(ending))


def show(fig: Figure) -> Figure:
    """Close the figure, so that a notebook shows it once: as the value of its cell."""
    plt.close(fig)
    return fig
