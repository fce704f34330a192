"""Running notebooks, comparing measurements, and reporting them."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from linlib import report, run, store, verify

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    return tmp_path


def notebook(folder, measure):
    """A source of four cells that measures one row."""
    path = folder / "99_fig0_test.py"
    path.write_text(
        "# ---\n# jupyter:\n#   jupytext:\n#     text_representation:\n"
        "#       extension: .py\n#       format_name: percent\n"
        "#   kernelspec:\n#     display_name: Python 3\n#     language: python\n"
        "#     name: python3\n# ---\n"
        '# %% tags=["parameters"]\nprofile = "tiny"\nremeasure = False\n'
        "# %%\nimport linlib\n\nsettings = linlib.load_profile(profile)\n"
        f"# %%\ndef measure():\n    {measure}\n\n\n"
        'frame = linlib.result("fig0_test", measure, settings, remeasure)\n'
    )
    return path


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, cwd=REPOSITORY
    )


def test_a_notebook_is_measured_and_its_line_printed(home, monkeypatch, capsys):
    source = notebook(home, 'yield {"x": 1}')
    monkeypatch.setattr(run, "SOURCES", {source.stem: source})
    monkeypatch.setattr(sys, "argv", ["run", "--profile", "smoke", "fig0"])
    run.main()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("99_fig0_test: ") and line.endswith("smoke/fig0_test.csv")
    assert store.load_frame("fig0_test", "smoke")["x"].item() == 1
    assert (home / "data" / "runs" / "smoke" / "99_fig0_test.ipynb").exists()
    assert not list((home / "data" / "runs" / "smoke").glob(".*"))


def test_a_figure_that_a_profile_lacks_says_so_on_its_page(home, monkeypatch, capsys):
    source = notebook(home, 'yield {"x": settings.require("checkpoints", "Figure 0")}')
    monkeypatch.setattr(run, "SOURCES", {source.stem: source})
    monkeypatch.setattr(sys, "argv", ["run", "--profile", "smoke"])
    run.main()
    assert "skipped: profile 'smoke' has no section 'checkpoints'" in capsys.readouterr().out
    page = nbformat.read(home / "data" / "runs" / "smoke" / "99_fig0_test.ipynb", as_version=4)
    assert "so Figure 0 is not measured at this profile" in str(page)


def test_a_notebook_that_fails_is_named_and_kept(home, monkeypatch, capsys):
    source = notebook(home, 'raise ValueError("layer 3: NaN")')
    monkeypatch.setattr(run, "SOURCES", {source.stem: source})
    monkeypatch.setattr(sys, "argv", ["run", "--profile", "smoke"])
    with pytest.raises(SystemExit) as ended:
        run.main()
    assert ended.value.code == 1
    output = capsys.readouterr()
    assert "99_fig0_test: FAILED with ValueError: layer 3: NaN" in output.out
    assert "failed: 99_fig0_test" in output.err
    runs = home / "data" / "runs" / "smoke"
    assert [path.name for path in runs.iterdir()] == ["99_fig0_test.failed.ipynb"]


def test_notebooks_are_chosen_by_number_figure_or_name():
    for name in ("06", "fig6", "fig6_pruning_first", "06_fig6_pruning_first"):
        assert [path.stem for path in run.chosen([name])] == ["06_fig6_pruning_first"]
    assert len(run.chosen([])) == len(run.SOURCES) >= 13


def test_an_unknown_profile_or_notebook_ends_with_a_message_and_no_traceback():
    done = command("linlib.run", "--profile", "tyni")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    names = "'gpu', 'laptop', 'paper', 'smoke', 'tiny'"
    assert f"unknown profile 'tyni'; choose from [{names}]" in done.stderr
    done = command("linlib.run", "fig77")
    assert done.returncode == 2 and "there is no notebook 'fig77'; choose from" in done.stderr


# ------------------------------------------------------------------------------- verify

TABLE = pd.DataFrame(
    [
        ("fig0*", "score", "*, 0", 0.0001),
        ("fig0*", "score", "*", 0.1),
        ("*", verify.UNMATCHED, "*", 0.3),
    ],
    columns=["frame", "column", "key", "absolute"],
)


def two_rows(scores, text="x"):
    keys = {"model": ["a", "a"], "layer": [0, 1]}
    return pd.DataFrame(keys | {"score": scores, "text": text})


def moved(new, old=None):
    old = two_rows([0.5, 0.5]) if old is None else old
    return verify.compare_frames(old, new, ["model", "layer"])


def test_what_did_not_move_is_not_mentioned():
    shuffled = two_rows([0.5, 0.5]).iloc[::-1]
    assert moved(shuffled).empty
    missing = two_rows([None, 0.5])
    assert moved(missing, missing).empty


def test_truth_values_are_compared_as_such():
    chosen = two_rows([0.5, 0.5]).assign(chosen=[True, False])
    (cell,) = moved(chosen.assign(chosen=False), chosen).to_dict("records")
    assert cell["column"] == "chosen" and cell["moved"] == 1 and cell["key"] == "a, 0"


def test_what_moved_is_named_with_its_place_and_size():
    cells = moved(two_rows([0.55, 0.55], ["x", "y"]))
    assert cells["column"].tolist() == ["score", "score", "text"]
    assert cells["moved"].tolist() == pytest.approx([0.05, 0.05, 1])
    lines = verify.beyond_tolerance("fig0_test", cells, TABLE)
    assert lines == [
        "fig0_test: score moved by 0.05 (allowed: 0.0001) at a, 0",
        "fig0_test: text moved by 1 (allowed: 0) at a, 1",
    ]


def test_a_number_on_one_side_only_is_beyond_every_tolerance():
    lines = verify.beyond_tolerance("fig0_test", moved(two_rows([0.5, None])), TABLE)
    assert lines == ["fig0_test: score moved by inf (allowed: 0.1) at a, 1"]


def test_rows_on_one_side_only_are_counted():
    cells = moved(two_rows([0.5, 0.5]).assign(layer=[0, 2]))
    assert cells["moved"].tolist() == [0.5]
    assert "rows on one side only" in verify.beyond_tolerance("fig0_test", cells, TABLE)[0]


def test_frames_of_different_columns_or_ambiguous_rows_are_refused():
    with pytest.raises(ValueError, match=r"lacks the columns \['text'\]"):
        moved(two_rows([0.5, 0.5]).drop(columns="text"))
    with pytest.raises(ValueError, match=r"the columns \['model'\] do not tell the rows apart"):
        verify.compare_frames(two_rows([0.5, 0.5]), two_rows([0.5, 0.5]), ["model"])


def test_verify_says_what_moved_and_by_how_much(home, monkeypatch):
    store.save_frames({"": two_rows([0.5, 0.5])}, "fig0_test", "tiny", {})
    stored = verify.stored_frames("tiny")
    assert verify.differences(stored, "tiny") == []
    store.save_frames({"": two_rows([0.5, 0.75])}, "fig0_test", "tiny", {})
    assert verify.differences(stored, "tiny") == [
        "fig0_test: score moved by 0.25 (allowed: 0.02) at a, 1"
    ]
    monkeypatch.setenv("LINLIB_ROOT", str(home / "elsewhere"))
    assert verify.differences(stored, "tiny") == ["fig0_test: was not measured this time"]


def test_frames_without_a_stored_counterpart_are_named(home):
    store.save_frames({"": two_rows([0.5, 0.5])}, "fig9_new", "tiny", {})
    assert verify.differences({}, "tiny") == ["fig9_new: has no stored frame to compare with"]


def test_verify_ends_with_1_where_frames_are_missing(home):
    done = command("linlib.verify", "--profile", "smoke", "--measured", str(home))
    assert done.returncode == 1
    assert "fig1_linearity_profiles: was not measured this time" in done.stderr


def test_nothing_measured_cannot_be_verified(home):
    with pytest.raises(FileNotFoundError, match="run `make all PROFILE=tiny` first"):
        verify.stored_frames("tiny")


# ------------------------------------------------------------------------------- report


def test_the_report_says_where_numbers_come_from(home):
    with pytest.raises(FileNotFoundError, match="nothing was measured at profile 'smoke'"):
        report.write_report("smoke", "a minute")
    provenance = {
        "device": "cpu",
        "corpora": {"pydocs (heldout)": "f" * 64},
        "notes": {"smollm2-135m": "four-bit weights (Q4_1), dequantised to float32"},
        "wall_seconds": 1.5,
        "cached_seconds": 0.5,
    }
    store.save_frames(
        {"": two_rows([1, 2]), "_more": two_rows([3, 4])}, "fig0", "smoke", provenance
    )
    text = report.write_report("smoke", "a minute").read_text()
    assert "## fig0\n" in text and "`fig0.csv` (2 rows), `fig0_more.csv` (2 rows)" in text
    assert "pydocs (heldout) (sha256 ffffffffffff)" in text and "![" not in text
    assert "\n- **smollm2-135m**: four-bit weights (Q4_1), dequantised to float32.\n\nIn" in text


def test_findings_are_put_between_the_markers_of_a_page(home):
    page = home / "README.md"
    page.write_text(f"before\n{report.START}\nold\n{report.END}\nafter\n")
    report.update_readme(page, "smoke")
    assert page.read_text().startswith(f"before\n{report.START}\n| | the paper")
    assert page.read_text().endswith(f"{report.END}\nafter\n")
    page.write_text("no markers")
    with pytest.raises(ValueError, match="lacks the markers"):
        report.update_readme(page, "smoke")
    assert page.read_text() == "no markers"
