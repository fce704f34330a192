"""Verdicts follow from numbers: frames made to support, contradict or leave a claim open."""

from pathlib import Path

import pandas as pd
import pytest

from linlib import store
from linlib.claims import CLAIMS, findings_table
from linlib.report import END, START

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def stored(monkeypatch):
    """A function that stores a frame in a store of this test alone."""
    frames = {}

    def load_frame(name, profile_name):
        if name not in frames:
            raise FileNotFoundError(f"{name} was never measured at {profile_name}")
        return frames[name].copy()

    monkeypatch.setattr(store, "load_frame", load_frame)
    return frames.__setitem__


@pytest.mark.parametrize(
    ("score", "verdict"), [(0.98, "supported"), (0.93, "mixed"), (0.6, "contradicted")]
)
def test_near_linear(stored, score, verdict):
    rows = {"model": ["a", "b"], "protocol": "stream", "tokens": "all", "linearity_score": score}
    stored("fig1_linearity_profiles", pd.DataFrame({**rows, "linearity_no_residual": 0.5}))
    finding = CLAIMS["01_fig1_linearity_profiles"]("tiny")
    assert finding.verdict == verdict
    assert f"median block {score:.2f}, without residual 0.50 (2 models)" == finding.ours


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [((0.8, 0.7), "supported"), ((0.8, 0.95), "mixed"), ((0.95, 0.99), "contradicted")],
)
def test_falls_in_pretraining(stored, ends, verdict):
    rows = [
        {"model": model, "step": step, "tokens": "all", "linearity_score": score}
        for model, end in zip("ab", ends, strict=True)
        for step, score in ((0, 0.1), (1, 0.9), (100, end))
    ]
    stored("fig2_pretraining_dynamics", pd.DataFrame(rows))
    assert CLAIMS["02_fig2_pretraining_dynamics"]("tiny").verdict == verdict


@pytest.mark.parametrize(
    ("medians", "verdict"),
    [([0.1, 0.2, 0.3], "supported"), ([0.1, 0.2, 3], "mixed"), ([0.1, 2, 3], "contradicted")],
)
def test_contributes_little(stored, medians, verdict):
    rows = {"quantity": "ratio", "tokens": "no first position", "median": medians}
    stored("fig3_norms", pd.DataFrame(rows))
    assert CLAIMS["03_fig3_norms"]("tiny").verdict == verdict


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"s": -0.1, "m": -0.2}, "supported"),
        ({"s": 0.1, "m": 0.2}, "contradicted"),
        ({"s": -0.1, "m": 0.2}, "mixed"),
        ({"s": -0.1, "m": 0.0}, "mixed"),
        ({"s": 0.0, "m": 0.0}, "no difference shown"),
    ],
)
def test_cosine_lowers_linearity(stored, changes, verdict):
    rows = [
        {"size": size, "pair": pair, "variant": variant, "seed": seed, "at": at,
         "linearity_no_residual": 0.6 + seed / 1000
         + (change + wobble) * (variant == "cosine-0.5") - (variant == "mse-0.5")}
        for size, change in changes.items()
        for at in ("equal steps", "equal loss")
        for pair in ("cosine-0.5", "mse-0.5")
        for variant in ("plain", pair)
        for seed, wobble in ((0, -0.01), (1, 0), (2, 0.01))
    ]  # fmt: skip
    stored("fig4_regularised_linearity_comparison", pd.DataFrame(rows))
    finding = CLAIMS["04_fig4_regularised_linearity"]("tiny")
    assert finding.verdict == verdict
    assert f"m {changes['m']:+.2f} [" in finding.ours


@pytest.mark.parametrize(
    ("kurtosis", "verdict"), [([3, 4], "supported"), ([0, 3], "mixed"), ([0, 0], "contradicted")]
)
def test_long_tails(stored, kurtosis, verdict):
    rows = {"tokens": "all", "excess_kurtosis": kurtosis, "gaussian_excess_kurtosis": 1}
    frame = pd.DataFrame({**rows, "worst_share": 0.08})
    stored("fig9_error_tails_statistics", frame)
    finding = CLAIMS["09_fig9_error_tails"]("tiny")
    assert finding.verdict == verdict and "hold 8% of" in finding.ours


