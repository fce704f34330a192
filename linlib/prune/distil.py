"""Distil the dense model into the maps that replaced its blocks (paper, section 5).

Only the maps train. The loss is the mean squared error between the student's and the teacher's
residual stream after every replaced run of blocks; the language-model loss may be added to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup

from linlib.measure.batches import check_windows
from linlib.models import residual_stream
from linlib.models.stream import run_backbone
from linlib.prune.replace import AffineMap, affine_maps


@dataclass(frozen=True)
class Distillation:
    """How maps are distilled.

    Attributes:
        steps: of AdamW, at most.
        batch_size: windows in a step.
        learning_rate: peak of a cosine schedule.
        warmup_steps: of linear warm-up.
        evaluate_every: steps between looks at the held-out loss.
        patience: looks without a better loss after which training stops.
        language_weight: of the next-token loss beside the squared error; 0 leaves it out.
        seed: of the order of windows.
    """

    steps: int = 100
    batch_size: int = 8
    learning_rate: float = 1e-3
    warmup_steps: int = 10
    evaluate_every: int = 20
    patience: int = 3
    language_weight: float = 0.0
    seed: int = 0


def distil(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    windows: Tensor,
    heldout: Tensor,
    how: Distillation,
) -> pd.DataFrame:
    """Train the student's maps in place; those of the lowest held-out loss are kept.

    The start counts too, so that no student ends worse than it began.

    Args:
        student: of `prune(..., method="replace")`; its other weights do not move.
        teacher: the dense model.
        windows: training text, (n_windows, length); gone through in random order, and again if
            the steps need more of them.
        heldout: text for the early stopping, (n_windows, length).
        how: steps, rates and seed.

    Returns:
        The looks at the held-out text: `step`, `heldout_loss` and whether it was the `kept` one.

    Raises:
        ValueError: the student has no maps, there is no window, or windows do not fit the models.
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
    with _only_maps_train(student, maps), _evaluating(student), _evaluating(teacher):
        weights = [weight for affine in maps for weight in affine.parameters()]
        optimizer = torch.optim.AdamW(weights, lr=how.learning_rate, weight_decay=0.0)
        schedule = get_cosine_schedule_with_warmup(optimizer, how.warmup_steps, how.steps)
        looks = [(0, _heldout_loss(student, teacher, heldout, how))]
        best, kept = _copy(maps), 0
        for step, ids in enumerate(_batches(windows, how), start=1):
            optimizer.zero_grad()
            _loss(student, teacher, maps, ids, how.language_weight).backward()
            optimizer.step()
            schedule.step()
            if step % how.evaluate_every and step < how.steps:
                continue
            looks.append((step, _heldout_loss(student, teacher, heldout, how)))
            if looks[-1][1] < looks[kept][1]:
                best, kept = _copy(maps), len(looks) - 1
            elif len(looks) - 1 - kept >= how.patience:
                break
        for affine, state in zip(maps, best, strict=True):
            affine.load_state_dict(state)
    history = pd.DataFrame(looks, columns=["step", "heldout_loss"])
    return history.assign(kept=history.index == kept)


def _loss(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    maps: list[AffineMap],
    ids: Tensor,
    language_weight: float,
) -> Tensor:
    with torch.no_grad():
        targets = residual_stream(teacher, ids)
    states: dict[range, Tensor] = {}
    handles = [affine.register_forward_hook(_keep(states)) for affine in maps]
    try:
        if language_weight:
            logits = student(input_ids=ids.to(student.device), use_cache=False).logits
        else:
            run_backbone(student, ids)
    finally:
        for handle in handles:
            handle.remove()
    # After run a .. b-1 (0-based blocks) stands h_b.
    pairs = [(states[affine.run], targets[affine.run.stop]) for affine in maps]
    loss = sum(mse_loss(mine.float(), theirs.float()) for mine, theirs in pairs)
    if language_weight:
        next_tokens = ids[:, 1:].to(student.device)
        loss = loss + language_weight * cross_entropy(logits[:, :-1].float().mT, next_tokens)
    return loss


def _keep(states: dict[range, Tensor]) -> Callable[[AffineMap, tuple, Tensor], None]:
    def hook(affine: AffineMap, _args: tuple, output: Tensor) -> None:
        states[affine.run] = output

    return hook


@torch.no_grad()
def _heldout_loss(
    student: PreTrainedModel, teacher: PreTrainedModel, heldout: Tensor, how: Distillation
) -> float:
    maps = affine_maps(student)
    total = sum(
        _loss(student, teacher, maps, ids, how.language_weight).item() * len(ids)
        for ids in heldout.split(how.batch_size)
    )
    return total / len(heldout)


def _batches(windows: Tensor, how: Distillation) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(how.seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(how.steps):
        while len(order) < how.batch_size:
            order = torch.cat([order, torch.randperm(len(windows), generator=generator)])
        yield windows[order[: how.batch_size]]
        order = order[how.batch_size :]


def _copy(maps: list[AffineMap]) -> list[dict[str, Tensor]]:
    return [{k: v.clone() for k, v in affine.state_dict().items()} for affine in maps]


@contextmanager
def _only_maps_train(student: PreTrainedModel, maps: list[AffineMap]) -> Iterator[None]:
    """Freeze all weights but the maps'; afterwards every weight's flag is as it was."""
    before = {weight: weight.requires_grad for weight in student.parameters()}
    student.requires_grad_(False)
    for affine in maps:
        affine.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for weight, flag in before.items():
            weight.requires_grad_(flag)
            weight.grad = None


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout, so that looks can be compared; afterwards as it was."""
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in was_training.items():
            module.training = training
