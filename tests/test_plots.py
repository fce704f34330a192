"""Plots: what is drawn is what is in the frame; files are the same bytes every time."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from scipy import stats  # noqa: E402

from linlib import plots  # noqa: E402


def profile_frame():
    rows = [
        {"model": model, "depth": depth, "score": depth / 2, "null_score": 0.1,
         "score_low": depth / 2 - 0.1, "score_high": depth / 2 + 0.1}
        for model in ("A", "B")
        for depth in (0.5, 1.0)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_a_profile_draws_every_model_and_the_null_line(ax):
    plots.linearity_lines(profile_frame(), "score", ax, band="score")
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert set(lines) == {"A", "B", "noise would score, d/(n-1)"}
    np.testing.assert_allclose(lines["A"].get_ydata(), [0.25, 0.5])
    assert lines["A"].get_color() != lines["B"].get_color()
    assert lines["A"].get_marker() != lines["B"].get_marker()
    assert len(ax.collections) == 2  # the bands
    assert "depth" in ax.get_xlabel()


def training_frame():
    rows = [
        {"model": model, "variant": model, "seed": seed, "step": step, "layer": layer,
         "score": 1 - step / 10 + seed / 100 + layer / 10, "loss": 5 - step / 10,
         "null_score": 0.05}
        for model, seeds in (("A", (0,)), ("B", (0, 1, 2)))
        for seed in seeds
        for step in (0, 1, 4)
        for layer in (-1, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_controls_are_grey_lines_of_means(ax):
    frame = training_frame().assign(control=lambda rows: rows["model"].str.lower())
    plots.control_lines(frame, "score", "control", ax, x="step")
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert set(lines) == {"a", "b"}
    assert {line.get_color() for line in lines.values()} == {plots.NULL_COLOUR}
    assert lines["a"].get_linestyle() != lines["b"].get_linestyle()
    np.testing.assert_allclose(lines["b"].get_ydata(), [1.01, 0.91, 0.61])  # of three seeds


def test_dynamics_draw_means_over_layers_and_a_band_over_seeds(ax):
    plots.dynamics_lines(training_frame(), "score", ax)
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert ax.get_xlim()[0] < 0 and [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1"]
    np.testing.assert_allclose(lines["A"].get_ydata(), [1, 0.9, 0.6])
    np.testing.assert_allclose(lines["B"].get_ydata(), [1.01, 0.91, 0.61])
    assert "noise would score, d/(n-1)" in lines and ax.get_xscale() == "symlog"
    _, several = ax.collections
    half = stats.t.ppf(0.975, 2) * stats.sem([0.0, 0.01, 0.02])
    assert several.get_paths()[0].vertices[:, 1].max() == 1  # no score exceeds it
    lowest = several.get_paths()[0].vertices[:, 1].min()
    assert lowest == pytest.approx(0.61 - half)


def test_panels_share_the_colours_of_all_groups(ax):
    frame = training_frame().rename(columns={"layer": "depth"})
    alone = frame[frame["variant"] == "B"]
    plots.interval_lines(alone, "score", "variant", ax, x="step", groups=["A", "B"])
    (line,) = [line for line in ax.get_lines() if line.get_label() == "B"]
    assert line.get_color() == plots.palette(["A", "B"])["B"]


def test_differences_stand_beside_the_line_of_none(ax):
    rows = pd.DataFrame(
        {"variant": "B", "step": [0, 1], "mean": [0.1, -0.2], "low": [0, -0.3], "high": [0.2, -0.1]}
    )
    plots.difference_lines(rows, "variant", ax)
    zero, line = ax.get_lines()
    assert set(zero.get_ydata()) == {0} and line.get_ydata().tolist() == [0.1, -0.2]


def test_paths_go_through_the_means_of_every_step(ax):
    plots.path_lines(training_frame(), "loss", "score", "variant", ax)
    (line,) = [line for line in ax.get_lines() if line.get_label() == "A"]
    np.testing.assert_allclose(line.get_xydata(), [[5, 1], [4.9, 0.9], [4.6, 0.6]])


def test_a_score_below_zero_stays_in_sight_in_panels_that_share_an_axis():
    fig, (first, second) = plt.subplots(1, 2, sharey=True)
    below = profile_frame().assign(score=-0.4, score_low=-0.6, score_high=-0.2)
    plots.linearity_lines(below, "score", first, band="score")
    plots.linearity_lines(profile_frame(), "score", second)
    assert first.get_ylim()[0] <= -0.6
    plt.close(fig)


def test_a_histogram_keeps_counts_and_fills_empty_bins(ax):
    frame = pd.DataFrame(
        {
            "layer": 1,
            "cloud": ["measured", "measured", "gaussian"],
            "error_low": [0.0, 0.3, 0.0],
            "error_high": [0.1, 0.4, 0.1],
            "count": [7, 2, 9],
        }
    )
    plots.error_histogram(frame, ax)
    steps = {patch.get_label(): patch.get_data() for patch in ax.patches}
    np.testing.assert_array_equal(steps["layer 1"].values, [7, 0, 0, 2])
    np.testing.assert_allclose(steps["layer 1"].edges, [0, 0.1, 0.2, 0.3, 0.4])
    assert ax.get_yscale() == "log"


def test_a_deep_model_shows_few_layers(ax):
    frame = pd.DataFrame(
        [
            {"layer": layer, "cloud": cloud, "error_low": 0.0, "error_high": 0.1, "count": 5}
            for layer in range(1, 49)
            for cloud in ("measured", "gaussian")
        ]
    )
    plots.error_histogram(frame, ax)
    assert 4 <= len(ax.patches) - 1 <= plots.MOST_LAYERS


def test_files_are_the_same_bytes_every_time(tmp_path):
    for name in ("first", "second"):
        fig, ax = plt.subplots()
        plots.linearity_lines(profile_frame(), "score", ax)
        plots.legend(fig, ax)
        plots.save(fig, tmp_path / name)
        plt.close(fig)
    for ending in ("png", "pdf"):
        first, second = (tmp_path / f"{name}.{ending}" for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    assert len(list(tmp_path.iterdir())) == 4


def test_a_spare_panel_takes_the_legend():
    fig, axes = plots.panels(5)
    plots.linearity_lines(profile_frame(), "score", axes[0])
    plots.legend(fig, axes[0])
    assert len(axes) == 5 and fig.axes[5].get_legend() is not None and not fig.legends
    plt.close(fig)


def test_colours_stay_apart_for_many_models():
    colours = plots.palette([f"model {i}" for i in range(24)])
    assert len(set(colours.values())) == 24


def test_points_show_means_intervals_and_seeds(ax):
    rows = [
        {"task": task, "training": training, "seed": seed, "change": change + seed / 10}
        for training, change in (("task", 1.0), ("control", 0.0))
        for task in ("boolq", "cb")
        for seed in range(3)
    ]
    plots.interval_points(pd.DataFrame(rows), "change", "task", "training", ax, ["task", "control"])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["boolq", "cb"]
    points = {c.get_label(): c for c in ax.containers}
    assert set(points) == {"task", "control"}
    np.testing.assert_allclose(points["task"][0].get_xdata().astype(float), [1.1, 1.1])
    heights = {name: c[0].get_ydata() for name, c in points.items()}
    assert (heights["task"] < heights["control"]).all()  # the first group is the upper one
    half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    segment = points["task"][2][0].get_segments()[0]
    np.testing.assert_allclose(segment[:, 0], [1.1 - half, 1.1 + half])
    assert sum(len(c.get_offsets()) for c in ax.collections if len(c.get_offsets()) == 6) == 12
