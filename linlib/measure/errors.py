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
        gaussian: as many errors drawn from a Gaussian with the mean and covariance of the same
            residuals: the tail that any cloud of this shape would have.
        place: (window, position) of every token, (n_tokens, 2).
    """

    error: np.ndarray
    gaussian: np.ndarray
    place: np.ndarray


def token_errors(
    model: PreTrainedModel,
    maps: Mapping[int, LinearMap],
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    skip_first: bool = False,
    batch_size: int = 32,
    seed: int = 0,
) -> dict[int, TokenErrors]:
    """Error of every token under the affine map of some layers.

    Args:
        model: a decoder.
        maps: layer (1..L) -> map from h_{l-1} to h_l, fitted on *other* tokens.
        input_ids: token ids, (n_windows, length).
        attention_mask: 1 for tokens, 0 for padding.
        skip_first: leave out the first token of every window.
        batch_size: windows in one forward pass.
        seed: of the Gaussian draws.
    """
    mask = check_windows(model, input_ids, attention_mask)
    counted = mask & ~first_positions(mask) if skip_first else mask
    residuals = {layer: _Residuals() for layer in maps}

    def keep(layer: int, x: Tensor, y: Tensor, batch: slice) -> None:
        if layer in maps:
            members = counted[batch].to(x.device)
            residuals[layer].add(maps[layer](x[members].double()) - y[members].double())

    batches = list(contiguous_batches(len(input_ids), batch_size))
    run_windows(model, input_ids, mask, batches, keep)
    place, generator = counted.nonzero().numpy(), torch.Generator().manual_seed(seed)
    return {
        layer: TokenErrors(torch.cat(found.norms).numpy(), found.gaussian(generator), place)
        for layer, found in residuals.items()
    }


class _Residuals:
    """Norms of residuals, and the sums that their mean and covariance follow from."""

    def __init__(self) -> None:
        self.norms: list[Tensor] = []
        self.first: Tensor | float = 0.0
        self.second: Tensor | float = 0.0

    def add(self, residual: Tensor) -> None:
        """Add residuals, (n_tokens, d_model), float64."""
        self.norms.append(residual.norm(dim=1).cpu())
        self.first = self.first + residual.sum(0)
        self.second = self.second + residual.T @ residual

    def gaussian(self, generator: torch.Generator) -> np.ndarray:
        """Norms of as many Gaussian draws with the same mean and covariance, (n_tokens,)."""
        n = sum(map(len, self.norms))
        mean = self.first / n
        variances, axes = torch.linalg.eigh(self.second / n - torch.outer(mean, mean))
        centre = (mean @ axes).float().cpu()  # norms are the same in the covariance's own axes
        spread = variances.clamp_min(0).sqrt().float().cpu()
        draws = torch.randn(n, len(centre), generator=generator)
        return (centre + draws * spread).norm(dim=1).double().numpy()


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
        Columns `error` (multiple of the rms), `token` and `before` (up to `context` tokens), both
        quoted, `window`, `position`.
    """
    rms = np.sqrt((errors.error**2).mean())
    rows = []
    for index in np.argsort(errors.error)[::-1][:n]:
        window, position = errors.place[index]
        ids = input_ids[window]
        rows.append(
            {
                "error": errors.error[index] / rms,
                "token": repr(tokenizer.decode(ids[position])),
                "before": repr(tokenizer.decode(ids[max(position - context, 0) : position])),
                "window": window,
                "position": position,
            }
        )
    return pd.DataFrame(rows)
