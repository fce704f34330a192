"""`python -m linlib.run`: execute notebooks one after the other, one line of output for each."""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

from linlib.profiles import load_profile
from linlib.store import REPOSITORY, figures_folder, results_folder, root

SOURCES = {path.stem: path for path in sorted((REPOSITORY / "notebooks").glob("[0-9]*.py"))}


def run_notebook(source: Path, profile: str, remeasure: bool) -> bool:
    """Execute a notebook for a profile, print one line about it, and return whether it succeeded.

    Args:
        source: the notebook's .py file; the executed page goes to `data/runs/<profile>/`.
        profile: a packaged profile's name, or the path of a profile file.
        remeasure: whether it measures again instead of drawing from stored frames.
    """
    import jupytext
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    started, scale = time.monotonic(), load_profile(profile).name
    output = root() / "data" / "runs" / scale / f"{source.stem}.ipynb"
    output.parent.mkdir(parents=True, exist_ok=True)
    unexecuted = output.with_name(f".{output.name}")
    jupytext.write(jupytext.read(source), unexecuted)
    try:
        papermill.execute_notebook(
            unexecuted,
            output,
            {"profile": profile, "remeasure": remeasure},
            progress_bar={"leave": False, "desc": source.stem} if sys.stderr.isatty() else False,
            extra_arguments=["--log-level=40"],  # a kernel of one's own needs no warnings
            cwd=os.getcwd(),
        )
    except PapermillExecutionError as error:
        if error.ename == "NotMeasured":  # the profile has no section for this figure
            print(f"{source.stem}: skipped: {error.evalue}", flush=True)
            return True
        page = output.replace(output.with_suffix(".failed.ipynb"))
        print(f"{source.stem}: FAILED with {error.ename}: {error.evalue}", flush=True)
        print(f"    the executed page is {page}", flush=True)
        return False
    except DeadKernelError as error:  # killed, or out of memory
        print(f"{source.stem}: FAILED: {error}", flush=True)
        return False
    finally:
        unexecuted.unlink(missing_ok=True)
    figure = figures_folder(scale) / f"{source.stem[3:]}.png"
    shown = figure if figure.exists() else results_folder(scale) / f"{source.stem[3:]}.csv"
    seconds = time.monotonic() - started
    print(f"{source.stem}: {seconds:.0f} s, {shown.relative_to(root())}", flush=True)
    return True


def chosen(names: list[str]) -> list[Path]:
    """The sources of notebooks by number, result or file name; all without any.

    Raises:
        ValueError: there is no such notebook.
    """
    found = []
    for name in names:
        matching = [stem for stem in SOURCES if name in (stem, stem.split("_")[0], stem[3:])]
        matching = matching or [stem for stem in SOURCES if stem.split("_")[1] == name]
        if not matching:
            raise ValueError(f"there is no notebook '{name}'; choose from {sorted(SOURCES)}")
        found += [SOURCES[stem] for stem in matching]
    return found or list(SOURCES.values())


def main() -> None:
    """Execute the notebooks named, or all of them; 1 is the exit status where one failed."""
    parser = argparse.ArgumentParser(prog="python -m linlib.run", description=main.__doc__)
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="06, fig6 or a file name")
    parser.add_argument("--profile", default="tiny", help="a name, or the path of a YAML file")
    parser.add_argument("--remeasure", action="store_true", help="measure, and not only draw")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="papermill|nbformat|jupyter|traitlets")
    try:
        load_profile(arguments.profile)  # a wrong one ends here, and not in every notebook
        sources = chosen(arguments.notebooks)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"error: {error}\n")
    failed = [
        source.stem
        for source in sources
        if not run_notebook(source, arguments.profile, arguments.remeasure)
    ]
    if failed:
        parser.exit(1, f"failed: {', '.join(failed)}\n")


if __name__ == "__main__":
    main()
