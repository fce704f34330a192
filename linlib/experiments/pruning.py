"""Figures 6 to 8: what leaving blocks out costs, and what maps in their place win back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from linlib.evaluate.harness import evaluate
from linlib.evaluate.tasks import CHANCE
from linlib.experiments.edits import DENSE, DISTILLED, REMOVED, REPLACED, Edit, measure_edits
from linlib.experiments.plans import LINEAR, STORIES, Order, Plan, orders, plan_of
from linlib.experiments.subjects import Measurement, Subject, named_subjects, provenance
from linlib.experiments.superglue import harness_tasks
from linlib.intervals import binomial_interval, mean_interval
from linlib.parallel import side_by_side
from linlib.profiles import Profile, PruningSettings
from linlib.store import build_once, code_digest

PAPER_METHODS = (REMOVED, REPLACED, DISTILLED)
TASK = "arc_easy"
SCORES = "scores.csv"


def measure_first(profile: Profile) -> Measurement:
    """Figure 6; see `_curves`."""
    return _curves(profile, 0)


def measure_second(profile: Profile) -> Measurement:
    """Figure 7; see `_curves`."""
    return _curves(profile, 1)


def measure_accuracy(profile: Profile) -> Measurement:
    """Figure 8: accuracy on ARC-easy of the first model of Figures 6 and 7, pruned alike.

    One row a method and number of blocks: `accuracy`, its binomial interval `low` .. `high`, `n`
    rows and `chance`.

    Raises:
        ValueError: the profile prunes or evaluates nothing.
    """
    if profile.evaluation is None:
        raise ValueError(
            f"profile '{profile.name}' evaluates nothing, so Figure 8 cannot be measured in it; "
            "add `evaluation` to its file, or choose another profile"
        )
    dense, edits = _edits_of_paper(profile, 0)
    settings = profile.evaluation.model_copy(update={"tasks": (TASK,)})
    names, definitions = harness_tasks(settings)
    jobs = [
        _Answers(edit, names[TASK], definitions, settings.batch_size) for edit in [dense, *edits]
    ]
    done = side_by_side(_answer, jobs, profile.pruning.workers)
    found = list(tqdm(done, TASK, total=len(jobs), unit="model"))
    rows = []
    for job, (accuracy, n) in zip(jobs, found, strict=True):
        low, high = binomial_interval(round(accuracy * n), n)
        scores = {"accuracy": accuracy, "low": low, "high": high, "n": n, "chance": CHANCE[TASK]}
        rows.append(labels(job.edit) | scores)
    record = record_of_pruning(profile, [dense.plan]) | {
        "task_source": settings.source,
        "task": TASK,
    }
    return Measurement({"": pd.DataFrame(rows)}, record)


def labels(edit: Edit) -> dict[str, object]:
    """What tells the rows of a frame apart: model, method, number and indices of blocks."""
    return {
        "model": edit.plan.subject.name,
        "method": edit.method,
        "n_removed": len(edit.blocks),
        "removed": " ".join(map(str, edit.blocks)),
    }


def pruning_settings(profile: Profile) -> PruningSettings:
    """The profile's section on pruning.

    Raises:
        ValueError: it has none.
    """
    if profile.pruning is None:
        raise ValueError(
            f"profile '{profile.name}' prunes nothing, so this figure cannot be measured in it; "
            "add `pruning` to its file, or choose another profile"
        )
    return profile.pruning


def planned(
    profile: Profile, names: Sequence[str], every: Sequence[Order] | None = None
) -> list[Plan]:
    """Plans of some models of a profile, side by side.

    Args:
        profile: prunes something.
        names: of its models, without its own name.
        every: orders; None: all that are compared.

    Raises:
        ValueError: the profile has no such model.
    """
    every = orders(profile.pruning) if every is None else every
    jobs = [(profile, subject, every) for subject in named_subjects(profile, names)]
    done = side_by_side(_plan, jobs, profile.pruning.workers)
    return list(tqdm(done, "orders", total=len(jobs), unit="model"))


def perplexities(edits: Sequence[Edit], dense: Edit) -> pd.DataFrame:
    """Perplexity of pruned models, and what each loses against the dense one, window by window.

    Returns:
        One row an edit: its labels, `perplexity` with the 95% interval `low` .. `high` over
        windows, `loss` in nats per token, and `added`, the loss above the dense model's of the
        same windows, with `added_low` .. `added_high`.
    """
    rows, before = [], dense.losses()
    for edit in edits:
        losses = edit.losses()
        perplexity, low, high = np.exp(mean_interval(losses))
        added = dict(
            zip(("added", "added_low", "added_high"), mean_interval(losses - before), strict=True)
        )
        scores = {"perplexity": perplexity, "low": low, "high": high, "loss": losses.mean()}
        rows.append(labels(edit) | scores | added)
    return pd.DataFrame(rows)


def record_of_pruning(profile: Profile, plans: Sequence[Plan]) -> dict[str, object]:
    """Provenance: the models, and the blocks in the order of their removal."""
    removed = {
        plan.subject.name: {f"{one.name} {one.seed}": blocks for one, blocks in plan.chosen.items()}
        for plan in plans
    }
    return provenance(profile, [plan.subject for plan in plans]) | {
        "seeds": [profile.seed, *profile.pruning.random_seeds],
        "removed_blocks": removed,
    }


def _curves(profile: Profile, number: int) -> Measurement:
    """Perplexity of one model with its most linear blocks removed, replaced, and distilled.

    Frames: "" has a row a method and number of blocks, as `perplexities` gives it; "_windows" has
    the held-out loss of every window (nats per token), so that methods can be paired;
    "_distillation" has the held-out loss along each distillation.

    Raises:
        ValueError: the profile prunes nothing.
    """
    dense, edits = _edits_of_paper(profile, number)
    every = [dense, *edits]
    measure_edits(every, profile.pruning.workers)
    windows = [pd.DataFrame(labels(edit) | {"loss": edit.losses()}) for edit in every]
    histories = [
        edit.history().assign(**labels(edit)) for edit in edits if edit.method == DISTILLED
    ]
    frames = {
        "": perplexities(every, dense),
        "_windows": pd.concat(
            [one.rename_axis("window").reset_index() for one in windows], ignore_index=True
        ),
        "_distillation": pd.concat(histories, ignore_index=True),
    }
    return Measurement(frames, record_of_pruning(profile, [dense.plan]))


def _edits_of_paper(profile: Profile, number: int) -> tuple[Edit, list[Edit]]:
    """The dense model and its prunings, most linear blocks first, by the paper's methods."""
    (plan,) = planned(profile, [pruning_settings(profile).models[number]])
    edits = [
        Edit(plan, method, blocks, STORIES)
        for method in PAPER_METHODS
        for blocks in plan.sets(LINEAR)
    ]
    return Edit(plan, DENSE), edits


def _plan(job: tuple[Profile, Subject, Sequence[Order]]) -> Plan:
    return plan_of(*job)


@dataclass(frozen=True)
class _Answers:
    """A pruned model; the harness's task that it is asked, and its folder; prompts at once."""

    edit: Edit
    task: str
    definitions: Path
    batch_size: int


def _answer(job: _Answers) -> tuple[float, int]:
    """Accuracy and number of rows, from the store or measured now."""
    recipe = {"edit": job.edit.folder.name, "task": job.task, "rows": job.definitions.name}
    recipe["code"] = code_digest("evaluate/harness.py", "tasks", "experiments/pruning.py")

    def build(folder: Path) -> None:
        subject, profile = job.edit.plan.subject, job.edit.plan.profile
        scores = evaluate(
            job.edit.open(),
            subject.open_tokenizer(),
            [job.task],
            job.definitions,
            max_length=profile.measure.length,
            add_bos_token=True,
            batch_size=job.batch_size,
        )
        scores.to_csv(folder / SCORES, index=False)

    scores = pd.read_csv(build_once("answers", recipe, build) / SCORES).set_index("metric")
    return float(scores.loc["acc", "value"]), int(scores.loc["acc", "n"])
