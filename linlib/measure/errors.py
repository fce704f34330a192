"""Where the linear map fails: the error of every token, and how long its tail is (Figure 9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from linlib.linearity import LinearMap
from linlib.measure.batches import check_windows, contiguous_batches, first_positions, run_windows

WORST = 0.01  # the share of tokens whose part of the squared error is reported


@dataclass(frozen=True)
class TokenErrors:
    """Errors of one layer's linear map over tokens that it was not fitted on.

    Attributes:
        error: ||map(h_{l-1}) - h_l||_2 of every token, (n_tokens,).
        gaussian: the same number of errors drawn from a Gaussian with the residual's mean and
            covariance: the tail that any cloud of this shape would have.
        is_first: the token is the first of its window, (n_tokens,).
        place: (window, position) of every token, (n_tokens, 2).
    """

    error: np.ndarray
    gaussian: np.ndarray
    is_first: np.ndarray
    place: np.ndarray

    def without_first(self) -> TokenErrors:
        """The same without the first token of every window."""
        kept = ~self.is_first
        return TokenErrors(*(part[kept] for part in vars(self).values()))


def token_errors(
    model: PreTrainedModel,
    maps: Mapping[int, LinearMap],
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    batch_size: int = 32,
    seed: int = 0,
) -> dict[int, TokenErrors]:
    """Error of every token under the affine map of some layers.

    Args:
        model: a decoder.
        maps: layer (1..L) -> map from h_{l-1} to h_l, fitted on *other* tokens.
        input_ids: token ids, (n_windows, length).
        attention_mask: 1 for tokens, 0 for padding.
        batch_size: windows in one forward pass.
        seed: of the Gaussian draws.
    """
    mask = check_windows(model, input_ids, attention_mask)
    residuals: dict[int, list[Tensor]] = {layer: [] for layer in maps}

    def keep(layer: int, x: Tensor, y: Tensor, batch: slice) -> None:
        if layer in maps:
            members = mask[batch].to(x.device)
            residuals[layer].append((maps[layer](x[members].double()) - y[members].double()).cpu())

    batches = list(contiguous_batches(len(input_ids), batch_size))
    run_windows(model, input_ids, mask, batches, keep)
    place, is_first = mask.nonzero().numpy(), first_positions(mask)[mask].numpy()
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for layer, parts in residuals.items():
        residual = torch.cat(parts)  # (n_tokens, d_model)
        gaussian = _gaussian_like(residual[~torch.from_numpy(is_first)], len(residual), generator)
        found[layer] = TokenErrors(residual.norm(dim=1).numpy(), gaussian, is_first, place)
    return found


def _gaussian_like(residual: Tensor, n_tokens: int, generator: torch.Generator) -> np.ndarray:
    """Norms of Gaussian draws with the mean and covariance of `residual`, (n_tokens,)."""
    variances, axes = torch.linalg.eigh(torch.cov(residual.T))
    centre = (residual.mean(0) @ axes).float()  # norms are the same in the axes of the covariance
    draws = torch.randn(n_tokens, len(centre), generator=generator)
    return (centre + draws * variances.clamp_min(0).sqrt().float()).norm(dim=1).double().numpy()


def tail_statistics(error: np.ndarray) -> dict[str, float]:
    """How heavy the tail of per-token errors is.

    Returns:
        `rms` root mean square; `median`; `p99` and `maximum`, as multiples of the rms;
        `excess_kurtosis` (0 for a Gaussian); `worst_share`, the part of the squared error that
        the worst 1% of tokens hold (at least 1%).
    """
    if len(error) < 1 / WORST:
        raise ValueError(f"{len(error)} tokens are too few for a tail; give at least {1 / WORST}")
    squared = np.sort(error**2)[::-1]
    rms = np.sqrt(squared.mean())
    n_worst = int(np.ceil(WORST * len(error)))
    return {
        "rms": rms,
        "median": np.median(error),
        "p99": np.quantile(error, 0.99) / rms,
        "maximum": error.max() / rms,
        "excess_kurtosis": stats.kurtosis(error),
        "worst_share": squared[:n_worst].sum() / squared.sum(),
    }


def worst_tokens(
    errors: TokenErrors,
    input_ids: Tensor,
    tokenizer: PreTrainedTokenizerBase,
    n: int = 8,
    context: int = 6,
) -> pd.DataFrame:
    """The tokens with the largest errors, with what stands before them.

    Returns:
        Columns `error` (multiple of the rms), `token`, `before` (up to `context` tokens),
        `window`, `position`.
    """
    rms = np.sqrt((errors.error**2).mean())
    rows = []
    for index in np.argsort(errors.error)[::-1][:n]:
        window, position = errors.place[index]
        ids = input_ids[window]
        rows.append(
            {
                "error": errors.error[index] / rms,
                "token": tokenizer.decode(ids[position]),
                "before": tokenizer.decode(ids[max(position - context, 0) : position]),
                "window": window,
                "position": position,
            }
        )
    return pd.DataFrame(rows)
