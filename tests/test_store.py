"""The store: nothing without provenance, nothing half-written, nothing computed twice."""

import ast
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from datasets import Dataset

import linlib
from linlib import store
from linlib.linearity import linearity_score
from linlib.store import keys, results
from linlib.store.provenance import REPOSITORY

SETTINGS = linlib.load_profile("smoke")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    return tmp_path


def frame():
    return pd.DataFrame({"model": ["a", "b"], "score": [0.123456789, 1.0]})


def saved(frames=None):
    store.save_frames(frames or {"": frame()}, "fig0_test", "tiny", {})
    return store.results_folder("tiny") / "fig0_test.csv"


# ------------------------------------------------------------------------------ results


def test_a_result_is_measured_when_missing_or_asked_for(home):
    calls = []

    def measure():
        calls.append(1)
        yield {"model": "a", "score": len(calls)}

    for remeasure, expected in ((False, 1), (False, 1), (True, 2)):
        assert store.result("fig0", measure, SETTINGS, remeasure)["score"].item() == expected
    record = store.load_provenance("fig0", "smoke")
    assert record["parameters"]["measure"]["n_windows"] == 32
    assert record["keys"] == {"fig0": ["model"]} and 0 <= record["wall_seconds"] < 60
    assert record["packages"]["torch"] == torch.__version__


def test_a_measurement_may_yield_rows_or_frames_or_return_several(home):
    rows = [{"x": 1}, pd.DataFrame({"x": [2, 3]})]
    assert store.result("fig0", lambda: iter_of(rows), SETTINGS)["x"].tolist() == [1, 2, 3]
    assert store.result("fig1", frame, SETTINGS).equals(frame())
    several = {"": frame(), "_more": pd.DataFrame({"y": [4]})}
    store.result("fig2", lambda: several, SETTINGS)
    assert store.load_frame("fig2_more", "smoke")["y"].item() == 4
    assert store.load_provenance("fig2_more", "smoke")["name"] == "fig2"
    names = sorted(path.name for path in store.results_folder("smoke").glob("fig2*"))
    assert names == ["fig2.csv", "fig2.json", "fig2_more.csv"]


def iter_of(rows):
    yield from rows


def test_what_is_opened_while_measuring_is_in_the_provenance(home):
    def measure():
        store.record("models", "GPT-2", "commit 123")
        yield {"x": store.cached(recorded_length, "four")}

    for was_found in (False, True):
        store.result("fig0", measure, SETTINGS, remeasure=True)
        record = store.load_provenance("fig0", "smoke")
        assert (record["cached_seconds"] >= 0.2) == was_found  # `recorded_length` takes as long
        assert record["models"] == {"GPT-2": "commit 123"}
        assert record["corpora"] == {"four": "sha of four"}


def test_nested_blocks_that_record_the_same_are_told_apart():
    with store.recording() as outer:
        store.record("models", "a", 1)
        with store.recording() as inner:
            store.record("models", "a", 1)
        store.record("models", "b", 2)
    assert outer == {"models": {"a": 1, "b": 2}} and inner == {"models": {"a": 1}}


def recorded_length(text):
    time.sleep(0.2)
    store.record("corpora", text, f"sha of {text}")
    return len(text)


def test_the_same_frame_makes_the_same_bytes(home):
    first = saved().read_bytes()
    store.save_frames({"": frame()}, "fig0_test", "tiny", {"other": 1})
    assert saved().read_bytes() == first


def test_the_key_of_a_frame_is_its_shortest_run_of_columns(home):
    rows = pd.DataFrame({"model": ["a", "a"], "layer": [1, 2], "score": [0.5, 0.5]})
    saved({"": rows})
    assert store.load_provenance("fig0_test", "tiny")["keys"]["fig0_test"] == ["model", "layer"]


