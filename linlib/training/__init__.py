"""Training: regularised pretraining, the zoo of a profile, and fine-tuning with its controls."""

from importlib import import_module

_NAMES = {
    "regularisers": ["RegularisedTrainer", "Regulariser", "parse_variant"],
    "pretraining": ["checkpoints", "compare_at_equal_loss", "has_fast_bf16", "train"],
    "zoo": [
        "models_of", "options_for", "published_checkpoints", "separator_of", "source_of",
        "train_directions", "train_zoo",
    ],
    "mistrals": ["Run", "measurements", "train_variants", "tune_variants"],
    "finetuning": ["CHANGES", "change_of_scores", "fine_tune", "measure_fine_tuning", "outcome"],
    "tasks": ["encode", "task_rows", "task_windows"],
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    """Import the module of a name when it is first used: trainers take seconds to import."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'linlib.training' has no attribute '{name}'")
    return getattr(import_module(f"linlib.training.{_MODULE_OF[name]}"), name)
