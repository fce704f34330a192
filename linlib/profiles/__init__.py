"""Profiles: one YAML file a scale, read into frozen, fully typed objects."""

from linlib.profiles.schema import (
    HubCheckpoints,
    HubModel,
    MeasureSettings,
    PretrainingSettings,
    Profile,
    ZooSettings,
    load_profile,
)

__all__ = [
    "HubCheckpoints",
    "HubModel",
    "MeasureSettings",
    "PretrainingSettings",
    "Profile",
    "ZooSettings",
    "load_profile",
]