def test_text_that_resembles_a_missing_value_stays_text(home):
    texts = pd.DataFrame({"token": ["nan", "None", "NULL"], "value": [1.0, None, 2.0]})
    saved({"": texts})
    loaded = store.load_frame("fig0_test", "tiny")
    assert loaded["token"].tolist() == ["nan", "None", "NULL"]
    assert loaded["value"].isna().tolist() == [False, True, False]


STRANGE = [
    "a\rb",
    "\r",
    "end\r",
    "\r\n",
    'say "no", no',
    "\n\n",
    " ",
    "\t",
    ",",
    '"',
    "\\",
    "é\x85",
]


@pytest.mark.parametrize("columns", [["text"], ["n", "text"], ["text", "n"]])
def test_texts_come_back_letter_by_letter(home, columns):
    texts = pd.DataFrame({"text": STRANGE, "n": range(len(STRANGE))})[columns]
    saved({"": texts})
    pd.testing.assert_frame_equal(store.load_frame("fig0_test", "tiny"), texts)


def test_an_ordinary_frame_is_ordinary_csv(home):
    rows = pd.DataFrame({"text": ["a", 'b,"c"', "d\ne", None], "score": [0.1, 1e-12, None, 3.0]})
    written = b'text,score\na,0.1\n"b,""c""",1e-12\n"d\ne",\n,3\n'
    assert saved({"": rows}).read_bytes() == written
    assert store.load_frame("fig0_test", "tiny").equals(rows)


def test_the_commit_is_marked_where_the_code_differs_from_it():
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    record = store.code_commit()
    code = ["linlib", "storyworld", "pyproject.toml", "requirements.lock"]
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "--", *code],
        cwd=REPOSITORY, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert record.endswith("+changes") == bool(dirty)
    assert len(record.removesuffix("+changes")) == 12


def test_outside_a_checkout_git_is_not_asked(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr("linlib.store.provenance.REPOSITORY", tmp_path)
    assert "release" in store.code_commit() or store.code_commit() == "unknown"
    assert capfd.readouterr().err == ""


def test_without_the_variable_the_root_is_the_repository(monkeypatch, tmp_path):
    monkeypatch.delenv("LINLIB_ROOT", raising=False)
    assert (store.root() / "linlib" / "store").is_dir()
    monkeypatch.setattr("linlib.store.provenance.REPOSITORY", tmp_path)  # an installed wheel
    monkeypatch.chdir(tmp_path)
    assert store.root() == Path.cwd()


# ---------------------------------------------------------------------------- artefacts


def test_values_of_every_kind_come_back_as_they_were(home):
    precise = pd.DataFrame({"text": ["nan", "\r"], "x": [0.1 + 0.2, 1e-300]})
    rows = Dataset.from_dict({"text": ["nan", "", None], "n": [0.1, 1e-300, None]})
    for value in (7, {"a": [1, None]}, "text", precise, rows):
        found = [store.cached(given, Boxed(value)) for _ in range(2)]
        assert_same(found[0], value)
        assert_same(found[1], value)


def given(box):
    return box.value


class Boxed:
    """A value whose identity is its own text, so that it can be an argument."""

    column_names = ()

    def __init__(self, value):
        self.value = value

    def with_format(self, name):
        return self

    def iter(self, batch_size):
        yield {"value": str(self.value)}


def assert_same(found, value):
    if isinstance(value, Dataset):
        assert found[:] == value[:]
    elif isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(found, value, check_exact=True)
    else:
        assert found == value


def counted(folder, steps, seed=0):
    calls = int((folder / "calls").read_text()) if (folder / "calls").exists() else 0
    (folder / "calls").write_text(str(calls + 1))
    if steps < 0:
        raise RuntimeError("power cut")


def test_a_folder_is_filled_once_however_the_arguments_are_given(home):
    first = store.cached(counted, 3)
    assert store.cached(counted, seed=0, steps=3) == first
    assert (first / "calls").read_text() == "1"
    assert store.cached(counted, 4) != first and store.is_cached(counted, 4)
    assert not store.is_cached(counted, 5)
    description = json.loads((first / "artefact.json").read_text())
    assert description["arguments"] == {"steps": 3, "seed": 0}


def test_a_failed_call_leaves_no_artefact_and_is_resumed(home):
    for expected in ("1", "2"):
        with pytest.raises(RuntimeError, match="power cut"):
            store.cached(counted, -1)
        place = store.artefact(counted, -1)
        assert not place.folder.exists() and (place.partial / "calls").read_text() == expected


BUILDER = """
import sys, time
sys.path.insert(0, sys.argv[2])
from builder import build
from linlib import store
store.cached(build, float(sys.argv[1]))
"""
BUILD = """
import time

def build(folder, seconds):
    resumed = (folder / "part").exists()
    (folder / "part").write_text("x")
    print("building", flush=True)
    time.sleep(0 if resumed else seconds)
    (folder / "done").write_text("resumed" if resumed else "fresh")
"""


def start_builder(home, seconds):
    (home / "builder.py").write_text(BUILD)
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(seconds), str(home)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LINLIB_ROOT": str(home)},
    )


