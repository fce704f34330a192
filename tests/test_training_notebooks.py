"""The measurement cells of Figure 2 and Table 1, executed on folders of random models."""

from dataclasses import replace
from pathlib import Path

import jupytext
import numpy as np
import pytest
import torch
from test_models import tiny_config
from transformers import AutoModelForCausalLM

import linlib
from linlib import store
from linlib.corpora import load_task
from linlib.profiles import CheckpointSettings, ModelSettings, NotMeasured

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.fixture
def smoke(tmp_path, monkeypatch):
    """The smoke profile with nothing to train."""
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path / "root"))
    settings = linlib.load_profile("smoke")
    measure = replace(settings.measure, checkpoint_windows=32)
    return replace(settings, name="folders", measure=measure, zoo=None, pretraining=None)


def saved_model(folder, tokenizer_folder, name):
    tokenizer = linlib.load_tokenizer(tokenizer_folder)
    torch.manual_seed(0)
    config = tiny_config(name)
    config.vocab_size, config.max_position_embeddings = len(tokenizer), 64
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def execute(number, settings):
    """Execute a notebook's imports, and its cells from the settings to the measured frame."""
    (source,) = NOTEBOOKS.glob(f"{number}_*.py")
    namespace = {"profile": settings, "remeasure": False}
    cells = [cell.source for cell in jupytext.read(source).cells if cell.cell_type == "code"]
    first = next(i for i, cell in enumerate(cells) if cell.startswith("settings = "))
    last = next(i for i, cell in enumerate(cells) if "linlib.result(" in cell)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("linlib.load_profile", lambda given: given, raising=False)
        for cell in (cells[0], *cells[first : last + 1]):
            exec(cell, namespace)
    return namespace["frame"]


@pytest.mark.parametrize("layers_per_pass", [None, 2])
def test_figure_2_follows_published_checkpoints(tmp_path, tokenizer_folder, smoke, layers_per_pass):
    places = {
        step: saved_model(tmp_path / name, tokenizer_folder, name)
        for step, name in ((1, "gpt2"), (1000, "llama"))
    }
    followed = CheckpointSettings(
        label="twin", checkpoints=places, warmup_steps=10, bos_token="<|eos|>"
    )
    measure = replace(smoke.measure, layers_per_pass=layers_per_pass)
    frame = execute("02", replace(smoke, checkpoints=(followed,), measure=measure))
    assert list(frame.columns[:6]) == ["model", "seed", "step", "layer", "depth", "tokens"]
    assert set(frame["model"]) == {"twin"} and set(frame["layer"]) == {1, 2, 3}
    assert set(frame["warmup_steps"]) == {10}
    model, tokenizer = linlib.load(places[1000], bos_token="<|eos|>")
    windows, documents = linlib.token_windows(
        "pydocs", tokenizer, seq_len=64, n_windows=32, return_documents=True
    )
    expected = linlib.linearity_profile(model, windows, documents=documents, batch_size=16)
    rows = frame.query("step == 1000").sort_values(["layer", "tokens"])
    expected = expected.sort_values(["layer", "tokens"])
    for score in ("linearity_score", "heldout_score", "n_eff"):
        np.testing.assert_allclose(rows[score], expected[score], rtol=1e-5)


def test_figure_2_is_not_measured_where_nothing_is_pretrained(smoke):
    with pytest.raises(NotMeasured, match="has no section 'pretraining', so Figure 2 is not"):
        execute("02", smoke)


def test_figure_4_is_not_measured_without_pretraining(smoke):
    with pytest.raises(NotMeasured, match="has no section 'pretraining', so Figure 4 is not"):
        execute("04", smoke)


def test_table_1_runs_on_tasks_and_a_model_from_folders(tmp_path, tokenizer_folder, smoke):
    """The path of the `gpu` profile: SuperGLUE's columns, and a model that is not trained here."""
    (tmp_path / "tasks" / "boolq").mkdir(parents=True)
    for split, n in (("train", 24), ("validation", 8)):
        rows = load_task("storyworld", "boolq", split, n)
        rows.to_parquet(tmp_path / "tasks" / "boolq" / f"{split}.parquet")
    folder = saved_model(tmp_path / "opt", tokenizer_folder, "opt")
    section = replace(
        linlib.load_profile("gpu").finetuning,
        models=("OPT-125M",),
        extra_models=(ModelSettings(id=folder, label="OPT-125M"),),
        source=str(tmp_path / "tasks"),
        tasks=("boolq",),
        seeds=(0, 1),
        steps=3,
        batch_size=8,
        micro_batch_size=None,
        seq_len=64,
    )
    frame = execute("10", replace(smoke, finetuning=section))
    assert len(frame) == 12 and set(frame["model"]) == {"OPT-125M"}
    assert set(frame["text"]) == {"general", "task"}
    own, frame = (frame[frame["text"] == text] for text in ("task", "general"))
    assert own["linearity_no_residual_before"].nunique() == 1  # one text, before any training
    assert set(frame["training"]) == {"task", "shuffled labels", "language modelling"}
    assert frame["chance"].dropna().eq(0.5).all()
    counted = store.load_provenance("tab1_finetuning", "folders")["task rows"]["opt boolq train"]
    assert counted["truncated"] > 0 and counted["rows"] == 24 and counted["left_out"] == 0
    # Before and after are what plain calls on the same windows give.
    model, tokenizer = linlib.load(folder)
    windows = linlib.token_windows("pydocs", tokenizer, seq_len=64, n_windows=32)
    before = linlib.linearity_profile(model, windows, n_folds=4, batch_size=16)
    expected = before.query("tokens == 'all'")["linearity_no_residual"].mean()
    np.testing.assert_allclose(frame["linearity_no_residual_before"], expected, rtol=1e-5)
    layers = store.load_frame("tab1_finetuning_layers", "folders")
    layers = layers.query("tokens == 'all' and text == 'general'")
    change = layers.groupby(["training", "seed"])["delta_linearity_no_residual"].mean()
    rows = frame.set_index(["training", "seed"]).sort_index()
    np.testing.assert_allclose(rows["delta_linearity_no_residual"], change, atol=1e-9)
    np.testing.assert_allclose(
        rows["linearity_no_residual"] - rows["linearity_no_residual_before"], change, atol=1e-8
    )
    assert (rows["delta_linearity_no_residual"] != 0).all()
    assert rows.loc["task", "accuracy"].between(0, 1).all()
    assert rows.loc["language modelling", "accuracy"].isna().all()


def test_table_1_says_what_it_lacks(smoke):
    with pytest.raises(NotMeasured, match="has no section 'finetuning', so Table 1 is not"):
        execute("10", replace(smoke, finetuning=None))
    section = replace(smoke.finetuning, models=("OPT-9T",))
    with pytest.raises(ValueError, match=r"names \['OPT-9T'\] and has no such models"):
        execute("10", replace(smoke, finetuning=section))
