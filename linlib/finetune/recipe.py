"""How a decoder is fine-tuned: what is trained, for how long, at which rate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

TASK, SHUFFLED, LANGUAGE_MODEL = "task", "shuffled labels", "language modelling"
TRAININGS = (TASK, SHUFFLED, LANGUAGE_MODEL)


@dataclass(frozen=True)
class FineTuning:
    """How a decoder is fine-tuned.

    Attributes:
        training: "task"; "shuffled labels", the same rows with labels that mean nothing; or
            "language modelling", the same texts without labels.
        steps: optimiser steps; rows are seen again when they are used up.
        batch_size: texts in a step; a preference pair is two.
        learning_rate: peak of the linear schedule.
        warmup_share: of the steps.
        seed: of the head, the order of rows, dropout and the shuffling of labels.
        device: "cpu" or "cuda".
        bf16: mixed precision.
        texts_at_once: in the memory of the device; a larger batch is accumulated. None: all.
        checkpoint_every: steps between checkpoints, from which a killed run goes on; None for
            runs so short that they had better start again.
    """

    training: str
    steps: int
    batch_size: int
    learning_rate: float
    warmup_share: float
    seed: int
    device: str = "cpu"
    bf16: bool = False
    texts_at_once: int | None = None
    checkpoint_every: int | None = None


def halved_for_pairs(how: FineTuning) -> FineTuning:
    """The same recipe counted in preference pairs, of two texts each.

    Raises:
        ValueError: an odd number of texts in a batch or at once.
    """
    for name in ("batch_size", "texts_at_once"):
        if (number := getattr(how, name)) is not None and number % 2:
            raise ValueError(
                f"{name} = {number} texts cannot be made of preference pairs, which are two texts "
                "each; choose an even number"
            )
    at_once = how.texts_at_once and how.texts_at_once // 2
    return replace(how, batch_size=how.batch_size // 2, texts_at_once=at_once)


def training_arguments(how: FineTuning, folder: Path) -> dict[str, object]:
    """Options that `TrainingArguments` and `RewardConfig` share.

    Raises:
        ValueError: a batch cannot be made of so many texts at once.
    """
    at_once = min(how.texts_at_once or how.batch_size, how.batch_size)
    if how.batch_size % at_once:
        raise ValueError(
            f"a batch of {how.batch_size} cannot be made of {at_once} at once; choose numbers "
            "that divide it"
        )
    checkpoints = {"save_strategy": "no"}
    if how.checkpoint_every is not None:
        checkpoints = {"save_strategy": "steps", "save_steps": how.checkpoint_every}
    return {
        "output_dir": str(folder),
        "max_steps": how.steps,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": how.batch_size // at_once,
        "learning_rate": how.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": round(how.warmup_share * how.steps),
        "weight_decay": 0.01,
        "seed": how.seed,
        "data_seed": how.seed,
        "save_total_limit": 1,
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,  # a loss that is NaN shall be seen
        "bf16": how.bf16,
        **checkpoints,
        **placement(how),
    }


def placement(how: FineTuning) -> dict[str, object]:
    """Options that say where a Trainer works, and that it works in silence."""
    on_cpu = how.device == "cpu"
    return {
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "disable_tqdm": True,
        "report_to": "none",
    }
