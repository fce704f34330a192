"""The zoo and the Mistrals of a profile: sizes, tuning, and runs that are found again."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_training_pretraining import torchrun
from transformers import AutoConfig, AutoModelForCausalLM

import linlib
from linlib import load_profile, store, training
from linlib.corpora import load_corpus
from linlib.models import decoder_blocks, load_model, load_tokenizer
from linlib.profiles import CheckpointSettings, ModelSettings
from linlib.training import __main__ as command
from linlib.training import models_of, train_variants, train_zoo, tune_plain
from linlib.training.zoo import NAMES, SIZES, mistral_config, zoo_config


def on_meta(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))


@pytest.mark.parametrize(("size", "parameters"), [("mistral-150m", 150e6), ("mistral-650m", 650e6)])
def test_the_sizes_are_those_of_their_names(tokenizer_folder, size, parameters):
    config = mistral_config(size, load_tokenizer(tokenizer_folder), 512, 0.02)
    model = on_meta(config | {"vocab_size": 32_000})
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    assert model.num_parameters() == pytest.approx(parameters, rel=0.03)


@pytest.mark.parametrize("size", SIZES)
def test_the_blocks_of_all_sizes_can_be_read(tokenizer_folder, size):
    model = on_meta(mistral_config(size, load_tokenizer(tokenizer_folder), 64, 0.05))
    _, n_blocks, _ = SIZES[size]
    assert len(decoder_blocks(model)) == n_blocks
    attention = decoder_blocks(model)[0].self_attn
    assert attention.q_proj.out_features == 4 * attention.k_proj.out_features
    assert model.config.initializer_range == 0.05


def test_an_unknown_size_is_refused(tokenizer_folder):
    with pytest.raises(ValueError, match="unknown Mistral size 'mistral-7b'; choose from"):
        mistral_config("mistral-7b", load_tokenizer(tokenizer_folder), 64, 0.02)


@pytest.mark.parametrize("kind", NAMES)
def test_the_tiny_twins_have_between_one_and_two_million_parameters(kind, tokenizer_folder):
    zoo = load_profile("tiny").zoo
    config = zoo_config(kind, zoo, load_tokenizer(tokenizer_folder))
    model = on_meta(config | {"vocab_size": zoo.vocab_size})
    assert 1e6 < model.num_parameters() < 2e6
    assert 6 <= len(decoder_blocks(model)) <= 8


# ------------------------------------------------------------------------- models by name


def small_zoo():
    settings = load_profile("smoke")
    zoo = replace(settings.zoo, models=("gpt2", "opt"), steps=4, warmup_steps=1)
    return replace(settings, zoo=zoo)


@pytest.fixture(scope="module")
def zoo_root(tmp_path_factory):
    """A root in which the small zoo is trained."""
    root = tmp_path_factory.mktemp("zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINLIB_ROOT", str(root))
        train_zoo(small_zoo())
    return root


def test_the_zoo_is_trained_once_and_found_again(zoo_root, monkeypatch, tokenizer_folder):
    """It is known by its folder, and its text by its name; tokenizers are no models."""
    monkeypatch.setenv("LINLIB_ROOT", str(zoo_root))
    with store.recording() as opened:
        train_zoo(small_zoo())
        linlib.token_windows(load_corpus("storyworld", "heldout"), load_tokenizer(tokenizer_folder))
    assert "models" not in opened
    assert set(opened["corpora"]) == {"pydocs+storyworld (train)", "storyworld (heldout)"}
    written = {path: path.stat().st_mtime_ns for path in zoo_root.rglob("*.safetensors")}
    folders = train_zoo(small_zoo())
    assert list(folders) == ["GPT-2 (smoke)", "OPT (smoke)"]
    assert list(training.checkpoints(folders["GPT-2 (smoke)"])) == [0, 1, 2, 4]
    assert load_model(folders["OPT (smoke)"]).config.model_type == "opt"
    assert written == {path: path.stat().st_mtime_ns for path in zoo_root.rglob("*.safetensors")}
    assert not list(zoo_root.rglob("*.partial"))
    assert train_zoo(replace(small_zoo(), zoo=None)) == {}


def test_models_have_sources_that_load_takes(zoo_root, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(zoo_root))
    folder = str(train_zoo(small_zoo())["OPT (smoke)"])
    own = ModelSettings(id=folder, label="A model", bos_token="<|eos|>")
    settings = replace(small_zoo(), models=(own,), dtype="bfloat16")
    sources = models_of(settings)
    assert list(sources) == ["A model", "GPT-2 (smoke)", "OPT (smoke)"]
    model, tokenizer = linlib.load(**sources["A model"])
    assert model.dtype == torch.bfloat16 and tokenizer.bos_token == "<|eos|>"
    model, _ = linlib.load(**sources["GPT-2 (smoke)"])
    assert model.dtype == torch.float32
    assert list(models_of(settings, ["OPT", "A model"])) == ["OPT (smoke)", "A model"]


def test_the_zoo_is_not_trained_for_others_models(zoo_root, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(zoo_root))
    folder = str(train_zoo(small_zoo())["OPT (smoke)"])
    extra = ModelSettings(id=folder, label="Extra")
    monkeypatch.setattr(training.zoo, "train_zoo", lambda settings: pytest.fail("trained"))
    assert list(models_of(small_zoo(), ["Extra"], more=[extra])) == ["Extra"]
    with pytest.raises(ValueError, match=r"'smoke' names \['OPT-9T'\] and has no such models; it"):
        models_of(small_zoo(), ["GPT-2", "OPT-9T"])


def test_pretrained_models_are_pinned_and_checkpoints_followed_by_revision(monkeypatch):
    monkeypatch.setattr(training.zoo, "commit_of", lambda name, revision: f"{name} at {revision}")
    paper = load_profile("paper")
    followed = {one.label: one for one in paper.checkpoints}
    assert all(isinstance(one, CheckpointSettings) for one in paper.checkpoints)
    pythia = followed["Pythia-2.8B"]
    source = training.source_of(paper, pythia, pythia.checkpoints[512])
    assert source["name_or_path"] == "EleutherAI/pythia-2.8b"
    assert source["revision"] == "EleutherAI/pythia-2.8b at step512"
    assert source["pad_token"] == pythia.pad_token and source["dtype"] == paper.dtype
    llama = followed["TinyLlama-1.1B"]
    source = training.source_of(paper, llama, llama.checkpoints[50000])
    assert source["revision"].endswith(" at None")
    (opt,) = (one for one in paper.models if one.label == "OPT-125M")
    assert training.source_of(paper, opt)["revision"] == "facebook/opt-125m at None"


def test_a_profile_says_what_joins_documents_for_a_model():
    named = ModelSettings(id="gpt2", label="Named", separator="\n")
    extra = ModelSettings(id="gpt2", label="Extra", separator="<|x|>")
    settings = load_profile("smoke")
    finetuning = replace(settings.finetuning, extra_models=(extra,))
    settings = replace(settings, models=(named,), finetuning=finetuning)
    assert training.separator_of(settings, "Named") == "\n"
    assert training.separator_of(settings, "Extra") == "<|x|>"
    assert training.separator_of(settings, "OPT (smoke)") is None
    assert training.separator_of(replace(settings, finetuning=None), "Extra") is None


# ------------------------------------------------------------------------------- Mistrals


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINLIB_ROOT", str(tmp_path_factory.mktemp("root")))
        settings = load_profile("smoke")
        tuned, sweep = tune_plain(settings)
        yield settings, tuned, sweep, train_variants(settings)


def test_the_plain_model_is_tuned_by_its_loss_alone(compared):
    settings, tuned, sweep, _ = compared
    section = settings.pretraining
    assert len(sweep) == len(section.learning_rates) * len(section.initializer_ranges)
    best = sweep.loc[sweep["validation_loss"].idxmin()]
    assert best["chosen"] and sweep["chosen"].sum() == 1
    assert {name: best[name] for name in tuned} == tuned
    seeds = {seed for runs in section.runs.values() for ids in runs.values() for seed in ids}
    assert section.tuning_seed not in seeds


def test_variants_and_seeds_are_runs_of_their_own(compared):
    settings, _, _, runs = compared
    wanted = [
        (size, variant, seed)
        for size, variants in settings.pretraining.runs.items()
        for variant, seeds in variants.items()
        for seed in seeds
    ]
    assert [(run.size, run.variant, run.seed) for run in runs] == wanted
    assert len({run.folder for run in runs}) == len(wanted)
    plain, cosine = (
        next(run for run in runs if run.variant == variant and run.seed == 0)
        for variant in ("plain", "cosine-0.5")
    )
    # One seed is one initialisation, whatever the variant: differences are paired.
    starts = [load_model(training.checkpoints(run.folder)[0]) for run in (plain, cosine)]
    for one, other in zip(*(model.parameters() for model in starts), strict=True):
        assert torch.equal(one, other)
    terms = [
        [entry["regulariser"] for entry in json.loads((run.folder / "losses.json").read_text())]
        for run in (plain, cosine)
    ]
    assert max(terms[0]) == 0 < min(terms[1])


def test_some_runs_are_found_without_the_others(compared):
    settings, _, _, runs = compared
    size = "mistral-150m-smoke"
    with store.recording() as opened:
        found = train_variants(settings, variants=["plain"], sizes=[size])
    assert found == [run for run in runs if run.size == size and run.variant == "plain"]
    assert [run.seed for run in found] == [0, 1]
    assert opened["models"].items() >= {run.model: run.folder.name for run in found}.items()
    assert found[1].labels == {
        "model": f"{size} plain seed 1", "size": size, "variant": "plain", "seed": 1
    }  # fmt: skip


def test_runs_are_measured_once_and_apart_from_their_training(compared):
    settings, _, _, runs = compared
    frames = training.measurements(settings, runs[:2])
    measured = store.cache_folder() / "measure_checkpoints"
    assert [list(frame["step"].unique()) for frame in frames] == [[0, 1, 2, 4, 8, 12, 16]] * 2
    assert not frames[0].equals(frames[1])
    # Workers measure, so only what they leave behind shows that they did not do so again.
    kept = {path: path.stat().st_mtime_ns for path in measured.glob("*/*")}
    for before, after in zip(frames, training.measurements(settings, runs[:2]), strict=True):
        pd.testing.assert_frame_equal(before, after)
    assert kept and kept == {path: path.stat().st_mtime_ns for path in measured.glob("*/*")}


# -------------------------------------------------------------------- several processes

TOGETHER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_training_zoo import one_run
from linlib.training import train_variants
train_variants(one_run())
"""


