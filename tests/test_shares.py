"""Differences of shares, against simulated answers."""

import numpy as np
import pytest

from linlib.shares import share_difference


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