@pytest.mark.parametrize(
    ("tuned", "shuffled", "modelled", "noise", "verdict"),
    [
        ({"boolq": 0.1, "cb": 0.2}, 0.0, -0.1, 0.01, "supported"),
        ({"boolq": 0.1, "cb": 0.2}, 0.15, 0.0, 0.01, "mixed"),  # any training does that
        ({"boolq": 0.1, "cb": 0.2}, 0.0, 0.2, 0.01, "mixed"),  # even without labels
        ({"boolq": 0.3, "cb": -0.1}, 0.0, 0.0, 0.01, "mixed"),  # not in every cell
        ({"boolq": 0.0, "cb": -0.1}, 0.0, 0.0, 0.01, "contradicted"),
        ({"boolq": 0.1, "cb": 0.2}, 0.0, 0.0, 0.5, "no difference shown"),
    ],
)
def test_fine_tuning_raises_linearity(stored, tuned, shuffled, modelled, noise, verdict):
    trainings = {"task": tuned, "shuffled labels": dict.fromkeys(tuned, shuffled),
                 "language modelling": dict.fromkeys(tuned, modelled)}  # fmt: skip
    rows = [
        {"model": "m", "task": task, "training": training, "seed": seed,
         "delta_linearity_no_residual": change + wobble * noise * (training == "task")}
        for training, cells in trainings.items()
        for task, change in cells.items()
        for seed, wobble in ((0, -1), (1, 0), (2, 1))
    ]  # fmt: skip
    stored("tab1_finetuning", pd.DataFrame(rows))
    finding = CLAIMS["10_tab1_finetuning"]("tiny")
    assert finding.verdict == verdict
    positive = sum(change > 0 for change in tuned.values())
    assert finding.ours.startswith(f"mean change {sum(tuned.values()) / 2:+.3f} [")
    assert f"positive in {positive} of 2 cells" in finding.ours


ABILITIES = {
    "05_fig5_probing": ("fig5_probing", "accuracy", {"control": "trained", "layer": 1}),
    "11_tab2_superglue": ("tab2_superglue_mean", "value", {}),
    "12_tab3_tinystories": ("tab3_tinystories", "mean", {}),
}


@pytest.mark.parametrize("claim", ABILITIES)
@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"s": 0.1, "m": 0.2}, "supported"),
        ({"s": -0.1, "m": -0.2}, "contradicted"),
        ({"s": 0.1, "m": 0.0}, "mixed"),
        ({"s": 0.0, "m": 0.0}, "no difference shown"),
    ],
)
def test_what_the_cosine_term_improves(stored, claim, changes, verdict):
    name, value, more = ABILITIES[claim]
    rows = [
        {"size": size, "variant": variant, "seed": seed, **more,
         value: 0.5 + seed / 1000 + (change + wobble) * (variant == "cosine-0.5")
         - (variant == "mse-0.5")}
        for size, change in changes.items()
        for variant in ("plain", "mse-0.5", "cosine-0.5")
        for seed, wobble in ((0, -0.01), (1, 0), (2, 0.01))
    ]  # fmt: skip
    stored(name, pd.DataFrame(rows))
    finding = CLAIMS[claim]("tiny")
    assert finding.verdict == verdict
    scale = 100 if value == "value" else 1
    assert f"m {scale * changes['m']:+.1f}"[:6] in finding.ours


def test_probes_of_controls_and_of_layer_zero_have_no_part_in_the_verdict(stored):
    rows = [
        {"size": "s", "variant": variant, "seed": seed, "control": control, "layer": layer,
         "accuracy": 0.5 + better * (variant == "cosine-0.5")}
        for variant in ("plain", "cosine-0.5")
        for seed in range(3)
        for control, layer, better in (
            ("trained", 1, 0), ("trained", 0, 0.4), ("shuffled labels", 1, 0.4)
        )
    ]  # fmt: skip
    stored("fig5_probing", pd.DataFrame(rows))
    assert CLAIMS["05_fig5_probing"]("tiny").verdict == "no difference shown"


def test_one_seed_shows_nothing(stored):
    rows = [{"model": "m", "task": "cb", "training": training, "seed": 0,
             "delta_linearity_no_residual": 0.5}
            for training in ("task", "shuffled labels", "language modelling")]  # fmt: skip
    stored("tab1_finetuning", pd.DataFrame(rows))
    assert CLAIMS["10_tab1_finetuning"]("tiny").verdict == "no difference shown"


def test_what_is_not_measured_has_no_row(stored):
    stored("fig3_norms", pd.DataFrame({"quantity": ["ratio"], "tokens": "no first position",
                                       "median": 0.1}))  # fmt: skip
    table = findings_table("tiny", "notebooks").splitlines()
    assert len(table) == 3 and table[2].startswith("| [Figure 3](notebooks/03_fig3_norms.ipynb) |")


def test_the_readme_shows_the_findings_of_the_committed_results(monkeypatch):
    monkeypatch.delenv("LINLIB_ROOT", raising=False)
    shown = README.read_text().partition(START)[2].partition(END)[0].strip()
    assert shown == findings_table("tiny", "notebooks")
    assert len(shown.splitlines()) == 2 + len(CLAIMS)


def test_a_size_without_the_cosine_term_shows_nothing(stored):
    rows = {"size": "s", "variant": ["plain", "mse-0.5"], "seed": 0, "value": [0.5, 0.6]}
    stored("tab2_superglue_mean", pd.DataFrame(rows))
    assert CLAIMS["11_tab2_superglue"]("tiny").verdict == "no difference shown"


