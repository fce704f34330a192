"""The measurement cells of Figures 1, 3 and 9, executed on folders of random models."""

from dataclasses import replace
from pathlib import Path

import jupytext
import numpy as np
import pandas as pd
import pytest
import torch
from test_models import tiny_config
from transformers import AutoModelForCausalLM

import linlib
from linlib import corpora, measure, models, store, training
from linlib.profiles import ModelSettings

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = ["gpt2", "llama"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer_folder, corpus):
    """Two models with a tokenizer, and a text."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = linlib.load_tokenizer(tokenizer_folder)
    for name in NAMES:
        config = tiny_config(name)
        config.vocab_size = len(tokenizer)
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    (folder / "text.txt").write_text("\n\n".join(12 * list(corpus["text"])))
    return folder


@pytest.fixture(scope="module")
def smoke(folder):
    """A profile with those models and that text, and nothing trained."""
    sources = [
        ModelSettings(id=str(folder / name), label=name, bos_token="<|eos|>", pad_token="<|pad|>")
        for name in NAMES
    ]
    return replace(
        linlib.load_profile("smoke"),
        name="folders",
        zoo=None,
        models=tuple(sources),
        corpus=str(folder / "text.txt"),
        dtype="bfloat16",
    )


def execute(name, settings):
    """Execute the measurement cell of a notebook."""
    (source,) = NOTEBOOKS.glob(f"*_{name}.py")
    imports, cell = (
        next(c.source for c in jupytext.read(source).cells if mark in c.source)
        for mark in ("import linlib", "def measure")
    )
    namespace = {"settings": settings, "remeasure": False}
    exec(imports, namespace)
    exec(cell, namespace)
    return namespace["frame"]


@pytest.fixture(params=[None, 2], ids=["one pass", "two layers per pass"])
def settings(request, smoke, tmp_path, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    return replace(smoke, measure=replace(smoke.measure, layers_per_pass=request.param))


def stored_moments():
    found = (store.cache_folder() / "collect_moments").glob("*/*.safetensors")
    return {path.parent for path in found}


def open_first(settings):
    """The first model with its two halves of the windows."""
    model, tokenizer = linlib.load(**training.models_of(settings)["gpt2"])
    windows = linlib.token_windows(settings.corpus, tokenizer, seq_len=64, n_windows=64)
    return model, tokenizer, windows[:32], windows[32:]


def test_figure_1_holds_two_protocols_of_each_model_and_figure_9_shares_its_moments(settings):
    frame = execute("fig1_linearity_profiles", settings)
    assert list(frame.columns[:5]) == ["model", "protocol", "layer", "depth", "tokens"]
    assert frame.groupby(["model", "protocol"]).size().to_dict() == {
        (name, protocol): rows
        for name in NAMES
        for protocol, rows in (("stream", 6), ("official", 3))
    }
    model, tokenizer, windows, _ = open_first(settings)
    assert model.dtype == torch.bfloat16
    expected = measure.linearity_profile(model, windows, batch_size=16)
    ours = frame.query("model == 'gpt2' and protocol == 'stream'").drop(
        columns=["model", "protocol"]
    )
    pd.testing.assert_frame_equal(ours.reset_index(drop=True), expected, rtol=1e-6)
    texts = corpora.character_windows(
        settings.corpus, tokenizer, 16, max_tokens=models.position_limit(model)
    )
    official = measure.linearity_profile(
        model, *texts, n_folds=1, batch_size=16, after_final_norm=True
    ).query("tokens == 'all'")
    ours = frame.query("model == 'gpt2' and protocol == 'official'")
    np.testing.assert_allclose(ours["linearity_score"], official["linearity_score"], rtol=1e-6)

    before = stored_moments()
    execute("fig9_error_tails", settings)
    assert stored_moments() == before
    assert len(before) == (2 if settings.measure.layers_per_pass is None else 0)
    record = store.load_provenance("fig9_error_tails", "folders")
    assert set(record["models"]) == set(NAMES)


@pytest.mark.parametrize("settings", [None], indirect=True)
def test_figure_3_holds_norms_of_each_model_on_the_windows_of_figure_1(settings):
    frame = execute("fig3_norms", settings)
    assert list(frame.columns[:5]) == ["model", "layer", "depth", "tokens", "quantity"]
    model, _, windows, _ = open_first(settings)
    expected = measure.stream_norms(model, windows, batch_size=16)
    ours = frame.query("model == 'gpt2'").drop(columns="model").reset_index(drop=True)
    pd.testing.assert_frame_equal(ours, expected, rtol=1e-6)


def test_figure_9_fits_on_one_half_and_shows_errors_on_the_other(settings):
    frame = execute("fig9_error_tails", settings)
    statistics = store.load_frame("fig9_error_tails_statistics", "folders")
    tokens = store.load_frame("fig9_error_tails_tokens", "folders")
    for one in (frame, statistics, tokens):
        assert list(one.columns[:4]) == ["model", "layer", "depth", "tokens"]
        assert set(one["layer"]) == {1, 2, 3} and set(one["model"]) == set(NAMES)
    model, tokenizer, fitting, other = open_first(settings)
    moments = measure.collect_moments(model, fitting, batch_size=16)
    maps = {
        layer: moments.group(layer, "no first position").linear_map() for layer in (1, 2, 3)
    }  # the Gaussian draws of a layer follow those of the layers before it
    errors = measure.token_errors(model, maps, other, skip_first=True, batch_size=16)[2]
    place = "model == 'gpt2' and layer == 2 and tokens == 'no first position'"
    row, expected = statistics.query(place).iloc[0], measure.error_statistics(errors).iloc[0]
    np.testing.assert_allclose(row[expected.index].astype(float), expected, rtol=1e-6)
    worst = measure.worst_tokens(errors, other, tokenizer)
    assert tokens.query(place)["before"].tolist() == worst["before"].tolist()
    counted = frame.query(place + " and cloud == 'measured'")["count"].sum()
    assert counted == len(errors.error) == 32 * 63
