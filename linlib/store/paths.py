"""Folders of the project, anchored on the package and never on the current directory."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def root() -> Path:
    """The folder that holds `data/` and `figures/`: the repository, or `$LINLIB_ROOT`."""
    return Path(os.environ.get("LINLIB_ROOT") or REPOSITORY)


def results_folder(profile: str) -> Path:
    """Measured numbers of a profile."""
    return root() / "data" / "results" / profile


def figures_folder(profile: str) -> Path:
    """Drawn figures of a profile."""
    return root() / "figures" / profile


def cache_folder() -> Path:
    """Trained models and tokenised corpora; safe to delete."""
    return root() / "data" / "cache"
