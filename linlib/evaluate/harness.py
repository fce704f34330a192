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
import yaml
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import env
from transformers import PreTrainedModel, PreTrainedTokenizerBase

NEEDED_KEYS = ("dataset_path", "output_type", "metric_list")


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
        ValueError: no such task, or its file is not a valid definition.
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
        _check_files(Path(definitions))
    manager = TaskManager(include_path=definitions and str(definitions), include_defaults=False)
    if not set(tasks) <= set(manager.all_tasks):  # to find all stock tasks takes seconds
        manager = TaskManager(include_path=definitions and str(definitions))
    for task in tasks:
        if task not in manager.all_subtasks:
            close = get_close_matches(task, manager.all_subtasks, n=3)
            where = f"the harness or in {definitions}" if definitions else "the harness"
            raise ValueError(f"there is no task '{task}' in {where}; the nearest names are {close}")
    try:
        manager.load(list(tasks))
    except ImportError as error:
        raise ValueError(
            f"a task of {list(tasks)} cannot be loaded: {error}. The stock task 'record' does not "
            "import on transformers 5; take 'hub_record' of linlib's definitions"
        ) from error
    return manager


def _check_files(folder: Path) -> None:
    """Refuse a task file before the harness skips it or fails far from the cause."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise ValueError(f"there is no task file (*.yaml) in {folder}")
    for file in files:
        try:
            config = yaml.load(file.read_text(), _Loader)
        except yaml.YAMLError as error:
            raise ValueError(f"task file {file} is not YAML: {error}") from error
        if not isinstance(config, dict) or "task" not in config:
            raise ValueError(f"task file {file} names no task; it needs the key 'task'")
        missing = [key for key in NEEDED_KEYS if key not in config and "include" not in config]
        if missing:
            raise ValueError(f"task file {file} lacks the keys {missing}, and includes no other")


class _Loader(yaml.SafeLoader):
    """Reads `!function` as the text that it is: checking a file runs nothing of it."""


_Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


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
