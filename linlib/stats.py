"""Means, shares, scores and correlations with their 95% intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
POWER = 0.8  # of the smallest effect that a design is said to detect
NO_DIFFERENCE = "no difference shown"


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


def pooled_mean(cells: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Mean of the means of some cells, with its 95% interval from the scatter inside the cells.

    Cells, such as models or sizes, are taken as they are: the interval is about other seeds of the
    same cells, and not about other cells. It has the degrees of freedom of Welch and Satterthwaite.

    Args:
        cells: the independent values of each cell, such as one per seed.

    Returns:
        (mean, low, high); low and high are NaN where a cell has a single value.

    Raises:
        ValueError: there is no cell, or one without a value.
    """
    cells = [np.asarray(values, dtype=float) for values in cells]
    if not cells or min(map(len, cells)) == 0:
        raise ValueError("a mean over cells needs cells, and a value in each of them")
    mean = float(np.mean([values.mean() for values in cells]))
    if min(map(len, cells)) < 2:
        return mean, np.nan, np.nan
    variances = np.array([values.var(ddof=1) / len(values) for values in cells])
    if not variances.any():
        return mean, mean, mean
    freedom = variances.sum() ** 2 / sum(
        variance**2 / (len(values) - 1) for variance, values in zip(variances, cells, strict=True)
    )
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(variances.sum()) / len(cells)
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


def score_interval(errors: Sequence[float], totals: Sequence[float]) -> tuple[float, float, float]:
    """Pooled score over folds, 1 - sum(errors) / sum(totals), with its 95% interval.

    The interval is a delete-one-fold jackknife of log(1 - score) with Student's t, transformed
    back, so that it never passes 1.

    Args:
        errors: the squared error that was held out in each fold, (n_folds,).
        totals: the squared deviation from the mean in each fold, (n_folds,).

    Returns:
        (score, low, high). Low and high are NaN for fewer than two folds. Where one fold holds all
        of the error, the others say nothing about its size, and low is -inf.

    Raises:
        ValueError: the two differ in length, or the totals do not sum to more than 0.
    """
    errors, totals = _paired(errors, totals, "errors", "totals")
    if not totals.sum() > 0:
        raise ValueError(f"the totals sum to {totals.sum():g}; a score needs states that vary")
    n_folds, share = len(errors), errors.sum() / totals.sum()
    if n_folds < 2 or np.isnan(share):
        return float(1 - share), np.nan, np.nan
    rest = totals.sum() - totals
    shares = np.divide(errors.sum() - errors, rest, out=np.full(n_folds, share), where=rest > 0)
    if not share > 0:
        return float(1 - share), float(1 - share), float(1 - share)
    # A difference of sums leaves a rest of rounding where one fold holds all of the error.
    if (shares <= 1e-14 * share).any():
        return float(1 - share), -np.inf, 1.0
    logs = np.log(shares)
    spread = np.sqrt((n_folds - 1) / n_folds * ((logs - logs.mean()) ** 2).sum())
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n_folds - 1) * spread
    return float(1 - share), float(1 - share * np.exp(half)), float(1 - share * np.exp(-half))


def clustered_mean(sums: Sequence[float], sizes: Sequence[float]) -> tuple[float, float, float]:
    """Mean over all members of clusters, with its 95% interval over clusters.

    It is the ratio sum(sums) / sum(sizes), linearised: members of one cluster, such as the tokens
    of a document, may depend on each other in any way.

    Args:
        sums: the sum over the members of each cluster, (n_clusters,).
        sizes: their number, (n_clusters,).

    Returns:
        (mean, low, high), by Student's t; low and high are NaN for a single cluster.

    Raises:
        ValueError: the two differ in length, or there is no member.
    """
    sums, sizes = _paired(sums, sizes, "sums", "sizes")
    if not sizes.sum() > 0:
        raise ValueError("the clusters have no members, so there is no mean")
    n_clusters, mean = len(sums), sums.sum() / sizes.sum()
    if n_clusters < 2:
        return float(mean), np.nan, np.nan
    residuals = sums - mean * sizes
    error = np.sqrt(n_clusters / (n_clusters - 1) * (residuals**2).sum()) / sizes.sum()
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n_clusters - 1) * error
    return float(mean), float(mean - half), float(mean + half)


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, float, float]:
    """Ratio of two sums over clusters, with Fieller's 95% interval over clusters.

    Args:
        numerators: one sum per cluster, (n_clusters,), of any sign.
        denominators: another, (n_clusters,).

    Returns:
        (ratio, low, high); all three are NaN where the sum of the denominators is not clearly above
        0, by Student's t, since the interval is then not bounded.

    Raises:
        ValueError: the two differ in length.
    """
    above, below = _paired(numerators, denominators, "numerators", "denominators")
    n_clusters = len(above)
    if n_clusters < 2:
        return np.nan, np.nan, np.nan
    covariance = n_clusters * np.cov(above, below)  # of the two sums
    spread = stats.t.ppf((1 + CONFIDENCE) / 2, n_clusters - 1) ** 2 * covariance
    # The ratio r is not rejected where (sum of above - r below)^2 is within t^2 of its variance.
    first, last = above.sum(), below.sum()
    a, b, c = last**2 - spread[1, 1], first * last - spread[0, 1], first**2 - spread[0, 0]
    if last <= 0 or a <= 0:
        return np.nan, np.nan, np.nan
    root = np.sqrt(max(b**2 - a * c, 0.0))
    return float(first / last), float((b - root) / a), float((b + root) / a)


