"""The zoo: one small decoder of each kind, trained side by side on one text."""

from __future__ import annotations

from collections.abc import Callable

from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from linlib.models import load_tokenizer
from linlib.pretrain.jobs import Job, TrainedModel, run_side_by_side
from linlib.pretrain.recipe import Recipe
from linlib.pretrain.text import TrainingText
from linlib.profiles import Profile, ZooSettings
from linlib.training import has_fast_bf16


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


def train_zoo(profile: Profile) -> list[TrainedModel]:
    """Train the profile's models, those that the store lacks, side by side.

    A second call trains nothing, and a call after a kill goes on from the last checkpoints.
    """
    zoo = profile.zoo
    text = TrainingText.of(zoo.corpus, zoo.vocab_size, zoo.length)
    tokenizer = load_tokenizer(text.tokenizer)
    recipe = Recipe(
        steps=zoo.steps,
        batch_size=zoo.batch_size,
        learning_rate=zoo.learning_rate,
        warmup_steps=zoo.warmup_steps,
        seed=profile.seed,
        device=profile.device,
        bf16=has_fast_bf16(profile.device),
    )
    jobs = [Job(kind, zoo_config(kind, zoo, tokenizer), text, recipe) for kind in zoo.models]
    return run_side_by_side(jobs, zoo.workers)
