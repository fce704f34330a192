"""The rows of a comparison: every task, and the texts that the language-modelling control reads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from linlib.corpora.benchmarks import PREFERENCES, load_task
from linlib.finetune.controls import texts_of
from linlib.finetune.tasks import Encoded, encode
from linlib.profiles import FineTuningSettings

ALL_TASKS = "all tasks"  # what the language-modelling control reads


def rows_of_tasks(
    settings: FineTuningSettings, tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[str, Encoded, Encoded]]:
    """Every task with its two splits, and last, without labels, texts of each task in turn.

    Of those there are as many as the steps take; a task that is used up begins anew.
    """
    trains = []
    for task in settings.tasks:
        splits = []
        for split, texts in (
            ("train", settings.train_texts),
            ("validation", settings.validation_texts),
        ):
            rows = load_task(settings.source, task, split, _rows_for(task, texts))
            splits.append(encode(task, rows, tokenizer, settings.length, settings.drop_unusable))
        trains.append(splits[0])
        yield task, *splits
    endless = [cycle(texts_of(train.rows)) for train in trains]
    in_turn = (next(texts) for texts in cycle(endless))
    texts = list(islice(in_turn, settings.steps * settings.batch_size))
    rows = Dataset.from_dict({"input_ids": texts})
    cut = sum(train.truncated for train in trains)
    yield ALL_TASKS, Encoded(rows, cut, 0), Encoded(rows.select([]), 0, 0)


def _rows_for(task: str, texts: int | None) -> int | None:
    """Rows that hold so many texts: a pair is two, and a third of CB's rows is not used."""
    if texts is None:
        return None
    return {PREFERENCES: texts // 2, "cb": texts * 3 // 2}.get(task, texts)


def chance_of(validation: Encoded) -> float:
    """What the more frequent label alone would score; one half of preference pairs."""
    if "labels" not in validation.rows.column_names:
        return 0.5
    share = float(np.mean(validation.rows["labels"]))
    return max(share, 1 - share)
