"""Profiles: strict, typed, frozen."""

import pytest
from pydantic import ValidationError

from linlib.profiles import load_profile
from linlib.profiles.schema import FOLDER, read_profile

PROFILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_loads_and_says_its_own_name(name):
    profile = load_profile(name)
    assert profile.name == name
    assert profile.zoo or profile.hub_models


def test_the_four_scales_exist():
    assert PROFILES == ["gpu", "paper", "smoke", "tiny"]


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_measures_more_tokens_than_its_own_models_are_wide(name):
    profile = load_profile(name)
    if profile.zoo:
        tokens = profile.measure.n_windows * profile.measure.length
        assert tokens > 10 * profile.zoo.d_model
        assert profile.zoo.d_model % profile.zoo.n_heads == 0


def test_a_profile_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        load_profile("tiny").seed = 1


def test_an_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown profile 'tny'; choose from \['gpu', 'paper'"):
        load_profile("tny")
    with pytest.raises(ValueError, match="unknown profile '../tiny'"):
        load_profile("../tiny")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("speed: 3", r"changed\.yaml: unknown key 'speed' \(= 3\); remove it"),
        ("seed: many", r"changed\.yaml: key 'seed' = 'many': .*integer"),
        ("dtype: int8", r"key 'dtype' = 'int8'"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(tmp_path, line, message):
    path = tmp_path / "changed.yaml"
    path.write_text((FOLDER / "tiny.yaml").read_text() + line + "\n")
    with pytest.raises(ValueError, match=message):
        read_profile(path)


def test_a_nested_unknown_key_and_a_missing_one_are_named(tmp_path):
    path = tmp_path / "changed.yaml"
    path.write_text((FOLDER / "tiny.yaml").read_text().replace("n_folds:", "folds:"))
    with pytest.raises(ValueError, match=r"'measure\.n_folds' is missing.*'measure\.folds'"):
        read_profile(path)
