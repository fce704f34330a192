"""Zero-shot scores of a decoder in memory, by lm-evaluation-harness.

The harness writes the prompts and defines the metrics. This module lets rows of your own take the
place of the hub's under a stock definition, and returns the results as a tidy frame.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import lm_eval.tasks
import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.tasks.manager import TaskDict
from lm_eval.tasks.qasper.metrics import f1_abstractive, normalize_answer
from lm_eval.utils import env
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from linlib.measure.losses import MOST_LOGITS
from linlib.models import load_model, load_tokenizer
from linlib.stats import binomial_interval

# Task -> the stock definition of it, and the columns that the definition reads.
TASKS = {
    "arc_easy": ("arc/arc_easy.yaml", "question choices answerKey"),
    "boolq": ("super_glue/boolq/default.yaml", "question passage label"),
    "cb": ("super_glue/cb/default.yaml", "premise hypothesis label"),
    "continuation": ("arc/arc_easy.yaml", "question choices answerKey"),  # but for its prompt
    "copa": ("super_glue/copa/default.yaml", "premise choice1 choice2 question label"),
    "multirc": ("super_glue/multirc/default.yaml", "paragraph question answer label"),
    "record": ("super_glue/record/default.yaml", "passage query entities answers"),
    "rte": ("super_glue/rte/default.yaml", "premise hypothesis label"),
    "storycloze": (
        "xstorycloze/default_en.yaml",
        "input_sentence_1 input_sentence_2 input_sentence_3 input_sentence_4 "
        "sentence_quiz1 sentence_quiz2 answer_right_ending",
    ),
    "wic": ("super_glue/wic/default.yaml", "sentence1 sentence2 start1 end1 label"),
}
COLUMNS = ["task", "metric", "value", "stderr", "n", "chance", "low", "high"]
SHARES = ("acc", "acc_norm", "em")  # metrics that are shares of right answers
# The share of right answers that guessing gets; of ReCoRD, where two entities are named.
CHANCE = dict.fromkeys(TASKS, 1 / 2) | {"arc_easy": 1 / 4, "cb": 1 / 3, "continuation": 1 / 4}
# Task and metric -> column of the paper's Table 2; arc_easy is not in the paper's table.
TABLE_2 = {
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


def evaluate(
    model: PreTrainedModel | Path,
    tokenizer: PreTrainedTokenizerBase | Path,
    tasks: Sequence[str],
    *,
    rows: Mapping[str, Dataset] | None = None,
    max_length: int | None = None,
    add_bos_token: bool | None = None,
    batch_size: int = 64,
    limit: int | None = None,
    device: str = "cpu",
) -> pd.DataFrame:
    """Evaluate a model on tasks of the harness.

    Args:
        model: a decoder, or the folder of one.
        tokenizer: its tokenizer, or the folder of it.
        tasks: names in `TASKS`, or any other task of the harness. Where a name is in both, as "rte"
            is, that of `TASKS` counts.
        rows: for tasks in `TASKS`, rows in the original's columns that take the place of the hub's.
        max_length: longest prompt in tokens; longer ones lose their beginning. None: the model's.
        add_bos_token: whether prompts begin with the bos token; None leaves that to the tokenizer.
        batch_size: prompts in one forward pass.
        limit: number of rows of each task; None: all.
        device: where a model that is given as a folder runs.

    Returns:
        One row per task and metric: `task`, `metric` (the harness's name, without its filter),
        `value`, `stderr` (the harness's; NaN where it has none), `n`, the number of rows, and, of
        shares of right answers, `chance` (what guessing gets) and the 95% binomial interval `low`
        .. `high`; NaN elsewhere.

    Raises:
        ValueError: an unknown task (with the nearest names), or `rows` of an unknown task, without
            rows or without a column that the definition reads.
    """
    results = _run(
        model, tokenizer, tasks, rows, max_length, add_bos_token, batch_size, limit, device
    )
    found = [row for task in tasks for row in _rows(task, results)]
    return pd.DataFrame(found, columns=COLUMNS)


def answers(
    model: PreTrainedModel | Path,
    tokenizer: PreTrainedTokenizerBase | Path,
    task: str,
    *,
    rows: Mapping[str, Dataset] | None = None,
    max_length: int | None = None,
    add_bos_token: bool | None = None,
    batch_size: int = 64,
    limit: int | None = None,
    device: str = "cpu",
) -> pd.DataFrame:
    """Ask a model one task, and tell its answers apart, so that models can be paired by item.

    Arguments and errors are those of `evaluate`.

    Returns:
        One row per item: `item`, its number among the rows from 0, and `correct`, 1 where the
        answer is right (exactly, where the task is ReCoRD) and 0 elsewhere; see `stats.mcnemar`.

    Raises:
        ValueError: also a task whose items are not right or wrong.
    """
    results = _run(
        model, tokenizer, [task], rows, max_length, add_bos_token, batch_size, limit, device
    )
    samples = results["samples"][task]
    metric = next((name for name in ("acc", "em") if name in samples[0]), None)
    if metric is None:
        raise ValueError(f"answers to task '{task}' are not right or wrong; use `evaluate`")
    found = sorted((sample["doc_id"], int(sample[metric])) for sample in samples)
    return pd.DataFrame(found, columns=["item", "correct"])


def _run(
    model: PreTrainedModel | Path,
    tokenizer: PreTrainedTokenizerBase | Path,
    tasks: Sequence[str],
    rows: Mapping[str, Dataset] | None,
    max_length: int | None,
    add_bos_token: bool | None,
    batch_size: int,
    limit: int | None,
    device: str,
) -> Mapping:
    """The harness's results, its samples among them."""
    if isinstance(model, Path):
        model = load_model(model, device=device)
    if isinstance(tokenizer, Path):
        tokenizer = load_tokenizer(tokenizer)
    # The harness compiles its template again for each row, which is half of its time.
    with _quiet(), patch.object(env, "from_string", cache(env.from_string)):
        loaded = _load(tasks, rows or {})
        if add_bos_token is not None:  # the harness sets it on tokenizers that it opens itself
            tokenizer = deepcopy(tokenizer)
            tokenizer.add_bos_token = add_bos_token
        # The harness holds the logits of a batch three times over. Most texts have fewer tokens
        # than this; those with more take as much memory as they are longer.
        most = max(1, MOST_LOGITS // (128 * model.config.vocab_size))
        lm = HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=min(batch_size, most),
            max_length=max_length,
            add_bos_token=add_bos_token,
        )
        return evaluator.evaluate(lm, loaded, limit=limit, bootstrap_iters=1000)


def _load(tasks: Sequence[str], rows: Mapping[str, Dataset]) -> TaskDict:
    for task, data in rows.items():
        if task not in TASKS:
            raise ValueError(f"rows for unknown task '{task}'; choose from {sorted(TASKS)}")
        if len(data) == 0:
            raise ValueError(f"task '{task}' has no rows")
        missing = [name for name in TASKS[task][1].split() if name not in data.column_names]
        if missing:
            raise ValueError(
                f"rows of task '{task}' lack the columns {missing}; found {data.column_names}"
            )
    if "continuation" in tasks and "continuation" not in rows:
        raise ValueError(
            "task 'continuation' needs rows, which the hub does not have; give rows={'continuation'"
            ": linlib.corpora.load_task('pydocs', 'continuation', 'validation')}"
        )
    manager = TaskManager(include_defaults=False)
    if not set(tasks) <= TASKS.keys():  # finding all stock tasks takes seconds
        manager = TaskManager()
        known = [*TASKS, *manager.all_subtasks]
        for task in tasks:
            if task not in known:
                close = get_close_matches(task, known, n=3)
                raise ValueError(f"there is no task '{task}'; the nearest names are {close}")
    specs = [_definition(name, rows.get(name)) if name in TASKS else name for name in tasks]
    return manager.load(specs)


def _definition(task: str, rows: Dataset | None) -> dict[str, object]:
    """The stock definition of a task in `TASKS`, on given rows or on the hub's."""
    _provide_squad_metrics()
    definition = load_yaml(Path(lm_eval.tasks.__file__).parent / TASKS[task][0])
    definition["task"] = task
    if task == "continuation":  # plain text, to go on with
        definition["doc_to_text"] = "{{question}}"
    if rows is not None:
        definition |= {
            "custom_dataset": lambda **_: DatasetDict(validation=rows),
            "dataset_kwargs": None,
            "training_split": None,
            "validation_split": "validation",
            "test_split": None,
        }
    return definition


def _provide_squad_metrics() -> None:
    """Put SQuAD's metrics where ReCoRD imports them from; transformers 5 has them no more."""

    def compute_exact(answer: str, truth: str) -> float:
        return float(normalize_answer(answer) == normalize_answer(truth))

    def compute_f1(answer: str, truth: str) -> float:  # 1 also where neither has a word left
        return max(compute_exact(answer, truth), f1_abstractive([answer], [truth]))

    metrics = SimpleNamespace(compute_exact=compute_exact, compute_f1=compute_f1)
    sys.modules.setdefault("transformers.data.metrics", SimpleNamespace(squad_metrics=metrics))
    sys.modules.setdefault("transformers.data.metrics.squad_metrics", metrics)


def _rows(task: str, results: Mapping) -> Iterator[tuple]:
    measured = results["results"][task]
    n_rows = results["n-samples"][task]["effective"]
    chance = CHANCE.get(task, np.nan)
    if task == "record" and any(len(row["resps"]) != 2 for row in results["samples"][task]):
        chance = np.nan  # the passages of the hub name any number of entities
    for key, value in measured.items():
        metric, comma, kind = key.partition(",")
        if comma and not metric.endswith("_stderr"):
            error = measured.get(f"{metric}_stderr,{kind}")
            error = error if isinstance(error, float) else np.nan  # the harness writes "N/A"
            share = (np.nan, np.nan, np.nan)
            if metric in SHARES:
                share = (chance, *binomial_interval(round(value * n_rows), n_rows))
            yield task, metric, float(value), error, n_rows, *share


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the harness's messages and progress bars; its exceptions are enough."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def best_constant(task: str, rows: Dataset) -> dict[str, float]:
    """The best score of answers that are always the same choice, by the harness's metric.

    A model that is not above it has not been shown to read the question: where labels are
    unbalanced, it is higher than what guessing gets.

    Args:
        task: a name in `TASKS`.
        rows: as `evaluate` takes them.

    Returns:
        "acc": the share of the most frequent label; of CB also "f1", the mean over three classes
        where only the best one is ever given; of ReCoRD "em" and "f1" of the best fixed place
        among the entities.
    """
    if task == "record":
        found = {"em": [], "f1": []}
        for place in range(min(map(len, rows["entities"]))):
            exact, overlap = [], []
            for row in rows:
                given = row["entities"][place]
                words = normalize_answer(given)
                exact.append(max(words == normalize_answer(one) for one in row["answers"]))
                shared = (f1_abstractive([given], [one]) for one in row["answers"])
                overlap.append(max(exact[-1], *shared))
            found["em"].append(np.mean(exact))
            found["f1"].append(np.mean(overlap))
        return {metric: float(max(scores)) for metric, scores in found.items()}
    label = {"storycloze": "answer_right_ending"}.get(task, "label")
    label = label if label in rows.column_names else "answerKey"
    share = float(pd.Series(rows[label][:]).value_counts(normalize=True).max())
    # Always the class of share p: precision p, recall 1, and 0 of the other two classes.
    return {"acc": share} | ({"f1": 2 * share / (1 + share) / 3} if task == "cb" else {})
