"""Task files of lm-evaluation-harness, checked where it would skip them or fail unclearly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml
from lm_eval.api.registry import get_metric

NEEDED_KEYS = ("dataset_path", "output_type", "metric_list")


def check_files(folder: Path) -> None:
    """Refuse a task file before the harness skips it or fails far from the cause.

    Raises:
        ValueError: a file is not a valid definition of a task or of a group.
    """
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise ValueError(f"there is no task file (*.yaml) in {folder}")
    for file in files:
        config = _read(file, [])
        if "group" in config:
            continue
        if not isinstance(config.get("task"), str):
            raise ValueError(
                f"task file {file} names no task; it needs the key 'task' with a name, or 'group' "
                "beside a list of tasks"
            )
        missing = [key for key in NEEDED_KEYS if key not in config and "include" not in config]
        if missing:
            raise ValueError(f"task file {file} lacks the keys {missing}, and includes no other")
        _check_metrics(f"task '{config['task']}' of {file}", config)


def unknown_metrics(config: Mapping[str, object]) -> list[str]:
    """Metrics that the harness would drop, or fail on without their name.

    Args:
        config: of a task that the harness tried to load, so that metrics of its modules are known.
    """
    if config.get("process_results") is not None:  # it makes the metrics itself
        return []
    entries = config.get("metric_list") or ()
    asked = {str(entry.get("metric")): entry.get("hf_evaluate") is True for entry in entries}
    return [  # a path is a function's
        name for name, foreign in asked.items() if "/" not in name and not get_metric(name, foreign)
    ]


def _read(file: Path, seen: list[Path]) -> dict[str, object]:
    """The keys of a task file, with those of the files that it includes under them."""
    if file.resolve() in seen:
        raise ValueError(f"task file {seen[0]} includes {file} more than once")
    seen.append(file.resolve())
    try:
        own = yaml.load(file.read_bytes(), _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"task file {file} is not YAML: {error}") from error
    if not isinstance(own, dict):
        if len(seen) > 1:
            raise ValueError(f"task file {seen[0]} includes {file}, which holds no keys")
        return {}
    included = own.get("include", [])
    config = {}
    for other in included if isinstance(included, list) else [included]:
        path = file.parent / str(other)
        if not path.is_file():
            named = f"task '{own['task']}' of {file}" if "task" in own else f"task file {file}"
            raise ValueError(f"{named} includes {path}, which is no file")
        config |= _read(path, seen)
    return config | own


def _check_metrics(task: str, config: Mapping[str, object]) -> None:
    if "metric_list" not in config:  # nor has what it includes: the harness has its own
        return
    entries = config["metric_list"]
    listed = entries if isinstance(entries, list) else []
    if not listed or not all(isinstance(entry, dict) and "metric" in entry for entry in listed):
        raise ValueError(
            f"{task} has no metrics: its metric_list is {entries!r}, not a list such as "
            "[{metric: acc}]"
        )


class _Loader(yaml.SafeLoader):
    """Reads `!function` as the text that it is: checking a file runs nothing of it."""


_Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
