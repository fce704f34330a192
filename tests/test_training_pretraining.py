"""Pretraining: real Trainer runs at the smallest size; killed ones continue where they were."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.functional import cross_entropy
from transformers import AutoModelForMaskedLM, TrainerCallback

from linlib import linearity_profile, load_profile, token_windows
from linlib.models import load_encoder, load_model, load_tokenizer
from linlib.store import keys
from linlib.training import (
    RegularisedTrainer,
    Regulariser,
    checkpoints,
    compare_at_equal_loss,
    train,
)
from linlib.training.pretraining import (
    checkpoint_steps,
    measure_checkpoints,
    tokenise,
    train_or_diverge,
    validation_loss,
)
from linlib.training.zoo import zoo_config

PLAIN = dict(steps=24, batch_size=4, learning_rate=3e-3, warmup_steps=4, seed=0)
REGULARISED = PLAIN | {"regulariser": Regulariser("cosine", 0.5), "checkpoint_interval": 6}


@pytest.fixture(scope="module")
def text(tmp_path_factory, corpus, tokenizer_folder):
    """Folders of tokenizer and training windows, as arguments of `train`."""
    folder = tmp_path_factory.mktemp("windows")
    tokenise(folder, corpus, tokenizer_folder, 32)
    return {"tokenizer": tokenizer_folder, "windows": folder}


@pytest.fixture(scope="module")
def heldout(tmp_path_factory, corpus, tokenizer_folder):
    folder = tmp_path_factory.mktemp("heldout")
    tokenise(folder, corpus, tokenizer_folder, 32, n_windows=40)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("run")
    run(folder, text, PLAIN)
    return folder


@pytest.fixture(scope="module")
def regularised(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("regularised")
    run(folder, text, REGULARISED)
    return folder


def run(folder, text, options, kind="llama"):
    config = zoo_config(kind, load_profile("smoke").zoo, load_tokenizer(text["tokenizer"]))
    train(folder, config, **text, **options)


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def losses_of(folder):
    return pd.DataFrame(json.loads((folder / "losses.json").read_text()))


def loss_of(folder, corpus):
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    windows = token_windows(corpus, tokenizer, seq_len=32)
    with torch.no_grad():
        return model(input_ids=windows, labels=windows).loss.item()


def test_checkpoints_are_log_spaced_and_hold_the_ends():
    assert checkpoint_steps(24) == [0, 1, 2, 4, 8, 16, 24]
    assert checkpoint_steps(16) == [0, 1, 2, 4, 8, 16]
    assert checkpoint_steps(16, 6) == [0, 1, 2, 4, 6, 8, 12, 16]


def test_training_learns_and_leaves_ordinary_folders(trained, corpus):
    saved = checkpoints(trained)
    assert list(saved) == [0, 1, 2, 4, 8, 16, 24]
    first, last = (loss_of(saved[step], corpus) for step in (0, 24))
    assert last < first - 1
    assert loss_of(trained, corpus) == last
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
    command = [sys.executable, "-c", code, str(trained)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3


def test_the_same_seed_gives_the_same_weights(tmp_path, trained, text):
    run(tmp_path, text, PLAIN)
    for name, tensor in weights_of(tmp_path).items():
        assert torch.equal(tensor, weights_of(trained)[name])


ALONE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_training_pretraining import REGULARISED, run
names = ("tokenizer", "windows")
run(Path(sys.argv[2]), dict(zip(names, map(Path, sys.argv[3:]))), REGULARISED)
"""


def alone(folder, text):
    """The command that trains the regularised model in a process of its own."""
    paths = [folder, text["tokenizer"], text["windows"]]
    return [sys.executable, "-c", ALONE, os.path.dirname(__file__), *map(str, paths)]


@pytest.mark.parametrize("step", [4, 12])
def test_a_run_killed_in_mid_training_ends_with_the_same_loss(tmp_path, regularised, text, step):
    process = subprocess.Popen(alone(tmp_path, text))
    deadline = time.monotonic() + 120
    while step not in checkpoints(tmp_path):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert not (tmp_path / "losses.json").exists()
    torn = tmp_path / "trainer" / "checkpoint-99"  # as a kill in the middle of saving leaves it
    torn.mkdir(parents=True)
    (torn / "trainer_state.json").write_text('{"global_step": 9')
    run(tmp_path, text, REGULARISED)
    assert not (tmp_path / "trainer").exists()
    whole, resumed = (losses_of(folder).iloc[-1] for folder in (regularised, tmp_path))
    assert resumed["loss"] == pytest.approx(whole["loss"], abs=1e-6)
    assert resumed["regulariser"] == pytest.approx(whole["regulariser"], abs=1e-6)
    assert list(checkpoints(tmp_path)) == list(checkpoints(regularised))
    for name, tensor in weights_of(tmp_path).items():
        torch.testing.assert_close(tensor, weights_of(regularised)[name])


