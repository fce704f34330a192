"""The table of named corpora."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

from datasets import Dataset

from linlib.corpora import hub, pydocs, storyworld

SPLITS = ("train", "heldout")

_tinystories = hub.loader(
    "roneneldan/TinyStories", None, {"train": "train", "heldout": "validation"}
)
_tiny_textbooks = hub.loader(
    "nampdn-ai/tiny-textbooks", None, {"train": "train", "heldout": "test"}, column="textbook"
)

CORPORA: dict[str, Callable[[str], Dataset]] = {
    "pydocs": pydocs.load,
    "storyworld": storyworld.load,
    "pydocs+storyworld": hub.in_turn(pydocs.load, storyworld.load),
    "wikitext-2": hub.loader(
        "Salesforce/wikitext", "wikitext-2-raw-v1", {"train": "train", "heldout": "test"}
    ),
    "wikitext-103": hub.loader(
        "Salesforce/wikitext", "wikitext-103-raw-v1", {"train": "train", "heldout": "test"}
    ),
    "tinystories": _tinystories,
    "tinystories-textbooks": hub.in_turn(_tinystories, _tiny_textbooks),
}


@cache
def load_corpus(name: str, split: str) -> Dataset:
    """Load a corpus as a dataset with a `text` column, one document a row.

    Args:
        name: a key of `CORPORA`.
        split: "train" or "heldout".

    Raises:
        ValueError: an unknown corpus or split.
        FileNotFoundError: a hub corpus that is neither cached nor reachable.
    """
    if name not in CORPORA:
        raise ValueError(f"unknown corpus '{name}'; linlib.corpora.CORPORA has {sorted(CORPORA)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split '{split}' of corpus '{name}'; choose from {SPLITS}")
    return CORPORA[name](split)


def corpus_sha256(corpus: Dataset) -> str:
    """Digest of all texts in order: the corpus's identity in provenance and in cache keys."""
    digest = hashlib.sha256()
    for batch in corpus.select_columns("text").iter(batch_size=10_000):
        for text in batch["text"]:
            digest.update(text.encode() + b"\0")
    return digest.hexdigest()
