"""Claims about what models with the cosine term can do (Figure 5, Tables 2 and 3)."""

from __future__ import annotations

import pandas as pd

from linlib.claims.finding import Finding, verdict_over_sizes
from linlib.intervals import paired_differences
from linlib.store import load_frame

RUN = ["size", "variant", "seed"]
COSINE = "cosine-0.5"


def cosine_probes_better(profile: str) -> Finding:
    """Of the accuracy as a mean over layers 1 .. L; the rule is that of `_better_with_cosine`."""
    frame = load_frame("fig5_probing", profile).query("control == 'trained' and layer > 0")
    scores = frame.groupby(RUN)["accuracy"].mean().reset_index()
    claim = "states of models with the cosine term probe better"
    return _better_with_cosine(scores, "accuracy", claim, "accuracy, mean over layers", 3)


def cosine_improves_superglue(profile: str) -> Finding:
    """Of the mean over the ten columns; the rule is that of `_better_with_cosine`."""
    scores = load_frame("tab2_superglue_mean", profile)
    scores["points"] = 100 * scores["value"]
    claim = "the cosine term improves the SuperGLUE mean"
    return _better_with_cosine(scores, "points", claim, "points", 1)


def cosine_improves_stories(profile: str) -> Finding:
    """Of the mean over the four scores; the rule is that of `_better_with_cosine`."""
    frame = load_frame("tab3_tinystories", profile)
    scores = frame.groupby(RUN)["mean"].mean().reset_index()
    claim = "the cosine term improves the story scores"
    return _better_with_cosine(scores, "mean", claim, "mean of four scores in [0, 10]", 2)


def _better_with_cosine(
    scores: pd.DataFrame, value: str, claim: str, what: str, digits: int
) -> Finding:
    """Supported where the verdict over seeds is "higher" for every size, against the plain model.

    Contradicted where it is "lower" for all, "no difference shown" where it is that for all; see
    `intervals.paired_differences` for what a verdict takes.
    """
    rows = paired_differences(scores, ["size"], value)
    rows = rows[rows["variant"] == COSINE]
    numbers = "; ".join(
        f"{row['size']} {row['mean']:+.{digits}f} [{row['low']:+.{digits}f}, "
        f"{row['high']:+.{digits}f}]"
        for row in rows.to_dict("records")
    )
    verdict = verdict_over_sizes(rows["verdict"], hoped="higher")
    return Finding(claim, f"{what}, {numbers}", verdict)
