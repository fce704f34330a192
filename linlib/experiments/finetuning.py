"""Table 1: what fine-tuning does to the linearity of a decoder, beside two controls."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pandas as pd
from datasets import Dataset

from linlib.corpora.benchmarks import PREFERENCES, load_task
from linlib.experiments.subjects import (
    Measurement,
    Subject,
    checkpoint_windows,
    hub_subjects,
    provenance,
    subjects,
)
from linlib.finetune import (
    LANGUAGE_MODEL,
    SHUFFLED,
    TASK,
    Base,
    Encoded,
    FineTuning,
    FineTuningJob,
    FineTuningResult,
    encode,
    run_jobs,
    texts_of,
)
from linlib.intervals import binomial_interval
from linlib.measure import linearity_profile
from linlib.profiles import FineTuningSettings, Profile
from linlib.training import has_fast_bf16

ALL_TASKS = "all tasks"  # what the language-modelling control reads: texts of each in turn
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
    chosen = _chosen(profile, settings)
    before, jobs, truncated = {}, [], {}
    for subject in chosen:
        before[subject.name], its_jobs = _prepare(profile, settings, subject)
        truncated[subject.name] = {job.task: job.train.truncated for job in its_jobs}
        jobs += its_jobs
    runs, layers = [], []
    for result in run_jobs(jobs, settings.workers):
        compared = _beside(before[result.job.model], result)
        for task in settings.tasks if result.job.task == ALL_TASKS else (result.job.task,):
            layers.append(compared.assign(task=task))
            runs.append(_of_run(layers[-1], result))
    record = provenance(profile, chosen) | {
        "seeds": list(settings.seeds),
        "truncated_texts": truncated,
    }
    return Measurement({"": pd.DataFrame(runs), "_layers": pd.concat(layers)}, record)


def _chosen(profile: Profile, settings: FineTuningSettings) -> list[Subject]:
    everyone = [*subjects(profile), *hub_subjects(settings.hub_models)]
    known = {s.name.removesuffix(f" ({profile.name})"): s for s in everyone}
    unknown = [name for name in settings.models if name not in known]
    if unknown:
        raise ValueError(
            f"profile '{profile.name}' fine-tunes {unknown}, and has no such models; it has "
            f"{sorted(known)}"
        )
    return [known[name] for name in settings.models]


def _prepare(
    profile: Profile, settings: FineTuningSettings, subject: Subject
) -> tuple[pd.DataFrame, list[FineTuningJob]]:
    """The profile of a model as it comes, and all its fine-tunings."""
    model, tokenizer = subject.open(profile)
    windows = checkpoint_windows(profile, tokenizer)
    measuring = {"n_folds": profile.measure.n_folds, "batch_size": profile.measure.batch_size}
    before = linearity_profile(model.float(), windows, **measuring)
    del model
    gc.collect()
    revision = subject.settings and subject.settings.revision
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
        for task, train, validation in _tasks(settings, tokenizer)
        for how in _trainings(profile, settings, task)
    ]
    return before, jobs


def _tasks(
    settings: FineTuningSettings, tokenizer: object
) -> Iterator[tuple[str, Encoded, Encoded]]:
    """Every task with its two splits, and last the texts of all of them, without labels."""
    trains = []
    for task in settings.tasks:
        splits = []
        for split, texts in (
            ("train", settings.train_texts),
            ("validation", settings.validation_texts),
        ):
            rows = load_task(settings.source, task, split, _rows_for(task, texts))
            splits.append(encode(task, rows, tokenizer, settings.length, settings.drop_unusable))
        trains.append(splits[0])
        yield task, *splits
    texts = [texts_of(train.rows) for train in trains]
    in_turn = [ids for turn in zip(*texts, strict=False) for ids in turn]
    rows = Dataset.from_dict({"input_ids": in_turn[: max(map(len, texts))]})
    yield ALL_TASKS, Encoded(rows, 0, 0), Encoded(rows.select([]), 0, 0)


def _rows_for(task: str, texts: int | None) -> int | None:
    """Rows that hold so many texts: a pair is two, and a third of CB's rows is not used."""
    if texts is None:
        return None
    return {PREFERENCES: texts // 2, "cb": texts * 3 // 2}.get(task, texts)


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
    low = high = share = np.nan  # a language model answers nothing
    if result.correct is not None:
        low, high = binomial_interval(result.correct, result.n_validation)
        share = result.correct / result.n_validation
    row |= {"accuracy": share, "accuracy_low": low, "accuracy_high": high}
    return row | everything[names].mean().to_dict()
