"""Leave decoder blocks out: a plain model of the same architecture with fewer blocks.

The smaller model shares the weights of the blocks that it keeps. Everything that a model knows by
a block's index is carried over: the list of layer types (sliding windows among them) and the place
of a block in the key-value cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from operator import attrgetter, index

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from linlib.models import architecture_of, decoder_blocks

MAPS = ("maps_before", "maps_after")  # what `replace_runs` hangs on the block beside a run
INDEX_NAMES = ("layer_idx", "layer_id")  # by which a block knows its place in the cache


def adjacent_runs(blocks: Iterable[int]) -> list[range]:
    """Group block indices into runs of adjacent ones, in order: {1, 2, 4} is [1..2], [4]."""
    runs: list[range] = []
    for block in sorted(blocks):
        if runs and block == runs[-1].stop:
            runs[-1] = range(runs[-1].start, block + 1)
        else:
            runs.append(range(block, block + 1))
    return runs


def check_blocks(model: PreTrainedModel, blocks: Iterable[int]) -> list[int]:
    """Return block indices sorted.

    Raises:
        IndexError: an index is not in 0 .. L-1.
        ValueError: an index comes twice, or no block would be kept.
    """
    n_blocks, chosen = len(decoder_blocks(model)), sorted(index(block) for block in blocks)
    for block in chosen:
        if not 0 <= block < n_blocks:
            raise IndexError(
                f"block {block} does not exist: this model has blocks 0 .. {n_blocks - 1}"
            )
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"a block is named twice in {chosen}")
    if len(chosen) == n_blocks:
        raise ValueError(
            f"cannot take {len(chosen)} blocks out of {n_blocks}: at least one must be kept"
        )
    return chosen


def remove_blocks(model: PreTrainedModel, blocks: Iterable[int]) -> PreTrainedModel:
    """The model without some blocks (0-based indices), whose numbers its config then holds.

    Args:
        model: a decoder; it stays whole. The smaller model shares its weights: deepcopy it, or
            save and reopen it, before either is trained or cast.
        blocks: those to leave out; none gives a copy.

    Raises:
        IndexError, ValueError: see `check_blocks`; or the blocks are not interchangeable, so that
            no config describes the model that is left; or maps stand in it already.
    """
    removed = check_blocks(model, blocks)
    _require_no_maps(model)
    _require_no_index_in_weights(model.config)
    weights = [*model.parameters(), *model.buffers()]
    small = deepcopy(model, {id(tensor): tensor for tensor in weights})
    kept = [block for block in range(len(decoder_blocks(model))) if block not in removed]
    _keep(small, kept)
    for config in {id(config): config for config in _configs(small)}.values():
        _shorten(config, kept)
        before = getattr(model.config, "removed_blocks", [])
        config.removed_blocks = _in_first_numbering(removed, before)
    _require_plain(small, kept)
    return small


def _keep(model: PreTrainedModel, kept: Sequence[int]) -> None:
    blocks = decoder_blocks(model)
    parent, _, name = architecture_of(model.config).blocks.rpartition(".")
    owner = attrgetter(parent)(model.base_model) if parent else model.base_model
    setattr(owner, name, nn.ModuleList([blocks[old] for old in kept]))
    for new, old in enumerate(kept):
        for module in blocks[old].modules():
            for attribute in INDEX_NAMES:
                if getattr(module, attribute, None) is not None:
                    setattr(module, attribute, new)


def _configs(model: PreTrainedModel) -> list[PreTrainedConfig]:
    owned = [getattr(module, "config", None) for module in model.modules()]
    return [config for config in owned if isinstance(config, PreTrainedConfig)]


def _shorten(config: PreTrainedConfig, kept: Sequence[int]) -> None:
    """Describe the kept blocks: their number, and what a config lists layer by layer."""
    n_blocks = config.num_hidden_layers
    for name, values in list(vars(config).items()):
        if "layer" in name and isinstance(values, list | tuple) and len(values) == n_blocks:
            setattr(config, name, [values[block] for block in kept])
    if hasattr(config, "attention_types"):  # GPT-Neo writes the list as pattern x repetitions
        config.attention_types = [[[kind], 1] for kind in config.attention_layers]
    config.num_hidden_layers = len(kept)


def _in_first_numbering(removed: Sequence[int], before: Sequence[int]) -> list[int]:
    """Indices in the model that was first pruned, for a model that is pruned again."""
    if not before:
        return list(removed)
    n_blocks = max([*removed, *before]) + len(before) + 1
    left = [block for block in range(n_blocks) if block not in before]
    return sorted([*before, *(left[block] for block in removed)])


def _require_no_maps(model: PreTrainedModel) -> None:
    if any(hasattr(block, name) for block in decoder_blocks(model) for name in MAPS):
        raise ValueError(
            "linear maps stand in the place of some blocks of this model already, and would get "
            "lost; prune the dense model once, with all blocks that are to go"
        )


def _require_no_index_in_weights(config: PreTrainedConfig) -> None:
    if getattr(config, "scale_attn_by_inverse_layer_idx", False):
        raise ValueError(
            f"the blocks of this {config.model_type} are not interchangeable: each divides its "
            "attention by its own number (scale_attn_by_inverse_layer_idx), so that a block "
            "computes something else in another place"
        )


def _require_plain(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Compare the model with the one that its config builds, weight by weight."""
    with torch.device("meta"):
        plain = type(model)(deepcopy(model.config))
    ours, theirs = (_block_shapes(decoder_blocks(one)) for one in (model, plain))
    for old, block, expected in zip(kept, ours, theirs, strict=True):
        for name in [*block, *expected]:
            if block.get(name) != expected.get(name):
                raise ValueError(
                    f"the blocks of this {model.config.model_type} are not interchangeable: block "
                    f"{old} has {name} of shape {block.get(name)}, and the config describes a "
                    f"block with {expected.get(name)}"
                )


def _block_shapes(blocks: nn.ModuleList) -> list[dict[str, tuple[int, ...]]]:
    return [{name: tuple(w.shape) for name, w in block.named_parameters()} for block in blocks]
