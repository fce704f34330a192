"""What a model costs: parameters, operations, and measured speed."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel


@torch.no_grad()
def flops_per_token(model: PreTrainedModel, input_ids: Tensor) -> float:
    """Floating-point operations of a forward pass for each token, as torch counts them."""
    # The plain attention is the one whose products torch counts on every device.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(input_ids=input_ids.to(model.device), use_cache=False)
    return counter.get_total_flops() / input_ids.numel()


@torch.no_grad()
def seconds_side_by_side(
    models: Mapping[str, PreTrainedModel], input_ids: Tensor, repeats: int = 7
) -> pd.DataFrame:
    """Time forward passes of several models in turn, so that all meet the same machine.

    Args:
        models: by name.
        input_ids: one batch, (batch, length).
        repeats: rounds, after one that warms up.

    Returns:
        One row a model and round: `name`, `round`, `seconds`.
    """
    rows = []
    for number in range(-1, repeats):
        for name, model in models.items():
            ids = input_ids.to(model.device)
            started = time.perf_counter()
            model(input_ids=ids, use_cache=False)
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            if number >= 0:
                rows.append((name, number, time.perf_counter() - started))
    return pd.DataFrame(rows, columns=["name", "round", "seconds"])


def model_costs(
    models: Mapping[str, PreTrainedModel], input_ids: Tensor, repeats: int = 7
) -> pd.DataFrame:
    """Parameters, operations and speed of several models on one batch.

    Args:
        models: by name; the first is the one that the others are compared with.
        input_ids: (batch, length).
        repeats: rounds of timing.

    Returns:
        One row a model: `name`, `parameters` (tied weights once), `flops_per_token`,
        `tokens_per_second` (median over rounds) and `speedup` (median over rounds of the first
        model's time over its own).
    """
    seconds = seconds_side_by_side(models, input_ids, repeats)
    times = seconds.pivot(index="round", columns="name", values="seconds")
    first = next(iter(models))
    rows = [
        {
            "name": name,
            "parameters": model.num_parameters(),
            "flops_per_token": flops_per_token(model, input_ids),
            "tokens_per_second": input_ids.numel() / times[name].median(),
            "speedup": (times[first] / times[name]).median(),
        }
        for name, model in models.items()
    ]
    return pd.DataFrame(rows)
