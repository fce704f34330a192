"""The store: nothing without provenance, nothing half-written, nothing built twice."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

from linlib.store import (
    build_once,
    cache_folder,
    load_frame,
    load_provenance,
    recipe_key,
    results_folder,
    root,
    save_frames,
)
from linlib.store.frames import code_commit, write_atomically
from linlib.store.paths import REPOSITORY


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    return tmp_path


def frame():
    return pd.DataFrame({"model": ["a", "b"], "score": [0.123456789, 1.0]})


def saved():
    save_frames({"": frame()}, "fig0_test", "tiny", {})
    return results_folder("tiny") / "fig0_test.csv"


def test_a_frame_comes_back_as_it_was_saved(home):
    save_frames({"": frame()}, "fig0_test", "tiny", {"seed": 0})
    pd.testing.assert_frame_equal(load_frame("fig0_test", "tiny"), frame())
    record = load_provenance("fig0_test", "tiny")
    assert record["seed"] == 0 and record["profile"] == "tiny"
    assert record["packages"]["torch"] == torch.__version__
    assert {"commit", "measured_at", "python", "machine", "csv_sha256"} <= set(record)
    assert sorted(p.name for p in results_folder("tiny").iterdir()) == [
        "fig0_test.csv",
        "fig0_test.json",
    ]


def test_the_same_frame_makes_the_same_bytes(home):
    first = saved().read_bytes()
    save_frames({"": frame()}, "fig0_test", "tiny", {"other": 1})
    assert saved().read_bytes() == first


def test_text_that_looks_like_a_missing_value_stays_text(home):
    told = pd.DataFrame({"token": ["nan", "None", "NULL"], "value": [1.0, None, 2.0]})
    save_frames({"": told}, "fig0_test", "tiny", {})
    loaded = load_frame("fig0_test", "tiny")
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
    told = pd.DataFrame({"text": STRANGE, "n": range(len(STRANGE))})[columns]
    save_frames({"": told}, "fig0_test", "tiny", {})
    pd.testing.assert_frame_equal(load_frame("fig0_test", "tiny"), told)


def test_an_ordinary_frame_is_ordinary_csv(home):
    told = pd.DataFrame({"text": ["a", 'b,"c"', "d\ne", None], "score": [0.1, 1e-12, None, 3.0]})
    save_frames({"": told}, "fig0_test", "tiny", {})
    written = b'text,score\na,0.1\n"b,""c""",1e-12\n"d\ne",\n,3\n'
    assert (results_folder("tiny") / "fig0_test.csv").read_bytes() == written
    assert load_frame("fig0_test", "tiny").equals(told)


def test_the_commit_is_marked_where_the_code_differs_from_it():
    record = code_commit()
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "--", "linlib", "pyproject.toml", "requirements.lock"],
        cwd=REPOSITORY, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert record.endswith("+changes") == bool(dirty)
    assert len(record.removesuffix("+changes")) == 12


def test_without_the_variable_the_root_is_the_repository(monkeypatch):
    monkeypatch.delenv("LINLIB_ROOT", raising=False)
    assert (root() / "linlib" / "store").is_dir()


def test_an_artefact_is_built_once(home):
    calls = []

    def build(folder):
        calls.append(folder)
        (folder / "value.txt").write_text("42")

    recipe = {"steps": 3, "seed": 0}
    first = build_once("thing", recipe, build)
    assert build_once("thing", {"seed": 0, "steps": 3}, build) == first
    assert len(calls) == 1 and (first / "value.txt").read_text() == "42"
    assert json.loads((first / "recipe.json").read_text()) == recipe
    assert build_once("thing", {"steps": 4, "seed": 0}, build) != first
    assert recipe_key({"a": 1}) != recipe_key({"a": 2})


def test_a_failed_build_leaves_no_artefact_and_can_go_on(home):
    def fail(folder):
        (folder / "half.txt").write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        build_once("thing", {"a": 1}, fail)
    assert not (cache_folder() / "thing" / recipe_key({"a": 1})).exists()

    def resume(folder):
        assert (folder / "half.txt").read_text() == "half"

    assert build_once("thing", {"a": 1}, resume).is_dir()


BUILDER = """
import sys, time
from linlib.store import build_once

def build(folder):
    (folder / "part").write_text("x")
    print("building", flush=True)
    time.sleep(float(sys.argv[1]))
    (folder / "done").write_text("x")

build_once("thing", {"a": 1}, build)
"""


def start_builder(home, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LINLIB_ROOT": str(home)},
    )


def test_two_processes_build_one_artefact_once(home):
    builders = [start_builder(home, 0.5) for _ in range(2)]
    outputs = [builder.communicate(timeout=60)[0] for builder in builders]
    assert "".join(outputs).count("building") == 1
    assert all(builder.returncode == 0 for builder in builders)


def test_a_killed_build_leaves_only_a_partial_folder_and_no_lock(home):
    builder = start_builder(home, 60)
    assert builder.stdout.readline() == "building\n"
    builder.send_signal(signal.SIGKILL)
    builder.wait(10)
    key = recipe_key({"a": 1})
    assert not (cache_folder() / "thing" / key).exists()
    started = time.monotonic()
    folder = build_once("thing", {"a": 1}, lambda folder: (folder / "done").write_text("y"))
    assert time.monotonic() - started < 5
    assert (folder / "part").exists() and (folder / "done").read_text() == "y"


# ---------------------------------------------------------------- bad input


def test_a_csv_without_provenance_is_refused(home):
    path = saved()
    path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"fig0_test\.csv has no provenance.*make all PROFILE=tin"):
        load_frame("fig0_test", "tiny")


def test_an_edited_csv_is_refused(home):
    path = saved()
    path.write_text(path.read_text().replace("0.123", "0.999"))
    with pytest.raises(ValueError, match="not the file that its provenance describes"):
        load_frame("fig0_test", "tiny")


def test_a_set_of_frames_that_a_kill_left_half_new_is_refused(home, monkeypatch):
    more = {"": frame(), "_more": frame()}
    save_frames(more, "fig0_test", "tiny", {})
    newer = {name: part.assign(score=0.5) for name, part in more.items()}

    def cut_off(path, text):
        write_atomically(path, text)
        if path.name == "fig0_test_more.csv":
            raise KeyboardInterrupt

    monkeypatch.setattr("linlib.store.frames.write_atomically", cut_off)
    with pytest.raises(KeyboardInterrupt):
        save_frames(newer, "fig0_test", "tiny", {})
    for name in ("fig0_test", "fig0_test_more"):
        with pytest.raises(ValueError, match="a measurement was cut off; measure again"):
            load_frame(name, "tiny")


def test_a_frame_never_measured_says_how_to(home):
    with pytest.raises(FileNotFoundError, match="never measured; run `make all PROFILE=smoke`"):
        load_frame("fig0_test", "smoke")
