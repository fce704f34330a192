"""Decoders: load them, find their blocks, read their residual stream, edit and restore blocks."""

from linlib.models.architectures import (
    ARCHITECTURES,
    Architecture,
    architecture_of,
    decoder_blocks,
    final_states,
    position_limit,
)
from linlib.models.edit import replace_blocks, skip_blocks
from linlib.models.load import load_classifier, load_config, load_model, load_tokenizer
from linlib.models.stream import residual_stream, watch_blocks

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "architecture_of",
    "decoder_blocks",
    "final_states",
    "load_classifier",
    "load_config",
    "load_model",
    "load_tokenizer",
    "position_limit",
    "replace_blocks",
    "residual_stream",
    "skip_blocks",
    "watch_blocks",
]
