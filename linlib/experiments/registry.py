"""The table of experiments, and how a notebook obtains a frame: stored, or measured now."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

import pandas as pd

from linlib.profiles import Profile
from linlib.store import load_frame, save_frames

if TYPE_CHECKING:
    from linlib.experiments.subjects import Measurement

Experiment = Callable[[Profile], "Measurement"]


def _measured_by(module: str, function: str = "measure") -> Experiment:
    """A function of a module of this package, imported when it is called.

    Whoever only draws stored frames does not wait for the libraries that measuring needs.
    """

    def measure(profile: Profile) -> Measurement:
        return getattr(import_module(f"linlib.experiments.{module}"), function)(profile)

    return measure


EXPERIMENTS: dict[str, Experiment] = {
    "fig1_linearity_profiles": _measured_by("linearity_profiles"),
    "fig2_pretraining_dynamics": _measured_by("dynamics"),
    "fig3_norms": _measured_by("norms"),
    "fig4_regularised_linearity": _measured_by("regularised"),
    "fig5_probing": _measured_by("probing"),
    "fig6_pruning_first": _measured_by("pruning", "measure_first"),
    "fig7_pruning_second": _measured_by("pruning", "measure_second"),
    "fig8_pruning_accuracy": _measured_by("pruning", "measure_accuracy"),
    "fig9_error_tails": _measured_by("error_tails"),
    "tab1_finetuning": _measured_by("finetuning"),
    "tab2_superglue": _measured_by("superglue"),
    "tab3_tinystories": _measured_by("stories"),
    "pruning_shootout": _measured_by("shootout"),
}


def obtain(name: str, profile: Profile, remeasure: bool = False) -> pd.DataFrame:
    """Return a figure's frame: the stored one, or measure it if asked or missing.

    Args:
        name: a key of `EXPERIMENTS`, which is the figure's file name.
        profile: sets the scale.
        remeasure: measure even if a result is stored. Trained models, tokenised text and moments
            are still taken from the cache, where their recipe is the same.

    Raises:
        ValueError: no such experiment, or the stored result has no provenance.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"unknown experiment '{name}'; choose from {sorted(EXPERIMENTS)}")
    if not remeasure:
        try:
            return load_frame(name, profile.name)
        except FileNotFoundError:
            pass
    started = time.monotonic()
    measured = EXPERIMENTS[name](profile)
    provenance = {**measured.provenance, "wall_seconds": round(time.monotonic() - started, 1)}
    save_frames(measured.frames, name, profile.name, provenance)
    return load_frame(name, profile.name)
