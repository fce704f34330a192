"""Profiles: what depends on the scale, in one YAML file each, read into frozen dataclasses."""

from __future__ import annotations

from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    AfterValidator,
    ConfigDict,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

FOLDER = Path(__file__).parent
section = dataclass(
    frozen=True,
    kw_only=True,
    config=ConfigDict(extra="forbid", use_attribute_docstrings=True),
)


def _exists(place: str) -> str:
    """Refuse a path to nothing; names of corpora and of what is on the hub pass."""
    path = Path(place).expanduser()
    endings = (".txt", ".jsonl", ".json", ".parquet", ".csv", ".gguf")
    is_path = place[:1] in "./~" or path.suffix in endings or place.count("/") > 1
    if is_path and not path.exists():
        raise ValueError("this path does not exist")
    if "/" in place and path.parent.is_dir() and not path.exists():  # as in `linlib.models`
        raise ValueError(
            f"this path does not exist; it is not taken for a hub id, since there is a folder "
            f"'{path.parent}'"
        )
    return place


Place = Annotated[str, AfterValidator(_exists)]


class NotMeasured(ValueError):
    """The profile lacks what a figure or table needs; its page says so and the rest goes on."""


@section
class ModelSettings:
    """A pretrained model: from the hub, or from a folder or file of your own."""

    id: Place
    """A packaged model, a repository on the hub, or the path of a folder or of a GGUF file."""
    label: str
    """Name in figures."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    bos_token: str | None = None
    """Token to open windows with, where the tokenizer names none."""
    pad_token: str | None = None
    """Token to pad with, where the tokenizer names none."""
    separator: str | None = None
    """What stood between two documents when the model was trained; see `linlib.token_windows`."""


@section
class CheckpointSettings:
    """Checkpoints of one model's pretraining."""

    label: str
    """Name in figures."""
    checkpoints: dict[int, Place]
    """Training step -> "repository@revision", or the path of a folder."""
    warmup_steps: NonNegativeInt
    """Steps of linear warm-up in that training, from whose end on Figure 2 compares."""
    bos_token: str | None = None
    """Token to open windows with, where the tokenizer names none."""
    pad_token: str | None = None
    """Token to pad with, where the tokenizer names none."""


@section
class ZooSettings:
    """The small decoders that a profile trains itself."""

    models: tuple[Literal["gpt2", "opt", "bloom", "pythia", "llama"], ...]
    """Architectures to train, one model per seed."""
    seeds: tuple[int, ...]
    """Of initialisation and data order; the models of Figures 1, 3, 7 and 9 are the first's."""
    corpus: Place
    """The text that they read: a corpus of `linlib.corpora.CORPORA`, or a path."""
    d_model: PositiveInt
    """Width of the residual stream."""
    n_blocks: PositiveInt
    """Decoder blocks."""
    n_heads: PositiveInt
    """Attention heads; must divide d_model."""
    vocab_size: PositiveInt
    """Entries of the byte-level BPE vocabulary."""
    seq_len: PositiveInt
    """Tokens in a training window."""
    steps: PositiveInt
    """Optimiser steps."""
    batch_size: PositiveInt
    """Windows per step."""
    learning_rate: PositiveFloat
    """Peak of the cosine schedule."""
    warmup_steps: NonNegativeInt
    """Steps of linear warm-up."""


@section
class PretrainingSettings:
    """The Mistral models that a profile pretrains, plain and regularised."""

    corpus: Place
    """The text that they read: a corpus of `linlib.corpora.CORPORA`, or a path."""
    vocab_size: PositiveInt
    """Entries of the byte-level BPE vocabulary."""
    seq_len: PositiveInt
    """Tokens in a window."""
    heldout_windows: PositiveInt
    """Held-out windows on which every checkpoint is measured."""
    steps: PositiveInt
    """Optimiser steps."""
    batch_size: PositiveInt
    """Windows per step."""
    warmup_steps: NonNegativeInt
    """Steps of linear warm-up."""
    checkpoint_interval: PositiveInt
    """Steps between checkpoints, beside the log-spaced ones."""
    runs: dict[str, dict[str, tuple[int, ...]]]
    """Size -> variant ("plain", "cosine-0.5", "cosine-0.5-from-embeddings", ...) -> seeds."""
    learning_rates: tuple[PositiveFloat, ...]
    """Peaks of the cosine schedule that are tried first, for each variant in its first size."""
    initializer_ranges: tuple[PositiveFloat, ...]
    """Standard deviations of the initial weights that are tried for the plain model."""
    tuning_seed: int
    """Seed of the models that tune a variant; none of those compared."""
    micro_batch_size: PositiveInt | None = None
    """Micro-batch size; gradients are accumulated up to `batch_size`. None: all at once."""


