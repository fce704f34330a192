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
    if function.__module__ == "__main__" and workers > 1:
        raise ValueError(
            f"{function.__name__} is defined in this notebook or script, where other processes do "
            "not find it; move it to a module, or use workers=1"
        )
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
                delayed(_in_one_thread)(function, item, key, store.root())
                for key, item in missing.items()
            )
            done = Parallel(return_as="generator_unordered")(calls)
            for _ in tqdm(done, label, total=len(missing), leave=False):
                pass
    return [place.load(was_found=place.key not in missing) for place in places]


def _in_one_thread(function: Callable, item: Mapping[str, object], key: str, root: Path) -> None:
    import torch

    home, n_threads = os.environ.get("LINLIB_ROOT"), torch.get_num_threads()
    os.environ["LINLIB_ROOT"] = str(root)  # a worker may have begun before it was set
    torch.set_num_threads(1)
    try:
        if store.artefact(function, **item).key != key:
            raise RuntimeError(
                f"the code behind {function.__name__} was edited while it was running, so that "
                "this process and its workers disagree; run it again"
            )
        store.cached(function, **item)
    finally:
        torch.set_num_threads(n_threads)
        if home is None:
            del os.environ["LINLIB_ROOT"]
        else:
            os.environ["LINLIB_ROOT"] = home
