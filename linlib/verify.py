"""`python -m linlib.verify`: measure afresh, and say what moved against the stored frames."""

from __future__ import annotations

import argparse
import os
import shutil

import pandas as pd

from linlib.experiments import EXPERIMENTS, obtain
from linlib.profiles import load_profile
from linlib.store import load_frame, load_provenance, root

KEYS = (
    "model",
    "size",
    "variant",
    "task",
    "training",
    "seed",
    "at",
    "step",
    "learning_rate",
    "initializer_range",
    "protocol",
    "layer",
    "depth",
    "tokens",
    "quantity",
    "cloud",
    "error_low",
    "window",
    "position",
    "control",
    "column",
    "story",
    "sample",
    "order",
    "method",
    "text",
    "n_removed",
    "n_runs",
    "block",
    "pair",
    "criterion",
)


def compare_frames(stored: pd.DataFrame, fresh: pd.DataFrame) -> pd.DataFrame:
    """How far every number moved between two measurements of one figure.

    Rows are matched by their key columns (model, layer, tokens, ...).

    Returns:
        One row a numeric column: `column`, `largest` (absolute difference), `median`, `where`
        (the key of the largest); and one row for rows that only one side has, if any.

    Raises:
        ValueError: the key columns do not tell the rows apart.
    """
    keys = [key for key in KEYS if key in stored.columns]
    old, new = stored.set_index(keys).sort_index(), fresh.set_index(keys).sort_index()
    for side, frame in (("stored", old), ("fresh", new)):
        if not frame.index.is_unique:
            raise ValueError(
                f"two rows of the {side} frame have the same {keys}; name the column that tells "
                "them apart in linlib.verify.KEYS"
            )
    rows = []
    unmatched = len(old.index.symmetric_difference(new.index))
    if unmatched:
        rows.append({"column": "(rows on one side only)", "largest": unmatched})
    common = old.index.intersection(new.index)
    for column in old.select_dtypes("number").columns.intersection(new.columns):
        before, after = old.loc[common, column], new.loc[common, column]
        gone = int((before.isna() != after.isna()).sum())
        if gone:
            rows.append({"column": f"{column} (missing on one side)", "largest": gone})
        moved = (before - after).abs().dropna()
        if len(moved):
            where = ", ".join(map(str, moved.idxmax())) if moved.max() > 0 else ""
            largest = {"largest": moved.max(), "median": moved.median(), "where": where}
            rows.append({"column": column} | largest)
    return pd.DataFrame(rows, columns=["column", "largest", "median", "where"])


def main() -> None:
    """Measure a profile in build/verify, from nothing, and compare it with what is stored."""
    parser = argparse.ArgumentParser(prog="python -m linlib.verify", description=main.__doc__)
    parser.add_argument("--profile", default="tiny")
    arguments = parser.parse_args()
    try:
        profile = load_profile(arguments.profile)
        stored = {name: _all_frames(name, profile.name) for name in EXPERIMENTS}
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"error: {error}\n")
    scratch = root() / "build" / "verify"
    shutil.rmtree(scratch, ignore_errors=True)
    os.environ["LINLIB_ROOT"] = str(scratch)
    for name, old in stored.items():
        obtain(name, profile, remeasure=True)
        for file, fresh in _all_frames(name, profile.name).items():
            print(
                f"\n{file}\n{compare_frames(old[file], fresh).to_string(index=False)}", flush=True
            )


def _all_frames(name: str, profile: str) -> dict[str, pd.DataFrame]:
    """Every frame of an experiment, by file name."""
    load_frame(name, profile)
    return {
        file: load_frame(file, profile) for file in load_provenance(name, profile)["csv_sha256"]
    }


if __name__ == "__main__":
    main()
