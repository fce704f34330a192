"""The Mistrals of section 4, plain and regularised: tuned by variant, from several seeds."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd
from transformers import PreTrainedTokenizerBase

from linlib import parallel, store
from linlib.models import load_tokenizer
from linlib.training.pretraining import (
    RUN,
    measure_checkpoints,
    validation_loss,
)
from linlib.training.regularisers import parse_variant
from linlib.training.zoo import shape_of, train_all, training_text

# Width, blocks and query heads of a Mistral; four query heads share a key-value head, as in
# Mistral-7B. The paper gives names and no shapes: these reach the names with 32,000 untied
# embeddings.
SIZES = {
    "mistral-150m": (768, 12, 12),
    "mistral-650m": (1280, 24, 20),
    "mistral-150m-tiny": (96, 6, 4),
    "mistral-650m-laptop": (128, 6, 4),
    "mistral-150m-smoke": (32, 3, 4),
    "mistral-650m-smoke": (32, 4, 4),
}
ROUNDS = 3  # of widening a sweep of learning rates
FAILED = 0.5  # nats per token above the run that tuned a variant: a training that went wrong


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
    return shape_of(tokenizer, seq_len, d_model, n_blocks, n_heads) | {
        "model_type": "mistral",
        "intermediate_size": 4 * d_model,
        "num_key_value_heads": max(n_heads // 4, 1),
        "sliding_window": None,
        "tie_word_embeddings": False,
        "initializer_range": initializer_range,
    }


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
            that tuned its variant. Runs whose loss became NaN leave no model, and are named in the
            provenance alone.
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
    folders = train_all(settings, section, [items[place] for place in order])
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
