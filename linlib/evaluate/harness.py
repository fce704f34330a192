"""Zero-shot scores and perplexity of a decoder in memory, by lm-evaluation-harness.

The harness defines every metric; what is here finds its tasks and makes a tidy frame of its
results. Perplexity is exp(-log-likelihood of all documents / n): *word* perplexity takes as n the
words between blanks, and can be compared between tokenizers; *token* perplexity takes the model's
own tokens, and cannot.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from lm_eval import simple_evaluate
from lm_eval.api.registry import metric_registry
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import env
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from linlib.evaluate.definitions import check_files, unknown_metrics


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    definitions: str | Path | None = None,
    *,
    max_length: int | None = None,
    add_bos_token: bool | None = None,
    batch_size: int = 64,
    limit: int | None = None,
) -> pd.DataFrame:
    """Evaluate a model, as it lies in memory, on tasks of the harness.

    Args:
        model: a decoder; it is not copied.
        tokenizer: its own.
        tasks: names; stock tasks of the harness, or those of `definitions`.
        definitions: a folder of task files, as `local_tasks` writes one. None: stock tasks alone.
        max_length: the most tokens of a prompt; what is older is cut off. None: the model's.
        add_bos_token: open prompts with the bos token; None leaves that to the tokenizer. For
            perplexity None is right: the harness puts a first token before each document anyway.
        batch_size: prompts at once.
        limit: rows of each task; None is all.

    Returns:
        One row a task and metric: `task`, `metric` (the harness's names, without its filter),
        `value`, `stderr` (the harness's; NaN where it has none) and `n`, the rows.

    Raises:
        ValueError: no such task, or its file is not a valid definition; both are named.
    """
    with _quiet(), _templates_compiled_once():
        manager = _manager(tasks, definitions)
        if add_bos_token is not None:  # the harness sets it on tokenizers that it opens itself
            tokenizer = deepcopy(tokenizer)
            tokenizer.add_bos_token = add_bos_token
        lm = HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size,
            max_length=max_length,
            add_bos_token=add_bos_token,
        )
        results = simple_evaluate(
            lm, tasks=list(tasks), task_manager=manager, limit=limit, bootstrap_iters=1000
        )
    rows = [row for task in tasks for row in _rows(task, results)]
    for task in tasks:
        if results["configs"][task]["output_type"] == "loglikelihood_rolling":
            n_rows = results["n-samples"][task]["effective"]
            value = _token_perplexity(lm, results["samples"][task])
            rows.append((task, "token_perplexity", value, np.nan, n_rows))
    return pd.DataFrame(rows, columns=["task", "metric", "value", "stderr", "n"])


def _rows(task: str, results: Mapping) -> Iterator[tuple]:
    measured = results["results"][task]
    n_rows = results["n-samples"][task]["effective"]
    for key, value in measured.items():
        metric, comma, kind = key.partition(",")
        if comma and not metric.endswith("_stderr"):
            error = measured.get(f"{metric}_stderr,{kind}")
            yield task, metric, float(value), _number(error), n_rows


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else np.nan  # the harness writes "N/A"


def _token_perplexity(lm: HFLM, samples: Sequence[Mapping]) -> float:
    """From the log-likelihoods that the harness summed, and the tokens that it summed over."""
    loglikelihood = sum(float(sample["filtered_resps"][0]) for sample in samples)
    n_tokens = sum(len(lm.tok_encode(sample["arguments"][0][0])) for sample in samples)
    return float(np.exp(-loglikelihood / n_tokens))


def _manager(tasks: Sequence[str], definitions: str | Path | None) -> TaskManager:
    if definitions is not None:
        check_files(Path(definitions))
    manager = TaskManager(include_path=definitions and str(definitions), include_defaults=False)
    if not set(tasks) <= set(manager.all_tasks):  # to find all stock tasks takes seconds
        manager = TaskManager(include_path=definitions and str(definitions))
    for task in tasks:
        if task not in manager.all_subtasks:
            close = get_close_matches(task, manager.all_subtasks, n=3)
            where = f"the harness or in {definitions}" if definitions else "the harness"
            raise ValueError(f"there is no task '{task}' in {where}; the nearest names are {close}")
    for task in tasks:
        _check_load(manager, task)
    return manager


def _check_load(manager: TaskManager, task: str) -> None:
    """Load a task, only to say which one, and of which file, cannot be, and why."""
    entry, failure = manager.task_index[task], None
    try:
        manager.load([task])
    except OSError:  # its rows are out of reach; the file may be right
        raise
    except Exception as error:  # the harness meets what is wrong anywhere, in any way
        failure = error
    if why := _trouble(task, entry.cfg, failure):
        raise ValueError(f"task '{task}' of {entry.yaml_path} cannot be loaded: {why}") from failure


def _trouble(task: str, config: Mapping[str, object], failure: Exception | None) -> str:
    unaggregated = isinstance(failure, KeyError) and failure.args == (None,)
    if (failure is None or unaggregated) and (unknown := unknown_metrics(config)):
        close = get_close_matches(unknown[0], list(metric_registry), n=3)
        return f"nobody knows its metrics {unknown}; the nearest names are {close}"
    if failure is None:
        return ""
    if unaggregated:
        return "a metric has no aggregation of its own; name one, such as `aggregation: mean`"
    told = f"{type(failure).__name__}: {failure}"
    if isinstance(failure, ImportError) and task == "record":
        return (
            f"{told}. The stock task 'record' does not import on transformers 5; take "
            "'hub_record' of linlib's definitions"
        )
    return told


@contextmanager
def _templates_compiled_once() -> Iterator[None]:
    """The harness compiles the template of a prompt anew for every row; that is half its time."""
    compile_template = env.from_string
    env.from_string = cache(compile_template)
    try:
        yield
    finally:
        env.from_string = compile_template


@contextmanager
def _quiet() -> Iterator[None]:
    """The harness tells much, and draws many bars; its errors are enough."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
            yield
    finally:
        logger.setLevel(level)
