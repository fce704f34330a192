"""Text to tokens: a byte-level BPE tokenizer, token windows, and the official character windows."""

from __future__ import annotations

import math
from array import array
from itertools import repeat
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
    separator: str | None = None,
    return_documents: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Cut text into windows of equal length, which need no padding.

    Each window begins with a bos token, as a model meets it in use, and holds no other: a bos token
    in mid-window draws attention as the first one does, and its state becomes as large. Names of
    special tokens in the text are text. Documents are joined in their order by the separator that
    the model was trained with. Where one token is both bos and eos, as of GPT-2 and OPT, that token
    is the separator of training, and so it does occur in mid-window.

    Args:
        text: the name of a corpus, the path of a file, a dataset, or a list of strings; see
            `linlib.corpora.text_dataset`.
        tokenizer: must have a bos token.
        seq_len: tokens per window, the bos token included.
        n_windows: how many windows; None takes all that are full.
        at_most: stop at this number of windows if the text has more; None reads all of it.
        split: "train" or "heldout"; see `linlib.corpora.text_dataset`.
        column: where the texts are, in a file or dataset with columns.
        separator: what joins two documents, one token or more. None takes the eos token, or a blank
            line where the tokenizer has none or has a chat template: there, eos ends a turn.
        return_documents: whether to return the document of each token as well.

    Returns:
        Token ids, (n_windows, seq_len). With `return_documents` also the number of each token's
        document, counted from 0, of the same shape. Texts that share a `source` (a column of
        strings, as pydocs has it) are one document; a separator belongs to the document before it,
        and a bos token to that of the token after it.

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
    between = _separator_ids(tokenizer, separator)
    ids, documents = array("i"), array("i")  # four bytes per token; a list takes eight and more
    known: dict[str, int] = {}  # source -> number of the document
    n_documents = number = 0
    for texts in corpora.text_dataset(text, column, split).iter(BATCH):
        tokens = tokenizer(
            texts["text"], add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
        for one, source in zip(tokens, texts.get("source", repeat(None)), strict=False):
            if ids:
                ids.extend(between)
            if return_documents:
                documents.extend(repeat(number, len(ids) - len(documents)))  # the separator
                number = n_documents if source is None else known.setdefault(source, n_documents)
                n_documents += number == n_documents
                documents.extend(repeat(number, len(one)))
            ids.extend(one)
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

    def cut(values: array) -> Tensor:
        flat = torch.frombuffer(values, dtype=torch.int32, count=n_windows * body).long()
        return flat.view(n_windows, body)  # (n_windows * body,) -> (n_windows, body)

    first = torch.full((n_windows, 1), tokenizer.bos_token_id)
    windows = torch.cat([first, cut(ids)], dim=1)
    if not return_documents:
        return windows
    numbers = cut(documents)
    return windows, torch.cat([numbers[:, :1], numbers], dim=1)


def _separator_ids(tokenizer: PreTrainedTokenizerBase, separator: str | None) -> list[int]:
    if separator is None:
        if tokenizer.eos_token_id is not None and not tokenizer.chat_template:
            return [tokenizer.eos_token_id]
        separator = "\n\n"
    return tokenizer(separator, add_special_tokens=False)["input_ids"]


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
