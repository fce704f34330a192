"""Verdicts come out at their nominal rates, and what cannot be tested says why."""

import math
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from scipy.stats import t  # noqa: E402

from linlib import claims, plots, store  # noqa: E402
from linlib.claims import (  # noqa: E402
    CLAIMS,
    decide,
    findings,
    findings_table,
    paired_gains,
)
from linlib.claims.verdicts import FEW, TEXTS  # noqa: E402
from linlib.report import END, START, update_readme  # noqa: E402
from linlib.stats import clustered_mean, smallest_effect  # noqa: E402

README = Path(__file__).parents[1] / "README.md"
SIZES, SEEDS, Z = ("small", "large"), range(8), 1.959964
DRAWS = 80  # of each simulated design
BLOCKS = (-0.04, -0.02, 0, 0.02, 0.04)  # of a decoder, apart from its median block


@pytest.fixture
def stored(monkeypatch):
    """Frames by name, in a store of this test alone."""
    frames = {}

    def load_frame(name, profile_name):
        if name not in frames:
            raise FileNotFoundError(f"{name} was never measured at {profile_name}")
        return frames[name].copy()

    monkeypatch.setattr(store, "load_frame", load_frame)
    return frames


# ------------------------------------------------------- frames with a known effect and error
# Each takes the true effect and the standard error of its estimate, and gives the frames.


def ends(value, error, name):
    return {name: value, f"{name}_low": value - Z * error, f"{name}_high": value + Z * error}


def near_linear(rng, effect, error):
    rows, found = [], rng.normal(effect, error)  # all blocks see the same documents
    for away in BLOCKS:
        row = ends(found + away, error, "heldout_score")
        row |= ends(0.5, 0.01, "heldout_no_residual")
        row |= {"model": "a", "protocol": "stream", "linearity_score": 0.999}
        rows += [row | {"tokens": tokens} for tokens in ("all", "no massive")]
    return {"fig1_linearity_profiles": pd.DataFrame(rows)}


def without_residual(rng, effect, error):
    rows, found = [], rng.normal(effect, error)
    for away in BLOCKS:
        row = ends(0.95, 0, "heldout_score") | {"model": "a", "protocol": "stream"}
        row |= ends(0.95 - found - away, error, "heldout_no_residual")
        rows.append(row | {"linearity_score": 0.999, "tokens": "no massive"})
    return {"fig1_linearity_profiles": pd.DataFrame(rows)}


def norms(quantity):
    def frames(rng, effect, error):
        same, found = {"model": "a", "tokens": "no massive"}, rng.normal(effect, error)
        same["quantity"] = quantity
        rows = [same | {"layer": 1, "median": 9.0, "low": 8.9, "high": 9.1}]
        for layer, away in enumerate(BLOCKS, start=2):
            value = found + away
            row = {"layer": layer, "median": value, "low": value - Z * error}
            rows.append(same | row | {"high": value + Z * error})
        return {"fig3_norms": pd.DataFrame(rows)}

    return frames


def pretraining(rng, effect, error):
    rows = []
    for model in SIZES:
        for seed in SEEDS:
            change = rng.normal(effect, error * math.sqrt(2 * len(SEEDS)))
            level = rng.normal(-3, 0.5)
            for step, log_error in ((4, 0.0), (64, level), (512, level + change)):
                rows.append((model, seed, step, 1, "all", 1 - math.exp(log_error), 50))
    columns = "model seed step layer tokens heldout_score warmup_steps".split()
    return {"fig2_pretraining_dynamics": pd.DataFrame(rows, columns=columns)}


def finetuning(rng, effect, error):
    rows = []
    for model in SIZES:
        for seed in SEEDS:
            change = rng.normal(effect, error * math.sqrt(2 * len(SEEDS)))
            rows += [(model, task, "task", seed, "general", change + of_task)
                     for task, of_task in (("boolq", 0.1), ("cb", -0.1))]  # fmt: skip
    columns = "model task training seed text delta_linearity_no_residual".split()
    return {"tab1_finetuning": pd.DataFrame(rows, columns=columns)}


