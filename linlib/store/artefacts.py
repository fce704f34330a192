"""Artefacts: expensive values that are computed once, found by what decides them, and resumable."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pandas as pd
from filelock import FileLock

from linlib.store.keys import code_digest, digest_of_files, identity, name_of, sha256
from linlib.store.provenance import cache_folder, library_versions, record, recording

FOLDER = object()  # the value of a function that fills its folder


@dataclass(frozen=True)
class Artefact:
    """The place of one function call's value in the cache.

    Attributes:
        function: the function called.
        arguments: its arguments by name, without `folder`.
        key: the digest of everything that decides the value.
    """

    function: Callable
    arguments: dict[str, object]
    key: str

    @property
    def folder(self) -> Path:
        """Where the value is once it is complete."""
        return cache_folder() / self.function.__name__ / self.key

    @property
    def partial(self) -> Path:
        """Where it is while it is being made; a killed run finds it again."""
        return self.folder.with_name(f"{self.key}.partial")

    def lock(self) -> FileLock:
        """The lock that whoever makes the value holds."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{self.folder}.lock")

    def complete(
        self, seconds: float, opened: Mapping[str, object], value: object = FOLDER
    ) -> None:
        """Describe the partial folder and give it its final name."""
        description = {
            "function": name_of(self.function),
            "arguments": identity(self.arguments),
            "packages": library_versions(),
            "seconds": round(seconds, 2),
            "opened": opened,
            "value": _save_value(value, self.partial),
            "content": digest_of_files(self.partial),
        }
        text = json.dumps(description, indent=1, default=str)
        (self.partial / "artefact.json").write_text(text)
        self.partial.rename(self.folder)

    def load(self, was_found: bool = True) -> object:
        """Read the value, and add what was opened for it to the provenance.

        Args:
            was_found: False where it was computed just now, so that no time was saved.
        """
        description = json.loads((self.folder / "artefact.json").read_text())
        for kind, entries in description["opened"].items():
            for name, identity_then in entries.items():
                record(kind, name, identity_then)
        if was_found:
            record("cached seconds", str(self.folder), description["seconds"])
        return _load_value(description["value"], self.folder)


def artefact(function: Callable, *args: object, **kwargs: object) -> Artefact:
    """The place in the cache of `function(*args, **kwargs)`; nothing is computed.

    One rule makes all keys: the function's name, its arguments (models by weights, dtype and type
    of device, text by content), the digest of the code that it runs, and the versions of the
    libraries that decide numbers.
    """
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        raise TypeError(
            f"{name_of(function)} takes *args or **kwargs, which have no names to make a key of; "
            "let it take a list or a dictionary instead"
        )
    folder = [None] if _fills_folder(function) else []
    bound = inspect.signature(function).bind(*folder, *args, **kwargs)
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    if folder:
        del arguments["folder"]
    ingredients = {
        "function": name_of(function),
        "arguments": identity(arguments),
        "code": code_digest(function),
        "packages": library_versions(),
    }
    text = json.dumps(ingredients, sort_keys=True)
    return Artefact(function, arguments, sha256(text.encode())[:16])


def cached(function: Callable, *args: object, **kwargs: object) -> object:
    """Return `function(*args, **kwargs)`, computed once and then read from the cache.

    A function whose first parameter is called `folder` fills that folder, which is not passed here
    and which is the value; if it was killed, it finds what it had written and may go on. Any other
    function returns a frame, a dataset, a JSON value, or an object with `save(folder)` and a class
    method `load(folder)`. Processes that want the same value wait for the first one.
    """
    place = artefact(function, *args, **kwargs)
    was_found = place.folder.is_dir()
    if not was_found:
        with place.lock():
            if not place.folder.is_dir():
                _compute(place)
    return place.load(was_found)


def is_cached(function: Callable, *args: object, **kwargs: object) -> bool:
    """Whether `cached` would find the value instead of computing it."""
    return artefact(function, *args, **kwargs).folder.is_dir()


def _fills_folder(function: Callable) -> bool:
    return next(iter(inspect.signature(function).parameters), None) == "folder"


def _compute(place: Artefact) -> None:
    place.partial.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    folder = [place.partial] if _fills_folder(place.function) else []
    with recording() as opened:
        value = place.function(*folder, **place.arguments)
    opened.pop("cached seconds", None)
    place.complete(time.monotonic() - started, opened, FOLDER if folder else value)


def _save_value(value: object, folder: Path) -> dict[str, str]:
    """Write a value and describe how to read it again."""
    if value is FOLDER:
        return {"kind": "folder"}
    if isinstance(value, pd.DataFrame):
        value.reset_index(drop=True).to_parquet(folder / "value.parquet")
        return {"kind": "frame"}
    if hasattr(value, "to_parquet"):
        value.to_parquet(folder / "value.parquet")
        return {"kind": "dataset"}
    if hasattr(value, "save"):
        value.save(folder)
        return {"kind": "object", "class": name_of(type(value))}
    try:
        text = json.dumps(value)
    except TypeError:
        raise TypeError(
            f"a {type(value).__name__} cannot be kept in the store; return a frame, a dataset, a "
            "JSON value, or an object with save(folder) and a class method load(folder)"
        ) from None
    (folder / "value.json").write_text(text)
    return {"kind": "json"}


def _load_value(description: Mapping[str, str], folder: Path) -> object:
    kind = description["kind"]
    if kind == "folder":
        return folder
    if kind == "frame":
        return pd.read_parquet(folder / "value.parquet")
    if kind == "dataset":
        from datasets import Dataset

        return Dataset.from_parquet(str(folder / "value.parquet"), keep_in_memory=True)
    if kind == "object":
        module, _, name = description["class"].rpartition(".")
        if module.partition(".")[0] != "linlib":
            raise ValueError(f"{folder} names a class outside linlib: {description['class']}")
        return getattr(import_module(module), name).load(folder)
    return json.loads((folder / "value.json").read_text())
