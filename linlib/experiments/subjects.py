"""Who is measured, on which windows: the models of a profile and the held-out text."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from linlib.corpora import corpus_sha256, load_corpus, packed_windows
from linlib.measure import StreamMoments, collect_moments
from linlib.models import load_model, load_tokenizer
from linlib.pretrain import train_zoo
from linlib.profiles import HubModel, Profile
from linlib.store import build_once


@dataclass(frozen=True)
class Subject:
    """A model that is measured.

    Attributes:
        name: its label in figures.
        identity: what it is, in provenance: the key of its recipe, or hub id and revision.
        source: a folder or a hub id.
        settings: what the profile says of a hub model; None for one of the zoo.
    """

    name: str
    identity: str
    source: str | Path
    settings: HubModel | None = None

    def model(self, profile: Profile) -> PreTrainedModel:
        """Open it; models that the profile trained are measured in float32."""
        if self.settings is None:
            return load_model(self.source, device=profile.device)
        dtype = getattr(torch, profile.dtype)
        return load_model(self.source, self.settings.revision, dtype, profile.device)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Open its tokenizer."""
        hub = self.settings
        if hub is None:
            return load_tokenizer(self.source)
        return load_tokenizer(self.source, hub.revision, hub.bos_token, hub.pad_token)


@dataclass(frozen=True)
class Measurement:
    """Frames by the suffix of their file name ("" is the figure's own), and their provenance."""

    frames: dict[str, pd.DataFrame]
    provenance: dict[str, object]


NAMES = {"gpt2": "GPT-2", "opt": "OPT", "bloom": "BLOOM", "pythia": "Pythia", "llama": "Llama"}


def subjects(profile: Profile) -> list[Subject]:
    """The models of a profile, sorted by name: its own, trained first if need be, and the hub's."""
    found = []
    if profile.zoo is not None:
        for trained in train_zoo(profile):
            label = f"{NAMES[trained.name]} ({profile.name})"
            found.append(Subject(label, f"zoo/{trained.folder.name}", trained.folder))
    for hub in profile.hub_models:
        found.append(Subject(hub.label, f"{hub.id}@{hub.revision or 'main'}", hub.id, hub))
    return sorted(found, key=lambda subject: subject.name)


def opened(
    profile: Profile, everyone: Sequence[Subject]
) -> Iterator[tuple[Subject, PreTrainedModel, PreTrainedTokenizerBase]]:
    """Open one model after the other, and free each before the next."""
    for subject in tqdm(everyone, "models", unit="model"):
        model = subject.model(profile)
        yield subject, model, subject.tokenizer()
        del model
        gc.collect()


def heldout_windows(profile: Profile, tokenizer: PreTrainedTokenizerBase) -> tuple[Tensor, Tensor]:
    """Two disjoint sets of held-out windows: to fit maps on, and to look at their errors."""
    settings = profile.measure
    windows = packed_windows(
        load_corpus(profile.corpus, "heldout"), tokenizer, settings.length, 2 * settings.n_windows
    )
    return windows[: settings.n_windows], windows[settings.n_windows :]


def stored_moments(
    profile: Profile, subject: Subject, model: PreTrainedModel, windows: Tensor
) -> StreamMoments:
    """The moments of a model over windows: collected once, shared by every figure."""
    settings = profile.measure
    recipe = {
        "model": subject.identity,
        "dtype": profile.dtype,
        "device": profile.device,
        "windows": hashlib.sha256(windows.numpy().tobytes()).hexdigest(),
        "n_folds": settings.n_folds,
        "batch_size": settings.batch_size,
    }

    def build(folder: Path) -> None:
        collect_moments(
            model, windows, n_folds=settings.n_folds, batch_size=settings.batch_size
        ).save(folder)

    return StreamMoments.load(build_once("moments", recipe, build))


def provenance(profile: Profile, everyone: Sequence[Subject]) -> dict[str, object]:
    """What a measurement knows about where its numbers come from."""
    corpus = load_corpus(profile.corpus, "heldout")
    return {
        "parameters": profile.model_dump(exclude={"name", "description", "hub_models"}),
        "seeds": [profile.seed],
        "models": {subject.name: subject.identity for subject in everyone},
        "corpus": {
            "name": profile.corpus,
            "split": "heldout",
            "sha256": corpus_sha256(corpus),
        },
        "device": profile.device,
    }
