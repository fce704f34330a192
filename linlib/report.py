"""`python -m linlib.report`: one page per profile, each figure with the source of its numbers."""

from __future__ import annotations

import argparse
from pathlib import Path

from linlib.claims import findings_table
from linlib.profiles import load_profile
from linlib.store import (
    REPOSITORY,
    figures_folder,
    load_frame,
    load_provenance,
    results_folder,
    root,
    write_atomically,
)

README_PROFILE = "laptop"  # whose findings the project's README shows
START, END = "<!-- findings -->", "<!-- end of findings -->"


def write_report(profile: str, description: str) -> Path:
    """Write `figures/<profile>/README.md` from the stored frames and the profile's description.

    Raises:
        ValueError: a stored frame has no provenance.
        FileNotFoundError: nothing was measured at this profile.
    """
    names = sorted(path.stem for path in results_folder(profile).glob("*.json"))
    if not names:
        raise FileNotFoundError(
            f"nothing was measured at profile '{profile}'; run `make all PROFILE={profile}`"
        )
    lines = [f"# Results at profile `{profile}`", "", f"{description}.", ""]
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
    record = load_provenance(name, profile)
    figures = sorted(figures_folder(profile).glob(f"{name}*.png"))
    tables = sorted(figures_folder(profile).glob(f"{name}.md"))
    files = [f"`{file}.csv` ({len(load_frame(file, profile))} rows)" for file in record["keys"]]
    opened = record.get("corpora", {}).items()
    corpora = [f"{text} (sha256 {sha256[:12]})" for text, sha256 in opened] or ["no text"]
    notes = [f"- **{model}**: {note}." for model, note in record.get("notes", {}).items()]
    packages = [f"{package} {record['packages'][package]}" for package in ("torch", "transformers")]
    return [
        f"## {name}",
        "",
        *(table.read_text() for table in tables),
        *(f"![{figure.stem}]({figure.name})\n" for figure in figures),
        *([*notes, ""] if notes else []),
        f"In `data/results/{profile}/`: {', '.join(files)}. Measured {record['measured_at']} on "
        f"{record['device']} in {record['wall_seconds']} s (what came from the cache had taken "
        f"{record['cached_seconds']} s), on {', '.join(corpora)}, {', '.join(packages)}, commit "
        f"{record['commit']}.",
        "",
    ]


def main() -> None:
    """Write the report of a profile."""
    parser = argparse.ArgumentParser(prog="python -m linlib.report", description=main.__doc__)
    parser.add_argument("--profile", default="tiny", help="a name, or the path of a YAML file")
    try:
        profile = load_profile(parser.parse_args().profile)
        write_report(profile.name, profile.description)
        if profile.name == README_PROFILE and root() == REPOSITORY:
            update_readme(REPOSITORY / "README.md", profile.name)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
