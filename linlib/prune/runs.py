"""Moments of runs of adjacent blocks: what the maps in their place are fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from linlib.linearity import BlockMoments
from linlib.measure.batches import check_windows, contiguous_batches, run_windows
from linlib.prune.projection import output_projection


@dataclass
class RunMoments:
    """Moments of runs of adjacent blocks of one model, over all tokens but padding.

    Attributes:
        stream: run -> moments of the state that enters it and of what the whole run adds.
        projection: run -> moments of what the MLP of the block before it adds, and of what the run
            adds; for a map that is folded into that MLP.
    """

    stream: dict[range, BlockMoments] = field(default_factory=dict)
    projection: dict[range, BlockMoments] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write one safetensors file a run and kind."""
        for kind, group in vars(self).items():
            for run, moments in group.items():
                moments.save(folder / _file(kind, run))

    @classmethod
    def load(cls, folder: Path, kind: str, runs: Sequence[range]) -> RunMoments:
        """Read some runs of what `save` wrote, of the kind "stream" or "projection"."""
        moments = cls()
        for run in runs:
            getattr(moments, kind)[run] = BlockMoments.load(folder / _file(kind, run))
        return moments


def _file(kind: str, run: range) -> str:
    return f"{kind}-{run.start:03d}-{run.stop:03d}.safetensors"


def collect_runs(
    model: PreTrainedModel,
    input_ids: Tensor,
    stream: Sequence[range] = (),
    projection: Sequence[range] = (),
    attention_mask: Tensor | None = None,
    *,
    batch_size: int = 32,
) -> RunMoments:
    """Accumulate the moments of any runs of blocks in one pass.

    Args:
        model: a decoder.
        input_ids: calibration text, (n_windows, length).
        stream: runs (0-based blocks) whose input and contribution are wanted.
        projection: runs for which the MLP's output of the block before is wanted.
        attention_mask: 1 for tokens, 0 for padding.
        batch_size: windows in one forward pass.

    Raises:
        ValueError: see `output_projection`; or states are not finite (the layer is named).
    """
    mask, d_model = check_windows(model, input_ids, attention_mask), model.config.hidden_size
    moments = RunMoments(
        {run: BlockMoments(d_model) for run in stream},
        {run: BlockMoments(d_model) for run in projection},
    )
    entered: dict[int, Tensor] = {}  # block -> state that enters it, of the present batch
    projected: dict[int, Tensor] = {}  # block -> what its MLP adds; Falcon adds to it in place

    def add(layer: int, x: Tensor, y: Tensor, batch: slice) -> None:
        members = mask[batch].to(x.device)
        entered[layer - 1] = x
        for run in dict.fromkeys([*stream, *projection]):
            if run.stop != layer:
                continue
            state = entered[run.start][members]
            delta = y[members].to(torch.promote_types(y.dtype, torch.float32)) - state
            if run in moments.stream:
                moments.stream[run].update(state, delta)
            if run in moments.projection:
                added = projected[run.start - 1].reshape(y.shape)  # OPT's is (n_tokens, d_model)
                moments.projection[run].update(added[members], delta)

    before = {run.start - 1 for run in projection}
    watched = {block: output_projection(model, block) for block in before}  # all, or an error
    handles = [
        module.register_forward_hook(
            lambda _module, _args, output, block=block: projected.update({block: output.clone()})
        )
        for block, module in watched.items()
    ]
    try:
        batches = list(contiguous_batches(len(input_ids), batch_size))
        run_windows(model, input_ids, mask, batches, add)
    finally:
        for handle in handles:
            handle.remove()
    return moments
