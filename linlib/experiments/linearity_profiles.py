"""Figure 1: the linearity of every block, with and without residual, of every model."""

from __future__ import annotations

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from linlib.corpora import load_corpus, text_windows
from linlib.experiments.subjects import (
    Measurement,
    Subject,
    each,
    heldout_windows,
    moments_by_layers,
    provenance,
    subjects,
)
from linlib.measure import linearity_profile, profile_of_moments
from linlib.measure.batches import choose_layers
from linlib.models import position_limit
from linlib.profiles import Profile


def measure(profile: Profile) -> Measurement:
    """Score every block of every model under two protocols.

    `protocol` is "stream" (packed windows, states before the final norm) or "official" (windows
    of 512 characters, the last state after the final norm, as in the authors' code).
    """
    everyone = subjects(profile)
    frame = pd.concat(each(profile, everyone, _profiles), ignore_index=True)
    order = ["model", "protocol", *frame.columns.drop(["model", "protocol"])]
    return Measurement({"": frame[order]}, provenance(profile, everyone))


def _profiles(profile: Profile, subject: Subject) -> pd.DataFrame:
    model, tokenizer = subject.open(profile)
    windows, _ = heldout_windows(profile, tokenizer)
    layers = choose_layers(model, None)
    passes = moments_by_layers(profile, subject, model, windows, layers)
    stream = pd.concat([profile_of_moments(moments) for moments in passes])
    stream = stream.sort_values(["tokens", "layer"]).assign(protocol="stream")
    official = _official(profile, model, tokenizer).assign(protocol="official")
    return pd.concat([stream, official]).assign(model=subject.name)


def _official(
    profile: Profile, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> pd.DataFrame:
    settings = profile.measure
    input_ids, mask = text_windows(
        load_corpus(profile.corpus, "heldout"),
        tokenizer,
        settings.official_windows,
        max_tokens=position_limit(model),
    )
    frame = linearity_profile(
        model, input_ids, mask, n_folds=1, batch_size=settings.batch_size, after_final_norm=True
    )
    return frame[frame["tokens"] == "all"]
