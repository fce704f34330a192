"""How windows go through a model: batches, padding, first positions, layers named in errors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from linlib.models import decoder_blocks, position_limit, watch_blocks
from linlib.models.stream import run_backbone

TOKEN_GROUPS = ("all", "no first position")


def check_windows(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None
) -> Tensor:
    """Return the mask as booleans on the CPU, all True where none was given.

    Raises:
        ValueError: shapes disagree, windows are longer than the model takes, token ids are not in
            its vocabulary, or a window holds no token at all.
    """
    if input_ids.ndim != 2:
        raise ValueError(f"input_ids must be (n_windows, length), got {tuple(input_ids.shape)}")
    limit, vocabulary = position_limit(model), model.config.vocab_size
    if limit is not None and input_ids.shape[1] > limit:
        raise ValueError(
            f"windows of {input_ids.shape[1]} tokens do not fit the model, which takes at most "
            f"{limit}; cut the text into shorter windows"
        )
    if input_ids.numel() and not 0 <= input_ids.min() <= input_ids.max() < vocabulary:
        raise ValueError(
            f"token ids {input_ids.min()} .. {input_ids.max()} are not all in the model's "
            f"vocabulary of {vocabulary}; use the tokenizer that belongs to the model"
        )
    if attention_mask is None:
        return torch.ones(input_ids.shape, dtype=torch.bool)
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask {tuple(attention_mask.shape)} must have the shape of input_ids "
            f"{tuple(input_ids.shape)}"
        )
    mask = attention_mask.bool().cpu()
    if not bool(mask.any(1).all()):
        empty = (~mask.any(1)).nonzero()[0].item()
        raise ValueError(f"window {empty} holds no token: its attention mask is all zero")
    return mask


def first_positions(mask: Tensor) -> Tensor:
    """Mark the first token of every window, (n_windows, length)."""
    return mask & (mask.cumsum(1) == 1)


def choose_layers(model: PreTrainedModel, layers: Collection[int] | None) -> list[int]:
    """The layers (1..L) asked for, in order; None means all.

    Raises:
        IndexError: a layer is not in 1..L.
    """
    n_blocks = len(decoder_blocks(model))
    chosen = sorted(set(range(1, n_blocks + 1) if layers is None else layers))
    for layer in chosen:
        if not 1 <= layer <= n_blocks:
            raise IndexError(f"layer {layer} does not exist: this model has 1 .. {n_blocks}")
    return chosen


LayerCallback = Callable[[int, Tensor, Tensor, slice], None]


@torch.no_grad()
def run_windows(
    model: PreTrainedModel,
    input_ids: Tensor,
    mask: Tensor,
    batches: list[slice],
    callback: LayerCallback,
    progress: bool = False,
) -> None:
    """Send batches of windows through the model; call back after every block.

    Args:
        model: a decoder.
        input_ids: (n_windows, length).
        mask: True for tokens, (n_windows, length).
        batches: which windows go together.
        callback: gets (layer, x, y, batch) with x and y (batch, length, d_model).
        progress: show a bar over the batches.

    Raises:
        ValueError: what the callback raised, with the layer named before it.
    """
    batch = slice(0)

    def named(layer: int, x: Tensor, y: Tensor) -> None:
        try:
            callback(layer, x, y, batch)
        except ValueError as error:
            raise ValueError(f"layer {layer}: {error}") from error

    with watch_blocks(model, named):
        for batch in tqdm(batches, "windows", unit="batch", disable=not progress):
            run_backbone(model, input_ids[batch], mask[batch].long())


def contiguous_batches(n_windows: int, batch_size: int, n_folds: int = 1) -> Iterator[slice]:
    """Batches of adjacent windows, none of which crosses the border between two folds."""
    borders = [n_windows * fold // n_folds for fold in range(n_folds + 1)]
    for start, stop in zip(borders, borders[1:], strict=False):
        for first in range(start, stop, batch_size):
            yield slice(first, min(first + batch_size, stop))
