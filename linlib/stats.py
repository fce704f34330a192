"""Means, shares and paired differences with their 95% intervals."""

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
    """Wilson's 95% interval of a share, `correct` of `n` independent answers: (low, high)."""
    interval = stats.binomtest(int(correct), int(n)).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def share_difference(
    share: float, other: float, n: int, n_other: int
) -> tuple[float, float, float]:
    """Difference of two independent shares, of n and of n_other answers, with its 95% interval.

    Returns:
        (difference, low, high), by the normal approximation.
    """
    variance = share * (1 - share) / n + other * (1 - other) / n_other
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt(variance))
    return share - other, share - other - half, share - other + half


def over_seeds(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Mean of a column over the seeds of each group, with its interval.

    Args:
        frame: one row per group and seed.
        by: the columns that define a group.
        value: the column that is averaged.

    Returns:
        One row per group: the columns of `by`, `mean`, `low`, `high`, and `seeds`, their number.
    """
    rows = [
        (*key, *mean_interval(group[value]), len(group))
        for key, group in frame.groupby(list(by), sort=False)
    ]
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "seeds"])


def paired_differences(
    frame: pd.DataFrame, by: Sequence[str], value: str, control: str = "plain"
) -> pd.DataFrame:
    """Difference of each variant from the control of the same seed, with its interval over seeds.

    Args:
        frame: one row per group, `variant` and `seed`.
        by: the columns that define a group, `variant` not among them.
        value: the column that is compared.
        control: the variant with which the others are compared.

    Returns:
        One row per group and other variant: `mean`, `low`, `high` of the difference, `seeds`,
        `overlap` (whether the intervals of the two variants themselves overlap; those of a single
        seed always do) and `verdict`: "higher" or "lower" where the interval of the difference
        excludes 0 and the two do not overlap, else "no difference shown".
    """
    by = list(by)
    controls = frame[frame["variant"] == control].set_index([*by, "seed"])[value]
    others = frame[frame["variant"] != control].set_index([*by, "seed", "variant"])[value]
    paired = others.reset_index("variant").join(controls.rename("control"), how="inner")
    paired = paired.reset_index()
    paired["difference"] = paired[value] - paired["control"]
    result, ours, theirs = (
        over_seeds(paired, [*by, "variant"], column) for column in ("difference", value, "control")
    )
    result["overlap"] = ~((ours["low"] > theirs["high"]) | (ours["high"] < theirs["low"]))
    clear = (result["low"] > 0).astype(int) - (result["high"] < 0).astype(int)
    signs = {1: "higher", -1: "lower", 0: "no difference shown"}
    result["verdict"] = clear.where(~result["overlap"], 0).map(signs)
    return result
