"""The columns of committed results, as a contract between measurements, claims and figures.

Claims and figures are given the columns of this contract and no others: whoever renames a column,
or reads one that is not listed, breaks a test and not a figure.
"""

import inspect
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import pytest  # noqa: E402

from linlib import plots, store  # noqa: E402
from linlib.claims import CLAIMS  # noqa: E402
from linlib.stats import paired_differences  # noqa: E402
from linlib.store import load_frame  # noqa: E402

PROFILE = "laptop"
COMMITTED = Path(__file__).parents[1] / "data" / "results" / PROFILE

RUN = "size variant seed"
PRUNED = "model method n_removed removed"
CURVE = f"{PRUNED} text perplexity low high loss added added_low added_high"
# The columns that claims and notebooks read of each frame; a frame may have more.
COLUMNS = {
    "fig1_linearity_profiles": "model protocol layer depth tokens linearity_score "
    "linearity_no_residual identity_score scaled_identity_score orthogonal_score null_score "
    "adjusted_score heldout_score heldout_score_low heldout_score_high heldout_no_residual "
    "heldout_no_residual_low heldout_no_residual_high n_eff dominated dominated_no_residual",
    "fig1_real_decoders": "model layer depth tokens linearity_score linearity_no_residual "
    "null_score dominated dominated_no_residual",
    "fig2_pretraining_dynamics": "model seed step layer tokens linearity_score "
    "linearity_no_residual identity_score null_score heldout_score heldout_no_residual "
    "warmup_steps",
    "fig3_norms": "model layer depth tokens quantity q25 median q75 low high",
    "fig4_regularised_linearity": f"{RUN} diverged layer depth tokens linearity_no_residual "
    "null_score",
    "fig4_regularised_linearity_comparison": f"pair {RUN} diverged at linearity_no_residual "
    "validation_loss",
    "fig4_regularised_linearity_sweep": "size variant learning_rate initializer_range seed "
    "validation_loss chosen",
    "fig4_regularised_linearity_training": f"{RUN} diverged step tokens linearity_no_residual "
    "validation_loss",
    "fig5_probing": f"{RUN} diverged layer depth pair_accuracy pair_low pair_high control",
    "fig6_pruning_first": CURVE,
    "fig6_pruning_first_documents": "document model method n_removed text loss n_tokens",
    "fig6_pruning_first_random": "model n_removed drawn removed added",
    "fig7_pruning_second": CURVE,
    "fig7_pruning_second_distillation": "step heldout_loss n_removed",
    "fig7_pruning_second_documents": "document model method n_removed text loss n_tokens",
    "fig7_pruning_second_random": "model n_removed drawn removed added",
    "fig8_pruning_accuracy": f"{PRUNED} text task accuracy low high n chance difference "
    "difference_low difference_high p",
    "fig8_pruning_accuracy_answers": "model method text n_removed item correct",
    "fig9_error_tails": "model layer depth tokens cloud error_low error_high count",
    "fig9_error_tails_statistics": "model layer tokens maximum excess_kurtosis worst_share "
    "gaussian_excess_kurtosis gaussian_worst_share log_excess log_excess_error",
    "fig9_error_tails_tokens": "model layer tokens error token before position",
    "functional_linearity": "model block tokens phi phi_low phi_high work work_low work_high left "
    "heldout_score heldout_no_residual dominated",
    "functional_linearity_documents": "model block document n_tokens all removed dense",
    "only_decoders": "model kind trained direction seed layer depth tokens null_score "
    "heldout_score heldout_score_low heldout_score_high",
    "pruning_shootout": "model order n_removed removed method added added_low added_high",
    "pruning_shootout_costs": "model block order cost",
    "pruning_shootout_documents": "model method removed document loss n_tokens",
    "pruning_shootout_subsets": "model n_removed drawn removed added added_low added_high",
    "tab1_finetuning": "model task training seed text accuracy chance n_validation "
    "delta_linearity_no_residual",
    "tab1_finetuning_layers": "model task training seed text layer depth tokens "
    "delta_linearity_no_residual",
    "tab2_superglue": f"{RUN} diverged column metric value stderr n chance constant",
    "tab2_superglue_mean": f"{RUN} diverged columns value",
    "tab3_tinystories": f"{RUN} diverged story grammar creativity consistency plot mean",
    "tab3_tinystories_examples": f"{RUN} beginning completion",
    "what_makes_099": "model layer tokens linearity_score linearity_no_residual n_eff "
    "identity_score heldout_score heldout_no_residual n_massive",
    "what_makes_099_left_out": "model layer left_out linearity_score n_eff d_model",
    "what_makes_099_tokens": "model window position token before layers",
}
METHODS = ["removed", "replaced", "replaced + distilled"]


@pytest.fixture(autouse=True)
def committed_results(monkeypatch):
    monkeypatch.delenv("LINLIB_ROOT", raising=False)


def contracted(name, profile_name=PROFILE):
    """A committed frame with the columns of the contract alone."""
    return load_frame(name, profile_name)[COLUMNS[name].split()]


def differences(frame):
    frame = frame.query("tokens == 'all'")
    return paired_differences(frame, ["size", "step"], "linearity_no_residual")


def of_one_model(frame):
    return frame[frame["model"] == frame["model"].iloc[0]].query("tokens == 'no massive'")


