"""Put linear maps in the place of blocks: maps that stand alone, or that vanish into a projection.

In both, x is predicted to become x + delta, where delta is what the removed run of blocks added:

- `replace_runs`: from x itself, by an affine map of the residual stream, x + x W + b.
- `fold_runs`: from m, what the MLP of the block before added to the stream. That MLP then adds
  m + m W + b, which is its own output projection with other weights: a plain model is left.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from linlib.linearity import LinearMap
from linlib.models import decoder_blocks
from linlib.prune.projection import output_projection
from linlib.prune.remove import remove_blocks


class AffineMap(nn.Module):
    """x + x W + b on the residual stream, in the place of a run of blocks.

    Attributes:
        run: the blocks that it stands for, in the numbers of the model that it was made from.
        weight: W, shape (d, d).
        bias: b, shape (d,).
    """

    def __init__(self, run: range, delta: LinearMap, like: Tensor) -> None:
        """Of a map to the contribution `delta`, on the device of `like`.

        Weights are float32 at least, since steps of a distillation vanish in half precision.
        """
        super().__init__()
        self.run = run
        options = {"device": like.device, "dtype": torch.promote_types(like.dtype, torch.float32)}
        self.weight = nn.Parameter(delta.weight.to(copy=True, **options).contiguous())
        self.bias = nn.Parameter(delta.bias.to(copy=True, **options))

    def forward(self, states: Tensor) -> Tensor:
        """Map states, (..., d), to states of the same shape and dtype."""
        added = states.to(self.weight.dtype) @ self.weight + self.bias
        return states + added.to(states.dtype)


def affine_maps(model: PreTrainedModel) -> list[AffineMap]:
    """The maps that stand in the place of blocks, in order of depth."""
    found = [module for module in model.modules() if isinstance(module, AffineMap)]
    return sorted(found, key=lambda affine: affine.run.start)


def replace_runs(model: PreTrainedModel, deltas: Mapping[range, LinearMap]) -> PreTrainedModel:
    """The model with affine maps in the place of runs of adjacent blocks.

    A map rides on the kept block before its run, or, at the start, on the block after it: so
    every block that is left has its own place in the key-value cache. A map at the start has
    worked already when h_0 is read.

    Args:
        model: a decoder; it stays whole, and shares the weights of the blocks that are kept.
        deltas: run (0-based blocks) -> map from its input to its contribution, as
            `BlockMoments.delta_map` gives it.

    Raises:
        IndexError, ValueError: see `remove_blocks`.
    """
    small = remove_blocks(model, [block for run in deltas for block in run])
    like = next(decoder_blocks(small).parameters())
    for run, delta, before in _with_block_before(deltas):
        block = decoder_blocks(small)[max(before, 0)]
        _maps_of(block, at_input=before < 0).append(AffineMap(run, delta, like))
    return small


def fold_runs(model: PreTrainedModel, deltas: Mapping[range, LinearMap]) -> PreTrainedModel:
    """The model without runs of blocks, their maps folded into the projections before them.

    Args:
        model: a decoder; it stays whole, and shares all other weights.
        deltas: run (0-based blocks) -> map from the output of the projection before it to the
            contribution of the run.

    Raises:
        IndexError, ValueError: see `remove_blocks` and `output_projection`; or a map has a bias
            and the projection has none.
    """
    small = remove_blocks(model, [block for run in deltas for block in run])
    for _, delta, before in _with_block_before(deltas):
        _fold(output_projection(small, before), delta)
    return small


def _with_block_before(deltas: Mapping[range, LinearMap]) -> list[tuple[range, LinearMap, int]]:
    """Runs in order, their maps, and the index of the block before each once all are gone."""
    found, gone = [], 0
    for run in sorted(deltas, key=lambda run: run.start):
        if len(run) == 0 or run.step != 1:
            raise ValueError(f"a run of blocks must be a non-empty range of step 1, got {run}")
        found.append((run, deltas[run], run.start - gone - 1))
        gone += len(run)
    return found


def _maps_of(block: nn.Module, at_input: bool) -> nn.Sequential:
    """The maps at the input or at the output of a block, which its forward pass goes through."""
    name = "maps_before" if at_input else "maps_after"
    if not hasattr(block, name):
        setattr(block, name, nn.Sequential())
        if at_input:
            block.register_forward_pre_hook(_map_input, with_kwargs=True)
        else:
            block.register_forward_hook(_map_output)
    return getattr(block, name)


def _map_output(block: nn.Module, _args: tuple, output: Tensor | tuple) -> Tensor | tuple:
    if isinstance(output, tuple):
        return (block.maps_after(output[0]), *output[1:])
    return block.maps_after(output)


def _map_input(block: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    if args:
        return (block.maps_before(args[0]), *args[1:]), kwargs
    return args, kwargs | {"hidden_states": block.maps_before(kwargs["hidden_states"])}


@torch.no_grad()
def _fold(projection: nn.Module, delta: LinearMap) -> None:
    """Let a projection give m + m W + b where it gave m; its old weights stay the dense model's."""
    weight = projection.weight.double()
    by_input = weight if isinstance(projection, Conv1D) else weight.T  # (d_inner, d)
    eye = torch.eye(len(delta.bias), dtype=torch.float64, device=weight.device)
    onward = eye + delta.weight.to(weight)
    folded = by_input @ onward
    folded = folded if isinstance(projection, Conv1D) else folded.T
    flag = projection.weight.requires_grad
    projection.weight = nn.Parameter(folded.to(projection.weight.dtype).contiguous(), flag)
    bias = delta.bias.to(weight)
    if projection.bias is not None:
        bias = projection.bias.double() @ onward + bias
        projection.bias = nn.Parameter(bias.to(projection.bias.dtype), flag)
    elif bool(bias.any()):
        raise ValueError(
            "the map has a bias, and the projection that it is folded into has none; fit it "
            "without an intercept"
        )
