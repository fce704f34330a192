"""Claims about models with fewer blocks (Figures 6, 7 and 8)."""

from __future__ import annotations

import pandas as pd

from linlib.claims.finding import CONTRADICTED, MIXED, NO_DIFFERENCE, SUPPORTED, Finding
from linlib.intervals import mean_interval
from linlib.store import load_frame

CURVES = ("fig6_pruning_first", "fig7_pruning_second")
REMOVED, REPLACED, DISTILLED = "removed", "replaced", "replaced + distilled"
LITTLE = 0.1  # nats per token: a perplexity about a tenth higher


def removal_costs_little(profile: str) -> Finding:
    """Of the loss that is added when one block, the most linear, is removed.

    Supported where its interval over windows ends below 0.1 nats (a perplexity a tenth higher) in
    both models, contradicted where it begins above in both, mixed otherwise.
    """
    frames = pd.concat([load_frame(name, profile) for name in CURVES])
    first = frames.query("method == @REMOVED and n_removed == 1").to_dict("records")
    numbers = "; ".join(
        f"{row['model']} {row['added']:+.2f} [{row['added_low']:+.2f}, {row['added_high']:+.2f}]"
        for row in first
    )
    if all(row["added_high"] < LITTLE for row in first):
        verdict = SUPPORTED
    elif all(row["added_low"] > LITTLE for row in first):
        verdict = CONTRADICTED
    else:
        verdict = MIXED
    claim = "removing a few of the most linear blocks costs little"
    return Finding(claim, f"loss added by removing one block, nats per token, {numbers}", verdict)


def replacement_beats_removal(profile: str) -> Finding:
    """Of the held-out loss, window by window, at every number of blocks of both models.

    Supported where a replacement is better than a removal and a distilled replacement better than
    either in every cell, with intervals over windows that exclude zero; contradicted where it is
    so in none; mixed otherwise.
    """
    gains = pd.concat([paired_gains(load_frame(f"{name}_windows", profile)) for name in CURVES])
    better = gains["low"] > 0
    parts = [
        f"{step}: {group['mean'].mean():+.3f}, better in {int((group['low'] > 0).sum())} and worse "
        f"in {int((group['high'] < 0).sum())} of {len(group)} cells"
        for step, group in gains.groupby("step", sort=False)
    ]
    verdict = SUPPORTED if better.all() else MIXED if better.any() else CONTRADICTED
    claim = "linear replacement beats removal, and distillation beats both"
    return Finding(claim, f"nats per token won, {'; '.join(parts)}", verdict)


def replacement_keeps_accuracy(profile: str) -> Finding:
    """Of ARC-easy's accuracy at every number of blocks, as a mean of paired differences.

    Supported where a replacement is above a removal and a distilled replacement not below it, with
    intervals over the numbers of blocks that exclude zero; no difference shown where the interval
    of the first holds zero.
    """
    frame = load_frame("fig8_pruning_accuracy", profile)
    wide = frame[frame["n_removed"] > 0].pivot(
        index="n_removed", columns="method", values="accuracy"
    )
    mean, low, high = mean_interval(100 * (wide[REPLACED] - wide[REMOVED]))
    more, more_low, more_high = mean_interval(100 * (wide[DISTILLED] - wide[REPLACED]))
    dense = 100 * frame.query("n_removed == 0")["accuracy"].item()
    ours = (
        f"points, replaced minus removed {mean:+.1f} [{low:+.1f}, {high:+.1f}], distilled minus "
        f"replaced {more:+.1f} [{more_low:+.1f}, {more_high:+.1f}]; dense {dense:.0f}%, chance "
        f"{100 * frame['chance'].iloc[0]:.0f}%"
    )
    if low > 0:
        verdict = MIXED if more_high < 0 else SUPPORTED
    else:
        verdict = CONTRADICTED if high < 0 else NO_DIFFERENCE
    return Finding("replacement and distillation keep the accuracy on ARC-easy", ours, verdict)


def paired_gains(windows: pd.DataFrame) -> pd.DataFrame:
    """What each method wins over the one before it, window by window.

    Args:
        windows: one row a model, method, number of blocks and window, with its `loss`.

    Returns:
        One row a model, number of blocks and `step` ("removed -> replaced", "replaced ->
        distilled"): `mean` of the loss that is saved, in nats per token, with `low` .. `high`.
    """
    rows = []
    for (model, n_removed), group in windows[windows["n_removed"] > 0].groupby(
        ["model", "n_removed"], sort=False
    ):
        loss = group.pivot(index="window", columns="method", values="loss")
        for before, after, step in (
            (REMOVED, REPLACED, "removed -> replaced"),
            (REPLACED, DISTILLED, "replaced -> distilled"),
        ):
            rows.append((model, n_removed, step, *mean_interval(loss[before] - loss[after])))
    return pd.DataFrame(rows, columns=["model", "n_removed", "step", "mean", "low", "high"])
