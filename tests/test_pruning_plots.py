"""What the figures of pruning draw beside their lines: the null, the marks, the removed blocks."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from matplotlib.colors import to_hex  # noqa: E402

from linlib import plots, pruning  # noqa: E402

LINES = ["removed", "replaced (like the test's)", "replaced (stories)"]
LINES += ["replaced + distilled (stories)"]


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_a_method_has_one_colour_in_all_figures():
    colours = plots.palette(LINES)
    assert len(set(colours.values())) == 4
    for some in (LINES[:1], LINES[1:3], LINES[::3]):
        assert plots.palette(some).items() <= colours.items()
    assert to_hex(colours["removed"]) == plots.COLOURS["removed"]


def test_the_band_of_random_sets_ends_at_the_percentiles(ax):
    values = {1: np.arange(101) / 100, 3: np.arange(101) / 50}
    sets = pd.DataFrame({"n": n, "added": added} for n, each in values.items() for added in each)
    plots.random_band(sets, "n", "added", ax)
    corners = {tuple(one) for one in ax.collections[0].get_paths()[0].vertices.round(6).tolist()}
    assert {(1, 0.05), (1, 0.95), (3, 0.1), (3, 1.9)} <= corners
    np.testing.assert_allclose(ax.get_lines()[0].get_xydata(), [[1, 0.5], [3, 1.0]])


@pytest.mark.parametrize("lowest", [0.3, -0.03, -0.9])
def test_nothing_is_cut_off_an_axis_of_added_loss(ax, lowest):
    ax.plot([1, 2], [lowest, 4])
    plots.added_loss_axis(ax, 0.1)
    low, high = ax.get_ylim()
    assert low < min(lowest, 0) and high > 4
    assert {0, 0.1} <= set(ax.get_yticks()) and (ax.get_yticks() >= low).all()
    marks = {line.get_label(): line.get_ydata()[0] for line in ax.get_lines()[1:]}
    assert marks == {"dense model": 0, "little: 0.1 nats": 0.1}


def test_an_axis_of_accuracy_has_chance_and_the_dense_model(ax):
    plots.accuracy_axis(0.6, 0.5, 0.7, 0.25, ax)
    ax.plot([1, 2], [0.55, 0.58])
    assert ax.get_ylim() == (0, 1)
    marks = {line.get_label(): line.get_ydata()[0] for line in ax.get_lines()[:2]}
    assert marks == {"dense model": 0.6, "chance": 0.25}


def test_removed_blocks_stand_beneath_their_number(ax):
    plots.block_ticks([1, 6], ["7", "1 2 13 14 15 16"], ax)
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == ["1\n7", "6\n1 2 13 14 15\n16"]


def test_intervals_become_columns():
    found = pruning.interval_columns({"phi": (1, 0, 2), "work": (3, 2, 5)})
    assert found == {"phi": 1, "phi_low": 0, "phi_high": 2} | {
        "work": 3, "work_low": 2, "work_high": 5
    }  # fmt: skip
