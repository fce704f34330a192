"""The controls that the paper lacks: labels that mean nothing, and no labels at all."""

from __future__ import annotations

from random import Random

from datasets import Dataset

from linlib.finetune.recipe import LANGUAGE_MODEL, FineTuning


def are_pairs(rows: Dataset) -> bool:
    """Whether rows are preference pairs, and not single texts with a class."""
    return "chosen_ids" in rows.column_names


def texts_of(rows: Dataset) -> list[list[int]]:
    """The token ids of all texts, without what they are labelled; both texts of a pair."""
    if not are_pairs(rows):
        return list(rows["input_ids"])
    pairs = zip(rows["chosen_ids"], rows["rejected_ids"], strict=True)
    return [ids for pair in pairs for ids in pair]


def control_rows(rows: Dataset, how: FineTuning) -> Dataset:
    """The rows with labels that mean nothing, or with none."""
    if how.training == LANGUAGE_MODEL:
        return Dataset.from_dict({"input_ids": texts_of(rows)})
    rng = Random(f"shuffled labels {how.seed}")
    if not are_pairs(rows):
        labels = list(rows["labels"])
        rng.shuffle(labels)
        return Dataset.from_dict({"input_ids": rows["input_ids"], "labels": labels})
    swapped = [number % 2 == 1 for number in range(len(rows))]
    rng.shuffle(swapped)
    pairs = [
        (rejected, chosen) if swap else (chosen, rejected)
        for chosen, rejected, swap in zip(
            rows["chosen_ids"], rows["rejected_ids"], swapped, strict=True
        )
    ]
    chosen, rejected = zip(*pairs, strict=True)
    return Dataset.from_dict({"chosen_ids": chosen, "rejected_ids": rejected})
