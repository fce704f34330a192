"""The paper's Mistral models, plain and regularised (section 4), and their small twins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product

import pandas as pd
from transformers import MistralConfig, PreTrainedTokenizerBase

from linlib.models import load_tokenizer
from linlib.pretrain.jobs import Job, TrainedModel, run_side_by_side
from linlib.pretrain.recipe import Recipe
from linlib.pretrain.regularise import parse_variant
from linlib.pretrain.text import TrainingText
from linlib.profiles import Profile
from linlib.training import has_fast_bf16

Runs = Mapping[str, Mapping[str, Sequence[int]]]


@dataclass(frozen=True)
class Size:
    """Shape of a Mistral; four query heads share a key-value head, as in Mistral-7B."""

    d_model: int
    n_blocks: int
    n_heads: int

    @property
    def n_key_value_heads(self) -> int:
        """Heads of keys and values."""
        return max(self.n_heads // 4, 1)

    @property
    def d_mlp(self) -> int:
        """Width of the gated MLP."""
        return 4 * self.d_model


# The paper names its sizes and no shapes: these reach the names with 32,000 untied embeddings.
SIZES = {
    "mistral-150m": Size(768, 12, 12),
    "mistral-650m": Size(1280, 24, 20),
    "mistral-150m-tiny": Size(96, 6, 4),
    "mistral-650m-tiny": Size(128, 8, 4),
    "mistral-150m-smoke": Size(32, 3, 4),
    "mistral-650m-smoke": Size(32, 4, 4),
}


@dataclass(frozen=True)
class Tuned:
    """What the plain model was tuned for: its learning rate and initialisation."""

    learning_rate: float
    initializer_range: float


@dataclass(frozen=True)
class Variant:
    """One trained model of the comparison."""

    size: str
    variant: str
    seed: int
    model: TrainedModel


def mistral_config(
    size: str, tokenizer: PreTrainedTokenizerBase, length: int, initializer_range: float
) -> MistralConfig:
    """A Mistral of a named size.

    Raises:
        ValueError: an unknown size.
    """
    if size not in SIZES:
        raise ValueError(f"unknown Mistral size '{size}'; choose from {sorted(SIZES)}")
    shape = SIZES[size]
    return MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.n_blocks,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_key_value_heads,
        max_position_embeddings=length,
        sliding_window=None,
        tie_word_embeddings=False,
        initializer_range=initializer_range,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def training_text(profile: Profile) -> TrainingText:
    """What all Mistrals of a profile read."""
    settings = profile.pretraining
    return TrainingText.of(
        settings.corpus,
        settings.vocab_size,
        settings.length,
        most_windows=settings.steps * settings.batch_size,
        heldout_windows=settings.heldout_windows,
    )


def mistral_job(
    profile: Profile, text: TrainingText, size: str, variant: str, seed: int, tuned: Tuned
) -> Job:
    """The training of one model of the comparison, as a job of the store."""
    settings = profile.pretraining
    recipe = Recipe(
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=tuned.learning_rate,
        warmup_steps=settings.warmup_steps,
        seed=seed,
        device=profile.device,
        bf16=has_fast_bf16(profile.device),
        regulariser=parse_variant(variant),
        checkpoint_every=settings.checkpoint_every,
        windows_at_once=settings.windows_at_once,
    )
    tokenizer = load_tokenizer(text.tokenizer)
    config = mistral_config(size, tokenizer, settings.length, tuned.initializer_range)
    return Job(f"{size} {variant} seed {seed}", config, text, recipe)


def tune_plain(profile: Profile) -> tuple[Tuned, pd.DataFrame]:
    """Choose learning rate and initialisation by the plain model's validation loss alone.

    Every pair of the profile trains the first size, at full length, from a seed that is not
    compared later; the other sizes take over its choice. Linearity is not looked at.

    Returns:
        The choice, and the sweep: columns `size`, `learning_rate`, `initializer_range`, `seed`,
        `step`, `validation_loss` (nats per token) and `chosen`.
    """
    settings, text = profile.pretraining, training_text(profile)
    size = next(iter(settings.runs))
    grid = [Tuned(*pair) for pair in product(settings.learning_rates, settings.initializer_ranges)]
    jobs = [
        replace(
            mistral_job(profile, text, size, "plain", settings.tuning_seed, tuned),
            name=f"tuning: rate {tuned.learning_rate:g}, init {tuned.initializer_range:g}",
        )
        for tuned in grid
    ]
    rows = []
    for tuned, trained in zip(grid, run_side_by_side(jobs, settings.workers), strict=True):
        last = trained.measurements().query("step == step.max()").iloc[0]
        measured = {"step": last["step"], "validation_loss": last["validation_loss"]}
        rows.append({"size": size, **asdict(tuned), "seed": settings.tuning_seed, **measured})
    sweep = pd.DataFrame(rows)
    best = sweep["validation_loss"].idxmin()
    return grid[best], sweep.assign(chosen=sweep.index == best)


def train_variants(profile: Profile, tuned: Tuned, runs: Runs | None = None) -> list[Variant]:
    """Train sizes, variants and seeds that the store lacks, side by side.

    Args:
        profile: sets corpus, length and batch.
        tuned: learning rate and initialisation, the same for all.
        runs: size -> variant -> seeds; None is all that the profile compares.
    """
    wanted = [
        (size, variant, seed)
        for size, variants in (runs or profile.pretraining.runs).items()
        for variant, seeds in variants.items()
        for seed in seeds
    ]
    slowest_first = sorted(wanted, key=lambda run: -SIZES[run[0]].n_blocks)
    text = training_text(profile)
    jobs = [mistral_job(profile, text, *run, tuned) for run in slowest_first]
    trained = run_side_by_side(jobs, profile.pretraining.workers)
    models = dict(zip(slowest_first, trained, strict=True))
    return [Variant(*run, models[run]) for run in wanted]
