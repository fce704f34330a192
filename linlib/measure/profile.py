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
    is_massive,
    norm_limits,
    run_windows,
    token_norms,
)
from linlib.stats import median_interval, score_interval

QUANTITIES = ("stream_norm", "output_norm", "delta_norm", "ratio", "cosine")
WITH_INTERVAL = ("ratio", "cosine")  # what the paper claims something about
QUARTILES = {"q25": 0.25, "median": 0.5, "q75": 0.75}


def linearity_profile(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    documents: Tensor | None = None,
    n_folds: int = 4,
    batch_size: int = 32,
    layers: Collection[int] | None = None,
    weights: str | None = None,
    orthogonal: bool = False,
    after_final_norm: bool = False,
) -> pd.DataFrame:
    """Score the linearity of all blocks of a decoder in one pass over the tokens.

    Args:
        model: any decoder of `linlib.models.ARCHITECTURES`, on any device.
        input_ids: token ids, (n_windows, seq_len).
        attention_mask: 1 for tokens, 0 for padding.
        documents: the document of each token, as `linlib.token_windows` gives them, so that the
            folds are of whole documents; None takes each window for a document.
        n_folds: folds of the held-out scores; 1 leaves them out.
        batch_size: windows in one forward pass. The first batch decides which tokens are massive.
        layers: the layers to measure (1..L); None measures all of them.
        weights: "energy" weights each token by 1 / (||x||^2 + ||delta||^2), so that no token
            dominates; None counts all tokens once.
        orthogonal: add the score of the best rotation, which takes more time than all others.
        after_final_norm: take the last block's output after the final norm, as
            `output_hidden_states` and so the official code does.

    Returns:
        One row per layer and token group ("all", "no massive"); columns as in
        `profile_of_moments`.

    Raises:
        TypeError, ValueError: see `collect_moments`; or n_tokens <= d_model, or states do not vary
            (the layer is named).
        IndexError: a layer does not exist.
    """
    options = {"documents": documents, "n_folds": n_folds, "batch_size": batch_size}
    options |= {"layers": layers, "weights": weights, "after_final_norm": after_final_norm}
    moments = collect_moments(model, input_ids, attention_mask, **options)
    return profile_of_moments(moments, orthogonal)


def profile_of_moments(moments: StreamMoments, orthogonal: bool = False) -> pd.DataFrame:
    """Solve moments for all scores, which are shares of variance and at most 1.

    Returns:
        Columns `layer` (1..L), `depth` (layer / L), `tokens`, `linearity_score`,
        `linearity_no_residual`, `identity_score`, `scaled_identity_score`, `orthogonal_score` (if
        asked for), `null_score`, `adjusted_score`, `heldout_score`, `heldout_no_residual` (each of
        the two with `_low` and `_high`, a 95% interval from the jackknife over folds, see
        `stats.score_interval`; NaN with one fold), `n_tokens`, `n_massive` (of all tokens of the
        layer), `n_eff` and `n_eff_no_residual` (effective numbers of tokens, see
        `BlockMoments.n_eff`), `dominated` and `dominated_no_residual` (whether these are below
        d_model, so that the score says little beyond the few tokens that dominate it), `d_model`.

    Raises:
        ValueError: n_tokens <= d_model, all tokens are massive, or states do not vary; layer and
            token group are named.
    """

    def rows(layer: int) -> list[dict[str, object]]:
        place = {"layer": layer, "depth": layer / moments.n_blocks}
        n_massive, found = {"n_massive": moments.n_massive(layer)}, []
        try:
            tokens = "no massive"
            usual = everything = moments.group(layer, tokens)
            if layer in moments.massive:
                everything = moments.massive[layer].solved_with(usual)
            for tokens, group in zip(TOKEN_GROUPS, (everything, usual), strict=True):
                scores = found[-1] if group is everything and found else _scores(group, orthogonal)
                found.append(scores | place | {"tokens": tokens} | n_massive)
        except ValueError as error:
            raise ValueError(f"layer {layer}, tokens '{tokens}': {error}") from error
        return found

    # The matrices of one layer are too small to keep several threads of a CPU busy, so layers are
    # solved side by side there. One thread keeps an accelerator busy, and its memory is scarce.
    on_cpu = all(group.device.type == "cpu" for group in moments.usual.values())
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(n_threads if on_cpu else 1) as pool:
            found = [row for both in pool.map(rows, moments.layers) for row in both]
    finally:
        torch.set_num_threads(n_threads)
    frame = pd.DataFrame(found).sort_values("tokens", kind="stable", ignore_index=True)
    labels = ["layer", "depth", "tokens"]
    return frame[[*labels, *(name for name in frame if name not in labels)]]