def test_a_finished_run_is_left_alone(trained, text):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    run(trained, text, PLAIN)
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*")}


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


def test_two_processes_train_the_model_that_one_trains(tmp_path, regularised, text):
    """`torchrun` with gloo on two CPU processes: the same batches, the same loss."""
    done = torchrun(alone(tmp_path, text))
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (losses_of(folder) for folder in (regularised, tmp_path))
    parts = ["step", "loss", "language_model_loss", "regulariser"]
    np.testing.assert_allclose(two[parts], one[parts], rtol=2e-3)
    assert list(checkpoints(tmp_path)) == list(checkpoints(regularised))


def test_a_change_of_the_measurement_trains_no_model_again():
    reached = {module for module, _ in keys._reached("linlib.training.pretraining", "train")}
    assert "linlib.training.regularisers" in reached
    assert not [
        name for name in reached if name.split(".")[1] in ("measure", "linearity", "corpora")
    ]


def test_checkpoints_are_measured_on_heldout_windows(
    regularised, corpus, tokenizer_folder, heldout
):
    saved, frame = checkpoints(regularised), measure_checkpoints(regularised, heldout)
    assert list(saved) == [0, 1, 2, 4, 6, 8, 12, 16, 18, 24]
    assert sorted(frame["step"].unique()) == list(saved)
    last = frame.query("step == 24 and tokens == 'all'")
    windows, documents = token_windows(
        corpus, load_tokenizer(tokenizer_folder), seq_len=32, n_windows=40, return_documents=True
    )
    model = load_model(saved[24])
    fresh = linearity_profile(model, windows, documents=documents).query("tokens == 'all'")
    for score in ("linearity_score", "heldout_score"):
        np.testing.assert_allclose(last[score], fresh[score], atol=1e-6)
    with torch.no_grad():
        loss = model(input_ids=windows, labels=windows).loss.item()
    assert last["validation_loss"].iloc[0] == pytest.approx(loss, rel=1e-5)
    assert last["validation_loss"].iloc[0] < frame["validation_loss"].iloc[0] - 1


def test_tensorboard_shows_both_parts_of_the_loss(regularised):
    events = EventAccumulator(str(regularised / "tensorboard")).Reload()
    tags = {"train/loss", "train/language_model_loss", "train/regulariser"}
    assert tags <= set(events.Tags()["scalars"])
    logged = {event.step: event.value for event in events.Scalars("train/regulariser")}
    losses = losses_of(regularised).set_index("step")["regulariser"]
    assert logged == pytest.approx(losses.to_dict(), rel=1e-4)


def test_training_and_measuring_say_nothing(tmp_path, text, heldout):
    """Least of all what a reader cannot act on; GPT-2 makes `transformers` talk most."""
    command = alone(tmp_path, text)
    command[2] = command[2].replace("REGULARISED)", "REGULARISED, 'gpt2')")
    command[2] += "from linlib.training.pretraining import measure_checkpoints\n"
    command[2] += f"measure_checkpoints(Path(sys.argv[2]), Path({str(heldout)!r}))\n"
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_weights_stay_float32_in_mixed_precision(tmp_path, text, heldout, corpus):
    run(tmp_path, text, PLAIN | {"steps": 4, "bf16": True})
    measured = measure_checkpoints(tmp_path, heldout).query("step == 4")
    windows = token_windows(corpus, load_tokenizer(tmp_path), seq_len=32, n_windows=40)
    with torch.no_grad():
        loss = load_model(tmp_path)(input_ids=windows, labels=windows).loss.item()
    assert measured["validation_loss"].iloc[0] == pytest.approx(loss, rel=1e-6)


def test_a_batch_too_large_for_memory_is_accumulated(tmp_path, trained, text):
    run(tmp_path, text, PLAIN | {"micro_batch_size": 2})
    np.testing.assert_allclose(losses_of(tmp_path)["loss"], losses_of(trained)["loss"], rtol=2e-3)


# --------------------------------------------------------------------- masked tokens


MASKED = dict(steps=500, batch_size=8, learning_rate=1e-2, warmup_steps=4, seed=0, masked=True)


def run_masked(folder, text):
    tokenizer = load_tokenizer(text["tokenizer"])
    config = {
        "model_type": "modernbert",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "cls_token_id": tokenizer.bos_token_id,
        "sep_token_id": tokenizer.eos_token_id,
    }
    train(folder, config, **text, **MASKED)


