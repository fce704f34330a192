"""One pass over a model: the moments of every block, first positions kept apart."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from linlib.linearity import BlockMoments
from linlib.measure.batches import (
    TOKEN_GROUPS,
    check_windows,
    choose_layers,
    contiguous_batches,
    first_positions,
    run_windows,
)
from linlib.models import decoder_blocks, final_states


@dataclass
class StreamMoments:
    """Moments of the blocks of one model.

    Attributes:
        n_blocks: L, of the whole model.
        first: layer -> moments of the first token of every window, where attention sinks sit.
        rest: layer -> moments of all other tokens.
    """

    n_blocks: int
    first: dict[int, BlockMoments] = field(default_factory=dict)
    rest: dict[int, BlockMoments] = field(default_factory=dict)

    @property
    def layers(self) -> list[int]:
        """The layers measured, from 1."""
        return sorted(self.rest)

    def group(self, layer: int, tokens: str = "all") -> BlockMoments:
        """Moments of one layer over "all" tokens, or with "no first position"."""
        if tokens not in TOKEN_GROUPS:
            raise ValueError(f"unknown token group '{tokens}'; choose from {TOKEN_GROUPS}")
        rest = self.rest[layer]
        return rest + self.first[layer] if tokens == "all" else rest

    def save(self, folder: Path) -> None:
        """Write one safetensors file a layer and group."""
        for name in ("first", "rest"):
            for layer, moments in getattr(self, name).items():
                moments.save(folder / f"{name}-{layer:03d}-of-{self.n_blocks:03d}.safetensors")

    @classmethod
    def load(cls, folder: Path) -> StreamMoments:
        """Read what `save` wrote."""
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
    progress: bool = False,
) -> StreamMoments:
    """Accumulate the moments of (x, delta) of every block in one pass, on the model's device.

    Args:
        model: a decoder.
        input_ids: token ids, (n_windows, length).
        attention_mask: 1 for tokens, 0 for padding, which never enters a moment.
        n_folds: folds of adjacent windows, for held-out scores.
        batch_size: windows in one forward pass.
        layers: those to measure (1..L); None is all of them. Memory grows with their number:
            2 n_folds d (2 d) float64 values a layer.
        after_final_norm: take the last block's output after the final norm, as
            `output_hidden_states` and so the official code does.
        progress: show a progress bar.

    Raises:
        ValueError: states are NaN or infinite (the layer is named), or there are fewer windows
            than folds.
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
    groups = (
        (moments.first, slice(1), first),
        (moments.rest, slice(1, None), mask & ~first),
    )
    batches = list(contiguous_batches(len(input_ids), batch_size, n_folds))
    run_windows(model, input_ids, mask, batches, add, progress)
    return moments
