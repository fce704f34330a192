"""The notebooks: paired, executed, readable; and run by papermill from an empty store."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest

from linlib.experiments import EXPERIMENTS
from linlib.experiments.stories import REFERENCE
from linlib.profiles import load_profile
from linlib.store import load_frame, load_provenance

REPOSITORY = Path(__file__).parents[1]
SOURCES = sorted((REPOSITORY / "notebooks").glob("[0-9]*.py"))
# The sections of the profile that a figure depends on, where not zoo and pretraining.
PARTS = {
    "tab1_finetuning": ("zoo", "finetuning"),
    "fig8_pruning_accuracy": ("zoo", "pruning", "evaluation"),
    **dict.fromkeys(
        ("fig6_pruning_first", "fig7_pruning_second", "pruning_shootout"), ("zoo", "pruning")
    ),
    **dict.fromkeys(
        ("fig5_probing", "tab2_superglue", "tab3_tinystories"), ("pretraining", "evaluation")
    ),
}
# Models of the figures about pruning; all others are about three and more.
PRUNED = {
    "fig6_pruning_first": 1, "fig7_pruning_second": 1, "fig8_pruning_accuracy": 1,
    "pruning_shootout": 2,
}  # fmt: skip


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(params=SOURCES, ids=lambda path: path.stem)
def source(request):
    return request.param


def test_every_experiment_has_a_notebook_and_every_notebook_an_experiment():
    assert {path.stem.split("_", 1)[1] for path in SOURCES} == set(EXPERIMENTS)


def test_source_and_executed_notebook_hold_the_same_cells(source):
    pair = [jupytext.read(source), nbformat.read(source.with_suffix(".ipynb"), as_version=4)]
    texts = [[(cell.cell_type, cell.source) for cell in notebook.cells] for notebook in pair]
    assert texts[0] == texts[1]


def test_the_committed_notebook_is_executed_in_order_without_errors(source):
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    cells = [cell for cell in code_cells(notebook) if cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type in ("error", "stream")]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("nbval-check-output" in cell.metadata.get("tags", []) for cell in cells)


def test_a_notebook_reads_like_one(source):
    notebook = jupytext.read(source)
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    assert max(lengths) <= 15
    prose = sum(len(c.source) for c in notebook.cells if c.cell_type == "markdown")
    assert prose >= sum(len(cell.source) for cell in code_cells(notebook))
    for cell in code_cells(notebook):
        nodes = ast.walk(ast.parse(cell.source))
        assert not [n for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    title = notebook.cells[0].source
    kinds = {"fig": "Figure", "tab": "Table"}
    kind = kinds.get(source.stem[3:6], "Beyond the paper")
    assert title.startswith(f"# {kind} ") and "arxiv.org/abs/2405.12250" in title
    assert "Deviations" in notebook.cells[-1].source


def test_papermill_finds_the_parameters(source):
    parameters = papermill.inspect_notebook(source.with_suffix(".ipynb"))
    assert {name: p["default"] for name, p in parameters.items()} == {
        "profile": '"tiny"',
        "remeasure": "False",
    }


def test_nothing_in_a_notebook_names_this_machine(source):
    text = source.with_suffix(".ipynb").read_text()
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_committed_results_are_complete_and_have_provenance(name):
    frame, record = load_frame(name, "tiny"), load_provenance(name, "tiny")
    assert record["profile"] == "tiny" and record["seeds"] and record["wall_seconds"] > 0
    assert set(record["models"]) == set(frame["model"]) - {REFERENCE}
    assert len(record["models"]) >= 3 or len(record["models"]) == PRUNED.get(name)
    assert len(record["corpus"]["sha256"]) == 64
    tiny = load_profile("tiny")
    for part in PARTS.get(name, ("zoo", "pretraining")):
        assert record["parameters"][part] == json.loads(getattr(tiny, part).model_dump_json())
    assert not re.search(r"/(home|root|tmp|work|Users)/", json.dumps(record))


def test_papermill_measures_what_is_missing_and_draws_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(
        REPOSITORY / "notebooks" / "01_fig1_linearity_profiles.ipynb",
        out,
        {"profile": "smoke"},
        progress_bar=False,
    )
    frame = load_frame("fig1_linearity_profiles", "smoke")
    assert frame["model"].nunique() == 5 and set(frame["protocol"]) == {"stream", "official"}
    drawn = {path.name for path in (tmp_path / "figures" / "smoke").iterdir()}
    assert {"fig1_linearity_profiles.png", "fig1_linearity_profiles.pdf"} <= drawn
    for module in ("linlib.report", "linlib.experiments"):
        arguments = [] if module == "linlib.report" else ["fig3_norms"]
        subprocess.run([sys.executable, "-m", module, *arguments, "--profile", "smoke"], check=True)
    assert "![fig1" in (tmp_path / "figures" / "smoke" / "README.md").read_text()
    for name in ("fig1_linearity_profiles", "fig3_norms"):  # `make smoke` measures them all
        assert load_provenance(name, "smoke")["parameters"]["measure"]["n_windows"] == 32


def test_an_unknown_profile_ends_with_a_message_and_no_traceback():
    done = subprocess.run(
        [sys.executable, "-m", "linlib.experiments", "--profile", "tyni"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "unknown profile 'tyni'; choose from ['gpu', 'paper', 'smoke', 'tiny']" in done.stderr
