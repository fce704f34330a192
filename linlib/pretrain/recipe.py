"""The recipe of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from linlib.pretrain.checkpoints import checkpoint_steps
from linlib.pretrain.regularise import Regulariser


@dataclass(frozen=True)
class Recipe:
    """What a training run depends on, besides the model's config and the text.

    Attributes:
        steps: optimiser steps.
        batch_size: windows in a step, over all processes.
        learning_rate: peak of the cosine schedule.
        warmup_steps: steps of linear warm-up.
        seed: of initialisation and data order.
        device: "cpu" or "cuda".
        bf16: mixed precision.
        windows_at_once: windows of a process in memory together; a batch of more is accumulated.
        regulariser: added to the language-model loss; None trains the plain model.
        checkpoint_every: steps between checkpoints, beside the log-spaced ones.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    seed: int
    device: str = "cpu"
    bf16: bool = False
    windows_at_once: int | None = None
    regulariser: Regulariser | None = None
    checkpoint_every: int | None = None

    @property
    def checkpoints(self) -> list[int]:
        """Steps at which the model is saved."""
        return checkpoint_steps(self.steps, self.checkpoint_every)
