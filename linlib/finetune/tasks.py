"""Tasks as text: what a model reads, which part of it may be cut, which class it is.

The paper's BoolQ text is "question: ... passage: ..."; MultiRC and CB follow its example, with the
passage first, as the harness asks them. CB's neutral rows are left out (section 3.3 speaks of
binary classification).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from linlib.corpora.benchmarks import PREFERENCES


@dataclass(frozen=True)
class Task:
    """A binary classification of texts.

    Attributes:
        before: template of what stands before the passage.
        passage: the column of the passage, the only part that may be cut.
        after: template of what follows it.
        classes: the dataset's label -> ours; rows of a label that maps to None are left out.
        columns: those that the templates name.
    """

    before: str
    passage: str
    after: str
    classes: Mapping[int, int | None]
    columns: tuple[str, ...]


CLASSIFICATION: dict[str, Task] = {
    "multirc": Task(
        "paragraph: ", "paragraph", " question: {question} answer: {answer}", {0: 0, 1: 1},
        ("paragraph", "question", "answer"),
    ),
    "boolq": Task(
        "question: {question} passage: ", "passage", "", {0: 0, 1: 1}, ("question", "passage")
    ),
    "cb": Task(
        "premise: ", "premise", " hypothesis: {hypothesis}", {0: 1, 1: 0, 2: None},
        ("premise", "hypothesis"),
    ),
}  # fmt: skip
TASK_NAMES = (*CLASSIFICATION, PREFERENCES)


@dataclass(frozen=True)
class Encoded:
    """A split as token ids.

    Attributes:
        rows: columns `input_ids` and `labels`, or `chosen_ids` and `rejected_ids`.
        truncated: rows that were cut to fit.
        left_out: rows that are not used: CB's neutral ones, pairs without a preference or with
            answers that do not fit.
    """

    rows: Dataset
    truncated: int
    left_out: int

    @cached_property
    def sha256(self) -> str:
        """Digest of all token ids and labels."""
        return hashlib.sha256(json.dumps(self.rows.to_dict()).encode()).hexdigest()


def encode(
    name: str,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    drop_unusable: bool = False,
) -> Encoded:
    """Turn the rows of a task into token ids.

    Args:
        name: one of `TASK_NAMES`.
        rows: the dataset's own columns.
        tokenizer: the model's, a fast one.
        length: the most tokens in a text.
        drop_unusable: leave preference pairs out that prefer nothing or whose answers do not fit,
            and count them, instead of raising.

    Raises:
        ValueError: an unknown task, a column that is missing, a label out of range, a question too
            long for any of its passage to fit, a pair with an empty or with two equal texts; the
            message names the row.
    """
    if name == PREFERENCES:
        return _encode_pairs(rows, tokenizer, length, drop_unusable)
    if name not in CLASSIFICATION:
        raise ValueError(f"unknown task '{name}'; choose from {list(TASK_NAMES)}")
    task = CLASSIFICATION[name]
    _require_columns(name, rows, (*task.columns, "label"))
    input_ids, labels, truncated = [], [], 0
    for number, row in enumerate(rows):
        if row["label"] not in task.classes:
            raise ValueError(
                f"row {number} of task '{name}' has label {row['label']}; labels are "
                f"{sorted(task.classes)} (a test split has none: use train and validation)"
            )
        if task.classes[row["label"]] is None:
            continue
        try:
            ids, was_cut = _fit_passage(task, row, tokenizer, length)
        except ValueError as error:
            raise ValueError(f"row {number} of task '{name}': {error}") from None
        input_ids.append(ids)
        labels.append(task.classes[row["label"]])
        truncated += was_cut
    encoded = Dataset.from_dict({"input_ids": input_ids, "labels": labels})
    return Encoded(encoded, truncated, len(rows) - len(encoded))


def _fit_passage(
    task: Task, row: Mapping[str, str], tokenizer: PreTrainedTokenizerBase, length: int
) -> tuple[list[int], bool]:
    """Token ids of a row's text, the end of its passage cut off as far as need be."""
    before, passage = task.before.format(**row), row[task.passage].strip()
    text = f"{before}{passage}{task.after.format(**row)}"
    tokens = tokenizer(text, return_offsets_mapping=True, verbose=False)
    ids, surplus = tokens["input_ids"], len(tokens["input_ids"]) - length
    if surplus <= 0:
        return ids, False
    first, last = len(before.rstrip()), len(before) + len(passage)
    inside = [
        place
        for place, (start, end) in enumerate(tokens["offset_mapping"])
        if first <= start < end <= last
    ]
    start = inside[-1] + 1 - surplus if inside else 0
    if not inside or start <= inside[0]:
        raise ValueError(
            f"its question takes {len(ids) - len(inside)} tokens and at most {length} fit, so "
            "that nothing of its passage would be left; use a model with more positions, or a "
            "larger length"
        )
    return ids[:start] + ids[inside[-1] + 1 :], True


def _encode_pairs(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, length: int, drop_unusable: bool
) -> Encoded:
    """Dialogues that are too long lose the beginning of what they share: their answers stay."""
    _require_columns(PREFERENCES, rows, ("chosen", "rejected"))
    pairs, problems, truncated = [], {}, 0
    for number, row in enumerate(rows):
        try:
            pair, was_cut = _fit_pair(row, tokenizer, length)
        except ValueError as error:
            problems[number] = str(error)
            continue
        pairs.append(pair)
        truncated += was_cut
    if problems and not drop_unusable:
        number, problem = next(iter(problems.items()))
        raise ValueError(
            f"row {number} of task '{PREFERENCES}' {problem}, and {len(problems)} of {len(rows)} "
            "rows cannot be used; mend the data, or leave them out with drop_unusable=True"
        )
    chosen, rejected = zip(*pairs, strict=True) if pairs else ((), ())
    encoded = Dataset.from_dict({"chosen_ids": chosen, "rejected_ids": rejected})
    return Encoded(encoded, truncated, len(problems))


def _fit_pair(
    row: Mapping[str, str], tokenizer: PreTrainedTokenizerBase, length: int
) -> tuple[tuple[list[int], list[int]], bool]:
    """Token ids of both dialogues, as much of their shared beginning cut off as need be.

    An eos token closes them, as TRL does it, unless it is the one that pads.
    """
    texts = (row["chosen"], row["rejected"])
    for column, text in zip(("chosen", "rejected"), texts, strict=True):
        if not text.strip():
            raise ValueError(f"has an empty '{column}' text")
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    end = [] if eos is None or eos == pad else [eos]
    chosen, rejected = (ids + end for ids in tokenizer(list(texts), verbose=False)["input_ids"])
    if chosen == rejected:
        raise ValueError("has the same text as chosen and rejected")
    surplus = max(len(chosen), len(rejected)) - length
    if surplus <= 0:
        return (chosen, rejected), False
    first = 1 if chosen[0] in tokenizer.all_special_ids else 0
    shared = next(
        (place for place, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b),
        min(len(chosen), len(rejected)),
    )
    if shared - first < surplus:
        raise ValueError(
            f"has answers that do not fit: {length} tokens are allowed, and what the two share is "
            f"{shared} of up to {length + surplus}"
        )
    return tuple(ids[:first] + ids[first + surplus :] for ids in (chosen, rejected)), True


def _require_columns(name: str, rows: Dataset, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in rows.column_names]
    if missing:
        raise ValueError(
            f"the dataset of task '{name}' lacks column {', '.join(map(repr, missing))}; it has "
            f"{rows.column_names}"
        )
