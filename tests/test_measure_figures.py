"""Token errors, and the measurement cells of Figures 1, 3 and 9 and notebook 21.

The cells are executed on folders of random models.
"""

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
from linlib.measure.errors import block_states, massive_tokens
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
    """Execute the cells of a notebook that measure, without a plot."""
    (source,) = NOTEBOOKS.glob(f"*_{name}.py")
    marks = ("import linlib", "= linlib.load_profile", "def measure", "linlib.result")
    namespace = {"profile": "smoke", "remeasure": False}
    for cell in jupytext.read(source).cells:
        if cell.cell_type == "code" and any(mark in cell.source for mark in marks):
            code = cell.source.replace("linlib.load_profile(profile)", "settings")
            namespace["settings"] = settings
            exec(code, namespace)
    return namespace["frame"]


@pytest.fixture(params=[None, 2], ids=["one pass", "two layers per pass"])
def settings(request, smoke, tmp_path, monkeypatch):
    monkeypatch.setenv("LINLIB_ROOT", str(tmp_path))
    return replace(smoke, measure=replace(smoke.measure, layers_per_pass=request.param))


def stored_moments():
    found = (store.cache_folder() / "collect_moments").glob("*/*.safetensors")
    return {path.parent for path in found}


def open_first(settings):
    """The first model with its two halves of the windows, and the documents of the first half."""
    model, tokenizer = linlib.load(**training.models_of(settings)["gpt2"])
    windows, documents = linlib.token_windows(
        settings.corpus, tokenizer, seq_len=64, n_windows=64, return_documents=True
    )
    return model, tokenizer, windows[:32], windows[32:], documents[:32]


def test_figure_1_holds_two_protocols_of_each_model_and_figure_9_shares_its_moments(settings):
    frame = execute("fig1_linearity_profiles", settings)
    assert list(frame.columns[:5]) == ["model", "protocol", "layer", "depth", "tokens"]
    assert frame.groupby(["model", "protocol"]).size().to_dict() == {
        (name, protocol): rows
        for name in NAMES
        for protocol, rows in (("stream", 6), ("official", 3))
    }
    with pytest.raises(FileNotFoundError):  # nothing is trained, so that nothing comes first
        store.load_frame("fig1_real_decoders", "folders")
    model, tokenizer, windows, _, documents = open_first(settings)
    assert model.dtype == torch.bfloat16
    expected = measure.linearity_profile(
        model, windows, documents=documents, batch_size=16, orthogonal=True
    )
    ours = frame.query("model == 'gpt2' and protocol == 'stream'").drop(
        columns=["model", "protocol"]
    )
    pd.testing.assert_frame_equal(
        ours.reset_index(drop=True), expected, rtol=1e-6, check_dtype=False
    )
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
    model, _, windows, _, documents = open_first(settings)
    expected = measure.stream_norms(model, windows, documents=documents, batch_size=16)
    ours = frame.query("model == 'gpt2'").drop(columns="model").reset_index(drop=True)
    pd.testing.assert_frame_equal(ours, expected, rtol=1e-6)


def test_figure_9_fits_on_one_half_and_shows_errors_on_the_other(settings):
    frame = execute("fig9_error_tails", settings)
    statistics = store.load_frame("fig9_error_tails_statistics", "folders")
    tokens = store.load_frame("fig9_error_tails_tokens", "folders")
    for one in (frame, statistics, tokens):
        assert list(one.columns[:4]) == ["model", "layer", "depth", "tokens"]
        assert set(one["layer"]) == {1, 2, 3} and set(one["model"]) == set(NAMES)
    model, tokenizer, fitting, other, documents = open_first(settings)
    owners = linlib.token_windows(
        settings.corpus, tokenizer, seq_len=64, n_windows=64, return_documents=True
    )[1][32:]
    moments = measure.collect_moments(model, fitting, documents=documents, batch_size=16)
    maps = {2: moments.group(2, "no massive").linear_map()}
    options = {"limits": moments.limits, "documents": owners, "batch_size": 16}
    errors = measure.token_errors(model, maps, other, **options)[2]
    assert len(np.unique(errors.documents)) > 1
    place = "model == 'gpt2' and layer == 2 and tokens == 'no massive'"
    row, expected = statistics.query(place).iloc[0], measure.error_statistics(errors).iloc[0]
    np.testing.assert_allclose(row[expected.index].astype(float), expected, rtol=1e-6)
    worst = measure.worst_tokens(errors, other, tokenizer)
    assert tokens.query(place)["before"].tolist() == worst["before"].tolist()
    counted = frame.query(place + " and cloud == 'measured'")["count"].sum()
    assert counted == len(errors.error) <= 32 * 64


