"""Corpora from the Hugging Face hub, through `datasets` and its cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from datasets import Dataset, interleave_datasets, load_dataset


def loader(
    path: str,
    config: str | None,
    splits: Mapping[str, str],
    revision: str | None = None,
    column: str = "text",
) -> Callable[[str], Dataset]:
    """Return a function from our split names to the texts of a hub dataset.

    Args:
        path: dataset id on the hub.
        config: its configuration, if it has several.
        splits: our split name -> the hub's.
        revision: commit or tag to pin.
        column: where the texts are.
    """

    def load(split: str) -> Dataset:
        try:
            rows = load_dataset(path, config, split=splits[split], revision=revision)
        except (OSError, RuntimeError) as error:  # offline, not found, gated
            raise FileNotFoundError(
                f"corpus '{path}' could not be had from the Hugging Face hub ({error}); "
                "check the network, or use the 'tiny' profile, which needs none"
            ) from error
        if column not in rows.column_names:
            raise ValueError(f"corpus '{path}' has columns {rows.column_names}, and no '{column}'")
        rows = rows.select_columns(column)
        rows = rows if column == "text" else rows.rename_column(column, "text")
        return rows.filter(_has_words)

    return load


def in_turn(*loaders: Callable[[str], Dataset]) -> Callable[[str], Dataset]:
    """Return a function that takes one text of each corpus in turn, until one of them ends."""

    def load_all(split: str) -> Dataset:
        return interleave_datasets([load(split).select_columns("text") for load in loaders])

    return load_all


def _has_words(row: dict[str, str]) -> bool:
    return bool(row["text"].strip())
