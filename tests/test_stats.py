"""Intervals against scipy and against simulation, and the verdicts that follow from them."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from linlib.stats import (
    binomial_interval,
    mean_interval,
    over_seeds,
    paired_differences,
    share_difference,
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
    assert row["overlap"] and row["verdict"] == "no difference shown"  # seeds differ by far more
    apart = frame.assign(score=frame["score"] - frame["seed"].map(wide["plain"]))
    (row,) = paired_differences(apart, ["size"], "score").to_dict("records")
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert row["verdict"] == verdict and row["overlap"] == (verdict == "no difference shown")


def test_a_single_seed_shows_no_difference():
    frame = runs(-1, 0.1).query("seed == 0")
    assert paired_differences(frame, ["size"], "score")["verdict"].item() == "no difference shown"


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