@pytest.fixture(scope="module")
def masked(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("masked")
    run_masked(folder, text)
    return folder


def loss_of_masked(folder, corpus):
    """Loss of a model on every seventh token, all of which are masked."""
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokenizer = load_tokenizer(folder)
    windows = token_windows(corpus, tokenizer, seq_len=32, n_windows=40)
    hidden = torch.zeros_like(windows, dtype=torch.bool)
    hidden[:, 3::7] = True
    ids = windows.masked_fill(hidden, tokenizer.pad_token_id)
    with torch.no_grad():
        return cross_entropy(model(input_ids=ids).logits[hidden], windows[hidden]).item()


def test_an_encoder_learns_to_find_masked_tokens(masked, corpus):
    tokenizer = load_tokenizer(masked)
    assert tokenizer.mask_token is None  # the pad token is the mask
    saved = checkpoints(masked)
    first, last = (loss_of_masked(saved[step], corpus) for step in (0, MASKED["steps"]))
    windows = token_windows(corpus, tokenizer, seq_len=32, n_windows=40)
    shares = torch.bincount(windows[:, 3::7].flatten()) / windows[:, 3::7].numel()
    unigrams = -torch.xlogy(shares, shares).sum().item()  # of a model that looks at no context
    assert last < unigrams < first
    assert load_encoder(masked).config.model_type == "modernbert"


def test_an_encoder_whose_training_stopped_ends_as_one_that_did_not(tmp_path, text, monkeypatch):
    stops = []

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step in stops:
                raise KeyboardInterrupt

    original = RegularisedTrainer.train

    def stopped(trainer, *args, **kwargs):
        trainer.add_callback(Stop())
        return original(trainer, *args, **kwargs)

    monkeypatch.setattr(RegularisedTrainer, "train", stopped)
    run_masked(tmp_path / "whole", text)
    stops.append(110)
    with pytest.raises(KeyboardInterrupt):
        run_masked(tmp_path / "stopped", text)
    kept = [path.name for path in (tmp_path / "stopped" / "trainer").glob("checkpoint-*")]
    assert kept == ["checkpoint-100"] and not (tmp_path / "stopped" / "losses.json").exists()
    stops.clear()
    run_masked(tmp_path / "stopped", text)
    for name, tensor in weights_of(tmp_path / "stopped").items():
        torch.testing.assert_close(tensor, weights_of(tmp_path / "whole")[name])


# ---------------------------------------------------------------------------- divergence


def test_a_run_that_diverges_ends_in_a_note_and_has_no_loss(tmp_path, text, heldout):
    config = zoo_config("llama", load_profile("smoke").zoo, load_tokenizer(text["tokenizer"]))
    options = PLAIN | {"learning_rate": 1e30, "warmup_steps": 0}
    seed = options.pop("seed")
    train_or_diverge(tmp_path, config, **text, seed=seed, options=options)
    note = (tmp_path / "diverged.txt").read_text()
    assert re.search(r"became (nan|inf|NaN or inf) in step \d; .*Lower the learning rate", note)
    assert not (tmp_path / "trainer").exists() and not (tmp_path / "losses.json").exists()
    assert not (tmp_path / "model.safetensors").exists()
    require_finite_checkpoints(tmp_path)
    assert validation_loss(tmp_path, heldout) is None


def test_a_run_that_ends_well_has_the_loss_of_its_model(tmp_path, trained, heldout):
    last = measure_checkpoints(trained, heldout).query("step == 24")["validation_loss"]
    assert validation_loss(trained, heldout) == pytest.approx(last.iloc[0], rel=1e-6)


def test_a_group_of_processes_is_stopped_by_a_run_that_diverges(tmp_path, text, monkeypatch):
    def diverge(*args, **options):
        raise FloatingPointError("the loss became nan in step 3")

    given = {"config": {}, **text, "seed": 0, "options": {}}
    monkeypatch.setattr("linlib.training.pretraining.train", diverge)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(FloatingPointError, match="became nan in step 3"):
        train_or_diverge(tmp_path, **given)
    assert not (tmp_path / "diverged.txt").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    train_or_diverge(tmp_path, **given)
    assert (tmp_path / "diverged.txt").read_text() == "the loss became nan in step 3"


# ---------------------------------------------------------------------------- comparisons


def along_training(variant, seed, losses, scores, diverged=False):
    return pd.DataFrame(
        {"size": "s", "variant": variant, "seed": seed, "diverged": diverged, "step": [0, 10, 20],
         "tokens": "all", "validation_loss": losses, "linearity_no_residual": scores}
    )  # fmt: skip


def test_runs_are_compared_at_equal_steps_and_at_equal_loss():
    fast = along_training("cosine-0.5", 0, [6.0, 4.0, 2.0], [0.9, 0.7, 0.5])
    slow = along_training("plain", 0, [6.0, 5.0, 3.0], [0.9, 0.8, 0.4])
    worse = along_training("mse-2.0", 0, [7.0, 6.5, 6.0], [0.9, 0.8, 0.4])  # of another pair
    rows = compare_at_equal_loss(pd.concat([fast, slow, worse]))
    assert set(rows["pair"]) == {"cosine-0.5", "mse-2.0"}
    rows = rows[rows["pair"] == "cosine-0.5"].set_index(["at", "variant"])
    assert rows.loc["equal steps", "linearity_no_residual"].to_dict() == {
        "cosine-0.5": 0.5,
        "plain": 0.4,
    }
    equal = rows.loc["equal loss"]
    assert (equal["validation_loss"] == 3.0).all()
    assert equal.loc["plain", "reached_at"] == 20
    assert equal.loc["cosine-0.5", "reached_at"] == 15  # half-way from loss 4 to loss 2
    assert equal.loc["cosine-0.5", "linearity_no_residual"] == pytest.approx(0.6)


def test_a_run_that_starts_below_the_loss_is_taken_at_its_start():
    early = along_training("plain", 0, [3.0, 2.0, 1.0], [0.9, 0.8, 0.7])
    late = along_training("cosine-0.5", 0, [6.0, 5.0, 4.0], [0.9, 0.8, 0.7])
    rows = compare_at_equal_loss(pd.concat([early, late])).query("at == 'equal loss'")
    assert rows["reached_at"].tolist() == [0, 20]


def test_a_run_that_diverges_sets_no_loss_for_the_others():
    good = along_training("plain", 0, [6.0, 4.0, 2.0], [0.9, 0.8, 0.7])
    better = along_training("cosine-0.5", 0, [6.0, 3.0, 1.0], [0.9, 0.8, 0.7])
    lost = along_training("cosine-0.5", 1, [6.0, 5.0, 5.5], [0.9, 0.8, 0.7], diverged=True)
    rows = compare_at_equal_loss(pd.concat([good, better, lost]))
    assert rows.query("at == 'equal loss'")["validation_loss"].tolist() == [2.0, 2.0]
    assert rows.query("diverged")["at"].tolist() == ["equal steps"]


# ------------------------------------------------------------------------------ bad input


def test_a_batch_that_cannot_be_split_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="a batch of 4 cannot be split over 3 processes, all at"):
        run(tmp_path, text, PLAIN)
    assert not list(tmp_path.iterdir())


