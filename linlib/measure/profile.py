"""Frames over layers: linearity scores (paper, Figure 1), norms and cosines (paper, Figure 3)."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from linlib.linearity import BlockMoments
from linlib.measure.windows import (
    TOKEN_GROUPS,
    StreamMoments,
    check_windows,
    choose_layers,
    collect_moments,
    contiguous_batches,
    first_positions,
    run_windows,
)
from linlib.stats import mean_interval

QUANTITIES = ("stream_norm", "delta_norm", "ratio", "cosine")
QUARTILES = {"q25": 0.25, "median": 0.5, "q75": 0.75}


def linearity_profile(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    n_folds: int = 4,
    batch_size: int = 32,
    layers: Collection[int] | None = None,
    after_final_norm: bool = False,
) -> pd.DataFrame:
    """Score the linearity of all blocks of a decoder in one pass over the tokens.

    Args:
        model: any decoder of `linlib.models.ARCHITECTURES`, on any device.
        input_ids: token ids, (n_windows, seq_len).
        attention_mask: 1 for tokens, 0 for padding.
        n_folds: folds of the held-out scores; 1 leaves them out.
        batch_size: windows in one forward pass.
        layers: the layers to measure (1..L); None measures all of them.
        after_final_norm: take the last block's output after the final norm, as
            `output_hidden_states` and so the official code does.

    Returns:
        One row per layer and token group ("all", "no first position"); columns as in
        `profile_of_moments`.

    Raises:
        TypeError, ValueError: see `collect_moments`; or n_tokens <= d_model, or states do not vary
            (the layer is named).
        IndexError: a layer does not exist.
    """
    options = {"n_folds": n_folds, "batch_size": batch_size, "layers": layers}
    options["after_final_norm"] = after_final_norm
    return profile_of_moments(collect_moments(model, input_ids, attention_mask, **options))


def profile_of_moments(moments: StreamMoments) -> pd.DataFrame:
    """Solve moments for all scores, which are shares of variance and at most 1.

    Returns:
        Columns `layer` (1..L), `depth` (layer / L), `tokens`, `linearity_score`,
        `linearity_no_residual`, `identity_score`, `scaled_identity_score`, `orthogonal_score`,
        `null_score`, `adjusted_score`, `heldout_score`, `heldout_no_residual` (each of the two
        with `_low` and `_high`, an approximate 95% t interval from the spread over folds, which
        share training tokens; NaN with one fold), `n_tokens`, `d_model`.

    Raises:
        ValueError: n_tokens <= d_model, or states do not vary; layer and token group are named.
    """
    groups = [(layer, tokens) for tokens in TOKEN_GROUPS for layer in moments.rest]

    def row(group: tuple[int, str]) -> dict[str, object]:
        layer, tokens = group
        try:
            scores = _scores(moments.group(layer, tokens))
        except ValueError as error:
            raise ValueError(f"layer {layer}, tokens '{tokens}': {error}") from error
        return {"layer": layer, "depth": layer / moments.n_blocks, "tokens": tokens} | scores

    # The matrices of one layer are too small to keep several threads of a CPU busy, so layers are
    # solved side by side there. One thread keeps an accelerator busy, and its memory is scarce.
    on_cpu = all(group.device.type == "cpu" for group in moments.rest.values())
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(n_threads if on_cpu else 1) as pool:
            return pd.DataFrame(list(pool.map(row, groups)))
    finally:
        torch.set_num_threads(n_threads)


def _scores(moments: BlockMoments) -> dict[str, float]:
    ladder = moments.ladder()
    scores = {
        "linearity_score": ladder["linear"],
        "linearity_no_residual": moments.linearity_no_residual(),
        "identity_score": ladder["identity"],
        "scaled_identity_score": ladder["scaled_identity"],
        "orthogonal_score": ladder["orthogonal"],
        "null_score": moments.null_score(),
        "adjusted_score": moments.adjusted_score(),
    }
    pooled, by_fold = (np.nan, np.nan), np.full((1, 2), np.nan)
    if moments.n_folds > 1:
        pooled = (moments.heldout_score(), moments.heldout_no_residual())
        by_fold = np.array(moments.heldout_scores())  # (n_folds, 2)
    names = ("heldout_score", "heldout_no_residual")
    for name, value, folds in zip(names, pooled, by_fold.T, strict=True):
        mean, low, high = mean_interval(folds)
        shift = value - mean  # the interval is centred on the pooled score
        scores |= {name: value, f"{name}_low": low + shift, f"{name}_high": high + shift}
    return scores | {"n_tokens": moments.n_tokens, "d_model": moments.d_model}


def stream_norms(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    batch_size: int = 32,
) -> pd.DataFrame:
    """Norms and cosines of each block, as quartiles over tokens.

    Windows, mask and batch size are those of `linearity_profile`.

    Returns:
        One row per layer, token group and quantity: `stream_norm` ||h_{l-1}||, `delta_norm`
        ||h_l - h_{l-1}||, `ratio` delta_norm / stream_norm, `cosine` of h_{l-1} and h_l. Columns
        `layer`, `depth`, `tokens`, `quantity`, `q25`, `median`, `q75`, `n_tokens`; norms are in
        the units of the residual stream.

    Raises:
        TypeError, ValueError: see `check_windows`.
    """
    mask = check_windows(model, input_ids, attention_mask)
    layers = choose_layers(model, None)
    values: dict[int, list[Tensor]] = {layer: [] for layer in layers}

    def keep(layer: int, x: Tensor, y: Tensor, batch: slice) -> None:
        members = mask[batch].to(x.device)
        x, y = x[members].float(), y[members].float()  # (n_tokens, d_model)
        stream, delta = x.norm(dim=1), (y - x).norm(dim=1)
        cosine = cosine_similarity(x, y, dim=1)
        values[layer].append(torch.stack([stream, delta, delta / stream, cosine]).cpu())

    batches = list(contiguous_batches(len(input_ids), batch_size))
    run_windows(model, input_ids, mask, batches, keep)
    inside = ~first_positions(mask)[mask]  # (n_tokens,)
    rows = []
    for layer in layers:
        everything = torch.cat(values[layer], dim=1).double()  # (4, n_tokens)
        for tokens, group in zip(TOKEN_GROUPS, (everything, everything[:, inside]), strict=True):
            place = {"layer": layer, "depth": layer / len(layers), "tokens": tokens}
            for name, numbers in zip(QUANTITIES, group, strict=True):
                quartiles = {k: numbers.nanquantile(q).item() for k, q in QUARTILES.items()}
                rows.append(place | {"quantity": name} | quartiles | {"n_tokens": len(numbers)})
    return pd.DataFrame(rows)
