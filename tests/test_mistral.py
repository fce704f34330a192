"""The Mistral models of section 4: sizes, variants, tuning, and runs that are found again."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from linlib.experiments import dynamics, regularised
from linlib.models import decoder_blocks, load_tokenizer
from linlib.pretrain import (
    SIZES,
    Regulariser,
    mistral_config,
    parse_variant,
    train_variants,
    tune_plain,
)
from linlib.profiles import load_profile


@pytest.mark.parametrize(("size", "parameters"), [("mistral-150m", 150e6), ("mistral-650m", 650e6)])
def test_the_sizes_are_those_of_their_names(tokenizer_folder, size, parameters):
    config = mistral_config(size, load_tokenizer(tokenizer_folder), 512, 0.02)
    config.vocab_size = 32_000
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    assert model.num_parameters() == pytest.approx(parameters, rel=0.03)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_a_mistral_whose_blocks_can_be_read(tokenizer_folder, size):
    config = mistral_config(size, load_tokenizer(tokenizer_folder), 64, 0.05)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert len(decoder_blocks(model)) == SIZES[size].n_blocks
    attention = decoder_blocks(model)[0].self_attn
    assert attention.q_proj.out_features == 4 * attention.k_proj.out_features
    assert config.initializer_range == 0.05


def test_an_unknown_size_is_refused(tokenizer_folder):
    with pytest.raises(ValueError, match="unknown Mistral size 'mistral-7b'; choose from"):
        mistral_config("mistral-7b", load_tokenizer(tokenizer_folder), 64, 0.02)


def test_variants_are_named_after_their_term():
    assert parse_variant("plain") is None
    assert parse_variant("cosine-0.5") == Regulariser("cosine", 0.5)
    assert parse_variant("mse-2.0") == Regulariser("mse", 2.0)


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("cosin-0.5", "'cosin-0.5' is neither.*unknown regulariser 'cosin'.*'cosine', 'mse'"),
        ("cosine--1", "'cosine--1' is neither.*not negative, got -1.0"),
        ("mse-nan", "must be a finite number.*got nan"),
        ("mse", "'mse' is neither 'plain' nor '<kind>-<lambda>'"),
    ],
)
def test_a_variant_that_makes_no_sense_is_refused(variant, message):
    with pytest.raises(ValueError, match=message):
        parse_variant(variant)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINLIB_ROOT", str(tmp_path_factory.mktemp("root")))
        profile = load_profile("smoke")
        tuned, sweep = tune_plain(profile)
        yield profile, tuned, sweep, train_variants(profile, tuned)


def test_the_plain_model_is_tuned_by_its_loss_alone(compared):
    profile, tuned, sweep, _ = compared
    settings = profile.pretraining
    assert len(sweep) == len(settings.learning_rates) * len(settings.initializer_ranges)
    best = sweep.loc[sweep["validation_loss"].idxmin()]
    assert best["chosen"] and sweep["chosen"].sum() == 1
    assert best["learning_rate"] == tuned.learning_rate
    compared_seeds = {
        seed for runs in settings.runs.values() for ids in runs.values() for seed in ids
    }
    assert settings.tuning_seed not in compared_seeds


def test_every_variant_and_seed_is_a_run_of_its_own(compared):
    profile, tuned, _, runs = compared
    wanted = sum(
        len(seeds) for size in profile.pretraining.runs.values() for seeds in size.values()
    )
    assert len(runs) == wanted == len({run.model.folder for run in runs})
    plain, cosine = (
        next(run for run in runs if run.variant == variant and run.seed == 0)
        for variant in ("plain", "cosine-0.5")
    )
    # One seed is one initialisation, whatever the variant: differences are paired.
    starts = [
        AutoModelForCausalLM.from_pretrained(run.model.checkpoints[0]) for run in (plain, cosine)
    ]
    for one, other in zip(*(model.parameters() for model in starts), strict=True):
        assert torch.equal(one, other)
    assert (plain.model.losses["regulariser"] == 0).all()
    assert (cosine.model.losses["regulariser"] > 0).all()
    assert train_variants(profile, tuned) == runs


def test_figure_4_compares_what_was_trained(compared):
    profile, tuned, _, runs = compared
    frames = regularised.measure(profile).frames
    assert set(frames) == {"", "_training", "_comparison", "_sweep"}
    last = frames[""]
    assert set(last["model"]) == {run.model.name for run in runs}
    assert (last.groupby("model")["layer"].max() >= 3).all() and last["null_score"].max() < 1
    training = frames["_training"].query("tokens == 'all'")
    assert set(training["step"]) == {0, 1, 2, 4, 8, 12, 16}
    plain = last.query("size == 'mistral-150m-smoke' and variant == 'plain' and seed == 0")
    mean = training.query("size == 'mistral-150m-smoke' and variant == 'plain' and seed == 0")
    assert mean.query("step == 16")["linearity_score"].item() == pytest.approx(
        plain.query("tokens == 'all'")["linearity_score"].mean()
    )
    pairs = frames["_comparison"].groupby("size")["pair"].unique().map(set).to_dict()
    assert pairs == {
        "mistral-150m-smoke": {"cosine-0.5", "mse-0.5"},
        "mistral-650m-smoke": {"cosine-0.5"},
    }


def test_figure_2_follows_the_plain_model_alone(compared):
    profile, _, _, runs = compared
    followed = dynamics._plain_mistrals(profile)
    assert [(run.size, run.variant, run.seed) for run in followed] == [
        ("mistral-150m-smoke", "plain", 0),
        ("mistral-150m-smoke", "plain", 1),
    ]
    assert all(run in runs for run in followed)
