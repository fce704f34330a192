"""Profiles: one YAML file a scale, read into frozen, fully typed objects."""

from linlib.profiles.pruning import DistillationSettings, PruningSettings
from linlib.profiles.schema import Profile, load_profile
from linlib.profiles.sections import (
    EvaluationSettings,
    FineTuningSettings,
    HubCheckpoints,
    HubModel,
    MeasureSettings,
    PretrainingSettings,
    ZooSettings,
)

__all__ = [
    "DistillationSettings",
    "EvaluationSettings",
    "FineTuningSettings",
    "HubCheckpoints",
    "HubModel",
    "MeasureSettings",
    "PretrainingSettings",
    "Profile",
    "PruningSettings",
    "ZooSettings",
    "load_profile",
]
