"""The loss of pruned models on held-out text, paired with that of the dense model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from linlib.corpora import token_windows
from linlib.stats import clustered_mean

LIKE_TEST, STORIES = "like the test's", "stories"  # the texts that maps are fitted on


def pruning_texts(
    settings: object, tokenizer: PreTrainedTokenizerBase, separator: str | None = None
) -> tuple[dict[str, dict[str, object]], Tensor, Tensor]:
    """The texts of Figures 6 to 8, by the numbers of a profile.

    Maps are fitted and distilled on training text of the profile's corpus, like the test's, or of
    its stories, the paper's way. Distillation stops early by held-out text of the same kind, which
    the loss is not measured on.

    Args:
        settings: the profile; its sections `pruning` and `measure` have the numbers.
        tokenizer: of the model.
        separator: what stands between two documents; see `linlib.token_windows`.

    Returns:
        For `LIKE_TEST` and `STORIES` the keyword arguments of `fit_maps`; the held-out windows of
        the corpus on which the loss is measured; and the document of each of their tokens.
    """
    scale, cut = settings.pruning, {"seq_len": settings.measure.seq_len, "separator": separator}
    distillation = {**vars(scale.distillation), "seed": settings.seed}
    n_stopping = distillation.pop("heldout_windows")
    n_training = distillation["steps"] * distillation["batch_size"]
    options = {"distillation": distillation, "ridge": scale.ridge, "batch_size": scale.batch_size}
    fitting = {}
    for name, corpus in ((LIKE_TEST, settings.corpus), (STORIES, scale.stories)):
        windows = partial(token_windows, corpus, tokenizer, **cut)
        skip = scale.heldout_windows if corpus == settings.corpus else 0
        fitting[name] = options | {
            "windows": windows(split="train", n_windows=scale.calibration_windows),
            "training": windows(split="train", n_windows=n_training),
            "stopping": windows(split="heldout", n_windows=skip + n_stopping)[skip:],
        }
    cut |= {"split": "heldout", "n_windows": scale.heldout_windows, "return_documents": True}
    return fitting, *token_windows(settings.corpus, tokenizer, **cut)


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


def interval_columns(found: Mapping[str, tuple[float, float, float]]) -> dict[str, float]:
    """Values with intervals as columns: {"phi": (1, 0, 2)} gives `phi`, `phi_low`, `phi_high`."""
    return {
        f"{name}{end}": number
        for name, ends in found.items()
        for end, number in zip(("", "_low", "_high"), ends, strict=True)
    }
