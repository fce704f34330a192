"""The typed profile: what a scale (`smoke`, `tiny`, `gpu`, `paper`) sets, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError

from linlib.profiles.pruning import PruningSettings
from linlib.profiles.sections import (
    EvaluationSettings,
    FineTuningSettings,
    HubCheckpoints,
    HubModel,
    MeasureSettings,
    PretrainingSettings,
    Settings,
    ZooSettings,
)

FOLDER = Path(__file__).parent


class Profile(Settings):
    """Everything that depends on the scale."""

    name: str
    """The file's name."""
    description: str
    """What it takes: hardware, time, downloads."""
    corpus: str
    """The text that linearity is measured on; see `linlib.corpora.CORPORA`."""
    seed: int
    """Seed of initialisation, data order and sampling."""
    device: str
    """Torch device."""
    dtype: Literal["float32", "bfloat16", "float16"]
    """Weights of hub models."""
    zoo: ZooSettings | None = None
    """Models trained by the profile."""
    hub_models: tuple[HubModel, ...] = ()
    """Models downloaded by the profile."""
    hub_checkpoints: tuple[HubCheckpoints, ...] = ()
    """Pretrainings on the hub that the profile follows."""
    pretraining: PretrainingSettings | None = None
    """Regularised pretraining."""
    finetuning: FineTuningSettings | None = None
    """Fine-tuning and reward modelling."""
    evaluation: EvaluationSettings | None = None
    """Tasks, probes and stories for the Mistrals of `pretraining`."""
    pruning: PruningSettings | None = None
    """Depth pruning of two of the models."""
    measure: MeasureSettings


def load_profile(name: str) -> Profile:
    """Read `linlib/profiles/<name>.yaml`.

    Raises:
        ValueError: no such profile, or a key of its file is unknown, missing or of a wrong type;
            the message names key and file.
    """
    path = FOLDER / f"{name}.yaml"
    known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
    if name not in known:
        raise ValueError(f"unknown profile '{name}'; choose from {known}, or add {path.name}")
    return read_profile(path)


def read_profile(path: Path) -> Profile:
    """Read a profile from any file; errors as `load_profile`."""
    try:
        return Profile(**yaml.safe_load(path.read_text()))
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        raise ValueError(f"profile file {path}: {'; '.join(problems)}") from None


def _explain(problem: dict) -> str:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}' (= {problem['input']!r}); remove it or correct its spelling"
    if problem["type"] == "missing":
        return f"key '{key}' is missing"
    return f"key '{key}' = {problem['input']!r}: {problem['msg']}"
