"""Histograms of per-token errors (paper, Figure 9)."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

MOST_LAYERS = 6  # drawn in one histogram
GAUSSIAN_LABEL = "Gaussian residuals,\nsame covariance"


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
