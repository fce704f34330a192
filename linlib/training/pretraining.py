"""Train one decoder from scratch, and measure and compare what runs leave behind (section 4).

A run leaves in its folder the final model and tokenizer, models along the way
(`checkpoints/step<N>`), the losses, and TensorBoard's logs. A run that was killed continues from
its last complete checkpoint. Measuring is a step of its own, so that no model is trained again
where only the measurement changed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch.utils.tensorboard import SummaryWriter
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput, set_seed

from linlib.corpora.tokens import token_windows
from linlib.measure.losses import window_losses
from linlib.measure.profile import linearity_profile
from linlib.models import load_tokenizer
from linlib.store import write_atomically
from linlib.training.regularisers import RegularisedTrainer, Regulariser, divergence

WINDOWS_FILE = "windows.safetensors"
LOSSES_FILE = "losses.json"  # written last: a folder that has it is finished
RUN = ["size", "variant", "seed"]


# ----------------------------------------------------------------- shared with fine-tuning


def has_fast_bf16(device: str) -> bool:
    """Whether mixed precision saves time on a device: it does where bf16 products are native."""
    if device == "cpu":
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.cuda.is_bf16_supported(including_emulation=False)


def quiet_options(folder: Path, device: str) -> dict[str, object]:
    """Options of `TrainingArguments` that place a Trainer on a device and keep it silent."""
    on_cpu = device == "cpu"
    return {
        "output_dir": str(folder),
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "disable_tqdm": True,
        "report_to": "none",
    }


def training_options(
    folder: Path,
    device: str,
    *,
    steps: int,
    batch_size: int,
    at_once: int | None,
    seed: int,
    save_steps: int | None,
    **options: object,
) -> dict[str, object]:
    """Options of `TrainingArguments` that pretraining and fine-tuning share.

    Args:
        folder: of the Trainer's checkpoints.
        device: "cpu" or "cuda".
        steps: optimiser steps.
        batch_size: rows per step, over all processes (`torchrun`, `accelerate launch`).
        at_once: rows of one process in memory at the same time, accumulated; None is all.
        seed: of dropout and data order.
        save_steps: steps between checkpoints; None saves none.
        **options: others of `TrainingArguments`.

    Raises:
        ValueError: the numbers do not divide the batch.
    """
    n_processes = int(os.environ.get("WORLD_SIZE", 1))
    share = batch_size // n_processes
    size = min(at_once or share, share)
    if batch_size != n_processes * share or share % max(size, 1):
        raise ValueError(
            f"a batch of {batch_size} cannot be split over {n_processes} processes, "
            f"{at_once or 'all'} at once; choose numbers that divide it"
        )
    return quiet_options(folder, device) | {
        "max_steps": steps,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": share // size,
        "seed": seed,
        "data_seed": seed,
        "save_strategy": "steps" if save_steps else "no",
        "save_steps": save_steps or steps,
        **options,
    }


def train_resumably(trainer: Trainer, device: str) -> TrainOutput:
    """Run a Trainer in silence, from the last complete checkpoint of a run that was killed."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(KeepNewest())
    # On a CPU, at short windows, plain attention beats the fused one.
    trainer.model.set_attn_implementation("eager" if device == "cpu" else "sdpa")
    folder = Path(trainer.args.output_dir)
    return trainer.train(resume_from_checkpoint=last_complete_checkpoint(folder))


class KeepNewest(TrainerCallback):
    """Delete a checkpoint of the Trainer when a newer one is complete.

    The Trainer's own `save_total_limit` warns of a file system without times where two checkpoints
    are less than a second apart.
    """

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs
    ) -> None:
        """Delete all checkpoints but the one just saved."""
        newest = f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        for path in Path(args.output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
            if state.is_world_process_zero and path.name != newest:
                shutil.rmtree(path)


def last_complete_checkpoint(folder: Path) -> str | None:
    """The Trainer's newest checkpoint, passing over one that a kill left incomplete."""
    found = folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    for path in sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text())  # the last file written
            return str(path)
        except (FileNotFoundError, json.JSONDecodeError):
            continue
    return None


# --------------------------------------------------------------------------------- training


