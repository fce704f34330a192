"""Training: real Trainer runs at the smallest size; killed ones go on where they were."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback

from linlib.corpora import packed_windows
from linlib.measure import linearity_profile
from linlib.models import decoder_blocks, load_model, load_tokenizer
from linlib.pretrain import (
    Recipe,
    Regulariser,
    TrainedModel,
    checkpoint_steps,
    train,
    train_zoo,
    zoo_config,
)
from linlib.pretrain import __main__ as pretrain_command
from linlib.pretrain.trainer import RegularisedTrainer
from linlib.pretrain.zoo import KINDS
from linlib.profiles import load_profile
from linlib.store import cache_folder

RECIPE = Recipe(steps=24, batch_size=4, learning_rate=3e-3, warmup_steps=4, seed=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, corpus, tokenizer_folder):
    folder = tmp_path_factory.mktemp("run")
    run(folder, corpus, tokenizer_folder)
    return folder


def run(folder, corpus, tokenizer_folder, recipe=RECIPE, heldout=False):
    tokenizer = load_tokenizer(tokenizer_folder)
    config = zoo_config("llama", load_profile("smoke").zoo, tokenizer)
    before = config.to_dict()
    windows = packed_windows(corpus, tokenizer, 32)
    train(config, windows, recipe, tokenizer, folder, windows[:40] if heldout else None)
    assert config.to_dict() == before  # it is a part of the run's key


def loss_of(folder, corpus, tokenizer_folder):
    model, tokenizer = load_model(folder), load_tokenizer(tokenizer_folder)
    windows = packed_windows(corpus, tokenizer, 32)
    with torch.no_grad():
        return model(input_ids=windows, labels=windows).loss.item()


def test_checkpoints_are_log_spaced_and_hold_the_ends():
    assert checkpoint_steps(24) == [0, 1, 2, 4, 8, 16, 24]
    assert checkpoint_steps(16) == [0, 1, 2, 4, 8, 16]
    assert checkpoint_steps(16, 6) == [0, 1, 2, 4, 6, 8, 12, 16]


def test_training_learns_and_leaves_ordinary_folders(trained, corpus, tokenizer_folder):
    steps = {int(p.name[4:]): p for p in (trained / "checkpoints").iterdir()}
    assert sorted(steps) == [0, 1, 2, 4, 8, 16, 24]
    first, last = (loss_of(steps[step], corpus, tokenizer_folder) for step in (0, 24))
    assert last < first - 1
    assert loss_of(trained, corpus, tokenizer_folder) == last
    assert load_tokenizer(trained).bos_token == "<|bos|>"


def test_plain_transformers_opens_a_trained_folder(trained):
    code = (
        "import sys\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "ids = AutoTokenizer.from_pretrained(sys.argv[1])('The quick', return_tensors='pt')\n"
        "print(model.generate(ids.input_ids, max_new_tokens=3).shape[1])\n"
        "assert not any(name.startswith('linlib') for name in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(trained)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3


def test_the_same_recipe_gives_the_same_weights(tmp_path, trained, corpus, tokenizer_folder):
    run(tmp_path, corpus, tokenizer_folder)
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        assert torch.equal(tensor, load_file(trained / "model.safetensors")[name])


REGULARISED = replace(RECIPE, regulariser=Regulariser("cosine", 0.5), checkpoint_every=6)
ALONE = """
import sys
from dataclasses import replace
from pathlib import Path
from datasets import Dataset
sys.path.insert(0, sys.argv[1])
from conftest import SENTENCES
from test_pretrain import RECIPE, REGULARISED, run
from pathlib import Path
texts = [f"{s} Number {i}." for i in range(50) for s in SENTENCES]
recipe = {"plain": RECIPE, "regularised": REGULARISED}[sys.argv[4]]
run(Path(sys.argv[2]), Dataset.from_dict({"text": texts}), sys.argv[3], recipe, True)
"""


@pytest.fixture(scope="module")
def regularised(tmp_path_factory, corpus, tokenizer_folder):
    folder = tmp_path_factory.mktemp("regularised")
    run(folder, corpus, tokenizer_folder, REGULARISED, heldout=True)
    return folder


def arguments(folder, tokenizer_folder, which):
    return ["-c", ALONE, os.path.dirname(__file__), str(folder), str(tokenizer_folder), which]


def test_a_run_killed_at_a_random_step_ends_with_the_same_loss(
    tmp_path, regularised, corpus, tokenizer_folder
):
    step = random.Random().randrange(3, 20)
    command = [sys.executable, *arguments(tmp_path, tokenizer_folder, "regularised")]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while read_step(tmp_path) < step:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert not (tmp_path / "losses.json").exists()
    torn = tmp_path / "trainer" / "checkpoint-99"  # as a kill in the middle of saving leaves it
    torn.mkdir(parents=True)
    (torn / "trainer_state.json").write_text('{"global_step": 9')
    run(tmp_path, corpus, tokenizer_folder, REGULARISED, heldout=True)
    assert not (tmp_path / "trainer").exists()
    whole, resumed = (
        json.loads((folder / "losses.json").read_text()) for folder in (regularised, tmp_path)
    )
    assert resumed[-1]["loss"] == pytest.approx(whole[-1]["loss"], abs=1e-6)
    assert resumed[-1]["regulariser"] == pytest.approx(whole[-1]["regulariser"], abs=1e-6)
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        torch.testing.assert_close(tensor, load_file(regularised / "model.safetensors")[name])


def read_step(folder):
    try:
        return json.loads((folder / "progress.json").read_text())["step"]
    except FileNotFoundError:
        return -1


def torchrun(command, **environment):
    """Run a command in two CPU processes that share one run (gloo)."""
    launch = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "--no_python"]
    return subprocess.run(
        [sys.executable, "-m", *launch, *command],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


TOGETHER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_pretrain import few_runs
from linlib.pretrain import train_variants, tune_plain
train_variants(few_runs(), tune_plain(few_runs())[0])
"""