def test_two_processes_compute_one_value_once(home):
    builders = [start_builder(home, 0.5) for _ in range(2)]
    outputs = [builder.communicate(timeout=60)[0] for builder in builders]
    assert "".join(outputs).count("building") == 1
    assert all(builder.returncode == 0 for builder in builders)


def test_a_killed_call_leaves_a_partial_folder_without_a_lock_and_is_resumed(home):
    builder = start_builder(home, 60)
    assert builder.stdout.readline() == "building\n"
    builder.send_signal(signal.SIGKILL)
    builder.wait(10)
    folder = store.cache_folder() / "build"
    assert not [path for path in folder.iterdir() if len(path.name) == 16]
    started = time.monotonic()
    assert start_builder(home, 60).wait(60) == 0
    assert time.monotonic() - started < 50
    (done,) = folder.glob("*/done")
    assert done.read_text() == "resumed"


def test_a_key_depends_on_content_alone(home):
    x = torch.arange(6.0).view(3, 2)
    same = [x.clone(), x.t().contiguous().t()]
    assert all(store.identity(one) == store.identity(x) for one in same)
    others = [x.double(), x.view(2, 3), x + 1]
    assert len({json.dumps(store.identity(one)) for one in [x, *others]}) == 4
    rows = Dataset.from_dict({"text": ["a", "b"]})
    assert store.identity(rows) == store.identity(Dataset.from_dict({"text": ["a", "b"]}))
    assert store.identity(rows) != store.identity(Dataset.from_dict({"text": ["b", "a"]}))
    assert store.identity({"b": 1, "a": (1, 2)}) == {"a": [1, 2], "b": 1}


def test_the_key_of_a_model_is_its_weights_and_config(home):
    from transformers import AutoModelForCausalLM, GPT2Config

    config = GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=11, n_positions=8)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    before = store.identity(model)
    model.name_or_path = "elsewhere"
    assert store.identity(model) == before
    assert store.identity(model.to(torch.bfloat16)) != before
    model = model.to(torch.float32)
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight[0, 0] += 1
    assert store.identity(model) != before


def test_folders_are_known_by_their_content_also_in_the_cache(home):
    inside = store.cached(counted, 3)
    assert store.identity(inside) == store.identity(store.cached(counted, 4))  # the same files
    assert store.identity(inside / "calls").startswith("counted/")
    outside = home / "model"
    outside.mkdir()
    (outside / "weights").write_text("1")
    (outside / "events.out.tfevents.1").write_text("a log")
    first = store.identity(outside)
    (outside / "events.out.tfevents.1").write_text("another log")
    assert store.identity(outside) == first
    (outside / "weights").write_text("2")
    assert store.identity(outside) != first
    by_hand = store.cache_folder() / "by_hand"  # nobody described it: its files count
    by_hand.mkdir()
    (by_hand / "weights").write_text("2")
    assert len(store.identity(by_hand)) == 16


