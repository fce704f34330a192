"""`python -m linlib.verify`: measure a profile afresh, and say what moved by how much.

Fresh frames are compared with the stored ones or, at `smoke`, with the golden frames of the tests.
Tolerances stand in one table, `tests/golden/tolerances.csv`: the first row whose patterns match a
frame and a column decides.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd

from linlib.profiles import load_profile
from linlib.store import REPOSITORY, load_frame, load_provenance, results_folder, root
from linlib.store.results import CSV

GOLDEN = REPOSITORY / "tests" / "golden"
UNMATCHED = "(rows on one side only)"


def compare_frames(stored: pd.DataFrame, fresh: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """How far every column moved between two measurements of one frame.

    Args:
        stored: the earlier measurement.
        fresh: the later one.
        keys: columns that tell rows apart and match them.

    Returns:
        One row per cell that both frames have and that is not equal: `column`, `key` (as text), and
        `moved`, the absolute difference of numbers and 1 for anything else; and one row for
        unmatched rows, whose `moved` is their share.

    Raises:
        ValueError: a frame lacks a column of the other, or the keys do not tell rows apart.
    """
    keys = list(keys)
    if differing := sorted(set(stored.columns) ^ set(fresh.columns)):
        raise ValueError(f"one of the two frames lacks the columns {differing}")
    old, new = (frame.set_index(keys).sort_index() for frame in (stored, fresh))
    if not (old.index.is_unique and new.index.is_unique):
        raise ValueError(f"the columns {keys} do not tell the rows apart")
    rows = []
    unmatched = old.index.symmetric_difference(new.index)
    if len(unmatched):
        share = len(unmatched) / (len(old) + len(new))
        rows.append({"column": UNMATCHED, "key": _text(unmatched[0]), "moved": share})
    common = old.index.intersection(new.index)
    for column in old.columns:
        before, after = old.loc[common, column], new.loc[common, column]
        differs = (before != after) & ~(before.isna() & after.isna())
        numeric = all(side.dtype.kind in "iuf" for side in (before, after))
        moved = (before - after).abs() if numeric else differs.astype(float)
        moved = moved.fillna(float("inf"))  # a number on one side only
        cells = zip(common[differs], moved[differs], strict=True)
        rows += [{"column": column, "key": _text(key), "moved": size} for key, size in cells]
    return pd.DataFrame(rows, columns=["column", "key", "moved"])


def _text(key: object) -> str:
    return ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def beyond_tolerance(file: str, moved: pd.DataFrame, tolerances: pd.DataFrame) -> list[str]:
    """One line for every column of a frame that moved by more than the table allows.

    Args:
        file: name of the frame.
        moved: as `compare_frames` returns it.
        tolerances: columns `frame`, `column`, `key` (patterns) and `absolute`, the largest
            difference allowed; nothing is allowed where no row matches.
    """
    rules = [rule for rule in tolerances.itertuples() if fnmatch(file, rule.frame)]
    lines = []
    for column, cells in moved.groupby("column", sort=False):
        excess = []
        for cell in cells.itertuples():
            matching = (
                rule.absolute
                for rule in rules
                if fnmatch(column, rule.column) and fnmatch(cell.key, rule.key)
            )
            if cell.moved > (allowed := next(matching, 0.0)):
                excess.append((cell.moved, cell.key, allowed))
        if excess:
            size, key, allowed = max(excess, key=lambda one: one[0])
            lines.append(
                f"{file}: {column} moved by {size:.3g} (allowed: {allowed:g}) at {key}"
                f"{f', and in {len(excess) - 1} more rows' if len(excess) > 1 else ''}"
            )
    return lines


def stored_frames(profile: str) -> dict[str, pd.DataFrame]:
    """The frames to compare with: those of `data/results`, or the golden ones at `smoke`.

    Raises:
        FileNotFoundError: nothing was measured at this profile.
    """
    if profile == "smoke":
        files = sorted(GOLDEN.glob("*_*.csv"))
        return {path.stem: pd.read_csv(path, skip_blank_lines=False, **CSV) for path in files}
    names = sorted(path.stem for path in results_folder(profile).glob("*.csv"))
    if not names:
        raise FileNotFoundError(f"nothing was measured; run `make all PROFILE={profile}` first")
    return {name: load_frame(name, profile) for name in names}


def differences(stored: dict[str, pd.DataFrame], profile: str) -> list[str]:
    """Compare stored frames with those of `$LINLIB_ROOT`; one line for everything that moved."""
    tolerances = pd.read_csv(GOLDEN / "tolerances.csv", comment="#")
    lines, measured = [], {path.stem for path in results_folder(profile).glob("*.csv")}
    lines += [f"{name}: has no stored frame to compare with" for name in measured - stored.keys()]
    for name, old in stored.items():
        try:
            fresh, keys = load_frame(name, profile), load_provenance(name, profile)["keys"][name]
            lines += beyond_tolerance(name, compare_frames(old, fresh, keys), tolerances)
        except FileNotFoundError:
            lines.append(f"{name}: was not measured this time")
        except (ValueError, KeyError) as error:
            lines.append(f"{name}: cannot be compared: {error}")
    return lines


def main() -> None:
    """Measure a profile from nothing in build/verify; 1 is the exit status if something moved."""
    parser = argparse.ArgumentParser(prog="python -m linlib.verify", description=main.__doc__)
    parser.add_argument("--profile", default="tiny", help="a name, or the path of a YAML file")
    parser.add_argument("--measured", type=Path, help="compare with this $LINLIB_ROOT instead")
    arguments = parser.parse_args()
    try:
        profile = load_profile(arguments.profile)
        stored = stored_frames(profile.name)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"error: {error}\n")
    scratch = arguments.measured or root() / "build" / "verify"
    os.environ["LINLIB_ROOT"] = str(scratch.resolve())
    if not arguments.measured:
        shutil.rmtree(scratch, ignore_errors=True)
        command = [sys.executable, "-m", "linlib.run", "--remeasure"]
        subprocess.run([*command, "--profile", str(arguments.profile)], check=False)
    if lines := differences(stored, profile.name):
        parser.exit(1, "\n".join([*lines, f"{len(lines)} differences", ""]))
    print(f"{len(stored)} frames of profile '{profile.name}' agree within their tolerances")


if __name__ == "__main__":
    main()