def test_notebook_21_scores_each_way_of_counting_tokens(settings):
    frame = execute("what_makes_099", settings)
    ways = ["all", "no massive", "no first position", "energy weights"]
    assert frame.groupby("model")["tokens"].unique().map(list).to_dict() == dict.fromkeys(
        NAMES, ways
    )
    model, _, windows, _, documents = open_first(settings)
    windows, documents = windows[:16], documents[:16]
    expected = measure.linearity_profile(model, windows, documents=documents, batch_size=16)
    ours = frame.query("model == 'gpt2'").set_index(["layer", "tokens"])
    scores = ["linearity_score", "heldout_score", "heldout_no_residual", "identity_score", "n_eff"]
    for (layer, tokens), row in expected.set_index(["layer", "tokens"]).iterrows():
        np.testing.assert_allclose(
            ours.loc[(layer, tokens), scores].astype(float), row[scores].astype(float), rtol=1e-4
        )
    weighted = measure.linearity_profile(
        model, windows, documents=documents, batch_size=16, weights="energy"
    ).query("tokens == 'all'")
    ours = frame.query("model == 'gpt2' and tokens == 'energy weights'")
    np.testing.assert_allclose(ours["heldout_score"], weighted["heldout_score"], rtol=1e-4)
    with torch.no_grad():
        x, y = linlib.residual_stream(model, windows)[1:3]
    inner = linlib.linearity_score(x[:, 1:].float().flatten(0, 1), y[:, 1:].float().flatten(0, 1))
    ours = frame.query("model == 'gpt2' and tokens == 'no first position' and layer == 2")
    assert ours["linearity_score"].item() == pytest.approx(inner, rel=1e-4)

    curves = store.load_frame("what_makes_099_left_out", "folders").query("model == 'gpt2'")
    whole = curves.query("left_out == 0").set_index("layer")["linearity_score"]
    everything = expected.query("tokens == 'all'").set_index("layer")["linearity_score"]
    np.testing.assert_allclose(whole, everything, rtol=1e-4)
    x, y = x.float().flatten(0, 1), y.float().flatten(0, 1)
    rest = y.norm(dim=1).argsort()[:-100]
    ours = curves.query("left_out == 100 and layer == 2")["linearity_score"].item()
    assert ours == pytest.approx(linlib.linearity_score(x[rest], y[rest]), rel=1e-4)


# ---------------------------------------------------------------- errors of tokens


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(tiny_config("gpt2")).eval()


@pytest.fixture(scope="module")
def windows():
    return torch.randint(3, 64, (48, 16), generator=torch.Generator().manual_seed(6))


