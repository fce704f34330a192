"""Claims about how linear decoders are, and what moves that (Figures 1-4 and 9, Table 1)."""

from __future__ import annotations

from linlib.claims.finding import (
    CONTRADICTED,
    MIXED,
    NO_DIFFERENCE,
    SUPPORTED,
    Finding,
    verdict_over_sizes,
)
from linlib.intervals import mean_interval, paired_differences
from linlib.store import load_frame


def near_linear(profile: str) -> Finding:
    """Supported where the median block scores at least 0.95, and less without residual.

    Contradicted where it scores below 0.9.
    """
    frame = load_frame("fig1_linearity_profiles", profile)
    frame = frame.query("protocol == 'stream' and tokens == 'all'")
    median = frame["linearity_score"].median()
    without = frame["linearity_no_residual"].median()
    verdict = (
        SUPPORTED
        if median >= 0.95 and without < median
        else CONTRADICTED
        if median < 0.9
        else MIXED
    )
    ours = (
        f"median block {median:.2f}, without residual {without:.2f} "
        f"({frame['model'].nunique()} models)"
    )
    return Finding("blocks are near-linear, about 0.99; less without residual", ours, verdict)


def falls_in_pretraining(profile: str) -> Finding:
    """Supported where every model's mean score ends below its first checkpoint's after step 0.

    Contradicted where none does.
    """
    frame = load_frame("fig2_pretraining_dynamics", profile).query("tokens == 'all' and step > 0")
    means = frame.groupby(["model", "step"])["linearity_score"].mean().groupby("model")
    change = means.last() - means.first()
    falls = int((change < 0).sum())
    verdict = {len(change): SUPPORTED, 0: CONTRADICTED}.get(falls, MIXED)
    ours = (
        f"from step 1 to the end it falls in {falls} of {len(change)} models "
        f"(changes from {change.min():+.2f} to {change.max():+.2f})"
    )
    return Finding("pretraining lowers linearity with residual", ours, verdict)


def contributes_little(profile: str) -> Finding:
    """Supported where every layer's median contribution is below half of the stream's norm.

    Contradicted where most layers' are not.
    """
    frame = load_frame("fig3_norms", profile)
    ratio = frame.query("quantity == 'ratio' and tokens == 'no first position'")["median"]
    below = int((ratio < 0.5).sum())
    verdict = (
        SUPPORTED if below == len(ratio) else CONTRADICTED if below < len(ratio) / 2 else MIXED
    )
    ours = f"below half the stream in {below} of {len(ratio)} layers, median {ratio.median():.2f}"
    return Finding("a block adds little beside the stream", ours, verdict)


def cosine_lowers_linearity(profile: str) -> Finding:
    """Supported where the verdict over seeds is "lower" for every size, at equal steps and loss.

    Contradicted where it is "higher" for all, "no difference shown" where it is that for all. Of
    the mean over layers; see `intervals.paired_differences` for what a verdict takes.
    """
    frame = load_frame("fig4_regularised_linearity_comparison", profile)
    frame = frame[frame["pair"] == "cosine-0.5"]
    rows = paired_differences(frame, ["size", "at"], "linearity_no_residual")
    verdict = verdict_over_sizes(rows["verdict"], hoped="lower")
    ours = "; ".join(
        f"{row['size']} {row['mean']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        for row in rows[rows["at"] == "equal steps"].to_dict("records")
    )
    claim = "the cosine term lowers linearity without residual at each layer"
    return Finding(claim, f"mean over layers, {ours}", verdict)


def long_tails(profile: str) -> Finding:
    """Supported where every layer's errors have a heavier tail than Gaussian residuals'.

    The tail is the excess kurtosis; contradicted where no layer's is heavier.
    """
    frame = load_frame("fig9_error_tails_statistics", profile).query("tokens == 'all'")
    heavier = int((frame["excess_kurtosis"] > frame["gaussian_excess_kurtosis"]).sum())
    verdict = {len(frame): SUPPORTED, 0: CONTRADICTED}.get(heavier, MIXED)
    ours = (
        f"heavier than Gaussian in {heavier} of {len(frame)} layers; the worst 1% of tokens hold "
        f"{frame['worst_share'].median():.0%} of the squared error"
    )
    return Finding("errors are long-tailed", ours, verdict)


def fine_tuning_raises_linearity(profile: str) -> Finding:
    """Supported where every cell of Table 1 is positive, and the mean over cells is clearly so.

    Clearly: the interval over seeds of the mean change over cells (models and tasks) lies above 0,
    and so do those of its differences from the two controls; without the latter any further
    training does it, and the verdict is "mixed". Contradicted where the interval of the mean lies
    below 0, "no difference shown" where it holds 0.
    """
    value = "delta_linearity_no_residual"
    frame = load_frame("tab1_finetuning", profile)
    tuned = frame[frame["training"] == "task"]
    cells = tuned.groupby(["model", "task"])[value].mean()
    by_seed = frame.groupby(["training", "seed"])[value].mean().unstack("training")
    mean, low, high = mean_interval(by_seed["task"])
    above = {
        name: mean_interval(by_seed["task"] - by_seed[name])
        for name in ("shuffled labels", "language modelling")
    }
    ours = f"mean change {mean:+.3f} [{low:+.3f}, {high:+.3f}], positive in {(cells > 0).sum()} of "
    ours += f"{len(cells)} cells; " + "; ".join(
        f"minus {name} {m:+.3f} [{lo:+.3f}, {hi:+.3f}]" for name, (m, lo, hi) in above.items()
    )
    claim = "fine-tuning raises linearity without residual, in every cell"
    return Finding(claim, ours, _verdict_of_change(low, high, bool((cells > 0).all()), above))


def _verdict_of_change(
    low: float, high: float, all_positive: bool, above: dict[str, tuple[float, float, float]]
) -> str:
    if high < 0:
        return CONTRADICTED
    if not low > 0:
        return NO_DIFFERENCE
    exceeds_controls = all(lowest > 0 for _, lowest, _ in above.values())
    return SUPPORTED if all_positive and exceeds_controls else MIXED
