"""Open decoders and tokenizers from a folder or from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from linlib.models.architectures import architecture_of


def load_model(
    name_or_path: str | Path,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> PreTrainedModel:
    """Open a decoder for measuring: safetensors only, no remote code, in eval mode.

    Args:
        name_or_path: a folder that `save_pretrained` wrote, or a hub id.
        revision: branch, tag or commit on the hub, e.g. "step1000" of a Pythia.
        dtype: of the weights.
        device: where they go.

    Raises:
        FileNotFoundError: neither a folder nor a model that the hub has.
        ValueError: an encoder, an encoder-decoder, an architecture that linlib does not know, or
            a CUDA device where there is none.
    """
    config = load_config(name_or_path, revision)
    return _open(AutoModelForCausalLM, name_or_path, revision, config, dtype, device)


def load_classifier(
    name_or_path: str | Path,
    n_labels: int,
    pad_token_id: int,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> PreTrainedModel:
    """Open a decoder with a new head that classifies texts by the state of their last token.

    The head is drawn from torch's global generator. Arguments and errors as `load_model`.

    Args:
        name_or_path: a folder or a hub id.
        n_labels: classes; 1 makes a reward model.
        pad_token_id: tells padding from text, so that the last token of a text is found; any id
            that no text holds, of any architecture.
        revision: branch, tag or commit on the hub.
        dtype: of the weights.
        device: where they go.
    """
    config = load_config(name_or_path, revision)
    config.num_labels, config.pad_token_id = n_labels, pad_token_id
    head = AutoModelForSequenceClassification
    with _silent_about_new_head():
        return _open(head, name_or_path, revision, config, dtype, device)


def _open(
    head: type,
    name_or_path: str | Path,
    revision: str | None,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: str | torch.device,
) -> PreTrainedModel:
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device '{device}' was asked for, but torch finds no CUDA device here; use "
            "device='cpu', or a profile for the CPU such as 'tiny'"
        )
    architecture_of(config)
    model = head.from_pretrained(
        _folder_or_hub_id(name_or_path),
        revision=revision,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
    )
    return model.to(device).eval()


@contextmanager
def _silent_about_new_head() -> Iterator[None]:
    """A head that is new on purpose needs no report on every load."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def load_config(name_or_path: str | Path, revision: str | None = None) -> PreTrainedConfig:
    """Open a model's config without its weights; errors as `load_model`."""
    name = _folder_or_hub_id(name_or_path)
    try:
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except OSError as error:
        raise FileNotFoundError(_not_found("model", name, revision, error)) from error


def load_tokenizer(
    name_or_path: str | Path,
    revision: str | None = None,
    bos_token: str | None = None,
    pad_token: str | None = None,
) -> PreTrainedTokenizerBase:
    """Open a tokenizer; `bos_token` and `pad_token` name existing tokens to use in those roles.

    Raises:
        FileNotFoundError: neither a folder nor a tokenizer that the hub has.
        ValueError: a token named for a role is not in the vocabulary.
    """
    name = _folder_or_hub_id(name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    except OSError as error:
        raise FileNotFoundError(_not_found("tokenizer", name, revision, error)) from error
    vocabulary = tokenizer.get_vocab()
    for role, token in (("bos_token", bos_token), ("pad_token", pad_token)):
        if token is None:
            continue
        if token not in vocabulary:
            raise ValueError(
                f"{role} {token!r} is not in the vocabulary of {name}; its special tokens are "
                f"{tokenizer.all_special_tokens}"
            )
        setattr(tokenizer, role, token)
    return tokenizer


def _folder_or_hub_id(name_or_path: str | Path) -> str:
    """Refuse what can only be a path and is not there, before anything asks the hub for it."""
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if path.is_dir():
        return str(path)
    is_path = isinstance(name_or_path, Path) or name[:1] in "./~" or name.count("/") > 1
    if is_path or path.exists():
        raise FileNotFoundError(
            f"there is no model folder at {path}; give a folder with config.json and "
            "model.safetensors, as save_pretrained writes it, or a hub id such as 'gpt2'"
        )
    return name


def _not_found(kind: str, name: str, revision: str | None, error: OSError) -> str:
    at = f" at revision '{revision}'" if revision else ""
    reason = str(error).splitlines()[0]
    return (
        f"no {kind} '{name}'{at}: neither a folder here nor found on the Hugging Face hub "
        f"({reason}). Check the spelling, HF_TOKEN for a gated model, and the network"
    )
