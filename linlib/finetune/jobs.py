"""Fine-tunings side by side, each with its linearity afterwards, found again in the store."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from linlib.finetune.recipe import FineTuning
from linlib.finetune.tasks import Encoded
from linlib.finetune.train import Base, fine_tune
from linlib.measure import linearity_profile
from linlib.parallel import side_by_side
from linlib.store import artefact_folder, build_once, code_digest
from linlib.store.frames import write_atomically

LAYERS_FILE, OUTCOME_FILE = "layers.csv", "outcome.json"
CODE = ("finetune", "linearity", "measure", "models", "training.py")


@dataclass(frozen=True)
class FineTuningJob:
    """One fine-tuning, and the measurement after it.

    Attributes:
        model: its name in figures.
        identity: what it is, in the store: the key of its recipe, or hub id and commit.
        base: where it is.
        task: the name of the task.
        train: rows to train on.
        validation: rows to validate on.
        how: training, schedule and seed.
        windows: the tokens that linearity is measured on, (n_windows, length).
        measuring: options of `linearity_profile`.
    """

    model: str
    identity: str
    base: Base
    task: str
    train: Encoded
    validation: Encoded
    how: FineTuning
    windows: Tensor
    measuring: tuple[tuple[str, int], ...]

    @cached_property
    def settings(self) -> dict[str, object]:
        """Everything that the result depends on: its key in the store."""
        return {
            "model": self.identity,
            "pad_token_id": self.base.tokenizer.pad_token_id,
            "train": self.train.sha256,
            "validation": self.validation.sha256,
            "how": asdict(self.how),
            "windows": hashlib.sha256(self.windows.numpy().tobytes()).hexdigest(),
            "measuring": dict(self.measuring),
            "code": code_digest(*CODE),
            **{name: version(name) for name in ("torch", "transformers", "trl", "accelerate")},
        }

    @property
    def folder(self) -> Path:
        """Where the result is, or will be."""
        return artefact_folder("finetuned", self.settings)


@dataclass(frozen=True)
class FineTuningResult:
    """What a job leaves behind.

    Attributes:
        job: the job.
        layers: `linearity_profile` of the backbone after fine-tuning.
        correct: validation rows that it gets right; None for a language model.
        n_validation: of how many.
    """

    job: FineTuningJob
    layers: pd.DataFrame
    correct: int | None
    n_validation: int


def run_jobs(jobs: Sequence[FineTuningJob], workers: int) -> list[FineTuningResult]:
    """Run the jobs that the store lacks, one thread each, with a progress bar over jobs."""
    missing = [job for job in jobs if not job.folder.is_dir()]
    done = side_by_side(_run, missing, workers)
    for _ in tqdm(done, "fine-tuning", total=len(missing), unit="run", disable=not missing):
        pass
    return [_read(job) for job in jobs]


def _run(job: FineTuningJob) -> None:
    def build(folder: Path) -> None:
        tuned = fine_tune(job.base, job.train, job.validation, job.how, folder / "trainer")
        layers = linearity_profile(tuned.model, job.windows, **dict(job.measuring))
        layers.to_csv(folder / LAYERS_FILE, index=False)
        outcome = {"correct": tuned.correct, "n_validation": tuned.n_validation}
        write_atomically(folder / OUTCOME_FILE, json.dumps(outcome))
        shutil.rmtree(folder / "trainer", ignore_errors=True)  # only an unfinished run needs it

    build_once("finetuned", job.settings, build)
    gc.collect()  # a Trainer refers to itself, and would hold on to its optimiser


def _read(job: FineTuningJob) -> FineTuningResult:
    outcome = json.loads((job.folder / OUTCOME_FILE).read_text())
    return FineTuningResult(job, pd.read_csv(job.folder / LAYERS_FILE), **outcome)
