"""Which blocks go first: the paper's order, and its rivals.

A criterion gives every block a cost; the cheapest is removed first. Costs are taken once on the
dense model, or measured again on what is left after each removal.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from linlib.linearity import BlockMoments
from linlib.measure import StreamMoments, collect_moments
from linlib.measure.batches import check_windows, contiguous_batches, run_windows
from linlib.models import decoder_blocks
from linlib.prune.losses import window_losses
from linlib.prune.remove import remove_blocks

SCORES: dict[str, Callable[[BlockMoments], float]] = {
    "linearity": BlockMoments.linearity_score,
    "linearity without residual": BlockMoments.linearity_no_residual,
    "identity score": BlockMoments.identity_score,
}


def removal_order(
    model: PreTrainedModel,
    input_ids: Tensor,
    criterion: str = "linearity",
    n_remove: int | None = None,
    attention_mask: Tensor | None = None,
    *,
    remeasure: bool = False,
    moments: StreamMoments | None = None,
    seed: int = 0,
    batch_size: int = 32,
) -> list[int]:
    """Blocks (0-based indices) in the order in which they are removed.

    Args:
        model: a decoder.
        input_ids: calibration text, (n_windows, length).
        criterion: see `block_costs`; "loss" measured again is the greedy search of SLEB.
        n_remove: how many; None is all but one.
        attention_mask: 1 for tokens, 0 for padding.
        remeasure: take the costs again after each removal, on the model that is left.
        moments: of the whole model on `input_ids`, if they were collected before.
        seed: of the criterion "random".
        batch_size: windows in one forward pass.

    Raises:
        ValueError: an unknown criterion, or n_remove is not in 0 .. L-1.
    """
    n_blocks = len(decoder_blocks(model))
    n_remove = n_blocks - 1 if n_remove is None else n_remove
    if not 0 <= n_remove < n_blocks:
        raise ValueError(
            f"cannot remove {n_remove} of {n_blocks} blocks: 0 .. {n_blocks - 1} can go, since at "
            "least one must be kept"
        )
    options = {"attention_mask": attention_mask, "seed": seed, "batch_size": batch_size}
    left, order = list(range(n_blocks)), []
    if n_remove == 0:
        return []
    costs = block_costs(model, input_ids, criterion, moments=moments, **options)
    for _ in range(n_remove):
        cheapest = min(range(len(left)), key=costs.__getitem__)
        order.append(left.pop(cheapest))
        costs.pop(cheapest)
        if remeasure and len(order) < n_remove:
            costs = block_costs(remove_blocks(model, order), input_ids, criterion, **options)
    return order


def block_costs(
    model: PreTrainedModel,
    input_ids: Tensor,
    criterion: str,
    attention_mask: Tensor | None = None,
    *,
    moments: StreamMoments | None = None,
    seed: int = 0,
    batch_size: int = 32,
) -> list[float]:
    """What each block is worth under a criterion; cheap blocks go first.

    Args:
        model: a decoder.
        input_ids: calibration text, (n_windows, length).
        criterion: one of `CRITERIA`. "linearity" (with residual, the paper's), "linearity without
            residual" and "identity score": one minus the score. "block influence" (ShortGPT):
            1 - mean cosine of a block's input and output. "loss": the loss, in nats per token,
            once the block is skipped. "last": the last goes first. "random".
        attention_mask: 1 for tokens, 0 for padding.
        moments: of `input_ids`, if they were collected before.
        seed: of "random".
        batch_size: windows in one forward pass.

    Returns:
        L costs.

    Raises:
        ValueError: there is no such criterion.
    """
    n_blocks = len(decoder_blocks(model))
    text = (input_ids, attention_mask)
    if criterion in SCORES:
        moments = moments or collect_moments(model, *text, n_folds=1, batch_size=batch_size)
        return [1 - SCORES[criterion](moments.group(layer)) for layer in moments.layers]
    if criterion == "block influence":
        return block_influence(model, *text, batch_size=batch_size)
    if criterion == "loss":
        shorter = (remove_blocks(model, [block]) for block in range(n_blocks))
        losses = (window_losses(one, *text, batch_size=batch_size) for one in shorter)
        return [loss.mean().item() for loss in losses]
    if criterion == "last":
        return [float(-block) for block in range(n_blocks)]
    if criterion == "random":
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(n_blocks, generator=generator, dtype=torch.float64).tolist()
    raise ValueError(f"unknown criterion '{criterion}'; choose from {CRITERIA}")


CRITERIA = [*SCORES, "block influence", "loss", "last", "random"]


def block_influence(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    batch_size: int = 32,
) -> list[float]:
    """1 - mean over tokens of cos(h_{l-1}, h_l), for each block (ShortGPT's block influence)."""
    mask = check_windows(model, input_ids, attention_mask)
    total = torch.zeros(len(decoder_blocks(model)), dtype=torch.float64)

    def add(layer: int, x: Tensor, y: Tensor, batch: slice) -> None:
        cosines = cosine_similarity(x.float(), y.float(), dim=-1)  # (batch, length)
        total[layer - 1] += cosines[mask[batch].to(x.device)].double().sum().cpu()

    batches = list(contiguous_batches(len(input_ids), batch_size))
    run_windows(model, input_ids, mask, batches, add)
    return (1 - total / mask.sum()).tolist()
