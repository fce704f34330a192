"""Beyond the paper: every order of removal x every method, and what predicts a block's worth."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from scipy.stats import spearmanr

from linlib.experiments.edits import (
    DENSE,
    DISTILLED,
    FOLDED,
    FOLDED_REFITTED,
    REFITTED,
    REMOVED,
    REPLACED,
    Edit,
    measure_edits,
)
from linlib.experiments.plans import LIKE_TEST, LINEAR, STORIES, Plan
from linlib.experiments.pruning import (
    perplexities,
    planned,
    pruning_settings,
    record_of_pruning,
)
from linlib.experiments.subjects import NAMES, Measurement
from linlib.measure import collect_moments
from linlib.profiles import Profile
from linlib.prune import adjacent_runs, block_costs, model_costs

METHODS = (REMOVED, REPLACED, REFITTED, DISTILLED, FOLDED, FOLDED_REFITTED)
PREDICTORS = (
    "linearity",
    "linearity without residual",
    "identity score",
    "block influence",
    "loss",
    "last",
)
TIMED_WINDOWS = 8


def measure(profile: Profile) -> Measurement:
    """Prune the two models of Figures 6 and 7 in every order and by every method.

    Frames: "" has a row a model, order, seed, method, text (that maps are fitted on) and number of
    blocks: `perplexities`, the number of runs and the `speedup`; one row is the dense model's.
    "_cost" has parameters, operations and measured speed; "_blocks" has the costs that criteria
    give every block of every model, beside the loss that is `added` when it alone is removed or
    replaced; "_prediction" has the rank correlation of the two.

    Raises:
        ValueError: the profile prunes nothing.
    """
    settings = pruning_settings(profile)
    plans = planned(profile, settings.models)
    named = [
        (order, Edit(plan, method, blocks))
        for plan in plans
        for order in plan.chosen
        for blocks in plan.sets(order)
        for method in METHODS
        if _can(plan, method, blocks)
    ]
    named += [  # Figures 6 and 7 once more: the same maps, from another text
        (LINEAR, Edit(plan, method, blocks, STORIES))
        for plan in plans
        for blocks in plan.sets(LINEAR)
        for method in (REPLACED, DISTILLED)
    ]
    dense = {plan.subject.name: Edit(plan, DENSE) for plan in plans}
    measure_edits([*dense.values(), *(edit for _, edit in named)], settings.workers)
    cost = pd.concat([_cost(plan) for plan in plans], ignore_index=True)
    rows = [
        perplexities([edit], dense[edit.plan.subject.name]).assign(
            order=order.name, seed=order.seed, text=edit.text
        )
        for order, edit in named
    ]
    rows += [perplexities([one], one).assign(text=LIKE_TEST) for one in dense.values()]
    frame = pd.concat(rows, ignore_index=True)
    frame["n_runs"] = frame["removed"].map(_n_runs)
    keys = ["model", "method", "n_removed", "n_runs"]
    frame = frame.merge(cost[[*keys, "speedup"]], on=keys, validate="many_to_one")
    blocks = _blocks(profile)
    frames = {"": frame, "_cost": cost, "_blocks": blocks, "_prediction": predictions(blocks)}
    return Measurement(frames, record_of_pruning(profile, plans))


def predictions(blocks: pd.DataFrame) -> pd.DataFrame:
    """How well each criterion ranks the blocks of each model.

    Args:
        blocks: one row a model, block, `method` and `criterion`, with its `cost` and the loss that
            is `added`.

    Returns:
        One row a model, method and criterion: Spearman's `rho` over the blocks, and their number.
    """
    keys = ["model", "method", "criterion"]
    return pd.DataFrame(
        [
            (*key, spearmanr(rows["cost"], rows["added"]).statistic, len(rows))
            for key, rows in blocks.groupby(keys, sort=False)
        ],
        columns=[*keys, "rho", "n_blocks"],
    )


def _can(plan: Plan, method: str, blocks: Sequence[int]) -> bool:
    """Whether a method can do without these blocks: a fold needs a block before them."""
    return method not in (FOLDED, FOLDED_REFITTED) or (plan.foldable and 0 not in blocks)


def _n_runs(removed: str) -> int:
    return len(adjacent_runs(map(int, removed.split())))


def _cost(plan: Plan) -> pd.DataFrame:
    """Parameters, operations and speed, by method, number of blocks and number of runs.

    They do not depend on which blocks are left out, but for the maps, one to a run.
    """
    sets = {blocks for order in plan.chosen for blocks in plan.sets(order)}
    by_size = {(len(blocks), len(adjacent_runs(blocks))): blocks for blocks in sorted(sets)}
    edits = {"dense": Edit(plan, DENSE)}
    for (n_removed, n_runs), blocks in sorted(by_size.items()):
        for method in (REMOVED, REPLACED):
            edits[f"{method} {n_removed} {n_runs}"] = Edit(plan, method, blocks)
    dense, _ = plan.subject.open(plan.profile)
    models = {name: edit.open(dense) for name, edit in edits.items()}  # which share its weights
    windows = plan.windows()["heldout"][:TIMED_WINDOWS]
    costs = model_costs(models, windows, plan.profile.pruning.timing_rounds).set_index("name")
    alike = {REMOVED: (REMOVED, FOLDED, FOLDED_REFITTED), REPLACED: (REPLACED, REFITTED, DISTILLED)}
    rows = [
        {
            "model": plan.subject.name,
            "method": method,
            "n_removed": len(edit.blocks),
            "n_runs": len(adjacent_runs(edit.blocks)),
        }
        | costs.loc[name].to_dict()
        for name, edit in edits.items()
        for method in alike.get(edit.method, (DENSE,))
    ]
    return pd.DataFrame(rows)


def _blocks(profile: Profile) -> pd.DataFrame:
    """Criteria beside the loss that each block alone is worth, for every model of the zoo."""
    settings = profile.pruning
    names = [NAMES[kind] for kind in profile.zoo.models] if profile.zoo else settings.models
    plans = planned(profile, names, every=())
    singles = {
        plan.subject.name: [
            Edit(plan, method, (block,))
            for method in (REMOVED, REPLACED)
            for block in range(plan.n_blocks)
        ]
        for plan in plans
    }
    dense = {plan.subject.name: Edit(plan, DENSE) for plan in plans}
    every = [edit for edits in singles.values() for edit in edits]
    measure_edits([*dense.values(), *every], settings.workers)
    rows = []
    for plan in plans:
        name = plan.subject.name
        costs = _costs_of_blocks(plan)
        added = perplexities(singles[name], dense[name])
        for edit, row in zip(singles[name], added.to_dict("records"), strict=True):
            for criterion, values in costs.items():
                (block,) = edit.blocks
                where = {"model": name, "method": edit.method, "block": block}
                rows.append(where | {"criterion": criterion, "cost": values[block]} | row)
    columns = ["model", "method", "block", "criterion", "cost", "added", "added_low", "added_high"]
    return pd.DataFrame(rows)[columns]


def _costs_of_blocks(plan: Plan) -> dict[str, list[float]]:
    model, _ = plan.subject.open(plan.profile)
    windows = plan.windows()[f"{LIKE_TEST} calibration"]
    moments = collect_moments(model, windows, n_folds=1)
    return {one: block_costs(model, windows, one, moments=moments) for one in PREDICTORS}