def compared(rng, effect, error, variant="cosine-0.5", control="plain", sizes=SIZES):
    """Runs of two variants, paired by seed: seeds differ by far more than variants."""
    rows = []
    for size in sizes:
        for seed in SEEDS:
            level = rng.normal(0, 5)
            gap = rng.normal(effect, error * math.sqrt(len(sizes) * len(SEEDS)))
            rows += [(size, control, seed, False, level), (size, variant, seed, False, level + gap)]
    return pd.DataFrame(rows, columns=["size", "variant", "seed", "diverged", "value"])


def regularised(rng, effect, error):
    runs = compared(rng, -effect, error).rename(columns={"value": "linearity_no_residual"})
    both = [runs.assign(pair="cosine-0.5", at=at) for at in ("equal steps", "equal loss")]
    return {
        "fig4_regularised_linearity_comparison": pd.concat(both),
        "fig4_regularised_linearity": runs.assign(layer=1, tokens="all"),
    }


def superglue(rng, effect, error):
    runs = compared(rng, effect / 100, error / 100)
    return {"tab2_superglue_mean": pd.concat(runs.assign(columns=one) for one in COLUMNS)}


COLUMNS = ("declared", "all ten")


def against_mse(rng, effect, error):
    runs = compared(rng, effect / 100, error / 100, control="mse-0.5", sizes=SIZES[:1])
    other = runs[runs["variant"] == "mse-0.5"].assign(variant="mse-2.0")
    plain = pd.concat([other.assign(variant="plain"), other.assign(variant="plain", size="large")])
    runs = pd.concat([runs, other, plain])
    return {"tab2_superglue_mean": pd.concat(runs.assign(columns=one) for one in COLUMNS)}


def stories(rng, effect, error):
    truth = {"size": "true ending", "variant": "true ending", "seed": 0, "mean": 10.0}
    runs = compared(rng, effect, error).rename(columns={"value": "mean"})
    return {"tab3_tinystories": pd.concat([runs, pd.DataFrame([truth])])}


def probes(rng, effect, error):
    runs = compared(rng, effect / 100, error / 100).rename(columns={"value": "pair_accuracy"})
    at_0 = runs.assign(layer=0, pair_accuracy=0.5)
    frame = pd.concat([runs.assign(layer=1), at_0]).assign(control="trained", pair_low=0.6)
    return {"fig5_probing": frame}


def removal(rng, effect, error):
    row = ends(rng.normal(effect, error), error, "added") | {"model": "a", "method": "removed"}
    rows = [row | {"n_removed": FEW}, row | {"n_removed": 1, "added": 0.01}]
    return {"fig6_pruning_first": pd.DataFrame(rows)}


def replacement(rng, effect, error):
    n, size, rows = 40, 100, []
    for document in range(n):
        level = rng.normal(4, 1)
        step = rng.normal(effect, error * math.sqrt(n))
        losses = {"removed": level + 1 + rng.normal(0, 0.01), "replaced": level}
        losses |= {"replaced + distilled": level - step}
        for method, loss in losses.items():
            text = "none" if method == "removed" else "stories"
            rows.append(("a", method, text, 2, document, size * loss, size))
    columns = "model method text n_removed document loss n_tokens".split()
    return {"fig6_pruning_first_documents": pd.DataFrame(rows, columns=columns)}


def tails(rng, effect, error):
    relative = error / 2 * math.log(2)  # from the threshold, 2, to twice of it, on the logarithm
    row = {"model": "a", "layer": 3, "tokens": "no massive", "log_excess_error": relative}
    row["log_excess"] = rng.normal(math.log(effect), relative)
    return {"fig9_error_tails_statistics": pd.DataFrame([row])}


