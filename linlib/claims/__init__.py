"""The paper's 15 claims: each is a function from stored frames to a finding.

Each rule is in the docstring of its function. All of them end in `decide`, which knows an interval
and nothing else. Some rules were revised after results had been seen; CHANGELOG says which, and
what they were.
"""

from __future__ import annotations

import pandas as pd

from linlib.claims.decoders import (
    aligned_in_cosine,
    contributes_little,
    keeps_accuracy,
    less_without_residual,
    long_tails,
    near_linear,
    paired_gains,
    removal_costs_little,
    replacement_beats_removal,
    tail_intervals,
)
from linlib.claims.training import (
    cosine_beats_mse,
    cosine_improves_stories,
    cosine_improves_superglue,
    cosine_lowers_linearity,
    cosine_probes_better,
    exclusive_to_decoders,
    falls_in_pretraining,
    fine_tuning_raises_linearity,
)
from linlib.claims.verdicts import (
    CLAIMS,
    LITTLE,
    NOT_TESTABLE,
    TEXTS,
    VERDICTS,
    Finding,
    decide,
    number_text,
)

__all__ = [
    "CLAIMS",
    "LITTLE",
    "VERDICTS",
    "Finding",
    "aligned_in_cosine",
    "contributes_little",
    "cosine_beats_mse",
    "cosine_improves_stories",
    "cosine_improves_superglue",
    "cosine_lowers_linearity",
    "cosine_probes_better",
    "decide",
    "exclusive_to_decoders",
    "falls_in_pretraining",
    "findings",
    "findings_table",
    "fine_tuning_raises_linearity",
    "keeps_accuracy",
    "less_without_residual",
    "long_tails",
    "near_linear",
    "paired_gains",
    "removal_costs_little",
    "replacement_beats_removal",
    "tail_intervals",
]


def findings(profile: str) -> pd.DataFrame:
    """The findings on all claims at a profile.

    Columns `number`, `notebook`, the attributes of `Finding`, and its `interval` as text.
    """
    rows = []
    for number, (notebook, *_) in TEXTS.items():
        found = CLAIMS[number](profile)
        place = {"number": number, "notebook": notebook}
        rows.append(place | vars(found) | {"interval": found.interval})
    return pd.DataFrame(rows)


def findings_table(profile: str, notebooks: str) -> str:
    """All claims as a Markdown table: paper, effect, what could have been seen, verdict.

    `notebooks` is their folder, as a link from the page that holds the table.
    """
    lines = ["| | the paper | measured | effect [95%] | from | paper | detectable | verdict |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for one in findings(profile).itertuples():
        paper = number_text(one.goal) if one.from_paper else ""
        cells = [f"[{one.number}]({notebooks}/{one.notebook}.ipynb)", f"{one.claim} ({one.scope})"]
        cells += [one.unit, one.interval, f"{one.threshold:g}", paper, number_text(one.smallest)]
        reason = f": {one.details}" if one.verdict == NOT_TESTABLE else ""
        lines.append(f"| {' | '.join(cells)} | **{one.verdict}**{reason} |")
    return "\n".join(lines)