@section
class FineTuningSettings:
    """Fine-tuning on the tasks of Table 1, with its controls."""

    models: tuple[str, ...]
    """Names of the profile's models in figures, without the profile's own name."""
    extra_models: tuple[ModelSettings, ...] = ()
    """Models that nothing else of the profile needs."""
    source: Place
    """Where the tasks are: "storyworld", "hub", or a folder; see `linlib.corpora.load_task`."""
    tasks: tuple[str, ...]
    """Names of tasks: multirc, boolq, cb, reward_modeling."""
    seeds: tuple[int, ...]
    """Of the head, the order of rows, the shuffling of labels, and of a zoo's own training."""
    train_texts: PositiveInt | None = None
    """Texts to choose from; a preference pair is two. None: all."""
    validation_texts: PositiveInt | None = None
    """Texts to validate on."""
    seq_len: PositiveInt
    """The most tokens in a text."""
    steps: PositiveInt
    """Optimiser steps, the same for every task and control."""
    batch_size: PositiveInt
    """Texts per step."""
    learning_rate: PositiveFloat
    """Peak of the linear schedule."""
    warmup_ratio: float
    """Share of the steps in which the learning rate rises."""
    drop_unusable: bool = False
    """Leave preference pairs with an empty or with two equal texts out, instead of stopping."""
    micro_batch_size: PositiveInt | None = None
    """Micro-batch size; gradients are accumulated up to `batch_size`. None: all at once."""
    checkpoint_interval: PositiveInt | None = None
    """Steps between checkpoints; None: short runs, which begin again after a kill."""


@section
class EvaluationSettings:
    """What the pretrained Mistrals are asked: tasks, probes, and stories to continue."""

    source: Place
    """Where the tasks are: "storyworld", "hub", or a folder; see `linlib.corpora.load_task`."""
    tasks: tuple[str, ...]
    """Names of tasks; see `linlib.evaluate.harness.TASKS`."""
    rows: PositiveInt | None = None
    """Rows of each task; None: all, which storyworld, having no end, cannot give."""
    mean_columns: tuple[str, ...]
    """Columns of Table 2 in its mean, declared before any run is compared."""
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


@section
class DistillationSettings:
    """How the maps in the place of blocks are distilled; see `linlib.pruning.distil`."""

    steps: PositiveInt
    """Optimiser steps, at most."""
    batch_size: PositiveInt
    """Windows per step."""
    learning_rate: PositiveFloat
    """Peak of the cosine schedule."""
    warmup_steps: NonNegativeInt
    """Steps of linear warm-up."""
    evaluation_interval: PositiveInt
    """Steps between evaluations of the held-out loss."""
    patience: PositiveInt
    """Evaluations without a better loss after which training stops."""
    heldout_windows: PositiveInt
    """Windows of held-out text for those evaluations."""


@section
class PruningSettings:
    """Which models are pruned, and how far."""

    first_model: str
    """Model of Figures 6 and 8, by its label in figures without the profile's own name."""
    second_model: str | None = None
    """Model of Figure 7; None: the profile measures no Figure 7."""
    numbers: tuple[PositiveInt, ...]
    """How many blocks are left out, in ascending order; a model's own number is never reached."""
    stories: Place
    """The text on which Figures 6 to 8 fit and distil maps: a named corpus, or a path."""
    calibration_windows: PositiveInt
    """Windows of training text that orders and maps are taken from."""
    heldout_windows: PositiveInt
    """Windows of held-out text for the perplexity."""
    task: Literal["arc_easy", "continuation"]
    """What Figure 8 asks."""
    task_rows: PositiveInt | None = None
    """Questions of that task; None: all."""
    study_windows: PositiveInt
    """Windows of held-out text in the studies of many sets of blocks (06, 07, 20 and 22)."""
    random_subsets: PositiveInt
    """Random sets of each number of blocks, the null of 06, 07 and 20; all, if there are fewer."""
    ridge: float = 1e-4
    """Shrinks maps towards the identity."""
    batch_size: PositiveInt
    """Windows in a forward pass."""
    distillation: DistillationSettings
    """How maps are distilled."""


