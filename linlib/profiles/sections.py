"""The sections of a profile, each for one part of the package."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt


class Settings(BaseModel):
    """What every section is: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ZooSettings(Settings):
    """The small decoders that a profile trains itself."""

    models: tuple[Literal["gpt2", "opt", "bloom", "pythia", "llama"], ...]
    """Architectures to train, one model each."""
    corpus: str
    """The text that they read; see `linlib.corpora.CORPORA`."""
    d_model: PositiveInt
    """Width of the residual stream."""
    n_blocks: PositiveInt
    """Decoder blocks."""
    n_heads: PositiveInt
    """Attention heads; must divide d_model."""
    vocab_size: PositiveInt
    """Entries of the byte-level BPE vocabulary."""
    length: PositiveInt
    """Tokens in a training window."""
    steps: PositiveInt
    """Optimiser steps."""
    batch_size: PositiveInt
    """Windows in a step."""
    learning_rate: PositiveFloat
    """Peak of the cosine schedule."""
    warmup_steps: int
    """Steps of linear warm-up."""
    workers: PositiveInt = 2
    """Models trained side by side, one thread each."""


class PretrainingSettings(Settings):
    """The Mistral models that a profile pretrains, plain and regularised."""

    corpus: str
    """The text that they read; see `linlib.corpora.CORPORA`."""
    vocab_size: PositiveInt
    """Entries of the byte-level BPE vocabulary."""
    length: PositiveInt
    """Tokens in a window."""
    heldout_windows: PositiveInt
    """Held-out windows on which every checkpoint is measured."""
    steps: PositiveInt
    """Optimiser steps."""
    batch_size: PositiveInt
    """Windows in a step."""
    warmup_steps: int
    """Steps of linear warm-up."""
    checkpoint_every: PositiveInt
    """Steps between checkpoints, beside the log-spaced ones."""
    runs: dict[str, dict[str, tuple[int, ...]]]
    """Size -> variant ("plain", "cosine-0.5", ...) -> seeds. The first size is the one tuned."""
    learning_rates: tuple[PositiveFloat, ...]
    """Peaks of the cosine schedule that are tried for the plain model."""
    initializer_ranges: tuple[PositiveFloat, ...]
    """Standard deviations of the initial weights that are tried for the plain model."""
    tuning_seed: int
    """Seed of the models that tune the recipe; none of those compared."""
    workers: PositiveInt = 2
    """Models trained side by side, one thread each."""
    windows_at_once: PositiveInt | None = None
    """Windows in the memory of a device; a larger batch is accumulated. None: all."""


class HubCheckpoints(Settings):
    """Checkpoints of one model's pretraining on the Hugging Face hub."""

    label: str
    """Name in figures."""
    checkpoints: dict[int, str]
    """Training step -> "repository@revision"."""
    bos_token: str | None = None
    """Token to open windows with, where the tokenizer names none."""
    pad_token: str | None = None
    """Token to pad with, where the tokenizer names none."""


class HubModel(Settings):
    """A pretrained decoder from the Hugging Face hub."""

    id: str
    """Repository on the hub."""
    label: str
    """Name in figures."""
    revision: str | None = None
    """Branch, tag or commit."""
    bos_token: str | None = None
    """Token to open windows with, where the tokenizer names none."""
    pad_token: str | None = None
    """Token to pad with, where the tokenizer names none."""


class FineTuningSettings(Settings):
    """Fine-tuning on the tasks of Table 1, with its controls."""

    models: tuple[str, ...]
    """Names of the profile's models in figures, without the profile's own name."""
    hub_models: tuple[HubModel, ...] = ()
    """Hub models that nothing else of the profile needs."""
    source: str
    """Where the tasks are: "storyworld", "hub", or a folder; see `linlib.corpora.benchmarks`."""
    tasks: tuple[str, ...]
    """See `linlib.finetune.TASK_NAMES`."""
    seeds: tuple[int, ...]
    """Of the head, the order of rows and the shuffling of labels."""
    train_texts: PositiveInt | None = None
    """Texts to choose from; a preference pair is two. None: all."""
    validation_texts: PositiveInt | None = None
    """Texts to validate on."""
    length: PositiveInt
    """The most tokens in a text."""
    steps: PositiveInt
    """Optimiser steps, the same for every task and control."""
    batch_size: PositiveInt
    """Texts in a step."""
    learning_rate: PositiveFloat
    """Peak of the linear schedule."""
    warmup_share: float
    """Share of the steps in which the learning rate rises."""
    drop_unusable: bool = False
    """Leave preference pairs with an empty or with two equal texts out, instead of stopping."""
    texts_at_once: PositiveInt | None = None
    """Texts in the memory of a device; a larger batch is accumulated. None: all."""
    checkpoint_every: PositiveInt | None = None
    """Steps between checkpoints; None: short runs, which begin again after a kill."""
    workers: PositiveInt = 2
    """Models fine-tuned side by side, one thread each."""


class EvaluationSettings(Settings):
    """What the pretrained Mistrals are asked: tasks, probes, and stories to tell."""

    source: Literal["storyworld", "hub"]
    """Where the tasks are: "storyworld", or "hub" for the harness's stock tasks."""
    tasks: tuple[str, ...]
    """See `linlib.evaluate.tasks.COLUMNS`."""
    rows: PositiveInt | None = None
    """Rows of each task; None: all, which storyworld, having no end, cannot give."""
    probe_stories: PositiveInt
    """Stories whose right and wrong endings are told apart by linear probes."""
    probe_variants: tuple[str, ...]
    """Variants that are probed."""
    judge: Literal["storyworld", "chat"]
    """Who judges stories: the world's deterministic judge, or a model behind an endpoint."""
    prompts: PositiveInt
    """Stories that each model continues."""
    samples: PositiveInt = 1
    """Answers of a chat judge to each story."""
    max_new_tokens: PositiveInt
    """Where a story is cut off."""
    temperature: float
    """Of the softmax that a story is drawn from."""
    batch_size: PositiveInt = 64
    """Texts at once."""
    workers: PositiveInt = 2
    """Models evaluated side by side, one thread each."""


class MeasureSettings(Settings):
    """What the measurements take."""

    n_windows: PositiveInt
    """Windows of held-out text."""
    length: PositiveInt
    """Tokens in a window."""
    batch_size: PositiveInt
    """Windows in a forward pass."""
    n_folds: PositiveInt
    """Folds of the held-out score."""
    checkpoint_windows: PositiveInt
    """Windows of held-out text for each checkpoint of a pretraining."""
    official_windows: PositiveInt
    """Windows of 512 characters under the official protocol."""
    layers_per_pass: PositiveInt | None = None
    """Layers whose moments are in memory at once (each takes 32 n_folds d^2 bytes); None: all."""
