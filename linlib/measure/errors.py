"""Where the linear map fails: the error of each token, and how long its tail is (Figure 9)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from linlib.linearity import LinearMap
from linlib.measure.windows import (
    check_windows,
    contiguous_batches,
    is_massive,
    layer_passes,
    run_windows,
    token_norms,
)
from linlib.models import residual_stream

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
        documents: the document of each token, (n_tokens,); None takes each window for a document.
    """

    error: np.ndarray
    gaussian: np.ndarray
    place: np.ndarray
    documents: np.ndarray | None = None


def token_errors(
    model: PreTrainedModel,
    maps: Mapping[int, LinearMap],
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    limits: Mapping[int, Tensor] | None = None,
    documents: Tensor | None = None,
    batch_size: int = 32,
    seed: int = 0,
) -> dict[int, TokenErrors]:
    """Error of each token under the affine maps of some layers, by layer.

    Args:
        model: a decoder.
        maps: layer (1..L) -> map from h_{l-1} to h_l, fitted on *other* tokens.
        input_ids: token ids, (n_windows, seq_len).
        attention_mask: 1 for tokens, 0 for padding.
        limits: layer -> the largest norms of tokens that are not massive, as in
            `StreamMoments.limits`; massive tokens of a layer are left out there. None keeps all.
        documents: the document of each token, (n_windows, seq_len), as `linlib.token_windows` gives
            them; None takes each window for a document.
        batch_size: windows in one forward pass.
        seed: of the Gaussian draws; those of a layer do not depend on which others are measured.

    Raises:
        TypeError, ValueError: see `check_windows`; or a layer has a map and no limits, or no token
            that is not massive, or `documents` has another shape.
    """
    mask = check_windows(model, input_ids, attention_mask)
    if documents is not None and documents.shape != mask.shape:
        raise ValueError(
            f"documents {tuple(documents.shape)} must have the shape of input_ids "
            f"{tuple(mask.shape)}"
        )
    if limits is not None and (missing := sorted(set(maps) - set(limits))):
        raise ValueError(
            f"layers {missing} have maps but no limits; take both from the same StreamMoments"
        )
    norms: dict[int, list[Tensor]] = {layer: [] for layer in maps}
    places: dict[int, list[Tensor]] = {layer: [] for layer in maps}
    first, second = dict.fromkeys(maps, 0.0), dict.fromkeys(maps, 0.0)  # sums of r and of r r'

    def keep(layer: int, x: Tensor, y: Tensor, batch: slice) -> None:
        if layer in maps:
            members = mask[batch].to(x.device)
            if limits is not None:
                massive = is_massive(token_norms(x), token_norms(y), limits[layer])
                members = members & ~massive
            residual = maps[layer](x[members].double()) - y[members].double()
            norms[layer].append(residual.norm(dim=1).cpu())
            places[layer].append(members.nonzero().cpu() + torch.tensor([batch.start, 0]))
            first[layer] = first[layer] + residual.sum(0)
            second[layer] = second[layer] + residual.T @ residual

    batches = list(contiguous_batches(len(input_ids), batch_size))
    run_windows(model, input_ids, mask, batches, keep)
    errors = {}
    for layer in maps:
        place = torch.cat(places[layer]).numpy()
        if len(place) == 0:
            raise ValueError(f"layer {layer}: all tokens are massive by its limits")
        mean = first[layer] / len(place)
        covariance = second[layer] / len(place) - torch.outer(mean, mean)
        generator = torch.Generator().manual_seed(seed + layer)
        gaussian = _gaussian_norms(len(place), mean, covariance, generator)
        of_token = None if documents is None else documents.cpu().numpy()[tuple(place.T)]
        errors[layer] = TokenErrors(torch.cat(norms[layer]).numpy(), gaussian, place, of_token)
    return errors


def _gaussian_norms(
    n: int, mean: Tensor, covariance: Tensor, generator: torch.Generator
) -> np.ndarray:
    """Norms of n Gaussian draws, (n,), which are the same in the covariance's own axes."""
    variances, axes = torch.linalg.eigh(covariance)
    centre, spread = (mean @ axes).float().cpu(), variances.clamp_min(0).sqrt().float().cpu()
    draws = torch.randn(n, len(centre), generator=generator)
    return (centre + draws * spread).norm(dim=1).double().numpy()


