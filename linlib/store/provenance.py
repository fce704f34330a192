"""Folders of the project, and what a measurement knows about where its numbers come from."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
# Libraries that decide numbers: another version makes another artefact.
LIBRARIES = (
    "torch", "transformers", "accelerate", "trl", "datasets", "tokenizers", "numpy", "pandas",
    "scipy", "scikit-learn", "lm_eval", "openai",
)  # fmt: skip


def root() -> Path:
    """The folder that holds `data/` and `figures/`.

    It is `$LINLIB_ROOT`; else the repository or, for an installed wheel, the current directory.
    """
    in_repository = (REPOSITORY / "pyproject.toml").exists()
    return Path(os.environ.get("LINLIB_ROOT") or (REPOSITORY if in_repository else Path.cwd()))


def results_folder(profile: str) -> Path:
    """Measured numbers of a profile."""
    return root() / "data" / "results" / profile


def figures_folder(profile: str) -> Path:
    """Drawn figures of a profile."""
    return root() / "figures" / profile


def cache_folder() -> Path:
    """Trained models, tokenised text and other artefacts; safe to delete."""
    return root() / "data" / "cache"


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new one, never a part of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


_open_records: list[dict[str, dict[str, object]]] = []


@contextmanager
def recording() -> Iterator[dict[str, dict[str, object]]]:
    """Collect what `record` reports inside the block; blocks may be nested."""
    collected: dict[str, dict[str, object]] = {}
    _open_records.append(collected)
    try:
        yield collected
    finally:
        _open_records.pop()  # not by value: two blocks may have recorded the same


def record(kind: str, name: str, identity: object) -> None:
    """Add something that was opened to the provenance of the measurement under way.

    Args:
        kind: "models", "corpora", or another heading.
        name: what it is called.
        identity: what exactly it is, such as a commit or a sha256; a JSON value.
    """
    for collected in _open_records:
        collected.setdefault(kind, {})[name] = identity


def code_commit() -> str:
    """The git commit of the code, with "+changes" where the code in use differs from it."""
    code = ("linlib", "storyworld", "notebooks/*.py", "pyproject.toml", "requirements.lock")
    try:
        if not (REPOSITORY / ".git").exists():
            return f"release {version('secretly-linear')}"
        commit = _git("rev-parse", "--short=12", "HEAD")
        return f"{commit}+changes" if _git("status", "--porcelain", "--", *code) else commit
    except (OSError, subprocess.CalledProcessError, PackageNotFoundError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide numbers."""
    return {name: version(name) for name in LIBRARIES}
