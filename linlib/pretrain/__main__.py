"""`python -m linlib.pretrain`: all regularised pretraining of a profile, also under torchrun."""

from __future__ import annotations

import argparse
import os

from linlib.pretrain.mistral import train_variants, tune_plain
from linlib.profiles import load_profile


def main() -> None:
    """Tune the plain Mistral of a profile, then train every size, variant and seed."""
    parser = argparse.ArgumentParser(prog="python -m linlib.pretrain", description=main.__doc__)
    parser.add_argument("--profile", default="tiny")
    try:
        profile = load_profile(parser.parse_args().profile)
        if profile.pretraining is None:
            raise ValueError(f"profile '{profile.name}' pretrains nothing; add `pretraining` to it")
        tuned, _ = tune_plain(profile)
        runs = train_variants(profile, tuned)
        for trained in runs if int(os.environ.get("RANK", 0)) == 0 else ():
            print(f"{trained.model.name} -> {trained.model.folder}")
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
