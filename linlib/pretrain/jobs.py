"""Independent trainings side by side: plain functions of a config, with results in the store."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedConfig

from linlib.models import load_tokenizer
from linlib.parallel import side_by_side
from linlib.pretrain.checkpoints import MEASUREMENT_FILE
from linlib.pretrain.progress import shared_progress
from linlib.pretrain.recipe import Recipe
from linlib.pretrain.text import TrainingText, read_windows
from linlib.pretrain.train import LOSSES_FILE, train
from linlib.store import (
    artefact_folder,
    artefact_lock,
    build_once,
    code_digest,
    complete_artefact,
    partial_folder,
)

# What decides the weights, and what decides the measurements kept beside them.
TRAINING_CODE = (
    "models",
    "training.py",
    *(
        f"pretrain/{name}.py"
        for name in ("callback", "checkpoints", "regularise", "train", "trainer")
    ),
)
MEASURING_CODE = ("linearity", "measure", "intervals.py")


@dataclass(frozen=True)
class TrainedModel:
    """A finished run: its name and its Hugging Face folder."""

    name: str
    folder: Path

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Model folders by training step, in order."""
        found = {int(p.name[4:]): p for p in (self.folder / "checkpoints").glob("step*[0-9]")}
        return dict(sorted(found.items()))

    @property
    def losses(self) -> pd.DataFrame:
        """Training losses by step, as the Trainer logged them."""
        return pd.DataFrame(json.loads((self.folder / LOSSES_FILE).read_text()))

    def measurements(self) -> pd.DataFrame:
        """Linearity profile and validation loss of every checkpoint, with its `step`."""
        frames = [
            pd.read_csv(folder / MEASUREMENT_FILE).assign(step=step)
            for step, folder in self.checkpoints.items()
        ]
        return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class Job:
    """One training run.

    Attributes:
        name: in the progress bar, and of the trained model.
        config: the architecture.
        text: what it reads; with held-out windows, every checkpoint is measured on them.
        recipe: how it is trained.
    """

    name: str
    config: PreTrainedConfig
    text: TrainingText
    recipe: Recipe

    @property
    def settings(self) -> dict[str, object]:
        """Everything that the result depends on: its key in the store."""
        settings = {
            "config": self.config.to_diff_dict() | {"transformers_version": None},
            "tokenizer": self.text.tokenizer.name,
            "windows": self.text.train.name,
            "recipe": asdict(self.recipe),
            "code": code_digest(*TRAINING_CODE),
            **{package: version(package) for package in ("torch", "transformers", "accelerate")},
        }
        if self.text.heldout is not None:
            settings["heldout"] = self.text.heldout.name
            settings["measuring"] = code_digest(*MEASURING_CODE)
        return settings

    @property
    def result(self) -> TrainedModel:
        """Where the trained model is, or will be."""
        return TrainedModel(self.name, artefact_folder("model", self.settings))


def run_job(job: Job) -> TrainedModel:
    """Train one model, unless the store has it; a killed run goes on from its last checkpoint.

    Under `torchrun` or `accelerate launch` all processes call this, and share the run.
    """

    def build(folder: Path) -> None:
        train(
            job.config,
            read_windows(job.text.train),
            job.recipe,
            load_tokenizer(job.text.tokenizer),
            folder,
            read_windows(job.text.heldout) if job.text.heldout else None,
        )

    if _processes() == 1:
        build_once("model", job.settings, build)
    else:
        _build_together(job, build)
    return job.result


def _build_together(job: Job, build: Callable[[Path], None]) -> None:
    """`build_once` in step: the first process locks, decides and renames, all of them build."""
    group = PartialState(cpu=job.recipe.device == "cpu")
    lock = artefact_lock("model", job.settings)
    with lock if group.is_main_process else nullcontext():
        (done,) = broadcast_object_list([job.result.folder.is_dir()])
        if not done:
            build(partial_folder("model", job.settings))
            if group.is_main_process:
                complete_artefact("model", job.settings)
            PartialState().wait_for_everyone()


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def run_side_by_side(jobs: Sequence[Job], workers: int) -> list[TrainedModel]:
    """Run the jobs that the store lacks, one thread each, with one progress bar.

    Where several processes share the work already (`torchrun`), one job runs after the other.
    """
    missing = [job for job in jobs if not job.result.folder.is_dir()]
    if _processes() > 1:
        for job in jobs:  # each process asks the first whether it is missing
            run_job(job)
    elif missing:
        folders = {job.name: partial_folder("model", job.settings) for job in missing}
        steps = max(job.recipe.steps for job in missing)
        with shared_progress(folders, steps):
            list(side_by_side(run_job, missing, workers))
    return [job.result for job in jobs]
