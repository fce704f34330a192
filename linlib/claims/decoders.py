"""Claims about real decoders (1 to 4, 12 to 14)."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import norm

from linlib import store
from linlib.claims.verdicts import (
    FEW,
    HEAVY,
    NOT_NEAR,
    POINTS,
    REAL,
    Finding,
    Untestable,
    claim,
    finding,
    interval_text,
    judged,
    judged_of_each,
    listed,
    load,
)
from linlib.stats import CONFIDENCE, POWER, clustered_mean, mcnemar

CURVES = ("fig6_pruning_first", "fig7_pruning_second")
REMOVED, REPLACED, DISTILLED = "removed", "replaced", "replaced + distilled"
STORIES = "stories"  # the text that the paper fits its maps on


@claim(1)
def near_linear(profile: str, blank: Finding) -> Finding:
    """About held-out scores without massive tokens, which few tokens cannot make.

    The effect is the score of a decoder's median block, with the jackknife interval of that block.
    Of several decoders, the claim must hold for each: see `judged_of_each`. Supported above 0.95,
    contradicted below 0.90. The paper's effect is 0.99.
    """
    frame = real(_first_figure(profile), profile)
    parts, raw = [], frame.query("tokens == 'all'").groupby("model")["linearity_score"].median()
    for _, blocks in frame.query("tokens == 'no massive'").groupby("model"):
        parts.append(_of_median_block(blocks, "heldout_score"))
    details = f"all tokens in sample, the paper's quantity: {listed(raw, 3)}"
    return judged_of_each(blank, parts, contradicted=NOT_NEAR, paper=0.99, details=details)


@claim(2)
def less_without_residual(profile: str, blank: Finding) -> Finding:
    """About the difference of the two held-out scores of one block, in the median over blocks.

    Both scores have one error in common, so that the ends of their intervals belong together. That
    the difference is positive follows from the definitions; markedly is more than 0.1. Several
    decoders as in claim 1. The paper's effect is the middle of what its plot shows for middle
    layers.
    """
    frame = real(_first_figure(profile), profile).query("tokens == 'no massive'")
    parts, names = [], []
    for name, blocks in frame.groupby("model"):
        columns = {
            end: blocks[f"heldout_score{end}"] - blocks[f"heldout_no_residual{end}"]
            for end in ("", "_low", "_high")
        }
        order = {"": "", "_low": "_high", "_high": "_low"}  # less error, smaller difference
        gaps = pd.DataFrame({f"gap{order[end]}": gap for end, gap in columns.items()})
        parts.append(_of_median_block(gaps, "gap"))
        names.append(f"{name} {interval_text(*parts[-1])}")
    paper = store.load_paper("fig1_linearity_profiles").query("where == 'middle layers'")
    middle = paper.set_index("quantity")[["paper_low", "paper_high"]].mean(axis=1)
    effect = middle["linearity_score"] - middle["linearity_no_residual"]
    return judged_of_each(blank, parts, paper=effect, details=", ".join(names))


@claim(3)
def contributes_little(profile: str, blank: Finding) -> Finding:
    """About the median token of the median block, block 1 (which reads the embedding) left out.

    The interval is that of the median block's median, over documents. Supported where it lies below
    half of the resulting stream, contradicted above. Several decoders as in claim 1.
    """
    parts, first = _of_norms(profile, "ratio")
    details = f"block 1, left out: {listed(first, 2)}"
    return judged_of_each(blank, parts, below=True, details=details)


@claim(4)
def aligned_in_cosine(profile: str, blank: Finding) -> Finding:
    """As claim 3, about the cosine of adjacent states: supported above 0.9, contradicted below.

    An update of half the stream in a random direction leaves a cosine of 0.89.
    """
    parts, first = _of_norms(profile, "cosine")
    return judged_of_each(blank, parts, details=f"block 1, left out: {listed(first, 2)}")


@claim(12)
def removal_costs_little(profile: str, blank: Finding) -> Finding:
    """About the two most linear blocks, the least that "a few" can mean.

    The interval is over documents, paired with the dense model. Supported where it lies below 0.1
    nats, a perplexity a tenth higher, contradicted above. Several decoders as in claim 1. One block
    and the most that were removed stand beside it.
    """
    columns = ["model", "method", "n_removed", "added", "added_low", "added_high"]
    frame = real(_curves("", profile, columns), profile).query("method == @REMOVED")
    frame = frame.drop_duplicates(["model", "n_removed"])  # removal fits no map
    chosen = frame[frame["n_removed"] == FEW]
    if chosen.empty:
        raise Untestable(f"no real decoder had {FEW} blocks removed")
    parts = list(chosen[["added", "added_low", "added_high"]].itertuples(index=False))
    others = frame[frame["n_removed"] != FEW].sort_values("n_removed")
    added = [f"{row.n_removed} of {row.model} {row.added:+.2f}" for row in others.itertuples()]
    details = f"other numbers of blocks: {', '.join(added)}" if added else ""
    return judged_of_each(blank, parts, below=True, details=details)


@claim(13)
def replacement_beats_removal(profile: str, blank: Finding) -> Finding:
    """About both steps, removed -> replaced and replaced -> distilled: each must save loss.

    Of each step the effect is the mean over the cells (decoders and numbers of blocks) of the
    saving, document by document, and so are the ends of its interval: cells share documents and
    blocks, and their mean is taken to be no surer than one of them. Maps are those fitted on
    stories, the paper's way; what the first step saves with maps from text like the test's stands
    beside it. A distillation that kept the maps that it began with has saved nothing.

    Supported where both intervals lie above 0, contradicted where one lies below; the finding shows
    the lesser step.
    """
    names = ("model", "method", "text", "n_removed", "document", "loss", "n_tokens")
    all_gains = paired_gains(real(_curves("_documents", profile, names), profile))
    gains, steps = _papers_text(all_gains), {}
    for step, cells in gains.groupby("step", sort=False):
        steps[step] = tuple(cells[["mean", "low", "high"]].mean())
    counts = gains.groupby("step", sort=False)["low"].agg(["size", lambda low: (low > 0).sum()])
    parts = [
        f"{step} {interval_text(*interval)}, better in {better} of {n} cells"
        for (step, interval), (n, better) in zip(steps.items(), counts.to_numpy(), strict=True)
    ]
    like = all_gains.query("step == 'removed -> replaced' and text != @STORIES")
    if len(like) and len(gains) < len(all_gains):
        interval = interval_text(*like[["mean", "low", "high"]].mean())
        parts.append(f"with maps from text like the test's, removed -> replaced {interval}")
    if len(steps) < 2:
        raise Untestable(f"one of the two steps was not measured; {'; '.join(parts)}")
    lesser = min(steps.values())
    lows, highs = (min(interval[end] for interval in steps.values()) for end in (1, 2))
    return judged(blank, (lesser[0], lows, highs), details="; ".join(parts))


@claim(14)
def long_tails(profile: str, blank: Finding) -> Finding:
    """About the layer of each decoder with the heaviest tail, massive tokens left out.

    A tail is heavy where the worst 1% of tokens hold more than twice the share of the squared error
    that they hold in a Gaussian cloud of the same covariance. The interval is over documents, and
    holds for all layers together (see `tail_intervals`): that of the heaviest reaches from the
    highest of their lower ends to the highest of the upper ones. Supported above 2; contradicted
    where all layers lie below. Several decoders as in claim 1. The smallest detectable effect is
    that of the layer with the heaviest estimate.
    """
    columns = ["model", "layer", "tokens", "log_excess", "log_excess_error"]
    frame = real(load("fig9_error_tails_statistics", profile, columns), profile)
    parts, names, smallest = [], [], []
    for model, layers in frame.query("tokens == 'no massive'").groupby("model"):
        tails = tail_intervals(layers)
        shown = tails.loc[tails["excess"].idxmax()]
        parts.append(tuple(tails[["excess", "low", "high"]].max()))
        detectable = math.log(shown["excess"] / shown["low"]) + norm.ppf(POWER) * shown["error"]
        smallest.append(HEAVY * math.expm1(detectable))
        heavy = (tails["low"] > HEAVY).sum()
        names.append(
            f"{model}: layer {shown['layer']:.0f}, heavy in {heavy} of {len(tails)} layers"
        )
    found = judged_of_each(blank, parts, details="; ".join(names))
    return replace(found, smallest=max(smallest))


def tail_intervals(layers: pd.DataFrame) -> pd.DataFrame:
    """How heavy the tails of a model's layers are: `layer`, `excess`, `low`, `high`, `error`.

    `excess` is the factor by which the worst 1% of tokens hold more of the squared error than in a
    Gaussian cloud. Its interval is formed on the logarithm, whose standard error is `error`, and
    holds for all layers together with 95% (Bonferroni).

    Args:
        layers: rows of one model and token group of Figure 9's statistics, with `layer`,
            `log_excess` and `log_excess_error`.
    """
    z = norm.ppf(1 - (1 - CONFIDENCE) / 2 / len(layers))
    middle, error = layers["log_excess"], layers["log_excess_error"]
    ends = {"excess": middle, "low": middle - z * error, "high": middle + z * error}
    return layers[["layer"]].assign(**{k: np.exp(end) for k, end in ends.items()}, error=error)


@finding(
    Finding(
        "linear maps, distilled, keep the accuracy that removal loses",
        REAL,
        "distilled minus removed, points of right answers",
        goal=POINTS,
    )
)
def keeps_accuracy(profile: str, blank: Finding) -> Finding:
    """About Figure 8's task: what the distilled model answers, beside the model without the blocks.

    It is no claim of its own, but claim 13 in another unit: the effect is the accuracy of the
    distilled model minus that of removal, on the same questions and with the most blocks removed.
    Not testable where the dense model is not above chance. Maps are those fitted on stories.
    """
    columns = ["method", "text", "n_removed", "accuracy", "low", "chance", "task"]
    frame = load("fig8_pruning_accuracy", profile, columns)
    columns = ["method", "text", "n_removed", "item", "correct"]
    answers = load("fig8_pruning_accuracy_answers", profile, columns)
    dense = frame.query("n_removed == 0").iloc[0]
    if dense["low"] <= dense["chance"]:
        raise Untestable(
            f"the dense model answers {dense['accuracy']:.0%} of {dense['task']}, which is not "
            f"above chance ({dense['chance']:.0%}): it has nothing to lose"
        )
    most = answers[answers["n_removed"] == answers["n_removed"].max()]
    distilled = _papers_text(most[most["method"] == DISTILLED]).set_index("item")["correct"]
    removed = most[most["method"] == REMOVED].drop_duplicates("item").set_index("item")
    if distilled.empty or removed.empty:
        raise Untestable(f"{DISTILLED} or {REMOVED} was not measured")
    difference = mcnemar(distilled, removed.loc[distilled.index, "correct"])[:3]
    details = f"on {dense['task']}, dense {dense['accuracy']:.0%}, chance {dense['chance']:.0%}, "
    details += f"{most['n_removed'].iloc[0]} blocks removed"
    points = [100 * part for part in difference]
    return judged(blank, points, details=details)


def paired_gains(documents: pd.DataFrame) -> pd.DataFrame:
    """Loss that each method saves over the one before it, document by document.

    `documents` has one row per model, method, number of blocks, text of the maps and document, with
    `loss`, the sum over its `n_tokens` tokens; removal fits no map, and is the same for all texts.

    Returns:
        One row per model, `text`, number of blocks and `step` ("removed -> replaced", "replaced ->
        distilled"): `mean` of the loss that is saved, in nats per token, with `low` .. `high`.
    """
    keys = ["model", "text", "n_removed"]
    removed = documents[documents["method"] == REMOVED]
    removed = removed.drop_duplicates(["model", "n_removed", "document"])
    removed = removed.set_index(["model", "n_removed", "document"])["loss"].sort_index()
    rows = []
    mapped = documents[documents["method"].isin([REPLACED, DISTILLED])]
    for (model, text, n), group in mapped.groupby(keys, sort=False):
        loss = group.pivot(index="document", columns="method", values="loss")
        loss[REMOVED] = removed.loc[model, n]
        sizes = group.drop_duplicates("document").set_index("document")["n_tokens"]
        for step, first, then in (
            ("removed -> replaced", REMOVED, REPLACED),
            ("replaced -> distilled", REPLACED, DISTILLED),
        ):
            if {first, then} <= set(loss.columns):
                saved = clustered_mean(loss[first] - loss[then], sizes[loss.index])
                rows.append((model, text, n, step, *saved))
    return pd.DataFrame(rows, columns=[*keys, "step", "mean", "low", "high"])


# ------------------------------------------------------------------------------------ frames


def real(frame: pd.DataFrame, profile: str) -> pd.DataFrame:
    """The rows of models that the profile did not train, whose labels do not bear its name.

    Raises:
        Untestable: there are none.
    """
    real = frame[~frame["model"].str.endswith(f" ({profile})")]
    if real.empty:
        raise Untestable("the profile measures no real decoder")
    return real


def _first_figure(profile: str) -> pd.DataFrame:
    names = ("heldout_score", "heldout_no_residual")
    columns = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    columns += ["model", "protocol", "tokens", "linearity_score"]
    return load("fig1_linearity_profiles", profile, columns).query("protocol == 'stream'")


def _of_norms(profile: str, quantity: str) -> tuple[list[tuple], pd.Series]:
    """Claims 3 and 4: the interval of each decoder, and the values of block 1 by model."""
    columns = ["model", "layer", "tokens", "quantity", "median", "low", "high"]
    frame = real(load("fig3_norms", profile, columns), profile)
    frame = frame.query("tokens == 'no massive' and quantity == @quantity")
    first = frame[frame["layer"] == 1].set_index("model")["median"]
    inside = frame[frame["layer"] > 1].rename(columns={"low": "median_low", "high": "median_high"})
    parts = [_of_median_block(blocks, "median") for _, blocks in inside.groupby("model")]
    return parts, first


def _of_median_block(blocks: pd.DataFrame, name: str) -> tuple[float, float, float]:
    """Value and interval of the block whose value is the median (the lower of two)."""
    ordered = blocks.sort_values(name)[[name, f"{name}_low", f"{name}_high"]]
    return tuple(ordered.iloc[(len(ordered) - 1) // 2])


def _curves(suffix: str, profile: str, columns: Collection[str]) -> pd.DataFrame:
    """The frames of Figures 6 and 7 that are stored, one below the other."""
    frames, missing = [], []
    for name in CURVES:
        try:
            frames.append(load(f"{name}{suffix}", profile, columns))
        except Untestable as error:
            missing.append(str(error))
    if not frames:
        raise Untestable("; ".join(missing))
    return pd.concat(frames)


def _papers_text(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of maps that are fitted on stories, or all where there are none."""
    stories = frame["text"] == STORIES
    return frame[stories] if stories.any() else frame
