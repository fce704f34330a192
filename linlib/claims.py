"""The paper's claims beside ours: each is a function from stored frames to a finding.

A verdict follows from numbers by the rule in the docstring of its function, and from nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pandas as pd

from linlib import store
from linlib.stats import clustered_mean, mean_interval, paired_differences

SUPPORTED, CONTRADICTED, MIXED = "supported", "contradicted", "mixed"
NO_DIFFERENCE = "no difference shown"

RUN = ["size", "variant", "seed"]
COSINE = "cosine-0.5"
CURVES = ("fig6_pruning_first", "fig7_pruning_second")
REMOVED, REPLACED, DISTILLED = "removed", "replaced", "replaced + distilled"
STORIES = "stories"  # the text that the paper fits its maps on
LITTLE = 0.1  # nats per token: a perplexity about a tenth higher
HEAVY = 2  # times the Gaussian's share of the squared error in the worst 1% of tokens


@dataclass(frozen=True)
class Finding:
    """What the paper says, what we measure, and what follows: one of the four verdicts."""

    claim: str
    ours: str
    verdict: str


def near_linear(profile_name: str) -> Finding:
    """About held-out scores without massive tokens, which few tokens cannot make.

    Supported where the median block of each model scores at least 0.95, and less without residual;
    contradicted where that of each model scores below 0.9; mixed otherwise. The score of all tokens
    in sample, which is the paper's, stands beside it.
    """
    frame = store.load_frame("fig1_linearity_profiles", profile_name)
    frame = frame.query("protocol == 'stream'")
    raw = frame.query("tokens == 'all'").groupby("model")["linearity_score"].median()
    names = ["heldout_score", "heldout_no_residual"]
    scores = frame.query("tokens == 'no massive'").groupby("model")[names].median()
    median, without = (scores[name] for name in names)
    verdict = _verdict(((median >= 0.95) & (without < median)).all(), (median < 0.9).all())
    ours = f"median block held out, no massive tokens, {_spans(median, 2)} over {len(raw)} models, "
    ours += f"without residual {_spans(without, 2)}; all tokens in sample {_spans(raw, 3)}"
    return Finding("blocks are near-linear, about 0.99; less without residual", ours, verdict)


def falls_in_pretraining(profile_name: str) -> Finding:
    """Supported where the mean score of every model ends lower than at its first step after 0.

    Contradicted where that of no model does.
    """
    frame = store.load_frame("fig2_pretraining_dynamics", profile_name)
    frame = frame.query("tokens == 'all' and step > 0")
    means = frame.groupby(["model", "step"])["linearity_score"].mean().groupby("model")
    change = means.last() - means.first()
    falls = change < 0
    ours = f"from step 1 to the end it falls in {falls.sum()} of {len(change)} models "
    ours += f"(changes from {change.min():+.2f} to {change.max():+.2f})"
    verdict = _verdict(falls.all(), not falls.any())
    return Finding("pretraining lowers linearity with residual", ours, verdict)


def contributes_little(profile_name: str) -> Finding:
    """Supported where the median contribution of each layer is below half of the resulting stream.

    Contradicted where that of most layers is not. The ratio is ||delta_l|| / ||h_l|| over tokens
    that are not massive. Layer 1, whose input is the embedding, is named apart and does not count.
    """
    frame = store.load_frame("fig3_norms", profile_name)
    frame = frame.query("quantity == 'ratio' and tokens == 'no massive'")
    first, ratio = (
        frame.loc[of_layer, "median"] for of_layer in (frame["layer"] == 1, frame["layer"] > 1)
    )
    below = ratio < 0.5
    verdict = _verdict(below.all(), below.mean() < 0.5)
    ours = f"below half the resulting stream in {below.sum()} of {len(ratio)} layers, median "
    ours += f"{ratio.median():.2f}; layer 1, whose input is the embedding, {first.median():.2f}"
    return Finding("a block adds little beside the stream", ours, verdict)


def cosine_lowers_linearity(profile_name: str) -> Finding:
    """Supported where the verdict over seeds is "lower" for each size, at equal steps and loss.

    It is about the mean over layers, against the plain model, by the rule of
    `_verdict_over_sizes`.
    """
    frame = store.load_frame("fig4_regularised_linearity_comparison", profile_name)
    frame = frame[frame["pair"] == COSINE]
    rows = paired_differences(frame, ["size", "at"], "linearity_no_residual")
    ours = _listed(rows[rows["at"] == "equal steps"], "size", 2)
    claim = "the cosine term lowers linearity without residual at each layer"
    verdict = _verdict_over_sizes(rows["verdict"], hoped="lower")
    return Finding(claim, f"mean over layers, {ours}", verdict)


def cosine_probes_better(profile_name: str) -> Finding:
    """About the accuracy as a mean over layers 1 .. L, by the rule of `_better_with_cosine`."""
    frame = store.load_frame("fig5_probing", profile_name)
    frame = frame.query("control == 'trained' and layer > 0")
    claim = "states of models with the cosine term probe better"
    return _better_with_cosine(frame, "accuracy", claim, "accuracy, mean over layers", 3)


def removal_costs_little(profile_name: str) -> Finding:
    """About the loss added by removing one block, the most linear one: the mildest case.

    Supported where its interval over documents ends below 0.1 nats (a perplexity a tenth higher) in
    each model of Figures 6 and 7 that is measured, contradicted where it begins above in each,
    mixed otherwise.
    """
    first = _curves("", profile_name).query("method == @REMOVED and n_removed == 1")
    first = first.drop_duplicates("model")  # removal fits no map, so that the text is no matter
    ours = _listed(first, "model", 2, ("added", "added_low", "added_high"))
    verdict = _verdict((first["added_high"] < LITTLE).all(), (first["added_low"] > LITTLE).all())
    claim = "removing the most linear blocks, a few of them, costs little"
    return Finding(claim, f"loss added by removing one block, nats per token, {ours}", verdict)


def replacement_beats_removal(profile_name: str) -> Finding:
    """About the held-out loss, document by document, at each number of blocks of Figures 6 and 7.

    Either figure will do. Maps are those fitted on stories, the paper's way, where there are any.
    There are two steps, from removal to replacement and on to distillation. Supported where both
    lower the loss in every cell, with intervals over documents that exclude zero; contradicted
    where both raise it in every cell; no difference shown where no interval excludes zero; mixed
    otherwise.
    """
    gains = _papers_text(paired_gains(_curves("_documents", profile_name)))
    gains["better"], gains["worse"] = gains["low"] > 0, gains["high"] < 0
    parts = [
        f"{step}: {group['mean'].mean():+.3f}, better in {group['better'].sum()} and worse in "
        f"{group['worse'].sum()} of {len(group)} cells"
        for step, group in gains.groupby("step", sort=False)
    ]
    verdict = _verdict(gains["better"].all(), gains["worse"].all())
    if not (gains["better"] | gains["worse"]).any():
        verdict = NO_DIFFERENCE
    claim = "linear replacement beats removal, and distillation beats both"
    return Finding(claim, f"loss reduction, nats per token, {'; '.join(parts)}", verdict)


def replacement_keeps_accuracy(profile_name: str) -> Finding:
    """About the right answers of the distilled model, and of the others, beside the dense one's.

    Accuracy is kept where the interval of the difference from the dense model, paired by item,
    reaches 0. Supported where distillation keeps it at each number of blocks and removal loses it
    at some; contradicted where neither distillation nor replacement keeps it at any; mixed
    otherwise. Maps are those fitted on stories, the paper's way, where there are any. Where the
    dense model is not above chance there is nothing to keep: no difference shown.
    """
    frame = store.load_frame("fig8_pruning_accuracy", profile_name)
    dense = frame.query("n_removed == 0").iloc[0]
    pruned = frame[frame["n_removed"] > 0]
    removed = pruned[pruned["method"] == REMOVED].drop_duplicates(["model", "n_removed"])
    mapped = _papers_text(pruned[pruned["method"] != REMOVED])
    kept = {REMOVED: removed["difference_high"] >= 0} | {
        name: mapped.loc[mapped["method"] == name, "difference_high"] >= 0
        for name in (REPLACED, DISTILLED)
    }
    ours = (
        f"on {dense['task']}, dense {100 * dense['accuracy']:.0f}% (chance "
        f"{100 * dense['chance']:.0f}%); not shown to be lower, of {len(removed)} numbers of "
        "blocks: "
    )
    ours += ", ".join(f"{name} {cells.sum()}" for name, cells in kept.items())
    verdict = _verdict(
        kept[DISTILLED].all() and not kept[REMOVED].all(),
        not kept[DISTILLED].any() and not kept[REPLACED].any(),
    )
    if dense["low"] <= dense["chance"]:
        verdict = NO_DIFFERENCE
    return Finding("linear maps, distilled, keep the accuracy on ARC-easy", ours, verdict)


def long_tails(profile_name: str) -> Finding:
    """Supported where the errors of some layer of each model have a heavy tail.

    The paper claims it of some layers. A tail is heavy where the worst 1% of tokens hold more than
    twice the share of the squared error that they hold in a Gaussian cloud of the same covariance,
    and the excess kurtosis is larger too; massive tokens are left out, which would make any tail
    heavy. Contradicted where no layer of any model has one, mixed otherwise.
    """
    frame = store.load_frame("fig9_error_tails_statistics", profile_name)
    frame = frame.query("tokens == 'no massive'")
    heavier = frame["excess_kurtosis"] > frame["gaussian_excess_kurtosis"]
    heavy = heavier & (frame["worst_share"] > HEAVY * frame["gaussian_worst_share"])
    by_model = heavy.groupby(frame["model"]).any()
    ours = (
        f"heavy in {heavy.sum()} of {len(frame)} layers, of {by_model.sum()} of {len(by_model)} "
        f"models; the worst 1% of tokens hold {frame['worst_share'].median():.0%} of the squared "
        f"error, {frame['gaussian_worst_share'].median():.0%} in a Gaussian cloud"
    )
    verdict = _verdict(by_model.all(), not by_model.any())
    return Finding("errors are long-tailed in some layers", ours, verdict)


def fine_tuning_raises_linearity(profile_name: str) -> Finding:
    """Supported where each cell of Table 1 is positive, and the mean over cells is clearly so.

    Clearly: the interval over seeds of the mean change over cells (models and tasks) lies above 0,
    and so do those of its differences from the two controls; without the latter any further
    training has the effect, and the verdict is "mixed". Contradicted where the interval of the mean
    lies below 0, "no difference shown" where it holds 0.
    """
    value = "delta_linearity_no_residual"
    frame = store.load_frame("tab1_finetuning", profile_name)
    cells = frame[frame["training"] == "task"].groupby(["model", "task"])[value].mean()
    by_seed = frame.groupby(["training", "seed"])[value].mean().unstack("training")
    changes = {"mean change": by_seed["task"]} | {
        f"minus {name}": by_seed["task"] - by_seed[name]
        for name in ("shuffled labels", "language modelling")
    }
    rows = [(name, *mean_interval(values)) for name, values in changes.items()]
    rows = pd.DataFrame(rows, columns=["change", "mean", "low", "high"])
    ours = f"{_listed(rows[:1], 'change', 3)}, positive in {(cells > 0).sum()} of {len(cells)} "
    ours += f"cells; {_listed(rows[1:], 'change', 3)}"
    contradicted = rows["high"][0] < 0
    verdict = _verdict((cells > 0).all() and (rows["low"] > 0).all(), contradicted)
    if not rows["low"][0] > 0 and not contradicted:
        verdict = NO_DIFFERENCE
    claim = "fine-tuning raises linearity without residual, in every cell"
    return Finding(claim, ours, verdict)


def cosine_improves_superglue(profile_name: str) -> Finding:
    """About the mean over the ten columns, by the rule of `_better_with_cosine`."""
    frame = store.load_frame("tab2_superglue_mean", profile_name)
    frame["points"] = 100 * frame["value"]
    claim = "the cosine term improves the SuperGLUE mean"
    return _better_with_cosine(frame, "points", claim, "points", 1)


def cosine_improves_stories(profile_name: str) -> Finding:
    """About the mean over the four scores, by the rule of `_better_with_cosine`."""
    frame = store.load_frame("tab3_tinystories", profile_name)
    claim = "the cosine term improves the story scores"
    return _better_with_cosine(frame, "mean", claim, "mean of four scores in [0, 10]", 2)


# The notebook of each claim -> the finding at a profile.
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


def findings_table(profile_name: str, notebooks: str) -> str:
    """All claims whose frames are measured, as a Markdown table: paper, ours, verdict.

    `notebooks` is their folder, as a link from the page that holds the table.
    """
    lines = ["| | the paper | ours | verdict |", "|---|---|---|---|"]
    for notebook, find in CLAIMS.items():
        try:
            finding = find(profile_name)
        except FileNotFoundError:
            continue
        kind, number = re.match(r"\d+_(fig|tab)(\d+)_", notebook).groups()
        name = f"{'Figure' if kind == 'fig' else 'Table'} {number}"
        link = f"[{name}]({notebooks}/{notebook}.ipynb)"
        lines.append(f"| {link} | {finding.claim} | {finding.ours} | {finding.verdict} |")
    return "\n".join(lines)


def paired_gains(documents: pd.DataFrame) -> pd.DataFrame:
    """Loss that each method saves over the one before it, document by document.

    `documents` has one row per model, method, number of blocks, text of the maps and document, with
    its `loss` (summed over tokens) and `n_tokens`; of removal, any text will do.

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


