"""The models of a profile: pretrained ones, the zoo of small decoders, twins of two directions.

What a profile trains itself is trained side by side through the store: a second call trains
nothing, and a call after a kill continues the unfinished runs.
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from itertools import product
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedTokenizerBase

from linlib import parallel, store
from linlib.corpora import text_dataset, train_tokenizer
from linlib.models import commit_of, load_tokenizer
from linlib.training.pretraining import (
    DIVERGED_FILE,
    has_fast_bf16,
    tokenise,
    train,
    train_or_diverge,
)

# The zoo's name of an architecture -> its name in figures.
NAMES = {"gpt2": "GPT-2", "opt": "OPT", "bloom": "BLOOM", "pythia": "Pythia", "llama": "Llama"}


def zoo_config(kind: str, zoo: object, tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """The twin of an architecture (a key of `NAMES`), as arguments of `AutoConfig.for_model`."""
    own = {
        "gpt2": {
            "activation_function": "gelu_pytorch_tanh",  # gelu_new in one fused kernel
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
        },
        "opt": {
            "ffn_dim": 4 * zoo.d_model,
            "word_embed_proj_dim": zoo.d_model,
            "dropout": 0.0,
        },
        "bloom": {},
        "pythia": {"model_type": "gpt_neox", "intermediate_size": 4 * zoo.d_model},
        "llama": {"intermediate_size": 8 * zoo.d_model // 3},
    }[kind]
    shape = shape_of(tokenizer, zoo.seq_len, zoo.d_model, zoo.n_blocks, zoo.n_heads)
    return {"model_type": kind} | shape | own


def shape_of(
    tokenizer: PreTrainedTokenizerBase, seq_len: int, d_model: int, n_blocks: int, n_heads: int
) -> dict[str, object]:
    """What all architectures share; configs translate these names into their own."""
    return {
        "hidden_size": d_model,
        "num_hidden_layers": n_blocks,
        "num_attention_heads": n_heads,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": seq_len,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


# --------------------------------------------------------------------------------- training


def options_for(function: Callable, section: object) -> dict[str, object]:
    """The values of a profile's section that a function takes as arguments of the same names."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in vars(section).items() if name in parameters}


def training_text(
    section: object, at_most: int | None = None, heldout_windows: int | None = None
) -> dict[str, Path]:
    """A tokenizer trained on a corpus and the corpus as windows, from the cache where it has them.

    Args:
        section: of a profile, with `corpus`, `vocab_size` and `seq_len`.
        at_most: training windows to stop at; None takes the whole corpus.
        heldout_windows: windows of the held-out split; None makes none.

    Returns:
        The folders `tokenizer`, `windows` and, if asked for, `heldout`.
    """
    text = text_dataset(section.corpus, split="train")
    tokenizer = store.cached(train_tokenizer, corpus=text, vocab_size=section.vocab_size)
    common = {"tokenizer": tokenizer, "seq_len": section.seq_len}
    windows = store.cached(tokenise, text=text, at_most=at_most, **common)
    if heldout_windows is None:
        return {"tokenizer": tokenizer, "windows": windows}
    text = text_dataset(section.corpus, split="heldout")
    heldout = store.cached(tokenise, text=text, n_windows=heldout_windows, **common)
    return {"tokenizer": tokenizer, "windows": windows, "heldout": heldout}


def train_all(
    settings: object, section: object, runs: Sequence[Mapping[str, object]]
) -> list[Path]:
    """Train runs, given by the arguments of `train` that a section lacks, and return the folders.

    Where several processes share the work already (`torchrun`, `accelerate launch`), they train
    one run after the other, together.
    """
    place = {"device": settings.device, "bf16": has_fast_bf16(settings.device)}
    parameters = inspect.signature(train_or_diverge).parameters
    apart = [name for name in parameters if name not in ("folder", "options")]
    items = []
    for run in runs:
        options = options_for(train, section) | place | run
        items.append({name: options.pop(name) for name in apart} | {"options": options})
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return [_train_together(item) for item in items]
    return parallel.side_by_side(train_or_diverge, items, settings.workers, "training runs")


def _train_together(item: Mapping[str, object]) -> Path:
    """`store.cached` in step: the first process locks, decides and renames, all of them train."""
    group = PartialState(cpu=item["options"]["device"] == "cpu")
    artefact = store.artefact(train_or_diverge, **item)
    with artefact.lock() if group.is_main_process else nullcontext():
        (done,) = broadcast_object_list([artefact.folder.is_dir()])
        if not done:
            started = time.monotonic()
            artefact.partial.mkdir(parents=True, exist_ok=True)
            train_or_diverge(artefact.partial, **item)
            if group.is_main_process:
                artefact.complete(time.monotonic() - started, opened={})
            group.wait_for_everyone()
    return artefact.folder


def train_zoo(settings: object) -> dict[str, dict[int, Path]]:
    """Train the zoo of a profile, if it has one: names in figures -> seed -> model folder."""
    zoo = settings.zoo
    if zoo is None:
        return {}
    text = training_text(zoo)
    tokenizer = load_tokenizer(text["tokenizer"])
    places = list(product(zoo.models, zoo.seeds))
    runs = [
        {"config": zoo_config(kind, zoo, tokenizer), "seed": seed, **text} for kind, seed in places
    ]
    found: dict[str, dict[int, Path]] = {}
    for (kind, seed), folder in zip(places, train_all(settings, zoo, runs), strict=True):
        _check_finite(folder, f"{NAMES[kind]} of the zoo, seed {seed}")
        found.setdefault(f"{NAMES[kind]} ({settings.name})", {})[seed] = folder
    return found


