"""The paper's claims beside our measurement: functions from stored frames to a finding.

A verdict follows from numbers by the rule in the finding's docstring, and from nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from linlib.intervals import paired_differences
from linlib.store import load_frame

SUPPORTED, CONTRADICTED, MIXED = "supported", "contradicted", "mixed"


@dataclass(frozen=True)
class Finding:
    """One claim of the paper and what we find.

    Attributes:
        figure: the figure or table that makes the claim.
        claim: what the paper says.
        ours: what we measure, with its numbers.
        verdict: what follows.
    """

    figure: str
    claim: str
    ours: str
    verdict: str


def near_linear(profile: str) -> Finding:
    """Supported where the median block scores at least 0.95, contradicted below 0.9."""
    frame = load_frame("fig1_linearity_profiles", profile)
    frame = frame.query("protocol == 'stream' and tokens == 'all'")
    median = frame["linearity_score"].median()
    verdict = SUPPORTED if median >= 0.95 else CONTRADICTED if median < 0.9 else MIXED
    without = frame["linearity_no_residual"].median()
    ours = (
        f"median block {median:.2f}, without residual {without:.2f} "
        f"({frame['model'].nunique()} models)"
    )
    return Finding(
        "Figure 1", "blocks are near-linear, about 0.99; less without residual", ours, verdict
    )


def falls_in_pretraining(profile: str) -> Finding:
    """Supported where every model's mean score ends below its first trained checkpoint's."""
    frame = load_frame("fig2_pretraining_dynamics", profile).query("tokens == 'all' and step > 0")
    means = frame.groupby(["model", "step"])["linearity_score"].mean().groupby("model")
    change = means.last() - means.first()
    falls = int((change < 0).sum())
    verdict = {len(change): SUPPORTED, 0: CONTRADICTED}.get(falls, MIXED)
    ours = (
        f"falls in {falls} of {len(change)} models, by {-change.max():.2f} to {-change.min():.2f}"
    )
    return Finding("Figure 2", "pretraining lowers linearity with residual", ours, verdict)


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
    return Finding("Figure 3", "a block adds little beside the stream", ours, verdict)


def cosine_lowers_linearity(profile: str) -> Finding:
    """Supported where the paired interval over seeds lies below 0 for every size.

    Contradicted where it lies above 0 for every size. At equal steps, mean over layers.
    """
    frame = load_frame("fig4_regularised_linearity_comparison", profile)
    frame = frame[(frame["at"] == "equal steps") & frame["variant"].str.match("plain|cosine")]
    rows = paired_differences(frame, ["size"], "linearity_no_residual")
    verdicts = set(rows["verdict"])
    verdict = {"lower": SUPPORTED, "higher": CONTRADICTED}.get(
        verdicts.pop() if len(verdicts) == 1 else "", "no difference shown"
    )
    ours = "; ".join(
        f"{row['size']} {row['mean']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        for row in rows.to_dict("records")
    )
    claim = "the cosine term lowers linearity without residual at each layer"
    return Finding("Figure 4", claim, ours, verdict)


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
    return Finding("Figure 9", "errors are long-tailed", ours, verdict)


CLAIMS: dict[str, Callable[[str], Finding]] = {
    "fig1_linearity_profiles": near_linear,
    "fig2_pretraining_dynamics": falls_in_pretraining,
    "fig3_norms": contributes_little,
    "fig4_regularised_linearity": cosine_lowers_linearity,
    "fig9_error_tails": long_tails,
}


def findings_table(profile: str, notebooks: str) -> str:
    """All claims whose figure is measured, as a Markdown table: paper, ours, verdict.

    Args:
        profile: whose frames.
        notebooks: the folder of the notebooks, as seen from the page.
    """
    lines = [
        "| | the paper | ours | verdict | notebook |",
        "|---|---|---|---|---|",
    ]
    for name, find in CLAIMS.items():
        try:
            finding = find(profile)
        except FileNotFoundError:
            continue
        number = int("".join(filter(str.isdigit, finding.figure)))
        link = f"[{number:02d}]({notebooks}/{number:02d}_{name}.ipynb)"
        lines.append(
            f"| {finding.figure} | {finding.claim} | {finding.ours} | {finding.verdict} | {link} |"
        )
    return "\n".join(lines)