def directions(rng, effect, error):
    rows = []
    for seed in SEEDS:
        level, gap = rng.normal(0.9, 0.2), rng.normal(effect, error * math.sqrt(len(SEEDS)))
        for direction, score in (("causal", level + gap), ("bidirectional", level)):
            kind = "decoder" if direction == "causal" else "encoder"
            rows.append(("twin", kind, "here", direction, seed, 1, "no massive", score))
    columns = "model kind trained direction seed layer tokens heldout_score".split()
    return {"only_decoders": pd.DataFrame(rows, columns=columns)}


DESIGNS = {
    1: near_linear, 2: without_residual, 3: norms("ratio"), 4: norms("cosine"), 5: pretraining,
    6: finetuning, 7: regularised, 8: superglue, 9: stories, 10: against_mse, 11: probes,
    12: removal, 13: replacement, 14: tails, 15: directions,
}  # fmt: skip

FREEDOM = dict.fromkeys([5, 6, 7, 8, 9, 11], 14) | dict.fromkeys([10, 15], 7)  # of two sizes, one


def simulated(stored, number, effect, error, draws=DRAWS):
    """The verdicts on many draws of one design."""
    rng, found = np.random.default_rng(number), []
    for _ in range(draws):
        frames = DESIGNS[number](rng, effect, error)
        stored.clear()
        stored.update(frames)
        found.append(CLAIMS[number]("tiny"))
    return found


def places(stored, number):
    """Threshold, goal, and the error with which the goal is just detectable (80% power)."""
    rng = np.random.default_rng(0)
    stored.update(DESIGNS[number](rng, TEXTS[number][5] or 0.1, 1e-6))
    finding = CLAIMS[number]("tiny")
    half = t.ppf(0.975, FREEDOM[number]) if number in FREEDOM else Z  # of the interval, in errors
    size = abs(finding.goal - finding.threshold)
    return finding.threshold, finding.goal, size / smallest_effect(-half, half)


@pytest.mark.parametrize("number", CLAIMS)
def test_verdicts_come_out_at_their_nominal_rates(stored, number):
    threshold, goal, error = places(stored, number)
    shares = {}
    for name, effect in (("none", threshold), ("half", (threshold + goal) / 2), ("full", goal)):
        found = pd.Series([one.verdict for one in simulated(stored, number, effect, error)])
        shares[name] = found.value_counts(normalize=True)
        assert set(found) <= set(claims.VERDICTS[:-1])
    spread = 3 * math.sqrt(0.025 * 0.975 / DRAWS)
    for wrong in ("supported", "contradicted"):
        assert shares["none"].get(wrong, 0) <= 0.025 + spread
    assert shares["full"].get("supported", 0) == pytest.approx(0.8, abs=0.13)
    assert shares["full"].get("contradicted", 0) == 0
    assert 0.15 < shares["half"].get("supported", 0) < 0.45


@pytest.mark.parametrize("number", CLAIMS)
def test_strong_effects_are_seen_for_what_they_are(stored, number):
    threshold, goal, error = places(stored, number)
    far = goal - threshold
    for effect, verdict in ((goal, "supported"), (threshold - far, "contradicted")):
        if verdict == "contradicted":  # a lower threshold; a share cannot be negative
            effect = {1: 0.85, 14: threshold / 2}.get(number, effect)
        (finding,) = simulated(stored, number, effect, error / 100, draws=1)
        assert finding.verdict == verdict
        # Seeds scatter by far more than what is paired; the estimate is that of the pairs.
        assert finding.effect == pytest.approx(effect, abs=0.02 * abs(far))
        assert finding.low <= finding.effect <= finding.high


# -------------------------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.5, "supported"),
        (-0.5, -0.1, "contradicted"),
        (-0.1, 0.2, "smaller than the paper's"),
        (-0.1, 0.4, "inconclusive"),
        (math.nan, math.nan, "not testable at this profile"),
    ],
)
def test_the_rule_knows_the_interval_alone(low, high, verdict):
    assert decide(low, high, paper=0.3) == verdict


