"""Where the linear map fails: the error of each token, and how long its tail is (Figure 9)."""

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
from linlib.measure.windows import check_windows, contiguous_batches, first_positions, run_windows

WORST = 0.01  # the share of tokens whose part of the squared error is reported
BIN_WIDTH = 0.1  # of a histogram of errors, in multiples of their root mean square


@dataclass(frozen=True)
class TokenErrors:
    """Errors of one layer's linear map over tokens that it was not fitted on.

    Attributes:
        error: ||map(h_{l-1}) - h_l||_2 of each token, (n_tokens,).
        gaussian: as many errors drawn from a Gaussian with the mean and covariance of the same
            residuals: the tail that any cloud of this shape would have.
        place: (window, position) of each token, (n_tokens, 2).
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
    """Error of each token under the affine maps of some layers, by layer.

    Args:
        model: a decoder.
        maps: layer (1..L) -> map from h_{l-1} to h_l, fitted on *other* tokens.
        input_ids: token ids, (n_windows, seq_len).
        attention_mask: 1 for tokens, 0 for padding.
        skip_first: leave out the first token of each window.
        batch_size: windows in one forward pass.
        seed: of the Gaussian draws.

    Raises:
        TypeError, ValueError: see `check_windows`.
    """
    mask = check_windows(model, input_ids, attention_mask)
    counted = mask & ~first_positions(mask) if skip_first else mask
    norms: dict[int, list[Tensor]] = {layer: [] for layer in maps}
    first, second = dict.fromkeys(maps, 0.0), dict.fromkeys(maps, 0.0)  # sums of r and of r r'

    def keep(layer: int, x: Tensor, y: Tensor, batch: slice) -> None:
        if layer in maps:
            members = counted[batch].to(x.device)
            residual = maps[layer](x[members].double()) - y[members].double()
            norms[layer].append(residual.norm(dim=1).cpu())
            first[layer] = first[layer] + residual.sum(0)
            second[layer] = second[layer] + residual.T @ residual

    batches = list(contiguous_batches(len(input_ids), batch_size))
    run_windows(model, input_ids, mask, batches, keep)
    place, generator = counted.nonzero().numpy(), torch.Generator().manual_seed(seed)
    errors = {}
    for layer in maps:
        mean = first[layer] / len(place)
        covariance = second[layer] / len(place) - torch.outer(mean, mean)
        gaussian = _gaussian_norms(len(place), mean, covariance, generator)
        errors[layer] = TokenErrors(torch.cat(norms[layer]).numpy(), gaussian, place)
    return errors


def _gaussian_norms(
    n: int, mean: Tensor, covariance: Tensor, generator: torch.Generator
) -> np.ndarray:
    """Norms of n Gaussian draws, (n,), which are the same in the covariance's own axes."""
    variances, axes = torch.linalg.eigh(covariance)
    centre, spread = (mean @ axes).float().cpu(), variances.clamp_min(0).sqrt().float().cpu()
    draws = torch.randn(n, len(centre), generator=generator)
    return (centre + draws * spread).norm(dim=1).double().numpy()


def error_counts(errors: TokenErrors, bin_width: float = BIN_WIDTH) -> pd.DataFrame:
    """Count tokens by the size of their error: the histogram of Figure 9.

    Returns:
        One row per bin that holds a token. Columns `cloud` ("measured", or its "gaussian" null),
        `error_low` and `error_high`, the bin's ends in multiples of the root mean square of the
        measured errors, and `count`.
    """
    rms = np.sqrt((errors.error**2).mean())
    frames = []
    for cloud, values in (("measured", errors.error), ("gaussian", errors.gaussian)):
        index, count = np.unique((values / rms // bin_width).astype(int), return_counts=True)
        low = np.round(index * bin_width, 6)
        bins = {"error_low": low, "error_high": np.round(low + bin_width, 6), "count": count}
        frames.append(pd.DataFrame({"cloud": cloud} | bins))
    return pd.concat(frames, ignore_index=True)


def tail_statistics(error: np.ndarray) -> dict[str, float]:
    """Measure how heavy the tail of per-token errors, (n_tokens,), is.

    Returns:
        `rms`, the root mean square, and `median`, in the units of the errors; `p99` and `maximum`,
        as multiples of the rms; `excess_kurtosis` (0 for normally distributed errors);
        `worst_share`, the part of the squared error that the worst 1% of tokens hold (at least
        0.01).

    Raises:
        ValueError: fewer than 100 tokens.
    """
    if len(error) < 1 / WORST:
        raise ValueError(f"{len(error)} tokens are too few for a tail; give at least 100")
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


def error_statistics(errors: TokenErrors) -> pd.DataFrame:
    """Tail statistics of measured errors beside those of their Gaussian null.

    Returns:
        One row: the columns of `tail_statistics`, the same with the prefix `gaussian_`, `n_tokens`.
    """
    null = {f"gaussian_{name}": value for name, value in tail_statistics(errors.gaussian).items()}
    row = tail_statistics(errors.error) | null | {"n_tokens": len(errors.error)}
    return pd.DataFrame([row])


def worst_tokens(
    errors: TokenErrors,
    input_ids: Tensor,
    tokenizer: PreTrainedTokenizerBase,
    n: int = 8,
    context: int = 6,
) -> pd.DataFrame:
    """Name the n tokens with the largest errors, and up to `context` tokens before each of them.

    Returns:
        One row per token, the largest error first. Columns `window`, `position`, `error` (multiple
        of the rms), `token` and `before`, both quoted.
    """
    rms, rows = np.sqrt((errors.error**2).mean()), []
    for index in np.argsort(errors.error)[::-1][:n]:
        window, position = errors.place[index]
        token, before = position, slice(max(position - context, 0), position)
        texts = [repr(tokenizer.decode(input_ids[window][part])) for part in (token, before)]
        rows.append((window, position, errors.error[index] / rms, *texts))
    return pd.DataFrame(rows, columns=["window", "position", "error", "token", "before"])