def block_states(
    model: PreTrainedModel,
    input_ids: Tensor,
    *,
    batch_size: int = 32,
    layers_per_pass: int | None = None,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """All tokens of one block after the other: (layer, x, y), the block's input and output.

    x and y are (n_windows, seq_len, d_model), in float32 on the CPU. Memory is that of the states
    of all layers, or of `layers_per_pass` layers at the price of more forward passes.
    """
    for layers in layer_passes(model, layers_per_pass):
        parts, kept = [], slice(layers[0] - 1, layers[-1] + 1)
        with torch.no_grad():
            for batch in input_ids.split(batch_size):
                parts.append([h.float().cpu() for h in residual_stream(model, batch)[kept]])
        states = (torch.cat(part) for part in zip(*parts, strict=True))
        yield from ((layer, x, y) for layer, (x, y) in zip(layers, pairwise(states), strict=True))


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


def worst_share_error(error: np.ndarray, documents: np.ndarray) -> float:
    """Standard error of the logarithm of `worst_share`, by leaving out one document at a time.

    It is the delete-one jackknife over documents, since tokens of a document depend on each other.
    There the worst 1% are counted in fractions of a token, so that rounding their number adds no
    scatter.

    Args:
        error: of each token, (n_tokens,).
        documents: the document of each token, (n_tokens,).

    Returns:
        The standard error; NaN for a single document.
    """
    names, documents, sizes = np.unique(documents, return_inverse=True, return_counts=True)
    if len(names) < 2:
        return np.nan
    rest, squared = len(error) - sizes, error**2
    # No more than these are among the worst of the others, whichever document is left out.
    n_worst = min(int(np.ceil(WORST * len(error))) + sizes.max(), len(error))
    worst = np.argsort(-squared, kind="stable")[:n_worst]
    kept = documents[worst] != np.arange(len(names))[:, None]  # (n_documents, n_worst)
    counted = kept * np.clip(WORST * rest[:, None] - kept.cumsum(1) + 1, 0, 1)
    totals = squared.sum() - np.bincount(documents, squared)
    logs = np.log(counted @ squared[worst] / totals)
    n_documents = len(names)
    return float(np.sqrt((n_documents - 1) / n_documents * ((logs - logs.mean()) ** 2).sum()))


def error_statistics(errors: TokenErrors) -> pd.DataFrame:
    """Tail statistics of measured errors beside those of their Gaussian null.

    Returns:
        One row: the columns of `tail_statistics`, the same with the prefix `gaussian_`,
        `log_excess` = log(worst_share / gaussian_worst_share), `log_excess_error`, its standard
        error over documents (`worst_share_error`; as many Gaussian draws as tokens add next to
        nothing to it), `n_documents` and `n_tokens`.
    """
    null = {f"gaussian_{name}": value for name, value in tail_statistics(errors.gaussian).items()}
    row = tail_statistics(errors.error) | null
    documents = errors.place[:, 0] if errors.documents is None else errors.documents
    row["log_excess"] = np.log(row["worst_share"] / row["gaussian_worst_share"])
    row["log_excess_error"] = worst_share_error(errors.error, documents)
    row |= {"n_documents": len(np.unique(documents)), "n_tokens": len(errors.error)}
    return pd.DataFrame([row])


def worst_tokens(
    errors: TokenErrors, input_ids: Tensor, tokenizer: PreTrainedTokenizerBase, n: int = 8
) -> pd.DataFrame:
    """Name the n tokens with the largest errors, and what stands before each of them.

    Returns:
        One row per token, the largest error first. Columns `window`, `position`, `error` (multiple
        of the rms), `token` and `before`, both quoted.
    """
    worst = np.argsort(errors.error)[::-1][:n]
    frame = name_tokens(errors.place[worst], input_ids, tokenizer)
    rms = np.sqrt((errors.error**2).mean())
    frame.insert(2, "error", errors.error[worst] / rms)
    return frame


def massive_tokens(
    excess: Tensor, input_ids: Tensor, tokenizer: PreTrainedTokenizerBase, at_least: int = 10
) -> pd.DataFrame:
    """Name the tokens that are massive in some layer, and where they begin and cease to be.

    Args:
        excess: how many times a token's norm exceeds its limit in layers 1..L, (L, n_windows,
            seq_len); massive where it is above 1.
        input_ids: (n_windows, seq_len).
        tokenizer: turns them into text.
        at_least: how many tokens to name, the largest ones, where fewer are massive.

    Returns:
        One row per token, the largest first. Columns as in `name_tokens`, then `excess`, its
        largest value, and `layers`, in which the token is massive, such as "3-4 12-30".
    """
    largest = excess.amax(0).flatten()  # (n_windows * seq_len,)
    n = max(int((largest > 1).sum()), min(at_least, len(largest)))
    order = largest.argsort(descending=True, stable=True)[:n]
    massive = (excess.flatten(1)[:, order] > 1).int()  # (L, n)
    places = torch.stack(torch.unravel_index(order, excess.shape[1:]), 1)
    frame = name_tokens(places.numpy(), input_ids, tokenizer)
    frame["excess"] = largest[order].numpy()
    outside = massive.new_zeros(1, n)
    change = torch.cat([outside, massive, outside]).diff(dim=0)  # 1 where a run of layers begins
    runs = []
    for steps in change.T:
        firsts, lasts = (steps == 1).nonzero() + 1, (steps == -1).nonzero()
        ends = zip(firsts.flatten().tolist(), lasts.flatten().tolist(), strict=True)
        runs.append(" ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ends))
    return frame.assign(layers=runs)


def name_tokens(
    places: np.ndarray, input_ids: Tensor, tokenizer: PreTrainedTokenizerBase, context: int = 6
) -> pd.DataFrame:
    """Text of tokens given by (window, position), (n, 2), with up to `context` tokens before each.

    Returns:
        One row per token: `window`, `position`, `token` and `before`, both quoted.
    """
    rows = []
    for window, position in np.asarray(places).tolist():
        parts = (position, slice(max(position - context, 0), position))
        texts = [repr(tokenizer.decode(input_ids[window][part])) for part in parts]
        rows.append((window, position, *texts))
    return pd.DataFrame(rows, columns=["window", "position", "token", "before"])
