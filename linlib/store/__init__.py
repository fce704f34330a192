"""Where results and artefacts live: frames with provenance, and a cache keyed by recipe."""

from linlib.store.artefacts import (
    artefact_folder,
    artefact_lock,
    build_once,
    code_digest,
    complete_artefact,
    partial_folder,
    recipe_key,
)
from linlib.store.frames import load_frame, load_paper, load_provenance, save_frames
from linlib.store.paths import cache_folder, figures_folder, results_folder, root

__all__ = [
    "artefact_folder",
    "artefact_lock",
    "build_once",
    "cache_folder",
    "code_digest",
    "complete_artefact",
    "figures_folder",
    "load_frame",
    "load_paper",
    "load_provenance",
    "partial_folder",
    "recipe_key",
    "results_folder",
    "root",
    "save_frames",
]
