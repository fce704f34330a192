"""Loss and perplexity of a language model on text, by window or by document."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from linlib.measure.windows import check_windows, contiguous_batches
from linlib.stats import clustered_mean

MOST_LOGITS = 2**26  # in one forward pass: 256 MiB of float32


def window_losses(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    batch_size: int = 32,
) -> Tensor:
    """Mean negative log-likelihood of the next token in each window, in nats per token.

    Fewer windows than `batch_size` go through the model together where their float32 logits,
    length x vocabulary values per window, would exceed 256 MiB.

    Args:
        model: a decoder with its language-modelling head.
        input_ids: token ids, (n_windows, seq_len).
        attention_mask: 1 for tokens, 0 for padding on the right.
        batch_size: windows in one forward pass, at most.

    Returns:
        (n_windows,), float64 on the CPU.

    Raises:
        TypeError, ValueError: see `check_windows`; no window, or one of a single token.
    """
    losses, predicted = _token_losses(model, input_ids, attention_mask, batch_size)
    return losses.sum(1) / predicted.sum(1)


def document_losses(
    model: PreTrainedModel,
    input_ids: Tensor,
    documents: Tensor,
    attention_mask: Tensor | None = None,
    *,
    batch_size: int = 32,
) -> pd.DataFrame:
    """Negative log-likelihood of the tokens of each document.

    The first token of a window is not predicted. A predicted token counts for its own document,
    also where the tokens before it are of another one.

    Args:
        model: a decoder with its language-modelling head.
        input_ids: token ids, (n_windows, seq_len).
        documents: the document of each token, (n_windows, seq_len), as `linlib.token_windows`
            returns it.
        attention_mask: 1 for tokens, 0 for padding on the right.
        batch_size: windows in one forward pass, at most; see `window_losses`.

    Returns:
        One row per document of which a token is predicted, by its number. Columns `document`,
        `loss` (the sum over its predicted tokens, in nats), `n_tokens` (their number).

    Raises:
        TypeError, ValueError: see `window_losses`; documents of another shape, or not integers.
    """
    check_windows(model, input_ids, attention_mask)
    if not isinstance(documents, Tensor) or documents.is_floating_point():
        raise TypeError("documents must be a tensor of integers, the document of each token")
    if documents.shape != input_ids.shape:
        raise ValueError(
            f"documents {tuple(documents.shape)} must have the shape of input_ids "
            f"{tuple(input_ids.shape)}; linlib.token_windows(..., return_documents=True) gives both"
        )
    losses, predicted = _token_losses(model, input_ids, attention_mask, batch_size)
    numbers, index = np.unique(documents[:, 1:].cpu()[predicted].numpy(), return_inverse=True)
    loss = np.bincount(index, losses[predicted].numpy(), len(numbers))
    return pd.DataFrame({"document": numbers, "loss": loss, "n_tokens": np.bincount(index)})


def perplexity(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    documents: Tensor | None = None,
    batch_size: int = 32,
) -> dict[str, float]:
    """Perplexity of a language model on windows of text, with its interval over documents.

    Arguments and errors are those of `document_losses`; without `documents`, each window is one.
    See `linlib.token_windows` for windows and their documents.

    Returns:
        `perplexity`, the exponential of the mean loss over all predicted tokens; `low` and `high`,
        the exponential of the mean's 95% t interval over documents, which is NaN for a single one;
        `loss`, the mean itself, in nats per token.
    """
    if documents is None:
        losses, predicted = _token_losses(model, input_ids, attention_mask, batch_size)
        sums, sizes = losses.sum(1), predicted.sum(1)
    else:
        frame = document_losses(model, input_ids, documents, attention_mask, batch_size=batch_size)
        sums, sizes = frame["loss"], frame["n_tokens"]
    loss, low, high = clustered_mean(sums, sizes)
    interval = {"low": math.exp(low), "high": math.exp(high)}
    return {"perplexity": math.exp(loss)} | interval | {"loss": loss}


@torch.no_grad()
def _token_losses(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Loss of each next token, and which tokens are predicted, both (n_windows, seq_len - 1).

    Losses are float64 on the CPU, and 0 where padding would be predicted.
    """
    mask = check_windows(model, input_ids, attention_mask)
    if len(mask) == 0:
        raise ValueError("there are no windows, so there is no loss; give at least one")
    if bool((short := mask.sum(1) < 2).any()):
        window = short.nonzero()[0].item()
        raise ValueError(f"window {window} holds one token, and a loss needs a next one")
    logits_per_window = input_ids.shape[1] * model.config.vocab_size
    batch_size = max(1, min(batch_size, MOST_LOGITS // logits_per_window))
    losses = []
    for batch in contiguous_batches(len(input_ids), batch_size):
        ids, members = input_ids[batch].to(model.device), mask[batch].to(model.device)
        logits = model(input_ids=ids, attention_mask=members.long(), use_cache=False).logits
        targets = ids.masked_fill(~members, -100)[:, 1:]  # padding counts as none
        # Window by window: to be flattened without its last tokens, a batch would be copied.
        each = [
            cross_entropy(window[:-1].float(), target, reduction="none")
            for window, target in zip(logits, targets, strict=True)
        ]
        losses.append(torch.stack(each).cpu().double())
    return torch.cat(losses), mask[:, 1:]
