"""Task files for the harness: our own rows under the harness's stock definitions.

Each `linlib/tasks/<task>.yaml` includes the stock definition of the same task and puts local rows
in the place of the hub's, so that prompts, choices and metrics are one and the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template

import lm_eval.tasks
from datasets import Dataset

from linlib.store import artefact_folder, build_once, cache_folder

DEFINITIONS = Path(__file__).parents[1] / "tasks"
HARNESS = Path(lm_eval.tasks.__file__).parent
HUB_RECORD = "hub_record"

# What the definitions read of a row, and the share of right answers that guessing gets.
COLUMNS: dict[str, tuple[str, ...]] = {
    "arc_easy": ("question", "choices", "answerKey"),
    "boolq": ("question", "passage", "label"),
    "cb": ("premise", "hypothesis", "label"),
    "copa": ("premise", "choice1", "choice2", "question", "label"),
    "multirc": ("paragraph", "question", "answer", "label"),
    "record": ("passage", "query", "entities", "answers"),
    "rte": ("premise", "hypothesis", "label"),
    "storycloze": (
        *(f"input_sentence_{number}" for number in range(1, 5)),
        "sentence_quiz1", "sentence_quiz2", "answer_right_ending",
    ),
    "text": ("text",),
    "wic": ("sentence1", "sentence2", "start1", "end1", "label"),
}  # fmt: skip
CHANCE = {
    "arc_easy": 1 / 4, "boolq": 1 / 2, "cb": 1 / 3, "copa": 1 / 2, "multirc": 1 / 2,
    "record": 1 / 2, "rte": 1 / 2, "storycloze": 1 / 2, "wic": 1 / 2,
}  # fmt: skip
# The stock task of each, on the hub's rows; record's does not import on transformers 5.
STOCK = {
    "arc_easy": "arc_easy", "boolq": "boolq", "cb": "cb", "copa": "copa", "multirc": "multirc",
    "record": HUB_RECORD, "rte": "sglue_rte", "storycloze": "xstorycloze_en", "text": "wikitext",
    "wic": "wic",
}  # fmt: skip


def local_tasks(rows: Mapping[str, Dataset]) -> Path:
    """Write rows and task files to a folder of the store; the task `boolq` is `local_boolq` there.

    The harness's own command line reads the folder too: `lm_eval --include_path FOLDER`. It holds
    `hub_record` besides, the stock task `record` in a form that imports.

    Args:
        rows: task -> its rows, in the columns of the original.

    Raises:
        ValueError: an unknown task, no rows, or a column that the definition reads is missing.
    """
    lines = {task: _lines(task, data) for task, data in rows.items()}
    recipe = {
        "rows": {task: hashlib.sha256(text.encode()).hexdigest() for task, text in lines.items()},
        "definitions": {file.name: file.read_text() for file in sorted(DEFINITIONS.glob("*.yaml"))},
        "places": [str(DEFINITIONS), str(HARNESS), str(cache_folder())],
    }
    places = {
        "definitions": DEFINITIONS,
        "harness": HARNESS,
        "data": artefact_folder("tasks", recipe),
    }

    def build(folder: Path) -> None:
        for task, text in lines.items():
            (folder / f"{task}.jsonl").write_text(text)
        for task in (*lines, HUB_RECORD):
            definition = Template((DEFINITIONS / f"{task}.yaml").read_text())
            (folder / f"{task}.yaml").write_text(definition.substitute(places))

    return build_once("tasks", recipe, build)


def _lines(task: str, rows: Dataset) -> str:
    """Rows as JSON lines."""
    if task not in COLUMNS:
        raise ValueError(f"unknown task '{task}'; choose from {sorted(COLUMNS)}")
    if len(rows) == 0:
        raise ValueError(f"task '{task}' has no rows")
    missing = [name for name in COLUMNS[task] if name not in rows.column_names]
    if missing:
        raise ValueError(
            f"rows of task '{task}' lack the columns {missing}; found {rows.column_names}"
        )
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
