"""The models of a profile: the zoo of small decoders, the Mistrals (section 4), pretrained ones.

What a profile trains itself is trained side by side through the store: a second call trains
nothing, and a call after a kill continues the unfinished runs.
"""

from __future__ import annotations

import inspect
import math
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
from linlib.training.pretraining import (
    DIVERGED_FILE,
    RUN,
    has_fast_bf16,
    measure_checkpoints,
    tokenise,
    train,
    train_or_diverge,
    validation_loss,
)
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
    "mistral-650m-laptop": (128, 6, 4),
    "mistral-150m-smoke": (32, 3, 4),
    "mistral-650m-smoke": (32, 4, 4),
}
ROUNDS = 3  # of widening a sweep of learning rates
FAILED = 0.5  # nats per token above the run that tuned a variant: a training that went wrong


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
    apart = [name for name in inspect.signature(train_or_diverge).parameters if name != "folder"]
    items = []
    for run in runs:
        options = options_for(train, section) | place | run
        items.append({name: options.pop(name) for name in apart[:-1]} | {"options": options})
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
    for (kind, seed), folder in zip(places, _train_all(settings, zoo, runs), strict=True):
        if (folder / DIVERGED_FILE).exists():
            raise FloatingPointError(
                f"{NAMES[kind]} of the zoo, seed {seed}: {(folder / DIVERGED_FILE).read_text()}"
            )
        found.setdefault(f"{NAMES[kind]} ({settings.name})", {})[seed] = folder
    return found


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
        diverged: whether its validation loss ended more than `FAILED` nats above that of the run
            that tuned its variant, or became NaN.
    """

    model: str
    size: str
    variant: str
    seed: int
    folder: Path
    diverged: bool = False

    @property
    def labels(self) -> dict[str, str | int | bool]:
        """The first columns of a frame about runs: all attributes but the folder."""
        return {name: value for name, value in vars(self).items() if name != "folder"}


def _mistral_text(section: object) -> dict[str, Path]:
    return training_text(section, section.steps * section.batch_size, section.heldout_windows)


def _train_mistrals(
    settings: object, wanted: Sequence[tuple[str, str, int]], tunings: Sequence[Mapping[str, float]]
) -> tuple[list[Path], list[float]]:
    """Train Mistrals, given by size, variant and seed, each with its tuning, slowest first.

    Returns:
        Their folders, and their validation losses in nats per token, NaN for a run that did not
        come to its end.
    """
    section = settings.pretraining
    text = _mistral_text(section)
    heldout = {"heldout": text.pop("heldout"), "device": settings.device}
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
    order = sorted(range(len(wanted)), key=lambda place: -SIZES[wanted[place][0]][1])
    folders = _train_all(settings, section, [items[place] for place in order])
    folders = [folders[order.index(place)] for place in range(len(wanted))]
    losses = parallel.side_by_side(
        validation_loss, [{"run": folder, **heldout} for folder in folders], settings.workers
    )
    return folders, [math.nan if loss is None else loss for loss in losses]


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


def tune_variants(
    settings: object, variants: Collection[str] | None = None
) -> tuple[dict[str, dict[str, float]], pd.DataFrame]:
    """Choose the learning rate of each variant by its own validation loss.

    The candidates of the profile are trained at full length, from a seed that is not compared
    later, in the first size that has the variant; larger sizes take over the choice. While the best
    of a variant is at an end of what was tried, the next one, twice or half as large, is tried too,
    up to `ROUNDS` times; a single candidate is taken as it is. The initialisation is chosen first,
    for the plain model, and is the same for all. Linearity plays no part.

    Args:
        settings: the profile.
        variants: those to tune; None takes all.

    Returns:
        Variant -> `learning_rate`, `initializer_range` and `validation_loss`; and the sweep:
        columns `size`, `variant`, `seed`, `learning_rate`, `initializer_range`, `validation_loss`
        (nats per token; NaN where the run diverged) and `chosen`.

    Raises:
        FloatingPointError: all runs of a variant diverged.
    """
    section = settings.pretraining
    size_of = {}
    for size, by_variant in section.runs.items():
        for variant in by_variant:
            if variants is None or variant in variants:
                size_of.setdefault(variant, size)
    first_size = next(iter(section.runs))
    rows: dict[tuple[str, float, float], dict[str, object]] = {}

    def attempt(tried: Iterable[tuple[str, float, float]]) -> None:
        new = [one for one in dict.fromkeys(tried) if one not in rows]
        wanted = [(size_of.get(one[0], first_size), one[0], section.tuning_seed) for one in new]
        tunings = [{"learning_rate": rate, "initializer_range": std} for _, rate, std in new]
        _, losses = _train_mistrals(settings, wanted, tunings)
        for one, run, tuned, loss in zip(new, wanted, tunings, losses, strict=True):
            rows[one] = dict(zip(RUN, run, strict=True)) | tuned | {"validation_loss": loss}

    def best_of(variant: str) -> dict[str, object]:
        of_variant = [row for one, row in rows.items() if one[0] == variant]
        finite = [row for row in of_variant if math.isfinite(row["validation_loss"])]
        if not finite:
            raise FloatingPointError(
                f"all runs that tune '{variant}' diverged; add smaller learning_rates than "
                f"{min(section.learning_rates)} to the profile"
            )
        return min(finite, key=lambda row: row["validation_loss"])

    attempt(product(["plain"], section.learning_rates, section.initializer_ranges))
    std = best_of("plain")["initializer_range"]
    attempt(product(size_of, section.learning_rates, [std]))
    for _ in range(ROUNDS if len(section.learning_rates) > 1 else 0):
        more = []
        for variant in dict.fromkeys(["plain", *size_of]):
            rates = sorted(rate for one, rate, spread in rows if (one, spread) == (variant, std))
            best = best_of(variant)["learning_rate"]
            more += [(variant, rates[0] / 2, std)] if best == rates[0] else []
            more += [(variant, rates[-1] * 2, std)] if best == rates[-1] else []
        attempt(more)
    sweep = pd.DataFrame(rows.values())
    sweep["chosen"] = [best_of(one[0]) is row for one, row in rows.items()]
    names = ("learning_rate", "initializer_range", "validation_loss")
    tuned = {variant: {name: best_of(variant)[name] for name in names} for variant in size_of}
    return tuned, sweep.sort_values(["variant", "initializer_range", "learning_rate"])


def train_variants(
    settings: object, variants: Collection[str] | None = None, sizes: Collection[str] | None = None
) -> list[Run]:
    """Train Mistrals of a profile, all or those named, each with its own tuning.

    Returns:
        One run per size, variant and seed, in the order of the profile. Those that became NaN have
        no model to be measured: they are left out, and the provenance names them.

    Raises:
        FloatingPointError: all runs of a variant became NaN.
    """
    tuned, _ = tune_variants(settings, variants)
    wanted = [
        (size, variant, seed)
        for size, by_variant in settings.pretraining.runs.items()
        for variant, seeds in by_variant.items()
        for seed in seeds
        if (sizes is None or size in sizes) and variant in tuned
    ]
    folders, losses = _train_mistrals(settings, wanted, [tuned[run[1]] for run in wanted])
    runs = []
    for (size, variant, seed), folder, loss in zip(wanted, folders, losses, strict=True):
        name = f"{size} {variant} seed {seed}"
        if not math.isfinite(loss):
            store.record("notes", name, "it diverged, and is left out")
            continue
        failed = loss > tuned[variant]["validation_loss"] + FAILED
        runs.append(Run(name, size, variant, seed, folder, failed))
        store.record("models", name, folder.name)  # it is not opened by `load_model`, which does so
    left = {(run.size, run.variant) for run in runs}
    if missing := sorted({run[:2] for run in wanted} - left):
        raise FloatingPointError(
            f"all runs of {missing} diverged; give other seeds, or smaller learning_rates"
        )
    return runs


# -------------------------------------------------------------------------- encoders (claim 15)


def train_directions(settings: object, seeds: Iterable[int]) -> list[tuple[str, int, Path]]:
    """Train pairs of twins that differ in their direction alone, on the text of the zoo.

    One reads from left to right and learns to find the next token; the other sees the whole window
    and learns to find masked tokens. Both are ModernBERTs of the zoo's shape in which all layers
    attend to the whole window; a seed fixes the order of the data.

    Returns:
        ("causal" or "bidirectional", seed, model folder) of each.
    """
    zoo = settings.require("zoo", "this comparison")
    text = training_text(zoo)
    tokenizer = load_tokenizer(text["tokenizer"])
    shape = _shape(tokenizer, zoo.seq_len, zoo.d_model, zoo.n_blocks, zoo.n_heads) | {
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
    folders = _train_all(settings, zoo, runs)
    for (direction, seed), folder in zip(places, folders, strict=True):
        if (folder / DIVERGED_FILE).exists():
            raise FloatingPointError(
                f"the {direction} twin of seed {seed}: {(folder / DIVERGED_FILE).read_text()}"
            )
    return [(*place, folder) for place, folder in zip(places, folders, strict=True)]
