"""Edit decoder blocks for the length of a `with` statement; the model is restored exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from operator import index

from torch import Tensor, nn
from transformers import PreTrainedModel

from linlib.models.architectures import architecture_of, decoder_blocks

StateMap = Callable[[Tensor], Tensor]


@contextmanager
def skip_blocks(model: PreTrainedModel, blocks: Iterable[int]) -> Iterator[None]:
    """Let the residual stream pass by some blocks (0-based indices) unchanged.

    Raises:
        IndexError: an index is not in 0 .. L-1.
    """
    with replace_blocks(model, {block: _identity for block in blocks}):
        yield


@contextmanager
def replace_blocks(model: PreTrainedModel, maps: Mapping[int | range, StateMap]) -> Iterator[None]:
    """Put maps of the residual stream in the place of blocks, e.g. `BlockMoments.linear_map()`.

    The key-value cache is off inside, since a block that is not run writes nothing to it.

    Args:
        model: a decoder.
        maps: what to put in the place of a block (0-based index), or of a whole run of adjacent
            blocks (`range`): a function from (..., d_model) to (..., d_model).

    Raises:
        IndexError: an index is not in 0 .. L-1.
        ValueError: two entries name the same block, or a range is empty or has a step.
    """
    stand_ins = _stand_ins(maps, len(decoder_blocks(model)))
    returns_tuple = architecture_of(model.config).returns_tuple
    with ExitStack() as restore:
        for config in (model.config, getattr(model, "generation_config", None)):
            if config is not None:
                restore.enter_context(_attribute(config, "use_cache", False))
        for block, state_map in stand_ins.items():
            forward = _forward_of(state_map, returns_tuple)
            restore.enter_context(_attribute(decoder_blocks(model)[block], "forward", forward))
        yield


def _identity(states: Tensor) -> Tensor:
    return states


def _stand_ins(maps: Mapping[int | range, StateMap], n_blocks: int) -> dict[int, StateMap]:
    """One map per block: the first block of a run carries the run's map, the rest are skipped."""
    stand_ins: dict[int, StateMap] = {}
    for key, state_map in maps.items():
        run = key if isinstance(key, range) else range(index(key), index(key) + 1)
        if len(run) == 0 or run.step != 1:
            raise ValueError(f"a run of blocks must be a non-empty range of step 1, got {run}")
        for block in run:
            if not 0 <= block < n_blocks:
                raise IndexError(
                    f"block {block} does not exist: this model has blocks 0 .. {n_blocks - 1}"
                )
            if block in stand_ins:
                raise ValueError(f"block {block} is named twice in {list(maps)}")
            stand_ins[block] = state_map if block == run.start else _identity
    return stand_ins


def _forward_of(state_map: StateMap, returns_tuple: bool) -> Callable:
    def forward(hidden_states: Tensor, *_args, **_kwargs) -> Tensor | tuple:
        states = state_map(hidden_states)
        return (states, None) if returns_tuple else states

    return forward


@contextmanager
def _attribute(owner: nn.Module | object, name: str, value: object) -> Iterator[None]:
    """Set an instance attribute, and afterwards bring back just what the instance had."""
    own = vars(owner)
    before = (own[name],) if name in own else ()
    object.__setattr__(owner, name, value)
    try:
        yield
    finally:
        if before:
            object.__setattr__(owner, name, before[0])
        else:
            object.__delattr__(owner, name)