def test_a_lower_threshold_contradicts_where_there_is_one():
    assert decide(0.91, 0.94, 0.95, contradicted=0.9, paper=0.99) == "smaller than the paper's"
    assert decide(0.85, 0.89, 0.95, contradicted=0.9, paper=0.99) == "contradicted"


def test_a_claim_about_decoders_must_hold_for_each_of_them(stored):
    rng, frames = np.random.default_rng(0), []
    for model, effect in (("a", 0.05), ("b", 0.3)):
        frames.append(removal(rng, effect, 0.001)["fig6_pruning_first"].assign(model=model))
    stored["fig6_pruning_first"], stored["fig7_pruning_second"] = frames
    finding = claims.removal_costs_little("tiny")
    assert finding.verdict == "contradicted"  # by one of them
    assert finding.low < 0.051 and finding.high > 0.29
    assert finding.smallest == pytest.approx(0.001 * (Z + 0.8416), rel=1e-3)
    stored["fig7_pruning_second"] = frames[1].assign(model="Llama (tiny)")  # no real decoder
    assert claims.removal_costs_little("tiny").verdict == "supported"
    frames[1]["added_low"] = 0.05  # not clearly above 0.1
    stored["fig7_pruning_second"] = frames[1]
    assert claims.removal_costs_little("tiny").verdict == "inconclusive"


def test_models_that_an_own_profile_trains_are_no_real_decoders(stored):
    frame = removal(np.random.default_rng(0), 0.3, 0.001)["fig6_pruning_first"]
    stored["fig6_pruning_first"] = frame.assign(model="Llama (mine)")
    assert "measures no real decoder" in claims.removal_costs_little("mine").details
    assert claims.removal_costs_little("tiny").verdict == "contradicted"


def test_the_tail_of_the_heaviest_layer_is_corrected_for_the_number_of_layers(stored):
    layers = {"layer": range(1, 31), "model": "a", "tokens": "no massive"}
    frame = pd.DataFrame(layers | {"log_excess": math.log(1.2), "log_excess_error": 0.1})
    frame.loc[4, "log_excess"] = math.log(2) + 0.25  # 2.5 errors: enough for one layer
    stored["fig9_error_tails_statistics"] = frame
    assert claims.long_tails("tiny").verdict == "smaller than the paper's"  # than would matter
    assert "layer 5, heavy in 0 of 30" in claims.long_tails("tiny").details
    stored["fig9_error_tails_statistics"] = frame.iloc[[4]]
    assert claims.long_tails("tiny").verdict == "supported"


def test_a_tail_is_contradicted_only_where_no_layer_may_be_heavy(stored):
    layers = {"layer": [1, 2], "model": "a", "tokens": "no massive"}
    layers |= {"log_excess": np.log([1.5, 1.4]), "log_excess_error": [0.05, 0.4]}
    stored["fig9_error_tails_statistics"] = pd.DataFrame(layers)
    finding = claims.long_tails("tiny")  # layer 1 is the surest, and layer 2 may be heavy
    assert finding.low > 1.3 and finding.high > 3 and finding.verdict == "smaller than the paper's"
    stored["fig9_error_tails_statistics"]["log_excess_error"] = 0.05
    assert claims.long_tails("tiny").verdict == "contradicted"


