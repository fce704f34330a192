"""Independent work side by side: processes of one thread each, through the store."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from linlib import store


def side_by_side(
    function: Callable,
    items: Sequence[Mapping[str, object]],
    workers: int = 1,
    label: str = "models",
) -> list:
    """Call a function once per item, as `store.cached` does, in several processes.

    What the store has is not computed again, equal items are computed once, and a run that was
    stopped goes on with what is missing. Small models train faster two side by side, one thread
    each, than one after the other on two threads.

    Args:
        function: a function of a module, so that other processes find it.
        items: keyword arguments; they must pickle, so pass folders of models and not models.
        workers: processes; 1 computes in this very process.
        label: what the progress bar counts.

    Returns:
        The values in the order of the items.
    """
    places = [store.artefact(function, **item) for item in items]
    missing = {
        place.key: item
        for place, item in zip(places, items, strict=True)
        if not place.folder.is_dir()
    }
    if missing:
        from joblib import Parallel, delayed, parallel_config

        with parallel_config("loky", n_jobs=workers, inner_max_num_threads=1):
            calls = (
                delayed(_in_one_thread)(function, item, store.root()) for item in missing.values()
            )
            done = Parallel(return_as="generator_unordered")(calls)
            for _ in tqdm(done, label, total=len(missing), leave=False):
                pass
    return [place.load() for place in places]


def _in_one_thread(function: Callable, item: Mapping[str, object], root: Path) -> None:
    import torch

    os.environ["LINLIB_ROOT"] = str(root)  # a worker may have begun before it was set
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        store.cached(function, **item)
    finally:
        torch.set_num_threads(n_threads)
