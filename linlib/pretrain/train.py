"""Train one decoder from scratch; a killed run goes on from its last checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from datasets import Dataset
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback
from transformers.trainer_utils import set_seed
from transformers.utils.logging import disable_progress_bar

from linlib.pretrain.checkpoints import (
    last_good_checkpoint,
    measure_checkpoint,
    require_same_settings,
    save_checkpoint,
)
from linlib.pretrain.progress import report_progress
from linlib.pretrain.recipe import Recipe
from linlib.pretrain.trainer import RegularisedTrainer
from linlib.store.frames import write_atomically

# Columns of a checkpoint's measurement -> the names of their means over layers in TensorBoard.
LOGGED = {
    "validation_loss": "validation/language_model_loss",
    "linearity_score": "linearity/mean_linearity_score",
    "linearity_no_residual": "linearity/mean_linearity_no_residual",
}
LOSSES_FILE = "losses.json"  # written last: a folder that has it is finished


def train(
    config: PreTrainedConfig,
    windows: Tensor,
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    heldout: Tensor | None = None,
) -> None:
    """Train a decoder on token windows and save it as a Hugging Face folder.

    Leaves in `folder` the final model and tokenizer, `checkpoints/step<N>`, the losses, and
    TensorBoard's logs: the loss, its two parts, and the linearity of every checkpoint. If the
    folder holds an unfinished run, that run goes on. Several processes (`torchrun`,
    `accelerate launch`) share the work of one run.

    Args:
        config: the architecture.
        windows: token ids, (n_windows, length); shuffled by the Trainer.
        recipe: steps, batch size, schedule, regulariser and seed.
        tokenizer: saved beside the weights.
        folder: where everything goes.
        heldout: windows on which every checkpoint is measured; None measures none.

    Raises:
        ValueError: the folder holds a run with other settings (they are named), the batch cannot
            be split over the processes, or there is nothing to regularise.
        FloatingPointError: the loss became NaN or infinite.
    """
    require_same_settings(
        folder,
        {
            "config": config.to_diff_dict() | {"transformers_version": None},
            "recipe": asdict(recipe),
            "windows": _digest(windows),
            "heldout": None if heldout is None else _digest(heldout),
        },
    )
    if (folder / LOSSES_FILE).exists():
        return  # finished, and killed before anybody took note
    disable_progress_bar()  # of transformers, for every file saved: the runs share one bar
    set_seed(recipe.seed)
    # At the zoo's short windows the plain attention trains faster on a CPU than the fused one.
    attention = "eager" if recipe.device == "cpu" else "sdpa"
    trainer = RegularisedTrainer(
        AutoModelForCausalLM.from_config(config, attn_implementation=attention),
        _arguments(recipe, folder / "trainer"),
        train_dataset=Dataset.from_dict(
            {"input_ids": windows.numpy(), "labels": windows.numpy()}
        ).with_format("torch"),
        regulariser=recipe.regulariser,
    )
    trainer.remove_callback(PrinterCallback)  # losses go to losses.json and to TensorBoard
    if trainer.is_world_process_zero():
        writer = SummaryWriter(str(folder / "tensorboard"))
        trainer.add_callback(_Checkpoints(recipe, tokenizer, folder, heldout, writer))
        trainer.add_callback(TensorBoardCallback(writer))
    trainer.train(resume_from_checkpoint=last_good_checkpoint(folder / "trainer"))
    if trainer.is_world_process_zero():
        _finish(trainer, tokenizer, folder)
    trainer.accelerator.wait_for_everyone()


def _finish(trainer: RegularisedTrainer, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    losses = [entry for entry in trainer.state.log_history if "loss" in entry]
    write_atomically(folder / LOSSES_FILE, json.dumps(losses, indent=1))
    shutil.rmtree(folder / "trainer")  # optimiser states: only an unfinished run needs them


def _digest(windows: Tensor) -> str:
    return hashlib.sha256(windows.numpy().tobytes()).hexdigest()


def _arguments(recipe: Recipe, folder: Path) -> TrainingArguments:
    n_processes = int(os.environ.get("WORLD_SIZE", 1))
    if recipe.batch_size % n_processes:
        raise ValueError(
            f"a batch of {recipe.batch_size} windows cannot be split over {n_processes} "
            "processes; choose a number of processes that divides it"
        )
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size // n_processes,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup_steps,
        weight_decay=0.1,
        seed=recipe.seed,
        data_seed=recipe.seed,
        logging_steps=max(recipe.steps // 20, 1),
        save_strategy="steps",
        save_steps=max(recipe.steps // 10, 1),
        save_total_limit=2,
        disable_tqdm=True,
        report_to="none",
        use_cpu=recipe.device == "cpu",
        bf16=recipe.bf16,
        dataloader_pin_memory=recipe.device != "cpu",
        ddp_find_unused_parameters=False,
    )


class _Checkpoints(TrainerCallback):
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
        self._save(kwargs["model"], state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs
    ) -> None:
        self._save(kwargs["model"], state.global_step)
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        report_progress(self.folder, state.global_step, losses[-1] if losses else None)

    def _save(self, model: PreTrainedModel, step: int) -> None:
        target = self.folder / "checkpoints" / f"step{step}"
        if step not in self.steps or target.exists():
            return
        measured = None if self.heldout is None else measure_checkpoint(model, self.heldout)
        save_checkpoint(model, self.tokenizer, target, measured)
        if measured is not None:
            means = measured[measured["tokens"] == "all"][list(LOGGED)].mean()
            for name, tag in LOGGED.items():
                self.writer.add_scalar(tag, means[name], step)
