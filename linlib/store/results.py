"""Results: the frames of a figure as CSV, with one JSON file that says where they came from."""

from __future__ import annotations

import inspect
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from filelock import FileLock
from pandas.api.types import infer_dtype

from linlib.store.keys import identity, sha256
from linlib.store.provenance import (
    REPOSITORY,
    cache_folder,
    code_commit,
    library_versions,
    recording,
    results_folder,
    write_atomically,
)

CSV = {"keep_default_na": False, "na_values": [""], "lineterminator": "\n"}  # "\r", "NA" are text
NUMBERS = ("integer", "floating", "mixed-integer-float", "boolean", "empty")  # and missing values
Rows = Iterable[Mapping[str, object] | pd.DataFrame]


def result(
    name: str,
    measure: Callable[[], pd.DataFrame | Mapping[str, pd.DataFrame] | Rows],
    settings: object,
    remeasure: bool = False,
) -> pd.DataFrame:
    """Return the stored frame of a figure, or measure it, store it and return it.

    Args:
        name: file name without its ending, e.g. "fig1_linearity_profiles".
        measure: takes no argument; yields rows or frames, or returns a frame, or a dictionary of
            frames by the suffix of their file name ("" is the main one).
        settings: the profile; results lie under its `name`, and what was `read` of it goes into
            the provenance.
        remeasure: measure even if a result is stored. Artefacts whose ingredients did not change
            are still taken from the cache.

    Raises:
        ValueError: nothing was measured, rows have different columns, no columns tell the rows
            apart, or the stored result has no provenance.
    """
    if not remeasure:
        try:
            frame = load_frame(name, settings.name)
        except FileNotFoundError:
            pass
        else:
            _warn_of_changes(name, measure, settings)
            return frame
    started = time.monotonic()
    with recording() as opened:
        frames = _as_frames(name, measure())
    cached_seconds = sum(opened.pop("cached seconds", {}).values())
    provenance = {
        "parameters": {name: identity(getattr(settings, name)) for name in settings.read()},
        "measure_sha256": _digest_of_source(measure),
        "device": settings.device,
        **opened,
        "wall_seconds": round(time.monotonic() - started, 1),
        "cached_seconds": round(cached_seconds, 1),
    }
    save_frames(frames, name, settings.name, provenance)
    return load_frame(name, settings.name)


def _warn_of_changes(name: str, measure: Callable, settings: object) -> None:
    """Say so where a stored result was measured by another cell, or with other settings.

    Values count, and not the names of settings, which another version may have changed.
    """
    provenance = load_provenance(name, settings.name)
    if provenance.get("measure_sha256") not in (None, _digest_of_source(measure)):
        warnings.warn(
            f"{name} was measured by another version of this cell; set remeasure = True to measure "
            "again",
            stacklevel=3,
        )
    then, now = provenance["parameters"], identity(settings)
    read = [key for key in then if key in now and key != "description"]
    if changed := [key for key in read if values_of(then[key]) != values_of(now[key])]:
        warnings.warn(
            f"{name} was measured with other settings: {changed} of profile '{settings.name}' have "
            "changed since; set remeasure = True to measure again",
            stacklevel=3,
        )


def values_of(settings: object) -> list[object]:
    """The values of nested settings in their order, without their names."""
    if isinstance(settings, Mapping):
        settings = list(settings.values())
    if not isinstance(settings, list):
        return [settings]
    return [value for part in settings for value in values_of(part)]


def _digest_of_source(measure: Callable) -> str | None:
    try:
        return sha256(inspect.getsource(measure).encode())[:16]
    except (OSError, TypeError):  # typed at a prompt, or no function
        return None


def _as_frames(name: str, measured: object) -> dict[str, pd.DataFrame]:
    if isinstance(measured, pd.DataFrame):
        measured = {"": measured}
    elif isinstance(measured, Iterator):
        measured = {"": _joined(name, measured)}
    elif not isinstance(measured, Mapping):
        raise ValueError(
            f"the measurement of {name} returned {type(measured).__name__}; it must yield rows "
            "(dictionaries) or frames, or return a frame or a dictionary of frames"
        )
    if "" not in measured:
        raise ValueError(
            f"the measurement of {name} returned the frames {list(measured)}, none of which is the "
            "main one; its suffix is ''"
        )
    for suffix, frame in measured.items():
        if len(frame) == 0:
            raise ValueError(f"the measurement of {name}{suffix} yielded no rows")
    return dict(measured)