def one_run():
    """The smoke profile with one model to tune and one to compare."""
    settings = load_profile("smoke")
    few = {"runs": {"mistral-150m-smoke": {"cosine-0.5": (0,)}}, "initializer_ranges": (0.02,)}
    return replace(settings, pretraining=replace(settings.pretraining, **few))


def test_one_process_finds_the_runs_that_two_processes_pretrained(tmp_path, monkeypatch, capsys):
    arguments = [sys.executable, "-c", TOGETHER, os.path.dirname(__file__)]
    done = torchrun(arguments, LINLIB_ROOT=str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    models = tmp_path / "data" / "cache" / "train"
    before = sorted(models.iterdir())
    assert len([path for path in before if path.is_dir()]) == 2
    assert not list(models.glob("*.partial"))
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    monkeypatch.setattr(command, "load_profile", lambda name: one_run())
    monkeypatch.setattr(sys, "argv", ["training", "--profile", "smoke"])
    command.main()
    (line,) = capsys.readouterr().out.splitlines()
    name, folder = line.split(" -> ")
    assert name == "mistral-150m-smoke cosine-0.5 seed 0" and Path(folder) in before
    assert sorted(models.iterdir()) == before


def test_the_command_refuses_a_profile_without_pretraining(monkeypatch, capsys):
    bare = replace(load_profile("smoke"), pretraining=None)
    monkeypatch.setattr(command, "load_profile", lambda name: bare)
    monkeypatch.setattr(sys, "argv", ["training"])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 2
    assert "'smoke' has no section 'pretraining', so the comparison" in capsys.readouterr().err
