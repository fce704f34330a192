"""The linearity profile: every score of every block, as one tidy frame (paper, Figure 1)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from linlib.intervals import mean_interval
from linlib.linearity import BlockMoments
from linlib.measure.batches import TOKEN_GROUPS
from linlib.measure.collect import StreamMoments, collect_moments


def linearity_profile(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    n_folds: int = 4,
    batch_size: int = 32,
    layers: Collection[int] | None = None,
    after_final_norm: bool = False,
    progress: bool = False,
) -> pd.DataFrame:
    """Score the linearity of all blocks of a decoder in one pass over the tokens.

    Args:
        model: any decoder of `linlib.models.ARCHITECTURES`, on any device.
        input_ids: token ids, (n_windows, length).
        attention_mask: 1 for tokens, 0 for padding.
        n_folds: folds of the held-out scores; 1 leaves them out.
        batch_size: windows in one forward pass.
        layers: those to measure (1..L); None is all.
        after_final_norm: as the official code, take the last state after the final norm.
        progress: show a progress bar.

    Returns:
        One row a layer and token group ("all", "no first position"); columns as
        `profile_of_moments`.

    Raises:
        ValueError: n_tokens <= d_model, states that are not finite or do not vary; the layer is
            named.
    """
    moments = collect_moments(
        model,
        input_ids,
        attention_mask,
        n_folds=n_folds,
        batch_size=batch_size,
        layers=layers,
        after_final_norm=after_final_norm,
        progress=progress,
    )
    return profile_of_moments(moments)


def profile_of_moments(moments: StreamMoments) -> pd.DataFrame:
    """Turn moments into a frame; all scores are shares of variance, at most 1.

    Returns:
        Columns `layer` (1..L), `depth` (layer / L), `tokens`, `linearity_score`,
        `linearity_no_residual`, `identity_score`, `scaled_identity_score`, `orthogonal_score`,
        `null_score`, `adjusted_score`, `heldout_score`, `heldout_no_residual` (each with `_low`
        and `_high`, an approximate 95% t interval from the spread over folds, which share
        training tokens; NaN with one fold), `n_tokens`, `d_model`.
    """
    groups = [(layer, tokens) for tokens in TOKEN_GROUPS for layer in moments.layers]

    def row(group: tuple[int, str]) -> dict[str, object]:
        layer, tokens = group
        try:
            scores = _scores(moments.group(layer, tokens))
        except ValueError as error:
            raise ValueError(f"layer {layer}, tokens '{tokens}': {error}") from error
        return {"layer": layer, "depth": layer / moments.n_blocks, "tokens": tokens} | scores

    # Matrices of a layer are too small to keep several threads of a CPU busy: solve layers side
    # by side there. An accelerator is kept busy by one, and has no memory to spare for more.
    on_cpu = all(group.device.type == "cpu" for group in moments.rest.values())
    with _single_threaded() as n_threads, ThreadPoolExecutor(n_threads if on_cpu else 1) as pool:
        return pd.DataFrame(list(pool.map(row, groups)))


@contextmanager
def _single_threaded() -> Iterator[int]:
    """One torch thread to an operation; yields the number that there were."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield n_threads
    finally:
        torch.set_num_threads(n_threads)


def _scores(moments: BlockMoments) -> dict[str, float]:
    ladder = moments.ladder()
    return {
        "linearity_score": moments.linearity_score(),
        "linearity_no_residual": moments.linearity_no_residual(),
        "identity_score": ladder["identity"],
        "scaled_identity_score": ladder["scaled_identity"],
        "orthogonal_score": ladder["orthogonal"],
        "null_score": moments.null_score(),
        "adjusted_score": moments.adjusted_score(),
        **_heldout(moments),
        "n_tokens": moments.n_tokens,
        "d_model": moments.d_model,
    }


def _heldout(moments: BlockMoments) -> dict[str, float]:
    names = ("heldout_score", "heldout_no_residual")
    if moments.n_folds == 1:
        return {f"{name}{end}": np.nan for name in names for end in ("", "_low", "_high")}
    scores = {}
    pooled = (moments.heldout_score(), moments.heldout_no_residual())
    by_fold = np.array(moments.heldout_scores())  # (n_folds, 2)
    for name, value, folds in zip(names, pooled, by_fold.T, strict=True):
        mean, low, high = mean_interval(folds)
        shift = value - mean  # the interval is put about the pooled score
        scores |= {name: value, f"{name}_low": low + shift, f"{name}_high": high + shift}
    return scores
