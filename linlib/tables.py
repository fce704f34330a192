"""Tables for reading: means with their spread, written as CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from linlib.store.frames import write_atomically


def mean_and_sd(values: Sequence[float], digits: int = 3) -> str:
    """Mean and standard deviation over seeds, e.g. "+0.012 ± 0.004"; empty without a value."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return ""
    mean = f"{values.mean():+.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):.{digits}f}"


def spread_table(
    frame: pd.DataFrame, rows: Sequence[str], columns: str, value: str, digits: int = 3
) -> pd.DataFrame:
    """Mean and standard deviation of a value in every cell, in the order of the frame.

    Args:
        frame: one row an observation.
        rows: columns that make a row of the table.
        columns: the column whose values become the table's columns.
        value: the column summarised.
        digits: behind the point.
    """
    cells = frame.groupby([*rows, columns], sort=False)[value]
    table = cells.apply(mean_and_sd, digits=digits).unstack(columns)
    order = list(dict.fromkeys(frame[columns]))
    wanted = frame.set_index(list(rows)).index.drop_duplicates()
    return table.reindex(wanted)[order].fillna("")


def save_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write `<path>.csv`, `<path>.md` and `<path>.tex`; row labels become columns."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = table.reset_index()
    latex = flat.map(_for_latex).rename(columns=_for_latex)
    texts = {
        "csv": flat.to_csv(index=False, lineterminator="\n"),
        "md": flat.to_markdown(index=False, disable_numparse=True) + "\n",
        "tex": latex.to_latex(index=False),
    }
    for ending, text in texts.items():
        write_atomically(path.with_name(f"{path.name}.{ending}"), text)


def _for_latex(cell: object) -> str:
    return str(cell).replace("%", r"\%").replace("_", r"\_").replace("±", r"$\pm$")