def test_cells_in_which_distillation_kept_its_start_count_as_nothing_saved(stored):
    frame = replacement(np.random.default_rng(0), 0.2, 0.01)["fig6_pruning_first_documents"]
    kept = frame[frame["method"] != "replaced + distilled"].assign(n_removed=1)
    same = kept[kept["method"] == "replaced"].assign(method="replaced + distilled")
    stored["fig6_pruning_first_documents"] = pd.concat([frame, kept, same])
    finding = claims.replacement_beats_removal("tiny")
    assert finding.verdict == "supported" and finding.effect == pytest.approx(0.1, abs=0.015)
    stored["fig6_pruning_first_documents"] = pd.concat([kept, same])
    finding = claims.replacement_beats_removal("tiny")
    assert finding.verdict == "smaller than the paper's"  # than would matter
    assert (finding.low, finding.effect, finding.high) == (0, 0, 0)
    stored["fig6_pruning_first_documents"] = kept
    finding = claims.replacement_beats_removal("tiny")
    assert finding.verdict == "not testable at this profile"
    assert finding.details.startswith("one of the two steps was not measured; removed -> replaced")
    worse = pd.concat([kept, same])
    worse.loc[worse["method"] == "removed", "loss"] -= 200  # 2 nats for each of 100 tokens
    stored["fig6_pruning_first_documents"] = worse
    finding = claims.replacement_beats_removal("tiny")  # one step is enough to contradict
    assert finding.verdict == "contradicted" and finding.high < 0


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((15.2, 0.3, 30.1), "+15.2 [+0.3, +30.1]"),  # not +0, which would be no support
        ((0.946, 0.932, 0.96), "+0.946 [+0.932, +0.960]"),
        ((-0.2, -13.0, 12.6), "+0 [-13, +13]"),  # no minus zero
    ],
)
def test_an_end_of_an_interval_does_not_seem_to_lie_on_the_threshold(ends, text):
    assert claims.verdicts.interval_text(*ends) == text
    near = claims.verdicts.interval_text(0.946, 0.932, 0.9504, "", threshold=0.95)
    assert near == "0.9460 [0.9320, 0.9504]"


# ------------------------------------------------------------------------------- bad input

TRAINED = {
    7: "fig4_regularised_linearity_comparison", 8: "tab2_superglue_mean", 9: "tab3_tinystories",
    11: "fig5_probing",
}  # fmt: skip


def broken(stored, number, change):
    stored.update(DESIGNS[number](np.random.default_rng(0), TEXTS[number][5] or 0.1, 0.01))
    name = next(iter(stored)) if number not in TRAINED else TRAINED[number]
    stored[name] = change(stored[name])
    finding = CLAIMS[number]("tiny")
    assert finding.verdict == "not testable at this profile"
    return finding.details


@pytest.mark.parametrize("number", [5, 6, 7, 8, 9, 10, 11, 15])
def test_one_seed_is_too_few_for_an_interval(stored, number):
    details = broken(stored, number, lambda frame: frame[frame["seed"] == 0])
    assert "one seed, and an interval needs at least two" in details


@pytest.mark.parametrize("number", TRAINED)
def test_a_missing_arm_is_named(stored, number):
    details = broken(stored, number, lambda frame: frame[frame["variant"] != "cosine-0.5"])
    assert details == "there is no run of 'cosine-0.5', one arm of the comparison"


@pytest.mark.parametrize("number", TRAINED)
def test_an_arm_of_which_all_runs_diverged_is_named(stored, number):
    def change(frame):
        return frame.assign(diverged=frame["diverged"] | (frame["variant"] == "cosine-0.5"))

    assert broken(stored, number, change) == "all runs of 'cosine-0.5' diverged"


def test_probes_at_chance_have_nothing_to_compare(stored):
    stored.update(probes(np.random.default_rng(0), 4.0, 0.01))
    assert claims.cosine_probes_better("tiny").verdict == "supported"
    stored["fig5_probing"]["pair_low"] = 0.5
    finding = claims.cosine_probes_better("tiny")
    assert finding.details.startswith("no layer of the plain models tells pairs apart; best layer")


def test_a_missing_comparison_at_equal_loss_leaves_the_one_at_equal_steps(stored):
    stored.update(regularised(np.random.default_rng(0), 0.1, 0.001))
    comparison = stored["fig4_regularised_linearity_comparison"]
    assert "at equal loss +0.0998 [" in claims.cosine_lowers_linearity("tiny").details
    stored["fig4_regularised_linearity_comparison"] = comparison.query("at == 'equal steps'")
    finding = claims.cosine_lowers_linearity("tiny")
    assert finding.verdict == "supported" and "equal loss" not in finding.details


