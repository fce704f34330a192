"""Figure 9: how the errors of the linear map are spread over tokens, and who the worst are."""

from __future__ import annotations

import numpy as np
import pandas as pd

from linlib.experiments.subjects import (
    Measurement,
    heldout_windows,
    opened,
    provenance,
    stored_moments,
    subjects,
)
from linlib.measure import TokenErrors, tail_statistics, token_errors, worst_tokens
from linlib.measure.batches import TOKEN_GROUPS
from linlib.profiles import Profile

BIN_WIDTH = 0.1  # multiples of the layer's rms error


def measure(profile: Profile) -> Measurement:
    """Fit every layer's map on one set of windows, and look at its errors on another.

    Frames: the histogram ("", counts by bin of the error in multiples of the layer's rms), the
    statistics of the tails ("_statistics") and the worst tokens ("_tokens").
    """
    everyone = subjects(profile)
    histograms, statistics, tokens = [], [], []
    for subject, model, tokenizer in opened(profile, everyone):
        fitting, looking = heldout_windows(profile, tokenizer)
        moments = stored_moments(profile, subject, model, fitting)
        for group in TOKEN_GROUPS:
            maps = {layer: moments.group(layer, group).linear_map() for layer in moments.layers}
            found = token_errors(
                model, maps, looking, batch_size=profile.measure.batch_size, seed=profile.seed
            )
            for layer, errors in found.items():
                errors = errors if group == "all" else errors.without_first()
                where = {
                    "model": subject.name,
                    "layer": layer,
                    "depth": layer / moments.n_blocks,
                    "tokens": group,
                }
                histograms.append(_histogram(errors).assign(**where))
                statistics.append(where | _statistics(errors))
                tokens.append(worst_tokens(errors, looking, tokenizer).assign(**where))
    frames = {
        "": _named_first(pd.concat(histograms, ignore_index=True)),
        "_statistics": pd.DataFrame(statistics),
        "_tokens": _named_first(pd.concat(tokens, ignore_index=True)),
    }
    return Measurement(frames, provenance(profile, everyone))


def _histogram(errors: TokenErrors) -> pd.DataFrame:
    """Counts by bin; `cloud` is "measured" or its "gaussian" null; empty bins are left out."""
    rms = np.sqrt((errors.error**2).mean())
    frames = []
    for cloud, values in (("measured", errors.error), ("gaussian", errors.gaussian)):
        index, count = np.unique((values / rms // BIN_WIDTH).astype(int), return_counts=True)
        low = np.round(index * BIN_WIDTH, 6)
        frames.append(
            pd.DataFrame(
                {
                    "cloud": cloud,
                    "error_low": low,
                    "error_high": np.round(low + BIN_WIDTH, 6),
                    "count": count,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _statistics(errors: TokenErrors) -> dict[str, float]:
    null = {f"gaussian_{k}": v for k, v in tail_statistics(errors.gaussian).items()}
    return {**tail_statistics(errors.error), **null, "n_tokens": len(errors.error)}


def _named_first(frame: pd.DataFrame) -> pd.DataFrame:
    names = ["model", "layer", "depth", "tokens"]
    return frame[[*names, *frame.columns.drop(names)]]
