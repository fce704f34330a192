"""Means over seeds or folds with their intervals: how sure a comparison is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of a few independent values with its 95% Student t interval.

    Returns:
        (mean, low, high); low and high are NaN for a single value, which has no spread.
    """
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, np.nan, np.nan
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values)
    return mean, float(mean - half), float(mean + half)


def binomial_interval(correct: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share of independent answers: (low, high)."""
    interval = stats.binomtest(int(correct), int(n)).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def over_seeds(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Interval of a column over the seeds of every group.

    Args:
        frame: one row a group and seed.
        by: columns that make a group.
        value: the column.

    Returns:
        One row a group: the columns of `by`, `mean`, `low`, `high` and `seeds`, their number.
    """
    rows = [
        (*key, *mean_interval(group[value]), len(group))
        for key, group in frame.groupby(list(by), sort=False)
    ]
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "seeds"])


def paired_differences(
    frame: pd.DataFrame, by: Sequence[str], value: str, control: str = "plain"
) -> pd.DataFrame:
    """What each variant changes against the control of the same seed, with intervals over seeds.

    Args:
        frame: one row a group, `variant` and `seed`.
        by: columns that make a group, `variant` not among them.
        value: the column compared.
        control: the variant that the others are compared with.

    Returns:
        One row a group and other variant: `mean`, `low`, `high` of the difference, `seeds`,
        `overlap` (whether the two variants' own intervals overlap) and `verdict`: "higher" or
        "lower" where the difference's interval excludes 0 and the two do not overlap, else "no
        difference shown".
    """
    by = list(by)
    plain = frame[frame["variant"] == control].set_index([*by, "seed"])[value]
    others = frame[frame["variant"] != control].set_index([*by, "seed", "variant"])[value]
    paired = others.reset_index("variant").join(plain.rename("control"), how="inner").reset_index()
    paired["difference"] = paired[value] - paired["control"]
    result = over_seeds(paired, [*by, "variant"], "difference")
    result = result.assign(overlap=_overlap(paired, by, value))
    signs = {1: "higher", -1: "lower", 0: "no difference shown"}
    clear = (result["low"] > 0).astype(int) - (result["high"] < 0).astype(int)
    return result.assign(verdict=clear.where(~result["overlap"], 0).map(signs))


def _overlap(paired: pd.DataFrame, by: list[str], value: str) -> pd.Series:
    """Whether the intervals of variant and control overlap; a single seed overlaps everything."""
    ours, plain = (over_seeds(paired, [*by, "variant"], name) for name in (value, "control"))
    return ~((ours["low"] > plain["high"]) | (ours["high"] < plain["low"]))