def tokenise(
    folder: Path,
    text: Dataset,
    tokenizer: Path,
    length: int,
    n_windows: int | None = None,
    at_most: int | None = None,
) -> None:
    """Write the token windows of a text to a folder; arguments and errors as `token_windows`.

    Args:
        folder: receives the file.
        text: dataset with a column `text`.
        tokenizer: folder of the tokenizer.
        length: tokens per window.
        n_windows: windows to write; None writes all, up to `at_most`.
        at_most: number of windows to stop at.
    """
    windows = token_windows(
        text, load_tokenizer(tokenizer), length=length, n_windows=n_windows, at_most=at_most
    )
    save_file({"windows": windows.contiguous()}, folder / WINDOWS_FILE)


def checkpoint_steps(steps: int, every: int | None = None) -> list[int]:
    """Steps at which a run is saved: 0, 1, 2, 4, ..., the last, and multiples of `every`."""
    powers = {2**k for k in range(steps.bit_length()) if 2**k < steps}
    regular = set(range(every, steps, every)) if every else set()
    return sorted({0, steps} | powers | regular)


def train(
    folder: Path,
    config: Mapping[str, object],
    windows: Path,
    tokenizer: Path,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    warmup_steps: int,
    seed: int,
    regulariser: Regulariser | None = None,
    checkpoint_every: int | None = None,
    windows_at_once: int | None = None,
    device: str = "cpu",
    bf16: bool = False,
) -> None:
    """Train a decoder on token windows and save it as a Hugging Face folder.

    Args:
        folder: receives everything; an unfinished run in it is continued.
        config: the architecture, as keyword arguments of `AutoConfig.for_model`.
        windows: folder of the training windows (`tokenise`), shuffled by the Trainer.
        tokenizer: folder of the tokenizer, which is saved beside the weights.
        steps: optimiser steps.
        batch_size: windows per step, over all processes (`torchrun`, `accelerate launch`).
        learning_rate: peak of the cosine schedule.
        warmup_steps: steps of linear warm-up.
        seed: of initialisation and data order.
        regulariser: added to the language-model loss; None trains the plain model.
        checkpoint_every: steps between checkpoints, in addition to the log-spaced ones.
        windows_at_once: windows of a process in memory together; larger batches are accumulated.
        device: "cpu" or "cuda".
        bf16: mixed precision.

    Raises:
        ValueError: the batch cannot be split, or there is nothing to regularise.
        FloatingPointError: the loss or a weight became NaN or infinite; the step is named.
    """
    if (folder / LOSSES_FILE).exists():
        return  # finished, and killed before the store took note
    logging_steps = max(steps // 20, 1)
    options = training_options(
        folder / "trainer",
        device,
        steps=steps,
        batch_size=batch_size,
        at_once=windows_at_once,
        seed=seed,
        save_steps=2 * logging_steps,  # a resumed run logs means over the same steps
        logging_steps=logging_steps,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=warmup_steps,
        weight_decay=0.1,
        bf16=bf16,
        ddp_find_unused_parameters=False,
    )
    ids = load_file(windows / WINDOWS_FILE)["windows"].numpy()
    set_seed(seed)
    trainer = RegularisedTrainer(
        AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)),
        TrainingArguments(**options),
        train_dataset=Dataset.from_dict({"input_ids": ids, "labels": ids}).with_format("torch"),
        regulariser=regulariser,
    )
    opened = AutoTokenizer.from_pretrained(tokenizer)
    if trainer.is_world_process_zero():
        due = set(checkpoint_steps(steps, checkpoint_every))
        trainer.add_callback(SaveCheckpoints(due, opened, folder))
        trainer.add_callback(TensorBoardCallback(SummaryWriter(str(folder / "tensorboard"))))
    train_resumably(trainer, device)
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder)
        opened.save_pretrained(folder)
        losses = [entry for entry in trainer.state.log_history if "loss" in entry]
        write_atomically(folder / LOSSES_FILE, json.dumps(losses, indent=1))
        shutil.rmtree(folder / "trainer")  # optimiser states: only an unfinished run needs them
    trainer.accelerator.wait_for_everyone()


