"""Write a pruned model as an ordinary Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from linlib.prune.replace import affine_maps


def save_pruned(
    model: PreTrainedModel, path: str | Path, tokenizer: PreTrainedTokenizerBase | None = None
) -> Path:
    """Save a model that `AutoModelForCausalLM.from_pretrained(path)` opens, without linlib.

    The folder is written beside its place and moved there when it is complete.

    Args:
        model: of `prune` with method "remove" or "fold"; config.json names the `removed_blocks`.
        path: a folder that does not exist yet.
        tokenizer: saved with it, if given.

    Returns:
        The folder.

    Raises:
        FileExistsError: the path exists.
        ValueError: maps stand in the place of blocks, which no plain model has.
    """
    path = Path(path).expanduser()
    if path.exists():
        raise FileExistsError(f"{path} exists; give a new folder, or delete that one first")
    if maps := affine_maps(model):
        runs = [f"{affine.run.start}..{affine.run.stop - 1}" for affine in maps]
        raise ValueError(
            f"linear maps stand in the place of blocks {', '.join(runs)}, and a plain "
            f"{model.config.model_type} has none; prune with method 'fold', whose maps become part "
            "of the blocks before them, or 'remove'"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    rmtree(partial, ignore_errors=True)
    try:
        model.save_pretrained(partial)
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)
        partial.rename(path)
    finally:
        rmtree(partial, ignore_errors=True)
    return path
