"""Leave decoder blocks out: a plain model of the same architecture with fewer blocks.

The smaller model shares the weights of the blocks that it keeps. Everything that depends on a
block's index is carried over: the list of layer types (sliding windows among them) and the place
of a block in the key-value cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from operator import index

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from linlib.models.decoders import decoder_blocks

MAPS = ("maps_before", "maps_after")  # submodules that `replace_runs` adds to the block beside
INDEX_NAMES = ("layer_idx", "layer_id")  # by which a block finds its place in the cache


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
        ValueError: an index appears twice, no block would be kept, maps already stand in for some
            blocks, or blocks compute something else in another place.
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
    if any(hasattr(block, name) for block in decoder_blocks(model) for name in MAPS):
        raise ValueError(
            "linear maps already stand in for some blocks of this model, and would be lost; prune "
            "the dense model once, with all blocks that are to go"
        )
    if getattr(model.config, "scale_attn_by_inverse_layer_idx", False):
        raise ValueError(
            f"the blocks of this {model.config.model_type} are not interchangeable: each divides "
            "its attention by its own number (scale_attn_by_inverse_layer_idx), so that a block "
            "computes something else in another place"
        )
    return chosen


def remove_blocks(model: PreTrainedModel, blocks: Iterable[int]) -> PreTrainedModel:
    """The model without some blocks (0-based indices), which `config.removed_blocks` then lists.

    Args:
        model: a decoder; it stays whole. The smaller model shares its weights: deepcopy it, or
            save and reopen it, before either is trained or cast.
        blocks: the blocks to leave out; an empty list gives a copy.

    Raises:
        IndexError, ValueError: see `check_blocks`; or blocks have different shapes, so that no
            config describes the smaller model.
    """
    removed = check_blocks(model, blocks)
    weights = [*model.parameters(), *model.buffers()]
    small = deepcopy(model, {id(tensor): tensor for tensor in weights})
    blocks = decoder_blocks(small)
    kept = [block for block in range(len(blocks)) if block not in removed]
    for block in reversed(removed):
        del blocks[block]
    for new, block in enumerate(blocks):
        for module in block.modules():
            for name in INDEX_NAMES:
                if getattr(module, name, None) is not None:
                    setattr(module, name, new)
    configs = (getattr(module, "config", None) for module in small.modules())
    configs = {id(one): one for one in configs if isinstance(one, PreTrainedConfig)}
    for config in configs.values():
        _shorten(config, kept)
        config.removed_blocks = _in_first_numbering(removed, getattr(config, "removed_blocks", []))
    _require_plain(small, kept)
    return small


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
    n_blocks = max([0, *removed, *before]) + len(before) + 1
    left = [block for block in range(n_blocks) if block not in before]
    return sorted([*before, *(left[block] for block in removed)])


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
