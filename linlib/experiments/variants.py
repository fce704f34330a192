"""One measurement of each pretrained Mistral, side by side, found again in the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from linlib.experiments.subjects import corpus_record, provenance
from linlib.parallel import side_by_side
from linlib.pretrain import Variant, train_variants, tune_plain
from linlib.profiles import EvaluationSettings, Profile
from linlib.store import artefact_folder, build_once, code_digest

FRAME = "frame.csv"
DECIDING = ("torch", "transformers", "lm_eval", "scikit-learn")  # another version, other numbers
Measure = Callable[[Path, Mapping[str, object]], pd.DataFrame]


def evaluated_variants(profile: Profile, what: str) -> tuple[EvaluationSettings, list[Variant]]:
    """The profile's evaluation, and the Mistrals that it is about, trained if need be.

    Args:
        profile: pretrains and evaluates them.
        what: the figure or table, for the error.

    Raises:
        ValueError: the profile pretrains or evaluates nothing.
    """
    if profile.pretraining is None or profile.evaluation is None:
        raise ValueError(
            f"profile '{profile.name}' does not pretrain and evaluate Mistrals, so {what} cannot "
            "be measured in it; add `pretraining` and `evaluation` to its file, or choose another "
            "profile"
        )
    tuned, _ = tune_plain(profile)
    return profile.evaluation, train_variants(profile, tuned)


def measure_each(
    kind: str,
    measure: Measure,
    variants: Sequence[Variant],
    options: Mapping[str, object],
    workers: int,
    code: Sequence[str],
) -> pd.DataFrame:
    """Measure every variant; rows are labelled `model`, `size`, `variant` and `seed`.

    Args:
        kind: what it is, in the store and in the progress bar.
        measure: a module's function from a model folder and options to a frame.
        variants: the models.
        options: JSON values, the same for all; with the model and the code, the key in the store.
        workers: models at once, one thread each.
        code: parts of linlib whose change makes another measurement of it.
    """
    digest = code_digest(*code)
    jobs = [_Job(kind, measure, one.model.folder, dict(options), digest) for one in variants]
    missing = [job for job in jobs if not job.folder.is_dir()]
    done = side_by_side(_run, missing, workers)
    for _ in tqdm(done, kind, total=len(missing), unit="model", disable=not missing):
        pass
    frames = []
    for job, one in zip(jobs, variants, strict=True):
        labels = {"model": one.model.name, "size": one.size, "variant": one.variant}
        frame = pd.read_csv(
            job.folder / FRAME,
            keep_default_na=False,
            na_values=[""],
            lineterminator="\n",  # a lone carriage return is text
            skip_blank_lines=False,  # so is a blank in a column of its own
        )
        frames.append(frame.assign(**labels, seed=one.seed)[[*labels, "seed", *frame.columns]])
    return pd.concat(frames, ignore_index=True)


def record_of(profile: Profile, variants: Sequence[Variant], **more: object) -> dict[str, object]:
    """Provenance of a measurement of variants; its corpus is the one that they were trained for."""
    return provenance(profile, []) | {
        "corpus": corpus_record(profile.pretraining.corpus),
        "seeds": sorted({one.seed for one in variants}),
        "models": {one.model.name: one.model.folder.name for one in variants},
        **more,
    }


@dataclass(frozen=True)
class _Job:
    kind: str
    measure: Measure
    model: Path
    options: dict[str, object]
    code: str

    @property
    def recipe(self) -> dict[str, object]:
        versions = {package: version(package) for package in DECIDING}
        options = {"model": self.model.name, "options": self.options, "code": self.code}
        return options | {"packages": versions}

    @property
    def folder(self) -> Path:
        return artefact_folder(self.kind, self.recipe)


def _run(job: _Job) -> None:
    def build(folder: Path) -> None:
        job.measure(job.model, job.options).to_csv(folder / FRAME, index=False, lineterminator="\n")

    build_once(job.kind, job.recipe, build)
