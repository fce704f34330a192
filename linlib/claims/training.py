"""Claims about training, tested on models that a profile trains (5 to 11, 15)."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from linlib import store
from linlib.claims.verdicts import Finding, Untestable, claim, interval_text, judged, listed, load
from linlib.stats import pooled_mean

PLAIN, COSINE = "plain", "cosine-0.5"
SIZES = ("650M", "150M")  # of the paper's Mistrals


@claim(5)
def falls_in_pretraining(profile: str, blank: Finding) -> Finding:
    """About the share of variance that is not linear: its logarithm, held out, mean over layers.

    The change is from the first checkpoint at or after the end of warm-up, until which the learning
    rate rises, to the last one. It is paired by seed and pooled over the models that have
    several, with the interval over seeds. Supported where the share rises (above 0), contradicted
    where it falls; a rise of less than a tenth would not matter. Models of one seed are counted
    beside it.
    """
    columns = ["model", "seed", "step", "layer", "tokens", "heldout_score", "warmup_steps"]
    frame = load("fig2_pretraining_dynamics", profile, columns)
    frame = frame[(frame["tokens"] == "all") & (frame["step"] >= frame["warmup_steps"])]
    frame = frame.assign(error=np.log(1 - frame["heldout_score"]))
    means = frame.groupby(["model", "seed", "step"])["error"].mean()
    runs = means.groupby(["model", "seed"])
    change = (runs.last() - runs.first()).rename("change").reset_index()
    cells = [list(group) for _, group in change.groupby("model")["change"]]
    several = [cell for cell in cells if len(cell) > 1]
    rises = sum(np.mean(cell) > 0 for cell in cells)
    details = f"it rises in {rises} of {len(cells)} models"
    interval = pooled_mean(several) if several else (np.mean(cells), math.nan, math.nan)
    if not several:
        details += "; each has one seed, and an interval needs at least two"
    return judged(blank, interval, details=details)


@claim(6)
def fine_tuning_raises_linearity(profile: str, blank: Finding) -> Finding:
    """About the mean over cells (models and tasks), on the general text.

    A seed stands for a model, its pretraining and all of its fine-tunings: tasks are averaged
    first, and models are pooled with their own effects; the interval is over seeds. Supported above
    0, contradicted below. The paper's effect is the mean over the cells of its table. The number of
    positive cells, the change on the tasks' own texts and the differences from the two controls
    stand beside it.
    """
    value = "delta_linearity_no_residual"
    columns = ["model", "task", "training", "seed", "text", value]
    frame = load("tab1_finetuning", profile, columns)

    def pooled(rows: pd.DataFrame, what: pd.Series) -> tuple[float, float, float]:
        by_seed = rows.assign(what=what).groupby(["model", "seed"])["what"].mean()
        return pooled_mean([list(group) for _, group in by_seed.groupby("model")])

    parts = {text: rows for text, rows in frame.groupby("text")}
    task = {text: rows[rows["training"] == "task"] for text, rows in parts.items()}
    general = task["general"]
    interval = pooled(general, general[value])
    cells = general.groupby(["model", "task"])[value].mean()
    details = [f"positive in {(cells > 0).sum()} of {len(cells)} cells"]
    if "task" in task:
        details.append(
            f"on the tasks' texts {interval_text(*pooled(task['task'], task['task'][value]))}"
        )
    key = ["model", "task", "seed"]
    for control in ("shuffled labels", "language modelling"):
        others = parts["general"].query("training == @control").set_index(key)[value]
        if len(others):
            both = general.set_index(key)[value].sub(others).dropna().rename("what").reset_index()
            details.append(f"minus {control} {interval_text(*pooled(both, both['what']))}")
    paper = store.load_paper("tab1_finetuning")[value].mean()
    if math.isnan(interval[1]):
        details.insert(0, "a model has one seed, and an interval needs at least two")
    return judged(blank, interval, paper=paper, details="; ".join(details))


@claim(7)
def cosine_lowers_linearity(profile: str, blank: Finding) -> Finding:
    """About the mean over layers, plain minus cosine of the same seed, at equal steps.

    Pooled over sizes with their own effects, interval over seeds, without runs that diverged.
    Supported above 0, contradicted below; a difference of 0.05 would matter. The same at equal
    loss, and the number of layers that are lower, stand beside it.
    """
    name, value = "fig4_regularised_linearity_comparison", "linearity_no_residual"
    rows = load(name, profile, ["pair", "at", "size", "variant", "seed", "diverged", value])
    rows = rows[rows["pair"] == COSINE]
    interval, notes = _against(rows[rows["at"] == "equal steps"], value, COSINE, sign=-1)
    if (rows["at"] == "equal loss").any():
        at_loss, _ = _against(rows[rows["at"] == "equal loss"], value, COSINE, sign=-1)
        notes += f"; at equal loss {interval_text(*at_loss)}"
    columns = ["size", "variant", "seed", "diverged", "layer", "tokens", value]
    layers = load("fig4_regularised_linearity", profile, columns)
    layers = layers[(layers["tokens"] == "all") & ~layers["diverged"].astype(bool)]
    wide = layers.pivot(index=["size", "layer", "seed"], columns="variant", values=value)
    gaps = (wide[PLAIN] - wide[COSINE]).dropna().groupby(["size", "layer"]).mean()
    notes += f"; lower in {(gaps > 0).sum()} of {len(gaps)} layers"
    return judged(blank, interval, details=notes)


@claim(8)
def cosine_improves_superglue(profile: str, blank: Finding) -> Finding:
    """About the mean over columns that the profile declares, cosine minus plain of the same seed.

    Pooled over sizes with their own effects, interval over seeds, without runs that diverged.
    Supported above 0, contradicted below. The paper's effect is the mean of its two gains. The same
    over all ten columns stands beside it.
    """
    parts = _superglue(profile)
    interval, notes = _against(parts["declared"], "points", COSINE)
    everything, _ = _against(parts["all ten"], "points", COSINE)
    paper = store.load_paper("tab2_superglue").set_index("model")["mean"]
    effect = np.mean(
        [paper[f"Mistral {size} + cosine (0.5)"] - paper[f"Mistral {size}"] for size in SIZES]
    )
    notes += f"; over all ten columns {interval_text(*everything)}"
    return judged(blank, interval, paper=effect, details=notes)


@claim(9)
def cosine_improves_stories(profile: str, blank: Finding) -> Finding:
    """About the mean of the four scores, cosine minus plain of the same seed.

    Pooled over sizes with their own effects, interval over seeds, without runs that diverged.
    Supported above 0, contradicted below. The paper's effect is the mean of its two gains; its
    judge is another one.
    """
    columns = ["size", "variant", "seed", "diverged", "mean"]
    frame = load("tab3_tinystories", profile, columns)
    frame = frame[frame["variant"] != "true ending"]
    runs = frame.groupby(columns[:-1])["mean"].mean().reset_index()
    interval, notes = _against(runs, "mean", COSINE)
    paper = store.load_paper("tab3_tinystories").set_index("config")["mean"]
    effect = np.mean([paper[f"{size} + cosine (0.5)"] - paper[size] for size in SIZES])
    return judged(blank, interval, paper=effect, details=notes)


@claim(10)
def cosine_beats_mse(profile: str, blank: Finding) -> Finding:
    """About the SuperGLUE mean, as claim 8, with the MSE variants of the same seed as the control.

    The control of a seed is the mean of its MSE variants. The paper's effect is the same difference
    in its table.
    """
    rows = _superglue(profile)["declared"]
    variants = sorted(one for one in set(rows["variant"]) if one.startswith("mse"))
    if not variants:
        raise Untestable("no run has the MSE term, so that there is nothing to compare with")
    rows = rows[rows["variant"].isin([*variants, COSINE]) & ~rows["diverged"].astype(bool)]
    sizes = rows.groupby("size")["variant"].unique()
    sizes = [size for size, found in sizes.items() if {*variants, COSINE} <= set(found)]
    rows = rows[rows["size"].isin(sizes)].assign(
        variant=rows["variant"].where(rows["variant"] == COSINE, "mse")
    )
    runs = rows.groupby(["size", "variant", "seed", "diverged"])["points"].mean().reset_index()
    interval, notes = _against(runs, "points", COSINE, control="mse")
    paper = store.load_paper("tab2_superglue").set_index("model")["mean"]
    theirs = [paper[f"Mistral 150M + MSE ({weight})"] for weight in ("0.5", "2.0")]
    effect = paper["Mistral 150M + cosine (0.5)"] - np.mean(theirs)
    return judged(blank, interval, paper=effect, details=notes)


@claim(11)
def cosine_probes_better(profile: str, blank: Finding) -> Finding:
    """About pairs of a right and a wrong ending, as a mean over layers 1 .. L.

    Cosine minus plain of the same seed, pooled over sizes with their own effects, interval over
    seeds, without runs that diverged. Supported above 0, contradicted below; 2 points would matter.
    Not testable where no layer of the plain models tells pairs apart: where the lower end of the
    interval, in the mean over seeds, is at most a half in all layers. All runs are asked about the
    same stories, so that the interval is about these.
    """
    columns = ["size", "variant", "seed", "diverged", "control", "layer", "pair_accuracy"]
    frame = load("fig5_probing", profile, [*columns, "pair_low"])
    frame = frame.query("control == 'trained' and layer > 0")
    frame = frame.assign(points=100 * frame["pair_accuracy"])
    plain = frame[frame["variant"] == PLAIN].groupby(["size", "layer"])
    best = {size: rows.max() for size, rows in plain["points"].mean().groupby("size")}
    if (plain["pair_low"].mean() <= 0.5).all():
        raise Untestable(
            "no layer of the plain models tells pairs apart; best layer "
            f"{listed(pd.Series(best), 0)} (chance 50)"
        )
    runs = frame.groupby(columns[:4])["points"].mean().reset_index()
    interval, notes = _against(runs, "points", COSINE)
    notes += f"; best layer of the plain model {listed(pd.Series(best), 0)} (chance 50)"
    return judged(blank, interval, details=notes)


@claim(15)
def exclusive_to_decoders(profile: str, blank: Finding) -> Finding:
    """About twins that differ in their direction alone, causal minus bidirectional, by seed.

    Supported where the interval over seeds lies above 0.05, contradicted where it lies below: then
    encoders are as linear, or more, but for a difference that would not matter. Pretrained models
    differ in everything else too, and stand beside it.
    """
    columns = ["model", "kind", "trained", "direction", "seed", "layer", "tokens", "heldout_score"]
    frame = load("only_decoders", profile, columns).query("tokens == 'no massive'")
    medians = frame.groupby(["trained", "model", "direction", "seed"], dropna=False)
    medians = medians["heldout_score"].median().reset_index()
    pretrained = medians[medians["trained"] == "pretrained"].set_index("model")["heldout_score"]
    details = f"pretrained models: {listed(pretrained, 2)}" if len(pretrained) else ""
    twins = medians[medians["trained"] == "here"]
    twins = twins.pivot(index="seed", columns="direction", values="heldout_score").dropna()
    if twins.empty:
        raise Untestable("; ".join(filter(None, ("no pair of twins was trained", details))))
    gaps = twins["causal"] - twins["bidirectional"]
    means = ", ".join(f"{name} {value:.2f}" for name, value in twins.mean().items())
    details = "; ".join(filter(None, (f"twins: {means}", details)))
    if len(gaps) < 2:
        details = f"there is one seed, and an interval needs at least two; {details}"
    return judged(blank, pooled_mean([list(gaps)]), details=details)


# --------------------------------------------------------------------------------- comparisons


def _superglue(profile: str) -> dict[str, pd.DataFrame]:
    names = ["size", "variant", "seed", "diverged", "columns", "value"]
    frame = load("tab2_superglue_mean", profile, names)
    frame = frame.assign(points=100 * frame["value"])
    return dict(list(frame.groupby("columns")))


def _against(
    runs: pd.DataFrame, value: str, variant: str, control: str = PLAIN, sign: int = 1
) -> tuple[tuple[float, float, float], str]:
    """Difference of a variant from a control, paired by seed and pooled over sizes.

    Runs that diverged are left out, with their partners.

    Returns:
        The interval, and a note: the difference for each size, and what the whole would be with
        the runs that diverged.

    Raises:
        Untestable: an arm of the comparison is missing, or all of its runs diverged.
    """
    runs = runs[runs["variant"].isin([variant, control])]
    diverged = runs["diverged"].astype(bool)
    for arm in (variant, control):
        if not (runs["variant"] == arm).any():
            raise Untestable(f"there is no run of '{arm}', one arm of the comparison")
        if diverged[runs["variant"] == arm].all():
            raise Untestable(f"all runs of '{arm}' diverged")

    def differences(rows: pd.DataFrame) -> dict[str, pd.Series]:
        wide = rows.pivot(index=["size", "seed"], columns="variant", values=value)
        wide = wide.reindex(columns=[variant, control]).dropna()
        gaps = sign * (wide[variant] - wide[control])
        return {size: gap for size, gap in gaps.groupby("size", sort=False)}

    by_size = differences(runs[~diverged])
    if not by_size:
        raise Untestable(f"no seed has a run of both '{variant}' and '{control}'")
    interval = pooled_mean([list(gap) for gap in by_size.values()])
    notes = [f"{size} {gap.mean():+.2g} ({len(gap)} seeds)" for size, gap in by_size.items()]
    if math.isnan(interval[1]):
        notes.insert(0, "a size has one seed, and an interval needs at least two")
    if diverged.any():
        with_them = pooled_mean([list(gap) for gap in differences(runs).values()])
        runs = "run" if diverged.sum() == 1 else "runs"
        notes.append(f"{diverged.sum()} {runs} diverged; with them {interval_text(*with_them)}")
    return interval, "; ".join(notes)
