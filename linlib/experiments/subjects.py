"""Who is measured, on which windows: the models of a profile and the held-out text."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from linlib.corpora import corpus_sha256, load_corpus, packed_windows
from linlib.measure import StreamMoments, collect_moments
from linlib.models import load_config, load_model, load_tokenizer
from linlib.pretrain import TrainedModel, train_zoo
from linlib.profiles import HubModel, Profile
from linlib.store import build_once, code_digest
from linlib.training import has_fast_bf16

Result = TypeVar("Result")


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

    def open(self, profile: Profile) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Open model and tokenizer; what the profile trained itself is measured in float32."""
        hub = self.settings
        if hub is None:
            return load_model(self.source, device=profile.device), self.open_tokenizer()
        model = load_model(self.source, hub.revision, getattr(torch, profile.dtype), profile.device)
        return model, self.open_tokenizer()

    def open_tokenizer(self) -> PreTrainedTokenizerBase:
        """Open the tokenizer alone."""
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


def zoo_models(profile: Profile) -> dict[str, TrainedModel]:
    """The models that a profile trains itself, by their labels in figures; trained if need be."""
    if profile.zoo is None:
        return {}
    return {f"{NAMES[one.name]} ({profile.name})": one for one in train_zoo(profile)}


def subjects(profile: Profile) -> list[Subject]:
    """The models of a profile, sorted by name: its own, trained first if need be, and the hub's."""
    found = zoo_subjects(profile) + hub_subjects(profile.hub_models)
    return sorted(found, key=lambda subject: subject.name)


def zoo_subjects(profile: Profile) -> list[Subject]:
    """The models that a profile trains itself, trained if need be."""
    return [
        Subject(label, f"zoo/{trained.folder.name}", trained.folder)
        for label, trained in zoo_models(profile).items()
    ]


def hub_subjects(models: Sequence[HubModel]) -> list[Subject]:
    """Models of the hub, at the commits that their revisions stand for now."""
    return [Subject(hub.label, f"{hub.id}@{commit_of(hub)}", hub.id, hub) for hub in models]


def named_subjects(
    profile: Profile, names: Sequence[str], more: Sequence[HubModel] = ()
) -> list[Subject]:
    """Some of a profile's models, in the order given; of the others, none is trained or asked for.

    Args:
        profile: whose models.
        names: labels in figures, without the profile's own name.
        more: hub models that the profile names elsewhere.

    Raises:
        ValueError: the profile has no such model.
    """
    hub = {one.label: one for one in (*profile.hub_models, *more)}
    own = {NAMES[kind] for kind in profile.zoo.models} if profile.zoo else set()
    if unknown := [name for name in names if name not in hub.keys() | own]:
        raise ValueError(
            f"profile '{profile.name}' names {unknown}, and has no such models; it has "
            f"{sorted(hub.keys() | own)}"
        )
    found = hub_subjects([hub[name] for name in names if name in hub])
    found += zoo_subjects(profile) if own & set(names) else []
    known = {subject.name.removesuffix(f" ({profile.name})"): subject for subject in found}
    return [known[name] for name in names]


def commit_of(hub: HubModel) -> str:
    """The commit that a hub model's revision stands for now; of a folder, its weights' digest."""
    config = load_config(hub.id, hub.revision)
    folder = Path(hub.id)
    if folder.is_dir():
        return f"local-{_digest_of_weights(folder)}"
    return getattr(config, "_commit_hash", None) or hub.revision or "main"


def _digest_of_weights(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), folder / "config.json"]):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


def each(
    profile: Profile, everyone: Sequence[Subject], measure: Callable[[Profile, Subject], Result]
) -> list[Result]:
    """Measure one subject after the other; each model is freed before the next is opened."""
    results = []
    for subject in tqdm(everyone, "models", unit="model"):
        results.append(measure(profile, subject))
        gc.collect()
    return results


def heldout_windows(profile: Profile, tokenizer: PreTrainedTokenizerBase) -> tuple[Tensor, Tensor]:
    """Two disjoint sets of held-out windows: to fit maps on, and to look at their errors."""
    settings = profile.measure
    windows = packed_windows(
        load_corpus(profile.corpus, "heldout"), tokenizer, settings.length, 2 * settings.n_windows
    )
    return windows[: settings.n_windows], windows[settings.n_windows :]


def checkpoint_windows(profile: Profile, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """The held-out windows on which every checkpoint of a pretraining is measured."""
    settings = profile.measure
    heldout = load_corpus(profile.corpus, "heldout")
    return packed_windows(heldout, tokenizer, settings.length, settings.checkpoint_windows)


def moments_by_layers(
    profile: Profile, subject: Subject, model: PreTrainedModel, windows: Tensor, layers: list[int]
) -> Iterator[StreamMoments]:
    """Collect the moments of some layers, `layers_per_pass` of them at a time.

    A model small enough for one pass has its moments stored, and every figure shares them. Of a
    large one they would fill the disk: they are collected anew, and only one pass's are in memory.
    """
    settings = profile.measure
    options = {"n_folds": settings.n_folds, "batch_size": settings.batch_size}
    at_once = settings.layers_per_pass
    if at_once is not None:
        for start in range(0, len(layers), at_once):
            chosen = layers[start : start + at_once]
            yield collect_moments(model, windows, layers=chosen, progress=True, **options)
        return
    recipe = {
        "model": subject.identity,
        "device": profile.device,
        "windows": hashlib.sha256(windows.numpy().tobytes()).hexdigest(),
        "code": code_digest("linearity", "measure", "models"),
        **options,
    }
    folder = build_once(
        "moments",
        recipe,
        lambda folder: collect_moments(model, windows, **options).save(folder),
    )
    moments = StreamMoments.load(folder)
    yield StreamMoments(
        moments.n_blocks,
        {layer: moments.first[layer] for layer in layers},
        {layer: moments.rest[layer] for layer in layers},
    )


def provenance(profile: Profile, everyone: Sequence[Subject]) -> dict[str, object]:
    """What a measurement knows about where its numbers come from."""
    trains = any((profile.zoo, profile.pretraining, profile.finetuning))
    return {
        "parameters": profile.model_dump(exclude={"name", "description", "hub_models"}),
        "seeds": [profile.seed],
        "models": {subject.name: subject.identity for subject in everyone},
        "bf16_training": trains and has_fast_bf16(profile.device),
        "corpus": corpus_record(profile.corpus),
        "device": profile.device,
    }


def corpus_record(name: str) -> dict[str, str]:
    """The text that something was measured on, for provenance."""
    digest = corpus_sha256(load_corpus(name, "heldout"))
    return {"name": name, "split": "heldout", "sha256": digest}