def test_comments_and_docstrings_do_not_change_the_digest_of_code():
    code = 'def f(x):\n    """Old."""\n    return x + 1\n'
    same = 'def f(x):\n    """New words."""\n    return x + 1  # why\n'
    first, second, third = map(keys._tree, (code, same, code.replace("1", "2")))
    assert ast.dump(first) == ast.dump(second) != ast.dump(third)


def test_definitions_below_an_if_or_a_try_count(package):
    package("linlib/low/maths.py", "SCALE = 2", "try:\n    SCALE = 2\nexcept ImportError:\n    ...")
    assert ("linlib.low.maths", "SCALE") in reached("f")


def test_what_a_function_of_a_notebook_finds_outside_itself_counts(monkeypatch):
    before = store.code_digest(uses_globals)
    assert store.code_digest(uses_globals) == before
    monkeypatch.setattr(f"{__name__}.FACTOR", 3)
    assert store.code_digest(uses_globals) != before


FACTOR = 2


def uses_globals(x):
    return FACTOR * linearity_score(x, x)


def test_code_that_is_edited_later_is_not_what_runs(package, tmp_path):
    before = reached("f")
    path = tmp_path / "linlib/low/maths.py"
    path.write_text(path.read_text().replace("SCALE = 2", "SCALE = 3"))  # nothing is imported again
    keys._reached.cache_clear()
    keys._module.cache_clear()
    assert reached("f") == before


