"""Train one decoder from scratch; a killed run goes on from its last checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

from datasets import Dataset
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback
from transformers.trainer_utils import set_seed
from transformers.utils.logging import disable_progress_bar

from linlib.pretrain.callback import CheckpointCallback
from linlib.pretrain.checkpoints import (
    keep_settings,
    require_same_settings,
)
from linlib.pretrain.recipe import Recipe
from linlib.pretrain.trainer import RegularisedTrainer
from linlib.store.frames import write_atomically
from linlib.training import last_good_checkpoint, training_attention

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
        FloatingPointError: the loss or a weight became NaN or infinite; the step is named.
    """
    settings = {
        "config": config.to_diff_dict() | {"transformers_version": None},
        "recipe": asdict(recipe),
        "windows": _digest(windows),
        "heldout": None if heldout is None else _digest(heldout),
    }
    require_same_settings(folder, settings)
    if (folder / LOSSES_FILE).exists():
        return  # finished, and killed before anybody took note
    disable_progress_bar()  # of transformers, for every file saved: the runs share one bar
    set_seed(recipe.seed)
    attention = training_attention(recipe.device)
    trainer = RegularisedTrainer(
        AutoModelForCausalLM.from_config(deepcopy(config), attn_implementation=attention),
        _arguments(recipe, folder / "trainer"),
        train_dataset=Dataset.from_dict(
            {"input_ids": windows.numpy(), "labels": windows.numpy()}
        ).with_format("torch"),
        regulariser=recipe.regulariser,
    )
    keep_settings(folder, settings)
    trainer.remove_callback(PrinterCallback)  # losses go to losses.json and to TensorBoard
    if trainer.is_world_process_zero():
        writer = SummaryWriter(str(folder / "tensorboard"))
        trainer.add_callback(CheckpointCallback(recipe, tokenizer, folder, heldout, writer))
        trainer.add_callback(TensorBoardCallback(writer))
    trainer.train(resume_from_checkpoint=last_good_checkpoint(folder / "trainer"))
    trainer.accelerator.wait_for_everyone()
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
    share = recipe.batch_size // n_processes
    at_once = min(recipe.windows_at_once or share, share)
    if recipe.batch_size != n_processes * share or share % max(at_once, 1):
        raise ValueError(
            f"a batch of {recipe.batch_size} windows cannot be split over {n_processes} "
            f"processes, {recipe.windows_at_once or 'all'} windows at once; choose numbers that "
            "divide it"
        )
    logging_steps = max(recipe.steps // 20, 1)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=recipe.steps,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=share // at_once,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup_steps,
        weight_decay=0.1,
        seed=recipe.seed,
        data_seed=recipe.seed,
        logging_steps=logging_steps,
        save_strategy="steps",
        save_steps=2 * logging_steps,  # a resumed run logs means over the same steps
        save_total_limit=2,
        disable_tqdm=True,
        report_to="none",
        use_cpu=recipe.device == "cpu",
        bf16=recipe.bf16,
        dataloader_pin_memory=recipe.device != "cpu",
        ddp_find_unused_parameters=False,
    )
