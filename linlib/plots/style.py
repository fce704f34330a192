"""One palette and one style for all figures, and what their functions share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogLocator,
    NullLocator,
    StrMethodFormatter,
)

from linlib.stats import mean_interval

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
Groups = Sequence[str] | None
Y = str | tuple[str, str, str]


def use_style() -> None:
    """Apply the style of the project to all figures and tables that follow."""
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", rc=STYLE)
    pd.options.display.max_colwidth = None  # a verdict is never cut off


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


def with_0_and_1(ax: Axes) -> Axes:
    """Keep 0 and 1, between which most scores lie, in sight beside all that is drawn."""
    ax.update_datalim([(ax.dataLim.x0, 0), (ax.dataLim.x0, 1)])
    ax.autoscale_view(scalex=False)
    return ax


def interval_of(values: pd.Series) -> tuple[float, float]:
    """The 95% interval of a mean, as seaborn's `errorbar`."""
    return mean_interval(values)[1:]


def lines(
    frame: pd.DataFrame, x: str, y: Y, by: str, ax: Axes, groups: Groups = None, **options
) -> Axes:
    """Lines with markers, one per group; see `draw`."""
    shapes = markers(frame[by] if groups is None else groups)
    size = marker_size(frame, x, by)
    looks = {"linestyle": "--" if size > 4 else "-", "markersize": size}
    options = looks | {"errorbar": None, "err_kws": {"alpha": 0.18, "lw": 0}} | options
    options |= {"style": by, "markers": shapes, "dashes": False, "markeredgewidth": 0}
    return draw(sns.lineplot, frame, x, y, by, ax, groups, **options)


def marker_size(frame: pd.DataFrame, x: str, by: str) -> float:
    """Markers of a line with many points are small, so that the line stays in sight."""
    return 7 if frame.empty or frame.groupby(by)[x].nunique().max() < MANY else 4


def points(
    frame: pd.DataFrame, x: str, y: Y, by: str, ax: Axes, groups: Sequence[str], **options
) -> Axes:
    """Points with their intervals, one colour per group; see `draw`."""
    shapes = [markers(groups)[group] for group in groups if group in set(frame[by])]
    options = {"markersize": 6, "markers": shapes} | options
    return draw(sns.pointplot, frame, x, y, by, ax, groups, **options)


def draw(
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
