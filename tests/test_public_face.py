"""`import linlib`: the public names, lazily, in little time, without the heavy libraries."""

import subprocess
import sys
from pathlib import Path

import pytest

import linlib

REPOSITORY = Path(__file__).parents[1]
NAMES = {
    "load", "load_model", "load_tokenizer", "token_windows", "linearity_profile",
    "linearity_score", "fit_linear_map", "BlockMoments", "residual_stream", "removal_order",
    "prune", "save_pruned", "load_pruned", "perplexity", "probe_layers", "Regulariser",
    "RegularisedTrainer", "load_profile", "result",
}  # fmt: skip


def test_the_public_names_are_those_of_the_design():
    assert set(linlib.__all__) == NAMES == set(dir(linlib))
    for name in linlib.__all__:
        assert callable(getattr(linlib, name)) and getattr(linlib, name).__doc__, name


def test_no_room_bears_the_name_of_a_public_function():
    rooms = {path.stem for path in (REPOSITORY / "linlib").iterdir()}
    assert not rooms & NAMES


def test_importing_linlib_imports_no_heavy_library():
    code = "import sys, linlib; print({'torch', 'transformers', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_name_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(AttributeError, match="has no attribute 'linearity_profil'; it has"):
        linlib.linearity_profil  # noqa: B018