def test_token_errors_are_those_of_the_map_and_massive_tokens_are_left_out(model, windows):
    linear_map = measure.collect_moments(model, windows).group(2).linear_map()
    other = windows.flip(1)
    errors = measure.token_errors(model, {2: linear_map}, other, batch_size=5)[2]
    with torch.no_grad():
        x, y = linlib.residual_stream(model, other)[1:3]
    expected = (linear_map(x.double()) - y.double()).norm(dim=-1)
    np.testing.assert_allclose(errors.error, expected.flatten(), rtol=1e-3)
    assert errors.place[17].tolist() == [1, 1]
    norms = torch.stack([x.norm(dim=-1), y.norm(dim=-1)])  # (2, n_windows, seq_len)
    limits = norms.flatten(1).quantile(0.9, dim=1)
    usual = (norms <= limits[:, None, None]).all(0)
    rest = measure.token_errors(model, {2: linear_map}, other, limits={2: limits})[2]
    assert 0 < usual.sum() < usual.numel()
    np.testing.assert_array_equal(rest.place, usual.nonzero())
    np.testing.assert_allclose(rest.error, expected[usual], rtol=1e-3)


def test_padding_has_no_error(model, windows):
    linear_map = measure.collect_moments(model, windows).group(1).linear_map()
    mask = torch.ones_like(windows)
    mask[:, 12:] = 0
    errors = measure.token_errors(model, {1: linear_map}, windows, mask)[1]
    assert len(errors.error) == 48 * 12 and errors.place[:, 1].max() == 11


def test_the_gaussian_null_has_the_spread_of_the_residuals_whatever_else_is_measured(model):
    windows = torch.randint(3, 64, (200, 16), generator=torch.Generator().manual_seed(6))
    moments = measure.collect_moments(model, windows)
    maps = {layer: moments.group(layer).linear_map() for layer in (1, 2)}
    errors = measure.token_errors(model, maps, windows)[2]
    alone = measure.token_errors(model, {2: maps[2]}, windows)[2]
    np.testing.assert_array_equal(errors.gaussian, alone.gaussian)
    rms = [np.sqrt((part**2).mean()) for part in (errors.error, errors.gaussian)]
    assert rms[1] == pytest.approx(rms[0], rel=0.05)


def test_errors_need_limits_of_each_layer_and_a_token_that_is_not_massive(model, windows):
    maps = {2: measure.collect_moments(model, windows).group(2).linear_map()}
    with pytest.raises(ValueError, match=r"layers \[2\] have maps but no limits; take both"):
        measure.token_errors(model, maps, windows, limits={1: torch.ones(2)})
    with pytest.raises(ValueError, match="layer 2: all tokens are massive by its limits"):
        measure.token_errors(model, maps, windows, limits={2: torch.zeros(2)})


@pytest.mark.parametrize("layers_per_pass", [None, 2])
def test_states_of_one_block_after_the_other(model, windows, layers_per_pass):
    with torch.no_grad():
        states = linlib.residual_stream(model, windows)
    blocks = list(block_states(model, windows, batch_size=10, layers_per_pass=layers_per_pass))
    assert [layer for layer, *_ in blocks] == [1, 2, 3]
    for layer, x, y in blocks:
        torch.testing.assert_close(x, states[layer - 1])
        torch.testing.assert_close(y, states[layer])


def test_massive_tokens_are_named_with_the_layers_between_which_they_are(tokenizer_folder):
    tokenizer = linlib.load_tokenizer(tokenizer_folder)
    windows = torch.arange(20).view(2, 10) + 60
    excess = torch.full((4, 2, 10), 0.5)
    excess[1:3, 0, 0] = torch.tensor([30.0, 20.0])
    excess[3, 1, 7], excess[0, 1, 7] = 2, 1.5
    excess[0, 1, 8] = 0.9
    frame = massive_tokens(excess, windows, tokenizer, at_least=3)
    assert frame[["window", "position"]].to_numpy().tolist() == [[0, 0], [1, 7], [1, 8]]
    assert frame["layers"].tolist() == ["2-3", "1 4", ""]
    np.testing.assert_allclose(frame["excess"], [30, 2, 0.9])
    assert frame["token"][1] == repr(tokenizer.decode(windows[1, 7]))
    assert frame["before"][1] == repr(tokenizer.decode(windows[1, 1:7]))
    assert len(massive_tokens(excess, windows, tokenizer, at_least=0)) == 2