class SaveCheckpoints(TrainerCallback):
    """Save model and tokenizer to `checkpoints/step<N>` of a run's folder at the steps due.

    Raises:
        FloatingPointError: a weight is not finite, so that no run continues from it; the message
            names the step.
    """

    def __init__(self, due: set[int], tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
        self.due = due
        self.tokenizer = tokenizer
        self.folder = folder

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs
    ) -> None:
        """Save the initialisation, as step 0."""
        self._save(kwargs["model"], state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs
    ) -> None:
        """Check the weights where they are saved, here or by the Trainer, and save them if due."""
        if control.should_save or state.global_step in self.due:
            for name, weight in kwargs["model"].named_parameters():
                if not bool(torch.isfinite(weight).all()):
                    raise divergence(f"weight {name} became NaN or inf in step {state.global_step}")
        self._save(kwargs["model"], state.global_step)

    def _save(self, model: PreTrainedModel, step: int) -> None:
        target = self.folder / "checkpoints" / f"step{step}"
        if step in self.due and not target.exists():
            partial = target.with_suffix(".partial")  # the folder appears whole or not at all
            model.save_pretrained(partial)
            self.tokenizer.save_pretrained(partial)
            partial.rename(target)


# ---------------------------------------------------------------------------- finished runs


def checkpoints(folder: Path) -> dict[int, Path]:
    """Model folders of a run by training step, in order."""
    found = {int(path.name[4:]): path for path in (folder / "checkpoints").glob("step*[0-9]")}
    return dict(sorted(found.items()))


def measure_checkpoints(run: Path, heldout: Path, device: str = "cpu") -> pd.DataFrame:
    """Linearity profile of each checkpoint of a run in float32, for `store.cached`.

    Args:
        run: folder of the run.
        heldout: folder of the windows to measure on (`tokenise`).
        device: "cpu" or "cuda".

    Returns:
        `linearity_profile`, with the columns `validation_loss` (nats per token) and `step`.

    Raises:
        FloatingPointError: the states of a model are not finite, or no longer vary; the message
            names the step.
    """
    windows = load_file(heldout / WINDOWS_FILE)["windows"]
    frames = []
    for step, folder in checkpoints(run).items():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        try:
            profile = linearity_profile(model, windows)
        except ValueError as error:
            raise divergence(f"the states after step {step}: {error}") from error
        loss = window_losses(model, windows).mean().item()
        frames.append(profile.assign(validation_loss=loss, step=step))
    return pd.concat(frames, ignore_index=True)


def compare_at_equal_loss(training: pd.DataFrame) -> pd.DataFrame:
    """Each variant beside "plain", at equal steps (the last) and at equal validation loss.

    The loss is the lowest that all runs of the pair reach; scores there are interpolated between
    the two checkpoints around its first crossing. All tokens.

    Args:
        training: means over layers, one row per `size`, `variant`, `seed`, `step` and `tokens`,
            with `validation_loss` and scores.

    Returns:
        One row per `pair` (named after the variant), run of the pair and `at` ("equal steps",
        "equal loss"): `reached_at` (the step, interpolated too), `validation_loss` (nats per
        token) and the scores.
    """
    training = training[training["tokens"] == "all"].drop(columns="tokens")
    training = training.rename(columns={"step": "reached_at"}).sort_values("reached_at")
    rows = []
    for _, size in training.groupby("size", sort=False):
        for variant in sorted(set(size["variant"]) - {"plain"}):
            pair = size[size["variant"].isin([variant, "plain"])]
            target = pair.groupby(RUN)["validation_loss"].min().max()
            for run, path in pair.groupby(RUN, sort=False):
                labels = {"pair": variant, **dict(zip(RUN, run, strict=True))}
                values = path.drop(columns=RUN)
                rows.append(labels | {"at": "equal steps"} | values.iloc[-1].to_dict())
                rows.append(labels | {"at": "equal loss"} | _at_loss(values, target))
    return pd.DataFrame(rows)


def _at_loss(path: pd.DataFrame, target: float) -> dict[str, float]:
    """Step and scores at which a run's validation loss first falls to `target`."""
    losses = path["validation_loss"].to_numpy()
    after = int(np.argmax(losses <= target))
    if after == 0:
        return path.iloc[0].to_dict()
    share = (losses[after - 1] - target) / (losses[after - 1] - losses[after])
    before, later = path.iloc[after - 1], path.iloc[after]
    return (before + share * (later - before)).to_dict()
