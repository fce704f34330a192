"""Tables for readers: means with their spread, written as CSV, Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from linlib import store

BOLD = re.compile(r"\*\*(.*)\*\*")


def mean_and_sd(values: Sequence[float], digits: int = 3, sign: str = "+") -> str:
    """Mean and standard deviation over seeds, such as "+0.012 ± 0.004"; "" where there is no value.

    Args:
        values: one value per seed; NaN is left out.
        digits: number of decimals.
        sign: "+" writes the sign of positive means too, "" does not.
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return ""
    mean = f"{values.mean():{sign}.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):.{digits}f}"


def spread_table(
    frame: pd.DataFrame,
    rows: Sequence[str],
    columns: str,
    value: str,
    digits: int = 3,
    sign: str = "+",
) -> pd.DataFrame:
    """Mean and standard deviation of a value in each cell, in the order of the frame.

    Args:
        frame: one row per observation.
        rows: the columns whose values become the rows of the table.
        columns: the column whose values become the columns of the table.
        value: the column that is summarised.
        digits: as in `mean_and_sd`.
        sign: as in `mean_and_sd`.
    """
    cells = frame.groupby([*rows, columns], sort=False)[value]
    table = cells.apply(mean_and_sd, digits=digits, sign=sign).unstack(columns)
    order = list(dict.fromkeys(frame[columns]))
    wanted = frame.set_index(list(rows)).index.drop_duplicates()
    return table.reindex(wanted)[order].fillna("")


def best_of_column(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text, with the highest number of each column in **bold** (Markdown).

    The number of a cell is the first one in it, such as the mean in "56.0 ± 1.2". Cells that equal
    the best are bold too.
    """
    texts = table.map(lambda cell: "" if cell is None else str(cell))
    numbers = texts.map(lambda text: float(text.split()[0]) if text else np.nan)
    return texts.where(numbers != numbers.max(), "**" + texts + "**")


def save_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write `<path>.csv`, `<path>.md` and `<path>.tex`; row labels become columns."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = table.reset_index()
    latex = flat.map(_for_latex).rename(columns=_for_latex)
    texts = {
        "csv": flat.map(_plain).to_csv(index=False, lineterminator="\n"),
        "md": flat.to_markdown(index=False, disable_numparse=True) + "\n",
        "tex": latex.to_latex(index=False),
    }
    for ending, text in texts.items():
        store.write_atomically(path.with_name(f"{path.name}.{ending}"), text)


def _plain(cell: object) -> object:
    return BOLD.sub(r"\1", cell) if isinstance(cell, str) else cell


def _for_latex(cell: object) -> str:
    text = BOLD.sub(r"\\textbf{\1}", str(cell))
    for character, latex in {"%": r"\%", "_": r"\_", "±": r"$\pm$"}.items():
        text = text.replace(character, latex)
    return text
