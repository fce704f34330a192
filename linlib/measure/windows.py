"""Windows of token ids through a model: checks, batches, and the moments of the blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from linlib.linearity import BlockMoments
from linlib.models.decoders import (
    decoder_blocks,
    final_states,
    position_limit,
    run_backbone,
    watch_blocks,
)

TOKEN_GROUPS = ("all", "no first position")


def check_windows(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """Return the attention mask, (n_windows, seq_len), as booleans on the CPU; None means all True.

    Raises:
        TypeError: the windows are text, or anything else but a tensor of integers.
        ValueError: shapes disagree, windows are longer than the model takes, token ids are not in
            its vocabulary, or a window holds no token at all.
    """
    if not isinstance(input_ids, Tensor) or input_ids.is_floating_point():
        got = input_ids.dtype if isinstance(input_ids, Tensor) else type(input_ids).__name__
        raise TypeError(
            f"windows must be a tensor of token ids, (n_windows, seq_len), got {got}; make them of "
            "text with linlib.token_windows(text, tokenizer)"
        )
    if input_ids.ndim != 2:
        raise ValueError(f"input_ids must be (n_windows, seq_len), got {tuple(input_ids.shape)}")
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
    """Mark the first token of each window, (n_windows, seq_len)."""
    return mask & (mask.cumsum(1) == 1)


def choose_layers(
    model: PreTrainedModel, layers: Collection[int] | None = None, at_most: int | None = None
) -> list[int]:
    """Return the requested layers (1..L; None: all) in ascending order.

    Where they are more than `at_most`, that many or fewer are kept, at equal distances.

    Raises:
        IndexError: a layer is not in 1..L.
    """
    n_blocks = len(decoder_blocks(model))
    chosen = sorted(set(range(1, n_blocks + 1) if layers is None else layers))
    for layer in chosen:
        if not 1 <= layer <= n_blocks:
            raise IndexError(f"layer {layer} does not exist: this model has 1 .. {n_blocks}")
    return chosen if at_most is None else chosen[:: -(-len(chosen) // at_most)]


def contiguous_batches(n_windows: int, batch_size: int, n_folds: int = 1) -> Iterator[slice]:
    """Batches of adjacent windows, none of which crosses the border between two folds."""
    borders = [n_windows * fold // n_folds for fold in range(n_folds + 1)]
    for start, stop in zip(borders, borders[1:], strict=False):
        for first in range(start, stop, batch_size):
            yield slice(first, min(first + batch_size, stop))


@torch.no_grad()
def run_windows(
    model: PreTrainedModel,
    input_ids: Tensor,
    mask: Tensor,
    batches: list[slice],
    callback: Callable[[int, Tensor, Tensor, slice], None],
) -> None:
    """Send batches of windows through the model and call back after each block.

    Args:
        model: a decoder.
        input_ids: (n_windows, seq_len).
        mask: True for tokens, (n_windows, seq_len).
        batches: the windows that go through the model together.
        callback: gets (layer, x, y, batch) with x and y (batch, seq_len, d_model); the layer is
            named before the ValueErrors that it raises.
    """
    batch = slice(0)

    def named(layer: int, x: Tensor, y: Tensor) -> None:
        try:
            callback(layer, x, y, batch)
        except ValueError as error:
            raise ValueError(f"layer {layer}: {error}") from error

    with watch_blocks(model, named):
        for batch in batches:
            run_backbone(model, input_ids[batch], mask[batch].long())


@dataclass
class StreamMoments:
    """Moments of the blocks of one model.

    Attributes:
        n_blocks: L, of the whole model.
        first: layer (1..L) -> moments of the first token of each window, where attention sinks sit.
        rest: layer -> moments of all other tokens.
    """

    n_blocks: int
    first: dict[int, BlockMoments] = field(default_factory=dict)
    rest: dict[int, BlockMoments] = field(default_factory=dict)

    def group(self, layer: int, tokens: str = "all") -> BlockMoments:
        """Moments of one layer over "all" tokens, or with "no first position"."""
        if tokens not in TOKEN_GROUPS:
            raise ValueError(f"unknown token group '{tokens}'; choose from {TOKEN_GROUPS}")
        rest = self.rest[layer]
        return rest + self.first[layer] if tokens == "all" else rest

    def save(self, folder: Path) -> None:
        """Write one safetensors file per layer and group."""
        for name in ("first", "rest"):
            for layer, moments in getattr(self, name).items():
                moments.save(folder / f"{name}-{layer:03d}-of-{self.n_blocks:03d}.safetensors")

    @classmethod
    def load(cls, folder: Path) -> StreamMoments:
        """Read a folder that `save` wrote, onto the CPU."""
        moments = cls(0)
        for path in sorted(folder.glob("*-of-*.safetensors")):
            name, layer, _, n_blocks = path.stem.split("-")
            getattr(moments, name)[int(layer)] = BlockMoments.load(path)
            moments.n_blocks = int(n_blocks)
        return moments


def collect_moments(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    n_folds: int = 4,
    batch_size: int = 32,
    layers: Collection[int] | None = None,
    after_final_norm: bool = False,
) -> StreamMoments:
    """Accumulate the moments of (x, delta) of each block in one pass, on the model's device.

    Arguments are those of `linearity_profile`. Folds are of adjacent windows, and padding never
    enters a moment. Each layer takes memory for 2 n_folds d (2 d) float64 values.

    Raises:
        TypeError, ValueError: the windows are not token ids that fit the model (see
            `check_windows`), states are NaN or infinite (the layer is named), or there are fewer
            windows than folds.
        IndexError: a layer does not exist.
    """
    mask = check_windows(model, input_ids, attention_mask)
    if len(input_ids) < n_folds:
        raise ValueError(
            f"{len(input_ids)} windows cannot fill {n_folds} folds; give more windows, or n_folds=1"
        )
    n_blocks, first = len(decoder_blocks(model)), first_positions(mask)
    moments = StreamMoments(n_blocks)
    for layer in choose_layers(model, layers):
        for group in (moments.first, moments.rest):
            group[layer] = BlockMoments(model.config.hidden_size, n_folds)
    borders = [len(input_ids) * fold // n_folds for fold in range(1, n_folds)]

    def add(layer: int, x: Tensor, y: Tensor, batch: slice) -> None:
        if layer not in moments.rest:
            return
        if after_final_norm and layer == n_blocks:
            y = final_states(model, y)
        fold = sum(batch.start >= border for border in borders)
        # A difference of half-precision states needs more digits than they have.
        delta = y.to(torch.promote_types(y.dtype, torch.float32)) - x
        for group, positions, tokens in groups:
            members = (slice(None), positions) if unpadded else tokens[batch].to(x.device)
            group[layer].update(x[members], delta[members], fold)

    unpadded = bool(mask.all())  # then tokens are taken by position, in views and not in copies
    groups = ((moments.first, slice(1), first), (moments.rest, slice(1, None), mask & ~first))
    batches = list(contiguous_batches(len(input_ids), batch_size, n_folds))
    run_windows(model, input_ids, mask, batches, add)
    return moments


def layer_passes(
    model: PreTrainedModel,
    layers_per_pass: int | None = None,
    layers: Collection[int] | None = None,
) -> list[list[int]]:
    """Split layers (1..L; None: all) into groups whose moments fit in memory together.

    With `layers_per_pass` None, one group holds all of them.
    """
    chosen = choose_layers(model, layers)
    size = layers_per_pass or len(chosen)
    return [chosen[start : start + size] for start in range(0, len(chosen), size)]
