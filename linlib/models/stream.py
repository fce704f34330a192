"""The residual stream h_0 .. h_L, read by hooks on the decoder blocks.

`output_hidden_states` is no substitute: its last state is taken after the final norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature

import torch
from torch import Tensor
from transformers import PreTrainedModel

from linlib.models.architectures import decoder_blocks

BlockCallback = Callable[[int, Tensor, Tensor], None]


@contextmanager
def watch_blocks(model: PreTrainedModel, callback: BlockCallback) -> Iterator[None]:
    """Call `callback(layer, x, y)` after every block of every forward pass.

    Args:
        model: a decoder; it is left as it was.
        callback: gets layer (1..L), the block's input x = h_{l-1} and its output y = h_l, both
            (batch, length, d_model). Only the callback decides what is kept, so a stream of any
            length can be measured in constant memory.
    """

    def hook(layer: int) -> Callable:
        def report(_block, args: tuple, kwargs: dict, output: Tensor | tuple) -> None:
            x = args[0] if args else kwargs["hidden_states"]
            callback(layer, x, output[0] if isinstance(output, tuple) else output)

        return report

    handles = []
    try:
        for layer, block in enumerate(decoder_blocks(model), start=1):
            handles.append(block.register_forward_hook(hook(layer), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def residual_stream(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None = None
) -> list[Tensor]:
    """Return h_0 .. h_L, before the final norm, each (batch, length, d_model).

    h_0 is what enters block 1: embeddings, after an embedding norm or projection where the
    architecture has one. Gradients flow if they are enabled; for measuring, wrap the call in
    `torch.no_grad()`.

    Args:
        model: a decoder, on any device.
        input_ids: token ids, (batch, length); moved to the model's device.
        attention_mask: 1 for tokens, 0 for padding, (batch, length).
    """
    states: list[Tensor] = []

    def keep(layer: int, x: Tensor, y: Tensor) -> None:
        if layer == 1:
            states.append(x)
        states.append(y)

    with watch_blocks(model, keep):
        run_backbone(model, input_ids, attention_mask)
    return states


def run_backbone(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """One forward pass without the head; returns the last hidden state, after the final norm."""
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    options = {}
    padded_left = not bool(attention_mask[:, 0].all())
    if padded_left and "position_ids" in signature(model.base_model.forward).parameters:
        positions = (attention_mask.long().cumsum(1) - 1).clamp_min(0)  # counted from 1st token
        options["position_ids"] = positions.to(model.device)
    output = model.base_model(
        input_ids=input_ids.to(model.device),
        attention_mask=attention_mask.to(model.device),
        use_cache=False,
        **options,
    )
    return output.last_hidden_state
