"""The notebooks: paired, executed, readable, with their method in one cell; committed results."""

import ast
import json
import re
from pathlib import Path
from statistics import median

import jupytext
import nbformat
import papermill
import pytest

from linlib import load_profile, store
from linlib.store.results import values_of

REPOSITORY = Path(__file__).parents[1]
SOURCES = sorted((REPOSITORY / "notebooks").glob("[0-9]*.py"))
STORED = sorted((REPOSITORY / "data/results").glob("*/*.json"))
RESULTS = [(path.parent.name, path.stem) for path in STORED]
VERDICTS = "13_verdicts"  # reads what the others have measured
LONGEST_MEASUREMENT, LONGEST_CELL = 39, 15
MACHINE = re.compile(r"/(home|root|tmp|work|Users)/")


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def measurements(notebook):
    return [cell for cell in code_cells(notebook) if "def measure" in cell.source]


def sections(name):
    """The sections of the profile that the notebook of a result requires."""
    texts = [path.read_text() for path in SOURCES if path.stem[3:].startswith(name)]
    asked = " ".join(re.findall(r"require\([^)]*\)|for part in \([^)]*\)", "".join(texts)))
    return {"finetuning", "evaluation", "pruning", "encoders"} & set(re.findall(r'"(\w+)"', asked))


@pytest.fixture(params=SOURCES, ids=lambda path: path.stem)
def source(request):
    return request.param


def test_every_notebook_has_a_result_and_every_result_a_notebook():
    names = {path.stem.split("_", 1)[1] for path in SOURCES if path.stem != VERDICTS}
    names |= {"fig1_real_decoders"}  # drawn by notebook 01 before it trains any model
    for profile in ("tiny", "laptop"):
        assert names == {name for found, name in RESULTS if found == profile}


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


def test_the_method_stands_in_one_cell(source):
    if source.stem == VERDICTS:
        assert not measurements(jupytext.read(source))
        return
    (cell,) = measurements(jupytext.read(source))
    assert len(cell.source.splitlines()) <= LONGEST_MEASUREMENT
    tree = ast.parse(cell.source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert [function.name for function in functions] == ["measure"]
    code = "\n".join(cell.source for cell in code_cells(jupytext.read(source)))
    (name,) = re.findall(r'linlib\.result\(\s*"(\w+)", measure, settings, remeasure', code)
    assert name == source.stem.split("_", 1)[1]


def test_a_notebook_reads_like_one(source):
    notebook = jupytext.read(source)
    cells = [cell for cell in code_cells(notebook) if "def measure" not in cell.source]
    lengths = [len(cell.source.splitlines()) for cell in cells]
    assert max(lengths) <= LONGEST_CELL and median(lengths) <= 7
    prose = sum(len(c.source) for c in notebook.cells if c.cell_type == "markdown")
    assert prose >= sum(len(cell.source) for cell in code_cells(notebook))
    for cell in cells:
        nodes = ast.walk(ast.parse(cell.source))
        assert not [n for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    title = notebook.cells[0].source
    kinds = {"fig": "Figure", "tab": "Table"}
    kind = kinds.get(source.stem[3:6], "Beyond the paper")
    kind = "The verdicts" if source.stem == VERDICTS else kind
    assert title.startswith(f"# {kind} ") and "arxiv.org/abs/2405.12250" in title
    assert "Deviations" in notebook.cells[-1].source


def test_papermill_finds_the_parameters(source):
    parameters = papermill.inspect_notebook(source.with_suffix(".ipynb"))
    assert {name: p["default"] for name, p in parameters.items()} == {
        "profile": '"laptop"',
        "remeasure": "False",
    }


def test_nothing_in_a_notebook_names_this_machine(source):
    assert not MACHINE.search(source.with_suffix(".ipynb").read_text())


@pytest.mark.parametrize(("profile", "name"), RESULTS)
def test_committed_results_are_complete_and_have_provenance(profile, name):
    record, settings = store.load_provenance(name, profile), load_profile(profile)
    assert record["profile"] == profile and record["wall_seconds"] > 0
    assert record["models"] and record["corpora"]
    assert all(len(sha256) == 64 for sha256 in record["corpora"].values())
    for file, keys in record["keys"].items():
        assert not store.load_frame(file, profile).duplicated(keys).any()
    assert {"zoo", "pretraining", "measure", *sections(name)} <= set(record["parameters"])
    for part, values in record["parameters"].items():
        if part in vars(settings) and part != "description":
            now = values_of(json.loads(json.dumps(store.identity(getattr(settings, part)))))
            assert values_of(values) == now, f"{name} was measured with other settings of {part}"
    assert not MACHINE.search(json.dumps(record))
