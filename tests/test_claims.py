"""Verdicts follow from numbers: frames made to support, contradict or leave a claim open."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from linlib import store
from linlib.claims import CLAIMS, findings_table, paired_gains
from linlib.report import END, START
from linlib.stats import clustered_mean

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
    ("scores", "verdict"),
    [
        ((0.98, 0.96), "supported"),
        ((0.98, 0.93), "mixed"),
        ((0.98, 0.6), "mixed"),
        ((0.89, 0.6), "contradicted"),
    ],
)
def test_near_linear_goes_by_what_few_tokens_cannot_make(stored, scores, verdict):
    held_out = {"heldout_score": scores, "heldout_no_residual": [0.4, 0.5]}
    rows = {"model": ["a", "b"], "protocol": "stream", "linearity_score": [0.999, 0.9]}
    usual = pd.DataFrame(rows | held_out | {"tokens": "no massive"})
    everything = usual.assign(tokens="all", heldout_score=0.99)  # made by sinks
    stored("fig1_linearity_profiles", pd.concat([usual, everything]))
    finding = CLAIMS["01_fig1_linearity_profiles"]("tiny")
    assert finding.verdict == verdict
    assert finding.ours == (
        f"median block held out, no massive tokens, {scores[1]:.2f} to {scores[0]:.2f} over 2 "
        "models, without residual 0.40 to 0.50; all tokens in sample 0.900 to 0.999"
    )


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


def norms(medians):
    """Ratios of layers 1, 2, ..., of which massive tokens would say the opposite."""
    rows = {"layer": range(1, 1 + len(medians)), "quantity": "ratio", "model": "m"}
    frame = pd.DataFrame(rows | {"tokens": "no massive", "median": medians})
    return pd.concat([frame, frame.assign(tokens="all", median=1 - frame["median"])])


@pytest.mark.parametrize(
    ("medians", "verdict"),
    [
        ([0.9, 0.1, 0.2, 0.3], "supported"),  # the first layer, after the embedding, is apart
        ([0.9, 0.1, 0.2, 0.7], "mixed"),
        ([0.1, 0.1, 0.6, 0.7], "contradicted"),
    ],
)
def test_contributes_little(stored, medians, verdict):
    stored("fig3_norms", norms(medians))
    finding = CLAIMS["03_fig3_norms"]("tiny")
    assert finding.verdict == verdict
    n_below, median = sum(m < 0.5 for m in medians[1:]), sorted(medians[1:])[1]
    assert f"in {n_below} of 3 layers, median {median:.2f}; layer 1," in finding.ours
    assert finding.ours.endswith(f"embedding, {medians[0]:.2f}")


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
    ("shares", "kurtosis", "verdict"),
    [
        ([[0.03, 0.08], [0.07, 0.03]], 3, "supported"),  # some layer of each model
        ([[0.03, 0.08], [0.03, 0.03]], 3, "mixed"),
        ([[0.03, 0.03], [0.03, 0.03]], 3, "contradicted"),
        ([[0.03, 0.08], [0.07, 0.03]], 0, "contradicted"),  # a share without a kurtosis
    ],
)
def test_long_tails(stored, shares, kurtosis, verdict):
    rows = [
        {"model": model, "layer": layer, "tokens": tokens, "excess_kurtosis": kurtosis,
         "gaussian_excess_kurtosis": 1, "worst_share": share if tokens != "all" else 0.1 - share,
         "gaussian_worst_share": 0.03}
        for tokens in ("all", "no massive")
        for model, layers in zip("ab", shares, strict=True)
        for layer, share in enumerate(layers, start=1)
    ]  # fmt: skip
    stored("fig9_error_tails_statistics", pd.DataFrame(rows))
    finding = CLAIMS["09_fig9_error_tails"]("tiny")
    assert finding.verdict == verdict
    heavy = sum(share > 0.06 for layers in shares for share in layers) * (kurtosis > 1)
    assert finding.ours.startswith(f"heavy in {heavy} of 4 layers, of ")
    assert finding.ours.endswith("3% in a Gaussian cloud")


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
    stored("fig3_norms", norms([0.9, 0.1]))
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


PAPERS, LIKE_TEST = "stories", "like the test's"


def curves(stored, added):
    """The same curve for both models: the loss added by removing one block, with its interval."""
    low, high = added
    for name, model in (("fig6_pruning_first", "a"), ("fig7_pruning_second", "b")):
        row = {"model": model, "method": "removed", "n_removed": 1, "text": "none"}
        row |= {"added": (low + high) / 2, "added_low": low, "added_high": high}
        mapped = row | {"method": "replaced", "text": PAPERS, "added_low": -1, "added_high": 1}
        stored(name, pd.DataFrame([row, mapped]))


@pytest.mark.parametrize(
    ("added", "verdict"),
    [((0.01, 0.05), "supported"), ((0.05, 0.15), "mixed"), ((0.2, 0.3), "contradicted")],
)
def test_removal_costs_little(stored, added, verdict):
    curves(stored, added)
    finding = CLAIMS["06_fig6_pruning_first"]("tiny")
    assert finding.verdict == verdict
    shown = f"{sum(added) / 2:+.2f} [{added[0]:+.2f}, {added[1]:+.2f}]"
    assert finding.ours.endswith(f"a {shown}; b {shown}")


def test_removal_that_is_listed_under_both_texts_counts_once(stored):
    rows = [
        {"model": "a", "method": "removed", "n_removed": 1, "text": text, "added": 0.2,
         "added_low": 0.1, "added_high": 0.3}
        for text in (PAPERS, LIKE_TEST)
    ]  # fmt: skip
    stored("fig6_pruning_first", pd.DataFrame(rows))
    finding = CLAIMS["06_fig6_pruning_first"]("tiny")
    assert finding.ours.endswith("per token, a +0.20 [+0.10, +0.30]")


SIZES = [10, 100, 30, 60]  # tokens of documents


def document_losses(model, replaced, distilled, text):
    """Losses by document; what the maps save varies a little from one document to the next."""
    noise = [-0.01, 0.01, -0.02, 0.02]
    return [
        {"model": model, "method": method, "n_removed": 1, "text": used, "document": document,
         "n_tokens": size, "loss": size * (5.0 + change + scale * noise[document])}
        for method, change, scale, used in (
            ("dense", -1.0, 0, "none"),
            ("removed", 0.0, 0, "none"),
            ("replaced", replaced, 1, text),
            ("replaced + distilled", replaced + distilled, 2, text),
        )
        for document, size in enumerate(SIZES)
    ]  # fmt: skip


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
    for name, model in (("fig6_pruning_first", "a"), ("fig7_pruning_second", "b")):
        rows = document_losses(model, replaced, distilled, PAPERS)
        rows += document_losses(model, -replaced, -distilled, LIKE_TEST)[8:]
        stored(f"{name}_documents", pd.DataFrame(rows))
    finding = CLAIMS["07_fig7_pruning_second"]("tiny")
    assert finding.verdict == verdict
    assert "removed -> replaced: " in finding.ours and "of 2 cells" in finding.ours
    if replaced:
        saved = float(re.search(r"replaced: ([-+.\d]+), better", finding.ours)[1])
        assert saved == pytest.approx(-replaced, abs=0.02)


def test_gains_are_pairs_of_documents_weighted_by_their_tokens():
    gains = paired_gains(pd.DataFrame(document_losses("a", -0.5, -0.1, PAPERS)))
    assert gains["step"].tolist() == ["removed -> replaced", "replaced -> distilled"]
    noise = np.array([-0.01, 0.01, -0.02, 0.02])
    for saved, (mean, low, high) in zip(
        (0.5, 0.1), gains[["mean", "low", "high"]].to_numpy(), strict=True
    ):
        expected = clustered_mean((saved - noise) * SIZES, SIZES)
        assert (mean, low, high) == pytest.approx(expected)


def test_gains_are_given_for_each_text():
    rows = document_losses("a", -0.5, -0.1, PAPERS) + document_losses("a", -0.8, 0, LIKE_TEST)[8:]
    means = paired_gains(pd.DataFrame(rows)).set_index(["text", "step"])["mean"]
    assert means.loc[LIKE_TEST, "removed -> replaced"] == pytest.approx(0.8, abs=0.02)
    assert means.loc[PAPERS, "removed -> replaced"] == pytest.approx(0.5, abs=0.02)
    assert len(means) == 4


@pytest.mark.parametrize("text", [PAPERS, LIKE_TEST])
@pytest.mark.parametrize("name", ["fig6_pruning_first", "fig7_pruning_second"])
def test_one_curve_of_the_two_is_enough_and_so_is_one_text(stored, name, text):
    row = {"model": "a", "method": "removed", "n_removed": 1, "text": "none"}
    row |= {"added": 0.2, "added_low": 0.15, "added_high": 0.25}
    stored(name, pd.DataFrame([row]))
    finding = CLAIMS["06_fig6_pruning_first"]("tiny")
    assert finding.verdict == "contradicted"
    assert finding.ours.endswith("a +0.20 [+0.15, +0.25]")
    stored(f"{name}_documents", pd.DataFrame(document_losses("a", -0.5, -0.1, text)))
    finding = CLAIMS["07_fig7_pruning_second"]("tiny")
    assert finding.verdict == "supported" and "of 1 cells" in finding.ours


@pytest.mark.parametrize("claim", ["06_fig6_pruning_first", "07_fig7_pruning_second"])
def test_a_claim_about_curves_needs_one_of_them(stored, claim):
    with pytest.raises(FileNotFoundError, match="fig6_pruning_first.* was never measured"):
        CLAIMS[claim]("tiny")


def answered(dense, differences, text=PAPERS):
    """Accuracies at one number of blocks, and their paired differences from the dense model."""
    rows = [{"model": "a", "method": "dense", "n_removed": 0, "text": "none", "accuracy": dense,
             "low": dense - 0.05, "high": dense + 0.05, "chance": 0.25,
             "task": "arc_easy"}]  # fmt: skip
    for method, difference in differences.items():
        share = dense + difference
        rows.append(rows[0] | {"method": method, "n_removed": 1, "accuracy": share,
                               "text": "none" if method == "removed" else text,
                               "low": share - 0.05, "high": share + 0.05,
                               "difference": difference, "difference_low": difference - 0.02,
                               "difference_high": difference + 0.02})  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("dense", "removed", "replaced", "distilled", "verdict"),
    [
        (0.9, -0.6, -0.4, 0.0, "supported"),
        (0.9, -0.03, -0.03, -0.01, "supported"),  # by pairs, where single intervals overlap
        (0.9, -0.6, -0.6, -0.6, "contradicted"),
        (0.9, 0.0, 0.0, 0.0, "mixed"),
        (0.9, -0.6, 0.0, -0.1, "mixed"),
        (0.25, -0.15, -0.15, 0.0, "no difference shown"),
    ],
)
def test_replacement_keeps_accuracy(stored, dense, removed, replaced, distilled, verdict):
    differences = {"removed": removed, "replaced": replaced, "replaced + distilled": distilled}
    stored("fig8_pruning_accuracy", answered(dense, differences))
    finding = CLAIMS["08_fig8_pruning_accuracy"]("tiny")
    assert finding.verdict == verdict and "of 1 numbers of blocks" in finding.ours


def test_accuracy_is_about_maps_from_stories_where_there_are_any(stored):
    kept = {"removed": -0.5, "replaced": 0.0, "replaced + distilled": 0.0}
    lost = {"replaced": -0.5, "replaced + distilled": -0.5}
    other = answered(0.9, lost, LIKE_TEST).query("n_removed > 0")
    stored("fig8_pruning_accuracy", pd.concat([answered(0.9, kept), other]))
    assert CLAIMS["08_fig8_pruning_accuracy"]("tiny").verdict == "supported"
    stored("fig8_pruning_accuracy", answered(0.9, kept, LIKE_TEST))
    assert CLAIMS["08_fig8_pruning_accuracy"]("tiny").verdict == "supported"
