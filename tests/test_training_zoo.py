"""The zoo and the Mistrals of a profile: sizes, tuning, and runs that are found again."""

import json
import math
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
from linlib.models import decoder_blocks, load_encoder, load_model, load_tokenizer
from linlib.profiles import CheckpointSettings, ModelSettings
from linlib.training import __main__ as command
from linlib.training import (
    models_of,
    train_directions,
    train_variants,
    train_zoo,
    tune_variants,
)
from linlib.training.mistrals import FAILED, ROUNDS, SIZES, mistral_config
from linlib.training.zoo import NAMES, zoo_config


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
    zoo = replace(settings.zoo, models=("gpt2", "opt"), seeds=(3, 5), steps=4, warmup_steps=1)
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
    assert all(list(by_seed) == [3, 5] for by_seed in folders.values())
    assert list(training.checkpoints(folders["GPT-2 (smoke)"][3])) == [0, 1, 2, 4]
    one, other = (load_model(folders["OPT (smoke)"][seed]) for seed in (3, 5))
    assert one.config.model_type == "opt"
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)  # another seed is another model
    assert written == {path: path.stat().st_mtime_ns for path in zoo_root.rglob("*.safetensors")}
    assert not list(zoo_root.rglob("*.partial"))
    assert train_zoo(replace(small_zoo(), zoo=None)) == {}


def test_models_have_sources_that_load_takes(zoo_root, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(zoo_root))
    folder = str(train_zoo(small_zoo())["OPT (smoke)"][3])
    own = ModelSettings(id=folder, label="A model", bos_token="<|eos|>")
    settings = replace(small_zoo(), models=(own,), dtype="bfloat16")
    sources = models_of(settings)
    assert list(sources) == ["A model", "GPT-2 (smoke)", "OPT (smoke)"]
    model, tokenizer = linlib.load(**sources["A model"])
    assert model.dtype == torch.bfloat16 and tokenizer.bos_token == "<|eos|>"
    model, _ = linlib.load(**sources["GPT-2 (smoke)"])
    assert model.dtype == torch.float32
    assert list(models_of(settings, ["OPT", "A model"])) == ["OPT (smoke)", "A model"]


def test_models_of_the_zoo_are_found_by_seed(zoo_root, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(zoo_root))
    folders = train_zoo(small_zoo())["OPT (smoke)"]
    for seed, expected in ((None, folders[3]), (3, folders[3]), (5, folders[5])):
        (source,) = models_of(small_zoo(), ["OPT"], seed=seed).values()
        assert source["name_or_path"] == expected
    message = r"'smoke' trains no OPT from seed 7; its zoo has the seeds \[3, 5\]"
    with pytest.raises(ValueError, match=message):
        models_of(small_zoo(), ["OPT"], seed=7)
    own = ModelSettings(id=str(folders[3]), label="A model")  # has no seed that could be missing
    assert models_of(replace(small_zoo(), models=(own,)), ["A model"], seed=7)


def test_a_model_of_the_zoo_that_diverged_is_named(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "diverged.txt").write_text("the loss became nan in step 2")
    monkeypatch.setattr(training.zoo, "training_text", lambda *_: {"tokenizer": folder})
    monkeypatch.setattr(training.zoo, "load_tokenizer", lambda *_: None)
    monkeypatch.setattr(training.zoo, "zoo_config", lambda *_: {})
    monkeypatch.setattr(training.zoo, "train_all", lambda *given: [folder] * len(given[2]))
    with pytest.raises(FloatingPointError, match="GPT-2 of the zoo, seed 3: the loss became nan"):
        train_zoo(small_zoo())


def test_twins_differ_in_their_direction_alone(zoo_root, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(zoo_root))
    found = train_directions(small_zoo(), [0, 1])
    assert [one[:2] for one in found] == [
        ("causal", 0), ("causal", 1), ("bidirectional", 0), ("bidirectional", 1)
    ]  # fmt: skip
    assert len({folder for _, _, folder in found}) == 4
    causal, other = load_model(found[0][2]), load_encoder(found[2][2])
    assert causal.config.model_type == "modernbert-decoder"
    assert other.config.model_type == "modernbert"
    for one, two in zip(decoder_blocks(causal), decoder_blocks(other), strict=True):
        sizes = [sum(p.numel() for p in block.parameters()) for block in (one, two)]
        assert sizes[0] == sizes[1]
    window = torch.arange(10, 40)[None]  # (1, 30)
    changed = window.clone()
    changed[0, -1] = 50
    with torch.no_grad():  # the whole window, and not only a neighbourhood
        for model, sees in ((causal, False), (other, True)):
            streams = [linlib.residual_stream(model, ids) for ids in (window, changed)]
            assert torch.allclose(*(h[-1][0, 0] for h in streams), atol=1e-7) != sees


