"""Distil the dense model into the maps that replaced its blocks (paper, section 5).

Only the maps train. The loss is the mean squared error between the student's and the teacher's
residual stream after each replaced run of blocks. The teacher's stream is computed once; what
enters the first run is the teacher's too, so that a single run is distilled without any block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from tqdm.auto import tqdm
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup

from linlib.measure.windows import PassEnded, check_windows
from linlib.models.decoders import run_backbone, watch_blocks
from linlib.pruning.maps import AffineMap, affine_maps

RETRIES = 2  # further attempts of a distillation, each at a tenth of the rate before


@torch.enable_grad()
def distil(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    windows: Tensor,
    heldout: Tensor,
    *,
    steps: int = 100,
    batch_size: int = 8,
    learning_rate: float = 1e-3,
    warmup_steps: int = 10,
    evaluation_interval: int = 20,
    patience: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Train the student's maps in place; the weights with the lowest held-out loss are kept.

    The weights before the first step count too, so that no student ends worse than it began. Maps
    of least squares begin close to the optimum, and a rate that is too large only leads away from
    it: where no evaluation is lower than the first, training begins anew at a tenth of the rate,
    `RETRIES` times at most. Both models are left in evaluation mode: without dropout, evaluations
    can be compared.

    Args:
        student: a model from `prune(..., method="replace")`; its other weights do not change.
        teacher: the dense model.
        windows: training text, (n_windows, seq_len), visited in random order, and repeatedly if the
            steps need more windows than there are.
        heldout: text for early stopping, (n_windows, seq_len).
        steps: optimiser steps (AdamW), at most.
        batch_size: windows in a step.
        learning_rate: the peak of a cosine schedule, at the first attempt.
        warmup_steps: steps of linear warm-up.
        evaluation_interval: steps between two evaluations of the held-out loss.
        patience: evaluations without a lower loss after which training stops.
        seed: of the order of windows.

    Returns:
        One row per evaluation of the last attempt: its `learning_rate`, `step`, `heldout_loss`, and
        `kept`, which is true for the one whose weights were kept.

    Raises:
        ValueError: the student has no maps, there are no windows, or they do not fit the models.
    """
    maps = affine_maps(student)
    if not maps:
        raise ValueError(
            "the student has no maps to train; make it with prune(model, blocks, 'replace', ...)"
        )
    for name, text in (("windows", windows), ("heldout", heldout)):
        check_windows(teacher, text, None)
        if len(text) == 0:
            raise ValueError(f"`{name}` holds no window to distil with")
    student.eval()
    teacher.eval()
    trained = nn.ModuleList(maps)
    n_visits = steps * batch_size
    generator, epochs = torch.Generator().manual_seed(seed), math.ceil(n_visits / len(windows))
    order = [torch.randperm(len(windows), generator=generator) for _ in range(epochs)]
    visited, order = torch.cat(order)[:n_visits].unique(return_inverse=True)
    windows = windows[visited]
    order = order.view(steps, batch_size)  # (n_visits,) -> (steps, batch)
    stream, heldout_stream = (
        _stream(teacher, maps, text, batch_size) for text in (windows, heldout)
    )

    @torch.no_grad()
    def heldout_loss() -> float:
        total = 0.0
        for part in torch.arange(len(heldout)).split(batch_size):
            total += _loss(student, maps, heldout, heldout_stream, part).item() * len(part)
        return total / len(heldout)

    first = heldout_loss()
    for rate in (learning_rate / 10**retry for retry in range(RETRIES + 1)):
        history = [(rate, 0, first)]
        best, kept = deepcopy(trained.state_dict()), 0
        optimizer = torch.optim.AdamW(trained.parameters(), lr=rate, weight_decay=0.0)
        schedule = get_cosine_schedule_with_warmup(optimizer, warmup_steps, steps)
        bar = tqdm(order, "distilling", leave=False, unit="step", delay=5)
        for step, chosen in enumerate(bar, start=1):
            optimizer.zero_grad()
            loss = _loss(student, maps, windows, stream, chosen)
            loss.backward(inputs=list(trained.parameters()))  # no other weight gets a gradient
            optimizer.step()
            schedule.step()
            if step % evaluation_interval and step < steps:
                continue
            history.append((rate, step, heldout_loss()))
            if history[-1][-1] < history[kept][-1]:
                best, kept = deepcopy(trained.state_dict()), len(history) - 1
            elif len(history) - 1 - kept >= patience:
                break
        bar.close()
        optimizer.zero_grad()
        trained.load_state_dict(best)
        if kept:
            break
    frame = pd.DataFrame(history, columns=["learning_rate", "step", "heldout_loss"])
    return frame.assign(kept=frame.index == kept)


@torch.no_grad()
def _stream(
    teacher: PreTrainedModel, maps: list[AffineMap], windows: Tensor, batch_size: int
) -> dict[int, Tensor]:
    """The teacher's stream where the first run begins and where each run ends, on the CPU.

    Returns:
        l -> h_l of all windows, (n_windows, seq_len, d), in the model's dtype.
    """
    first, ends = maps[0].run.start, [affine.run.stop for affine in maps]
    found: dict[int, list[Tensor]] = {layer: [] for layer in (first, *ends)}

    def keep(layer: int, x: Tensor, y: Tensor) -> None:
        if layer == first + 1:
            found[first].append(x.cpu())
        if layer in ends:
            found[layer].append(y.cpu())
        if layer == ends[-1]:
            raise PassEnded

    with watch_blocks(teacher, keep):
        for ids in windows.split(batch_size):
            with suppress(PassEnded):
                run_backbone(teacher, ids)
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def _loss(
    student: PreTrainedModel,
    maps: list[AffineMap],
    windows: Tensor,
    stream: Mapping[int, Tensor],
    chosen: Tensor,
) -> Tensor:
    """The loss on the windows `chosen`, whose teacher's stream is known."""
    states: dict[int, Tensor] = {}

    def keep_state(affine: AffineMap, _args: tuple, output: Tensor) -> None:
        states[affine.run.stop] = output
        if affine is maps[-1]:
            raise PassEnded

    handles = [affine.register_forward_hook(keep_state) for affine in maps]
    try:
        with suppress(PassEnded):
            if len(maps) == 1:
                maps[0](stream[maps[0].run.start][chosen].to(student.device))
            else:
                run_backbone(student, windows[chosen])
    finally:
        for handle in handles:
            handle.remove()
    parts = [mse_loss(y.float(), stream[end][chosen].to(y).float()) for end, y in states.items()]
    return torch.stack(parts).sum()