def rank_correlation(
    x: Sequence[float], y: Sequence[float], seed: int = 0
) -> tuple[float, float, float, float]:
    """Spearman's rank correlation, with its 95% interval and the p value of no correlation.

    Args:
        x: values of n items.
        y: other values of the same items.
        seed: of the permutations.

    Returns:
        (rho, low, high, p). The interval is Fisher's z with Bonett and Wright's variance, which
        stays in [-1, 1]; a perfect correlation counts as half a step of rho less there, so that its
        interval has a width. p is two-sided, over all permutations for at most 7 items and over
        9,999 drawn ones for more. Low and high are NaN for 3 items, all four where x or y is
        constant.

    Raises:
        ValueError: the two differ in length, or there are fewer than 3 items.
    """
    x, y = _paired(x, y, "x", "y")
    if (n := len(x)) < 3:
        raise ValueError(f"{n} items have no rank correlation to speak of; give at least 3")
    x, y = (ranks - ranks.mean() for ranks in (stats.rankdata(x), stats.rankdata(y)))
    if not (x.any() and y.any()):
        return np.nan, np.nan, np.nan, np.nan
    rho = float(np.clip((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()), -1, 1))
    p = stats.permutation_test(
        (x,), lambda x, axis: np.abs((x * y).sum(axis)), permutation_type="pairings",
        alternative="greater", vectorized=True, n_resamples=9999, rng=seed,
    ).pvalue  # fmt: skip
    if n == 3:
        return rho, np.nan, np.nan, float(p)
    inside = np.clip(rho, -1 + 6 / (n**3 - n), 1 - 6 / (n**3 - n))
    half = stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt((1 + inside**2 / 2) / (n - 3))
    low, high = np.tanh(np.arctanh(inside) + np.array([-half, half]))
    return rho, float(min(low, rho)), float(max(high, rho)), float(p)


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> tuple[float, float, float, float]:
    """Difference of the shares of right answers to the same items: those of a minus those of b.

    Args:
        a: 1 for a right answer, 0 for a wrong one, (n_items,).
        b: the same for another model, item by item.

    Returns:
        (difference, low, high, p): the 95% interval of Bonett and Price, which adds one item to
        each kind of disagreement and ends at -1 and 1; McNemar's exact p value, two-sided.

    Raises:
        ValueError: the two differ in length or hold other values, or there are no items.
    """
    a, b = _paired(a, b, "a", "b")
    if len(a) == 0:
        raise ValueError("there are no items to compare answers to")
    if not np.isin([a, b], [0, 1]).all():
        raise ValueError("answers are right (1) or wrong (0); found other values")
    n, only_a, only_b = len(a), int((a > b).sum()), int((a < b).sum())
    p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    adjusted = (only_a - only_b) / (n + 2)
    variance = ((only_a + only_b + 2) / (n + 2) - adjusted**2) / (n + 2)
    half = stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt(variance)
    low, high = max(adjusted - half, -1.0), min(adjusted + half, 1.0)
    return (only_a - only_b) / n, float(low), float(high), float(p)