def test_the_zoo_is_not_trained_for_others_models(zoo_root, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(zoo_root))
    folder = str(train_zoo(small_zoo())["OPT (smoke)"][3])
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
        tuned, sweep = tune_variants(settings)
        yield settings, tuned, sweep, train_variants(settings)


def test_a_single_candidate_is_taken_as_it_is_and_the_initialisation_is_the_plain_models(compared):
    settings, tuned, sweep, _ = compared
    section = settings.pretraining
    assert set(tuned) == {"plain", "cosine-0.5", "mse-0.5"} and len(sweep) == 2 + 1 + 1
    assert set(sweep["learning_rate"]) == set(section.learning_rates)  # nothing else was tried
    plain = sweep[sweep["variant"] == "plain"]
    best = plain.loc[plain["validation_loss"].idxmin()]
    assert set(plain["initializer_range"]) == set(section.initializer_ranges)
    assert {row["initializer_range"] for row in tuned.values()} == {best["initializer_range"]}
    chosen = sweep[sweep["chosen"]].set_index("variant")
    for variant, row in tuned.items():
        assert chosen.loc[variant, list(row)].to_dict() == row
    seeds = {seed for runs in section.runs.values() for ids in runs.values() for seed in ids}
    assert set(sweep["seed"]) == {section.tuning_seed} and section.tuning_seed not in seeds


# Loss of a variant at a learning rate: that of training is in its place where the rule is tested.
BEST = {"plain": 4e-3, "cosine-0.5": 1.6e-2, "mse-0.5": 5e-4}


def planted(monkeypatch, loss_at, **changes):
    """The smoke profile with a planted loss, and the list of the runs that it was asked for."""
    asked = []

    def trained(settings, wanted, tunings):
        asked.extend(zip(wanted, (tuned["learning_rate"] for tuned in tunings), strict=True))
        losses = [
            loss_at(run, tuned["learning_rate"], tuned["initializer_range"])
            for run, tuned in zip(wanted, tunings, strict=True)
        ]
        return [Path(f"run-{'-'.join(map(str, run))}") for run in wanted], losses

    monkeypatch.setattr(training.mistrals, "_train_mistrals", trained)
    settings = load_profile("smoke")
    return replace(settings, pretraining=replace(settings.pretraining, **changes)), asked


def parabola(run, learning_rate, initializer_range):
    return 2 + math.log2(learning_rate / BEST[run[1]]) ** 2 + abs(initializer_range - 0.06)


def test_each_variant_has_the_rate_of_its_own_loss(monkeypatch):
    rates = (2e-3, 4e-3, 8e-3)
    settings, asked = planted(monkeypatch, parabola, learning_rates=rates)
    tuned, sweep = tune_variants(settings)
    assert {variant: row["learning_rate"] for variant, row in tuned.items()} == BEST
    assert {row["initializer_range"] for row in tuned.values()} == {0.06}
    tried = (
        sweep[sweep["initializer_range"] == 0.06].groupby("variant")["learning_rate"].apply(list)
    )
    assert tried["plain"] == [2e-3, 4e-3, 8e-3]  # the best is inside: nothing is added
    assert tried["cosine-0.5"] == [2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2]  # twice, until one is worse
    assert tried["mse-0.5"] == [2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3]  # half, likewise
    assert len(asked) == len(sweep)  # nothing is trained twice
    assert {seed for (_, _, seed), _ in asked} == {settings.pretraining.tuning_seed}
    assert {size for (size, _, _), _ in asked} == {"mistral-150m-smoke"}  # larger ones take over
    assert sweep["chosen"].sum() == 3


def test_a_sweep_is_widened_a_few_times_only(monkeypatch):
    def ever_better(run, learning_rate, initializer_range):
        return -learning_rate

    settings, _ = planted(monkeypatch, ever_better, learning_rates=(1.0, 2.0))
    tuned, _ = tune_variants(settings, ["plain"])
    assert tuned["plain"]["learning_rate"] == 2.0 * 2**ROUNDS