def few_runs():
    """The smoke profile with one model to tune and one to compare."""
    profile = load_profile("smoke")
    few = {"runs": {"mistral-150m-smoke": {"cosine-0.5": (0,)}}, "initializer_ranges": (0.02,)}
    pretraining = profile.pretraining.model_copy(update=few)
    return profile.model_copy(update={"pretraining": pretraining})


def test_what_two_processes_pretrain_one_process_finds(tmp_path, monkeypatch, capsys):
    command = [sys.executable, "-c", TOGETHER, os.path.dirname(__file__)]
    done = torchrun(command, LINLIB_ROOT=str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    models = tmp_path / "data" / "cache" / "model"
    before = sorted(models.iterdir())
    assert len([path for path in before if path.is_dir()]) == 2
    assert not list(models.glob("*.partial"))
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    monkeypatch.setattr(pretrain_command, "load_profile", lambda name: few_runs())
    monkeypatch.setattr(sys, "argv", ["pretrain", "--profile", "smoke"])
    pretrain_command.main()
    (line,) = capsys.readouterr().out.splitlines()
    name, folder = line.split(" -> ")
    assert name == "mistral-150m-smoke cosine-0.5 seed 0" and Path(folder) in before
    assert sorted(models.iterdir()) == before


def test_two_processes_train_the_model_that_one_trains(tmp_path, regularised, tokenizer_folder):
    """`torchrun` with gloo on two CPU processes: the same batches, the same loss."""
    done = torchrun([sys.executable, *arguments(tmp_path, tokenizer_folder, "regularised")])
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (
        json.loads((folder / "losses.json").read_text()) for folder in (regularised, tmp_path)
    )
    assert [entry["step"] for entry in one] == [entry["step"] for entry in two]
    for a, b in zip(one, two, strict=True):
        for part in ("loss", "language_model_loss", "regulariser"):
            assert b[part] == pytest.approx(a[part], rel=2e-3), (part, a["step"])
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == sorted(
        p.name for p in (regularised / "checkpoints").iterdir()
    )


def test_a_batch_that_cannot_be_split_is_refused(tmp_path, monkeypatch, corpus, tokenizer_folder):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="a batch of 4 windows cannot be split over 3 processes"):
        run(tmp_path, corpus, tokenizer_folder)
    assert not list(tmp_path.iterdir())