def smallest_effect(low: float, high: float) -> float:
    """The smallest effect that a design detects with 80% power: 1.43 half-widths of its interval.

    These are 2.8 standard errors where the interval is normal. Of few seeds, whose intervals are
    Student's, it is a little more than is needed.

    Args:
        low: lower end of the 95% interval of the (paired) difference.
        high: its upper end.

    Returns:
        A size without a sign, in the units of the interval; NaN where it has no ends.
    """
    two_sided = stats.norm.ppf((1 + CONFIDENCE) / 2)
    return float((high - low) / 2 * (1 + stats.norm.ppf(POWER) / two_sided))


def _paired(
    one: Sequence[float], other: Sequence[float], name: str, other_name: str
) -> tuple[np.ndarray, np.ndarray]:
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(
            f"{name} {one.shape} and {other_name} {other.shape} must be two lists of one length"
        )
    return one, other


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


def seed_differences(
    frame: pd.DataFrame, by: Sequence[str], value: str, control: str = "plain"
) -> pd.DataFrame:
    """Difference of each variant from the control of the same group and seed.

    Arguments are those of `paired_differences`.

    Returns:
        One row per group, seed and other variant: the columns of `by`, `seed`, `variant`, `value`,
        and `difference`.
    """
    key = [*by, "seed"]
    controls = frame[frame["variant"] == control].set_index(key)[value]
    others = frame[frame["variant"] != control].set_index([*key, "variant"])[value]
    paired = others.reset_index("variant").join(controls.rename("control"), how="inner")
    paired["difference"] = paired[value] - paired.pop("control")
    return paired.reset_index()


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
        One row per group and other variant: `mean`, `low`, `high` of the difference, `seeds`, their
        number, `smallest`, the smallest difference that so many seeds detect with 80% power, and
        `clear`: "higher" or "lower" where the interval excludes 0, else "no difference shown".
    """
    paired = seed_differences(frame, by, value, control)
    result = over_seeds(paired, [*by, "variant"], "difference")
    result["smallest"] = (result["high"] - result["low"]).map(
        lambda width: smallest_effect(0, width)
    )
    signs = {1: "higher", -1: "lower", 0: NO_DIFFERENCE}
    sign = (result["low"] > 0).astype(int) - (result["high"] < 0).astype(int)
    return result.assign(clear=sign.map(signs))


def median_interval(
    values: Sequence[float], clusters: Sequence[int], seed: int = 0, n_resamples: int = 1000
) -> tuple[float, float]:
    """95% interval of the median of values that come in clusters, by resampling whole clusters.

    Members of one cluster, such as the tokens of a document, may depend on each other in any way.
    The interval lies between the 2.5% and 97.5% quantiles of the medians of `n_resamples` samples
    of as many clusters, drawn with replacement.

    Args:
        values: (n,); NaN is left out.
        clusters: the cluster of each value, any integers, (n,).
        seed: of the resampling.
        n_resamples: samples of clusters.

    Returns:
        (low, high); both are NaN for fewer than two clusters.

    Raises:
        ValueError: the two differ in length.
    """
    values, clusters = _paired(values, clusters, "values", "clusters")
    values, clusters = values[~np.isnan(values)], clusters[~np.isnan(values)]
    names, clusters = np.unique(clusters, return_inverse=True)
    n, n_clusters = len(values), len(names)
    if n_clusters < 2:
        return np.nan, np.nan
    order = np.argsort(values, kind="stable")
    values, clusters = values[order], clusters[order]
    # How often each cluster is drawn in each sample, (n_resamples, n_clusters).
    drawn = np.random.default_rng(seed).integers(n_clusters, size=(n_resamples, n_clusters))
    drawn += n_clusters * np.arange(n_resamples)[:, None]
    times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(float)
    # Twice over, first in runs of adjacent values: where does a sample reach half of its members?
    width = int(np.ceil(np.sqrt(n)))
    n_runs = -(-n // width)
    sizes = np.bincount(clusters * n_runs + np.arange(n) // width, minlength=n_clusters * n_runs)
    reached = times @ sizes.reshape(n_clusters, n_runs).astype(float).cumsum(1)
    half = reached[:, -1:] / 2
    run = (reached < half).sum(1)
    before = np.where(run > 0, reached[np.arange(n_resamples), run - 1], 0)
    places = run[:, None] * width + np.arange(width)  # (n_resamples, width), of the run's values
    weights = np.where(places < n, times[np.arange(n_resamples)[:, None], clusters[places % n]], 0)
    inside = (before[:, None] + weights.cumsum(1) < half).sum(1)
    medians = values[np.minimum(run * width + inside, n - 1)]
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
