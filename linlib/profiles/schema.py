"""The typed profile: what a scale (`smoke`, `tiny`, `gpu`, `paper`) sets, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError

FOLDER = Path(__file__).parent


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ZooSettings(_Settings):
    """The small decoders that a profile trains itself."""

    models: tuple[Literal["gpt2", "opt", "bloom", "pythia", "llama"], ...]
    """Architectures to train, one model each."""
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


class PretrainingSettings(_Settings):
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


class HubCheckpoints(_Settings):
    """Checkpoints of one model's pretraining on the Hugging Face hub."""

    label: str
    """Name in figures."""
    checkpoints: dict[int, str]
    """Training step -> "repository@revision"."""
    bos_token: str | None = None
    """Token to open windows with, where the tokenizer names none."""
    pad_token: str | None = None
    """Token to pad with, where the tokenizer names none."""


class HubModel(_Settings):
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


class MeasureSettings(_Settings):
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


class Profile(_Settings):
    """Everything that depends on the scale."""

    name: str
    """The file's name."""
    description: str
    """What it takes: hardware, time, downloads."""
    corpus: str
    """The text that linearity is measured on; see `linlib.corpora.CORPORA`."""
    seed: int
    """Seed of initialisation, data order and sampling."""
    device: str
    """Torch device."""
    dtype: Literal["float32", "bfloat16", "float16"]
    """Weights of hub models."""
    zoo: ZooSettings | None = None
    """Models trained by the profile."""
    hub_models: tuple[HubModel, ...] = ()
    """Models downloaded by the profile."""
    hub_checkpoints: tuple[HubCheckpoints, ...] = ()
    """Pretrainings on the hub that the profile follows."""
    pretraining: PretrainingSettings | None = None
    """Regularised pretraining."""
    measure: MeasureSettings


def load_profile(name: str) -> Profile:
    """Read `linlib/profiles/<name>.yaml`.

    Raises:
        ValueError: no such profile, or a key of its file is unknown, missing or of a wrong type;
            the message names key and file.
    """
    path = FOLDER / f"{name}.yaml"
    known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
    if name not in known:
        raise ValueError(f"unknown profile '{name}'; choose from {known}, or add {path.name}")
    return read_profile(path)


def read_profile(path: Path) -> Profile:
    """Read a profile from any file; errors as `load_profile`."""
    try:
        return Profile(**yaml.safe_load(path.read_text()))
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        raise ValueError(f"profile file {path}: {'; '.join(problems)}") from None


def _explain(problem: dict) -> str:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}' (= {problem['input']!r}); remove it or correct its spelling"
    if problem["type"] == "missing":
        return f"key '{key}' is missing"
    return f"key '{key}' = {problem['input']!r}: {problem['msg']}"
