"""What a pruned model saves: parameters, operations, and the time of a forward pass."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from linlib.linearity import LinearMap
from linlib.pruning.maps import replace_runs
from linlib.pruning.remove import adjacent_runs, remove_blocks


@torch.no_grad()
def flops_per_token(model: PreTrainedModel, input_ids: Tensor) -> float:
    """Floating-point operations of a forward pass per token, as torch counts them."""
    # The plain attention is the one whose products torch counts on every device.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(input_ids=input_ids.to(model.device), use_cache=False)
    return counter.get_total_flops() / input_ids.numel()


@torch.no_grad()
def seconds_side_by_side(
    models: Mapping[str | int, PreTrainedModel], input_ids: Tensor, repeats: int = 7
) -> pd.DataFrame:
    """Time forward passes of several models in turn, so that all meet the same machine.

    Args:
        models: by name.
        input_ids: one batch, (batch, seq_len).
        repeats: rounds, after one that warms up.

    Returns:
        One row per round and model: `name`, `round`, `seconds`.
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
    model: PreTrainedModel, sets: Iterable[Iterable[int]], input_ids: Tensor, repeats: int = 7
) -> pd.DataFrame:
    """Parameters, operations and speed of a model with blocks removed, or replaced by maps.

    They depend on the number of blocks, and with maps on the number of runs, but not on which
    blocks these are: one set of blocks per number of blocks and of runs is measured.

    Args:
        model: the dense decoder.
        sets: sets of blocks (0-based indices).
        input_ids: one batch, (batch, seq_len).
        repeats: rounds of timing.

    Returns:
        One row per `method` ("dense", "removed", "replaced"), `n_removed` and `n_runs`:
        `parameters` (tied weights once), `flops_per_token`, `tokens_per_second` (median over
        rounds) and `speedup` (median over rounds of the dense model's time over its own).
    """
    width = model.config.hidden_size
    zero = LinearMap(torch.zeros(width, width), torch.zeros(width))
    by_size = {(len(set(blocks)), len(adjacent_runs(blocks))): blocks for blocks in map(list, sets)}
    models = {("dense", 0, 0): model}
    for size, blocks in sorted(by_size.items()):
        models["removed", *size] = remove_blocks(model, blocks)
        models["replaced", *size] = replace_runs(model, dict.fromkeys(adjacent_runs(blocks), zero))
    seconds = seconds_side_by_side(dict(enumerate(models.values())), input_ids, repeats)
    times = seconds.pivot(index="round", columns="name", values="seconds")
    rows = [
        {
            "method": method,
            "n_removed": n_removed,
            "n_runs": n_runs,
            "parameters": one.num_parameters(),
            "flops_per_token": flops_per_token(one, input_ids),
            "tokens_per_second": input_ids.numel() / times[number].median(),
            "speedup": (times[0] / times[number]).median(),
        }
        for number, ((method, n_removed, n_runs), one) in enumerate(models.items())
    ]
    return pd.DataFrame(rows)