def test_every_checkpoint_is_measured(regularised, corpus, tokenizer_folder):
    trained = TrainedModel("one", regularised)
    assert list(trained.checkpoints) == [0, 1, 2, 4, 6, 8, 12, 16, 18, 24]
    frame = trained.measurements()
    assert sorted(frame["step"].unique()) == list(trained.checkpoints)
    last = frame.query("step == 24 and tokens == 'all'")
    heldout = packed_windows(corpus, load_tokenizer(tokenizer_folder), 32)[:40]
    model = load_model(trained.checkpoints[24])
    fresh = linearity_profile(model, heldout).query("tokens == 'all'")
    np.testing.assert_allclose(last["linearity_score"], fresh["linearity_score"], atol=1e-6)
    with torch.no_grad():
        loss = model(input_ids=heldout, labels=heldout).loss.item()
    assert last["validation_loss"].iloc[0] == pytest.approx(loss, rel=1e-5)
    assert last["validation_loss"].iloc[0] < frame["validation_loss"].iloc[0] - 1


def test_tensorboard_shows_both_parts_of_the_loss_and_the_linearity(regularised):
    events = EventAccumulator(str(regularised / "tensorboard")).Reload()
    tags = {
        "train/loss",
        "train/language_model_loss",
        "train/regulariser",
        "linearity/mean_linearity_score",
        "linearity/mean_linearity_no_residual",
        "validation/language_model_loss",
    }
    assert tags <= set(events.Tags()["scalars"])
    logged = {event.step: event.value for event in events.Scalars("train/regulariser")}
    losses = TrainedModel("one", regularised).losses.set_index("step")["regulariser"]
    assert logged == pytest.approx(losses.to_dict(), rel=1e-4)
    means = TrainedModel("one", regularised).measurements().query("tokens == 'all'")
    means = means.groupby("step")["linearity_no_residual"].mean()
    events = events.Scalars("linearity/mean_linearity_no_residual")
    assert {event.step: event.value for event in events} == pytest.approx(means.to_dict(), rel=1e-5)


def test_measuring_checkpoints_changes_no_weight(tmp_path, trained, corpus, tokenizer_folder):
    run(tmp_path, corpus, tokenizer_folder, heldout=True)
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        assert torch.equal(tensor, load_file(trained / "model.safetensors")[name])


def test_a_folder_of_other_settings_is_refused_by_what_differs(trained, corpus, tokenizer_folder):
    other = replace(RECIPE, learning_rate=1e-3, regulariser=Regulariser("mse", 2.0))
    message = (
        r"of a run with other settings: recipe.learning_rate was 0.003 and is 0.001; "
        r"recipe.regulariser was None and is 'absent'; recipe.regulariser.kind was 'absent'"
    )
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    with pytest.raises(ValueError, match=message):
        run(trained, corpus, tokenizer_folder, other)
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*")}


@pytest.mark.parametrize("measured", [False, True])
def test_a_nan_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path, corpus, tokenizer_folder, measured
):
    recipe = replace(RECIPE, learning_rate=1e25, warmup_steps=0, steps=40)
    with pytest.raises(FloatingPointError, match=r"step (\d+).*Lower the learning rate") as failure:
        run(tmp_path, corpus, tokenizer_folder, recipe, heldout=measured)
    step = int(re.search(r"step (\d+)", str(failure.value))[1])
    assert step <= 2
    require_finite_checkpoints(tmp_path)


