"""Measure how linear the blocks of a transformer decoder are.

    import linlib

    model, tokenizer = linlib.load("smollm2-135m")  # or a folder, a GGUF file, a hub id
    windows = linlib.token_windows("my_text.txt", tokenizer)
    frame = linlib.linearity_profile(model, windows)

A reproduction of "Your Transformer is Secretly Linear" (arXiv 2405.12250) that adds null values,
held-out scores, intervals and controls. The names below are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module

_ROOMS = {
    "load": "models",
    "load_model": "models",
    "load_tokenizer": "models",
    "residual_stream": "models",
    "token_windows": "corpora",
    "BlockMoments": "linearity",
    "fit_linear_map": "linearity",
    "linearity_score": "linearity",
    "linearity_profile": "measure",
    "perplexity": "measure",
    "prune": "pruning",
    "removal_order": "pruning",
    "save_pruned": "pruning",
    "load_pruned": "pruning",
    "probe_layers": "evaluate",
    "RegularisedTrainer": "training",
    "Regulariser": "training",
    "load_profile": "profiles",
    "result": "store",
}
__all__ = sorted(_ROOMS)


def __getattr__(name: str) -> object:
    """Import a public name from its room."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'linlib' has no attribute '{name}'; it has {__all__}")
    return getattr(import_module(f"linlib.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
