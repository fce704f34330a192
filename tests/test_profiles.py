"""Profiles: strict, typed, frozen; packaged ones, and those of a user's own."""

from dataclasses import FrozenInstanceError

import pytest

from linlib.profiles import FOLDER, NotMeasured, load_profile

PROFILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_loads_and_says_its_own_name(name):
    profile = load_profile(name)
    assert profile.name == name
    assert profile.zoo or profile.models


def test_the_five_scales_exist():
    assert PROFILES == ["gpu", "laptop", "paper", "smoke", "tiny"]


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_has_encoders_with_what_their_tokenizers_lack(name):
    profile = load_profile(name)
    assert profile.encoders.models or profile.encoders.seeds
    assert profile.zoo or not profile.encoders.seeds  # twins have the shape of the zoo
    for model in profile.encoders.models:
        assert (model.bos_token, model.separator) == ("[CLS]", "[SEP]")


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_measures_more_tokens_than_its_own_models_are_wide(name):
    profile = load_profile(name)
    if profile.zoo:
        tokens = profile.measure.n_windows * profile.measure.seq_len
        assert tokens > 10 * profile.zoo.d_model
        assert profile.zoo.d_model % profile.zoo.n_heads == 0


def test_a_profile_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        load_profile("tiny").seed = 1


def test_a_section_that_is_missing_is_named_with_the_figure(tmp_path):
    profile = load_profile(changed(tmp_path, "zoo: null"))
    with pytest.raises(NotMeasured, match="profile 'mine' has no section 'zoo', so Figure 6"):
        profile.require("zoo", "Figure 6")
    assert profile.require("measure", "Figure 1") is profile.measure


def changed(tmp_path, line, old="", new=""):
    path = tmp_path / "mine.yaml"
    text = (FOLDER / "tiny.yaml").read_text().replace("name: tiny", "name: mine")
    if line:
        key = line.partition(":")[0]
        lines, kept, inside = text.splitlines(), [], False
        for one in lines:
            inside = one.startswith(f"{key}:") or (inside and one.startswith(" "))
            if not inside:
                kept.append(one)
        text = "\n".join([*kept, line, ""])
    path.write_text(text.replace(old, new))
    return path


def test_a_profile_of_ones_own_is_read_by_its_path(tmp_path):
    path = changed(tmp_path, "seed: 3")
    for given in (path, str(path)):
        profile = load_profile(given)
        assert profile.name == "mine" and profile.seed == 3


def test_paths_in_a_profile_of_ones_own_are_checked_at_once(tmp_path):
    for line, key in (
        ("corpus: my/text.txt", r"corpus' = 'my/text\.txt'"),
        ("models: [{id: ./model, label: Ours}]", r"models\.0\.id' = '\./model'"),
        ("models: [{id: a.gguf, label: Ours}]", r"models\.0\.id' = 'a\.gguf'"),
        ("checkpoints: [{label: x, checkpoints: {1: a/b/c}}]", r"checkpoints\.1' = 'a/b/c'"),
    ):
        with pytest.raises(ValueError, match=rf"mine\.yaml: key '.*{key}: .*does not exist"):
            load_profile(changed(tmp_path, line))
    text = tmp_path / "text.txt"
    text.write_text("Some words.")
    assert load_profile(changed(tmp_path, f"corpus: {text}")).corpus == str(text)


def test_a_relative_path_is_told_apart_from_a_hub_id_by_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = changed(tmp_path, "models: [{id: models/ours, label: Ours}]")
    assert load_profile(path).models[0].id == "models/ours"  # may be on the hub
    (tmp_path / "models").mkdir()
    message = r"'models\.0\.id' = 'models/ours': .*not exist; .*there is a folder 'models'"
    with pytest.raises(ValueError, match=message):
        load_profile(path)
    (tmp_path / "models" / "ours").mkdir()
    assert load_profile(path).models[0].id == "models/ours"


# ---------------------------------------------------------------------------- bad input


def test_an_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown profile 'tny'; choose from \['gpu', 'laptop'"):
        load_profile("tny")


def test_a_profile_path_that_does_not_exist_is_refused():
    with pytest.raises(FileNotFoundError, match=r"No such file .*'no/mine\.yaml'"):
        load_profile("no/mine.yaml")


def test_a_profile_must_bear_the_name_of_its_file(tmp_path):
    with pytest.raises(ValueError, match="key 'name' = 'other' must be the file's own name"):
        load_profile(changed(tmp_path, "name: other"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("speed: 3", r"mine\.yaml: unknown key 'speed' \(= 3\); remove it"),
        ("seed: many", r"mine\.yaml: key 'seed' = 'many': .*integer"),
        ("dtype: int8", r"key 'dtype' = 'int8'"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(tmp_path, line, message):
    with pytest.raises(ValueError, match=message):
        load_profile(changed(tmp_path, line))


def test_a_nested_unknown_key_and_a_missing_one_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"mine\.yaml: ") as error:
        load_profile(changed(tmp_path, "", "n_folds:", "folds:"))
    assert "key 'measure.n_folds' is missing" in str(error.value)
    assert "unknown key 'measure.folds'" in str(error.value)


def test_a_file_that_is_no_yaml_or_holds_nothing_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("a: [")
    with pytest.raises(ValueError, match=r"mine\.yaml is not YAML"):
        load_profile(path)
    path.write_text("")
    with pytest.raises(
        ValueError, match=r"mine\.yaml: key 'name' is missing; key 'description' is"
    ):
        load_profile(path)
