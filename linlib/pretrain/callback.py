"""What happens between the steps of a run: models are saved, measured and logged."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from linlib.pretrain.checkpoints import measure_checkpoint, save_checkpoint
from linlib.pretrain.progress import report_progress
from linlib.pretrain.recipe import Recipe

# Columns of a checkpoint's measurement -> the names of their means over layers in TensorBoard.
LOGGED = {
    "validation_loss": "validation/language_model_loss",
    "linearity_score": "linearity/mean_linearity_score",
    "linearity_no_residual": "linearity/mean_linearity_no_residual",
}


class CheckpointCallback(TrainerCallback):
    """Save and measure the model at its steps, and tell the parent process how far the run is."""

    def __init__(
        self,
        recipe: Recipe,
        tokenizer: PreTrainedTokenizerBase,
        folder: Path,
        heldout: Tensor | None,
        writer: SummaryWriter,
    ) -> None:
        self.steps = set(recipe.checkpoints)
        self.tokenizer = tokenizer
        self.folder = folder
        self.heldout = heldout
        self.writer = writer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs
    ) -> None:
        """Save the initialisation."""
        self._save(kwargs["model"], state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs
    ) -> None:
        """Save, measure and report what this step is due for.

        Raises:
            FloatingPointError: the weights or the states that they give are not finite.
        """
        if control.should_save or state.global_step in self.steps:
            _require_finite_weights(kwargs["model"], state.global_step)
        self._save(kwargs["model"], state.global_step)
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        report_progress(self.folder, state.global_step, losses[-1] if losses else None)

    def _save(self, model: PreTrainedModel, step: int) -> None:
        target = self.folder / "checkpoints" / f"step{step}"
        if step not in self.steps or target.exists():
            return
        measured = None if self.heldout is None else _measured(model, self.heldout, step)
        save_checkpoint(model, self.tokenizer, target, measured)
        if measured is not None:
            means = measured[measured["tokens"] == "all"][list(LOGGED)].mean()
            for name, tag in LOGGED.items():
                self.writer.add_scalar(tag, means[name], step)
            self.writer.flush()


def _measured(model: PreTrainedModel, heldout: Tensor, step: int) -> pd.DataFrame:
    try:
        return measure_checkpoint(model, heldout)
    except ValueError as error:  # states that are not finite, or that no longer vary
        raise FloatingPointError(_gone_astray(f"the states after step {step}: {error}")) from error


def _require_finite_weights(model: PreTrainedModel, step: int) -> None:
    """Refuse to save weights that a step has spoilt, so that no run goes on from them."""
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise FloatingPointError(
                _gone_astray(f"weight {name} became NaN or inf in step {step}")
            )


def _gone_astray(what: str) -> str:
    return (
        f"{what}; the last checkpoint holds the last good weights. Lower the learning rate or the "
        "regulariser's weight"
    )
