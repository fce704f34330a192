"""Intervals against scipy and against simulation, and the verdicts that follow from them."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from linlib.stats import (
    binomial_interval,
    clustered_mean,
    mcnemar,
    mean_interval,
    over_seeds,
    paired_differences,
    pooled_mean,
    rank_correlation,
    ratio,
    score_interval,
    seed_differences,
    share_difference,
    smallest_effect,
)


def test_the_interval_is_that_of_the_t_test():
    values = np.random.default_rng(0).normal(3, 1, 5)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((values.mean(), interval.low, interval.high))


def test_the_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(1).normal(0, 2, (2000, 3))
    covered = [low <= 0 <= high for _, low, high in map(mean_interval, draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_the_binomial_interval_covers_as_often_as_it_says(share):
    drawn = np.random.default_rng(2).binomial(160, share, 3000)
    covered = [low <= share <= high for low, high in (binomial_interval(k, 160) for k in drawn)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def test_the_binomial_interval_stays_within_shares():
    assert binomial_interval(0, 10)[0] == 0 and binomial_interval(10, 10)[1] == 1
    low, high = binomial_interval(80, 160)
    assert low == pytest.approx(1 - high) and low == pytest.approx(0.423, abs=0.001)


def test_one_value_has_no_interval():
    mean, low, high = mean_interval([2.0])
    assert mean == 2 and np.isnan(low) and np.isnan(high)


def runs(effect, noise):
    generator = np.random.default_rng(2)
    rows = []
    for seed in range(4):
        base = generator.normal(0, 5)  # a seed's own level, which pairing takes out
        rows.append({"size": "s", "variant": "plain", "seed": seed, "score": base})
        value = base + effect + generator.normal(0, noise)
        rows.append({"size": "s", "variant": "cosine", "seed": seed, "score": value})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("effect", "noise", "verdict"),
    [(-1, 0.1, "lower"), (1, 0.1, "higher"), (0.1, 2.0, "no difference shown")],
)
def test_differences_are_paired_by_seed(effect, noise, verdict):
    frame = runs(effect, noise)
    (row,) = paired_differences(frame, ["size"], "score").to_dict("records")
    wide = frame.pivot(index="seed", columns="variant", values="score")
    interval = stats.ttest_rel(wide["cosine"], wide["plain"]).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert row["seeds"] == 4 and row["variant"] == "cosine"
    assert row["clear"] == verdict  # though seeds differ by far more than variants
    assert row["smallest"] == pytest.approx(smallest_effect(interval.low, interval.high))


def test_differences_of_single_seeds():
    frame = runs(-1, 0.1)
    wide = frame.pivot(index="seed", columns="variant", values="score")
    rows = seed_differences(frame, ["size"], "score").set_index("seed")
    np.testing.assert_allclose(rows["difference"], wide["cosine"] - wide["plain"])
    assert set(rows["variant"]) == {"cosine"}


def test_a_pooled_mean_has_the_scatter_inside_its_cells_alone():
    cells = [np.array([1.0, 1.2, 0.8, 1.1]), np.array([9.0, 9.3, 8.6])]  # far apart
    errors = [cell.var(ddof=1) / len(cell) for cell in cells]
    freedom = sum(errors) ** 2 / (errors[0] ** 2 / 3 + errors[1] ** 2 / 2)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(errors)) / 2
    mean = (cells[0].mean() + cells[1].mean()) / 2
    assert pooled_mean(cells) == pytest.approx((mean, mean - half, mean + half))
    assert pooled_mean(cells[:1]) == pytest.approx(mean_interval(cells[0]))


def test_a_pooled_mean_of_a_single_value_has_no_interval():
    assert pooled_mean([[1.0, 2.0], [3.0]]) == pytest.approx((2.25, np.nan, np.nan), nan_ok=True)
    assert pooled_mean([[1.0, 1.0]]) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="a mean over cells needs cells"):
        pooled_mean([])


def test_a_single_seed_shows_no_difference():
    frame = runs(-1, 0.1).query("seed == 0")
    assert paired_differences(frame, ["size"], "score")["clear"].item() == "no difference shown"


def test_groups_keep_their_names_and_seeds():
    frame = runs(0, 1)
    table = over_seeds(frame, ["size", "variant"], "score")
    assert list(table.columns) == ["size", "variant", "mean", "low", "high", "seeds"]
    assert table["seeds"].tolist() == [4, 4]


def test_a_difference_of_shares_by_hand():
    difference, low, high = share_difference(0.6, 0.5, 100, 400)
    half = 1.959964 * np.sqrt(0.6 * 0.4 / 100 + 0.5 * 0.5 / 400)
    assert (difference, low, high) == pytest.approx((0.1, 0.1 - half, 0.1 + half), abs=1e-6)


def test_the_interval_holds_the_true_difference_in_95_of_100_cases():
    generator = np.random.default_rng(0)
    ours, theirs = generator.binomial([[300], [500]], [[0.7], [0.65]], (2, 4000)) / [[300], [500]]
    bounds = [
        share_difference(one, other, 300, 500) for one, other in zip(ours, theirs, strict=True)
    ]
    held = np.mean([low <= 0.05 <= high for _, low, high in bounds])
    assert held == pytest.approx(0.95, abs=0.015)


# Scores over folds


def test_the_score_is_pooled_and_its_interval_a_jackknife_of_logs():
    errors, totals = np.array([1.0, 2.0, 4.0, 3.0]), np.array([10.0, 12.0, 9.0, 9.0])
    score, low, high = score_interval(errors, totals)
    assert score == pytest.approx(1 - 10 / 40)
    left = [np.log((10 - e) / (40 - t)) for e, t in zip(errors, totals, strict=True)]
    half = stats.t.ppf(0.975, 3) * np.sqrt(3 / 4 * np.sum((left - np.mean(left)) ** 2))
    logs = np.log(10 / 40) + np.array([half, -half])
    assert (low, high) == pytest.approx(tuple(1 - np.exp(logs)))


def test_equal_folds_leave_no_doubt():
    assert score_interval([2, 2, 2], [8, 8, 8]) == pytest.approx((0.75, 0.75, 0.75))
    assert score_interval([1, 2, 3], [4, 8, 12]) == pytest.approx((0.75, 0.75, 0.75))


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e3])
def test_intervals_of_scores_stay_below_one_and_forget_the_unit(scale):
    errors, totals = np.array([1.0, 9.0, 2.0, 5.0]), np.array([1e3, 2e3, 1e3, 1e3])
    score, low, high = score_interval(scale * errors, totals)
    assert low < score < high < 1
    again = score_interval(7 * scale * errors, 7 * totals)
    assert again == pytest.approx((score, low, high), rel=1e-9)


def test_scores_at_the_ends_of_the_range():
    assert score_interval([0, 0, 0], [1, 2, 3]) == (1, 1, 1)
    assert score_interval([-1e-20, 0, 0], [1, 2, 3]) == (1, 1, 1)  # rounding
    score, low, high = score_interval([0, 6, 0], [10, 10, 10])
    assert (score, low, high) == (0.8, -np.inf, 1)
    score, low, high = score_interval([20, 30, 40], [10, 10, 10])  # worse than the mean
    assert low < score < high and score == -2


def test_one_fold_has_a_score_and_no_interval():
    score, low, high = score_interval([1], [4])
    assert score == 0.75 and np.isnan(low) and np.isnan(high)


def test_the_interval_of_a_score_holds_the_true_one_about_as_often_as_it_says():
    drawn = np.random.default_rng(4).chisquare(50, (2000, 2, 4))
    held = [low <= 0.9 <= high for _, low, high in (score_interval(e / 10, t) for e, t in drawn)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)


def test_folds_that_cannot_be_scored_are_named():
    with pytest.raises(ValueError, match=r"errors \(3,\) and totals \(2,\) must be two lists"):
        score_interval([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="totals sum to 0; a score needs states that vary"):
        score_interval([1, 2], [0, 0])


# Means over clusters


def test_clusters_of_one_are_a_plain_mean():
    values = np.random.default_rng(5).normal(3, 1, 7)
    assert clustered_mean(values, np.ones(7)) == pytest.approx(mean_interval(values))
    assert clustered_mean(4 * values, np.full(7, 4)) == pytest.approx(mean_interval(values))


def test_the_mean_over_clusters_by_hand():
    mean, low, high = clustered_mean([2, 9, 4], [1, 3, 2])
    rest = np.array([2 - 2.5, 9 - 7.5, 4 - 5])
    half = stats.t.ppf(0.975, 2) * np.sqrt(3 / 2 * (rest**2).sum()) / 6
    assert (mean, low, high) == pytest.approx((2.5, 2.5 - half, 2.5 + half))


def test_clusters_with_the_same_mean_leave_no_doubt():
    assert clustered_mean([2, 6, 10], [1, 3, 5]) == pytest.approx((2, 2, 2))


def test_a_constant_for_each_member_moves_mean_and_interval():
    generator = np.random.default_rng(6)
    sizes = generator.integers(1, 50, 12)
    sums = generator.normal(0, 1, 12) * sizes
    moved = np.subtract(clustered_mean(sums + 5 * sizes, sizes), clustered_mean(sums, sizes))
    assert moved == pytest.approx([5, 5, 5])


def test_members_of_one_cluster_do_not_count_as_independent():
    """Copies of the members of all clusters change nothing."""
    sums, sizes = np.array([2.0, 9.0, 4.0]), np.array([1, 3, 2])
    assert clustered_mean(100 * sums, 100 * sizes) == pytest.approx(clustered_mean(sums, sizes))


def test_clusters_that_have_no_mean_are_named():
    mean, low, high = clustered_mean([6], [3])
    assert mean == 2 and np.isnan(low) and np.isnan(high)
    with pytest.raises(ValueError, match="clusters have no members"):
        clustered_mean([], [])
    with pytest.raises(ValueError, match=r"sums \(1,\) and sizes \(2,\) must be two lists"):
        clustered_mean([1], [1, 2])


# Rank correlations


@pytest.mark.parametrize("y", [[1, 3, 2, 5, 4, 6], [6, 1, 1, 2, 5, 5], [6, 5, 4, 3, 2, 1]])
def test_the_p_value_of_few_items_is_the_exact_one(y):
    x = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
    rho, low, high, p = rank_correlation(x, y)
    assert rho == pytest.approx(stats.spearmanr(x, y).statistic)
    others = [stats.spearmanr(x, other).statistic for other in permutations(y)]
    assert p == pytest.approx(np.mean(np.abs(others) >= abs(rho) - 1e-9))
    assert -1 <= low <= rho <= high <= 1 and high - low > 0.1


def test_the_p_value_of_many_items_is_close_to_that_of_the_t_approximation():
    generator = np.random.default_rng(7)
    x = generator.normal(size=30)
    y = x + generator.normal(0, 2, 30)
    rho, low, high, p = rank_correlation(x, y, seed=3)
    expected = stats.spearmanr(x, y)
    assert rho == pytest.approx(expected.statistic) and low < rho < high
    assert p == pytest.approx(expected.pvalue, abs=0.01)
    assert rank_correlation(x, y, seed=3) == (rho, low, high, p)


def test_only_ranks_count_and_a_sign_turns_the_interval():
    x, y = np.random.default_rng(8).normal(size=(2, 20))
    rho, low, high, p = rank_correlation(x, y)
    assert rank_correlation(np.exp(x), 5 * y + 2) == pytest.approx((rho, low, high, p))
    assert rank_correlation(x, -y) == pytest.approx((-rho, -high, -low, p))
    assert rank_correlation(y, x)[:3] == pytest.approx((rho, low, high))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_perfect_correlation_has_an_interval_within_the_range(sign):
    for n in (4, 6, 30):
        rho, low, high, p = rank_correlation(range(n), sign * np.arange(n))
        near, far = (high, low) if sign == 1 else (low, high)
        assert rho == near == sign and -1 <= sign * far < 1
        assert p <= 0.1


def test_items_without_a_correlation():
    assert np.isnan(rank_correlation([1, 1, 1, 1], [1, 2, 3, 4])).all()
    rho, low, high, p = rank_correlation([1, 2, 3], [1, 3, 2])
    assert rho == pytest.approx(0.5) and p == 1 and np.isnan(low) and np.isnan(high)
    with pytest.raises(ValueError, match="2 items have no rank correlation"):
        rank_correlation([1, 2], [1, 2])
    with pytest.raises(ValueError, match=r"x \(3,\) and y \(4,\) must be two lists"):
        rank_correlation([1, 2, 3], [1, 2, 3, 4])


# Paired answers


def test_mcnemar_is_a_binomial_test_of_the_items_that_differ():
    a = [1] * 40 + [1] * 12 + [0] * 5 + [0] * 43
    b = [1] * 40 + [0] * 12 + [1] * 5 + [0] * 43
    difference, low, high, p = mcnemar(a, b)
    assert difference == pytest.approx(0.07) and p == stats.binomtest(12, 17).pvalue
    centre, n = 7 / 102, 102
    half = 1.959964 * np.sqrt((19 / n - centre**2) / n)
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert mcnemar(b, a) == pytest.approx((-difference, -high, -low, p))


def test_the_order_of_items_and_their_type_do_not_matter():
    a, b = np.random.default_rng(9).integers(0, 2, (2, 30))
    order = np.random.default_rng(10).permutation(30)
    assert mcnemar(a.astype(bool), b.astype(bool)) == mcnemar(a[order], b[order])


@pytest.mark.parametrize("n", [1, 2, 10, 200])
def test_intervals_of_paired_answers_stay_within_the_range(n):
    for a, b in ((1, 0), (0, 1), (1, 1), (0, 0)):
        difference, low, high, p = mcnemar([a] * n, [b] * n)
        assert difference == a - b and -1 <= low <= difference <= high <= 1
        assert low < high and (p == 1 or a != b)


def test_the_interval_of_paired_answers_covers_as_often_as_it_says():
    cells = np.random.default_rng(11).multinomial(100, [0.5, 0.15, 0.05, 0.3], 2000)
    held = []
    for both, only_a, only_b, neither in cells:
        a = np.repeat([1, 1, 0, 0], [both, only_a, only_b, neither])
        b = np.repeat([1, 0, 1, 0], [both, only_a, only_b, neither])
        _, low, high, _ = mcnemar(a, b)
        held.append(low <= 0.1 <= high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_answers_that_cannot_be_paired_are_named():
    with pytest.raises(ValueError, match=r"a \(2,\) and b \(3,\) must be two lists"):
        mcnemar([1, 0], [1, 0, 1])
    with pytest.raises(ValueError, match=r"right \(1\) or wrong \(0\); found other values"):
        mcnemar([0.5, 1], [1, 1])
    with pytest.raises(ValueError, match="no items to compare"):
        mcnemar([], [])


# Power


def test_the_smallest_effect_is_seen_in_80_of_100_cases():
    effect = smallest_effect(-1.959964, 1.959964)
    assert effect == pytest.approx(2.8016, abs=1e-4)  # standard errors
    seen = stats.norm.sf(1.959964 - effect) + stats.norm.cdf(-1.959964 - effect)
    assert seen == pytest.approx(0.8, abs=1e-4)
    assert smallest_effect(4, 6) == pytest.approx(smallest_effect(-1, 1))
    assert np.isnan(smallest_effect(np.nan, np.nan))


# ---------------------------------------------------------------- ratios


def test_the_ends_of_a_ratio_are_what_the_t_test_just_does_not_reject():
    rng = np.random.default_rng(3)
    below = rng.normal(2, 1, 30)
    above = 0.6 * below + rng.normal(0, 0.5, 30)
    value, low, high = ratio(above, below)
    assert value == pytest.approx(above.sum() / below.sum()) and low < value < high
    for end in (low, high):
        assert stats.ttest_1samp(above - end * below, 0).pvalue == pytest.approx(0.05, abs=1e-6)


def test_a_ratio_over_nothing_clear_is_not_given():
    rng = np.random.default_rng(4)
    above = rng.normal(1, 1, 20)
    noise = rng.normal(0, 1, 20)
    for below in (noise - noise.mean() + 0.1, -np.abs(noise), np.zeros(20)):
        assert np.isnan(ratio(above, below)).all()
    assert np.isnan(ratio([1.0], [2.0])).all()


def test_a_ratio_without_noise_is_known_exactly():
    below = np.array([1.0, 2.0, 4.0, 3.0])
    assert ratio(0.5 * below, below) == pytest.approx((0.5, 0.5, 0.5))