def test_runs_that_diverged_are_left_out_with_their_partners_and_reported(stored):
    frame = superglue(np.random.default_rng(0), 2.0, 0.01)["tab2_superglue_mean"]
    failed = (frame["variant"] == "cosine-0.5") & (frame["seed"] == 3) & (frame["size"] == "small")
    frame.loc[failed, ["value", "diverged"]] = [-50.0, True]
    stored["tab2_superglue_mean"] = frame
    finding = claims.cosine_improves_superglue("tiny")
    assert finding.verdict == "supported" and finding.effect == pytest.approx(2.0, abs=0.1)
    assert {"small +2 (7 seeds)", "large +2 (8 seeds)"} < set(finding.details.split("; "))
    assert "1 run diverged; with them -351 [" in finding.details


@pytest.mark.parametrize("number", CLAIMS)
def test_a_frame_of_older_columns_is_named_and_so_is_a_missing_one(stored, number):
    lost = {5: "warmup_steps", 6: "text"}.get(number)

    def change(frame):
        return frame.drop(columns=lost or [one for one in frame if one != "tokens"][-1])

    message = r"was measured by an older version and lacks \['\w+'\]; measure it again with `make"
    assert re.search(message, broken(stored, number, change))
    stored.clear()
    assert "was not measured at profile 'tiny'" in CLAIMS[number]("tiny").details


def test_a_profile_without_a_real_decoder_says_so(stored):
    frame = removal(np.random.default_rng(0), 0.0, 0.01)["fig6_pruning_first"]
    stored["fig6_pruning_first"] = frame.assign(model="Llama (tiny)")
    finding = claims.removal_costs_little("tiny")
    assert finding.details == "the profile measures no real decoder"


# ------------------------------------------------------------------------ pages and tables


def test_all_claims_have_a_row_with_all_there_is_to_know(stored):
    for number in (8, 12):
        stored.update(DESIGNS[number](np.random.default_rng(1), TEXTS[number][5] * 0, 0.01))
    frame = findings("tiny")
    assert list(frame["number"]) == list(range(1, 16))
    table = findings_table("tiny", "pages").splitlines()
    assert len(table) == 2 + 15
    assert table[9].startswith("| [8](pages/11_tab2_superglue.ipynb) | the cosine term improves")
    assert "| 2.2 |" in table[9]  # the paper's
    assert "**supported**" in table[13] and "was not measured" in table[2]
    text = claims.removal_costs_little("tiny").to_frame("Claim 12")["Claim 12"]
    assert text["verdict"] == "supported" and "an effect that would matter" in text.index


@pytest.mark.filterwarnings("error")
def test_the_picture_puts_all_effects_on_one_scale_and_clips_none(stored):
    for number, effect in ((8, 2.2), (12, 0.3), (1, 0.99)):
        stored.update(DESIGNS[number](np.random.default_rng(1), effect, 1e-6))
    fig, ax = plt.subplots()
    plots.verdict_bars(findings("tiny"), ax)
    fig.canvas.draw()
    marks = {line.get_ydata()[0]: line for line in ax.get_lines() if line.get_marker() in "os"}
    places = {int(place): line.get_xdata()[0] for place, line in marks.items()}
    assert places.pop(1) > 1  # claim 2 is about the frame of claim 1
    assert places == pytest.approx({0: 1, 7: 1, 11: -2}, abs=0.02)  # 0.3 nats: twice too much
    assert marks[0].get_marker() == "o" and marks[7].get_marker() == "s"
    assert marks[11].get_color() == plots.VERDICT_COLOURS["contradicted"]
    low, high = ax.get_xlim()
    assert low < -2 and high > 1
    assert len(ax.get_yticklabels()) == 15 and set(plots.VERDICT_COLOURS) == set(claims.VERDICTS)
    plt.close(fig)


def test_the_readme_has_the_findings_of_the_committed_results():
    from linlib.report import README_PROFILE

    table = README.read_text().partition(START)[2].partition(END)[0].strip()
    assert table == findings_table(README_PROFILE, "notebooks")


