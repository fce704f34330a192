"""The loss of pruned models on held-out text, paired with that of the dense model."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from linlib.corpora import token_windows
from linlib.stats import clustered_mean


def fitting_arguments(
    corpus: str,
    tokenizer: PreTrainedTokenizerBase,
    settings: object,
    separator: str | None = None,
) -> dict[str, object]:
    """Keyword arguments of `fit_maps` for a profile: windows of a corpus, and the options.

    Args:
        corpus: the text, as `linlib.token_windows` takes it. Maps are fitted and distilled on its
            training part; distillation stops early by its held-out part, where this is the corpus
            of the profile without the first windows, on which the loss is measured.
        tokenizer: of the model.
        settings: the profile; its sections `pruning` and `measure` have the numbers.
        separator: what stands between two documents; see `linlib.token_windows`.
    """
    scale = settings.pruning
    options = {"seq_len": settings.measure.seq_len, "separator": separator}
    windows = partial(token_windows, corpus, tokenizer, **options)
    distillation = {**vars(scale.distillation), "seed": settings.seed}
    n_stopping = distillation.pop("heldout_windows")
    n_training = distillation["steps"] * distillation["batch_size"]
    skip = scale.heldout_windows if corpus == settings.corpus else 0
    return {
        "windows": windows(split="train", n_windows=scale.calibration_windows),
        "training": windows(split="train", n_windows=n_training),
        "stopping": windows(split="heldout", n_windows=skip + n_stopping)[skip:],
        "distillation": distillation,
        "ridge": scale.ridge,
        "batch_size": scale.batch_size,
    }


def added_loss(losses: pd.DataFrame, dense: pd.DataFrame) -> dict[str, float]:
    """Perplexity of a pruned model, and the loss that pruning added, paired by document.

    Args:
        losses: of the pruned model, one row per document as `document_losses` gives them:
            `document`, `loss` in nats and `n_tokens`.
        dense: of the dense model on the same documents.

    Returns:
        `perplexity` with the 95% interval `low` .. `high` over documents, `loss` in nats per token,
        and `added`, the difference of the two losses per token, with `added_low` .. `added_high`.

    Raises:
        ValueError: the two do not have the same documents, or tokens in them.
    """
    keys = ["document", "n_tokens"]
    if losses[keys].to_numpy().tolist() != dense[keys].to_numpy().tolist():
        raise ValueError(
            f"losses of {len(losses)} documents with {losses['n_tokens'].sum()} tokens cannot be "
            f"paired with the dense model's on {len(dense)} documents with "
            f"{dense['n_tokens'].sum()}; measure both on the same windows and documents"
        )
    loss = clustered_mean(losses["loss"], losses["n_tokens"])
    added = losses["loss"].to_numpy() - dense["loss"].to_numpy()
    values = [*np.exp(loss).tolist(), loss[0], *clustered_mean(added, losses["n_tokens"])]
    names = ("perplexity", "low", "high", "loss", "added", "added_low", "added_high")
    return dict(zip(names, values, strict=True))
