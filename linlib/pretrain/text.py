"""What runs read: a tokenizer and windows of one corpus, tokenised once, in the store."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from linlib.corpora import corpus_sha256, load_corpus, packed_windows, train_tokenizer
from linlib.models import load_tokenizer
from linlib.store import build_once, code_digest

WINDOWS_FILE = "windows.safetensors"


@dataclass(frozen=True)
class TrainingText:
    """Tokenizer, training windows and held-out windows of one corpus.

    Attributes:
        sha256: digest of the training corpus.
        tokenizer: folder.
        train: folder of the training windows.
        heldout: folder of the held-out windows, if any were asked for.
    """

    sha256: str
    tokenizer: Path
    train: Path
    heldout: Path | None

    @classmethod
    def of(
        cls,
        corpus: str,
        vocab_size: int,
        length: int,
        most_windows: int | None = None,
        heldout_windows: int = 0,
    ) -> TrainingText:
        """Tokenise a corpus, or find it tokenised.

        Args:
            corpus: a key of `linlib.corpora.CORPORA`.
            vocab_size: entries of the byte-level BPE vocabulary, trained on the corpus.
            length: tokens in a window.
            most_windows: training windows to stop at; None takes the whole corpus.
            heldout_windows: of the held-out split.
        """
        text = load_corpus(corpus, "train")
        sha256 = corpus_sha256(text)
        recipe = {
            "corpus": sha256,
            "vocab_size": vocab_size,
            "code": code_digest("corpora/tokens.py"),
            "tokenizers": version("tokenizers"),
        }
        tokenizer = build_once(
            "tokenizer", recipe, lambda folder: train_tokenizer(text, vocab_size, folder)
        )

        def windows(split: str, most: int | None) -> Path:
            def build(folder: Path) -> None:
                rows, opened = load_corpus(corpus, split), load_tokenizer(tokenizer)
                fixed = {"n_windows": most} if split == "heldout" else {"at_most": most}
                save_file(
                    {"windows": packed_windows(rows, opened, length, **fixed)},
                    folder / WINDOWS_FILE,
                )

            size = {"length": length, "split": split, "windows": most}
            if split == "heldout":
                size["heldout"] = corpus_sha256(load_corpus(corpus, split))
            return build_once("windows", recipe | size, build)

        heldout = windows("heldout", heldout_windows) if heldout_windows else None
        return cls(sha256, tokenizer, windows("train", most_windows), heldout)


def read_windows(folder: Path) -> Tensor:
    """Token ids, (n_windows, length), of a folder of `TrainingText`."""
    return load_file(folder / WINDOWS_FILE)["windows"]
