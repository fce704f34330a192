"""The world as `datasets.Dataset`s, so that nothing else can tell it from a corpus of the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from random import Random

from datasets import Dataset

from linlib.corpora.storyworld.exercises import render_exercise
from linlib.corpora.storyworld.preferences import render_preference
from linlib.corpora.storyworld.record import StoryRecord, sample_record
from linlib.corpora.storyworld.stories import render_story
from linlib.corpora.storyworld.textbook import HELD_OUT_LESSON, render_textbook
from linlib.store import build_once, code_digest

TASK_SPLITS = {"train": "train", "validation": "heldout"}  # a benchmark's name -> ours
SIZES = {"train": 30_000, "heldout": 2_000}
FILE = "corpus.parquet"
LESSON_EVERY = 4  # one textbook paragraph to so many stories


def records(split: str) -> Iterator[StoryRecord]:
    """Distinct stories of a split, without end, in the order of their seeds."""
    seen = set()
    for seed in count():
        record = sample_record(seed)
        if record.is_heldout == (split == "heldout") and record.key not in seen:
            seen.add(record.key)
            yield record


def stories_for(task: str, split: str, n_rows: int) -> Iterator[tuple[int, StoryRecord, Random]]:
    """Number, story and source of chance for each row of a task.

    Raises:
        ValueError: an unknown split.
    """
    if split not in TASK_SPLITS:
        raise ValueError(
            f"unknown split '{split}' of task '{task}'; choose from {list(TASK_SPLITS)}"
        )
    for number, record in enumerate(islice(records(TASK_SPLITS[split]), n_rows)):
        yield number, record, Random(f"{task} {record.key}")


def load(split: str) -> Dataset:
    """Stories, each with its exercise, and lessons among them: `text`, `kind` and `record`.

    `kind` is "story", "exercise" or "textbook"; `record` is the story's facts as JSON, empty for a
    textbook paragraph. The corpus is told once, and then found in the store.
    """
    recipe = {"split": split, "n": SIZES[split], "code": code_digest("corpora/storyworld")}
    folder = build_once("storyworld", recipe, lambda folder: _tell(split, folder))
    return Dataset.from_parquet(str(folder / FILE), keep_in_memory=True)


def _tell(split: str, folder: Path) -> None:
    rows = []
    lessons = (seed for seed in count() if (seed % HELD_OUT_LESSON == 0) == (split == "heldout"))
    for number, record in enumerate(islice(records(split), SIZES[split])):
        told = json.dumps(record.as_dict(), sort_keys=True)
        rows.append({"text": render_story(record), "kind": "story", "record": told})
        rows.append({"text": render_exercise(record), "kind": "exercise", "record": told})
        if number % LESSON_EVERY == 0:
            lesson = render_textbook(next(lessons))
            rows.append({"text": lesson, "kind": "textbook", "record": ""})
    Dataset.from_list(rows).to_parquet(folder / FILE)


def preference_pairs(split: str, n_pairs: int) -> Dataset:
    """Preference pairs: columns `chosen` and `rejected`, as in hh-rlhf."""
    chosen = islice(records(split), n_pairs)
    return Dataset.from_list([render_preference(record) for record in chosen])
