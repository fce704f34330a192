"""Decoder blocks and the residual stream h_0 .. h_L that runs through them.

`output_hidden_states` is no substitute: its last state is taken after the final norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from operator import attrgetter

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Architecture:
    """Dotted paths below a model's `base_model`.

    Attributes:
        blocks: the list of decoder blocks.
        tail: what h_L passes through to become the model's last hidden state: the final norm and,
            in OPT, a projection. Modules that are absent or None are left out.
    """

    blocks: str
    tail: tuple[str, ...]


_GPT2_STYLE = Architecture("h", ("ln_f",))
_LLAMA_STYLE = Architecture("layers", ("norm",))

ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": _GPT2_STYLE,
    "gptj": _GPT2_STYLE,
    "bloom": _GPT2_STYLE,
    "falcon": _GPT2_STYLE,
    "gpt_neo": _GPT2_STYLE,
    "gpt_neox": Architecture("layers", ("final_layer_norm",)),
    "opt": Architecture("decoder.layers", ("decoder.final_layer_norm", "decoder.project_out")),
    "phi": Architecture("layers", ("final_layernorm",)),
    "llama": _LLAMA_STYLE,
    "mistral": _LLAMA_STYLE,
    "phi3": _LLAMA_STYLE,
    "qwen2": _LLAMA_STYLE,
    "qwen3": _LLAMA_STYLE,
    "gemma": _LLAMA_STYLE,
    "gemma2": _LLAMA_STYLE,
    "gemma3_text": _LLAMA_STYLE,
    "stablelm": _LLAMA_STYLE,
    "olmo2": _LLAMA_STYLE,
    "modernbert-decoder": Architecture("layers", ("final_norm",)),
}
# Encoders have blocks and a residual stream as well, and predict no next token. BERT's blocks end
# in a norm, which leaves nothing to be normed at the end.
ENCODERS: dict[str, Architecture] = {
    "bert": Architecture("encoder.layer", ()),
    "modernbert": Architecture("layers", ("final_norm",)),
}


def architecture_of(config: PreTrainedConfig) -> Architecture:
    """Look up the architecture of a model in `ARCHITECTURES`, or in `ENCODERS`.

    Raises:
        ValueError: an architecture that is in neither table, such as an encoder-decoder.
    """
    kind = config.model_type
    if kind in ENCODERS:
        return ENCODERS[kind]
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"model_type '{kind}' is not in the table linlib.models.ARCHITECTURES of decoder-only "
            f"models, which has {sorted(ARCHITECTURES)}, nor an encoder of {sorted(ENCODERS)}. "
            "Encoder-decoders cannot be measured; for a decoder, add a line that says where its "
            f"blocks and its final norm are: ARCHITECTURES['{kind}'] = Architecture('layers', "
            "('norm',))"
        )
    return ARCHITECTURES[kind]


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Return the L decoder blocks of a base model or of a model with any head, in order.

    Raises:
        ValueError: see `architecture_of`.
    """
    return attrgetter(architecture_of(model.config).blocks)(model.base_model)


def position_limit(model: PreTrainedModel) -> int | None:
    """Return the length in tokens of the longest window of a model; None if it has no limit."""
    return getattr(model.config, "max_position_embeddings", None)


def final_states(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Turn h_L, (..., d_model), into what the model calls its last hidden state."""
    for path in architecture_of(model.config).tail:
        module = model.base_model
        for name in path.split("."):
            module = getattr(module, name, None)
        states = states if module is None else module(states)
    return states


@contextmanager
def watch_blocks(
    model: PreTrainedModel, callback: Callable[[int, Tensor, Tensor], None]
) -> Iterator[None]:
    """Call `callback(layer, x, y)` after each block of each forward pass inside the `with` block.

    Args:
        model: a decoder; it is left unchanged.
        callback: is given the layer (1..L), the block's input x = h_{l-1} and its output y = h_l,
            both (batch, seq_len, d_model). The callback alone decides what is kept, so a stream of
            any length can be measured in constant memory.
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
    """Return h_0 .. h_L, before the final norm, each (batch, seq_len, d_model).

    h_0 is what enters block 1: the embeddings, after an embedding norm or projection if the
    architecture has one. Gradients flow if they are enabled; for measuring, wrap the call in
    `torch.no_grad()`.

    Args:
        model: a decoder, on any device.
        input_ids: token ids, (batch, seq_len); moved to the model's device.
        attention_mask: 1 for tokens, 0 for padding, (batch, seq_len).

    Raises:
        TypeError: `input_ids` is not a tensor, for example text.
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
    """Run one forward pass without the head; arguments and errors as `residual_stream`.

    Returns:
        The last hidden state, after the final norm, (batch, seq_len, d_model).
    """
    if not isinstance(input_ids, Tensor):
        raise TypeError(
            f"input_ids must be a tensor of token ids, (batch, seq_len), not a "
            f"{type(input_ids).__name__}; linlib.token_windows(text, tokenizer) turns text into it"
        )
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
