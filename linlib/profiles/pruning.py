"""The section of a profile about pruning: Figures 6 to 8, and the comparison beyond the paper."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from linlib.profiles.sections import Settings


class DistillationSettings(Settings):
    """How the maps in the place of blocks are distilled; see `linlib.prune.Distillation`."""

    steps: PositiveInt
    """Optimiser steps, at most."""
    batch_size: PositiveInt
    """Windows in a step."""
    learning_rate: PositiveFloat
    """Peak of the cosine schedule."""
    warmup_steps: NonNegativeInt
    """Steps of linear warm-up."""
    evaluate_every: PositiveInt
    """Steps between looks at the held-out loss."""
    patience: PositiveInt
    """Looks without a better loss after which training stops."""
    heldout_windows: PositiveInt
    """Windows of held-out text for those looks."""
    language_weight: float = 0.0
    """Of the next-token loss beside the squared error."""


class PruningSettings(Settings):
    """Which models are pruned, and how far."""

    models: tuple[str, str]
    """Models of Figures 6 and 7, by their labels in figures without the profile's own name."""
    most_removed: PositiveInt
    """Blocks left out at most."""
    stories: str
    """The text on which Figures 6 to 8 fit and distil maps; see `linlib.corpora.CORPORA`."""
    calibration_windows: PositiveInt
    """Windows of training text that orders and maps are taken from."""
    heldout_windows: PositiveInt
    """Windows of held-out text for the perplexity."""
    ridge: float = 1e-4
    """Shrinks maps towards the identity."""
    random_seeds: tuple[int, ...]
    """Seeds of the random order."""
    batch_size: PositiveInt
    """Windows in a forward pass."""
    timing_rounds: PositiveInt
    """Rounds in which the models' speed is measured side by side."""
    workers: PositiveInt = 2
    """Pruned models at once, one thread each."""
    distillation: DistillationSettings
    """How maps are distilled."""