def curves(stored, added):
    """The same curve for both models: the loss added by removing one block, with its interval."""
    low, high = added
    for name, model in (("fig6_pruning_first", "a"), ("fig7_pruning_second", "b")):
        row = {"model": model, "method": "removed", "n_removed": 1}
        row |= {"added": (low + high) / 2, "added_low": low, "added_high": high}
        stored(name, pd.DataFrame([row]))


@pytest.mark.parametrize(
    ("added", "verdict"),
    [((0.01, 0.05), "supported"), ((0.05, 0.15), "mixed"), ((0.2, 0.3), "contradicted")],
)
def test_removal_costs_little(stored, added, verdict):
    curves(stored, added)
    finding = CLAIMS["06_fig6_pruning_first"]("tiny")
    assert finding.verdict == verdict
    assert f"a {sum(added) / 2:+.2f} [{added[0]:+.2f}, {added[1]:+.2f}]" in finding.ours


@pytest.mark.parametrize(
    ("replaced", "distilled", "verdict"),
    [
        (-0.5, -0.1, "supported"),
        (0.5, 0.1, "contradicted"),
        (-0.5, 0.1, "mixed"),
        (-0.5, 0.0, "mixed"),
        (0.0, 0.0, "no difference shown"),
    ],
)
def test_replacement_beats_removal(stored, replaced, distilled, verdict):
    noise = [-0.01, 0.01, -0.02, 0.02]
    for name, model in (("fig6_pruning_first", "a"), ("fig7_pruning_second", "b")):
        rows = [
            {"model": model, "method": method, "n_removed": 1, "window": window, "loss": loss + e}
            for method, loss, scale in (
                ("removed", 5.0, 0),
                ("replaced", 5.0 + replaced, 1),
                ("replaced + distilled", 5.0 + replaced + distilled, 2),
            )
            for window, e in enumerate(scale * value for value in noise)
        ]
        stored(f"{name}_windows", pd.DataFrame(rows))
    finding = CLAIMS["07_fig7_pruning_second"]("tiny")
    assert finding.verdict == verdict
    assert "removed -> replaced: " in finding.ours
    if replaced:
        assert f"removed -> replaced: {-replaced:+.3f}" in finding.ours


@pytest.mark.parametrize("name", ["fig6_pruning_first", "fig7_pruning_second"])
def test_one_curve_of_the_two_is_enough(stored, name):
    row = {"model": "a", "method": "removed", "n_removed": 1}
    row |= {"added": 0.2, "added_low": 0.15, "added_high": 0.25}
    stored(name, pd.DataFrame([row]))
    finding = CLAIMS["06_fig6_pruning_first"]("tiny")
    assert finding.verdict == "contradicted"
    assert finding.ours.endswith("a +0.20 [+0.15, +0.25]")
    rows = [
        {"model": "a", "n_removed": 1, "method": method, "window": window, "loss": loss}
        for method, mean in (("removed", 5.0), ("replaced", 4.0), ("replaced + distilled", 3.0))
        for window, loss in enumerate((mean, mean + 0.01 * mean))
    ]
    stored(f"{name}_windows", pd.DataFrame(rows))
    finding = CLAIMS["07_fig7_pruning_second"]("tiny")
    assert finding.verdict == "supported" and "of 1 cells" in finding.ours


@pytest.mark.parametrize("claim", ["06_fig6_pruning_first", "07_fig7_pruning_second"])
def test_a_claim_about_curves_needs_one_of_them(stored, claim):
    with pytest.raises(FileNotFoundError, match="fig6_pruning_first.* was never measured"):
        CLAIMS[claim]("tiny")


@pytest.mark.parametrize(
    ("dense", "removed", "replaced", "distilled", "verdict"),
    [
        (0.9, 0.3, 0.5, 0.9, "supported"),
        (0.9, 0.3, 0.3, 0.3, "contradicted"),
        (0.9, 0.9, 0.9, 0.9, "mixed"),
        (0.25, 0.1, 0.1, 0.25, "no difference shown"),
    ],
)
def test_replacement_keeps_accuracy(stored, dense, removed, replaced, distilled, verdict):
    accuracies = {
        "dense": dense,
        "removed": removed,
        "replaced": replaced,
        "replaced + distilled": distilled,
    }
    rows = [
        {"method": method, "n_removed": int(method != "dense"), "accuracy": share,
         "low": share - 0.05, "high": share + 0.05, "chance": 0.25}
        for method, share in accuracies.items()
    ]  # fmt: skip
    stored("fig8_pruning_accuracy", pd.DataFrame(rows))
    assert CLAIMS["08_fig8_pruning_accuracy"]("tiny").verdict == verdict
