"""Plots: what is drawn is what is in the frame; files are the same bytes every time."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from scipy import stats  # noqa: E402

from linlib import plots  # noqa: E402
from linlib.stats import mean_interval  # noqa: E402


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


def drawn(ax, group, groups, alpha=None):
    """The lines with data in the colour of a group, seeds among them where alpha is 0.5."""
    colour = plots.palette(groups)[group]
    lines = (line for line in ax.get_lines() if len(line.get_xdata()))
    return [line for line in lines if line.get_color() == colour and line.get_alpha() == alpha]


def labels(ax):
    """What the figure's legend would say, in its order."""
    return ax.get_legend_handles_labels()[1]


def test_a_profile_draws_all_models_and_the_null_line(ax):
    plots.linearity_lines(profile_frame(), "score", ax, band="score")
    assert labels(ax) == ["A", "B", "noise would score, d/(n-1)"]
    ((a,), (b,)) = (drawn(ax, group, "AB") for group in "AB")
    np.testing.assert_allclose(a.get_xydata(), [[0.5, 0.25], [1, 0.5]])
    assert (a.get_marker(), b.get_marker()) == tuple(plots.markers("AB").values())
    handles = dict(zip(labels(ax), ax.get_legend_handles_labels()[0], strict=True))
    assert handles["A"].get_color() == a.get_color()
    assert handles["A"].get_marker() == a.get_marker() and a.get_linestyle() == "--"
    first, second = (band.get_paths()[0].vertices[:, 1] for band in ax.collections)
    assert (first.min(), first.max()) == pytest.approx((0.15, 0.6))  # the columns of the frame
    assert "depth" in ax.get_xlabel() and ax.get_legend() is None


def test_a_baseline_is_thin_and_has_one_label_for_all_models(ax):
    plots.thin_lines(profile_frame(), "score", ax, "no change")
    assert labels(ax) == ["no change"]
    for group in "AB":
        (line,) = drawn(ax, group, "AB", alpha=0.8)
        np.testing.assert_allclose(line.get_ydata(), [0.25, 0.5])
        assert line.get_linewidth() < 1


def test_scores_near_1_are_magnified_and_ticks_are_named_by_them(ax):
    frame = profile_frame().assign(score=[0.0, 0.99, 0.9999, 1.0])
    plots.magnified_lines(frame, "score", ax)
    (a,), (b,) = (drawn(ax, group, "AB") for group in "AB")
    np.testing.assert_allclose(a.get_ydata(), [0, 0.99])
    np.testing.assert_allclose(b.get_ydata(), [0.9999])  # a score of 1 has no logarithm
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    ticks = dict(zip(names, ax.get_yticks(), strict=True))
    assert list(ticks) == ["0", "0.9", "0.99", "0.999", "0.9999"]
    heights = [ax.transData.transform((0, ticks[name]))[1] for name in ticks]
    np.testing.assert_allclose(np.diff(heights), np.diff(heights)[0])  # a decade is a decade
    low, high = ax.get_ylim()
    assert low < 0 and 0.9999 < high < 1  # nothing is cut off


def test_dominated_values_are_hollow_in_the_colour_and_shape_of_their_model(ax):
    frame = profile_frame().assign(dominated=[False, True, False, False])
    plots.linearity_lines(frame, "score", ax, hollow="dominated")
    (hollow,) = (line for line in drawn(ax, "A", "AB") if line.get_linestyle() == "None")
    np.testing.assert_allclose(hollow.get_xydata(), [[1, 0.5]])
    assert hollow.get_markerfacecolor() == "white"
    assert hollow.get_marker() == plots.markers("AB")["A"]
    assert len(drawn(ax, "B", "AB")) == 1 and plots.HOLLOW_LABEL in labels(ax)


@pytest.mark.parametrize(("n_layers", "size", "style"), [(6, 7, "--"), (30, 4, "-")])
def test_deep_models_have_small_markers_on_a_solid_line(ax, n_layers, size, style):
    depths = np.arange(1, n_layers + 1) / n_layers
    frame = pd.DataFrame({"model": "A", "depth": depths, "score": depths, "null_score": 0.1})
    plots.linearity_lines(frame, "score", ax)
    (line,) = drawn(ax, "A", "A")
    assert (line.get_markersize(), line.get_linestyle()) == (size, style)


