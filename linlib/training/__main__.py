"""`python -m linlib.training`: all regularised pretraining of a profile, also under torchrun."""

from __future__ import annotations

import argparse
import os

from linlib.profiles import load_profile
from linlib.training.mistrals import train_variants


def main() -> None:
    """Tune each variant of a profile's Mistrals, then train all sizes, variants and seeds."""
    parser = argparse.ArgumentParser(prog="python -m linlib.training", description=main.__doc__)
    parser.add_argument("--profile", default="tiny")
    try:
        settings = load_profile(parser.parse_args().profile)
        settings.require("pretraining", "the comparison of regularisers")
        for run in train_variants(settings):
            if int(os.environ.get("RANK", 0)) == 0:
                print(f"{run.model} -> {run.folder}")
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
