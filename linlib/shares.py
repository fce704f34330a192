"""Shares of right answers compared, where only the shares and their sizes are known."""

from __future__ import annotations

import numpy as np
from scipy import stats

from linlib.intervals import CONFIDENCE


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
