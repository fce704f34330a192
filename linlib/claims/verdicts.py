"""What follows for a claim: an effect, its interval, what could have been seen, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from linlib import store
from linlib.stats import smallest_effect

SUPPORTED, CONTRADICTED = "supported", "contradicted"
SMALLER, INCONCLUSIVE = "smaller than the paper's", "inconclusive"
NOT_TESTABLE = "not testable at this profile"
VERDICTS = (SUPPORTED, SMALLER, INCONCLUSIVE, CONTRADICTED, NOT_TESTABLE)
REAL, HERE = "real decoders", "models trained here"

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

# Number -> notebook, what the paper says, what it is tested on, what is measured, where the claim
# begins to hold, and where it holds in full: an effect that would matter, if the paper names none.
# fmt: off
TEXTS = {
    1: ("01_fig1_linearity_profiles", "the blocks of decoders are near-linear, about 0.99", REAL,
        "held-out score of the median block, no massive tokens", NEAR, 0.99),
    2: ("01_fig1_linearity_profiles", "and markedly less so without the residual stream", REAL,
        "held-out score minus that without residual, median block, no massive tokens",
        MARKEDLY, 0.45),
    3: ("03_fig3_norms", "what a block adds is small beside the stream", REAL,
        "norm of a block's output over that of the stream, median token, median of blocks 2 to L",
        HALF, 0.0),
    4: ("03_fig3_norms", "adjacent states point in nearly one direction", REAL,
        "cosine of adjacent states, median token, median of blocks 2 to L", ALIGNED, 1.0),
    5: ("02_fig2_pretraining_dynamics", "pretraining lowers linearity with residual", HERE,
        "change of log(1 - R^2), held out, mean over layers, from the end of warm-up to the end",
        0.0, TENTH),
    6: ("10_tab1_finetuning", "fine-tuning raises linearity without residual, on average", HERE,
        "change of the score without residual, mean over layers and cells", 0.0, SCORE),
    7: ("04_fig4_regularised_linearity",
        "the cosine term lowers linearity without residual, on average over layers", HERE,
        "score without residual, plain minus cosine, mean over layers, equal steps", 0.0, SCORE),
    8: ("11_tab2_superglue", "the cosine term improves the SuperGLUE mean", HERE,
        "points above the plain model, mean over the columns declared in advance", 0.0, POINTS),
    9: ("12_tab3_tinystories", "the cosine term improves the story scores", HERE,
        "points of 10 above the plain model, mean of four scores", 0.0, 0.5),
    10: ("11_tab2_superglue", "the cosine term beats the MSE term", HERE,
         "points above the mean of the MSE variants, columns declared in advance", 0.0, POINTS),
    11: ("05_fig5_probing", "states of models with the cosine term probe better", HERE,
         "points of pairs told apart above the plain model, mean over layers", 0.0, POINTS),
    12: ("06_fig6_pruning_first", "removing a few of the most linear blocks costs little", REAL,
         f"loss added by removing the {FEW} most linear blocks, nats per token", LITTLE, 0.0),
    13: ("07_fig7_pruning_second",
         "linear replacement beats removal, and distillation beats both", REAL,
         "loss saved by the lesser of the two steps, maps fitted on stories, nats per token",
         0.0, LITTLE),
    14: ("09_fig9_error_tails", "errors of the linear map are long-tailed in some layers", REAL,
         "squared error in the worst 1% of tokens, times a Gaussian's, heaviest layer",
         HEAVY, 2 * HEAVY),
    15: ("23_only_decoders", "linearity is a property of decoders alone", HERE,
         "held-out score of the median block, no massive tokens, causal minus bidirectional twin",
         SCORE, 2 * SCORE),
}
# fmt: on


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
        if math.isnan(self.effect):
            return ""
        sign = "+" if self.threshold == 0 else ""  # of differences alone
        return interval_text(self.effect, self.low, self.high, sign, self.threshold)

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
            "smallest detectable (80% power)": number_text(self.smallest),
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
    - inconclusive: none of these, so that it leaves open whether the claim holds.

    A supported effect may still be smaller than one that would matter; its interval tells.
    """
    if math.isnan(low) or math.isnan(high):
        return NOT_TESTABLE
    if low > claimed:
        return SUPPORTED
    if high < (claimed if contradicted is None else contradicted):
        return CONTRADICTED
    return SMALLER if high < paper else INCONCLUSIVE


