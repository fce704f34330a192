"""Fine-tune a decoder on one task, or on one of the two controls that the paper lacks."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import set_seed
from trl import RewardConfig, RewardTrainer

from linlib.finetune.controls import are_pairs, control_rows, texts_of
from linlib.finetune.recipe import (
    LANGUAGE_MODEL,
    TASK,
    TRAININGS,
    FineTuning,
    halved_for_pairs,
    placement,
    training_arguments,
)
from linlib.finetune.tasks import Encoded
from linlib.models import load_classifier, load_model, position_limit
from linlib.training import last_good_checkpoint, training_attention


@dataclass(frozen=True)
class Base:
    """The pretrained decoder that is fine-tuned.

    Attributes:
        source: a folder or a hub id.
        tokenizer: its own, with a pad token.
        revision: branch, tag or commit on the hub.
    """

    source: str | Path
    tokenizer: PreTrainedTokenizerBase
    revision: str | None = None


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned model and what it learned.

    Attributes:
        model: a classifier, a reward model or, under "language modelling", a language model.
        correct: validation rows that it gets right; None for a language model.
        n_validation: of how many.
    """

    model: PreTrainedModel
    correct: int | None
    n_validation: int


def fine_tune(
    base: Base, train: Encoded, validation: Encoded, how: FineTuning, folder: str | Path
) -> FineTuned:
    """Fine-tune all weights of a decoder (section 3.3), and validate it.

    Classification is trained with cross-entropy on the state of the last token, preference pairs
    with the pairwise loss of TRL's `RewardTrainer`.

    Args:
        base: what is fine-tuned.
        train: rows of one task, as `encode` gives them; their columns tell which kind.
        validation: other rows of it.
        how: training, schedule and seed.
        folder: for checkpoints, of this run alone; a run that was killed goes on from the last.

    Raises:
        ValueError: an unknown training, a tokenizer without a pad token, no rows, a text longer
            than the model takes, or a batch that cannot be made.
        FloatingPointError: the loss became NaN or infinite.
    """
    _check(base, train, how)
    folder = Path(folder)
    tokenizer = deepcopy(base.tokenizer)
    tokenizer.padding_side = "right"
    set_seed(how.seed)
    rows = train.rows if how.training == TASK else control_rows(train.rows, how)
    trainer = _trainer(base, tokenizer, rows, how, folder)
    for used in (train, validation):
        _require_room(trainer.model, used)
    trainer.model.set_attn_implementation(training_attention(how.device))
    trainer.remove_callback(PrinterCallback)
    outcome = trainer.train(resume_from_checkpoint=last_good_checkpoint(folder))
    if not np.isfinite(outcome.training_loss):
        raise FloatingPointError(
            f"the loss of fine-tuning became {outcome.training_loss}; lower the learning rate "
            f"({how.learning_rate})"
        )
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    correct = None
    if how.training != LANGUAGE_MODEL:
        correct = count_correct(model, tokenizer, validation.rows, how, folder)
    return FineTuned(model, correct, len(validation.rows))


def count_correct(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    how: FineTuning,
    folder: Path,
) -> int:
    """How many rows get their class, or the higher reward for the chosen text."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_eval_batch_size=(how.texts_at_once or how.batch_size) * 2,
        **placement(how),
    )
    trainer = Trainer(model, arguments, data_collator=DataCollatorWithPadding(tokenizer))

    def logits(column: str) -> np.ndarray:
        return trainer.predict(Dataset.from_dict({"input_ids": rows[column]})).predictions

    if are_pairs(rows):
        return int((logits("chosen_ids") > logits("rejected_ids")).sum())
    return int((logits("input_ids").argmax(axis=-1) == np.array(rows["labels"])).sum())


def _check(base: Base, train: Encoded, how: FineTuning) -> None:
    if how.training not in TRAININGS:
        raise ValueError(f"unknown training '{how.training}'; choose from {list(TRAININGS)}")
    if base.tokenizer.pad_token_id is None:
        raise ValueError(
            f"tokenizer '{base.tokenizer.name_or_path}' has no pad token, and texts of unequal "
            f"length are padded; load it with load_tokenizer(..., pad_token='...')"
        )
    if len(train.rows) == 0:
        raise ValueError("there is no row to train on")


def _require_room(model: PreTrainedModel, encoded: Encoded) -> None:
    longest, limit = max(map(len, texts_of(encoded.rows)), default=0), position_limit(model)
    if limit is not None and longest > limit:
        raise ValueError(
            f"a text of {longest} tokens does not fit the model, which takes at most {limit}; "
            f"encode the task with length={limit} or less"
        )


def _trainer(
    base: Base, tokenizer: PreTrainedTokenizerBase, rows: Dataset, how: FineTuning, folder: Path
) -> Trainer:
    place = {"revision": base.revision, "device": how.device}
    pad = tokenizer.pad_token_id
    if how.training == LANGUAGE_MODEL:
        model = load_model(base.source, **place)
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    elif are_pairs(rows):
        model = load_classifier(base.source, 1, pad, **place)
        options = training_arguments(halved_for_pairs(how), folder)
        arguments = RewardConfig(
            max_length=None, activation_checkpointing=False, disable_dropout=False, **options
        )
        return RewardTrainer(model, arguments, train_dataset=rows, processing_class=tokenizer)
    else:
        model = load_classifier(base.source, 2, pad, **place)
        collator = DataCollatorWithPadding(tokenizer)
    arguments = TrainingArguments(**training_arguments(how, folder))
    return Trainer(model, arguments, collator, train_dataset=rows)
