"""Text to tokens: a byte-level BPE tokenizer, token windows, and the official character windows."""

from __future__ import annotations

import math
from array import array
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from linlib import corpora

SPECIAL_TOKENS = {"pad_token": "<|pad|>", "bos_token": "<|bos|>", "eos_token": "<|eos|>"}
BATCH = 1000  # texts tokenised at once


def train_tokenizer(folder: Path, corpus: Dataset, vocab_size: int) -> None:
    """Train a byte-level BPE tokenizer on the `text` of a corpus and save it; for `store.cached`.

    The `vocab_size` entries of the vocabulary include the special tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (batch["text"] for batch in corpus.iter(BATCH))
    tokenizer.train_from_iterator(texts, trainer, length=len(corpus))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS).save_pretrained(folder)


def token_windows(
    text: str | Path | Dataset | list[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    seq_len: int = 128,
    n_windows: int | None = None,
    at_most: int | None = None,
    split: str | None = None,
    column: str = "text",
) -> Tensor:
    """Cut text into windows of equal length, which need no padding.

    Documents are joined in their order with a bos token before each, and each window begins with a
    bos token of its own, as a model meets it in use.

    Args:
        text: the name of a corpus, the path of a file, a dataset, or a list of strings; see
            `linlib.corpora.text_dataset`.
        tokenizer: must have a bos token.
        seq_len: tokens per window, the bos token included.
        n_windows: how many windows; None takes all that are full.
        at_most: stop at this number of windows if the text has more; None reads all of it.
        split: "train" or "heldout"; see `linlib.corpora.text_dataset`.
        column: where the texts are, in a file or dataset with columns.

    Returns:
        Token ids, (n_windows, seq_len).

    Raises:
        ValueError: the tokenizer has no bos token, the text is shorter than requested, or the size
            of the windows makes no sense; and see `linlib.corpora.text_dataset`.
    """
    if tokenizer.bos_token_id is None:
        raise ValueError(_no_token(tokenizer, "bos", "windows begin with it"))
    if seq_len < 2 or (n_windows is not None and n_windows < 1):
        raise ValueError(
            "windows hold at least 2 tokens and there is at least 1 of them, but "
            f"seq_len={seq_len} and n_windows={n_windows}"
        )
    body = seq_len - 1
    wanted = (n_windows or at_most or math.inf) * body
    ids = array("i")  # four bytes per token, where a list takes eight and more
    for texts in corpora.text_dataset(text, column, split).iter(BATCH):
        tokens = tokenizer(texts["text"], add_special_tokens=False, verbose=False)
        for document in tokens["input_ids"]:
            ids.append(tokenizer.bos_token_id)
            ids.extend(document)
        if len(ids) >= wanted:
            break
    available = len(ids) // body
    if available == 0 or (n_windows is not None and available < n_windows):
        raise ValueError(
            f"the text is shorter than requested: {len(ids)} tokens make {available} windows of "
            f"{seq_len}, and {n_windows or 1} were requested; request fewer or shorter windows, or "
            "use more text"
        )
    n_windows = n_windows or min(available, at_most or available)
    windows = torch.frombuffer(ids, dtype=torch.int32, count=n_windows * body).long()
    windows = windows.view(n_windows, body)  # (n_windows * body,) -> (n_windows, body)
    return torch.cat([torch.full((n_windows, 1), tokenizer.bos_token_id), windows], dim=1)


def character_windows(
    text: str | Path | Dataset | list[str],
    tokenizer: PreTrainedTokenizerBase,
    n_windows: int = 128,
    n_characters: int = 512,
    max_tokens: int | None = None,
    split: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Cut text as the official code does: adjacent windows of characters, tokenised and padded.

    Args:
        text: see `linlib.corpora.text_dataset`.
        tokenizer: must have a pad token.
        n_windows: how many windows.
        n_characters: characters per window.
        max_tokens: where a window is cut off; None cuts nothing.
        split: "train" or "heldout"; see `linlib.corpora.text_dataset`.

    Returns:
        Token ids and attention mask, both (n_windows, longest window), padded on the right.

    Raises:
        ValueError: the tokenizer has no pad token, or the text is shorter than requested.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError(_no_token(tokenizer, "pad", "windows of unequal length are padded"))
    wanted = n_windows * n_characters
    documents, n_read = [], 0
    for document in corpora.text_dataset(text, split=split)["text"]:
        documents.append(document)
        n_read += len(document) + 2
        if n_read >= wanted:
            break
    joined = "\n\n".join(documents)
    if len(joined) < wanted:
        raise ValueError(
            f"the text is shorter than requested: {len(joined)} characters make "
            f"{len(joined) // n_characters} windows of {n_characters}, and {n_windows} were "
            "requested; request fewer windows, or use more text"
        )
    windows = [joined[start : start + n_characters] for start in range(0, wanted, n_characters)]
    batch = tokenizer(
        windows,
        padding=True,
        padding_side="right",
        truncation=max_tokens is not None,
        max_length=max_tokens,
        return_tensors="pt",
    )
    return batch["input_ids"], batch["attention_mask"]


def _no_token(tokenizer: PreTrainedTokenizerBase, role: str, why: str) -> str:
    candidate = tokenizer.eos_token or "<token>"
    return (
        f"tokenizer '{tokenizer.name_or_path}' has no {role} token, and {why}; load it with "
        f"linlib.load_tokenizer(..., {role}_token='{candidate}')"
    )
