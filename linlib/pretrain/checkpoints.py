"""What a run leaves behind: models along the way, measured, and what it can go on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from linlib.measure import linearity_profile
from linlib.store.frames import write_atomically

SETTINGS_FILE = "settings.json"
MEASUREMENT_FILE = "linearity.csv"
BATCH = 32  # windows in a forward pass of a measurement


def checkpoint_steps(steps: int, every: int | None = None) -> list[int]:
    """Steps at which a run is saved: 0, 1, 2, 4, ..., the last, and multiples of `every`."""
    powers = {2**k for k in range(steps.bit_length()) if 2**k < steps}
    regular = set(range(every, steps, every)) if every else set()
    return sorted({0, steps} | powers | regular)


@torch.no_grad()
def measure_checkpoint(model: PreTrainedModel, heldout: Tensor) -> pd.DataFrame:
    """Linearity profile of a model in training, with its validation loss.

    Args:
        model: in float32; it is left in the mode that it was in.
        heldout: token ids that it is not trained on, (n_windows, length).

    Returns:
        `linearity_profile`, and the column `validation_loss` (nats per token).
    """
    was_training = model.training
    model.eval()
    forward = type(model).forward  # the instance's own may be wrapped in mixed precision
    try:
        losses = [
            forward(model, input_ids=batch, labels=batch, use_cache=False).loss * len(batch)
            for batch in heldout.to(model.device).split(BATCH)
        ]
        loss = torch.stack(losses).sum().item() / len(heldout)
        return linearity_profile(model, heldout, batch_size=BATCH).assign(validation_loss=loss)
    finally:
        model.train(was_training)


def save_checkpoint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    measurement: pd.DataFrame | None,
) -> None:
    """Write an ordinary Hugging Face folder, whole or not at all, with its measurement."""
    partial = folder.with_suffix(".partial")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    if measurement is not None:
        measurement.to_csv(partial / MEASUREMENT_FILE, index=False)
    partial.rename(folder)


def require_same_settings(folder: Path, settings: Mapping[str, object]) -> None:
    """Refuse to go on in a folder that belongs to another run.

    Args:
        folder: of the run; it need not exist.
        settings: everything that the run depends on, JSON values.

    Raises:
        ValueError: the folder holds a run with other settings (the message names them), or
            checkpoints of unknown settings.
    """
    path = folder / SETTINGS_FILE
    if not path.exists():
        if (folder / "trainer").exists() or (folder / "checkpoints").exists():
            raise ValueError(
                f"the checkpoints in {folder} are of a run with unknown settings: {path.name} is "
                "missing. Train in another folder, or delete this one"
            )
        return
    theirs, ours = _flat(json.loads(path.read_text())), _flat(json.loads(json.dumps(settings)))
    differences = [
        f"{key} was {theirs.get(key, 'absent')!r} and is {ours.get(key, 'absent')!r}"
        for key in sorted(theirs | ours)
        if theirs.get(key, "absent") != ours.get(key, "absent")
    ]
    if differences:
        raise ValueError(
            f"the checkpoints in {folder} are of a run with other settings: "
            f"{'; '.join(differences)}. Train in another folder, or delete this one"
        )


def keep_settings(folder: Path, settings: Mapping[str, object]) -> None:
    """Write down whose folder this is; see `require_same_settings`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SETTINGS_FILE, json.dumps(settings, indent=1, sort_keys=True))


def _flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