def test_a_single_candidate_is_not_widened(monkeypatch):
    settings, asked = planted(monkeypatch, parabola, learning_rates=(2e-3,))
    tuned, _ = tune_variants(settings, ["cosine-0.5"])
    assert tuned.keys() == {"cosine-0.5"} and {rate for _, rate in asked} == {2e-3}


def test_rates_that_diverge_are_rows_and_are_not_chosen(monkeypatch):
    def unstable(run, learning_rate, initializer_range):
        too_fast = learning_rate > 4e-3
        return math.nan if too_fast else parabola(run, learning_rate, initializer_range)

    settings, _ = planted(monkeypatch, unstable, learning_rates=(2e-3, 4e-3, 8e-3))
    tuned, sweep = tune_variants(settings, ["cosine-0.5"])
    assert tuned["cosine-0.5"]["learning_rate"] == 4e-3  # the fastest that does not diverge
    rows = sweep[sweep["variant"] == "cosine-0.5"].set_index("learning_rate")
    assert math.isnan(rows.loc[8e-3, "validation_loss"]) and not rows.loc[8e-3, "chosen"]


def test_a_variant_that_always_diverges_is_named_with_advice(monkeypatch):
    def unstable(run, learning_rate, initializer_range):
        return math.nan if run[1] == "cosine-0.5" else 2.0

    settings, _ = planted(monkeypatch, unstable, learning_rates=(2e-3, 4e-3))
    message = r"all runs that tune 'cosine-0\.5' diverged; add smaller learning_rates than 0\.002"
    with pytest.raises(FloatingPointError, match=message):
        tune_variants(settings)
    assert tune_variants(settings, ["plain"])[0].keys() == {"plain"}


def test_a_real_run_that_diverges_is_a_row_without_a_loss(tmp_path, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    settings = one_run()
    few = {"learning_rates": (6e-3, 1e30), "steps": 4, "warmup_steps": 0}
    monkeypatch.setattr(training.mistrals, "ROUNDS", 0)
    settings = replace(settings, pretraining=replace(settings.pretraining, **few))
    tuned, sweep = tune_variants(settings, ["cosine-0.5"])
    assert tuned["cosine-0.5"]["learning_rate"] == 6e-3
    lost = sweep.set_index("learning_rate")["validation_loss"].isna()
    assert lost[1e30].all() and not lost[6e-3].any()


def uneven(run, learning_rate, initializer_range):
    """Seed 0 of plain fails, seed 1 of cosine becomes NaN; all others end as they were tuned."""
    _, variant, seed = run
    bad = {("plain", 0): 2.0 + FAILED + 0.01, ("cosine-0.5", 1): math.nan}
    return bad.get((variant, seed), 2.0)


def test_runs_that_failed_are_marked_and_those_without_a_model_left_out(monkeypatch):
    settings, _ = planted(monkeypatch, uneven)
    with store.recording() as opened:
        runs = train_variants(settings, sizes=["mistral-150m-smoke"])
    found = {(run.variant, run.seed): run.diverged for run in runs}
    assert found == {
        ("plain", 0): True, ("plain", 1): False, ("cosine-0.5", 0): False, ("mse-0.5", 0): False
    }  # fmt: skip
    name = "mistral-150m-smoke cosine-0.5 seed 1"
    assert opened["notes"] == {name: "it diverged, and is left out"}
    assert set(opened["models"]) == {run.model for run in runs} and name not in opened["models"]


def test_a_variant_without_any_model_cannot_be_compared(monkeypatch):
    def lost(run, learning_rate, initializer_range):
        return math.nan if run[1] == "mse-0.5" and run[2] != 100 else 2.0

    settings, _ = planted(monkeypatch, lost)
    message = r"all runs of \[\('mistral-150m-smoke', 'mse-0\.5'\)\] diverged; give other seeds"
    with pytest.raises(FloatingPointError, match=message):
        train_variants(settings)
    assert len(train_variants(settings, variants=["plain"])) == 3


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
        "model": f"{size} plain seed 1", "size": size, "variant": "plain", "seed": 1,
        "diverged": False,
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
    models = tmp_path / "data" / "cache" / "train_or_diverge"
    before = sorted(models.iterdir())
    assert len([path for path in before if path.is_dir()]) == 3  # two that tune, one compared
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
