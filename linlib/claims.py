"""The paper's 15 claims: each is a function from stored frames to a finding.

Each rule is in the docstring of its function and was written before the result was looked at. All
of them end in `decide`, which knows the interval and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import norm

from linlib import store
from linlib.stats import CONFIDENCE, clustered_mean, mcnemar, pooled_mean, smallest_effect

SUPPORTED, CONTRADICTED = "supported", "contradicted"
SMALLER, INCONCLUSIVE = "smaller than the paper's", "inconclusive"
NOT_TESTABLE = "not testable at this profile"
VERDICTS = (SUPPORTED, SMALLER, INCONCLUSIVE, CONTRADICTED, NOT_TESTABLE)
REAL, HERE = "real decoders", "models trained here"

PLAIN, COSINE = "plain", "cosine-0.5"
REMOVED, REPLACED, DISTILLED = "removed", "replaced", "replaced + distilled"
STORIES = "stories"  # the text that the paper fits its maps on

# Margins, written before looking.
NEAR, NOT_NEAR = 0.95, 0.90  # held-out scores of blocks that are near-linear, and that are not
MARKEDLY = 0.1  # between the scores with and without residual
HALF = 0.5  # of the resulting stream
ALIGNED = 0.9  # cosine of adjacent states; an update of half the stream at random leaves 0.89
TENTH = math.log(1.1)  # the share of variance that is not linear rises by a tenth
SCORE = 0.05  # a difference of scores that would matter
POINTS = 2.0  # percentage points of right answers that would matter
FEW = 2  # blocks: "a few of the most linear"
LITTLE = 0.1  # nats per token: a perplexity about a tenth higher
HEAVY = 2  # times the Gaussian's share of the squared error in the worst 1% of tokens


class Untestable(Exception):
    """A precondition of a claim fails; the message says which."""


@dataclass(frozen=True)
class Finding:
    """What follows for one claim.

    Attributes:
        claim: what the paper says.
        scope: what it was tested on: `REAL` or `HERE`.
        unit: of the effect and its interval: what was measured, in words.
        effect: the estimate.
        low: lower end of its 95% interval.
        high: the upper end.
        threshold: where the claim begins to hold.
        goal: where it holds in full: the paper's effect, or else one that would matter.
        from_paper: whether that is the paper's effect.
        smallest: the smallest distance from the threshold that the design detects with 80% power.
        verdict: one of `VERDICTS`.
        details: what else there is to know, in words; of a claim that cannot be tested, why not.
    """

    claim: str
    scope: str
    unit: str
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    threshold: float = 0.0
    goal: float = math.nan
    from_paper: bool = False
    smallest: float = math.nan
    verdict: str = NOT_TESTABLE
    details: str = ""

    @property
    def interval(self) -> str:
        """The effect with its interval, such as "+0.12 [-0.01, +0.25]"; "" without an effect."""
        return "" if math.isnan(self.effect) else _interval(self.effect, self.low, self.high)

    @property
    def goal_name(self) -> str:
        """What the goal is."""
        return "the paper's effect" if self.from_paper else "an effect that would matter"

    def to_frame(self, name: str) -> pd.DataFrame:
        """One column of text, for a notebook."""
        rows = {
            "claim": self.claim,
            "tested on": self.scope,
            "measured": self.unit,
            "effect [95% interval]": self.interval,
            "the claim holds from": f"{self.threshold:g}",
            self.goal_name: f"{self.goal:.3g}",
            "smallest detectable (80% power)": _number(self.smallest),
            "verdict": self.verdict,
            "details": self.details,
        }
        return pd.Series(rows).to_frame(name)


def decide(
    low: float,
    high: float,
    claimed: float = 0.0,
    contradicted: float | None = None,
    paper: float = math.nan,
) -> str:
    """The verdict on a claim that an effect lies above `claimed`, from its 95% interval alone.

    - not testable: there is no interval;
    - supported: it lies above `claimed`;
    - contradicted: it lies below `contradicted` (`claimed` if None);
    - smaller than the paper's: neither, and it lies below `paper`, which is the paper's effect or
      one that would matter;
    - inconclusive: it holds both.
    """
    if math.isnan(low) or math.isnan(high):
        return NOT_TESTABLE
    if low > claimed:
        return SUPPORTED
    if high < (claimed if contradicted is None else contradicted):
        return CONTRADICTED
    return SMALLER if high < paper else INCONCLUSIVE


def _judged(
    blank: Finding,
    interval: tuple[float, float, float],
    *,
    below: bool = False,
    contradicted: float | None = None,
    paper: float | None = None,
    details: str = "",
) -> Finding:
    """A finding with numbers and verdict; `below` claims an effect *below* the threshold."""
    effect, low, high = map(float, interval)
    goal = blank.goal if paper is None else float(paper)
    claimed = blank.threshold
    if below:
        verdict = decide(-high, -low, -blank.threshold)
    else:
        verdict = decide(low, high, blank.threshold, contradicted, goal)
    if verdict == NOT_TESTABLE and not details:
        details = "there is one seed, and an interval needs at least two"
    smallest = smallest_effect(low, high)
    return replace(
        blank, effect=effect, low=low, high=high, goal=goal, from_paper=paper is not None,
        smallest=smallest, verdict=verdict, details=details,
    )  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """One of the 15 claims.

    Attributes:
        notebook: where it is measured.
        find: from the name of a profile to the finding.
    """

    notebook: str
    find: Callable[[str], Finding]


CLAIMS: dict[int, Claim] = {}


def _claim(
    number: int,
    notebook: str,
    text: str,
    scope: str,
    unit: str,
    threshold: float = 0.0,
    goal: float = math.nan,
) -> Callable[[Callable[[str, Finding], Finding]], Callable[[str], Finding]]:
    """Register a claim; what cannot be tested becomes a finding too, and says why."""

    def register(find: Callable[[str, Finding], Finding]) -> Callable[[str], Finding]:
        blank = Finding(text, scope, unit, threshold=threshold, goal=goal)

        def testable(profile: str) -> Finding:
            try:
                return find(profile, blank)
            except Untestable as error:
                return replace(blank, details=str(error))

        testable.__name__, testable.__doc__ = find.__name__, find.__doc__
        CLAIMS[number] = Claim(notebook, testable)
        return testable

    return register


# ----------------------------------------------------------------------------- real decoders


@_claim(
    1, "01_fig1_linearity_profiles", "the blocks of decoders are near-linear, about 0.99", REAL,
    "held-out score of the median block, no massive tokens", NEAR, 0.99,
)  # fmt: skip
def near_linear(profile: str, blank: Finding) -> Finding:
    """About held-out scores without massive tokens, which few tokens cannot make.

    The effect is the score of a decoder's median block, with the jackknife interval of that block.
    Of several decoders, the claim must hold for each: the interval reaches from the lowest end to
    the highest. Supported above 0.95, contradicted below 0.90. The paper's effect is 0.99.
    """
    frame = _real(_first_figure(profile))
    parts, raw = [], frame.query("tokens == 'all'").groupby("model")["linearity_score"].median()
    for _, blocks in frame.query("tokens == 'no massive'").groupby("model"):
        parts.append(_of_median_block(blocks, "heldout_score"))
    details = f"over {len(parts)} decoders; all tokens in sample, the paper's quantity: "
    details += _listed(raw, 3)
    return _judged(blank, _envelope(parts), contradicted=NOT_NEAR, paper=0.99, details=details)


@_claim(
    2, "01_fig1_linearity_profiles", "and markedly less so without the residual stream", REAL,
    "held-out score minus that without residual, median block, no massive tokens", MARKEDLY, 0.45,
)  # fmt: skip
def less_without_residual(profile: str, blank: Finding) -> Finding:
    """About the difference of the two held-out scores of one block, in the median over blocks.

    Both scores have one error in common, so that the ends of their intervals belong together. That
    the difference is positive follows from the definitions; markedly is more than 0.1. Several
    decoders as in claim 1. The paper's effect is the middle of what its plot shows for middle
    layers.
    """
    frame = _real(_first_figure(profile)).query("tokens == 'no massive'")
    parts = []
    for _, blocks in frame.groupby("model"):
        columns = {
            end: blocks[f"heldout_score{end}"] - blocks[f"heldout_no_residual{end}"]
            for end in ("", "_low", "_high")
        }
        order = {"": "", "_low": "_high", "_high": "_low"}  # less error, smaller difference
        gaps = pd.DataFrame({f"gap{order[end]}": gap for end, gap in columns.items()})
        parts.append(_of_median_block(gaps, "gap"))
    paper = store.load_paper("fig1_linearity_profiles").query("where == 'middle layers'")
    middle = paper.set_index("quantity")[["paper_low", "paper_high"]].mean(axis=1)
    effect = middle["linearity_score"] - middle["linearity_no_residual"]
    return _judged(blank, _envelope(parts), paper=effect, details=f"over {len(parts)} decoders")


@_claim(
    3, "03_fig3_norms", "what a block adds is small beside the stream", REAL,
    "median over blocks 2 to L of ||delta|| / ||h||, median token", HALF, 0.0,
)  # fmt: skip
def contributes_little(profile: str, blank: Finding) -> Finding:
    """About the median token of the median block, block 1 (which reads the embedding) left out.

    The interval is that of the median block's median, over documents. Supported where it lies below
    half of the resulting stream, contradicted above. Several decoders as in claim 1.
    """
    interval, first = _of_norms(profile, "ratio")
    details = f"block 1, left out: {_listed(first, 2)}"
    return _judged(blank, interval, below=True, details=details)


@_claim(
    4, "03_fig3_norms", "adjacent states point in nearly one direction", REAL,
    "median over blocks 2 to L of cos(h_{l-1}, h_l), median token", ALIGNED, 1.0,
)  # fmt: skip
def aligned_in_cosine(profile: str, blank: Finding) -> Finding:
    """As claim 3, about the cosine of adjacent states: supported above 0.9, contradicted below.

    An update of half the stream in a random direction leaves a cosine of 0.89.
    """
    interval, first = _of_norms(profile, "cosine")
    return _judged(blank, interval, details=f"block 1, left out: {_listed(first, 2)}")


@_claim(
    12, "06_fig6_pruning_first", "removing a few of the most linear blocks costs little", REAL,
    f"loss added by removing the {FEW} most linear blocks, nats per token", LITTLE, 0.0,
)  # fmt: skip
def removal_costs_little(profile: str, blank: Finding) -> Finding:
    """About the two most linear blocks, the least that "a few" can mean.

    The interval is over documents, paired with the dense model. Supported where it lies below 0.1
    nats, a perplexity a tenth higher, contradicted above. Several decoders as in claim 1. One block
    and the most that were removed stand beside it.
    """
    columns = ["model", "method", "n_removed", "added", "added_low", "added_high"]
    frame = _real(_curves("", profile, columns)).query("method == @REMOVED")
    frame = frame.drop_duplicates(
        ["model", "n_removed"]
    )  # removal fits no map: the text is no matter
    chosen = frame[frame["n_removed"] == FEW]
    if chosen.empty:
        raise Untestable(f"no real decoder had {FEW} blocks removed")
    ends = ["added", "added_low", "added_high"]
    others = frame[frame["n_removed"] != FEW].sort_values("n_removed")
    added = [f"{row.n_removed} of {row.model} {row.added:+.2f}" for row in others.itertuples()]
    details = f"other numbers of blocks: {', '.join(added)}" if added else ""
    return _judged(blank, _envelope(chosen[ends].to_numpy()), below=True, details=details)


@_claim(
    13, "07_fig7_pruning_second",
    "linear replacement beats removal, and distillation beats both", REAL,
    "loss saved by the lesser of the two steps, nats per token", 0.0, LITTLE,
)  # fmt: skip
def replacement_beats_removal(profile: str, blank: Finding) -> Finding:
    """About both steps, removed -> replaced and replaced -> distilled: each must save loss.

    Of each step the effect is the mean over the cells (decoders and numbers of blocks) of the
    saving, document by document; maps are those fitted on stories, the paper's way. Cells in which
    distillation kept the maps that it began with have no second step, and are left out of it.
    Supported where both intervals lie above 0, contradicted where one lies below; the finding shows
    the lesser step.
    """
    names = ("model", "method", "text", "n_removed", "document", "loss", "n_tokens")
    gains = _papers_text(paired_gains(_real(_curves("_documents", profile, names))))
    gains = gains[~((gains["step"] == "replaced -> distilled") & (gains["mean"] == 0))]
    steps = {}
    for step, cells in gains.groupby("step", sort=False):
        errors = (cells["high"] - cells["low"]) / 2 / norm.ppf((1 + CONFIDENCE) / 2)
        half = norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt((errors**2).sum()) / len(cells)
        mean = cells["mean"].mean()
        steps[step] = (mean, mean - half, mean + half)
    if len(steps) < 2:
        raise Untestable(
            "distillation kept the maps that it began with in every cell, or was not measured, so "
            "that there is no second step to judge"
        )
    counts = gains.groupby("step", sort=False)["low"].agg(["size", lambda low: (low > 0).sum()])
    parts = [
        f"{step} {_interval(*interval)}, better in {better} of {n} cells"
        for (step, interval), (n, better) in zip(steps.items(), counts.to_numpy(), strict=True)
    ]
    lesser = min(steps.values())
    lows, highs = (min(interval[end] for interval in steps.values()) for end in (1, 2))
    return _judged(blank, (lesser[0], lows, highs), details="; ".join(parts))


@_claim(
    14, "09_fig9_error_tails", "errors of the linear map are long-tailed in some layers", REAL,
    "share of the squared error in the worst 1% of tokens, times the Gaussian's, heaviest layer",
    HEAVY, 2 * HEAVY,
)  # fmt: skip
def long_tails(profile: str, blank: Finding) -> Finding:
    """About the layer of each decoder with the heaviest tail, massive tokens left out.

    A tail is heavy where the worst 1% of tokens hold more than twice the share of the squared error
    that they hold in a Gaussian cloud of the same covariance. The interval is over documents, on
    the logarithm, and corrected for the number of layers (Bonferroni), of which the heaviest is
    shown. Supported above 2; contradicted where even the heaviest layer lies below. Several
    decoders as in claim 1.
    """
    columns = ["model", "layer", "tokens", "log_excess", "log_excess_error"]
    frame = _real(_load("fig9_error_tails_statistics", profile, columns))
    frame, parts, names = frame.query("tokens == 'no massive'"), [], []
    for model, layers in frame.groupby("model"):
        z = norm.ppf(1 - (1 - CONFIDENCE) / 2 / len(layers))
        low = layers["log_excess"] - z * layers["log_excess_error"]
        best = layers.loc[low.idxmax()]
        ends = best["log_excess"] + z * best["log_excess_error"] * np.array([0, -1, 1])
        parts.append(np.exp(ends))
        heavy = (low > math.log(HEAVY)).sum()
        names.append(
            f"{model}: layer {best['layer']:.0f}, heavy in {heavy} of {len(layers)} layers"
        )
    return _judged(blank, _envelope(parts), details="; ".join(names))


def keeps_accuracy(profile: str) -> Finding:
    """About Figure 8's task: what the distilled model answers, beside the model without the blocks.

    It is no claim of its own, but claim 13 in another unit: the effect is the accuracy of the
    distilled model minus that of removal, on the same questions and with the most blocks removed.
    Not testable where the dense model is not above chance. Maps are those fitted on stories.
    """
    text = "linear maps, distilled, keep the accuracy that removal loses"
    blank = Finding(text, REAL, "distilled minus removed, points of right answers", goal=POINTS)
    columns = ["method", "text", "n_removed", "accuracy", "low", "chance", "task"]
    try:
        frame = _load("fig8_pruning_accuracy", profile, columns)
        columns = ["method", "text", "n_removed", "item", "correct"]
        answers = _load("fig8_pruning_accuracy_answers", profile, columns)
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
    except Untestable as error:
        return replace(blank, details=str(error))
    details = f"on {dense['task']}, dense {dense['accuracy']:.0%}, chance {dense['chance']:.0%}, "
    details += f"{most['n_removed'].iloc[0]} blocks removed"
    points = [100 * part for part in difference]
    return _judged(blank, points, details=details)


# ----------------------------------------------------------------------- models trained here


@_claim(
    5, "02_fig2_pretraining_dynamics", "pretraining lowers linearity with residual", HERE,
    "change of log(1 - R^2), held out, mean over layers, from the end of warm-up to the last step",
    0.0, TENTH,
)  # fmt: skip
def falls_in_pretraining(profile: str, blank: Finding) -> Finding:
    """About the share of variance that is not linear: its logarithm, held out, mean over layers.

    The change is from the first checkpoint at or after the end of warm-up, before which a model has
    learned nothing, to the last one. It is paired by seed and pooled over the models that have
    several, with the interval over seeds. Supported where the share rises (above 0), contradicted
    where it falls; a rise of less than a tenth would not matter. Models of one seed are counted
    beside it.
    """
    columns = ["model", "seed", "step", "layer", "tokens", "heldout_score", "warmup_steps"]
    frame = _load("fig2_pretraining_dynamics", profile, columns)
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
    return _judged(blank, interval, details=details)


@_claim(
    6, "10_tab1_finetuning", "fine-tuning raises linearity without residual, in every cell", HERE,
    "change of the score without residual, mean over layers and cells",
)  # fmt: skip
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
    frame = _load("tab1_finetuning", profile, columns)

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
            f"on the tasks' texts {_interval(*pooled(task['task'], task['task'][value]))}"
        )
    key = ["model", "task", "seed"]
    for control in ("shuffled labels", "language modelling"):
        others = parts["general"].query("training == @control").set_index(key)[value]
        if len(others):
            both = general.set_index(key)[value].sub(others).dropna().rename("what").reset_index()
            details.append(f"minus {control} {_interval(*pooled(both, both['what']))}")
    paper = store.load_paper("tab1_finetuning")[value].mean()
    if math.isnan(interval[1]):
        details.insert(0, "a model has one seed, and an interval needs at least two")
    return _judged(blank, interval, paper=paper, details="; ".join(details))


@_claim(
    7, "04_fig4_regularised_linearity",
    "the cosine term lowers linearity without residual at each layer", HERE,
    "score without residual, plain minus cosine, mean over layers, equal steps", 0.0, SCORE,
)  # fmt: skip
def cosine_lowers_linearity(profile: str, blank: Finding) -> Finding:
    """About the mean over layers, plain minus cosine of the same seed, at equal steps.

    Pooled over sizes with their own effects, interval over seeds, without runs that diverged.
    Supported above 0, contradicted below; a difference of 0.05 would matter. The same at equal
    loss, and the number of layers that are lower, stand beside it.
    """
    name, value = "fig4_regularised_linearity_comparison", "linearity_no_residual"
    rows = _load(name, profile, ["pair", "at", "size", "variant", "seed", "diverged", value])
    rows = rows[rows["pair"] == COSINE]
    interval, notes = _against(rows[rows["at"] == "equal steps"], value, COSINE, sign=-1)
    at_loss, _ = _against(rows[rows["at"] == "equal loss"], value, COSINE, sign=-1)
    layers = _load("fig4_regularised_linearity", profile, ["size", "variant", "layer", "tokens"])
    means = layers.query("tokens == 'all'").groupby(["size", "layer", "variant"])[value].mean()
    wide = means.unstack("variant")
    lower = (wide[COSINE] < wide[PLAIN]).sum()
    notes += f"; at equal loss {_interval(*at_loss)}; lower in {lower} of {len(wide)} layers"
    return _judged(blank, interval, details=notes)


@_claim(
    8, "11_tab2_superglue", "the cosine term improves the SuperGLUE mean", HERE,
    "points above the plain model, mean over the columns declared in advance",
)  # fmt: skip
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
    notes += f"; over all ten columns {_interval(*everything)}"
    return _judged(blank, interval, paper=effect, details=notes)


@_claim(
    9, "12_tab3_tinystories", "the cosine term improves the story scores", HERE,
    "score of 10 above the plain model, mean of four scores",
)  # fmt: skip
def cosine_improves_stories(profile: str, blank: Finding) -> Finding:
    """About the mean of the four scores, cosine minus plain of the same seed.

    Pooled over sizes with their own effects, interval over seeds, without runs that diverged.
    Supported above 0, contradicted below. The paper's effect is the mean of its two gains; its
    judge is another one.
    """
    columns = ["size", "variant", "seed", "diverged", "mean"]
    frame = _load("tab3_tinystories", profile, columns)
    frame = frame[frame["variant"] != "true ending"]
    runs = frame.groupby(columns[:-1])["mean"].mean().reset_index()
    interval, notes = _against(runs, "mean", COSINE)
    paper = store.load_paper("tab3_tinystories").set_index("config")["mean"]
    effect = np.mean([paper[f"{size} + cosine (0.5)"] - paper[size] for size in SIZES])
    return _judged(blank, interval, paper=effect, details=notes)


@_claim(
    10, "11_tab2_superglue", "the cosine term beats the MSE term", HERE,
    "points of the cosine term above the mean of the MSE variants, columns declared in advance",
)  # fmt: skip
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
    return _judged(blank, interval, paper=effect, details=notes)


@_claim(
    11, "05_fig5_probing", "states of models with the cosine term probe better", HERE,
    "points of pairs told apart above the plain model, mean over layers", 0.0, POINTS,
)  # fmt: skip
def cosine_probes_better(profile: str, blank: Finding) -> Finding:
    """About pairs of a right and a wrong ending, as a mean over layers 1 .. L.

    Cosine minus plain of the same seed, pooled over sizes with their own effects, interval over
    seeds, without runs that diverged. Supported above 0, contradicted below; 2 points would matter.
    Not testable where no layer of the plain models tells pairs apart.
    """
    columns = ["size", "variant", "seed", "diverged", "control", "layer", "pair_accuracy"]
    frame = _load("fig5_probing", profile, columns).query("control == 'trained' and layer > 0")
    frame = frame.assign(points=100 * frame["pair_accuracy"])
    plain = frame[frame["variant"] == PLAIN].groupby(["size", "layer"])["points"]
    best = {size: rows.max() for size, rows in plain.mean().groupby("size")}
    runs = frame.groupby(columns[:4])["points"].mean().reset_index()
    interval, notes = _against(runs, "points", COSINE)
    notes += f"; best layer of the plain model {_listed(pd.Series(best), 0)} (chance 50)"
    return _judged(blank, interval, details=notes)


@_claim(
    15, "23_only_decoders", "linearity is a property of decoders alone", HERE,
    "held-out score of the median block, no massive tokens, causal minus bidirectional twin",
    SCORE, 2 * SCORE,
)  # fmt: skip
def exclusive_to_decoders(profile: str, blank: Finding) -> Finding:
    """About twins that differ in their direction alone, causal minus bidirectional, by seed.

    Supported where the interval over seeds lies above 0.05, contradicted where it lies below: then
    encoders are as linear, or more, but for a difference that would not matter. Pretrained models
    differ in everything else too, and stand beside it.
    """
    columns = ["model", "kind", "trained", "direction", "seed", "layer", "tokens", "heldout_score"]
    frame = _load("only_decoders", profile, columns).query("tokens == 'no massive'")
    medians = frame.groupby(["trained", "model", "direction", "seed"], dropna=False)
    medians = medians["heldout_score"].median().reset_index()
    pretrained = medians[medians["trained"] == "pretrained"].set_index("model")["heldout_score"]
    details = f"pretrained models: {_listed(pretrained, 2)}" if len(pretrained) else ""
    twins = medians[medians["trained"] == "here"]
    twins = twins.pivot(index="seed", columns="direction", values="heldout_score").dropna()
    if twins.empty:
        raise Untestable("; ".join(filter(None, ("no pair of twins was trained", details))))
    gaps = twins["causal"] - twins["bidirectional"]
    means = ", ".join(f"{name} {value:.2f}" for name, value in twins.mean().items())
    details = "; ".join(filter(None, (f"twins: {means}", details)))
    if len(gaps) < 2:
        details = f"there is one seed, and an interval needs at least two; {details}"
    return _judged(blank, pooled_mean([list(gaps)]), details=details)


SIZES = ("650M", "150M")  # of the paper's Mistrals
CURVES = ("fig6_pruning_first", "fig7_pruning_second")


def findings(profile: str) -> dict[int, Finding]:
    """The findings on all claims at a profile, by number."""
    return {number: CLAIMS[number].find(profile) for number in sorted(CLAIMS)}


def findings_frame(profile: str) -> pd.DataFrame:
    """The findings on all claims as one row each: `number`, `notebook` and those of `Finding`."""
    rows = [
        {"number": number, "notebook": CLAIMS[number].notebook} | vars(finding)
        for number, finding in findings(profile).items()
    ]
    return pd.DataFrame(rows)


def findings_table(profile: str, notebooks: str) -> str:
    """All claims as a Markdown table: paper, effect, what could have been seen, verdict.

    `notebooks` is their folder, as a link from the page that holds the table.
    """
    lines = ["| | the paper | measured | effect [95%] | from | paper | detectable | verdict |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for number, one in findings(profile).items():
        link = f"[{number}]({notebooks}/{CLAIMS[number].notebook}.ipynb)"
        paper = _number(one.goal) if one.from_paper else ""
        cells = [link, f"{one.claim} ({one.scope})", one.unit, one.interval]
        cells += [f"{one.threshold:g}", paper, _number(one.smallest)]
        reason = f": {one.details}" if one.verdict == NOT_TESTABLE else ""
        lines.append(f"| {' | '.join(cells)} | **{one.verdict}**{reason} |")
    return "\n".join(lines)


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


def _load(name: str, profile: str, columns: Collection[str]) -> pd.DataFrame:
    """A stored frame that has the columns which a claim needs.

    Raises:
        Untestable: it was never measured, or by an older version that had other columns.
    """
    try:
        frame = store.load_frame(name, profile)
    except FileNotFoundError:
        raise Untestable(f"{name} was not measured at profile '{profile}'") from None
    if missing := sorted(set(columns) - set(frame.columns)):
        raise Untestable(
            f"{name} was measured by an older version and lacks {missing}; measure it again with "
            f"`make all PROFILE={profile}`"
        )
    return frame


def _real(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of models that the profile did not train, whose labels bear no profile's name.

    Raises:
        Untestable: there are none.
    """
    real = frame[~frame["model"].str.fullmatch(r".* \((smoke|tiny|laptop)\)")]
    if real.empty:
        raise Untestable("the profile measures no real decoder")
    return real


