"""The tasks of Table 1 as token ids, and the rows of its two controls (section 3.2).

The paper's BoolQ text is "question: ... passage: ..."; MultiRC and CB follow its example, with the
passage first, in the harness's order. CB's neutral rows are left out (section 3.2 speaks of binary
classification).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path
from random import Random
from string import Formatter

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from linlib import store
from linlib.corpora import PREFERENCES, load_task

TASK, SHUFFLED, LANGUAGE_MODEL = "task", "shuffled labels", "language modelling"
TRAININGS = (TASK, SHUFFLED, LANGUAGE_MODEL)
ALL_TASKS = "all tasks"  # the text of the language-modelling control

# Task -> template of the text, the column that may be cut, and the dataset's labels -> ours; rows
# whose label maps to None are left out.
CLASSIFICATION: dict[str, tuple[str, str, dict[int, int | None]]] = {
    "multirc": (
        "paragraph: {paragraph} question: {question} answer: {answer}",
        "paragraph",
        {0: 0, 1: 1},
    ),
    "boolq": ("question: {question} passage: {passage}", "passage", {0: 0, 1: 1}),
    "cb": ("premise: {premise} hypothesis: {hypothesis}", "premise", {0: 1, 1: 0, 2: None}),
}


def task_rows(
    section: object, tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[str, Dataset, Dataset]]:
    """Name, training rows and validation rows of each task, and of the language-modelling control.

    The control comes last and is called "all tasks": texts of each task in turn, without labels,
    as many as its steps take; a task whose texts are used up begins again. How many rows were
    truncated or left out goes to the provenance.

    Args:
        section: `finetuning` of a profile.
        tokenizer: of the model.

    Raises:
        ValueError: as `encode` and `load_task`.
    """
    sizes = {"train": section.train_texts, "validation": section.validation_texts}
    training_texts = []
    for task in section.tasks:
        splits = []
        for split, n_texts in sizes.items():
            # A pair is two texts, and a third of CB's rows is not used.
            per_text = {PREFERENCES: 1 / 2, "cb": 3 / 2}.get(task, 1)
            rows = load_task(section.source, task, split, n_texts and int(n_texts * per_text))
            encoded, counts = encode(task, rows, tokenizer, section.seq_len, section.drop_unusable)
            label = f"{Path(tokenizer.name_or_path).name} {task} {split}"
            counts |= {"rows": len(encoded), "sha256": store.identity(encoded)}
            store.record("task rows", label, counts)
            splits.append(encoded)
        training_texts.append(cycle(texts_of(splits[0])))
        yield task, *splits
    in_turn = (next(texts) for texts in cycle(training_texts))
    texts = list(islice(in_turn, section.steps * section.batch_size))
    control = Dataset.from_dict({"input_ids": texts})
    yield ALL_TASKS, control, control.select([])


# --------------------------------------------------------------------------------- controls


def are_pairs(rows: Dataset) -> bool:
    """Whether rows are preference pairs, and not single texts with a class."""
    return "chosen_ids" in rows.column_names


def texts_of(rows: Dataset) -> list[list[int]]:
    """Token ids of all texts without their labels; both texts of a pair."""
    if not are_pairs(rows):
        return list(rows["input_ids"])
    pairs = zip(rows["chosen_ids"], rows["rejected_ids"], strict=True)
    return [ids for pair in pairs for ids in pair]


def task_windows(
    rows: Sequence[Dataset], tokenizer: PreTrainedTokenizerBase, seq_len: int, n_windows: int
) -> tuple[Tensor, Tensor]:
    """Cut the texts of a task into windows, to measure a model on the text that it is tuned on.

    They are like those of `token_windows`: texts are joined by the eos token, and each window
    begins with the only bos token that it holds.

    Args:
        rows: parts of a task, as `encode` returns them. Later parts, such as the training rows
            after the validation rows, are read only where the texts before them do not suffice.
        tokenizer: of the model, with a bos and an eos token.
        seq_len: tokens per window, the bos token included.
        n_windows: the most windows; a task with less text gives fewer.

    Returns:
        Token ids and the document of each token, both (windows, seq_len). The two texts of a pair
        are one document, and so are texts of which at least the first half is the same, such as
        questions about one passage.

    Raises:
        ValueError: the texts do not fill a window.
    """
    body, ids, documents, known = seq_len - 1, [], [], []
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    for text in chain.from_iterable(texts_of(part) for part in rows):
        if len(ids) >= n_windows * body:
            break
        text = text[text[0] in special : len(text) - (text[-1] in special)]
        same = (number for number, one in enumerate(known) if _begin_alike(text, one))
        number = next(same, len(known))
        if number == len(known):
            known.append(text)
        ids += [*text, tokenizer.eos_token_id]
        documents += [number] * (len(text) + 1)
    n_windows = min(n_windows, len(ids) // body)
    if n_windows == 0:
        raise ValueError(
            f"the texts of the task have {len(ids)} tokens, too few for a window of {seq_len}; "
            "give more rows, or shorter windows"
        )
    cut = (torch.tensor(one[: n_windows * body]).view(n_windows, body) for one in (ids, documents))
    windows, numbers = cut  # (n_windows, seq_len - 1)
    first = torch.full((n_windows, 1), tokenizer.bos_token_id)
    return torch.cat([first, windows], dim=1), torch.cat([numbers[:, :1], numbers], dim=1)


def _begin_alike(text: list[int], other: list[int]) -> bool:
    half = (min(len(text), len(other)) + 1) // 2
    return text[:half] == other[:half]


def control_rows(rows: Dataset, training: str, seed: int) -> Dataset:
    """The rows of a control: with labels that mean nothing ("shuffled labels"), or with none."""
    if training == LANGUAGE_MODEL:
        return Dataset.from_dict({"input_ids": texts_of(rows)})
    rng = Random(f"shuffled labels {seed}")
    if not are_pairs(rows):
        labels = list(rows["labels"])
        rng.shuffle(labels)
        return Dataset.from_dict({"input_ids": rows["input_ids"], "labels": labels})
    swapped = [number % 2 == 1 for number in range(len(rows))]
    rng.shuffle(swapped)
    pairs = zip(rows["chosen_ids"], rows["rejected_ids"], strict=True)
    shuffled = [pair[::-1] if swap else pair for pair, swap in zip(pairs, swapped, strict=True)]
    chosen, rejected = zip(*shuffled, strict=True)
    return Dataset.from_dict({"chosen_ids": chosen, "rejected_ids": rejected})


def chance_of(validation: Dataset) -> float:
    """Accuracy of always giving the more frequent label; one half for preference pairs."""
    if are_pairs(validation):
        return 0.5
    share = float(np.mean(validation["labels"]))
    return max(share, 1 - share)


# --------------------------------------------------------------------------------- encoding


def encode(
    name: str,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    seq_len: int,
    drop_unusable: bool = False,
) -> tuple[Dataset, dict[str, int]]:
    """Turn the rows of a task into token ids.

    Args:
        name: a key of `CLASSIFICATION`, or "reward_modeling".
        rows: the dataset's own columns.
        tokenizer: the model's, a fast one.
        seq_len: the largest number of tokens in a text.
        drop_unusable: leave out preference pairs that prefer nothing or whose answers do not fit,
            and count them, instead of raising.

    Returns:
        The rows, with columns `input_ids` and `labels`, or `chosen_ids` and `rejected_ids`; and
        how many were `truncated` to fit and how many were `left_out` (CB's neutral rows, unusable
        pairs).

    Raises:
        ValueError: the task is unknown, a column is missing, a label is out of range, a question is
            too long for any of its passage to fit, or a pair has an empty text or two equal ones;
            the message names the row.
    """
    if name == PREFERENCES:
        fit, columns = _fit_pair, ["chosen", "rejected"]
    elif name in CLASSIFICATION:
        fit = partial(_fit_passage, *CLASSIFICATION[name])
        columns = [*(field[1] for field in Formatter().parse(CLASSIFICATION[name][0])), "label"]
    else:
        known = [*CLASSIFICATION, PREFERENCES]
        raise ValueError(f"unknown task '{name}'; choose from {known}")
    if missing := [column for column in columns if column not in rows.column_names]:
        raise ValueError(
            f"the dataset of task '{name}' lacks column {', '.join(map(repr, missing))}; it has "
            f"{rows.column_names}"
        )
    used, problems, truncated = [], {}, 0
    for number, row in enumerate(rows):
        try:
            encoded, was_cut = fit(row, tokenizer, seq_len)
        except ValueError as error:
            problems[number] = error
            continue
        if encoded is not None:
            used.append(encoded)
            truncated += was_cut
    if problems and not (drop_unusable and name == PREFERENCES):
        number, problem = next(iter(problems.items()))
        advice = "; drop_unusable=True leaves such pairs out" if name == PREFERENCES else ""
        raise ValueError(
            f"row {number} of task '{name}' {problem} ({len(problems)} of {len(rows)} rows cannot "
            f"be used){advice}"
        )
    names = ("chosen_ids", "rejected_ids") if name == PREFERENCES else ("input_ids", "labels")
    encoded = Dataset.from_dict({one: [row[one] for row in used] for one in names})
    return encoded, {"truncated": truncated, "left_out": len(rows) - len(encoded)}


def _fit_passage(
    template: str,
    passage: str,
    classes: Mapping[int, int | None],
    row: Mapping[str, object],
    tokenizer: PreTrainedTokenizerBase,
    seq_len: int,
) -> tuple[dict[str, object] | None, bool]:
    """A row's token ids, with the end of its passage cut off if they are too many, and its class.

    None stands for a row that is left out; the second value is whether it was cut.
    """
    if row["label"] not in classes:
        raise ValueError(
            f"has label {row['label']}; labels are {sorted(classes)} (a test split has none: use "
            "train and validation)"
        )
    label, row = classes[row["label"]], {**row, passage: row[passage].strip()}
    if label is None:
        return None, False
    tokens = tokenizer(template.format(**row), return_offsets_mapping=True, verbose=False)
    ids, surplus = tokens["input_ids"], len(tokens["input_ids"]) - seq_len
    if surplus > 0:
        before = template.partition(f"{{{passage}}}")[0].format(**row)
        first, last = len(before.rstrip()), len(before) + len(row[passage])
        inside = [
            place
            for place, (start, end) in enumerate(tokens["offset_mapping"])
            if first <= start < end <= last
        ]
        start = inside[-1] + 1 - surplus if inside else 0
        if not inside or start <= inside[0]:
            raise ValueError(
                f"has a question of {len(ids) - len(inside)} tokens, and with at most {seq_len} "
                "nothing of its passage would be left; use a model with more positions, or a "
                "larger seq_len"
            )
        ids = ids[:start] + ids[inside[-1] + 1 :]
    return {"input_ids": ids, "labels": label}, surplus > 0


def _fit_pair(
    row: Mapping[str, str], tokenizer: PreTrainedTokenizerBase, seq_len: int
) -> tuple[dict[str, list[int]], bool]:
    """Token ids of both dialogues, with their shared beginning cut off if they are too long.

    An eos token closes them, as in TRL, unless it is also the pad token.
    """
    texts = [row["chosen"], row["rejected"]]
    for column in ("chosen", "rejected"):
        if not row[column].strip():
            raise ValueError(f"has an empty '{column}' text")
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    end = [] if eos is None or eos == pad else [eos]
    chosen, rejected = (ids + end for ids in tokenizer(texts, verbose=False)["input_ids"])
    if chosen == rejected:
        raise ValueError("has the same text as chosen and rejected")
    surplus = max(len(chosen), len(rejected)) - seq_len
    if surplus > 0:
        first = 1 if chosen[0] in tokenizer.all_special_ids else 0
        differs = (place for place, (a, b) in enumerate(zip(chosen, rejected)) if a != b)  # noqa: B905
        shared = next(differs, min(len(chosen), len(rejected)))
        if shared - first < surplus:
            raise ValueError(
                f"has answers that do not fit: {seq_len} tokens are allowed, and the two share "
                f"{shared} of up to {seq_len + surplus}"
            )
        chosen, rejected = (ids[:first] + ids[first + surplus :] for ids in (chosen, rejected))
    return {"chosen_ids": chosen, "rejected_ids": rejected}, surplus > 0
