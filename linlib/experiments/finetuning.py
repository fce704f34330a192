"""Table 1: what fine-tuning does to the linearity of a decoder, beside two controls."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pandas as pd

from linlib.experiments.subjects import (
    Measurement,
    Subject,
    checkpoint_windows,
    named_subjects,
    provenance,
)
from linlib.finetune import (
    ALL_TASKS,
    LANGUAGE_MODEL,
    SHUFFLED,
    TASK,
    Base,
    FineTuning,
    FineTuningJob,
    FineTuningResult,
    chance_of,
    rows_of_tasks,
    run_jobs,
)
from linlib.intervals import binomial_interval
from linlib.measure import linearity_profile
from linlib.models import load_model, load_tokenizer
from linlib.profiles import FineTuningSettings, Profile
from linlib.training import has_fast_bf16

SCORES = [
    "linearity_score", "linearity_no_residual", "heldout_score", "heldout_no_residual",
]  # fmt: skip


def measure(profile: Profile) -> Measurement:
    """Fine-tune every model on every task from every seed, and measure before and after.

    Frames: "" has a row a run, with scores averaged over layers (all tokens) and validation
    accuracy with its binomial interval; "_layers" has the scores of every layer. The
    language-modelling control reads the texts of all tasks and is one run for all of them: its
    rows are repeated for each.

    Raises:
        ValueError: the profile fine-tunes nothing, or names a model that it has not.
    """
    settings = profile.finetuning
    if settings is None:
        raise ValueError(
            f"profile '{profile.name}' fine-tunes nothing, so this table cannot be measured in "
            "it; add `finetuning` to its file, or choose another profile"
        )
    chosen = named_subjects(profile, settings.models, settings.hub_models)
    before, jobs, data = {}, [], {}
    for subject in chosen:
        before[subject.name], its_jobs = _prepare(profile, settings, subject)
        data[subject.name] = {job.task: _record_of(job) for job in its_jobs}
        jobs += its_jobs
    runs, layers = [], []
    for result in run_jobs(jobs, settings.workers):
        compared = _beside(before[result.job.model], result)
        for task in settings.tasks if result.job.task == ALL_TASKS else (result.job.task,):
            layers.append(compared.assign(task=task))
            runs.append(_of_run(layers[-1], result))
    record = provenance(profile, chosen) | {
        "seeds": list(settings.seeds),
        "fine_tuned_in": "float32",
        "task_source": settings.source,
        "task_data": data,
    }
    return Measurement({"": pd.DataFrame(runs), "_layers": pd.concat(layers)}, record)


def _prepare(
    profile: Profile, settings: FineTuningSettings, subject: Subject
) -> tuple[pd.DataFrame, list[FineTuningJob]]:
    """The profile of a model as it comes, in float32 as it is trained, and its fine-tunings."""
    hub = subject.settings
    if hub is None:
        revision, tokenizer = None, load_tokenizer(subject.source)
    else:
        commit = subject.identity.rpartition("@")[2]
        revision = None if commit.startswith("local-") else commit
        tokenizer = load_tokenizer(subject.source, revision, hub.bos_token, hub.pad_token)
    windows = checkpoint_windows(profile, tokenizer)
    measuring = {"n_folds": profile.measure.n_folds, "batch_size": profile.measure.batch_size}
    model = load_model(subject.source, revision, device=profile.device)
    before = linearity_profile(model, windows, **measuring)
    del model
    gc.collect()
    jobs = [
        FineTuningJob(
            model=subject.name,
            identity=subject.identity,
            base=Base(subject.source, tokenizer, revision),
            task=task,
            train=train,
            validation=validation,
            how=how,
            windows=windows,
            measuring=tuple(measuring.items()),
        )
        for task, train, validation in rows_of_tasks(settings, tokenizer)
        for how in _trainings(profile, settings, task)
    ]
    return before, jobs


def _record_of(job: FineTuningJob) -> dict[str, dict[str, object]]:
    """What a task's rows were, for provenance."""
    return {
        split: {
            "rows": len(encoded.rows),
            "truncated": encoded.truncated,
            "left_out": encoded.left_out,
            "sha256": encoded.sha256,
        }
        for split, encoded in (("train", job.train), ("validation", job.validation))
    }


def _trainings(profile: Profile, settings: FineTuningSettings, task: str) -> Iterator[FineTuning]:
    for training in (LANGUAGE_MODEL,) if task == ALL_TASKS else (TASK, SHUFFLED):
        for seed in settings.seeds:
            yield FineTuning(
                training=training,
                steps=settings.steps,
                batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                warmup_share=settings.warmup_share,
                seed=seed,
                device=profile.device,
                bf16=has_fast_bf16(profile.device),
                texts_at_once=settings.texts_at_once,
                checkpoint_every=settings.checkpoint_every,
            )


def _beside(before: pd.DataFrame, result: FineTuningResult) -> pd.DataFrame:
    """Scores of every layer after a run, before it, and their difference."""
    key = ["layer", "depth", "tokens"]
    both = result.layers[[*key, *SCORES, "null_score", "n_tokens", "d_model"]].merge(
        before[[*key, *SCORES]], on=key, suffixes=("", "_before"), validate="one_to_one"
    )
    for score in SCORES:
        both[f"delta_{score}"] = both[score] - both[f"{score}_before"]
    return _label(both, result)


def _label(frame: pd.DataFrame, result: FineTuningResult) -> pd.DataFrame:
    job = result.job
    labels = {"model": job.model, "task": job.task, "training": job.how.training}
    for place, (name, value) in enumerate((labels | {"seed": job.how.seed}).items()):
        frame.insert(place, name, value)
    return frame


def _of_run(layers: pd.DataFrame, result: FineTuningResult) -> dict[str, object]:
    """One row: means over layers, and what the model learned."""
    everything = layers[layers["tokens"] == "all"]
    names = [f"{score}{end}" for score in SCORES for end in ("", "_before")]
    names += [f"delta_{score}" for score in SCORES]
    row = everything.iloc[0][["model", "task", "training", "seed"]].to_dict()
    row |= {"steps": result.job.how.steps, "rows": len(result.job.train.rows)}
    row |= {"correct": result.correct, "n_validation": result.n_validation}
    low = high = share = chance = np.nan  # a language model answers nothing
    if result.correct is not None:
        low, high = binomial_interval(result.correct, result.n_validation)
        share = result.correct / result.n_validation
        chance = chance_of(result.job.validation)
    row |= {"chance": chance, "accuracy": share, "accuracy_low": low, "accuracy_high": high}
    return row | everything[names].mean().to_dict()
