"""The benchmarks run, and their methods agree where agreeing is easy."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def tasks():
    sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("tasks", BENCHMARKS / "tasks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(BENCHMARKS))


def test_all_methods_agree_on_well_conditioned_states(tasks, tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 32, generator=generator)
    layers = {"h00": x, "h01": x + 0.3 * torch.tanh(x), "h02": 2 * x}
    save_file(layers, tmp_path / "states.safetensors")
    results = {
        method: tasks.score_states(method, str(tmp_path / "states.safetensors"))["scores"]
        for method in tasks.METHODS
    }
    reference = results["torch.linalg.lstsq, float64"]
    for scores in results.values():
        torch.testing.assert_close(torch.tensor(scores), torch.tensor(reference), atol=1e-4, rtol=0)


def test_every_task_runs_on_a_small_model(tasks):
    common = {"shape": "small", "n_tokens": 2048, "device": "cpu", "dtype": "bfloat16"}
    times = tasks.profile_against_forward(repeats=1, **common)
    assert 0 < times["forward"][0] < times["profile"][0] and times["moments"][0] > 0
    assert times["peak_memory_mib"] > 0
    assert tasks.moments_error(**common)["largest_error"] < 1e-5
    found = tasks.lstsq_error("small", 2048)
    assert found["largest_error"] < 1e-5 and found["n_layers"] == 2
    shape = {"d_model": 32, "n_blocks": 2, "n_heads": 4, "batch_size": 2, "repeats": 2}
    seconds = tasks.training_step(variants=["plain", "cosine-0.5"], **shape)
    assert {name: len(taken) for name, taken in seconds.items()} == {"plain": 2, "cosine-0.5": 2}
    assert all(second > 0 for taken in seconds.values() for second in taken)
    pruned = tasks.pruned_forward("small", n_tokens=256, n_removed=[1], repeats=2)
    assert {name: len(taken) for name, taken in pruned.items()} == {"0": 2, "1": 2}
