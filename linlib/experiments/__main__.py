"""`python -m linlib.experiments`: measure every figure of a profile, with progress bars."""

from __future__ import annotations

import argparse

from linlib.experiments.registry import EXPERIMENTS, obtain
from linlib.profiles import load_profile
from linlib.store import results_folder


def main() -> None:
    """Measure the experiments named, or all of them, and say where the frames are."""
    parser = argparse.ArgumentParser(prog="python -m linlib.experiments", description=main.__doc__)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument("--profile", default="tiny")
    arguments = parser.parse_args()
    try:
        profile = load_profile(arguments.profile)
        for name in arguments.experiments or EXPERIMENTS:
            print(f"measuring {name} at profile '{profile.name}'", flush=True)
            obtain(name, profile, remeasure=True)
            print(f"  -> {results_folder(profile.name) / name}.csv", flush=True)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
