"""Result frames: a CSV for the numbers, a JSON beside it for where they came from."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from filelock import FileLock

from linlib.store.paths import REPOSITORY, cache_folder, results_folder

PACKAGES = (
    "torch", "transformers", "accelerate", "trl", "datasets", "tokenizers", "numpy", "pandas",
    "scikit-learn", "lm_eval", "openai",
)  # fmt: skip


def save_frames(
    frames: Mapping[str, pd.DataFrame], name: str, profile: str, provenance: Mapping[str, object]
) -> None:
    """Write the frames of one figure to `data/results/<profile>/`, each with its provenance.

    A figure's frames are one measurement: the main one is written last and records the digests
    of all, so that `load_frame` refuses a set that a kill left half old and half new.

    Args:
        frames: by the suffix of their file name; "" is the main one.
        name: file name without its ending, e.g. "fig1_linearity_profiles".
        profile: the profile that measured it.
        provenance: what the measurement knows: parameters, seeds, models, corpus, wall time.
            Package versions, commit, machine and digests are added here.
    """
    folder = results_folder(profile)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        name + suffix: frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")
        for suffix, frame in frames.items()
    }
    record = {
        "name": name,
        "profile": profile,
        **provenance,
        "packages": {package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "commit": code_commit(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "csv_sha256": {file: _sha256(text.encode()) for file, text in texts.items()},
    }
    with FileLock(_lock_of(folder, name)):
        for file in sorted(texts, key=lambda file: file == name):  # the main frame last
            write_atomically(folder / f"{file}.json", json.dumps(record, indent=1) + "\n")
            write_atomically(folder / f"{file}.csv", texts[file])


def load_frame(name: str, profile: str) -> pd.DataFrame:
    """Read a frame that `save_frames` wrote.

    Raises:
        FileNotFoundError: it was never measured.
        ValueError: its provenance is missing, or a CSV is not the one that was measured.
    """
    path = results_folder(profile) / f"{name}.csv"
    if not path.exists():
        raise FileNotFoundError(f"{path} was never measured; run `make all PROFILE={profile}`")
    with FileLock(_lock_of(path.parent, load_provenance(name, profile)["name"])):
        record = load_provenance(name, profile)
        for file, digest in record["csv_sha256"].items():
            beside = path.with_name(f"{file}.csv")
            if not beside.exists() or _sha256(beside.read_bytes()) != digest:
                raise ValueError(
                    f"{beside} is not the file that its provenance describes: it was edited, or a "
                    f"measurement was cut off; measure again with `make all PROFILE={profile}`"
                )
        return pd.read_csv(
            path,
            keep_default_na=False,
            na_values=[""],
            lineterminator="\n",  # a lone carriage return is text
            skip_blank_lines=False,  # so is a blank in a column of its own
        )


def _lock_of(folder: Path, name: str) -> str:
    lock = cache_folder() / "locks" / folder.name / f"{name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    return str(lock)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def load_provenance(name: str, profile: str) -> dict[str, object]:
    """Read the provenance beside a frame.

    Raises:
        ValueError: there is none.
    """
    path = results_folder(profile) / f"{name}.json"
    if not path.exists():
        raise ValueError(
            f"{path.with_suffix('.csv')} has no provenance: {path.name} is missing beside it. A "
            f"number of unknown origin is no result; measure with `make all PROFILE={profile}`"
        )
    return json.loads(path.read_text())


def load_paper(name: str) -> pd.DataFrame:
    """The paper's published numbers for a figure or table, from `data/paper/`."""
    return pd.read_csv(REPOSITORY / "data" / "paper" / f"{name}.csv")


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def code_commit() -> str:
    """The git commit of the code, with "+changes" where the code in use differs from it."""
    code = ("linlib", "pyproject.toml", "requirements.lock")
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return f"{commit}+changes" if _git("status", "--porcelain", "--", *code) else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
