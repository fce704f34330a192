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

from linlib.store.paths import REPOSITORY, results_folder

PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "numpy", "pandas", "scikit-learn")


def save_frame(
    frame: pd.DataFrame, name: str, profile: str, provenance: Mapping[str, object]
) -> Path:
    """Write `data/results/<profile>/<name>.csv` and its provenance, both atomically.

    Args:
        frame: tidy, one row an observation.
        name: file name without its ending, e.g. "fig1_linearity_profiles".
        profile: the profile that measured it.
        provenance: what the measurement knows: parameters, seeds, models, corpus, wall time.
            Package versions, commit, machine and the CSV's digest are added here.

    Returns:
        The path of the CSV.
    """
    path = results_folder(profile) / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    record = {
        "name": name,
        "profile": profile,
        **provenance,
        "packages": {package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "commit": _commit(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "csv_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    # Provenance first: a kill in between leaves an old CSV whose digest does not fit, which
    # load_frame refuses, and never a CSV without provenance.
    write_atomically(path.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    write_atomically(path, text)
    return path


def load_frame(name: str, profile: str) -> pd.DataFrame:
    """Read a frame that `save_frame` wrote.

    Raises:
        FileNotFoundError: it was never measured.
        ValueError: its provenance is missing, or the CSV is not the one that was measured.
    """
    path = results_folder(profile) / f"{name}.csv"
    if not path.exists():
        raise FileNotFoundError(f"{path} was never measured; run `make all PROFILE={profile}`")
    record = load_provenance(name, profile)
    if hashlib.sha256(path.read_bytes()).hexdigest() != record.get("csv_sha256"):
        raise ValueError(
            f"{path} is not the file that its provenance describes: it was edited, or a "
            f"measurement was cut off; measure again with `make all PROFILE={profile}`"
        )
    return pd.read_csv(path)


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


def _commit() -> str:
    """The git commit of the code, with "+changes" where the working tree differs from it."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes", "--abbrev=12", "--exclude=*"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