def _first_figure(profile: str) -> pd.DataFrame:
    names = ("heldout_score", "heldout_no_residual")
    columns = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    columns += ["model", "protocol", "tokens", "linearity_score"]
    return _load("fig1_linearity_profiles", profile, columns).query("protocol == 'stream'")


def _of_norms(profile: str, quantity: str) -> tuple[tuple[float, float, float], pd.Series]:
    """Claims 3 and 4: the interval over decoders, and the values of block 1 by model."""
    columns = ["model", "layer", "tokens", "quantity", "median", "low", "high"]
    frame = _real(_load("fig3_norms", profile, columns))
    frame = frame.query("tokens == 'no massive' and quantity == @quantity")
    first = frame[frame["layer"] == 1].set_index("model")["median"]
    inside = frame[frame["layer"] > 1].rename(columns={"low": "median_low", "high": "median_high"})
    parts = [_of_median_block(blocks, "median") for _, blocks in inside.groupby("model")]
    return _envelope(parts), first


def _of_median_block(blocks: pd.DataFrame, name: str) -> tuple[float, float, float]:
    """Value and interval of the block whose value is the median (the lower of two)."""
    ordered = blocks.sort_values(name)[[name, f"{name}_low", f"{name}_high"]]
    return tuple(ordered.iloc[(len(ordered) - 1) // 2])


def _envelope(parts: Iterable[Sequence[float]]) -> tuple[float, float, float]:
    """One interval of several models, each of which must satisfy the claim (intersection-union).

    Its lower end is above a threshold where all of theirs are, its upper end below where all are.
    """
    values, lows, highs = np.array(list(parts), dtype=float).T
    return values.mean(), lows.min(), highs.max()


def _curves(suffix: str, profile: str, columns: Collection[str]) -> pd.DataFrame:
    """The frames of Figures 6 and 7 that are stored, one below the other."""
    frames, missing = [], []
    for name in CURVES:
        try:
            frames.append(_load(f"{name}{suffix}", profile, columns))
        except Untestable as error:
            missing.append(str(error))
    if not frames:
        raise Untestable("; ".join(missing))
    return pd.concat(frames)


def _papers_text(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of maps that are fitted on stories, or all where there are none."""
    stories = frame["text"] == STORIES
    return frame[stories] if stories.any() else frame


def _superglue(profile: str) -> dict[str, pd.DataFrame]:
    names = ["size", "variant", "seed", "diverged", "columns", "value"]
    frame = _load("tab2_superglue_mean", profile, names)
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
        notes.append(f"{diverged.sum()} runs diverged; with them {_interval(*with_them)}")
    return interval, "; ".join(notes)


# -------------------------------------------------------------------------------------- text


def _interval(effect: float, low: float, high: float) -> str:
    """An effect with its interval, with as many digits as the interval deserves."""
    width = high - low if high > low else abs(effect)
    digits = 2 if not width > 0 else min(max(1 - math.floor(math.log10(width)), 0), 4)
    if math.isnan(low):
        return f"{effect:+.{digits}f}"
    return f"{effect:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2g}"


def _listed(values: pd.Series, digits: int) -> str:
    return ", ".join(f"{name} {value:.{digits}f}" for name, value in values.items())
