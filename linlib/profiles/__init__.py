"""Profiles: one YAML file a scale, read into frozen, fully typed objects."""

from linlib.profiles.schema import Profile, load_profile
from linlib.profiles.sections import (
    FineTuningSettings,
    HubCheckpoints,
    HubModel,
    MeasureSettings,
    PretrainingSettings,
    ZooSettings,
)

__all__ = [
    "FineTuningSettings",
    "HubCheckpoints",
    "HubModel",
    "MeasureSettings",
    "PretrainingSettings",
    "Profile",
    "ZooSettings",
    "load_profile",
]