# The frame, the function of plots and what a notebook hands to it.
DRAWINGS = [
    ("fig1_linearity_profiles", "linearity_lines", lambda frame, ax: plots.linearity_lines(
        frame.query("protocol == 'stream' and tokens == 'all'"), "linearity_score", ax)),
    ("fig1_linearity_profiles", "linearity_lines", lambda frame, ax: plots.linearity_lines(
        frame.query("protocol == 'stream' and tokens == 'all'"), "heldout_no_residual", ax,
        band="heldout_no_residual")),
    ("fig1_linearity_profiles", "thin_lines", lambda frame, ax: plots.thin_lines(
        frame.query("protocol == 'stream' and tokens == 'all'"), "identity_score", ax, "identity")),
    ("fig2_pretraining_dynamics", "dynamics_lines", lambda frame, ax: plots.dynamics_lines(
        frame.query("tokens == 'all'"), "heldout_score", ax)),
    ("fig2_pretraining_dynamics", "warmup_marks", lambda frame, ax: plots.warmup_marks(
        frame.query("tokens == 'all'"), "heldout_score", ax)),
    ("fig1_linearity_profiles", "magnified_lines", lambda frame, ax: plots.magnified_lines(
        frame.query("protocol == 'stream' and tokens == 'all'"), "linearity_score", ax)),
    ("fig3_norms", "norm_lines", lambda frame, ax: plots.norm_lines(of_one_model(frame), ax)),
    ("fig3_norms", "quartile_lines", lambda frame, ax: plots.quartile_lines(
        frame.query("quantity == 'cosine' and tokens == 'all'"), ax)),
    ("fig4_regularised_linearity", "interval_lines", lambda frame, ax: plots.interval_lines(
        frame.query("tokens == 'all'"), "linearity_no_residual", "variant", ax)),
    ("fig4_regularised_linearity_training", "difference_lines",
     lambda frame, ax: plots.difference_lines(differences(frame), "variant", ax)),
    ("fig4_regularised_linearity_training", "path_lines", lambda frame, ax: plots.path_lines(
        frame, "validation_loss", "linearity_no_residual", "variant", ax)),
    ("fig5_probing", "interval_lines", lambda frame, ax: plots.interval_lines(
        frame.query("control == 'trained'"), "pair_accuracy", "variant", ax)),
    ("fig5_probing", "control_lines", lambda frame, ax: plots.control_lines(
        frame.query("control != 'trained'"), "pair_accuracy", "control", ax)),
    ("fig6_pruning_first", "measured_lines", lambda frame, ax: plots.measured_lines(
        frame.query("n_removed > 0"), "added", "method", ax, "n_removed", METHODS)),
    ("fig6_pruning_first_random", "random_band", lambda frame, ax: plots.random_band(
        frame.query("drawn == 'random'"), "n_removed", "added", ax)),
    ("fig7_pruning_second", "measured_lines", lambda frame, ax: plots.measured_lines(
        frame.query("n_removed > 0"), "perplexity", "method", ax, "n_removed", METHODS)),
    ("fig8_pruning_accuracy", "measured_lines", lambda frame, ax: plots.measured_lines(
        frame.query("n_removed > 0"), "accuracy", "method", ax, "n_removed", METHODS)),
    ("fig9_error_tails", "survival_curves",
     lambda frame, ax: plots.survival_curves(of_one_model(frame), ax)),
    ("what_makes_099", "block_bars", lambda frame, ax: plots.block_bars(
        frame, "tokens", "linearity_score", ax)),
    ("what_makes_099_left_out", "block_lines", lambda frame, ax: plots.block_lines(
        frame, "left_out", "n_eff", ax)),
    ("tab1_finetuning", "interval_points", lambda frame, ax: plots.interval_points(
        frame, "delta_linearity_no_residual", "task", "training", ax,
        ["task", "shuffled labels", "language modelling"])),
    ("tab1_finetuning_layers", "interval_lines", lambda frame, ax: plots.interval_lines(
        frame.query("tokens == 'all'"), "delta_linearity_no_residual", "training", ax)),
    ("tab2_superglue", "interval_points", lambda frame, ax: plots.interval_points(
        frame, "value", "column", "variant", ax, list(frame["variant"].unique()))),
    ("tab3_tinystories", "interval_points", lambda frame, ax: plots.interval_points(
        frame.dropna(), "mean", "size", "variant", ax, list(frame["variant"].dropna().unique()))),
]  # fmt: skip


def test_each_committed_result_is_in_the_contract():
    assert {path.stem for path in COMMITTED.glob("*.csv")} == set(COLUMNS)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_committed_result_has_the_columns_of_the_contract(name):
    frame = load_frame(name, PROFILE)
    assert set(COLUMNS[name].split()) <= set(frame.columns)
    assert len(frame) > 0


@pytest.mark.parametrize(
    ("name", "draw"),
    [(name, draw) for name, _, draw in DRAWINGS],
    ids=[f"{function} of {name}" for name, function, _ in DRAWINGS],
)
@pytest.mark.filterwarnings("error")
def test_a_figure_needs_no_other_columns(name, draw):
    fig, ax = plt.subplots()
    draw(contracted(name), ax)
    fig.canvas.draw()
    assert ax.has_data() and ax.get_legend_handles_labels()[1]
    plt.close(fig)


def test_each_plot_is_drawn_from_a_committed_result():
    functions = dict(inspect.getmembers(plots, inspect.isfunction))
    first = {
        name: next(iter(inspect.signature(function).parameters), "")
        for name, function in functions.items()
        if function.__module__.startswith(plots.__name__)
    }
    tidy = {
        name for name, argument in first.items() if argument in {"frame", "differences", "sets"}
    }
    assert tidy - {"verdict_bars"} == {function for _, function, _ in DRAWINGS}


@pytest.mark.parametrize("number", CLAIMS)
def test_a_claim_needs_no_other_columns(number, monkeypatch):
    monkeypatch.setattr(store, "load_frame", contracted)
    details = CLAIMS[number](PROFILE).details
    assert "older version" not in details and "was not measured" not in details
    assert "nan" not in details