def _papers_text(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of maps that are fitted on stories, or all where there are none."""
    stories = frame["text"] == STORIES
    return frame[stories] if stories.any() else frame


def _curves(suffix: str, profile_name: str) -> pd.DataFrame:
    """The frames of Figures 6 and 7 that are stored, one below the other.

    Raises:
        FileNotFoundError: neither is.
    """
    frames, missing = [], None
    for name in CURVES:
        try:
            frames.append(store.load_frame(f"{name}{suffix}", profile_name))
        except FileNotFoundError as error:
            missing = missing or error
    if not frames:
        raise missing
    return pd.concat(frames)


def _better_with_cosine(
    frame: pd.DataFrame, value: str, claim: str, what: str, digits: int
) -> Finding:
    """Supported where the verdict over seeds is "higher" for each size, against the plain model.

    The rule is that of `_verdict_over_sizes`. Rows of one run are averaged.
    """
    runs = frame.groupby(RUN)[value].mean().reset_index()
    rows = paired_differences(runs, ["size"], value).query("variant == @COSINE")
    verdict = _verdict_over_sizes(rows["verdict"], hoped="higher")
    return Finding(claim, f"{what}, {_listed(rows, 'size', digits)}", verdict)


def _listed(
    rows: pd.DataFrame, name: str, digits: int, columns: tuple[str, ...] = ("mean", "low", "high")
) -> str:
    """Names and intervals as text: "OPT +0.12 [-0.01, +0.25]; Llama ..."."""
    numbers = rows[list(columns)].map(f"{{:+.{digits}f}}".format).to_numpy()
    return "; ".join(
        f"{label} {mean} [{low}, {high}]"
        for label, (mean, low, high) in zip(rows[name], numbers, strict=True)
    )


def _spans(values: pd.Series, digits: int) -> str:
    """Lowest and highest value as text, or the only one."""
    ends = dict.fromkeys(f"{end:.{digits}f}" for end in (values.min(), values.max()))
    return " to ".join(ends)


def _verdict(supported: bool, contradicted: bool) -> str:
    return SUPPORTED if supported else CONTRADICTED if contradicted else MIXED


def _verdict_over_sizes(verdicts: Iterable[str], hoped: str) -> str:
    """What the verdicts of `stats.paired_differences`, one per size, add up to.

    Supported where all are the one that is hoped for ("higher" or "lower"), contradicted where all
    are the opposite, "no difference shown" where all are that, mixed where they differ.
    """
    found = set(verdicts)
    if found <= {NO_DIFFERENCE}:  # empty where no run has the term
        return NO_DIFFERENCE
    return _verdict(found == {hoped}, len(found) == 1)
