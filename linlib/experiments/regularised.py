"""Figure 4: pretraining with and without the paper's regularisers, over seeds (section 4)."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd

from linlib.experiments.subjects import Measurement, corpus_record, provenance
from linlib.pretrain import Variant, train_variants, tune_plain
from linlib.profiles import Profile

RUN = ["size", "variant", "seed"]
SCORES = [
    "linearity_score", "linearity_no_residual", "identity_score", "heldout_score",
    "heldout_no_residual",
]  # fmt: skip


def measure(profile: Profile) -> Measurement:
    """Train every variant from every seed, and compare them.

    Frames: scores of every layer at the end of training (""), their means over layers along
    training ("_training"), the runs at equal steps and at equal loss ("_comparison"), and the
    sweep that tuned the plain model ("_sweep").

    Raises:
        ValueError: the profile pretrains nothing.
    """
    if profile.pretraining is None:
        raise ValueError(
            f"profile '{profile.name}' pretrains no Mistral, so this figure cannot be measured in "
            "it; add `pretraining` to its file, or choose another profile"
        )
    tuned, sweep = tune_plain(profile)
    runs = train_variants(profile, tuned)
    layers = pd.concat([_of_run(run) for run in runs], ignore_index=True)
    training = mean_over_layers(layers)
    frames = {
        "": layers[layers["step"] == layers["step"].max()].drop(columns="step"),
        "_training": training,
        "_comparison": compare(training),
        "_sweep": sweep,
    }
    record = provenance(profile, []) | {
        "seeds": sorted({run.seed for run in runs}),
        "models": {run.model.name: run.model.folder.name for run in runs},
        "tuned": asdict(tuned),
        "corpus": corpus_record(profile.pretraining.corpus),
    }
    return Measurement(frames, record)


def _of_run(run: Variant) -> pd.DataFrame:
    frame = run.model.measurements()
    where = {"model": run.model.name, "size": run.size, "variant": run.variant, "seed": run.seed}
    frame = frame.assign(**where)
    columns = ["step", "layer", "depth", "tokens", *SCORES, "null_score", "n_tokens", "d_model"]
    return frame[["model", *RUN, *columns, "validation_loss"]]


def mean_over_layers(layers: pd.DataFrame) -> pd.DataFrame:
    """Mean scores over the layers of a model, one row a run, step and token group."""
    values = [*SCORES, "null_score", "validation_loss"]
    return layers.groupby([*RUN, "step", "tokens"], sort=False)[values].mean().reset_index()


def compare(training: pd.DataFrame, control: str = "plain") -> pd.DataFrame:
    """Each variant beside the control, at equal steps (the last) and at equal validation loss.

    The loss is the lowest that every run of the pair reaches; scores there are interpolated
    between the two checkpoints about its first crossing. All tokens.

    Args:
        training: as `mean_over_layers` gives it.
        control: the variant that the others are compared with.

    Returns:
        One row a `pair` (named after the variant), run of the pair and `at` ("equal steps",
        "equal loss"): `reached_at` (the step, interpolated too), `validation_loss` (nats per
        token) and the scores.
    """
    training = training[training["tokens"] == "all"].drop(columns="tokens")
    training = training.rename(columns={"step": "reached_at"}).sort_values("reached_at")
    rows = []
    for _, size in training.groupby("size", sort=False):
        for variant in sorted(set(size["variant"]) - {control}):
            pair = size[size["variant"].isin([variant, control])]
            target = pair.groupby(RUN)["validation_loss"].min().max()
            for run, path in pair.groupby(RUN, sort=False):
                where = {"pair": variant, **dict(zip(RUN, run, strict=True))}
                rows.append(where | {"at": "equal steps"} | path.iloc[-1].drop(RUN).to_dict())
                rows.append(where | {"at": "equal loss"} | _at_loss(path, target))
    return pd.DataFrame(rows)


def _at_loss(path: pd.DataFrame, target: float) -> dict[str, float]:
    """Step and scores where a run's validation loss first falls to `target`."""
    losses = path["validation_loss"].to_numpy()
    after = int(np.argmax(losses <= target))
    values = path.drop(columns=RUN)
    if after == 0:
        return values.iloc[0].to_dict()
    share = (losses[after - 1] - target) / (losses[after - 1] - losses[after])
    before, later = values.iloc[after - 1], values.iloc[after]
    return (before + share * (later - before)).to_dict()