@section
class EncoderSettings:
    """Encoders, whose linearity notebook 23 puts beside that of decoders."""

    models: tuple[ModelSettings, ...]
    """Pretrained encoders."""
    seeds: tuple[int, ...]
    """Of pairs of twins of the zoo's shape, one causal and one bidirectional; () trains none."""


@section
class MeasureSettings:
    """What the measurements take."""

    n_windows: PositiveInt
    """Windows of held-out text."""
    seq_len: PositiveInt
    """Tokens in a window."""
    batch_size: PositiveInt
    """Windows in a forward pass."""
    n_folds: PositiveInt
    """Folds of the held-out score."""
    checkpoint_windows: PositiveInt
    """Windows of held-out text for each checkpoint of a pretraining run."""
    official_windows: PositiveInt
    """Windows of 512 characters under the official protocol."""
    layers_per_pass: PositiveInt | None = None
    """Layers whose moments are in memory at once (each takes 32 n_folds d^2 bytes); None: all."""


@section
class Profile:
    """Everything that depends on the scale."""

    name: str
    """The file's name without its ending; results and figures lie under it."""
    description: str
    """What it takes: hardware, time, downloads."""
    corpus: Place
    """The text that linearity is measured on: a corpus of `linlib.corpora.CORPORA`, or a path."""
    seed: int
    """Seed of initialisation, data order and sampling."""
    device: str
    """Torch device."""
    dtype: Literal["float32", "bfloat16", "float16"]
    """Weights of models that the profile does not train itself."""
    workers: PositiveInt = 1
    """Processes, of one thread each, in which independent small work runs side by side."""
    zoo: ZooSettings | None = None
    """Models trained by the profile."""
    models: tuple[ModelSettings, ...] = ()
    """Models of the hub, or your own."""
    checkpoints: tuple[CheckpointSettings, ...] = ()
    """Pretraining runs that the profile follows."""
    pretraining: PretrainingSettings | None = None
    """Regularised pretraining."""
    finetuning: FineTuningSettings | None = None
    """Fine-tuning and reward modelling."""
    evaluation: EvaluationSettings | None = None
    """Tasks, probes and stories for the Mistrals of `pretraining`."""
    pruning: PruningSettings | None = None
    """Depth pruning."""
    encoders: EncoderSettings | None = None
    """Encoders beside decoders."""
    measure: MeasureSettings
    """Windows, folds and batches."""

    def require(self, name: str, figure: str) -> object:
        """Return the section `name`, which `figure` (such as "Table 1") needs.

        Raises:
            NotMeasured: the profile has no such section.
        """
        if not (found := getattr(self, name)):
            raise NotMeasured(
                f"profile '{self.name}' has no section '{name}', so {figure} is not measured at "
                "this profile; add the section to its file, or choose another profile"
            )
        self._required.add(name)
        return found

    @cached_property
    def _required(self) -> set[str]:
        return set()

    def read(self) -> list[str]:
        """Names of the settings that a measurement has read: not the sections of other figures."""
        apart = {"finetuning", "evaluation", "pruning", "encoders"} - self._required
        return [field.name for field in fields(self) if field.name not in apart]


def load_profile(name: str | Path) -> Profile:
    """Read a profile: one of this package by its name, or a YAML file of your own by its path.

    Relative paths in a file of your own count from the current directory. Its texts and model
    folders are looked for at once, so that nothing is trained before a spelling mistake is found.

    Raises:
        ValueError: there is no such profile, or a key of its file is unknown, missing, of a wrong
            type, or a path to nothing; the message names key and file.
        FileNotFoundError: the file does not exist.
    """
    packaged = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    if name in packaged:
        return _read(FOLDER / f"{name}.yaml")
    path = Path(name).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        raise ValueError(
            f"unknown profile '{name}'; choose from {packaged}, or give the path of a .yaml file"
        )
    profile = _read(path)
    if path.stem != profile.name or profile.name in packaged:
        raise ValueError(
            f"profile file {path}: key 'name' = {profile.name!r} must be the file's own name, "
            f"'{path.stem}', and none of {packaged}"
        )
    return profile


def _read(path: Path) -> Profile:
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"profile file {path} is not YAML: {error}") from None
    try:
        return TypeAdapter(Profile).validate_python(values)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        raise ValueError(f"profile file {path}: {'; '.join(problems)}") from None


def _explain(problem: dict) -> str:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "unexpected_keyword_argument":
        return f"unknown key '{key}' (= {problem['input']!r}); remove it or correct its spelling"
    if problem["type"] == "missing":
        return f"key '{key}' is missing"
    return f"key '{key}' = {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}"