def test_a_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, text):
    options = PLAIN | {"learning_rate": 1e25, "warmup_steps": 0, "steps": 40}
    with pytest.raises(FloatingPointError, match=r"step (\d+).*Lower the learning rate") as failure:
        run(tmp_path, text, options)
    step = int(re.search(r"step (\d+)", str(failure.value))[1])
    assert step <= 2
    require_finite_checkpoints(tmp_path)


def require_finite_checkpoints(folder):
    kept = list(folder.rglob("*.safetensors"))
    assert kept
    for path in kept:
        for name, tensor in load_file(path).items():
            assert bool(torch.isfinite(tensor).all()), (path, name)


def test_weights_that_are_not_finite_are_not_saved(tmp_path, text, monkeypatch):
    class BreakWeight(TrainerCallback):
        def on_optimizer_step(self, args, state, control, model=None, **kwargs):
            if state.global_step == 3:  # the fourth step
                next(model.parameters()).data[0] = torch.nan

    original = RegularisedTrainer.train

    def patched(trainer, *args, **kwargs):
        trainer.add_callback(BreakWeight())
        return original(trainer, *args, **kwargs)

    monkeypatch.setattr(RegularisedTrainer, "train", patched)
    with pytest.raises(FloatingPointError, match="became NaN or inf in step 4"):
        run(tmp_path, text, PLAIN)
    assert list(checkpoints(tmp_path)) == [0, 1, 2]
    require_finite_checkpoints(tmp_path)


def test_states_that_are_not_finite_are_named_by_their_step(tmp_path, trained, heldout):
    for step in (0, 2):
        shutil.copytree(checkpoints(trained)[step], tmp_path / "checkpoints" / f"step{step}")
    file = tmp_path / "checkpoints" / "step2" / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.0.mlp.down_proj.weight"] *= 1e38  # finite, and the states overflow
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(FloatingPointError, match="the states after step 2: .*; the last"):
        measure_checkpoints(tmp_path, heldout)