def test_the_readme_says_where_tiny_has_another_verdict():
    tiny, laptop = (findings(name).set_index("number")["verdict"] for name in ("tiny", "laptop"))
    open_ones = tiny.isin(["inconclusive", "not testable at this profile"])
    undecided = [str(number) for number in tiny.index[open_ones & (tiny != laptop)]]
    others = [str(number) for number in tiny.index[~open_ones & (tiny != laptop)]]
    text = " ".join(README.read_text().split())
    assert f"the verdicts on claims {', '.join(undecided[:-1])} and {undecided[-1]} are" in text
    assert f'and those on {" and ".join(others)} are "contradicted"' in text
    assert {tiny[int(number)] for number in others} == {"contradicted"}


def test_a_page_without_markers_is_left_alone(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("no table here")
    with pytest.raises(ValueError, match="lacks the markers"):
        update_readme(page, "tiny")
    assert page.read_text() == "no table here"


def document_losses(step_1, step_2, text):
    sizes, rows = [10, 20, 30, 40], []
    for document, size in enumerate(sizes):
        noise = [-0.01, 0.01, -0.02, 0.02][document]
        losses = {"removed": 4.0, "replaced": 4 + step_1 + noise}
        losses["replaced + distilled"] = losses["replaced"] + step_2 + noise
        rows += [
            {"model": "a", "method": method, "n_removed": 1,
             "text": "none" if method == "removed" else text, "document": document,
             "loss": loss * size, "n_tokens": size} for method, loss in losses.items()
        ]  # fmt: skip
    return pd.DataFrame(rows)


def test_gains_are_pairs_of_documents_weighted_by_their_tokens():
    gains = paired_gains(document_losses(-0.5, -0.1, "stories"))
    assert gains["step"].tolist() == ["removed -> replaced", "replaced -> distilled"]
    noise, sizes = np.array([-0.01, 0.01, -0.02, 0.02]), np.array([10, 20, 30, 40])
    for saved, found in zip((0.5, 0.1), gains[["mean", "low", "high"]].to_numpy(), strict=True):
        assert tuple(found) == pytest.approx(clustered_mean((saved - noise) * sizes, sizes))


def test_gains_are_given_for_each_text():
    other = document_losses(-0.8, 0, "like the test's").query("method != 'removed'")
    rows = pd.concat([document_losses(-0.5, -0.1, "stories"), other])
    means = paired_gains(rows).set_index(["text", "step"])["mean"]
    assert means.loc["like the test's", "removed -> replaced"] == pytest.approx(0.8, abs=0.02)
    assert means.loc["stories", "removed -> replaced"] == pytest.approx(0.5, abs=0.02)
    assert len(means) == 4


@pytest.mark.parametrize(
    ("right", "verdict"),
    [(90, "supported"), (50, "inconclusive"), (10, "contradicted")],
)
def test_accuracy_is_compared_question_by_question(stored, right, verdict):
    rows = []
    for method, text, n, share in (("dense", "none", 0, 95), ("removed", "none", 2, 50),
                                   ("replaced + distilled", "stories", 2, right)):  # fmt: skip
        rows += [(method, text, n, item, int(item < share)) for item in range(100)]
    answers = pd.DataFrame(rows, columns=["method", "text", "n_removed", "item", "correct"])
    stored["fig8_pruning_accuracy_answers"] = answers
    dense = {"method": "dense", "text": "none", "n_removed": 0, "accuracy": 0.95, "low": 0.9}
    stored["fig8_pruning_accuracy"] = pd.DataFrame([dense | {"chance": 0.25, "task": "arc_easy"}])
    finding = claims.keeps_accuracy("tiny")
    assert finding.effect == right - 50
    assert finding.verdict == verdict
    stored["fig8_pruning_accuracy"]["low"] = 0.2
    finding = claims.keeps_accuracy("tiny")
    assert finding.verdict == "not testable at this profile"
    assert "not above chance (25%): it has nothing to lose" in finding.details
