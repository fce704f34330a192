"""Named corpora as `datasets.Dataset`s with a `text` column, and how they become token windows."""

from linlib.corpora.registry import CORPORA, corpus_sha256, load_corpus
from linlib.corpora.tokens import packed_windows, text_windows, train_tokenizer

__all__ = [
    "CORPORA",
    "corpus_sha256",
    "load_corpus",
    "packed_windows",
    "text_windows",
    "train_tokenizer",
]