def _check_finite(folder: Path, name: str) -> None:
    if (folder / DIVERGED_FILE).exists():
        raise FloatingPointError(f"{name}: {(folder / DIVERGED_FILE).read_text()}")


def models_of(
    settings: object,
    names: Iterable[str] | None = None,
    more: Sequence[object] = (),
    seed: int | None = None,
) -> dict[str, dict[str, object]]:
    """The models of a profile: labels in figures -> keyword arguments of `linlib.load`.

    What the profile trains itself (first, if need be) is measured in float32. Pretrained models
    are pinned to the commit that their revision stands for now.

    Args:
        settings: the profile.
        names: labels without the profile's own name, whose order is kept; the zoo is trained and
            a hub is asked for these only. None takes all, sorted by label.
        more: pretrained models that the profile names elsewhere.
        seed: which of the zoo's models; None: those of its first seed.

    Raises:
        ValueError: the profile has no such model, or its zoo no such seed.
    """
    pretrained = {model.label: model for model in (*settings.models, *more)}
    zoo = [NAMES[kind] for kind in settings.zoo.models] if settings.zoo is not None else []
    chosen = [*zoo, *pretrained] if names is None else list(names)
    if unknown := [name for name in chosen if name not in {*zoo, *pretrained}]:
        raise ValueError(
            f"profile '{settings.name}' names {unknown} and has no such models; it has "
            f"{sorted({*zoo, *pretrained})}"
        )
    of_zoo = [name for name in chosen if name not in pretrained]
    if of_zoo and seed is not None and seed not in settings.zoo.seeds:
        raise ValueError(
            f"profile '{settings.name}' trains no {of_zoo[0]} from seed {seed}; its zoo has the "
            f"seeds {list(settings.zoo.seeds)}"
        )
    trained = train_zoo(settings) if of_zoo else {}
    found = {}
    for name in chosen:
        if name in pretrained:
            found[name] = source_of(settings, pretrained[name])
        else:
            label = f"{name} ({settings.name})"
            folder = trained[label][settings.zoo.seeds[0] if seed is None else seed]
            found[label] = {"name_or_path": folder, "device": settings.device}
            store.record("models", label, folder.name)
    return dict(sorted(found.items())) if names is None else found


def source_of(settings: object, model: object, place: str | None = None) -> dict[str, object]:
    """Keyword arguments of `linlib.load` for a pretrained model that a profile names.

    Args:
        settings: the profile, for dtype and device.
        model: one of its `models` or `checkpoints`, for the tokens that its tokenizer lacks.
        place: "repository@revision" or a folder, of a checkpoint; None takes the model's own.
    """
    if place is None:
        name, revision = model.id, model.revision
    else:
        name, _, revision = place.partition("@")
    folder = Path(name).expanduser()
    return {
        "name_or_path": folder if folder.exists() else name,  # a Path is known by its content
        "revision": commit_of(name, revision or None),
        "dtype": settings.dtype,
        "device": settings.device,
        "bos_token": model.bos_token,
        "pad_token": model.pad_token,
    }


def published_checkpoints(settings: object, followed: object) -> dict[int, dict[str, object]]:
    """A pretraining run that a profile follows: training step -> keyword arguments of `load`."""
    return {step: source_of(settings, followed, at) for step, at in followed.checkpoints.items()}


def separator_of(settings: object, name: str) -> str | None:
    """What joins documents for a model of a profile, by its label; see `linlib.token_windows`.

    None is the default rule, which holds for models that are trained here as well.
    """
    named = settings.finetuning.extra_models if settings.finetuning is not None else ()
    separators = {model.label: model.separator for model in (*settings.models, *named)}
    return separators.get(name)


# -------------------------------------------------------------------------- encoders (claim 15)


def train_directions(settings: object, seeds: Iterable[int]) -> list[tuple[str, int, Path]]:
    """Train pairs of twins that differ in their direction alone, on the text of the zoo.

    One reads from left to right and learns to find the next token; the other sees the whole window
    and learns to find masked tokens. Both are ModernBERTs of the zoo's shape, without local
    attention; a seed fixes the order of the data.

    Returns:
        ("causal" or "bidirectional", seed, model folder) of each.
    """
    zoo = settings.require("zoo", "this comparison")
    text = training_text(zoo)
    tokenizer = load_tokenizer(text["tokenizer"])
    shape = shape_of(tokenizer, zoo.seq_len, zoo.d_model, zoo.n_blocks, zoo.n_heads) | {
        "intermediate_size": 2 * zoo.d_model,  # gated: 10 d^2 weights per block
        "global_attn_every_n_layers": 1,
        "cls_token_id": tokenizer.bos_token_id,
        "sep_token_id": tokenizer.eos_token_id,
    }
    kinds = {"causal": "modernbert-decoder", "bidirectional": "modernbert"}
    places = list(product(kinds, seeds))
    runs = [
        {"config": {"model_type": kinds[direction]} | shape, "seed": seed, **text}
        | ({"masked": True} if direction == "bidirectional" else {})
        for direction, seed in places
    ]
    folders = train_all(settings, zoo, runs)
    for (direction, seed), folder in zip(places, folders, strict=True):
        _check_finite(folder, f"the {direction} twin of seed {seed}")
    return [(*place, folder) for place, folder in zip(places, folders, strict=True)]
