"""Tidy frame and axes in, axes out; one palette and one style sheet for every figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
}
MARKERS = "osD^vPX*<>"
NULL_COLOUR = "0.45"
MOST_LAYERS = 6  # drawn in one histogram
GAUSSIAN_LABEL = "Gaussian residuals,\nsame covariance"


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


def error_histogram(frame: pd.DataFrame, ax: Axes) -> Axes:
    """Counts of tokens by error, log scale, one step line a layer (Figure 9).

    Of a deep model, about six layers spread over its depth are drawn.
    The grey area is what Gaussian residuals of the same covariance would show, at its highest
    over the layers: a line that leaves it has a long tail.
    """
    layers = sorted(frame["layer"].unique())
    layers = layers[:: -(-len(layers) // MOST_LAYERS)]
    frame = frame[frame["layer"].isin(layers)]
    colours = dict(zip(layers, sns.color_palette("viridis", len(layers)), strict=True))
    gaussian = frame[frame["cloud"] == "gaussian"].groupby("error_low", as_index=False)
    null = _with_empty_bins(gaussian[["error_high", "count"]].max())
    ax.stairs(null["count"], _edges(null), fill=True, color="0.85", label=GAUSSIAN_LABEL)
    for layer, rows in frame[frame["cloud"] == "measured"].groupby("layer"):
        full = _with_empty_bins(rows)
        ax.stairs(full["count"], _edges(full), color=colours[layer], lw=1.6, label=f"layer {layer}")
    ax.set(yscale="log", ylim=(0.7, None), xlim=(0, None))
    return ax


def _edges(histogram: pd.DataFrame) -> list[float]:
    return [*histogram["error_low"], histogram["error_high"].iloc[-1]]


def _with_empty_bins(rows: pd.DataFrame) -> pd.DataFrame:
    """Histogram rows with the empty bins put back between the first and the last."""
    width = rows["error_high"].iloc[0] - rows["error_low"].iloc[0]
    index = (rows["error_low"] / width).round().astype(int)
    counts = pd.Series(rows["count"].to_numpy(), index=index)
    counts = counts.reindex(range(counts.index.max() + 1), fill_value=0)
    low = counts.index.to_numpy() * width
    return pd.DataFrame({"error_low": low, "error_high": low + width, "count": counts.to_numpy()})


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
        partial.replace(path.with_suffix(ending))


def show(fig: Figure) -> Figure:
    """Close the figure, so that a notebook shows it once: as the value of its cell."""
    plt.close(fig)
    return fig