def judged(
    blank: Finding,
    interval: tuple[float, float, float],
    *,
    below: bool = False,
    contradicted: float | None = None,
    paper: float | None = None,
    details: str = "",
) -> Finding:
    """A finding with numbers and verdict.

    `below` claims an effect *below* the threshold, which holds or does not: such a claim is never
    smaller than the paper's.
    """
    effect, low, high = map(float, interval)
    goal = blank.goal if paper is None else float(paper)
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


def judged_of_each(
    blank: Finding, parts: Sequence[tuple[float, float, float]], **rule: object
) -> Finding:
    """A finding on a claim that must hold for each of several decoders.

    Its interval reaches from the lowest end of theirs to the highest: it is supported where all of
    theirs are, and contradicted where one is. The smallest detectable effect is that of the decoder
    with the widest interval.
    """
    found = [judged(blank, part, **rule) for part in parts]
    values, lows, highs = np.array(parts, dtype=float).T
    whole = judged(blank, (values.mean(), lows.min(), highs.max()), **rule)
    fails = any(one.verdict == CONTRADICTED for one in found)
    smallest = float(np.max([one.smallest for one in found]))
    return replace(whole, smallest=smallest, verdict=CONTRADICTED if fails else whole.verdict)


# Number -> the claim, from the name of a profile to the finding.
CLAIMS: dict[int, Callable[[str], Finding]] = {}
Find = Callable[[str, Finding], Finding]


def claim(number: int) -> Callable[[Find], Callable[[str], Finding]]:
    """Register a claim."""
    _, *texts, threshold, goal = TEXTS[number]
    fill_in = finding(Finding(*texts, threshold=threshold, goal=goal))
    return lambda find: CLAIMS.setdefault(number, fill_in(find))


def finding(blank: Finding) -> Callable[[Find], Callable[[str], Finding]]:
    """Fill in a blank; what cannot be tested becomes a finding too, and says why."""

    def register(find: Find) -> Callable[[str], Finding]:
        def testable(profile: str) -> Finding:
            try:
                return find(profile, blank)
            except Untestable as error:
                return replace(blank, details=str(error))

        testable.__name__, testable.__doc__ = find.__name__, find.__doc__
        return testable

    return register


# ------------------------------------------------------------------------------------ frames


def load(name: str, profile: str, columns: Collection[str]) -> pd.DataFrame:
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


# -------------------------------------------------------------------------------------- text


def interval_text(
    effect: float, low: float, high: float, sign: str = "+", threshold: float = 0.0
) -> str:
    """An effect with its interval, with as many digits as the interval deserves.

    There are more where an end would seem to lie on the threshold.
    """
    width = high - low if high > low else abs(effect)
    digits = min(max(1 - math.floor(math.log10(width)), 0), 4) if width > 0 else 2
    ends = [end for end in (low, high) if end != threshold]
    while digits < 4 and any(round(end - threshold, digits) == 0 for end in ends):
        digits += 1
    rounded = (round(value, digits) + 0.0 for value in (effect, low, high))  # no -0.00
    texts = [f"{value:{sign}.{digits}f}" for value in rounded]
    return texts[0] if math.isnan(low) else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def number_text(value: float) -> str:
    """A number with two digits; "" for NaN."""
    return "" if math.isnan(value) else f"{value:.2g}"


def listed(values: pd.Series, digits: int) -> str:
    """Values with their names."""
    return ", ".join(f"{name} {value:.{digits}f}" for name, value in values.items())
