"""What a model loses on text: mean negative log-likelihood of the next token, window by window."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from linlib.measure.batches import check_windows, contiguous_batches


@torch.no_grad()
def window_losses(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    batch_size: int = 32,
) -> Tensor:
    """Loss of every window, in nats per predicted token; perplexity is exp of their mean.

    Args:
        model: a decoder with its language-modelling head.
        input_ids: (n_windows, length).
        attention_mask: 1 for tokens, 0 for padding on the right.
        batch_size: windows in one forward pass.

    Returns:
        (n_windows,), float64 on the CPU.

    Raises:
        ValueError: there is no window, or one has a single token.
    """
    mask = check_windows(model, input_ids, attention_mask)
    if len(mask) == 0:
        raise ValueError("there is no window to take a loss of")
    if bool((short := mask.sum(1) < 2).any()):
        window = short.nonzero()[0].item()
        raise ValueError(f"window {window} holds one token, and a loss needs a next one")
    losses = []
    for batch in contiguous_batches(len(input_ids), batch_size):
        ids, members = input_ids[batch].to(model.device), mask[batch].to(model.device)
        logits = model(input_ids=ids, attention_mask=members.long(), use_cache=False).logits
        ids = ids.masked_fill(~members, -100)[:, 1:]  # the targets; padding counts as none
        each = cross_entropy(logits[:, :-1].float().mT, ids, reduction="none")  # (batch, length-1)
        losses.append((each.double().sum(1) / (ids >= 0).sum(1)).cpu())
    return torch.cat(losses)
