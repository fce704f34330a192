"""Where each architecture keeps its decoder blocks: one table, and nothing else knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES


@dataclass(frozen=True)
class Architecture:
    """Dotted paths below a model's `base_model`.

    Attributes:
        blocks: the list of decoder blocks.
        tail: what h_L passes through to become the model's last hidden state: the final norm and,
            in OPT, a projection. Modules that are absent or None are left out.
        returns_tuple: a block returns (state, ...) instead of the state alone.
    """

    blocks: str
    tail: tuple[str, ...]
    returns_tuple: bool = False


_GPT2_STYLE = Architecture("h", ("ln_f",))
_BLOOM_STYLE = Architecture("h", ("ln_f",), returns_tuple=True)
_LLAMA_STYLE = Architecture("layers", ("norm",))

ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": _GPT2_STYLE,
    "gptj": _BLOOM_STYLE,
    "bloom": _BLOOM_STYLE,
    "falcon": _BLOOM_STYLE,
    "gpt_neo": _BLOOM_STYLE,
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
}


def architecture_of(config: PreTrainedConfig) -> Architecture:
    """Look a model's architecture up in the table.

    Raises:
        ValueError: an encoder-decoder, an encoder, or an architecture that the table lacks.
    """
    kind = config.model_type
    if kind in ARCHITECTURES:
        return ARCHITECTURES[kind]
    known = ", ".join(sorted(ARCHITECTURES))
    if config.is_encoder_decoder:
        raise ValueError(
            f"model_type '{kind}' is an encoder-decoder; linlib measures decoder-only models, "
            f"whose blocks share one residual stream: {known}"
        )
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise ValueError(
            f"model_type '{kind}' is an encoder; linlib measures decoder-only models: {known}"
        )
    raise ValueError(
        f"model_type '{kind}' is not in the table linlib.models.ARCHITECTURES, which has {known}; "
        "add a line that says where its blocks and its final norm are: "
        f"ARCHITECTURES['{kind}'] = Architecture('layers', ('norm',))"
    )


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Return the L decoder blocks of a base model or of one with any head, in order.

    Raises:
        ValueError: see `architecture_of`.
    """
    return attrgetter(architecture_of(model.config).blocks)(model.base_model)


def position_limit(model: PreTrainedModel) -> int | None:
    """The longest window that a model takes, in tokens; None where nothing limits it."""
    return getattr(model.config, "max_position_embeddings", None)


def final_states(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Turn h_L, (..., d_model), into what the model calls its last hidden state."""
    for path in architecture_of(model.config).tail:
        module = _follow(model.base_model, path.split("."))
        states = states if module is None else module(states)
    return states


def _follow(module: nn.Module, names: Sequence[str]) -> nn.Module | None:
    for name in names:
        module = getattr(module, name, None)
    return module
