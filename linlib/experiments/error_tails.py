"""Figure 9: how the errors of the linear map are spread over tokens, and who the worst are."""

from __future__ import annotations

import numpy as np
import pandas as pd

from linlib.experiments.subjects import (
    Measurement,
    Subject,
    each,
    heldout_windows,
    moments_by_layers,
    provenance,
    subjects,
)
from linlib.measure import TokenErrors, tail_statistics, token_errors, worst_tokens
from linlib.measure.batches import TOKEN_GROUPS, choose_layers
from linlib.profiles import Profile

BIN_WIDTH = 0.1  # multiples of the layer's rms error
MOST_LAYERS = 8  # looked at in one model, spread over its depth


def measure(profile: Profile) -> Measurement:
    """Fit every layer's map on one set of windows, and look at its errors on another.

    Frames: the histogram ("", counts by bin of the error in multiples of the layer's rms), the
    statistics of the tails ("_statistics") and the worst tokens ("_tokens").
    """
    everyone = subjects(profile)
    histograms, statistics, tokens = zip(*each(profile, everyone, _tails), strict=True)
    frames = {
        "": _named_first(pd.concat(histograms, ignore_index=True)),
        "_statistics": _named_first(pd.concat(statistics, ignore_index=True)),
        "_tokens": _named_first(pd.concat(tokens, ignore_index=True)),
    }
    return Measurement(frames, provenance(profile, everyone))


def _tails(profile: Profile, subject: Subject) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Histograms, statistics and worst tokens of one model."""
    model, tokenizer = subject.open(profile)
    fitting, looking = heldout_windows(profile, tokenizer)
    layers = choose_layers(model, None)
    layers = layers[:: -(-len(layers) // MOST_LAYERS)]
    histograms, statistics, tokens = [], [], []
    for moments in moments_by_layers(profile, subject, model, fitting, layers):
        for group in TOKEN_GROUPS:
            maps = {layer: moments.group(layer, group).linear_map() for layer in moments.layers}
            found = token_errors(
                model,
                maps,
                looking,
                skip_first=group != "all",
                batch_size=profile.measure.batch_size,
                seed=profile.seed,
            )
            for layer, errors in found.items():
                where = {
                    "model": subject.name,
                    "layer": layer,
                    "depth": layer / moments.n_blocks,
                    "tokens": group,
                }
                histograms.append(_histogram(errors).assign(**where))
                statistics.append(pd.DataFrame([_statistics(errors)]).assign(**where))
                tokens.append(worst_tokens(errors, looking, tokenizer).assign(**where))
    return pd.concat(histograms), pd.concat(statistics), pd.concat(tokens)


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