def _joined(name: str, rows: Rows) -> pd.DataFrame:
    frames = [row if isinstance(row, pd.DataFrame) else pd.DataFrame([row]) for row in rows]
    for number, frame in enumerate(frames):
        if set(frame.columns) != set(frames[0].columns):
            differing = sorted(set(frame.columns) ^ set(frames[0].columns))
            raise ValueError(
                f"the measurement of {name} yielded rows of different columns: row {number} and "
                f"row 0 do not share {differing}; give every row the same keys"
            )
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def save_frames(
    frames: Mapping[str, pd.DataFrame], name: str, profile: str, provenance: Mapping[str, object]
) -> None:
    """Write the frames of one figure to `data/results/<profile>/`, with one provenance file.

    The provenance holds the digest of every CSV, so that `load_frame` refuses a set that a kill
    left half old and half new, and the key columns of every frame.

    `frames` are by the suffix of their file name; "" is the main one. Labels come first: the key of
    a frame is its shortest run of first columns that tells all rows apart.

    Raises:
        ValueError: two rows of a frame agree in all columns.
    """
    folder = results_folder(profile)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        name + suffix: frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")
        for suffix, frame in frames.items()
    }
    keys = {name + suffix: _key_columns(name + suffix, frame) for suffix, frame in frames.items()}
    description = {
        "name": name,
        "profile": profile,
        **provenance,
        "packages": library_versions(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "commit": code_commit(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "keys": keys,
        "text_columns": {
            name + suffix: [one for one in frame if infer_dtype(frame[one]) not in NUMBERS]
            for suffix, frame in frames.items()
        },
        "csv_sha256": {file: sha256(text.encode()) for file, text in texts.items()},
    }
    with _lock(profile):
        for file in _files_of(folder / f"{name}.json") - texts.keys():  # of an earlier layout
            (folder / f"{file}.csv").unlink(missing_ok=True)
        for file, text in texts.items():
            write_atomically(folder / f"{file}.csv", text)
        write_atomically(folder / f"{name}.json", json.dumps(description, indent=1) + "\n")


def _files_of(provenance: Path) -> set[str]:
    return set(json.loads(provenance.read_text())["csv_sha256"]) if provenance.exists() else set()


def _key_columns(file: str, frame: pd.DataFrame) -> list[str]:
    for width in range(1, frame.shape[1] + 1):
        columns = list(frame.columns[:width])
        if not frame.duplicated(columns).any():
            return columns
    raise ValueError(f"two rows of {file} are equal; add the column that tells them apart")


def load_frame(name: str, profile: str) -> pd.DataFrame:
    """Read a frame that `result` stored.

    Raises:
        FileNotFoundError: it was never measured.
        ValueError: its provenance is missing, or a CSV is not the one that was measured.
    """
    path = results_folder(profile) / f"{name}.csv"
    if not path.exists():
        raise FileNotFoundError(f"{path} was never measured; run `make all PROFILE={profile}`")
    with _lock(profile):
        description = load_provenance(name, profile)
        for file, digest in description["csv_sha256"].items():
            beside = path.with_name(f"{file}.csv")
            if not beside.exists() or sha256(beside.read_bytes()) != digest:
                raise ValueError(
                    f"{beside} is not the file that its provenance describes: it was edited, or a "
                    f"measurement was cut off; measure again with `make all PROFILE={profile}`"
                )
        texts = dict.fromkeys(description.get("text_columns", {}).get(name, ()), str)
        return pd.read_csv(path, skip_blank_lines=False, dtype=texts, **CSV)


def load_provenance(name: str, profile: str) -> dict[str, object]:
    """Read the provenance of a frame; the frames of one figure share it.

    Raises:
        ValueError: there is none.
    """
    folder, parts = results_folder(profile), name.split("_")
    for end in range(len(parts), 0, -1):
        path = folder / f"{'_'.join(parts[:end])}.json"
        if path.exists():
            description = json.loads(path.read_text())
            if name in description["csv_sha256"]:
                return description
    raise ValueError(
        f"{folder / name}.csv has no provenance: no JSON file beside it describes it. A number of "
        f"unknown origin is not a result; measure with `make all PROFILE={profile}`"
    )


def load_paper(name: str) -> pd.DataFrame:
    """The paper's published numbers for a figure or table, from `data/paper/`."""
    return pd.read_csv(REPOSITORY / "data" / "paper" / f"{name}.csv")


def _lock(profile: str) -> FileLock:
    """Held while a set of frames is read or written, so that nobody reads half of a new set."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    return FileLock(cache_folder() / f"{profile}.lock")
