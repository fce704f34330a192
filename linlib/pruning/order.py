"""The order in which blocks are removed: the paper's, and its rivals.

A criterion gives each block a cost, and the cheapest block is removed first. Costs are measured
once on the dense model, or again on the remaining model after each removal.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from linlib.linearity import BlockMoments
from linlib.measure.losses import window_losses
from linlib.measure.windows import (
    check_group,
    check_windows,
    collect_moments,
    contiguous_batches,
    run_windows,
)
from linlib.models.decoders import decoder_blocks
from linlib.pruning.fit import check_method
from linlib.pruning.maps import output_projection
from linlib.pruning.remove import check_blocks, remove_blocks

SCORES: dict[str, Callable[[BlockMoments], float]] = {
    "linearity": BlockMoments.linearity_score,
    "linearity without residual": BlockMoments.linearity_no_residual,
    "identity score": BlockMoments.identity_score,
}
CRITERIA = [*SCORES, "block influence", "loss", "last", "random"]


def removal_order(
    model: PreTrainedModel,
    input_ids: Tensor,
    criterion: str = "linearity",
    n_remove: int | None = None,
    attention_mask: Tensor | None = None,
    *,
    tokens: str = "all",
    method: str | None = None,
    remeasure: bool = False,
    seed: int = 0,
    batch_size: int = 32,
) -> list[int]:
    """Blocks (0-based indices) in the order of their removal.

    Args:
        model: a decoder.
        input_ids: calibration text, (n_windows, seq_len).
        criterion: see `block_costs`; "loss" with `remeasure` is the greedy search of SLEB.
        n_remove: the number of blocks; None gives all but one.
        attention_mask: 1 for tokens, 0 for padding.
        tokens: see `block_costs`.
        method: one of `METHODS`, by which the blocks are to be taken out: a model that it does not
            fit is refused before anything is measured, and a block that it cannot take (block 0 by
            "fold") is left out of the order.
        remeasure: measure the costs again after each removal, on the remaining model.
        seed: of the criterion "random".
        batch_size: windows in one forward pass.

    Raises:
        ValueError: an unknown criterion, method or token group; n_remove is not in 0 .. L-1; no
            block of the model can be removed, or none by the method.
    """
    check_blocks(model, [])
    if method is not None:
        check_method(method)
    if method == "fold":
        output_projection(model, 0)
    n_blocks = len(decoder_blocks(model))
    n_remove = n_blocks - 1 if n_remove is None else n_remove
    if not 0 <= n_remove < n_blocks:
        raise ValueError(
            f"cannot remove {n_remove} of {n_blocks} blocks: 0 .. {n_blocks - 1} can go, since at "
            "least one must be kept"
        )
    options = {"tokens": tokens, "seed": seed, "batch_size": batch_size}
    left, order = list(range(n_blocks)), []
    while len(order) < n_remove:
        if remeasure or not order:
            remaining = remove_blocks(model, order) if order else model
            found = block_costs(remaining, input_ids, criterion, attention_mask, **options)
            costs = dict(zip(left, found, strict=True))
        candidates = [block for block in left if block > 0 or method != "fold"]
        order.append(min(candidates, key=costs.__getitem__))
        left.remove(order[-1])
    return order


def block_costs(
    model: PreTrainedModel,
    input_ids: Tensor,
    criterion: str,
    attention_mask: Tensor | None = None,
    *,
    tokens: str = "all",
    seed: int = 0,
    batch_size: int = 32,
) -> list[float]:
    """The cost of each block under a criterion; cheap blocks are removed first.

    Args:
        model: a decoder.
        input_ids: calibration text, (n_windows, seq_len).
        criterion: one of `CRITERIA`. "linearity" (with residual, the paper's), "linearity without
            residual" and "identity score": one minus the score. "block influence" (ShortGPT):
            1 - mean cosine of a block's input and output. "loss": the loss of the model without
            the block, in nats per token. "last": the last block goes first. "random".
        attention_mask: 1 for tokens, 0 for padding.
        tokens: the tokens of the three linear criteria, one of `linlib.measure.TOKEN_GROUPS`.
        seed: of "random".
        batch_size: windows in one forward pass.

    Returns:
        L costs.

    Raises:
        ValueError: there is no such criterion or token group.
    """
    check_group(tokens)
    if criterion not in CRITERIA:
        raise ValueError(f"unknown criterion '{criterion}'; choose from {CRITERIA}")
    n_blocks, text = len(decoder_blocks(model)), (input_ids, attention_mask)
    if criterion in SCORES:
        moments = collect_moments(model, *text, n_folds=1, batch_size=batch_size)
        groups = [moments.group(block + 1, tokens) for block in range(n_blocks)]
        return [1 - SCORES[criterion](group) for group in groups]
    if criterion == "block influence":
        return _block_influence(model, *text, batch_size)
    if criterion == "loss":
        bar = tqdm(range(n_blocks), "losses", leave=False, unit="block", delay=5)
        shorter = (remove_blocks(model, [block]) for block in bar)
        losses = (window_losses(one, *text, batch_size=batch_size) for one in shorter)
        return [loss.mean().item() for loss in losses]
    if criterion == "last":
        return [float(-block) for block in range(n_blocks)]
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n_blocks, generator=generator, dtype=torch.float64).tolist()


def _block_influence(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None, batch_size: int
) -> list[float]:
    """1 - mean over tokens of cos(h_{l-1}, h_l), for each block (ShortGPT's block influence)."""
    mask = check_windows(model, input_ids, attention_mask)
    total = torch.zeros(len(decoder_blocks(model)), dtype=torch.float64)

    def add(layer: int, x: Tensor, y: Tensor, batch: slice) -> None:
        cosines = cosine_similarity(x.float(), y.float(), dim=-1)  # (batch, seq_len)
        total[layer - 1] += cosines[mask[batch].to(x.device)].double().sum().cpu()

    batches = list(contiguous_batches(len(input_ids), batch_size))
    run_windows(model, input_ids, mask, batches, add)
    return (1 - total / mask.sum()).tolist()
