"""Labelled tasks by name, in the same columns: storyworld's, the hub's, or those of a folder."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from datasets import Dataset, load_dataset

from linlib.corpora.storyworld.dataset import TASK_SPLITS, preference_pairs
from linlib.corpora.storyworld.tasks import TASKS

STORYWORLD, HUB = "storyworld", "hub"
PREFERENCES = "reward_modeling"  # the paper's name for training on preference pairs

# Task -> where the hub has it, and its name for our "validation".
HUB_TASKS: dict[str, tuple[dict[str, str], str]] = {
    "boolq": ({"path": "aps/super_glue", "name": "boolq"}, "validation"),
    "multirc": ({"path": "aps/super_glue", "name": "multirc"}, "validation"),
    "cb": ({"path": "aps/super_glue", "name": "cb"}, "validation"),
    "storycloze": ({"path": "juletxara/xstory_cloze", "name": "en"}, "eval"),
    PREFERENCES: ({"path": "Anthropic/hh-rlhf", "data_dir": "helpful-base"}, "test"),
}


@cache
def load_task(source: str, task: str, split: str, n_rows: int | None = None) -> Dataset:
    """Rows of a labelled task.

    Args:
        source: "storyworld", "hub", or a folder that holds a dataset folder for each task, in any
            format that `datasets.load_dataset` reads.
        task: a key of `HUB_TASKS` or, of storyworld, of its `TASKS` too.
        split: "train" or "validation".
        n_rows: how many; of the hub's and a folder's, a fixed random choice. None is all, which
            storyworld, having no end, cannot give.

    Raises:
        ValueError: an unknown task or split, one that a folder lacks, or all of storyworld.
        FileNotFoundError: the hub cannot be reached, or the folder lacks the task.
    """
    known = HUB_TASKS.keys() | (TASKS.keys() if source == STORYWORLD else set())
    if task not in known:
        raise ValueError(f"unknown task '{task}' of {source}; choose from {sorted(known)}")
    if split not in TASK_SPLITS:
        raise ValueError(
            f"unknown split '{split}' of task '{task}'; choose from {list(TASK_SPLITS)}"
        )
    if source == STORYWORLD:
        if n_rows is None:
            raise ValueError(f"storyworld has no end: say how many rows of '{task}' to make")
        if task == PREFERENCES:
            return preference_pairs(TASK_SPLITS[split], n_rows)
        return TASKS[task](split, n_rows)
    rows = _from_hub(task, split) if source == HUB else _from_folder(Path(source), task, split)
    if n_rows is None or n_rows >= len(rows):
        return rows
    return rows.shuffle(seed=0).select(range(n_rows))


def _from_hub(task: str, split: str) -> Dataset:
    where, validation = HUB_TASKS[task]
    try:
        return load_dataset(**where, split=validation if split == "validation" else split)
    except (OSError, RuntimeError) as error:  # offline, not found, gated
        raise FileNotFoundError(
            f"task '{task}' ({where['path']}) could not be had from the Hugging Face hub "
            f"({error}); check the network, or use storyworld's, which needs none"
        ) from error


def _from_folder(folder: Path, task: str, split: str) -> Dataset:
    path = folder / task
    if not path.is_dir():
        found = sorted(p.name for p in folder.glob("*")) if folder.is_dir() else "no such folder"
        raise FileNotFoundError(f"there is no folder {path} for task '{task}'; found {found}")
    present = load_dataset(str(path))
    for name in (split, HUB_TASKS[task][1] if split == "validation" else split):
        if name in present:
            return present[name]
    raise ValueError(f"the dataset in {path} has no split '{split}'; it has {list(present)}")
