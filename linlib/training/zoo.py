"""The models of a profile: the zoo of small decoders, the Mistrals (section 4), pretrained ones.

What a profile trains itself is trained side by side through the store: a second call trains
nothing, and a call after a kill continues the unfinished runs.
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedTokenizerBase

from linlib import parallel, store
from linlib.corpora import text_dataset, train_tokenizer
from linlib.models import commit_of, load_tokenizer
from linlib.training.pretraining import has_fast_bf16, measure_checkpoints, tokenise, train
from linlib.training.regularisers import parse_variant

# The zoo's name of an architecture -> its name in figures.
NAMES = {"gpt2": "GPT-2", "opt": "OPT", "bloom": "BLOOM", "pythia": "Pythia", "llama": "Llama"}

# Width, blocks and query heads of a Mistral; four query heads share a key-value head, as in
# Mistral-7B. The paper gives names and no shapes: these reach the names with 32,000 untied
# embeddings.
SIZES = {
    "mistral-150m": (768, 12, 12),
    "mistral-650m": (1280, 24, 20),
    "mistral-150m-tiny": (96, 6, 4),
    "mistral-650m-tiny": (128, 8, 4),
    "mistral-150m-smoke": (32, 3, 4),
    "mistral-650m-smoke": (32, 4, 4),
}


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
    shape = _shape(tokenizer, zoo.seq_len, zoo.d_model, zoo.n_blocks, zoo.n_heads)
    return {"model_type": kind} | shape | own


def mistral_config(
    size: str, tokenizer: PreTrainedTokenizerBase, seq_len: int, initializer_range: float
) -> dict[str, object]:
    """A Mistral of a size of `SIZES`, as arguments of `AutoConfig.for_model`.

    Raises:
        ValueError: the size is unknown.
    """
    if size not in SIZES:
        raise ValueError(f"unknown Mistral size '{size}'; choose from {sorted(SIZES)}")
    d_model, n_blocks, n_heads = SIZES[size]
    return _shape(tokenizer, seq_len, d_model, n_blocks, n_heads) | {
        "model_type": "mistral",
        "intermediate_size": 4 * d_model,
        "num_key_value_heads": max(n_heads // 4, 1),
        "sliding_window": None,
        "tie_word_embeddings": False,
        "initializer_range": initializer_range,
    }


def _shape(
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


def _train_all(
    settings: object, section: object, runs: Sequence[Mapping[str, object]]
) -> list[Path]:
    """Train runs, given by the arguments of `train` that a section lacks, and return the folders.

    Where several processes share the work already (`torchrun`, `accelerate launch`), they train
    one run after the other, together.
    """
    place = {"device": settings.device, "bf16": has_fast_bf16(settings.device)}
    items = [options_for(train, section) | place | run for run in runs]
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return [_train_together(item) for item in items]
    return parallel.side_by_side(train, items, settings.workers, "training runs")


def _train_together(item: Mapping[str, object]) -> Path:
    """`store.cached` in step: the first process locks, decides and renames, all of them train."""
    group = PartialState(cpu=item["device"] == "cpu")
    artefact = store.artefact(train, **item)
    with artefact.lock() if group.is_main_process else nullcontext():
        (done,) = broadcast_object_list([artefact.folder.is_dir()])
        if not done:
            started = time.monotonic()
            artefact.partial.mkdir(parents=True, exist_ok=True)
            train(artefact.partial, **item)
            if group.is_main_process:
                artefact.complete(time.monotonic() - started, opened={})
            group.wait_for_everyone()
    return artefact.folder


def train_zoo(settings: object) -> dict[str, Path]:
    """Train the zoo of a profile, if it has one: names in figures -> model folders."""
    zoo = settings.zoo
    if zoo is None:
        return {}
    text = training_text(zoo)
    tokenizer = load_tokenizer(text["tokenizer"])
    runs = [
        {"config": zoo_config(kind, zoo, tokenizer), "seed": settings.seed, **text}
        for kind in zoo.models
    ]
    labels = [f"{NAMES[kind]} ({settings.name})" for kind in zoo.models]
    return dict(zip(labels, _train_all(settings, zoo, runs), strict=True))


def models_of(
    settings: object, names: Iterable[str] | None = None, more: Sequence[object] = ()
) -> dict[str, dict[str, object]]:
    """The models of a profile: labels in figures -> keyword arguments of `linlib.load`.

    What the profile trains itself (first, if need be) is measured in float32. Pretrained models
    are pinned to the commit that their revision stands for now.

    Args:
        settings: the profile.
        names: labels without the profile's own name, whose order is kept; the zoo is trained and
            a hub is asked for these only. None takes all, sorted by label.
        more: pretrained models that the profile names elsewhere.

    Raises:
        ValueError: the profile has no such model.
    """
    pretrained = {model.label: model for model in (*settings.models, *more)}
    zoo = [NAMES[kind] for kind in settings.zoo.models] if settings.zoo is not None else []
    chosen = [*zoo, *pretrained] if names is None else list(names)
    if unknown := [name for name in chosen if name not in {*zoo, *pretrained}]:
        raise ValueError(
            f"profile '{settings.name}' names {unknown} and has no such models; it has "
            f"{sorted({*zoo, *pretrained})}"
        )
    trained = train_zoo(settings) if not pretrained.keys() >= set(chosen) else {}
    found = {}
    for name in chosen:
        if name in pretrained:
            found[name] = source_of(settings, pretrained[name])
        else:
            label = f"{name} ({settings.name})"
            found[label] = {"name_or_path": trained[label], "device": settings.device}
            store.record("models", label, trained[label].name)
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


def separator_of(settings: object, name: str) -> str | None:
    """What joins documents for a model of a profile, by its label; see `linlib.token_windows`.

    None is the default rule, which holds for models that are trained here as well.
    """
    named = settings.finetuning.extra_models if settings.finetuning is not None else ()
    separators = {model.label: model.separator for model in (*settings.models, *named)}
    return separators.get(name)


# --------------------------------------------------------------------------------- Mistrals


@dataclass(frozen=True)
class Run:
    """One trained Mistral of a comparison.

    Attributes:
        model: its name, made of the others.
        size: a key of `SIZES`.
        variant: "plain", or the name of a regulariser (`parse_variant`).
        seed: of initialisation and data order.
        folder: its Hugging Face folder, with all checkpoints.
    """

    model: str
    size: str
    variant: str
    seed: int
    folder: Path

    @property
    def labels(self) -> dict[str, str | int]:
        """The first columns of a frame about runs: `model`, `size`, `variant`, `seed`."""
        return {name: value for name, value in vars(self).items() if name != "folder"}


def _mistral_text(section: object) -> dict[str, Path]:
    return training_text(section, section.steps * section.batch_size, section.heldout_windows)


def _train_mistrals(
    settings: object, wanted: Sequence[tuple[str, str, int]], tunings: Sequence[Mapping[str, float]]
) -> list[Run]:
    """Train Mistrals, given by size, variant and seed, each with its tuning."""
    section = settings.pretraining
    text = _mistral_text(section)
    text.pop("heldout")
    tokenizer = load_tokenizer(text["tokenizer"])
    items = [
        {
            "config": mistral_config(size, tokenizer, section.seq_len, tuned["initializer_range"]),
            "learning_rate": tuned["learning_rate"],
            "seed": seed,
            "regulariser": parse_variant(variant),
            **text,
        }
        for (size, variant, seed), tuned in zip(wanted, tunings, strict=True)
    ]
    folders = _train_all(settings, section, items)
    return [
        Run(f"{size} {variant} seed {seed}", size, variant, seed, folder)
        for (size, variant, seed), folder in zip(wanted, folders, strict=True)
    ]


def measurements(settings: object, runs: Sequence[Run]) -> list[pd.DataFrame]:
    """Measure all checkpoints of some runs on held-out windows, from the cache where it has them.

    Returns:
        One frame per run: `linearity_profile` of each checkpoint, with its `validation_loss` (nats
        per token) and `step`.

    Raises:
        FloatingPointError: the states of a checkpoint are not finite; the step is named.
    """
    common = {"heldout": _mistral_text(settings.pretraining)["heldout"], "device": settings.device}
    items = [{"run": run.folder, **common} for run in runs]
    return parallel.side_by_side(measure_checkpoints, items, settings.workers, "measurements")


def tune_plain(settings: object) -> tuple[dict[str, float], pd.DataFrame]:
    """Choose learning rate and initialisation by the validation loss of the plain model alone.

    Each pair of the profile trains the first size, at full length, from a seed that is not
    compared later; the other sizes take over its choice. Linearity plays no part.

    Returns:
        `learning_rate` and `initializer_range`, and the sweep: columns `size`, `learning_rate`,
        `initializer_range`, `seed`, `step`, `validation_loss` (nats per token) and `chosen`.
    """
    section = settings.pretraining
    size, seed = next(iter(section.runs)), section.tuning_seed
    grid = [
        {"learning_rate": rate, "initializer_range": spread}
        for rate, spread in product(section.learning_rates, section.initializer_ranges)
    ]
    runs = _train_mistrals(settings, [(size, "plain", seed)] * len(grid), grid)
    rows = []
    for tuned, frame in zip(grid, measurements(settings, runs), strict=True):
        last = frame.iloc[-1][["step", "validation_loss"]]
        rows.append({"size": size, **tuned, "seed": seed, **last})
    sweep = pd.DataFrame(rows)
    best = sweep["validation_loss"].idxmin()
    return grid[best], sweep.assign(chosen=sweep.index == best)


def train_variants(
    settings: object, variants: Collection[str] | None = None, sizes: Collection[str] | None = None
) -> list[Run]:
    """Train Mistrals of a profile, all or those named, tuned as the plain one.

    Returns:
        One run per size, variant and seed, in the order of the profile.
    """
    tuned, _ = tune_plain(settings)
    wanted = [
        (size, variant, seed)
        for size, by_variant in settings.pretraining.runs.items()
        for variant, seeds in by_variant.items()
        for seed in seeds
        if (sizes is None or size in sizes) and (variants is None or variant in variants)
    ]
    slowest_first = sorted(wanted, key=lambda run: -SIZES[run[0]][1])
    runs = _train_mistrals(settings, slowest_first, [tuned] * len(wanted))
    for run in runs:  # they are not opened by `load_model`, which records what it opens
        store.record("models", run.model, run.folder.name)
    return sorted(runs, key=lambda run: wanted.index((run.size, run.variant, run.seed)))