def _scores(moments: BlockMoments, orthogonal: bool) -> dict[str, float]:
    scores = {
        "linearity_score": moments.linearity_score(),
        "linearity_no_residual": moments.linearity_no_residual(),
        "identity_score": moments.identity_score(),
        "scaled_identity_score": moments.scaled_identity_score(),
    }
    if orthogonal:
        scores["orthogonal_score"] = moments.orthogonal_score()
    scores |= {"null_score": moments.null_score(), "adjusted_score": moments.adjusted_score()}
    intervals = [(np.nan, np.nan, np.nan)] * 2
    if moments.n_folds > 1:
        errors, outputs, deltas = zip(*moments.heldout_terms(), strict=True)
        intervals = [score_interval(errors, totals) for totals in (outputs, deltas)]
    names = ("heldout_score", "heldout_no_residual")
    for name, (value, low, high) in zip(names, intervals, strict=True):
        scores |= {name: value, f"{name}_low": low, f"{name}_high": high}
    n_eff = {"n_eff": moments.n_eff(), "n_eff_no_residual": moments.n_eff_no_residual()}
    dominated = {
        name.replace("n_eff", "dominated"): value < moments.d_model for name, value in n_eff.items()
    }
    sizes = {"n_tokens": moments.n_tokens, "d_model": moments.d_model}
    return scores | n_eff | dominated | sizes


def stream_norms(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    documents: Tensor | None = None,
    batch_size: int = 32,
) -> pd.DataFrame:
    """Norms and cosines of each block, as quartiles over tokens.

    Windows, mask, documents and batch size are those of `linearity_profile`.

    Returns:
        One row per layer, token group and quantity: `stream_norm` ||h_{l-1}||, `output_norm`
        ||h_l||, `delta_norm` ||h_l - h_{l-1}||, `ratio` delta_norm / output_norm, `cosine` of
        h_{l-1} and h_l. Columns `layer`, `depth`, `tokens`, `quantity`, `q25`, `median`, `q75`,
        `low` and `high`, the 95% interval of the median over documents
        (`stats.median_interval`; of `ratio` and `cosine` alone, NaN for the norms and for a single
        document), `n_tokens`; norms are in the units of the residual stream.

    Raises:
        TypeError, ValueError: see `check_windows`; or `documents` has another shape.
    """
    mask = check_windows(model, input_ids, attention_mask)
    if documents is None:
        documents = torch.arange(len(input_ids))[:, None].expand(mask.shape)
    elif documents.shape != mask.shape:
        raise ValueError(
            f"documents {tuple(documents.shape)} must have the shape of input_ids "
            f"{tuple(mask.shape)}"
        )
    of_token = documents.cpu()[mask].numpy()  # (n_tokens,)
    layers = choose_layers(model, None)
    values: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    limits: dict[int, Tensor] = {}

    def keep(layer: int, x: Tensor, y: Tensor, batch: slice) -> None:
        members = mask[batch].to(x.device)
        x, y = x[members].float(), y[members].float()  # (n_tokens, d_model)
        delta, output = token_norms(y - x), token_norms(y)
        cosine = cosine_similarity(x, y, dim=1)
        kept = torch.stack([token_norms(x), output, delta, delta / output, cosine]).cpu()
        if layer not in limits:
            limits[layer] = norm_limits(kept[0], kept[1])
        values[layer].append(kept)

    batches = list(contiguous_batches(len(input_ids), batch_size))
    run_windows(model, input_ids, mask, batches, keep)
    rows = []
    for layer in layers:
        everything = torch.cat(values[layer], dim=1)  # (5, n_tokens)
        usual = ~is_massive(everything[0], everything[1], limits[layer])
        for tokens, chosen in zip(TOKEN_GROUPS, (torch.ones_like(usual), usual), strict=True):
            place = {"layer": layer, "depth": layer / len(layers), "tokens": tokens}
            clusters, group = of_token[chosen.numpy()], everything[:, chosen].double()
            for name, numbers in zip(QUANTITIES, group, strict=True):
                row = place | {"quantity": name}
                row |= {k: numbers.nanquantile(q).item() for k, q in QUARTILES.items()}
                ends = np.nan, np.nan
                if name in WITH_INTERVAL:
                    ends = median_interval(numbers.numpy(), clusters)
                row |= {"low": ends[0], "high": ends[1], "n_tokens": len(numbers)}
                rows.append(row)
    return pd.DataFrame(rows)
