"""Independent work side by side: processes of one thread each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from joblib import Parallel, delayed, parallel_config

from linlib.store import root

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """Apply a function to items in several processes; results in their order, as they come.

    A single worker is this very process. Small models train faster two side by side than one
    after the other on two threads.

    Args:
        function: of a module, so that other processes find it.
        items: what it is applied to.
        workers: processes.
    """
    with parallel_config("loky", n_jobs=workers, inner_max_num_threads=1):
        yield from Parallel(return_as="generator")(
            delayed(_in_one_thread)(function, item, root()) for item in items
        )


def _in_one_thread(function: Callable[[Item], Result], item: Item, store_root: Path) -> Result:
    os.environ["LINLIB_ROOT"] = str(store_root)  # a worker may have begun before it was set
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(item)
    finally:
        torch.set_num_threads(n_threads)
