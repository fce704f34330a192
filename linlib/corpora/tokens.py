"""Texts to tokens: a byte-level BPE tokenizer, packed windows, and the official text windows."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL_TOKENS = {"pad_token": "<|pad|>", "bos_token": "<|bos|>", "eos_token": "<|eos|>"}
BATCH = 1000  # texts tokenised at once


def train_tokenizer(corpus: Dataset, vocab_size: int, folder: str | Path) -> None:
    """Train a byte-level BPE tokenizer and save it as a Hugging Face tokenizer folder."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_batches(corpus), trainer, length=len(corpus))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS).save_pretrained(folder)


def packed_windows(
    corpus: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    n_windows: int | None = None,
    at_most: int | None = None,
) -> Tensor:
    """Cut the corpus into windows that need no padding.

    Documents are joined in their order with a bos token before each, and every window begins
    with a bos token of its own, as a model meets it in use.

    Args:
        corpus: a dataset with a `text` column.
        tokenizer: must have a bos token.
        length: tokens in a window, the bos token included.
        n_windows: how many; None takes all that are full.
        at_most: where to stop, if the corpus reaches so far; None reads all of it.

    Returns:
        Token ids, (n_windows, length).

    Raises:
        ValueError: the tokenizer has no bos token, or the corpus is shorter than asked.
    """
    if tokenizer.bos_token_id is None:
        raise ValueError(_no_token(tokenizer, "bos", "windows begin with it"))
    body = length - 1
    wanted = (n_windows or at_most or math.inf) * body
    ids = array("i")  # four bytes a token, where a list takes eight and more
    for texts in _batches(corpus):
        for document in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]:
            ids.append(tokenizer.bos_token_id)
            ids.extend(document)
        if len(ids) >= wanted:
            break
    available = len(ids) // body
    if available == 0 or (n_windows is not None and available < n_windows):
        raise ValueError(
            f"the corpus is shorter than asked: {len(ids)} tokens make {available} windows of "
            f"{length}, and {n_windows or 1} were asked; ask for fewer or shorter windows, or use "
            "a larger corpus"
        )
    n_windows = n_windows or min(available, at_most or available)
    windows = torch.frombuffer(ids, dtype=torch.int32, count=n_windows * body).long()
    windows = windows.view(n_windows, body)
    return torch.cat([torch.full((n_windows, 1), tokenizer.bos_token_id), windows], dim=1)


def text_windows(
    corpus: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    n_windows: int = 128,
    n_characters: int = 512,
    max_tokens: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The official protocol: adjacent windows of so many characters, tokenised and padded.

    Args:
        corpus: a dataset with a `text` column.
        tokenizer: must have a pad token.
        n_windows: how many.
        n_characters: in a window.
        max_tokens: where a window is cut off; None cuts nothing.

    Returns:
        Token ids and attention mask, both (n_windows, longest window), padded on the right.

    Raises:
        ValueError: the tokenizer has no pad token, or the corpus is shorter than asked.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError(_no_token(tokenizer, "pad", "windows of unequal length are padded"))
    wanted = n_windows * n_characters
    text, length = [], 0
    for document in chain.from_iterable(_batches(corpus)):
        text.append(document)
        length += len(document) + 2
        if length >= wanted:
            break
    joined = "\n\n".join(text)
    if len(joined) < wanted:
        raise ValueError(
            f"the corpus is shorter than asked: {len(joined)} characters make "
            f"{len(joined) // n_characters} windows of {n_characters}, and {n_windows} were "
            "asked; ask for fewer windows, or use a larger corpus"
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


def _batches(corpus: Dataset) -> Iterator[list[str]]:
    for start in range(0, len(corpus), BATCH):
        yield corpus[start : start + BATCH]["text"]


def _no_token(tokenizer: PreTrainedTokenizerBase, role: str, why: str) -> str:
    candidate = tokenizer.eos_token or "<token>"
    return (
        f"tokenizer '{tokenizer.name_or_path}' has no {role} token, and {why}; load it with "
        f"load_tokenizer(..., {role}_token='{candidate}')"
    )
