"""Fine-tune a decoder on a task or on a control, and measure it before and after (section 3.2)."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import set_seed
from trl import RewardConfig, RewardTrainer

from linlib import measure  # whose files are imported when something is measured
from linlib.models import load_classifier, load_model, load_tokenizer, position_limit
from linlib.stats import binomial_interval
from linlib.training.pretraining import train_resumably, training_options
from linlib.training.regularisers import name_loss
from linlib.training.tasks import (
    LANGUAGE_MODEL,
    TASK,
    TRAININGS,
    are_pairs,
    chance_of,
    control_rows,
    texts_of,
)

LAYERS_FILE, OUTCOME_FILE = "layers.csv", "outcome.json"
SCORES = ["linearity_score", "linearity_no_residual", "heldout_score", "heldout_no_residual"]
CHANGES = [f"{score}{end}" for score in SCORES for end in ("", "_before")]
CHANGES += [f"delta_{score}" for score in SCORES]  # what `change_of_scores` gives for each layer


def fine_tune(
    folder: Path,
    base: Mapping[str, object],
    train: Dataset,
    validation: Dataset,
    *,
    training: str,
    steps: int,
    batch_size: int,
    learning_rate: float,
    warmup_ratio: float,
    seed: int,
    bf16: bool = False,
    micro_batch_size: int | None = None,
    checkpoint_interval: int | None = None,
) -> tuple[PreTrainedModel, int | None]:
    """Fine-tune all weights of a decoder, and validate it.

    Classification is trained with cross-entropy on the state of the last token, preference pairs
    with the pairwise loss of TRL's `RewardTrainer`.

    Args:
        folder: for checkpoints of this run alone; a run that was killed continues from the last.
        base: the pretrained decoder, as keyword arguments of `linlib.load`; weights are opened in
            float32 whatever its `dtype`.
        train: rows of one task, as `encode` returns them; their columns decide the kind of task.
        validation: other rows of it.
        training: "task"; "shuffled labels", the same rows with labels that mean nothing; or
            "language modelling", the same texts without labels.
        steps: optimiser steps; rows are used again when all have been.
        batch_size: texts per step; a preference pair is two.
        learning_rate: peak of the linear schedule.
        warmup_ratio: share of the steps in which the learning rate rises.
        seed: of the head, the order of rows, dropout and the shuffling of labels.
        bf16: mixed precision.
        micro_batch_size: texts in a forward pass; gradients are accumulated up to `batch_size`.
            None: all at once.
        checkpoint_interval: steps between checkpoints; None for short runs, which begin again.

    Returns:
        The model (a classifier, a reward model or, under "language modelling", a language model),
        and the number of validation rows that it answers correctly; None for a language model.

    Raises:
        ValueError: the training is unknown, the tokenizer has no pad token, there are no rows, a
            text is longer than the model's positions, or a batch cannot be split.
        FloatingPointError: the loss became NaN or infinite.
    """
    if training not in TRAININGS:
        raise ValueError(f"unknown training '{training}'; choose from {list(TRAININGS)}")
    if len(train) == 0:
        raise ValueError("there is no row to train on")
    tokenizer = _tokenizer_of(base)
    device = base.get("device", "cpu")
    set_seed(seed)
    rows = train if training == TASK else control_rows(train, training, seed)
    texts_per_row = 2 if are_pairs(rows) else 1
    options = training_options(
        folder,
        device,
        steps=steps,
        batch_size=_in_rows("batch_size", batch_size, texts_per_row),
        micro_batch_size=_in_rows("micro_batch_size", micro_batch_size, texts_per_row),
        seed=seed,
        save_steps=checkpoint_interval,
        learning_rate=learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(warmup_ratio * steps),
        weight_decay=0.01,
        bf16=bf16,
        logging_strategy="no",
        logging_nan_inf_filter=False,  # a loss that is NaN has to be seen
    )
    trainer = _trainer(base, tokenizer, rows, training, options)
    longest = max((len(ids) for part in (train, validation) for ids in texts_of(part)), default=0)
    limit = position_limit(trainer.model)
    if limit is not None and longest > limit:
        raise ValueError(
            f"a text of {longest} tokens does not fit the model, which takes at most {limit}; "
            f"encode the task with seq_len={limit} or less"
        )
    outcome = train_resumably(trainer, device)
    if not np.isfinite(outcome.training_loss):
        raise FloatingPointError(
            f"the loss of fine-tuning became {outcome.training_loss}; lower the learning rate "
            f"({learning_rate})"
        )
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    if training == LANGUAGE_MODEL:
        return model, None
    return model, count_correct(model, tokenizer, validation, 2 * (micro_batch_size or batch_size))


def _tokenizer_of(base: Mapping[str, object]) -> PreTrainedTokenizerBase:
    options = {name: value for name, value in base.items() if name not in ("dtype", "device")}
    tokenizer = load_tokenizer(**options)
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"tokenizer '{tokenizer.name_or_path}' has no pad token, and texts of unequal "
            f"length are padded; load it with load_tokenizer(..., pad_token='...')"
        )
    tokenizer.padding_side = "right"
    return tokenizer


def _in_rows(name: str, texts: int | None, texts_per_row: int) -> int | None:
    """A number of texts as a number of rows."""
    if texts is not None and texts % texts_per_row:
        raise ValueError(
            f"{name} = {texts} texts cannot be made of preference pairs, which are two texts "
            "each; choose an even number"
        )
    return texts and texts // texts_per_row


def _trainer(
    base: Mapping[str, object],
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    training: str,
    options: Mapping[str, object],
) -> Trainer:
    source, pad = base["name_or_path"], tokenizer.pad_token_id
    place = {"revision": base.get("revision"), "device": base.get("device", "cpu")}
    if are_pairs(rows):
        model = load_classifier(source, 1, pad, **place)
        arguments = RewardConfig(
            max_length=None, activation_checkpointing=False, disable_dropout=False, **options
        )
        return RewardTrainer(model, arguments, train_dataset=rows, processing_class=tokenizer)
    if training == LANGUAGE_MODEL:
        model = load_model(source, **place)
        name_loss(model)
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    else:
        model = load_classifier(source, 2, pad, **place)
        collator = DataCollatorWithPadding(tokenizer)
    return Trainer(model, TrainingArguments(**options), collator, rows)


@torch.no_grad()
def count_correct(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Dataset, batch_size: int
) -> int:
    """Number of rows that get their own class, or of pairs whose chosen text has more reward.

    Args:
        model: a classifier of two classes, or a reward model.
        tokenizer: with a pad token.
        rows: as `encode` returns them.
        batch_size: texts in one forward pass.
    """

    def logits(column: str) -> Tensor:  # (n_rows, 2), or (n_rows, 1) of a reward model
        texts = [{"input_ids": ids} for ids in rows[column]]
        batches = DataLoader(texts, batch_size, collate_fn=DataCollatorWithPadding(tokenizer))
        return torch.cat([model(**batch.to(model.device)).logits.cpu() for batch in batches])

    if are_pairs(rows):
        return int((logits("chosen_ids") > logits("rejected_ids")).sum())
    return int((logits("input_ids").argmax(-1) == torch.tensor(rows["labels"][:])).sum())


# ------------------------------------------------------------------------- before and after


def measure_fine_tuning(
    folder: Path,
    base: Mapping[str, object],
    train: Dataset,
    validation: Dataset,
    texts: Mapping[str, tuple[Tensor, Tensor]],
    options: Mapping[str, object],
    measuring: Mapping[str, object],
) -> None:
    """Fine-tune a decoder, and measure its linearity before and after, for `store.cached`.

    Args:
        folder: receives what `outcome` reads.
        base: this and the next two as `fine_tune`, whose other arguments are `options`.
        train: training rows.
        validation: validation rows.
        texts: what linearity is measured on: names, such as "general", with token ids and the
            document of each token, both (n_windows, seq_len), as `token_windows` returns them.
        options: of the training.
        measuring: options of `linearity_profile`, such as the number of folds.
    """
    place = {"revision": base.get("revision"), "device": base.get("device", "cpu")}
    model = load_model(base["name_or_path"], **place)
    before = _profiles(model, texts, measuring)
    del model  # two models and an optimiser need not be in memory together
    model, correct = fine_tune(folder / "trainer", base, train, validation, **options)
    change = change_of_scores(before, _profiles(model, texts, measuring))
    change.to_csv(folder / LAYERS_FILE, index=False)
    n = len(validation)
    shares = (None,) * 4
    if correct is not None:
        shares = (chance_of(validation), correct / n, *binomial_interval(correct, n))
    names = ("chance", "accuracy", "accuracy_low", "accuracy_high")
    answers = {"rows": len(train), "correct": correct, "n_validation": n}
    answers |= dict(zip(names, shares, strict=True))
    (folder / OUTCOME_FILE).write_text(json.dumps(answers))
    shutil.rmtree(folder / "trainer", ignore_errors=True)  # only an unfinished run needs it
    del model
    gc.collect()  # a Trainer refers to itself, and would keep its optimiser in memory


def _profiles(
    model: PreTrainedModel,
    texts: Mapping[str, tuple[Tensor, Tensor]],
    measuring: Mapping[str, object],
) -> pd.DataFrame:
    """`linearity_profile` on each text, one below the other, with its name in the column `text`."""
    profiles = (
        measure.linearity_profile(model, windows, documents=documents, **measuring)
        for windows, documents in texts.values()
    )
    named = zip(texts, profiles, strict=True)
    return pd.concat(profile.assign(text=name) for name, profile in named)


def outcome(folder: Path) -> tuple[pd.DataFrame, dict[str, float | None]]:
    """Read a run of `measure_fine_tuning`.

    Returns:
        `change_of_scores` on each text; and the number of training `rows`, the validation rows
        answered `correct` of `n_validation`, the `chance` of the more frequent label, and the
        `accuracy` with its 95% interval (`_low`, `_high`). A language model answers nothing: its
        `correct` and its shares are None.
    """
    return pd.read_csv(folder / LAYERS_FILE), json.loads((folder / OUTCOME_FILE).read_text())


def change_of_scores(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Scores of each layer after training, before it (`..._before`), and their difference.

    Args:
        before: `linearity_profile` of the model before, with the name of the `text`.
        after: of the model after, on the same windows.

    Returns:
        One row per `text`, `layer` and `tokens`; the differences are called `delta_...`.
    """
    key = ["text", "layer", "depth", "tokens"]
    both = after[[*key, *SCORES, "null_score", "n_tokens", "n_eff", "d_model"]].merge(
        before[[*key, *SCORES]], on=key, suffixes=("", "_before"), validate="one_to_one"
    )
    return both.assign(**{f"delta_{name}": both[name] - both[f"{name}_before"] for name in SCORES})
