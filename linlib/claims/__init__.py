"""The paper's claims beside our measurement: functions from stored frames to a finding.

A verdict follows from numbers by the rule in the finding's docstring, and from nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from linlib.claims.ability import (
    cosine_improves_stories,
    cosine_improves_superglue,
    cosine_probes_better,
)
from linlib.claims.finding import CONTRADICTED, MIXED, NO_DIFFERENCE, SUPPORTED, Finding
from linlib.claims.linearity import (
    contributes_little,
    cosine_lowers_linearity,
    falls_in_pretraining,
    fine_tuning_raises_linearity,
    long_tails,
    near_linear,
)
from linlib.claims.pruning import (
    paired_gains,
    removal_costs_little,
    replacement_beats_removal,
    replacement_keeps_accuracy,
)

__all__ = [
    "CLAIMS",
    "CONTRADICTED",
    "MIXED",
    "NO_DIFFERENCE",
    "SUPPORTED",
    "Finding",
    "contributes_little",
    "cosine_improves_stories",
    "cosine_improves_superglue",
    "cosine_lowers_linearity",
    "cosine_probes_better",
    "falls_in_pretraining",
    "findings_table",
    "fine_tuning_raises_linearity",
    "long_tails",
    "near_linear",
    "paired_gains",
    "removal_costs_little",
    "replacement_beats_removal",
    "replacement_keeps_accuracy",
]

# The notebook whose claim it is -> the finding at a profile.
CLAIMS: dict[str, Callable[[str], Finding]] = {
    "01_fig1_linearity_profiles": near_linear,
    "02_fig2_pretraining_dynamics": falls_in_pretraining,
    "03_fig3_norms": contributes_little,
    "04_fig4_regularised_linearity": cosine_lowers_linearity,
    "05_fig5_probing": cosine_probes_better,
    "06_fig6_pruning_first": removal_costs_little,
    "07_fig7_pruning_second": replacement_beats_removal,
    "08_fig8_pruning_accuracy": replacement_keeps_accuracy,
    "09_fig9_error_tails": long_tails,
    "10_tab1_finetuning": fine_tuning_raises_linearity,
    "11_tab2_superglue": cosine_improves_superglue,
    "12_tab3_tinystories": cosine_improves_stories,
}


def findings_table(profile: str, notebooks: str) -> str:
    """All claims whose figure is measured, as a Markdown table: paper, ours, verdict.

    Args:
        profile: whose frames.
        notebooks: the folder of the notebooks, as seen from the page.
    """
    lines = ["| | the paper | ours | verdict |", "|---|---|---|---|"]
    for notebook, find in CLAIMS.items():
        try:
            finding = find(profile)
        except FileNotFoundError:
            continue
        kind, number = re.match(r"\d+_(fig|tab)(\d+)_", notebook).groups()
        name = f"{'Figure' if kind == 'fig' else 'Table'} {number}"
        link = f"[{name}]({notebooks}/{notebook}.ipynb)"
        lines.append(f"| {link} | {finding.claim} | {finding.ours} | {finding.verdict} |")
    return "\n".join(lines)
