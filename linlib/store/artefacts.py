"""Cached artefacts: built once, found by what made them, never seen half-built."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock

from linlib.store.paths import REPOSITORY, cache_folder


def recipe_key(recipe: Mapping[str, object]) -> str:
    """Hash of everything that makes an artefact; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def code_digest(*parts: str) -> str:
    """Digest of the source of some modules or packages of linlib, e.g. "linearity".

    In a recipe, it makes an artefact of older code another artefact.

    Raises:
        ValueError: linlib has no such part.
    """
    digest = hashlib.sha256()
    for part in parts:
        path = REPOSITORY / "linlib" / part
        if not path.exists():
            raise ValueError(f"linlib has no part '{part}' to take a digest of")
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def build_once(kind: str, recipe: Mapping[str, object], build: Callable[[Path], object]) -> Path:
    """Return the folder of an artefact; build it first if nobody has.

    The build happens in `<key>.partial`, which is renamed when it is complete. A build that was
    killed finds its partial folder again and may resume from what lies there. Processes that
    want the same artefact wait for the first.

    Args:
        kind: what it is, the name of the folder above.
        recipe: everything that made it, JSON values; kept beside it as `recipe.json`.
        build: fills the folder that it is given.
    """
    folder = artefact_folder(kind, recipe)
    if folder.is_dir():
        return folder
    with artefact_lock(kind, recipe):
        if not folder.is_dir():
            partial = partial_folder(kind, recipe)
            partial.mkdir(exist_ok=True)
            build(partial)
            complete_artefact(kind, recipe)
    return folder


def artefact_lock(kind: str, recipe: Mapping[str, object]) -> FileLock:
    """The lock that whoever builds an artefact holds."""
    folder = artefact_folder(kind, recipe)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{folder}.lock")


def complete_artefact(kind: str, recipe: Mapping[str, object]) -> None:
    """Give a partial folder that holds everything its final name."""
    partial = partial_folder(kind, recipe)
    (partial / "recipe.json").write_text(json.dumps(recipe, indent=1, sort_keys=True))
    partial.rename(artefact_folder(kind, recipe))


def artefact_folder(kind: str, recipe: Mapping[str, object]) -> Path:
    """Where an artefact is, or will be, when it is complete."""
    return cache_folder() / kind / recipe_key(recipe)


def partial_folder(kind: str, recipe: Mapping[str, object]) -> Path:
    """Where an artefact is while it is being built."""
    return cache_folder() / kind / f"{recipe_key(recipe)}.partial"
