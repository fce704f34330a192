"""Profiles: one YAML file a scale, read into frozen, fully typed objects."""

from linlib.profiles.schema import HubModel, MeasureSettings, Profile, ZooSettings, load_profile

__all__ = ["HubModel", "MeasureSettings", "Profile", "ZooSettings", "load_profile"]