def test_the_digest_of_code_follows_definitions_through_imports():
    reached = keys._reached("linlib.linearity.moments", "BlockMoments")
    assert ("linlib.linearity.maps", "factorise") in reached
    assert ("linlib.linearity.maps", "linearity_score") not in reached  # not for streamed moments
    assert not [module for module, _ in reached if module.startswith("linlib.store")]
    assert store.code_digest(linearity_score) == store.code_digest(linearity_score)
    assert store.code_digest(linearity_score) != store.code_digest(counted)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A project of two rooms, one of which imports lazily; returns a function that edits a file."""
    monkeypatch.setattr(keys, "REPOSITORY", tmp_path)
    files = {
        "linlib/__init__.py": "",
        "linlib/low/__init__.py": "def __getattr__(name):\n    ...\n",
        "linlib/low/maths.py": (
            "SCALE = 2\ndef twice(x):\n    return SCALE * x\ndef other():\n    ...\n"
        ),
        "linlib/high.py": (
            "from linlib import low, store\nfrom linlib.low import twice as double\n"
            "def f(x):\n    store.record(x)\n    return double(x)\n"
            "def g(x):\n    from linlib.low.maths import other\n    return low.twice(other())\n"
        ),
        "linlib/store.py": "def record(x):\n    ...\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def edit(name, old, new):
        path = tmp_path / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        for cached in (keys._reached, keys._module, keys._sources):
            cached.cache_clear()

    edit("linlib/high.py", "store.record", "store.record")  # forget the real project
    yield edit
    monkeypatch.undo()
    for cached in (keys._reached, keys._module, keys._sources):
        cached.cache_clear()


def reached(name):
    return keys._reached("linlib.high", name)


def test_a_change_counts_for_those_who_use_what_changed_and_for_nobody_else(package):
    f, g = reached("f"), reached("g")
    maths = {("linlib.low.maths", "twice"), ("linlib.low.maths", "SCALE")}
    assert set(f) == {("linlib.high", "f"), *maths}
    assert set(g) == {("linlib.high", "g"), ("linlib.low.maths", "other"), *maths}
    package("linlib/low/maths.py", "SCALE = 2", "SCALE = 3")
    assert reached("f") != f and reached("g") != g
    package("linlib/low/maths.py", "SCALE = 3", "SCALE = 2  # as it was")
    package("linlib/low/maths.py", "def other():", 'def other():\n    "New words."')
    assert reached("f") == f and reached("g") == g
    package("linlib/low/maths.py", "...", "return 1")
    assert reached("f") == f and reached("g") != g
    package("linlib/store.py", "...", "return x")
    assert reached("f") == f


def test_text_columns_come_back_as_text(home):
    blocks = pd.DataFrame({"n_removed": [0, 1, 2], "removed": ["0", "2", "01"]})
    saved({"": blocks})
    pd.testing.assert_frame_equal(store.load_frame("fig0_test", "tiny"), blocks)


def test_frames_that_a_result_no_longer_has_are_removed(home):
    saved({"": frame(), "_old": frame()})
    saved({"": frame(), "_new": frame()})
    names = sorted(path.name for path in store.results_folder("tiny").glob("*.csv"))
    assert names == ["fig0_test.csv", "fig0_test_new.csv"]


def test_a_stored_result_of_other_settings_is_returned_with_a_warning(home):
    def measure():
        yield {"x": 1}

    store.result("fig0", measure, SETTINGS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.result("fig0", measure, SETTINGS)
    changed = dataclasses.replace(SETTINGS, seed=7, description="other words")
    with pytest.warns(UserWarning, match=r"fig0 was measured with other settings: \['seed'\]"):
        assert store.result("fig0", measure, changed)["x"].item() == 1


def test_numbers_among_missing_values_are_read_back_as_numbers(home):
    rows = [
        {"name": "a", "seed": None, "constant": None},
        {"name": "7", "seed": 3, "constant": None},
    ]
    found = store.result("fig0", lambda: iter_of(rows), SETTINGS)
    assert found["seed"].isna().tolist() == [True, False] and found["seed"][1] + 1 == 4
    assert math.isnan(found["constant"].mean()) and found["name"].tolist() == ["a", "7"]


def test_sections_that_a_result_did_not_require_do_not_matter_to_it(home):
    settings = linlib.load_profile("smoke")

    def measure():
        yield {"x": settings.require("pruning", "this figure").task_rows}

    store.result("fig0", measure, settings)
    other = dataclasses.replace(settings, finetuning=None, encoders=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.result("fig0", measure, other)
    kept = store.load_provenance("fig0", "smoke")["parameters"]
    assert {"pruning", "zoo", "measure"} <= set(kept) and "finetuning" not in kept
    with pytest.warns(UserWarning, match=r"other settings: \['pruning'\]"):
        store.result("fig0", measure, dataclasses.replace(settings, pruning=None))


def test_a_stored_result_of_another_cell_is_returned_with_a_warning(home):
    def measure():
        yield {"x": 1}

    def changed():
        yield {"x": 2}

    store.result("fig0", measure, SETTINGS)
    with pytest.warns(UserWarning, match="fig0 was measured by another version of this cell; set"):
        assert store.result("fig0", changed, SETTINGS)["x"].item() == 1


def test_a_tokenizer_is_the_same_after_it_has_padded(tokenizer_folder):
    tokenizer = linlib.load_tokenizer(tokenizer_folder)
    before = store.identity(tokenizer)
    tokenizer(["a b c", "a"], padding=True, truncation=True, max_length=2)
    assert store.identity(tokenizer) == before


def test_contents_that_only_resemble_each_other_are_told_apart(home):
    frames = [pd.DataFrame({"x": [value]}) for value in (None, "", 1, "1")]
    assert len({store.identity(one) for one in frames}) == 4
    long = [list(range(2000)), list(range(1999)) + [7]]
    rows = [Dataset.from_dict({"ids": [ids]}).with_format("torch") for ids in long]
    assert store.identity(rows[0]) != store.identity(rows[1])
    assert store.identity(pd.Series([1, 2])) == [1, 2]


# ---------------------------------------------------------------------------- bad input


def test_arguments_without_names_are_refused(home):
    with pytest.raises(TypeError, match="open_ended takes .args or ..kwargs"):
        store.cached(open_ended, b=2)


def open_ended(**options):
    return options


def test_a_value_that_cannot_be_kept_is_refused(home):
    with pytest.raises(TypeError, match="a set cannot be kept in the store; return a frame"):
        store.cached(given, Boxed({1, 2}))


def test_frames_without_a_main_one_are_refused(home):
    with pytest.raises(ValueError, match=r"returned the frames \['_more'\], none of which is the"):
        store.result("fig0", lambda: {"_more": frame()}, SETTINGS)


def test_a_measurement_that_yields_nothing_is_refused(home):
    with pytest.raises(ValueError, match="measurement of fig0 yielded no rows"):
        store.result("fig0", lambda: iter_of([]), SETTINGS)
    with pytest.raises(ValueError, match="fig0_more yielded no rows"):
        store.result("fig0", lambda: {"": frame(), "_more": frame()[:0]}, SETTINGS)
    assert not store.results_folder("smoke").exists()


def test_rows_of_different_columns_are_refused(home):
    rows = [{"x": 1, "y": 2}, {"x": 1, "z": 2}]
    with pytest.raises(ValueError, match=r"different columns: row 1 and row 0.*\['y', 'z'\]"):
        store.result("fig0", lambda: iter_of(rows), SETTINGS)


def test_a_measurement_that_returns_something_else_is_refused(home):
    with pytest.raises(ValueError, match="measurement of fig0 returned NoneType; it must yield"):
        store.result("fig0", lambda: None, SETTINGS)


def test_rows_that_are_the_same_are_refused(home):
    with pytest.raises(ValueError, match="two rows of fig0 are equal; add the column"):
        store.result("fig0", lambda: iter_of([{"x": 1}, {"x": 1}]), SETTINGS)


def test_a_failed_measurement_leaves_nothing(home):
    def measure():
        yield {"x": 1}
        raise ValueError("layer 3: NaN or infinite values")

    with pytest.raises(ValueError, match="layer 3"):
        store.result("fig0", measure, SETTINGS)
    assert not store.results_folder("smoke").exists()


def test_an_argument_without_an_identity_is_refused(home):
    with pytest.raises(TypeError, match="a SimpleNamespace cannot be part of a key"):
        store.cached(given, SimpleNamespace())
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        store.cached(counted, home / "nowhere")


def test_a_csv_without_provenance_is_refused(home):
    path = saved()
    path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"fig0_test\.csv has no provenance.*make all PROFILE=tin"):
        store.load_frame("fig0_test", "tiny")


def test_an_edited_csv_is_refused(home):
    path = saved()
    path.write_text(path.read_text().replace("0.123", "0.999"))
    with pytest.raises(ValueError, match="not the file that its provenance describes"):
        store.load_frame("fig0_test", "tiny")


def test_a_set_of_frames_that_a_kill_left_half_new_is_refused(home, monkeypatch):
    more = {"": frame(), "_more": frame()}
    saved(more)
    newer = {name: part.assign(score=0.5) for name, part in more.items()}

    def cut_off(path, text):
        store.write_atomically(path, text)
        if path.name == "fig0_test.csv":
            raise KeyboardInterrupt

    monkeypatch.setattr(results, "write_atomically", cut_off)
    with pytest.raises(KeyboardInterrupt):
        saved(newer)
    for name in ("fig0_test", "fig0_test_more"):
        with pytest.raises(ValueError, match="a measurement was cut off; measure again"):
            store.load_frame(name, "tiny")


def test_a_frame_never_measured_says_how_to_measure_it(home):
    with pytest.raises(FileNotFoundError, match="never measured; run `make all PROFILE=smoke`"):
        store.load_frame("fig0_test", "smoke")
