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
from contextlib import suppress
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
    AutoModelForMaskedLM,
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

from linlib import measure  # whose files are imported when something is measured
from linlib.corpora.tokens import token_windows
from linlib.models import load_tokenizer
from linlib.store import write_atomically
from linlib.training.regularisers import RegularisedTrainer, Regulariser, divergence

WINDOWS_FILE = "windows.safetensors"
LOSSES_FILE = "losses.json"  # written last: a folder that has it is finished
MASKED = 0.15  # of the tokens of a window, for an encoder to find
DIVERGED_FILE = "diverged.txt"  # in the place of a model: what was no longer finite, and when
RUN = ["size", "variant", "seed"]


# ----------------------------------------------------------------- shared with fine-tuning


def has_fast_bf16(device: str) -> bool:
    """Whether mixed precision saves time on a device: it does where bf16 products are native."""
    if device == "cpu":
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.cuda.is_bf16_supported(including_emulation=False)


def training_options(
    folder: Path,
    device: str,
    *,
    steps: int,
    batch_size: int,
    micro_batch_size: int | None,
    seed: int,
    save_steps: int | None,
    **options: object,
) -> dict[str, object]:
    """Options of `TrainingArguments`, and those that pretraining and fine-tuning share.

    A batch counts the rows of all processes. Each has `micro_batch_size` rows in memory at the same
    time, or its whole share if that is None; without `save_steps`, there are no checkpoints.

    Raises:
        ValueError: the numbers do not divide the batch.
    """
    n_processes = int(os.environ.get("WORLD_SIZE", 1))
    share = batch_size // n_processes
    size = min(micro_batch_size or share, share)
    if batch_size != n_processes * share or share % max(size, 1):
        raise ValueError(
            f"a batch of {batch_size} cannot be split over {n_processes} processes, "
            f"{micro_batch_size or 'all'} at once; choose numbers that divide it"
        )
    return {
        "output_dir": str(folder),
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device != "cpu",
        "disable_tqdm": True,
        "report_to": "none",
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
    """Keep one checkpoint; the option `save_total_limit` warns if they are a second apart."""

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
    complete = {}
    for file in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/trainer_state.json"):  # written last
        with suppress(json.JSONDecodeError):
            complete[json.loads(file.read_text())["global_step"]] = str(file.parent)
    return complete[max(complete)] if complete else None


# --------------------------------------------------------------------------------- training


def tokenise(
    folder: Path,
    text: Dataset,
    tokenizer: Path,
    seq_len: int,
    n_windows: int | None = None,
    at_most: int | None = None,
) -> None:
    """Write `token_windows` of a text, and the documents of its tokens, to a folder.

    Args:
        folder: receives the file.
        text: with a column `text`, one row per document.
        tokenizer: folder of the tokenizer, whose eos token separates documents.
        seq_len: this and the next two as `token_windows`.
        n_windows: how many.
        at_most: how many at most.
    """
    size = {"seq_len": seq_len, "n_windows": n_windows, "at_most": at_most}
    windows, documents = token_windows(
        text, load_tokenizer(tokenizer), return_documents=True, **size
    )
    save_file({"windows": windows.int(), "documents": documents.int()}, folder / WINDOWS_FILE)


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
    checkpoint_interval: int | None = None,
    micro_batch_size: int | None = None,
    masked: bool = False,
    device: str = "cpu",
    bf16: bool = False,
) -> None:
    """Train a language model on token windows and save it as a Hugging Face folder.

    Args:
        folder: receives everything; an unfinished run in it is continued.
        config: the architecture, as keyword arguments of `AutoConfig.for_model`.
        windows: folder of the training windows (`tokenise`), which the Trainer shuffles.
        tokenizer: folder of the tokenizer, which is saved beside the weights.
        steps: optimiser steps.
        batch_size: windows per step, over all processes (`torchrun`, `accelerate launch`).
        learning_rate: peak of the cosine schedule.
        warmup_steps: steps of linear warm-up.
        seed: of initialisation and data order.
        regulariser: added to the language-model loss; None trains the plain model.
        checkpoint_interval: steps between checkpoints, in addition to the log-spaced ones.
        micro_batch_size: windows in a forward pass of a process; gradients are accumulated up to
            `batch_size`. None: all at once.
        masked: train an encoder to find tokens that are masked, and not a decoder to find the next.
            Each window has masks of its own, whenever it is read, so that a run that continues
            reads the same. The pad token, which no window holds, is the mask where the tokenizer
            has none.
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
        micro_batch_size=micro_batch_size,
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
    opened, head = AutoTokenizer.from_pretrained(tokenizer), AutoModelForCausalLM
    ids = load_file(windows / WINDOWS_FILE)["windows"].long()
    labels = ids
    if masked:
        head = AutoModelForMaskedLM
        hidden = torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed)) < MASKED
        hidden[:, 0] = False  # a bos token is no secret
        labels = torch.where(hidden, ids, -100)  # the loss leaves -100 out
        mask_id = opened.mask_token_id
        ids = torch.where(hidden, opened.pad_token_id if mask_id is None else mask_id, ids)
    set_seed(seed)
    rows = {"input_ids": ids.numpy(), "labels": labels.numpy()}
    trainer = RegularisedTrainer(
        head.from_config(AutoConfig.for_model(**config)),
        TrainingArguments(**options),
        train_dataset=Dataset.from_dict(rows).with_format("torch"),
        regulariser=regulariser,
    )
    if trainer.is_world_process_zero():
        due = set(checkpoint_steps(steps, checkpoint_interval))
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


def train_or_diverge(
    folder: Path,
    config: Mapping[str, object],
    windows: Path,
    tokenizer: Path,
    seed: int,
    options: Mapping[str, object],
) -> None:
    """`train`, for `store.cached`: a run that diverges ends in `DIVERGED_FILE`, and in no error.

    One run of many that diverges is a finding about its variant, and must not stop the others.
    Where several processes train together, the error remains, since it has to stop all of them.
    `options` are the other arguments of `train`.
    """
    try:
        train(folder, config, windows, tokenizer, seed=seed, **options)
    except FloatingPointError as error:
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise
        write_atomically(folder / DIVERGED_FILE, str(error))
        shutil.rmtree(folder / "trainer", ignore_errors=True)


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
    """`linearity_profile` of each checkpoint of a run in float32, for `store.cached`.

    Args:
        run: folder of the run.
        heldout: folder of the windows to measure on (`tokenise`).
        device: "cpu" or "cuda".

    Returns:
        One profile after the other, with `validation_loss` (nats per token) and `step`.

    Raises:
        FloatingPointError: the states of a model are not finite, or no longer vary; the message
            names the step.
    """
    saved = load_file(heldout / WINDOWS_FILE)
    windows, documents = saved["windows"].long(), saved["documents"].long()
    frames = []
    for step, folder in checkpoints(run).items():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        try:
            profile = measure.linearity_profile(model, windows, documents=documents)
        except ValueError as error:
            raise divergence(f"the states after step {step}: {error}") from error
        loss = measure.window_losses(model, windows).mean().item()
        frames.append(profile.assign(validation_loss=loss, step=step))
    return pd.concat(frames, ignore_index=True)


def validation_loss(run: Path, heldout: Path, device: str = "cpu") -> float | None:
    """Loss of a run's last model on held-out windows, in nats per token; None if it diverged.

    Arguments are those of `measure_checkpoints`. For `store.cached`.
    """
    if (run / DIVERGED_FILE).exists():
        return None
    windows = load_file(heldout / WINDOWS_FILE)["windows"].long()
    model = AutoModelForCausalLM.from_pretrained(run, dtype=torch.float32).to(device).eval()
    loss = measure.window_losses(model, windows).mean().item()
    return loss if np.isfinite(loss) else None


def compare_at_equal_loss(training: pd.DataFrame) -> pd.DataFrame:
    """Each variant beside "plain", at equal steps (the last) and at equal validation loss.

    The loss is the lowest that all runs of the pair reach that did not diverge; scores there are
    interpolated between the two checkpoints around its first crossing. All tokens.

    Args:
        training: means over layers, one row per `size`, `variant`, `seed`, `diverged`, `step` and
            `tokens`, with `validation_loss` (nats per token) and scores.

    Returns:
        One row per `pair` (named after the variant), run of the pair and `at` ("equal steps",
        "equal loss"): `reached_at` (the step, interpolated too), `validation_loss` and scores. A
        run that never reaches the loss has a row at equal steps only.
    """
    run_labels = [*RUN, "diverged"]
    training = training[training["tokens"] == "all"].drop(columns="tokens")
    training = training.rename(columns={"step": "reached_at"}).sort_values("reached_at")
    rows = []
    for _, size in training.groupby("size", sort=False):
        for variant in sorted(set(size["variant"]) - {"plain"}):
            pair = size[size["variant"].isin([variant, "plain"])]
            target = pair[~pair["diverged"]].groupby(RUN)["validation_loss"].min().max()
            for run, path in pair.groupby(run_labels, sort=False):
                labels = {"pair": variant, **dict(zip(run_labels, run, strict=True))}
                values = path.drop(columns=run_labels)
                rows.append(labels | {"at": "equal steps"} | values.iloc[-1].to_dict())
                if values["validation_loss"].min() <= target:
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
