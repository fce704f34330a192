"""The zoo: one small decoder of each kind, trained side by side on one text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from joblib import Parallel, delayed, parallel_config
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from linlib.corpora import corpus_sha256, load_corpus, packed_windows, train_tokenizer
from linlib.models import load_tokenizer
from linlib.pretrain.progress import shared_progress
from linlib.pretrain.train import Recipe, has_fast_bf16, train
from linlib.profiles import Profile, ZooSettings
from linlib.store import artefact_folder, build_once, code_digest, partial_folder

WINDOWS_FILE = "windows.safetensors"


@dataclass(frozen=True)
class TrainedModel:
    """A model of the zoo: its name and its Hugging Face folder."""

    name: str
    folder: Path

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Model folders by training step, in order."""
        found = {int(p.name[4:]): p for p in (self.folder / "checkpoints").glob("step*[0-9]")}
        return dict(sorted(found.items()))


def _sizes(settings: ZooSettings) -> dict[str, int]:
    return {
        "hidden_size": settings.d_model,
        "num_hidden_layers": settings.n_blocks,
        "num_attention_heads": settings.n_heads,
    }


# The zoo's name for a kind -> its model_type, and what its config takes at the zoo's size.
KINDS: dict[str, tuple[str, Callable[[ZooSettings], dict[str, object]]]] = {
    "gpt2": (
        "gpt2",
        lambda zoo: {
            "n_embd": zoo.d_model,
            "n_layer": zoo.n_blocks,
            "n_head": zoo.n_heads,
            "activation_function": "gelu_pytorch_tanh",  # gelu_new in one fused kernel
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
        },
    ),
    "opt": (
        "opt",
        lambda zoo: {
            **_sizes(zoo),
            "ffn_dim": 4 * zoo.d_model,
            "word_embed_proj_dim": zoo.d_model,
            "dropout": 0.0,
        },
    ),
    "bloom": (
        "bloom",
        lambda zoo: {"hidden_size": zoo.d_model, "n_layer": zoo.n_blocks, "n_head": zoo.n_heads},
    ),
    "pythia": ("gpt_neox", lambda zoo: {**_sizes(zoo), "intermediate_size": 4 * zoo.d_model}),
    "llama": ("llama", lambda zoo: {**_sizes(zoo), "intermediate_size": 8 * zoo.d_model // 3}),
}


def zoo_config(
    kind: str, settings: ZooSettings, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedConfig:
    """The small twin of an architecture: its own design, at the width and depth of the zoo."""
    model_type, options = KINDS[kind]
    return AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer),
        max_position_embeddings=settings.length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options(settings),
    )


@dataclass(frozen=True)
class ZooText:
    """What all models of a zoo read: tokenizer and training windows, as folders of the store."""

    sha256: str
    tokenizer: Path
    windows: Path

    @classmethod
    def of(cls, profile: Profile) -> ZooText:
        """Tokenise the profile's training text, or find it tokenised."""
        text, zoo = load_corpus(profile.corpus, "train"), profile.zoo
        recipe = {"corpus": corpus_sha256(text), "vocab_size": zoo.vocab_size}

        def build_tokenizer(folder: Path) -> None:
            train_tokenizer(text, zoo.vocab_size, folder)

        tokenizer = build_once("tokenizer", recipe, build_tokenizer)

        def build_windows(folder: Path) -> None:
            windows = packed_windows(text, load_tokenizer(tokenizer), zoo.length)
            save_file({"windows": windows}, folder / WINDOWS_FILE)

        windows = build_once("windows", {**recipe, "length": zoo.length}, build_windows)
        return cls(recipe["corpus"], tokenizer, windows)


def train_zoo(profile: Profile) -> list[TrainedModel]:
    """Train the profile's models, those that the store lacks, side by side.

    Every job is a plain function of its arguments with its result in the store: a second call
    trains nothing, and a call after a kill goes on from the last checkpoints.
    """
    text, zoo = ZooText.of(profile), profile.zoo
    recipe = Recipe(
        steps=zoo.steps,
        batch_size=zoo.batch_size,
        learning_rate=zoo.learning_rate,
        warmup_steps=zoo.warmup_steps,
        seed=profile.seed,
        device=profile.device,
        bf16=has_fast_bf16(profile.device),
    )
    jobs = {}
    for kind in zoo.models:
        config = zoo_config(kind, zoo, load_tokenizer(text.tokenizer))
        settings = {
            "config": config.to_diff_dict() | {"transformers_version": None},
            "corpus": text.sha256,
            "recipe": asdict(recipe),
            "code": code_digest("pretrain/train.py"),
            "torch": version("torch"),
            "transformers": version("transformers"),
        }
        jobs[kind] = (config, text, recipe, settings)
    missing = {k: job for k, job in jobs.items() if not artefact_folder("model", job[-1]).is_dir()}
    if missing:
        folders = {kind: partial_folder("model", job[-1]) for kind, job in missing.items()}
        with (
            parallel_config("loky", n_jobs=zoo.workers, inner_max_num_threads=1),
            shared_progress(folders, zoo.steps),
        ):
            Parallel()(delayed(_train_one)(*job) for job in missing.values())
    return [TrainedModel(kind, artefact_folder("model", job[-1])) for kind, job in jobs.items()]


def _train_one(
    config: PreTrainedConfig, text: ZooText, recipe: Recipe, settings: dict[str, object]
) -> None:
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(text.tokenizer)
    windows = load_file(text.windows / WINDOWS_FILE)["windows"]
    build_once("model", settings, lambda folder: train(config, windows, recipe, tokenizer, folder))
