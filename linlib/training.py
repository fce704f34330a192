"""What every training of ours shares: precision, attention, and what a killed run goes on from."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


def has_fast_bf16(device: str) -> bool:
    """Whether mixed precision saves time on a device: it does where bf16 products are native."""
    if device == "cpu":
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.cuda.is_bf16_supported(including_emulation=False)


def training_attention(device: str) -> str:
    """At short windows the plain attention trains faster on a CPU than the fused one."""
    return "eager" if device == "cpu" else "sdpa"


def last_good_checkpoint(folder: Path) -> str | None:
    """The Trainer's newest complete checkpoint; those that a kill tore apart are passed over."""
    found = folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    for path in sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text())  # the Trainer's last file
            return str(path)
        except (FileNotFoundError, json.JSONDecodeError):
            continue
    return None
