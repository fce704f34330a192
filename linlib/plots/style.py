"""One palette and one style sheet, one way to lay out and save every figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

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
        partial.replace(path.with_suffix(ending))


def show(fig: Figure) -> Figure:
    """Close the figure, so that a notebook shows it once: as the value of its cell."""
    plt.close(fig)
    return fig
