"""Train one decoder from scratch; a killed run goes on from its last checkpoint."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint, set_seed
from transformers.utils.logging import disable_progress_bar

from linlib.pretrain.progress import report_progress

LOSSES_FILE = "losses.json"  # written last: a folder that has it is finished


@dataclass(frozen=True)
class Recipe:
    """What a training run depends on, besides the model's config and the text."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    seed: int
    device: str = "cpu"
    bf16: bool = False


def has_fast_bf16(device: str) -> bool:
    """Whether mixed precision saves time on a device: it does where bf16 products are native."""
    if device == "cpu":
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.cuda.is_bf16_supported(including_emulation=False)


def checkpoint_steps(steps: int) -> list[int]:
    """Log-spaced steps at which a run is saved: 0, 1, 2, 4, ... and the last."""
    powers = [2**k for k in range(steps.bit_length()) if 2**k < steps]
    return [0, *powers, steps]


def train(
    config: PreTrainedConfig,
    windows: Tensor,
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> None:
    """Train a decoder on token windows and save it as a Hugging Face folder.

    Leaves in `folder` the final model and tokenizer, and `checkpoints/step<N>` for every
    log-spaced step. If the folder holds an unfinished run of the same recipe, that run goes on.

    Args:
        config: the architecture.
        windows: token ids, (n_windows, length); shuffled by the Trainer.
        recipe: steps, batch size, schedule and seed.
        tokenizer: saved beside the weights.
        folder: where everything goes.
    """
    if (folder / LOSSES_FILE).exists():
        return  # finished, and killed before anybody took note
    disable_progress_bar()  # of transformers, for every file saved: the runs share one bar
    set_seed(recipe.seed)
    # At the zoo's short windows the plain attention trains faster on a CPU than the fused one.
    attention = "eager" if recipe.device == "cpu" else "sdpa"
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    milestones = folder / "checkpoints"
    if not (milestones / "step0").exists():
        _save_milestone(model, tokenizer, milestones / "step0")
    dataset = Dataset.from_dict({"input_ids": windows.numpy(), "labels": windows.numpy()})
    trainer = Trainer(
        model,
        _arguments(recipe, folder / "trainer"),
        train_dataset=dataset.with_format("torch"),
        callbacks=[_Milestones(recipe.steps, tokenizer, folder)],
    )
    trainer.remove_callback(PrinterCallback)  # losses go to losses.json
    trainer.train(resume_from_checkpoint=_last_good_checkpoint(folder / "trainer"))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    losses = [entry for entry in trainer.state.log_history if "loss" in entry]
    temporary = folder / f".{LOSSES_FILE}"
    temporary.write_text(json.dumps(losses, indent=1))
    temporary.replace(folder / LOSSES_FILE)
    shutil.rmtree(folder / "trainer")  # optimiser states: only an unfinished run needs them


def _arguments(recipe: Recipe, folder: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size,
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
    )


def _last_good_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint; one that a kill tore apart is removed."""
    while folder.is_dir() and (path := get_last_checkpoint(str(folder))) is not None:
        try:
            json.loads((Path(path) / "trainer_state.json").read_text())  # the Trainer's last file
            return path
        except (FileNotFoundError, json.JSONDecodeError):
            shutil.rmtree(path)
    return None


def _save_milestone(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    partial = folder.with_suffix(".partial")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(folder)


class _Milestones(TrainerCallback):
    """Save the model at log-spaced steps, and tell the parent process how far the run is."""

    def __init__(self, steps: int, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
        self.steps = set(checkpoint_steps(steps))
        self.tokenizer = tokenizer
        self.folder = folder

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs
    ) -> None:
        step = state.global_step
        target = self.folder / "checkpoints" / f"step{step}"
        if step in self.steps and not target.exists():
            _save_milestone(kwargs["model"], self.tokenizer, target)
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        report_progress(self.folder, step, losses[-1] if losses else None)
