"""`python -m linlib.report`: one page a profile, every figure with where its numbers came from."""

from __future__ import annotations

import argparse
from pathlib import Path

from linlib.claims import findings_table
from linlib.profiles import load_profile
from linlib.store import figures_folder, load_frame, load_provenance, results_folder
from linlib.store.frames import write_atomically
from linlib.store.paths import REPOSITORY, root

README_PROFILE = "tiny"  # whose findings the project's README shows
START, END = "<!-- findings -->", "<!-- end of findings -->"


def write_report(profile: str) -> Path:
    """Write `figures/<profile>/README.md` from the stored frames.

    Raises:
        ValueError: a stored frame has no provenance.
        FileNotFoundError: nothing was measured at this profile.
    """
    settings = load_profile(profile)
    names = sorted(path.stem for path in results_folder(profile).glob("*.csv"))
    if not names:
        raise FileNotFoundError(
            f"nothing was measured at profile '{profile}'; run `make all PROFILE={profile}`"
        )
    lines = [f"# Results at profile `{profile}`", "", f"{settings.description}.", ""]
    lines += [findings_table(profile, "../../notebooks"), ""]
    for name in names:
        lines += _section(name, profile)
    path = figures_folder(profile) / "README.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "\n".join(lines))
    return path


def update_readme(readme: Path, profile: str) -> None:
    """Put the findings of a profile between the two markers of a page.

    Raises:
        ValueError: a marker is missing; the page is left as it was.
    """
    before, start, rest = readme.read_text().partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"{readme} lacks the markers '{START}' and '{END}' of the findings table")
    table = findings_table(profile, "notebooks")
    write_atomically(readme, f"{before}{start}\n{table}\n{end}{after}")


def _section(name: str, profile: str) -> list[str]:
    frame, record = load_frame(name, profile), load_provenance(name, profile)
    corpus, packages = record["corpus"], record["packages"]
    figures = sorted(figures_folder(profile).glob(f"{name}*.png"))
    tables = sorted(figures_folder(profile).glob(f"{name}.md"))
    return [
        f"## {name}",
        "",
        *(table.read_text() for table in tables),
        *(f"![{figure.stem}]({figure.name})\n" for figure in figures),
        f"`data/results/{profile}/{name}.csv`: {len(frame)} rows. Measured {record['measured_at']} "
        f"on {record['device']} in {record['wall_seconds']} s, seeds {record['seeds']}, on "
        f"{corpus['split']} {corpus['name']} (sha256 {corpus['sha256'][:12]}), torch "
        f"{packages['torch']}, transformers {packages['transformers']}, commit {record['commit']}.",
        "",
    ]


def main() -> None:
    """Write the report of a profile."""
    parser = argparse.ArgumentParser(prog="python -m linlib.report", description=main.__doc__)
    parser.add_argument("--profile", default="tiny")
    try:
        profile = parser.parse_args().profile
        print(write_report(profile))
        if profile == README_PROFILE and root() == REPOSITORY:
            update_readme(REPOSITORY / "README.md", profile)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
