"""`python -m linlib.verify`: measure afresh, and say what moved against the stored frames."""

from __future__ import annotations

import argparse
import os
import shutil

import pandas as pd

from linlib.experiments import EXPERIMENTS, obtain
from linlib.profiles import load_profile
from linlib.store import load_frame, root

KEYS = ("model", "protocol", "layer", "depth", "tokens", "quantity", "cloud", "error_low")


def compare_frames(stored: pd.DataFrame, fresh: pd.DataFrame) -> pd.DataFrame:
    """How far every number moved between two measurements of one figure.

    Rows are matched by their key columns (model, layer, tokens, ...).

    Returns:
        One row a numeric column: `column`, `largest` (absolute difference), `median`, `where`
        (the key of the largest); and one row for rows that only one side has, if any.
    """
    keys = [key for key in KEYS if key in stored.columns]
    old, new = stored.set_index(keys).sort_index(), fresh.set_index(keys).sort_index()
    rows = []
    unmatched = len(old.index.symmetric_difference(new.index))
    if unmatched:
        rows.append({"column": "(rows on one side only)", "largest": unmatched})
    common = old.index.intersection(new.index)
    for column in old.select_dtypes("number").columns.intersection(new.columns):
        moved = (old.loc[common, column] - new.loc[common, column]).abs().dropna()
        if len(moved):
            where = moved.idxmax()
            rows.append(
                {
                    "column": column,
                    "largest": moved.max(),
                    "median": moved.median(),
                    "where": ", ".join(map(str, where)) if moved.max() > 0 else "",
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    """Measure a profile in build/verify, from nothing, and compare it with what is stored."""
    parser = argparse.ArgumentParser(prog="python -m linlib.verify", description=main.__doc__)
    parser.add_argument("--profile", default="tiny")
    arguments = parser.parse_args()
    try:
        profile = load_profile(arguments.profile)
        stored = {name: load_frame(name, profile.name) for name in EXPERIMENTS}
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"error: {error}\n")
    scratch = root() / "build" / "verify"
    shutil.rmtree(scratch, ignore_errors=True)
    os.environ["LINLIB_ROOT"] = str(scratch)
    for name, old in stored.items():
        print(f"\n{name}", flush=True)
        print(compare_frames(old, obtain(name, profile, remeasure=True)).to_string(index=False))


if __name__ == "__main__":
    main()