def require_finite_checkpoints(folder):
    kept = list(folder.rglob("*.safetensors"))
    assert kept
    for path in kept:
        for name, tensor in load_file(path).items():
            assert bool(torch.isfinite(tensor).all()), (path, name)


def test_weights_that_a_step_has_spoilt_are_not_saved(tmp_path, corpus, tokenizer_folder):
    class Spoil(TrainerCallback):
        def on_optimizer_step(self, args, state, control, model=None, **kwargs):
            if state.global_step == 3:  # the fourth step
                next(model.parameters()).data[0] = torch.nan

    patched = lambda trainer, *args, **kwargs: (  # noqa: E731
        trainer.add_callback(Spoil()),
        train_of(trainer, *args, **kwargs),
    )
    train_of = RegularisedTrainer.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RegularisedTrainer, "train", patched)
        with pytest.raises(FloatingPointError, match="became NaN or inf in step 4"):
            run(tmp_path, corpus, tokenizer_folder)
    assert list(TrainedModel("one", tmp_path).checkpoints) == [0, 1, 2]
    require_finite_checkpoints(tmp_path)


def test_the_validation_loss_is_float32_also_in_mixed_precision(tmp_path, corpus, tokenizer_folder):
    recipe = replace(RECIPE, steps=4, bf16=True)
    run(tmp_path, corpus, tokenizer_folder, recipe, heldout=True)
    measured = TrainedModel("one", tmp_path).measurements().query("step == 4")
    heldout = packed_windows(corpus, load_tokenizer(tokenizer_folder), 32)[:40]
    with torch.no_grad():
        loss = load_model(tmp_path)(input_ids=heldout, labels=heldout).loss.item()
    assert measured["validation_loss"].iloc[0] == pytest.approx(loss, rel=1e-6)


def test_a_batch_too_large_for_memory_is_accumulated(tmp_path, trained, corpus, tokenizer_folder):
    run(tmp_path, corpus, tokenizer_folder, replace(RECIPE, windows_at_once=2))
    whole, parts = (TrainedModel("one", folder).losses for folder in (trained, tmp_path))
    np.testing.assert_allclose(parts["loss"], whole["loss"], rtol=2e-3)


def test_a_folder_of_unknown_settings_is_refused(tmp_path, corpus, tokenizer_folder):
    (tmp_path / "trainer" / "checkpoint-3").mkdir(parents=True)
    with pytest.raises(ValueError, match="unknown settings: settings.json is missing"):
        run(tmp_path, corpus, tokenizer_folder)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tiny_twins_have_the_size_that_they_are_said_to_have(kind, tokenizer_folder):
    from transformers import AutoModelForCausalLM

    zoo = load_profile("tiny").zoo
    tokenizer = load_tokenizer(tokenizer_folder)
    config = zoo_config(kind, zoo, tokenizer)
    config.vocab_size = zoo.vocab_size
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert 1e6 < model.num_parameters() < 2e6
    assert 6 <= len(decoder_blocks(model)) <= 8


def test_the_zoo_is_trained_once_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    profile = load_profile("smoke")
    zoo = profile.zoo.model_copy(update={"models": ("gpt2", "opt"), "steps": 4, "warmup_steps": 1})
    profile = profile.model_copy(update={"zoo": zoo})
    models = train_zoo(profile)
    assert [model.name for model in models] == ["gpt2", "opt"]
    assert list(models[0].checkpoints) == [0, 1, 2, 4]
    assert load_model(models[1].folder).config.model_type == "opt"
    written = {p: p.stat().st_mtime_ns for p in (cache_folder() / "model").rglob("*.safetensors")}
    assert train_zoo(profile) == models
    assert written == {p: p.stat().st_mtime_ns for p in written}
    assert not list((cache_folder() / "model").glob("*.partial"))
