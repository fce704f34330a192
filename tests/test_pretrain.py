"""Training: real Trainer runs at the smallest size; killed ones go on where they were."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from linlib.corpora import packed_windows
from linlib.models import decoder_blocks, load_model, load_tokenizer
from linlib.pretrain import Recipe, checkpoint_steps, train, train_zoo, zoo_config
from linlib.pretrain.zoo import KINDS
from linlib.profiles import load_profile
from linlib.store import cache_folder

RECIPE = Recipe(steps=24, batch_size=4, learning_rate=3e-3, warmup_steps=4, seed=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, corpus, tokenizer_folder):
    folder = tmp_path_factory.mktemp("run")
    run(folder, corpus, tokenizer_folder)
    return folder


def run(folder, corpus, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    config = zoo_config("llama", load_profile("smoke").zoo, tokenizer)
    train(config, packed_windows(corpus, tokenizer, 32), RECIPE, tokenizer, folder)


def loss_of(folder, corpus, tokenizer_folder):
    model, tokenizer = load_model(folder), load_tokenizer(tokenizer_folder)
    windows = packed_windows(corpus, tokenizer, 32)
    with torch.no_grad():
        return model(input_ids=windows, labels=windows).loss.item()


def test_checkpoints_are_log_spaced_and_hold_the_ends():
    assert checkpoint_steps(24) == [0, 1, 2, 4, 8, 16, 24]
    assert checkpoint_steps(16) == [0, 1, 2, 4, 8, 16]


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


KILLED = """
import sys
from datasets import Dataset
sys.path.insert(0, sys.argv[1])
from conftest import SENTENCES
from test_pretrain import run
from pathlib import Path
texts = [f"{s} Number {i}." for i in range(50) for s in SENTENCES]
run(Path(sys.argv[2]), Dataset.from_dict({"text": texts}), sys.argv[3])
"""


def test_a_killed_run_resumes_from_its_last_checkpoint_to_the_same_weights(
    tmp_path, trained, corpus, tokenizer_folder
):
    here = os.path.dirname(__file__)
    process = subprocess.Popen([sys.executable, "-c", KILLED, here, tmp_path, tokenizer_folder])
    deadline = time.monotonic() + 120
    while not (tmp_path / "trainer" / "checkpoint-8" / "trainer_state.json").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert not (tmp_path / "model.safetensors").exists()
    torn = tmp_path / "trainer" / "checkpoint-99"  # as a kill in the middle of saving leaves it
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_step": 9')
    run(tmp_path, corpus, tokenizer_folder)
    assert not (tmp_path / "trainer").exists()
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        torch.testing.assert_close(tensor, load_file(trained / "model.safetensors")[name])


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
