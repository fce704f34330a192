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
    """Of the loss that is added when one block, the most linear, is removed: the mildest case.

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
    claim = "removing the most linear blocks, a few of them, costs little"
    return Finding(claim, f"loss added by removing one block, nats per token, {numbers}", verdict)


def replacement_beats_removal(profile: str) -> Finding:
    """Of the held-out loss, window by window, at every number of blocks of both models.

    Two steps are looked at, from removal to replacement and on to distillation. Supported where
    both pay in every cell, with intervals over windows that exclude zero; contradicted where both
    cost in every cell; no difference shown where no interval excludes zero; mixed otherwise.
    """
    gains = pd.concat([paired_gains(load_frame(f"{name}_windows", profile)) for name in CURVES])
    better, worse = gains["low"] > 0, gains["high"] < 0
    parts = [
        f"{step}: {group['mean'].mean():+.3f}, better in {int((group['low'] > 0).sum())} and worse "
        f"in {int((group['high'] < 0).sum())} of {len(group)} cells"
        for step, group in gains.groupby("step", sort=False)
    ]
    if better.all() or worse.all():
        verdict = SUPPORTED if better.all() else CONTRADICTED
    else:
        verdict = MIXED if (better | worse).any() else NO_DIFFERENCE
    claim = "linear replacement beats removal, and distillation beats both"
    return Finding(claim, f"nats per token won, {'; '.join(parts)}", verdict)


def replacement_keeps_accuracy(profile: str) -> Finding:
    """Of ARC-easy's accuracy: the distilled model beside the dense one, and beside the removal.

    Accuracy is kept where the interval over questions does not end below the dense model's. The
    claim is supported where distillation keeps it at every number of blocks and removal loses it at
    some; contradicted where neither distillation nor replacement keeps it at any; mixed otherwise.
    Where the dense model is not above chance there is nothing to keep: no difference shown.
    """
    frame = load_frame("fig8_pruning_accuracy", profile)
    dense = frame.query("n_removed == 0").iloc[0]
    pruned = frame[frame["n_removed"] > 0]
    keeps = pruned["high"] >= dense["accuracy"]
    kept = {name: keeps[pruned["method"] == name] for name in (REMOVED, REPLACED, DISTILLED)}
    counts = ", ".join(f"{name} {int(cells.sum())}" for name, cells in kept.items())
    ours = (
        f"dense {100 * dense['accuracy']:.0f}% (chance {100 * dense['chance']:.0f}%); not shown to "
        f"be lower, of {len(kept[REMOVED])} numbers of blocks: {counts}"
    )
    if dense["low"] <= dense["chance"]:
        verdict = NO_DIFFERENCE
    elif kept[DISTILLED].all() and not kept[REMOVED].all():
        verdict = SUPPORTED
    elif not kept[DISTILLED].any() and not kept[REPLACED].any():
        verdict = CONTRADICTED
    else:
        verdict = MIXED
    return Finding("linear maps, distilled, keep the accuracy on ARC-easy", ours, verdict)


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
