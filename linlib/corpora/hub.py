"""Corpora from the Hugging Face hub, through `datasets` and its cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from datasets import Dataset, load_dataset


def loader(
    path: str, config: str | None, splits: Mapping[str, str], revision: str | None = None
) -> Callable[[str], Dataset]:
    """Return a function from our split names to the texts of a hub dataset.

    Args:
        path: dataset id on the hub.
        config: its configuration, if it has several.
        splits: our split name -> the hub's.
        revision: commit or tag to pin.
    """

    def load(split: str) -> Dataset:
        try:
            rows = load_dataset(path, config, split=splits[split], revision=revision)
        except (OSError, RuntimeError) as error:  # offline, not found, gated
            raise FileNotFoundError(
                f"corpus '{path}' could not be had from the Hugging Face hub ({error}); "
                "check the network, or use the 'tiny' profile, which needs none"
            ) from error
        if "text" not in rows.column_names:
            raise ValueError(f"corpus '{path}' has columns {rows.column_names}, and no 'text'")
        return rows.select_columns("text").filter(_has_words)

    return load


def _has_words(row: dict[str, str]) -> bool:
    return bool(row["text"].strip())
