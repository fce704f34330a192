"""One door to pruning: choose blocks, choose what takes their place, get a smaller model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor
from transformers import PreTrainedModel

from linlib.linearity import BlockMoments, LinearMap
from linlib.prune.projection import output_projection
from linlib.prune.remove import adjacent_runs, check_blocks, remove_blocks
from linlib.prune.replace import fold_runs, replace_runs
from linlib.prune.runs import RunMoments, collect_runs

RIDGE = 1e-4
METHODS = ("remove", "replace", "fold")


def prune(
    model: PreTrainedModel,
    blocks: Iterable[int],
    method: str = "fold",
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    *,
    ridge: float = RIDGE,
    refit: bool = False,
    one_map_a_run: bool = True,
    batch_size: int = 32,
) -> PreTrainedModel:
    """A smaller model: some blocks gone, and maps in their place.

    Args:
        model: a decoder; it stays whole, and shares the weights of the blocks that are kept:
            deepcopy the result, or save and reopen it, before it is trained or cast.
        blocks: 0-based indices, e.g. the first k of `removal_order`; the smaller model's
            `config.removed_blocks` holds them.
        method: "remove"; "replace" by affine maps of the residual stream; "fold" such maps into
            the output projections before them, so that a plain model is left.
        input_ids: calibration text, (n_windows, length); "remove" needs none.
        attention_mask: 1 for tokens, 0 for padding, which no map is fitted on.
        ridge: shrinks maps towards the identity; see `BlockMoments.delta_map`.
        refit: fit the maps one after the other, each on the states of the model that those before
            it are already part of; otherwise all on the dense model.
        one_map_a_run: one map for a whole run of adjacent blocks; otherwise one for each block,
            applied one after the other ("replace" alone).
        batch_size: windows in one forward pass.

    Raises:
        IndexError, ValueError: see `remove_blocks`; an unknown method; no calibration text or too
            few tokens of it; a model into which no map can be folded.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method '{method}'; choose from {METHODS}")
    chosen = check_blocks(model, blocks)
    if method == "remove" or not chosen:
        return remove_blocks(model, chosen)
    if input_ids is None:
        raise ValueError(f"method '{method}' fits maps, so it needs `input_ids` to fit them on")
    runs = adjacent_runs(chosen)
    if not one_map_a_run:
        if method == "fold":
            raise ValueError("a fold takes one map for a whole run: one projection lies before it")
        runs = [range(block, block + 1) for block in chosen]
    edit, kind = (replace_runs, "stream") if method == "replace" else (fold_runs, "projection")

    def fit(edited: PreTrainedModel, wanted: Sequence[range]) -> list[LinearMap]:
        runs_of = {kind: wanted, "attention_mask": attention_mask, "batch_size": batch_size}
        moments = collect_runs(edited, input_ids, **runs_of)
        return [delta_of(edited, moments, run, kind, ridge) for run in wanted]

    if not refit:
        return edit(model, dict(zip(runs, fit(model, runs), strict=True)))
    deltas: dict[range, LinearMap] = {}
    for run in runs:
        edited, gone = edit(model, deltas), sum(map(len, deltas))
        (deltas[run],) = fit(edited, [range(run.start - gone, run.stop - gone)])
    return edit(model, deltas)


def delta_of(
    model: PreTrainedModel, moments: RunMoments, run: range, kind: str, ridge: float = RIDGE
) -> LinearMap:
    """The map to what a run contributes, from "stream" or from "projection" moments.

    It has a bias wherever it can: not if it is to be folded into a projection without one.

    Raises:
        ValueError: no more tokens than dimensions.
    """
    found: BlockMoments = getattr(moments, kind)[run]
    if found.n_tokens <= found.d_model:
        raise ValueError(
            f"{found.n_tokens} calibration tokens cannot fit a map of {found.d_model} dimensions: "
            f"it would fit anything. Give at least {found.d_model + 1}; "
            f"{20 * found.d_model} are a good number"
        )
    has_bias = kind == "stream" or output_projection(model, run.start - 1).bias is not None
    return found.delta_map(ridge, intercept=has_bias)
