"""One environment: pyproject.toml, the lock file, environment.yml and CITATION.cff agree."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def lock():
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {pin.name.lower().replace("_", "-"): str(pin.specifier) for pin in pins}


def direct():
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(line) for group in groups for line in group]


def test_every_direct_dependency_is_pinned_as_in_the_lock():
    pins = lock()
    for requirement in direct():
        name = requirement.name.lower().replace("_", "-")
        assert str(requirement.specifier) == pins[name], name
    assert pins["torch"] == "==2.13.0"
    assert all(re.fullmatch(r"==[^,*]+", pin) for pin in pins.values())


def test_the_packages_imported_are_declared():
    declared = {requirement.name.lower().replace("_", "-") for requirement in direct()}
    imported = set()
    for folder in ("linlib", "notebooks", "tests"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            imported |= set(re.findall(r"^(?:from|import) (\w+)", path.read_text(), re.MULTILINE))
    names = {"sklearn": "scikit-learn", "yaml": "pyyaml"}
    for module in imported:
        name = names.get(module, module).lower().replace("_", "-")
        try:
            version(name)
        except PackageNotFoundError:
            continue  # the standard library, linlib itself, a neighbouring test
        assert name in declared, f"{module} is imported and not declared"


def test_conda_users_get_the_lock():
    packages = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    by_pip = next(entry for entry in packages if isinstance(entry, dict))["pip"]
    assert by_pip == ["-r requirements.lock", "-e ."]


def test_versions_agree():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (REPOSITORY / "CHANGELOG.md").read_text()
