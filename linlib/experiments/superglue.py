"""Table 2: zero-shot scores of the pretrained Mistrals, by lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from linlib.corpora.benchmarks import STORYWORLD, load_task
from linlib.evaluate.harness import evaluate
from linlib.evaluate.tasks import CHANCE, STOCK, local_tasks
from linlib.experiments.subjects import Measurement
from linlib.experiments.variants import evaluated_variants, measure_each, record_of
from linlib.intervals import binomial_interval
from linlib.models import load_model, load_tokenizer
from linlib.profiles import EvaluationSettings, Profile

# Task and metric -> the paper's column; arc_easy is not in its table, and not in the mean.
COLUMNS = {
    ("boolq", "acc"): "boolq",
    ("cb", "acc"): "cb_acc",
    ("cb", "f1"): "cb_f1",
    ("copa", "acc"): "copa",
    ("multirc", "acc"): "multirc",
    ("record", "f1"): "record_f1",
    ("record", "em"): "record_em",
    ("rte", "acc"): "rte",
    ("wic", "acc"): "wic",
    ("storycloze", "acc"): "xstorycloze_en",
    ("arc_easy", "acc"): "arc_easy",
}
OUTSIDE_MEAN = "arc_easy"
SHARES = ("acc", "em")  # metrics that are shares of right answers


def measure(profile: Profile) -> Measurement:
    """Score every model on every task.

    Frames: "" has a row a model and column of the table: `value` in [0, 1], the harness's
    `stderr`, `n` rows and, of shares, `chance` (what guessing gets) and the binomial interval
    `low` .. `high`; "_mean" has the mean over the paper's columns of each model.

    Raises:
        ValueError: the profile pretrains or evaluates nothing.
    """
    settings, variants = evaluated_variants(profile, "Table 2")
    names, definitions = harness_tasks(settings)
    options = {
        "tasks": names,
        "definitions": str(definitions),
        "max_length": profile.pretraining.length,
        "limit": None if settings.source == STORYWORLD else settings.rows,
        "chance": {task: _chance(settings.source, task) for task in settings.tasks},
        "batch_size": settings.batch_size,
        "device": profile.device,
    }
    code = ("evaluate/harness.py", "evaluate/tasks.py", "tasks", "models", "intervals.py")
    code += ("experiments/superglue.py",)
    frame = measure_each("evaluated", _scores, variants, options, settings.workers, code)
    record = record_of(profile, variants, task_source=settings.source, tasks=definitions.name)
    return Measurement({"": frame, "_mean": column_means(frame)}, record)


def harness_tasks(settings: EvaluationSettings) -> tuple[dict[str, str], Path]:
    """The harness's name of each task, and the folder that defines what is not stock."""
    if settings.source != STORYWORLD:
        return {task: STOCK[task] for task in settings.tasks}, local_tasks({})
    rows = {
        task: load_task(settings.source, task, "validation", settings.rows)
        for task in settings.tasks
    }
    return {task: f"local_{task}" for task in settings.tasks}, local_tasks(rows)


def _chance(source: str, task: str) -> float | None:
    """What guessing gets; None for the hub's ReCoRD, whose passages name any number of entities."""
    return None if source != STORYWORLD and task == "record" else CHANCE[task]


def column_means(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean over the paper's columns, one row a model, with its labels."""
    inside = frame[frame["column"] != OUTSIDE_MEAN]
    labels = ["model", "size", "variant", "seed"]
    return inside.groupby(labels, sort=False)["value"].mean().reset_index()


def _scores(folder: Path, options: Mapping[str, object]) -> pd.DataFrame:
    """Scores of one model; its own documents begin with the bos token, and so do prompts."""
    model, tokenizer = load_model(folder, device=options["device"]), load_tokenizer(folder)
    scores = evaluate(
        model,
        tokenizer,
        list(options["tasks"].values()),
        options["definitions"],
        max_length=options["max_length"],
        add_bos_token=True,
        batch_size=options["batch_size"],
        limit=options["limit"],
    )
    ours = {name: task for task, name in options["tasks"].items()}
    rows = []
    for row in scores.to_dict("records"):
        task, metric = ours[row["task"]], row["metric"]
        if (task, metric) not in COLUMNS:
            continue
        chance = options["chance"][task] if metric in SHARES else np.nan
        row |= {"task": task, "column": COLUMNS[task, metric], "chance": chance}
        if metric in SHARES:
            right = round(row["value"] * row["n"])
            row |= dict(zip(("low", "high"), binomial_interval(right, row["n"]), strict=True))
        rows.append(row)
    columns = ["column", "task", "metric", "value", "stderr", "n", "chance", "low", "high"]
    return pd.DataFrame(rows)[columns]
