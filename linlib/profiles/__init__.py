"""Profiles: one YAML file a scale, read into frozen, fully typed objects."""

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
    "EvaluationSettings",
    "FineTuningSettings",
    "HubCheckpoints",
    "HubModel",
    "MeasureSettings",
    "PretrainingSettings",
    "Profile",
    "ZooSettings",
    "load_profile",
]
