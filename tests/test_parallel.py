"""Work side by side: computed once, in order, with its provenance, in threads of its own."""

import os
import time

import pytest
import torch

import linlib
from linlib import parallel, store
from linlib.linearity import linearity_score


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    return tmp_path


def cloud(seed):
    return torch.randn(50, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("workers", [1, 2])
def test_values_come_back_in_the_order_of_the_items(home, workers):
    items = [{"x": cloud(0), "y": cloud(seed)} for seed in (3, 1, 2, 1)]
    found = parallel.side_by_side(linearity_score, items, workers)
    assert found == pytest.approx([linearity_score(**item) for item in items])
    assert found[1] == found[3]
    assert len(list((home / "data" / "cache" / "linearity_score").glob("*/artefact.json"))) == 3


def test_what_is_stored_needs_no_process(home, monkeypatch):
    items = [{"x": cloud(0), "y": cloud(1)}]
    first = parallel.side_by_side(linearity_score, items, 2)
    monkeypatch.setattr("joblib.Parallel", None)
    assert parallel.side_by_side(linearity_score, items, 2) == first


def opened_text(name):
    store.record("corpora", name, f"sha of {name}")
    return {"name": name, "threads": torch.get_num_threads(), "process": os.getpid()}


def test_one_worker_is_this_process_with_one_thread(home):
    before = torch.get_num_threads()
    (found,) = parallel.side_by_side(opened_text, [{"name": "a"}], 1)
    assert found == {"name": "a", "threads": 1, "process": os.getpid()}
    assert torch.get_num_threads() == before


def test_provenance_of_workers_reaches_the_result(home):
    settings = linlib.load_profile("smoke")

    def measure():
        yield from parallel.side_by_side(opened_text, [{"name": "a"}, {"name": "b"}], 2)

    store.result("fig0", measure, settings)
    assert store.load_provenance("fig0", "smoke")["corpora"] == {"a": "sha of a", "b": "sha of b"}


def test_an_error_in_a_worker_reaches_the_caller_and_finished_work_stays(home):
    items = [{"x": cloud(0), "y": cloud(1)}, {"x": cloud(0)[:3], "y": cloud(1)[:3]}]
    with pytest.raises(ValueError, match="3 tokens cannot test the linearity"):
        parallel.side_by_side(linearity_score, items, 1)
    assert store.is_cached(linearity_score, **items[0])


def slow(number):
    time.sleep(1.0)
    return os.getpid()


def test_two_workers_work_at_the_same_time(home):
    processes = parallel.side_by_side(slow, [{"number": n} for n in range(4)], 2)
    assert len(set(processes)) == 2 and os.getpid() not in processes


def test_an_edit_between_parent_and_worker_is_noticed(home):
    with pytest.raises(RuntimeError, match="linearity_score was edited while it was running"):
        parallel._in_one_thread(linearity_score, {"x": cloud(0), "y": cloud(1)}, "a key", home)
    assert os.environ["LINLIB_ROOT"] == str(home)


def test_a_function_of_a_script_cannot_go_to_other_processes(home, monkeypatch):
    monkeypatch.setattr(slow, "__module__", "__main__")
    with pytest.raises(ValueError, match="slow is defined in this notebook or script"):
        parallel.side_by_side(slow, [{"number": 1}], 2)
