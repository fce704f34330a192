"""The output projection of a block's MLP, into which a linear map can be folded."""

from __future__ import annotations

from operator import attrgetter

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from linlib.models import decoder_blocks

# Below a block: the last matrix of its MLP, whose output goes to the residual stream as it is.
OUTPUT_PROJECTIONS: dict[str, str] = {
    "gpt2": "mlp.c_proj",
    "gptj": "mlp.fc_out",
    "bloom": "mlp.dense_4h_to_h",
    "falcon": "mlp.dense_4h_to_h",
    "gpt_neo": "mlp.c_proj",
    "gpt_neox": "mlp.dense_4h_to_h",
    "opt": "fc2",
    "phi": "mlp.fc2",
    "llama": "mlp.down_proj",
    "mistral": "mlp.down_proj",
    "phi3": "mlp.down_proj",
    "qwen2": "mlp.down_proj",
    "qwen3": "mlp.down_proj",
    "gemma": "mlp.down_proj",
    "stablelm": "mlp.down_proj",
}


def output_projection(model: PreTrainedModel, block: int) -> nn.Module:
    """The module whose output a block's MLP adds to the residual stream.

    Args:
        model: a decoder.
        block: 0-based index.

    Raises:
        ValueError: there is no such block, or a norm stands between the MLP and the stream.
    """
    if block < 0:
        raise ValueError(
            "a run that begins with block 0 has no block before it to fold a map into; keep "
            "block 0, or replace the run by a map of its own (method 'replace')"
        )
    if not can_fold(model.config):
        raise ValueError(
            f"a map cannot be folded into the blocks of this {model.config.model_type}: a norm "
            "stands between their MLP and the residual stream, or linlib does not know their "
            "output projection; use method 'replace'"
        )
    return attrgetter(OUTPUT_PROJECTIONS[model.config.model_type])(decoder_blocks(model)[block])


def can_fold(config: PreTrainedConfig) -> bool:
    """Whether the MLP of a block adds its output projection's result to the residual stream."""
    norm_after_sum = not getattr(config, "do_layer_norm_before", True)  # OPT-350M
    return config.model_type in OUTPUT_PROJECTIONS and not norm_after_sum
