"""Loss and perplexity of a language model on text, window by window."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from linlib.measure.windows import check_windows, contiguous_batches
from linlib.stats import mean_interval

MOST_LOGITS = 2**26  # in one forward pass: 256 MiB of float32


@torch.no_grad()
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
        ids = ids.masked_fill(~members, -100)[:, 1:]  # the targets; padding counts as none
        each = cross_entropy(logits[:, :-1].float().mT, ids, reduction="none")  # (batch, seq_len-1)
        losses.append((each.double().sum(1) / (ids >= 0).sum(1)).cpu())
    return torch.cat(losses)


def perplexity(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    batch_size: int = 32,
) -> dict[str, float]:
    """Perplexity of a language model on windows of text, with its interval over windows.

    Arguments and errors are those of `window_losses`; see `linlib.token_windows` for windows.

    Returns:
        `perplexity`, the exponential of the mean loss over windows; `low` and `high`, the
        exponential of the mean's 95% t interval over windows, which is NaN for a single window;
        `loss`, the mean itself, in nats per token.
    """
    losses = window_losses(model, input_ids, attention_mask, batch_size=batch_size)
    loss, low, high = mean_interval(losses.tolist())
    interval = {"low": math.exp(low), "high": math.exp(high)}
    return {"perplexity": math.exp(loss)} | interval | {"loss": loss}