def quartiles():
    rows = [
        {"model": "A", "quantity": quantity, "layer": layer, "depth": layer / 30,
         "q25": centre + layer - 0.5, "median": centre + layer, "q75": centre + layer + 1}
        for quantity, centre in (("output_norm", 10), ("delta_norm", 1), ("ratio", 0))
        for layer in range(1, 31)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_quartiles_are_a_band_about_the_median_and_block_1_stands_apart(ax):
    plots.quartile_lines(quartiles().query("quantity == 'ratio'"), ax)
    line, block_1 = drawn(ax, "A", "A")
    np.testing.assert_allclose(line.get_xdata(), np.arange(2, 31) / 30)
    np.testing.assert_allclose(line.get_ydata(), np.arange(2, 31))
    np.testing.assert_allclose(block_1.get_xydata(), [[1 / 30, 1]])
    band, bar = ax.collections
    edge = band.get_paths()[0].vertices
    assert (edge[:, 1].min(), edge[:, 1].max()) == (1.5, 31)
    np.testing.assert_allclose(bar.get_segments()[0][:, 1], [0.5, 2])
    assert labels(ax) == ["A", plots.BLOCK_1_LABEL] and not ax.texts


def test_a_threshold_is_drawn_and_named(ax):
    plots.quartile_lines(quartiles().query("quantity == 'ratio'"), ax, 0.5, "half of the stream")
    (line,) = (one for one in ax.get_lines() if set(one.get_ydata()) == {0.5})
    assert line.is_dashed() and [text.get_text() for text in ax.texts] == ["half of the stream"]
    assert ax.texts[0].get_position()[1] == 0.5


def test_norms_of_stream_and_block_are_two_lines_with_few_ticks(ax):
    plots.use_style()
    plots.norm_lines(quartiles(), ax)
    names = [label.split(" $")[0] for label in labels(ax)]
    assert names == ["resulting stream", "block output", plots.BLOCK_1_LABEL]
    handles = dict(zip(names, ax.get_legend_handles_labels()[0], strict=True))
    for name, centre in (("resulting stream", 10), ("block output", 1)):
        colour = handles[name].get_color()
        drawn_in_it = [line for line in ax.get_lines() if line.get_color() == colour]
        line, block_1 = (one for one in drawn_in_it if len(one.get_xdata()))
        np.testing.assert_allclose(line.get_ydata(), centre + np.arange(2, 31))
        np.testing.assert_allclose(block_1.get_xydata(), [[1, centre + 1]])
    ticks = ax.get_xticks()
    assert len(ticks) <= 8 and (ticks == ticks.astype(int)).all()


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
    frame = training_frame().rename(columns={"step": "depth"})
    plots.control_lines(frame, "score", "model", ax)
    assert labels(ax) == ["A", "B"]
    first, second = (line for line in ax.get_lines() if len(line.get_xdata()))
    assert first.get_color() == second.get_color() == plots.NULL_COLOUR
    assert first.is_dashed() != second.is_dashed()
    np.testing.assert_allclose(second.get_ydata(), [1.01, 0.91, 0.61])  # of three seeds


def dynamics_frame():
    """1 - score is 10^(-3 .. -1), with a geometric mean over layers of 0.01 (2^step) 1.1^seed."""
    rows = [
        {"model": model, "seed": seed, "step": step, "layer": layer, "warmup_steps": warmup,
         "score": 1 - 0.01 * 2**step * 1.1**seed * 10.0**layer}
        for model, seeds, warmup in (("A", (0,), 1), ("B", (0, 1, 2), 2))
        for seed in seeds
        for step in (0, 1, 4)
        for layer in (-1, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_dynamics_draw_geometric_means_over_layers_and_a_band_over_seeds(ax):
    plots.dynamics_lines(dynamics_frame(), "score", ax)
    assert ax.get_xlim()[0] < 0 and [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1"]
    assert labels(ax) == ["A", "B"] and (ax.get_xscale(), ax.get_yscale()) == ("symlog", "log")
    (a,), (b,) = (drawn(ax, group, "AB") for group in "AB")
    np.testing.assert_allclose(a.get_ydata(), [0.01, 0.02, 0.16])
    np.testing.assert_allclose(b.get_ydata(), [0.011, 0.022, 0.176])  # the mean seed
    seeds = [line.get_ydata()[0] for line in drawn(ax, "B", "AB", alpha=0.5)]
    np.testing.assert_allclose(seeds, [0.01, 0.011, 0.0121])
    several = ax.collections[-1].get_paths()[0].vertices[:, 1]
    factor = 1.1 ** (stats.t.ppf(0.975, 2) / np.sqrt(3))  # of the interval: the seeds' spread is 1
    assert (several.min(), several.max()) == pytest.approx((0.011 / factor, 0.176 * factor))


def test_a_ring_marks_the_first_checkpoint_after_warm_up(ax):
    plots.dynamics_lines(dynamics_frame(), "score", ax)
    plots.warmup_marks(dynamics_frame(), "score", ax)
    rings = [line for line in ax.get_lines() if line.get_markerfacecolor() == "none"]
    rings = [line for line in rings if len(line.get_xdata())]
    assert [line.get_color() for line in rings] == list(plots.palette("AB").values())
    np.testing.assert_allclose(rings[0].get_xydata(), [[1, 0.02]])
    np.testing.assert_allclose(rings[1].get_xydata(), [[4, 0.176]])
    assert labels(ax) == ["A", "B", plots.WARMUP_LABEL] and not ax.patches
    plots.warmup_marks(dynamics_frame().query("model == 'A'"), "score", ax)
    assert ax.patches[0].get_x() + ax.patches[0].get_width() == 1  # one warm-up, which is shaded


def test_panels_share_the_colours_of_all_groups(ax):
    frame = training_frame().rename(columns={"layer": "depth"})
    alone = frame[frame["variant"] == "B"]
    plots.interval_lines(alone, "score", "variant", ax, x="step", groups=["A", "B"])
    assert len(drawn(ax, "B", "AB")) == 1 and len(drawn(ax, "B", "AB", alpha=0.5)) == 3
    assert labels(ax) == ["B"]


def test_a_band_ends_where_its_score_does(ax):
    frame = pd.DataFrame({"seed": [0, 1, 2] * 2, "step": [0, 0, 0, 1, 1, 1], "variant": "A"})
    frame["score"] = [0.80, 0.90, 0.999, 0.5, 0.6, 0.7]
    assert mean_interval(frame["score"][:3])[2] > 1
    plots.interval_lines(frame, "score", "variant", ax, x="step", at_most=1)
    (band,) = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.max() == 1
    assert heights.min() == pytest.approx(mean_interval(frame["score"][3:])[1])


def test_differences_stand_beside_the_line_of_none(ax):
    rows = pd.DataFrame(
        {"variant": "B", "step": [0, 1], "mean": [0.1, -0.2], "low": [0, -0.3], "high": [0.2, -0.1]}
    )
    plots.difference_lines(rows, "variant", ax, groups=["plain", "B"])
    zero = ax.get_lines()[0]
    (line,) = drawn(ax, "B", ["plain", "B"])
    assert set(zero.get_ydata()) == {0} and line.get_ydata().tolist() == [0.1, -0.2]
    edge = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (edge.min(), edge.max()) == (-0.3, 0.2) and labels(ax) == ["B"]


def test_differences_of_one_seed_are_a_line_without_a_band(ax):
    rows = {"variant": "B", "step": [0, 1], "mean": [0.1, -0.2], "low": np.nan, "high": np.nan}
    plots.difference_lines(pd.DataFrame(rows), "variant", ax)
    (line,) = drawn(ax, "B", "B")
    assert line.get_ydata().tolist() == [0.1, -0.2]
    assert not any(
        np.isfinite(path.vertices).all() for c in ax.collections for path in c.get_paths()
    )


def test_no_differences_are_only_the_line_of_none(ax):
    empty = pd.DataFrame(columns=["variant", "step", "mean", "low", "high"])
    plots.difference_lines(empty, "variant", ax, groups=["plain"])
    assert len(ax.get_lines()) == 1 and labels(ax) == []


def test_paths_go_through_the_means_of_every_step(ax):
    plots.path_lines(training_frame(), "loss", "score", "variant", ax)
    (line,) = drawn(ax, "A", "AB")
    np.testing.assert_allclose(line.get_xydata(), [[5, 1], [4.9, 0.9], [4.6, 0.6]])


def test_measured_lines_have_the_intervals_of_the_frame_side_by_side(ax):
    rows = [
        {"method": method, "n": n, "loss": base + n, "low": base + n - 0.25, "high": base + n + 0.5}
        for method, base in (("removed", 1.0), ("replaced", 2.0))
        for n in (1, 3)
    ]
    plots.measured_lines(pd.DataFrame(rows), "loss", "method", ax, "n", ["removed", "replaced"])
    assert labels(ax) == ["removed", "replaced"]
    places = []
    for method, base in (("removed", 1.0), ("replaced", 2.0)):
        line, *bars = drawn(ax, method, ["removed", "replaced"])
        np.testing.assert_allclose(line.get_ydata(), [base + 1, base + 3])
        ends = np.concatenate([bar.get_ydata() for bar in bars])
        ends = ends[np.isfinite(ends)].reshape(-1, 2)  # (bars, ends)
        np.testing.assert_allclose(ends, [[base + 0.75, base + 1.5], [base + 2.75, base + 3.5]])
        places.append(line.get_xdata())
    assert (places[0] < places[1]).all() and np.abs(places - np.array([1, 3])).max() < 0.2


@pytest.mark.parametrize("outside_first", [True, False])
def test_no_value_and_no_interval_is_cut_off_in_panels_that_share_an_axis(outside_first):
    usual = profile_frame()
    outside = usual.assign(score=-0.4, score_low=-5.2, score_high=1.3)
    fig, axes = plt.subplots(1, 2, sharey="row")
    frames = (outside, usual) if outside_first else (usual, outside)
    for ax, frame in zip(axes, frames, strict=True):
        plots.linearity_lines(frame, "score", ax, band="score")
    plots.thin_lines(usual.assign(score=-9), "score", axes[0], "drawn last")
    low, high = axes[0].get_ylim()
    assert low < -9 and high > 1.3
    plt.close(fig)


def test_0_and_1_are_in_sight(ax):
    plots.linearity_lines(profile_frame().assign(score=0.9), "score", ax)
    low, high = ax.get_ylim()
    assert low < 0 and 1 < high < 1.1


def histogram():
    rows = [
        {"layer": 1, "depth": 0.5, "cloud": "measured", "error_low": 0.0, "count": 7},
        {"layer": 1, "depth": 0.5, "cloud": "measured", "error_low": 0.3, "count": 2},
        {"layer": 1, "depth": 0.5, "cloud": "gaussian", "error_low": 0.0, "count": 9},
        {"layer": 2, "depth": 1.0, "cloud": "measured", "error_low": 0.1, "count": 9},
        {"layer": 2, "depth": 1.0, "cloud": "gaussian", "error_low": 0.1, "count": 8},
    ]
    return pd.DataFrame(rows).assign(error_high=lambda frame: frame["error_low"] + 0.1)


def test_survival_curves_are_shares_of_tokens_with_at_least_an_error(ax):
    plots.survival_curves(histogram(), ax, heaviest=1)
    curves = {"measured": [], "gaussian": []}
    for line in ax.get_lines():
        grey = line.get_color() == "0.72"
        curves["gaussian" if grey else "measured"].append(line)
    dashed, first, second, worst = curves["measured"]
    np.testing.assert_allclose(first.get_xdata(), [0.1, 0.2, 0.3])
    np.testing.assert_allclose(first.get_ydata(), [2 / 9, 2 / 9, 2 / 9])
    np.testing.assert_allclose(second.get_ydata(), [1, np.nan, np.nan])
    nulls = [line.get_ydata() for line in curves["gaussian"]]  # one for each layer
    np.testing.assert_allclose(nulls, [[np.nan] * 3, [1, np.nan, np.nan]])
    np.testing.assert_array_equal(dashed.get_ydata(), nulls[0])
    assert dashed.get_linestyle() == "--" and set(worst.get_ydata()) == {0.01}
    assert ax.get_xscale() == ax.get_yscale() == "log" and first.get_color() == "black"
    expected = ["its Gaussian", "Gaussian residuals,\nsame covariances", "heaviest tail"]
    assert labels(ax) == [*expected, plots.WORST_LABEL]


def blocks():
    rows = [
        {"model": model, "layer": layer, "left_out": count, "step": f"{count} less",
         "score": layer / 10 - count / 1000 - (model == "B")}
        for model in "AB" for layer in (1, 2, 4) for count in (0, 10, 100)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_bars_are_medians_over_blocks_with_their_values_and_points_are_blocks(ax):
    plots.block_bars(blocks(), "step", "score", ax)
    heights = [[bar.get_height() for bar in bars] for bars in ax.containers]
    np.testing.assert_allclose(heights, [[0.2, 0.19, 0.1], [-0.8, -0.81, -0.9]])
    values = ["0.200", "0.190", "0.100", "-0.800", "-0.810", "-0.900"]
    assert [text.get_text() for text in ax.texts] == values
    points = np.concatenate([c.get_offsets()[:, 1] for c in ax.collections])
    np.testing.assert_allclose(np.sort(points), np.sort(blocks()["score"]))
    assert [label.split("\n")[0] for label in labels(ax)] == ["A", "B"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0 less", "10 less", "100 less"]


def test_block_lines_are_single_blocks_and_their_median(ax):
    plots.block_lines(blocks(), "left_out", "score", ax)
    (median,) = drawn(ax, "A", "AB")
    np.testing.assert_allclose(median.get_xydata(), [[0, 0.2], [10, 0.19], [100, 0.1]])
    assert len(drawn(ax, "B", "AB", alpha=0.35)) == 3 and labels(ax) == ["A", "B"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1", "10", "100"]


def test_layers_have_the_colours_of_their_depth_in_all_panels():
    fig, axes = plt.subplots(1, 2)
    deep = pd.concat(
        histogram().query("layer == 2").assign(layer=layer, depth=layer / 30)
        for layer in range(1, 31)
    )
    plots.survival_curves(histogram(), axes[0])
    plots.survival_curves(deep, axes[1])
    plots.depth_bar(fig, axes)
    colours = [
        [line.get_color() for line in ax.get_lines() if isinstance(line.get_color(), tuple)]
        for ax in axes
    ]
    assert [len(lines) for lines in colours] == [2, 30]  # no layer is left out
    assert colours[0] == [colours[1][14], colours[1][29]]
    (bar,) = (ax for ax in fig.axes if ax not in axes)
    assert bar.get_ylabel() == "Normalized depth (layer / L)" and bar.get_ylim() == (0, 1)
    plt.close(fig)


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


def test_a_model_has_one_colour_in_all_figures():
    few = plots.palette(["SmolLM2-135M (4-bit)"])
    many = plots.palette(["GPT-2 (tiny)", "Llama (tiny)", "OPT (tiny)", "SmolLM2-135M (4-bit)"])
    assert few.items() <= many.items() and len(set(many.values())) == 4
    assert plots.palette(["Llama (tiny)"])["Llama (tiny)"] == many["Llama (tiny)"]
    sizes = plots.palette(["OPT-125M", "OPT-1.3B", "removed"])
    assert len(set(sizes.values())) == 3


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
    groups = ["task", "control"]
    plots.interval_points(pd.DataFrame(rows), "change", "task", "training", ax, groups)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["boolq", "cb"]
    assert labels(ax) == groups and ax.get_xlabel() == ax.get_ylabel() == ""
    heights = {}
    for group, mean in (("task", 1.1), ("control", 0.1)):
        lines = drawn(ax, group, groups)
        bars, points = ([line for line in lines if len(line.get_xdata()) == n] for n in (2, 1))
        np.testing.assert_allclose([line.get_xdata()[0] for line in points], [mean, mean])
        heights[group] = np.array([line.get_ydata()[0] for line in points])
        half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
        ends = [line.get_xdata() for line in bars]
        np.testing.assert_allclose(ends, [[mean - half, mean + half]] * 2)
        seeds = drawn(ax, group, groups, alpha=0.5)
        found = sorted(x for line in seeds for x in line.get_xdata())
        np.testing.assert_allclose(found, np.repeat([mean - 0.1, mean, mean + 0.1], 2))
        np.testing.assert_allclose(seeds[0].get_ydata(), heights[group][0])  # on the bar
    assert ax.yaxis_inverted() and (heights["task"] < heights["control"]).all()  # first is upper
    assert (np.abs(heights["task"] - [0, 1]) < 0.5).all()


def test_points_keep_their_places_where_a_group_has_fewer_seeds(ax):
    rows = [("cb", "task", seed, 1.0) for seed in range(3)] + [("cb", "control", 0, 0.0)]
    frame = pd.DataFrame(rows, columns=["task", "training", "seed", "change"])
    plots.interval_points(frame, "change", "task", "training", ax, ["task", "control"])
    seeds = drawn(ax, "task", ["task", "control"], alpha=0.5)
    assert len({y for line in seeds for y in line.get_ydata()}) == 1


def test_one_group_stands_on_its_row(ax):
    rows = pd.DataFrame({"task": "cb", "training": "task", "change": [0.5, 0.7]})
    plots.interval_points(rows, "change", "task", "training", ax, ["task"])
    (point,) = [line for line in drawn(ax, "task", ["task"]) if len(line.get_xdata()) == 1]
    np.testing.assert_allclose(point.get_xydata(), [[0.6, 0]])
