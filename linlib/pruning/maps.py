"""Linear maps in the place of blocks: maps that stand alone, or that vanish into a projection.

In both, x is predicted to become x + delta, where delta is the contribution of the removed run of
blocks:

- from x itself, by an affine map of the residual stream, x + x W + b;
- or from m, what the MLP of the block before added to the stream. That MLP then adds m + m W + b,
  which is its own output projection with other weights: the map is folded, a plain model is left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from operator import attrgetter

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from linlib.linearity import LinearMap
from linlib.models.decoders import decoder_blocks
from linlib.pruning.remove import remove_blocks

# Below a block: the last matrix of its MLP, whose output is added to the residual stream as it is.
OUTPUT_PROJECTIONS: dict[str, str] = {
    "gpt2": "mlp.c_proj",
    "gptj": "mlp.fc_out",
    "bloom": "mlp.dense_4h_to_h",
    "falcon": "mlp.dense_4h_to_h",
    "gpt_neo": "mlp.c_proj",
    "gpt_neox": "mlp.dense_4h_to_h",
    "opt": "fc2",
    "phi": "mlp.fc2",
    **dict.fromkeys(
        ("llama", "mistral", "phi3", "qwen2", "qwen3", "gemma", "stablelm"), "mlp.down_proj"
    ),
}


def can_fold(config: PreTrainedConfig, blocks: Collection[int] = ()) -> bool:
    """Whether maps in the place of blocks (0-based) can be folded into the projections before them.

    The first block has none before it; and the MLP of a block must add the result of its output
    projection to the residual stream as it is.
    """
    norm_after_sum = not getattr(config, "do_layer_norm_before", True)  # OPT-350M
    return config.model_type in OUTPUT_PROJECTIONS and not norm_after_sum and 0 not in blocks


def output_projection(model: PreTrainedModel, block: int) -> nn.Module:
    """The module whose output a block's MLP adds to the residual stream.

    Args:
        model: a decoder.
        block: 0-based index.

    Raises:
        ValueError: there is no such block, or a norm stands between the MLP and the stream.
    """
    if block < 0:
        raise ValueError(
            "a run that begins with block 0 has no block before it to fold a map into; keep "
            "block 0, or replace the run by a map of its own (method 'replace')"
        )
    if not can_fold(model.config):
        raise ValueError(
            f"a map cannot be folded into the blocks of this {model.config.model_type}: a norm "
            "stands between their MLP and the residual stream, or linlib does not know their "
            "output projection; use method 'replace'"
        )
    return attrgetter(OUTPUT_PROJECTIONS[model.config.model_type])(decoder_blocks(model)[block])


class AffineMap(nn.Module):
    """x + x W + b on the residual stream, in the place of a run of blocks.

    Attributes:
        run: the blocks that it stands in for, as numbered in the dense model.
        weight: W, shape (d, d).
        bias: b, shape (d,).
    """

    def __init__(self, run: range, delta: LinearMap, like: Tensor) -> None:
        """Make a module of a map to the contribution `delta`, on the device of `like`.

        Weights are float32 at least, since steps of a distillation vanish in half precision.
        """
        super().__init__()
        self.run = run
        options = {"device": like.device, "dtype": torch.promote_types(like.dtype, torch.float32)}
        self.weight = nn.Parameter(delta.weight.to(copy=True, **options).contiguous())
        self.bias = nn.Parameter(delta.bias.to(copy=True, **options))

    def delta(self) -> LinearMap:
        """The map to the contribution of the run, as the module was made of it."""
        return LinearMap(self.weight.detach(), self.bias.detach())

    def forward(self, states: Tensor) -> Tensor:
        """Map states, (..., d), to states of the same shape and dtype."""
        added = states.to(self.weight.dtype) @ self.weight + self.bias
        return states + added.to(states.dtype)


def affine_maps(model: PreTrainedModel) -> list[AffineMap]:
    """The maps that stand in for blocks, in order of depth."""
    found = [module for module in model.modules() if isinstance(module, AffineMap)]
    return sorted(found, key=lambda affine: affine.run.start)


def replace_runs(
    model: PreTrainedModel, deltas: Mapping[range, LinearMap], fold: bool = False
) -> PreTrainedModel:
    """The model with affine maps in the place of runs of adjacent blocks.

    Args:
        model: a decoder; it stays whole, and shares the weights of the blocks that are kept.
        deltas: run (0-based blocks) -> map to its contribution, as `BlockMoments.delta_map` gives
            it: from the input of the run or, to be folded, from the output of the projection
            before it.
        fold: change that projection, instead of adding a map.

    Raises:
        IndexError, ValueError: see `remove_blocks` and, for a fold, `output_projection`; or a range
            is empty or has a step; or a map to be folded has a bias and the projection has none.
    """
    for run in deltas:
        if len(run) == 0 or run.step != 1:
            raise ValueError(f"a run of blocks must be a non-empty range of step 1, got {run}")
    small = remove_blocks(model, [block for run in deltas for block in run])
    put_maps(small, deltas, fold)
    return small


def put_maps(small: PreTrainedModel, deltas: Mapping[range, LinearMap], fold: bool = False) -> None:
    """Put maps into a model whose runs of blocks are gone; arguments as `replace_runs`.

    A map is attached to the kept block before its run, or, at the start, to the block after it, so
    that each kept block has its own place in the key-value cache. A map at the start is applied
    before h_0 is read.
    """
    like, gone = next(decoder_blocks(small).parameters()), 0
    for run in sorted(deltas, key=lambda run: run.start):
        before = run.start - gone - 1  # in the smaller model
        gone += len(run)
        if fold:
            _fold(output_projection(small, before), deltas[run])
        else:
            block = decoder_blocks(small)[max(before, 0)]
            _maps_of(block, before < 0).append(AffineMap(run, deltas[run], like))


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
    """Let a projection give m + m W + b where it gave m; the dense model keeps the old weights."""
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
