"""Where results and expensive artefacts live: measured once, found again, never half-written.

- `result` keeps the frames of a figure, with their provenance.
- `cached` keeps whatever is expensive: trained models, tokenised text, moments, pruned models.
- `record` adds the models and corpora that are opened to the provenance of whoever measures.
"""

from linlib.store.artefacts import Artefact, artefact, cached, is_cached
from linlib.store.keys import code_digest, digest_of_files, identity
from linlib.store.provenance import (
    REPOSITORY,
    cache_folder,
    code_commit,
    figures_folder,
    record,
    recording,
    results_folder,
    root,
    write_atomically,
)
from linlib.store.results import load_frame, load_paper, load_provenance, result, save_frames

__all__ = [
    "REPOSITORY",
    "Artefact",
    "artefact",
    "cache_folder",
    "cached",
    "code_commit",
    "code_digest",
    "digest_of_files",
    "figures_folder",
    "identity",
    "is_cached",
    "load_frame",
    "load_paper",
    "load_provenance",
    "record",
    "recording",
    "result",
    "results_folder",
    "root",
    "save_frames",
    "write_atomically",
]
