"""One progress bar for runs in several processes: each leaves its step in a file, one bar reads."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tqdm.auto import tqdm

PROGRESS_FILE = "progress.json"
PERIOD = 1.0  # seconds between two looks


def report_progress(folder: Path, step: int, loss: float | None) -> None:
    """Leave word of a run's progress in its folder."""
    temporary = folder / f".{PROGRESS_FILE}"
    temporary.write_text(json.dumps({"step": step, "loss": loss}))
    temporary.replace(folder / PROGRESS_FILE)


@contextmanager
def shared_progress(runs: Mapping[str, Path], steps: int) -> Iterator[None]:
    """Show one bar over all runs while they go on elsewhere.

    Args:
        runs: a run's name -> the folder that holds it while it is going on; a folder that
            vanishes after it was seen counts as finished.
        steps: the length of each run.
    """
    reached = dict.fromkeys(runs, 0)
    done = threading.Event()

    def look(bar: tqdm) -> None:
        for name, folder in runs.items():
            try:
                record = json.loads((folder / PROGRESS_FILE).read_text())
            except FileNotFoundError:  # not begun, or finished and renamed
                continue
            reached[name] = record["step"]
            bar.set_postfix({name: record["loss"]}, refresh=False)
        bar.update(sum(reached.values()) - bar.n)

    def watch() -> None:
        with tqdm(total=len(runs) * steps, desc="training", unit="step") as bar:
            while not done.wait(PERIOD):
                look(bar)
                for name, folder in runs.items():
                    if reached[name] and not folder.exists():
                        reached[name] = steps
            look(bar)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
