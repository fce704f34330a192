"""Figure 2: linearity along pretraining, of the zoo, of the Mistral twin and of hub checkpoints."""

from __future__ import annotations

import pandas as pd

from linlib.experiments.subjects import (
    Measurement,
    Subject,
    checkpoint_windows,
    commit_of,
    corpus_record,
    each,
    provenance,
    zoo_models,
)
from linlib.measure import linearity_profile
from linlib.pretrain import Variant, train_variants, tune_plain
from linlib.profiles import HubModel, Profile

COLUMNS = [
    "linearity_score", "linearity_no_residual", "identity_score", "null_score", "heldout_score",
    "heldout_no_residual", "n_tokens", "d_model",
]  # fmt: skip


def measure(profile: Profile) -> Measurement:
    """Score every block at every checkpoint.

    Columns: `model`, `seed`, `step`, `layer`, `depth`, `tokens`, and the scores. Models of the hub
    and of the zoo have one seed; the plain Mistral of the profile has several.
    """
    followed = [*_zoo_checkpoints(profile), *_hub_checkpoints(profile)]
    subjects = [subject for subject, _ in followed]
    frames = [
        frame.assign(model=label[0], seed=profile.seed, step=label[1])
        for frame, (_, label) in zip(each(profile, subjects, _scores), followed, strict=True)
    ]
    models: dict[str, list[str]] = {}
    for subject, (label, _) in followed:
        if subject.identity not in models.setdefault(label, []):
            models[label].append(subject.identity)
    seeds = {profile.seed}
    if profile.pretraining is not None:
        for run in _plain_mistrals(profile):
            label = f"Mistral ({profile.name})"
            frames.append(run.model.measurements().assign(model=label, seed=run.seed))
            models.setdefault(label, []).append(run.model.folder.name)
            seeds.add(run.seed)
    if not frames:
        raise ValueError(
            f"profile '{profile.name}' follows no pretraining, so this figure cannot be measured "
            "in it; add `zoo`, `pretraining` or `hub_checkpoints` to its file"
        )
    frame = pd.concat(frames, ignore_index=True)
    order = ["model", "seed", "step", "layer", "depth", "tokens"]
    record = provenance(profile, []) | {"models": models, "seeds": sorted(seeds)}
    if profile.pretraining is not None:
        record["pretraining_corpus"] = corpus_record(profile.pretraining.corpus)
    return Measurement({"": frame[order + COLUMNS].sort_values(order)}, record)


def _zoo_checkpoints(profile: Profile) -> list[tuple[Subject, tuple[str, int]]]:
    found = []
    for label, trained in zoo_models(profile).items():
        for step, folder in trained.checkpoints.items():
            identity = f"zoo/{trained.folder.name}"
            found.append((Subject(f"{label}, step {step}", identity, folder), (label, step)))
    return found


def _hub_checkpoints(profile: Profile) -> list[tuple[Subject, tuple[str, int]]]:
    found = []
    for followed in profile.hub_checkpoints:
        for step, source in followed.checkpoints.items():
            repository, _, revision = source.partition("@")
            settings = HubModel(
                id=repository,
                label=followed.label,
                revision=revision or None,
                bos_token=followed.bos_token,
                pad_token=followed.pad_token,
            )
            identity = f"{repository}@{commit_of(settings)}"
            subject = Subject(f"{followed.label}, step {step}", identity, repository, settings)
            found.append((subject, (followed.label, step)))
    return found


def _plain_mistrals(profile: Profile) -> list[Variant]:
    tuned, _ = tune_plain(profile)
    size, variants = next(iter(profile.pretraining.runs.items()))
    return train_variants(profile, tuned, {size: {"plain": variants["plain"]}})


def _scores(profile: Profile, subject: Subject) -> pd.DataFrame:
    model, tokenizer = subject.open(profile)
    windows = checkpoint_windows(profile, tokenizer)
    at_once = profile.measure.layers_per_pass
    options = {"n_folds": profile.measure.n_folds, "batch_size": profile.measure.batch_size}
    if at_once is None:
        return linearity_profile(model, windows, **options)
    layers = range(1, model.config.num_hidden_layers + 1)
    passes = [layers[start : start + at_once] for start in range(0, len(layers), at_once)]
    return pd.concat([linearity_profile(model, windows, layers=some, **options) for some in passes])
