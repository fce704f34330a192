"""Measurements on tiny random models, against plain computations on the collected states."""

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from test_models import tiny_model

from linlib.linearity import BlockMoments, fit_linear_map, linearity_score
from linlib.measure import (
    StreamMoments,
    TokenErrors,
    choose_layers,
    collect_moments,
    error_counts,
    error_statistics,
    layer_passes,
    linearity_profile,
    perplexity,
    profile_of_moments,
    stream_norms,
    tail_statistics,
    token_errors,
    window_losses,
    worst_tokens,
)
from linlib.measure.errors import worst_share_error
from linlib.models import final_states, load_tokenizer, residual_stream
from linlib.stats import median_interval, score_interval


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama")


@pytest.fixture(scope="module")
def windows():
    return torch.randint(3, 64, (24, 16), generator=torch.Generator().manual_seed(5))


def stream_of(model, windows, mask=None):
    with torch.no_grad():
        return residual_stream(model, windows, mask)


def at(frame, layer, tokens="all"):
    return frame.query("layer == @layer and tokens == @tokens").iloc[0]


@pytest.fixture(scope="module")
def model_with_sinks():
    """A model in which the token 7 has a massive state, from the embedding on."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[7] *= 300
    return model


def usual_tokens(x, y, first):
    """Tokens whose norms are at most 10 times the medians of the `first` windows, by the rule."""
    x, y = x.norm(dim=-1), y.norm(dim=-1)
    return (x <= 10 * x[:first].median()) & (y <= 10 * y[:first].median())


def test_profile_equals_the_scores_of_the_collected_states(model_with_sinks, windows):
    frame = linearity_profile(model_with_sinks, windows, batch_size=5)
    stream = stream_of(model_with_sinks, windows)
    n_sinks = (windows == 7).sum().item()
    assert n_sinks > 2
    for layer in (1, 2, 3):
        x, y = stream[layer - 1], stream[layer]
        usual = usual_tokens(x, y, first=5)
        assert (~usual).sum() == n_sinks
        for tokens, members in (("all", torch.ones_like(usual)), ("no massive", usual)):
            a, b = x[members], y[members]
            row = at(frame, layer, tokens)
            assert row["linearity_score"] == pytest.approx(linearity_score(a, b), abs=1e-6)
            assert row["linearity_no_residual"] == pytest.approx(
                linearity_score(a, b - a), abs=1e-6
            )
            assert row["n_tokens"] == len(a) and row["n_massive"] == n_sinks
            squared = (b - y[usual].mean(0)).square().sum(1)
            expected = (squared.sum() ** 2 / squared.square().sum()).item()
            assert row["n_eff"] == pytest.approx(expected, rel=0.1)
            assert row["dominated"] == (tokens == "all") and (row["n_eff"] < 32) == (
                tokens == "all"
            )


def test_energy_weights_are_those_of_weighted_least_squares(model_with_sinks, windows):
    frame = linearity_profile(model_with_sinks, windows, batch_size=5, weights="energy", n_folds=1)
    x, y = (s.flatten(0, 1).double() for s in stream_of(model_with_sinks, windows)[1:3])
    weight = 1 / (x.square().sum(1) + (y - x).square().sum(1))
    x, y = (part - weight @ part / weight.sum() for part in (x, y))
    x, y = (weight.sqrt()[:, None] * part for part in (x, y))
    error = (x @ torch.linalg.lstsq(x, y).solution - y).square().sum()
    expected = 1 - error / y.square().sum()
    assert at(frame, 2)["linearity_score"] == pytest.approx(expected.item(), abs=1e-6)
    assert at(frame, 2)["n_eff"] > 5 * at(linearity_profile(model_with_sinks, windows), 2)["n_eff"]


def test_folds_of_whole_documents_give_their_held_out_score(model, windows):
    documents = torch.arange(windows.numel()).view(windows.shape) // 50  # they cross windows
    frame = linearity_profile(model, windows, documents=documents, n_folds=3, batch_size=5)
    stream = [states.flatten(0, 1).double() for states in stream_of(model, windows)[1:3]]
    # The middle of the 8th document, which has 34 tokens, and those of the others decide.
    fold = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])[documents.flatten()]
    errors, totals = [], []
    for k in range(3):
        (x, y), (a, b) = ([s[fold != k] for s in stream], [s[fold == k] for s in stream])
        fitted = fit_linear_map(x, y)
        errors.append((fitted(a) - b).square().sum().item())
        totals.append((b - y.mean(0)).square().sum().item())
    row = at(frame, 2)
    assert row["heldout_score"] == pytest.approx(1 - sum(errors) / sum(totals), abs=1e-5)
    assert [row["heldout_score_low"], row["heldout_score_high"]] == pytest.approx(
        score_interval(errors, totals)[1:], abs=1e-5
    )


def test_profile_has_the_promised_columns(model, windows):
    frame = linearity_profile(model, windows)
    promised = {
        "layer", "depth", "linearity_score", "linearity_no_residual", "null_score",
        "heldout_score", "heldout_no_residual", "identity_score", "tokens", "n_tokens", "d_model",
        "n_massive", "n_eff", "n_eff_no_residual", "dominated", "dominated_no_residual",
    }  # fmt: skip
    assert promised <= set(frame.columns) and "orthogonal_score" not in frame.columns
    frame = linearity_profile(model, windows, orthogonal=True)
    assert frame["depth"].max() == 1 and len(frame) == 6
    assert (frame["heldout_no_residual_low"] <= frame["heldout_no_residual_high"]).all()
    ladder = ["identity_score", "scaled_identity_score", "orthogonal_score", "linearity_score"]
    assert (frame[ladder].diff(axis=1).iloc[:, 1:] >= -1e-9).all(axis=None)
    assert (frame["heldout_score"] < frame["linearity_score"]).all()


def test_profile_does_not_depend_on_batch_size_and_repeats_exactly(model, windows):
    first = linearity_profile(model, windows, batch_size=24)
    pd.testing.assert_frame_equal(first, linearity_profile(model, windows, batch_size=24))
    each = linearity_profile(model, windows, batch_size=1)
    n_eff = ["n_eff", "n_eff_no_residual"]  # distances are from the mean of the first batch
    pd.testing.assert_frame_equal(first.drop(columns=n_eff), each.drop(columns=n_eff), rtol=1e-5)
    pd.testing.assert_frame_equal(first[n_eff], each[n_eff], rtol=0.2)


@pytest.mark.parametrize("weights", [None, "energy"])
def test_padding_never_enters(model_with_sinks, windows, weights):
    model, options = model_with_sinks, {"n_folds": 2, "weights": weights}
    plain = linearity_profile(model, windows, **options)
    padding = torch.zeros(24, 4, dtype=torch.long)
    right = torch.cat([windows, padding], dim=1)
    mask = torch.cat([torch.ones_like(windows), padding], dim=1)
    pd.testing.assert_frame_equal(
        plain, linearity_profile(model, right, mask, **options), rtol=1e-4
    )
    left = torch.cat([padding, windows], dim=1)  # rotary positions are relative
    shifted = linearity_profile(model, left, mask.flip(1), **options)
    pd.testing.assert_frame_equal(plain, shifted, rtol=1e-3)


def test_official_protocol_ends_after_the_final_norm(model, windows):
    frame = linearity_profile(model, windows, n_folds=1, after_final_norm=True)
    stream = stream_of(model, windows)
    last = final_states(model, stream[-1]).flatten(0, 1).detach()
    expected = linearity_score(stream[-2].flatten(0, 1), last)
    assert at(frame, 3)["linearity_score"] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(at(frame, 3)["heldout_score"])
    plain = linearity_profile(model, windows, n_folds=1)
    assert at(frame, 2)["linearity_score"] == at(plain, 2)["linearity_score"]


def test_a_subset_of_layers_scores_as_in_the_whole(model, windows):
    whole = linearity_profile(model, windows)
    part = linearity_profile(model, windows, layers=[2])
    pd.testing.assert_frame_equal(part, whole[whole["layer"] == 2].reset_index(drop=True))


def test_a_forward_pass_ends_after_the_last_layer_that_is_measured(windows):
    model, calls = tiny_model("llama"), []
    for number, block in enumerate(model.model.layers, 1):
        block.register_forward_hook(lambda *_args, number=number: calls.append(number))
    collect_moments(model, windows, layers=[2], batch_size=12)
    assert calls == [1, 2] * 2
    calls.clear()
    collect_moments(model, windows, batch_size=24)
    assert calls == [1, 2, 3]


@pytest.mark.parametrize("per_pass", [1, 2, 5, None])
def test_layers_measured_in_passes_score_as_in_one(model, windows, per_pass):
    passes = layer_passes(model, per_pass)
    assert max(map(len, passes)) <= (per_pass or 3)
    parts = [
        profile_of_moments(collect_moments(model, windows, layers=layers)) for layers in passes
    ]
    frame = pd.concat(parts).sort_values(["tokens", "layer"], ignore_index=True)
    pd.testing.assert_frame_equal(frame, linearity_profile(model, windows))
    assert layer_passes(model, 1, layers=[3, 1]) == [[1], [3]]


def test_layers_are_chosen_once_and_in_order(model):
    assert choose_layers(model) == [1, 2, 3]
    assert choose_layers(model, [3, 1, 3]) == [1, 3]


def test_moments_survive_a_folder(tmp_path, model_with_sinks, windows):
    moments = collect_moments(model_with_sinks, windows)
    moments.save(tmp_path)
    loaded = StreamMoments.load(tmp_path)
    assert loaded.layers == [1, 2, 3] and loaded.n_blocks == 3
    pd.testing.assert_frame_equal(profile_of_moments(loaded), profile_of_moments(moments))
    torch.testing.assert_close(loaded.limits[2], moments.limits[2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_stream_is_measured_with_its_own_digits_kept(windows, dtype):
    model = tiny_model("llama").to(dtype)
    frame = linearity_profile(model, windows)
    stream = [states.flatten(0, 1).double() for states in stream_of(model, windows)]
    for layer in (1, 2, 3):
        expected = linearity_score(stream[layer - 1], stream[layer] - stream[layer - 1])
        assert at(frame, layer)["linearity_no_residual"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "opt", "bloom", "gptj"])
def test_left_padding_does_not_move_positions(name, windows):
    model = tiny_model(name)
    padding = torch.zeros(24, 4, dtype=torch.long)
    left = torch.cat([padding, windows], dim=1)
    mask = torch.cat([padding, torch.ones_like(windows)], dim=1)
    plain, padded = linearity_profile(model, windows), linearity_profile(model, left, mask)
    pd.testing.assert_frame_equal(plain, padded, rtol=1e-3)


def test_a_batch_may_hold_massive_tokens_alone(model_with_sinks, windows):
    mask = torch.ones_like(windows)
    sink = (windows == 7).any(1).nonzero()[-1].item()
    mask[sink] = windows[sink] == 7  # this window holds nothing but massive tokens
    assert sink > 0
    frame = linearity_profile(model_with_sinks, windows, mask, batch_size=1, n_folds=2)
    row = at(frame, 1, "no massive")
    assert row["n_tokens"] == mask.sum() - row["n_massive"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_measurements_on_cuda_agree_with_the_cpu(windows):
    model = tiny_model("llama")
    cpu = linearity_profile(model, windows), stream_norms(model, windows)
    model = model.cuda()
    cuda = linearity_profile(model, windows.cuda()), stream_norms(model, windows.cuda())
    for ours, theirs in zip(cuda, cpu, strict=True):
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-3)
    maps = {2: collect_moments(model, windows.cuda()).group(2).linear_map()}
    assert token_errors(model, maps, windows.cuda())[2].error.shape == (24 * 16,)


def test_a_token_without_a_state_does_not_hide_the_others(windows):
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[windows[0, 0]] = 0  # as the row of a padding token is
    first = stream_norms(model, windows).query("layer == 1")
    assert first[["q25", "median", "q75"]].notna().all(axis=None)


def test_norms_match_a_plain_computation(model_with_sinks, windows):
    frame = stream_norms(model_with_sinks, windows, batch_size=7)
    x, y = stream_of(model_with_sinks, windows)[1:3]
    usual = usual_tokens(x, y, first=7)
    assert not usual.all()
    expected = {
        "stream_norm": x.norm(dim=-1),
        "delta_norm": (y - x).norm(dim=-1),
        "output_norm": y.norm(dim=-1),
        "ratio": (y - x).norm(dim=-1) / y.norm(dim=-1),
        "cosine": torch.cosine_similarity(x, y, dim=-1),
    }
    for quantity, values in expected.items():
        row = at(frame[frame["quantity"] == quantity], 2)
        assert row["median"] == pytest.approx(np.median(values), rel=1e-4)
        assert row["q25"] <= row["median"] <= row["q75"]
        inside = at(frame[frame["quantity"] == quantity], 2, "no massive")
        assert inside["median"] == pytest.approx(np.median(values[usual]), rel=1e-4)
        assert inside["n_tokens"] == usual.sum()


def test_norms_have_an_interval_of_the_median_over_documents(model, windows):
    documents = torch.arange(24)[:, None].expand(24, 16) // 3
    frame = stream_norms(model, windows, documents=documents, batch_size=7)
    x, y = stream_of(model, windows)[1:3]
    ratio = ((y - x).norm(dim=-1) / y.norm(dim=-1)).double().flatten()
    row = at(frame[frame["quantity"] == "ratio"], 2)
    expected = median_interval(ratio.numpy(), documents.flatten().numpy())
    np.testing.assert_allclose(row[["low", "high"]].astype(float), expected, rtol=1e-4)
    assert row["low"] < row["median"] < row["high"]
    norms = frame[~frame["quantity"].isin(["ratio", "cosine"])]
    assert norms[["low", "high"]].isna().all(axis=None)
    by_window = at(stream_norms(model, windows).query("quantity == 'ratio'"), 2)
    numbers = np.repeat(np.arange(24), 16)
    expected = median_interval(ratio.numpy(), numbers)
    np.testing.assert_allclose(by_window[["low", "high"]].astype(float), expected, rtol=1e-4)
    one = stream_norms(model, windows, documents=torch.zeros_like(windows))
    assert one[["low", "high"]].isna().all(axis=None)
    with pytest.raises(ValueError, match=r"documents \(24,\) must have the shape of input_ids"):
        stream_norms(model, windows, documents=torch.arange(24))


def test_a_median_interval_is_that_of_a_plain_loop_over_samples_of_clusters():
    rng = np.random.default_rng(3)
    values, clusters = rng.normal(size=60), rng.integers(5, 12, size=60)
    values[7] = np.nan
    kept, of_kept = values[~np.isnan(values)], clusters[~np.isnan(values)]
    names = np.unique(of_kept)
    drawn = np.random.default_rng(0).integers(len(names), size=(200, len(names)))
    members = [kept[of_kept == name] for name in names]
    medians = [
        np.quantile(np.concatenate([members[i] for i in sample]), 0.5, method="inverted_cdf")
        for sample in drawn
    ]
    expected = np.quantile(medians, [0.025, 0.975])
    np.testing.assert_array_equal(median_interval(values, clusters, n_resamples=200), expected)
    assert np.isnan(median_interval(values, np.zeros(60))).all()
    with pytest.raises(ValueError, match=r"values \(60,\) and clusters \(3,\) must be two lists"):
        median_interval(values, [1, 2, 3])


def test_a_median_interval_has_its_width_in_closed_form_and_is_wider_for_clusters():
    values = np.arange(2001.0)
    low, high = median_interval(values, values)
    half = 1.96 * np.sqrt(2001) / 2  # of the ranks, which are binomial
    assert (low, high) == pytest.approx((1000 - half, 1000 + half), abs=0.15 * half)
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(100), 50)
    values = rng.normal(size=5000) + rng.normal(size=100)[clusters]
    shuffled = np.ptp(median_interval(values, rng.permutation(clusters)))
    together = np.ptp(median_interval(values, clusters))
    assert together > 3 * shuffled
    # The share of a cluster below the median is uniform, with variance 1/12, and binomial noise of
    # variance (1/6) / 50; the density of all values at their median is that of N(0, 2).
    error = np.sqrt((1 / 12 + 1 / 300) / 100) * np.sqrt(4 * np.pi)
    assert together == pytest.approx(2 * 1.96 * error, rel=0.25)


def test_token_errors_are_those_of_the_map(model, windows):
    linear_map = collect_moments(model, windows).group(2).linear_map()
    other = windows.flip(1)
    errors = token_errors(model, {2: linear_map}, other, batch_size=5)[2]
    x, y = stream_of(model, other)[1:3]
    expected = (linear_map(x) - y).norm(dim=-1).flatten()
    np.testing.assert_allclose(errors.error, expected, rtol=1e-3)
    assert errors.place[17].tolist() == [1, 1]
    norms = x.norm(dim=-1), y.norm(dim=-1)
    limits = torch.tensor([norms[0].median(), norms[1].max() + 1])
    rest = token_errors(model, {2: linear_map}, other, limits={2: limits})[2]
    inside = (norms[0] <= limits[0]).flatten().numpy()
    assert 0 < inside.sum() < len(inside)
    np.testing.assert_array_equal(rest.place, errors.place[inside])
    np.testing.assert_allclose(rest.error, errors.error[inside], rtol=1e-6)


def test_the_gaussian_null_has_the_spread_of_the_residuals():
    model = tiny_model("gpt2")
    windows = torch.randint(3, 64, (200, 16), generator=torch.Generator().manual_seed(6))
    maps = {2: collect_moments(model, windows).group(2).linear_map()}
    errors, again = (token_errors(model, maps, windows)[2] for _ in range(2))
    np.testing.assert_array_equal(errors.gaussian, again.gaussian)
    rms = [np.sqrt((part**2).mean()) for part in (errors.error, errors.gaussian)]
    assert rms[1] == pytest.approx(rms[0], rel=0.05)


def test_errors_are_counted_in_bins_of_their_rms_and_empty_bins_are_left_out():
    error = np.array([1.0, 1.0, 1.0, 5.0])  # rms sqrt(7) = 2.646
    gaussian = np.array([2.0, 2.0, 2.7, 2.7])
    counts = error_counts(TokenErrors(error, gaussian, np.zeros((4, 2))))
    expected = pd.DataFrame(
        {
            "cloud": ["measured", "measured", "gaussian", "gaussian"],
            "error_low": [0.3, 1.8, 0.7, 1.0],
            "error_high": [0.4, 1.9, 0.8, 1.1],
            "count": [3, 1, 2, 2],
        }
    )
    pd.testing.assert_frame_equal(counts, expected)
    wide = error_counts(TokenErrors(error, gaussian, np.zeros((4, 2))), bin_width=1.0)
    assert wide["error_low"].tolist() == [0, 1, 0, 1]


def test_tail_statistics_separate_a_tail_from_none():
    rng = np.random.default_rng(0)
    plain = np.linalg.norm(rng.normal(size=(20_000, 64)), axis=1)
    spiked = plain * np.where(rng.random(20_000) < 0.01, 10, 1)
    none, tail = tail_statistics(plain), tail_statistics(spiked)
    assert none["worst_share"] < 0.02 and abs(none["excess_kurtosis"]) < 0.2
    assert tail["worst_share"] == pytest.approx(0.5, abs=0.06) and tail["excess_kurtosis"] > 20
    with pytest.raises(ValueError, match="50 tokens are too few for a tail; give at least 100"):
        tail_statistics(plain[:50])


def test_error_statistics_stand_beside_those_of_the_null():
    rng = np.random.default_rng(0)
    errors = TokenErrors(*rng.gamma(2, size=(2, 500)), np.zeros((500, 2)))
    row = error_statistics(errors).iloc[0]
    assert row["n_tokens"] == 500
    for name, value in tail_statistics(errors.error).items():
        assert row[name] == value
    for name, value in tail_statistics(errors.gaussian).items():
        assert row[f"gaussian_{name}"] == value
    ratio = row["worst_share"] / row["gaussian_worst_share"]
    assert row["log_excess"] == pytest.approx(np.log(ratio))
    assert np.isnan(row["log_excess_error"]) and row["n_documents"] == 1  # one window


def test_the_error_of_a_tail_is_its_linearised_one_over_documents():
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(200), 100)
    error = np.abs(rng.standard_t(5, size=20_000)) * (1 + rng.random(200))[documents]
    squared = error**2
    limit = np.quantile(squared, 0.99)
    worst = np.maximum(squared - limit, 0) + 0.01 * limit  # whose mean is that of the worst 1%
    influence = worst / worst.mean() - squared / squared.mean()
    expected = np.sqrt((np.bincount(documents, influence) ** 2).sum()) / 20_000
    found = worst_share_error(error, documents)
    assert found == pytest.approx(expected, rel=0.1)
    # Document by document, one of them of another size.
    few, numbers = error[:700], np.repeat([4, 2, 9], [100, 500, 100])
    logs = []
    for number in (2, 4, 9):
        rest = few[numbers != number]
        logs.append(np.log(tail_statistics(rest)["worst_share"]))
    expected = np.sqrt(2 / 3 * ((np.array(logs) - np.mean(logs)) ** 2).sum())
    assert worst_share_error(few, numbers) == pytest.approx(expected)
    assert np.isnan(worst_share_error(error, np.zeros(20_000)))


def test_errors_know_the_document_of_each_token(model, windows):
    maps = {2: collect_moments(model, windows).group(2).linear_map()}
    documents = torch.arange(24 * 16).view(24, 16) // 40
    mask = torch.ones_like(windows)
    mask[:, 12:] = 0
    errors = token_errors(model, maps, windows, mask, documents=documents, batch_size=5)[2]
    np.testing.assert_array_equal(errors.documents, documents[:, :12].flatten())
    row = error_statistics(errors).iloc[0]
    assert row["log_excess_error"] == worst_share_error(errors.error, errors.documents)
    assert row["n_documents"] == len(np.unique(errors.documents))
    alone = error_statistics(token_errors(model, maps, windows, mask)[2]).iloc[0]
    by_window = worst_share_error(errors.error, np.repeat(np.arange(24), 12))
    assert alone["log_excess_error"] == pytest.approx(by_window, rel=1e-6)
    assert alone["n_documents"] == 24
    with pytest.raises(ValueError, match=r"documents \(24,\) must have the shape of input_ids"):
        token_errors(model, maps, windows, documents=torch.arange(24))


def test_worst_tokens_are_named_with_the_text_before_them(model, windows, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    linear_map = collect_moments(model, windows).group(1).linear_map()
    errors = token_errors(model, {1: linear_map}, windows)[1]
    frame = worst_tokens(errors, windows, tokenizer, n=3)
    worst = errors.error.reshape(24, 16)
    first = frame.iloc[0]
    assert worst[first["window"], first["position"]] == worst.max()
    assert first["token"] == repr(tokenizer.decode(windows[first["window"], first["position"]]))
    assert frame["error"].is_monotonic_decreasing


# ---------------------------------------------------------------- bad input


def test_a_group_without_tokens_or_with_too_few_names_layer_and_group(windows):
    model = tiny_model("llama")
    with torch.no_grad():  # all but the first window are massive from the embedding on
        model.model.embed_tokens.weight[:, :] = torch.randn(64, 32)
        model.model.embed_tokens.weight[8:] *= 1000
    small = torch.randint(3, 8, (1, 16), generator=torch.Generator().manual_seed(1))
    large = torch.randint(8, 64, (24, 16), generator=torch.Generator().manual_seed(2))
    text = torch.cat([small, large])
    message = "layer 1, tokens 'no massive': 16 tokens cannot test the linearity of a 32"
    with pytest.raises(ValueError, match=message):
        linearity_profile(model, text, batch_size=1, n_folds=1)
    moments = collect_moments(model, text, batch_size=1, n_folds=1)
    moments.usual[1] = BlockMoments(32)
    message = "layer 1: all 384 tokens are massive.*none is left.*larger batch_size"
    with pytest.raises(ValueError, match=message):
        moments.group(1, "no massive")
    with pytest.raises(ValueError, match="unknown token group 'some'"):
        moments.group(1, "some")


def test_unknown_weights_and_documents_of_another_shape_are_refused(model, windows):
    with pytest.raises(ValueError, match="unknown weights 'norm'; choose from None and 'energy'"):
        linearity_profile(model, windows, weights="norm")
    for documents, given in ((torch.arange(24), r"\(24,\)"), ([1, 2], "list")):
        with pytest.raises(ValueError, match=rf"documents must be a tensor of .*got {given}; lin"):
            linearity_profile(model, windows, documents=documents)


def test_too_few_tokens_name_the_layer(model):
    windows = torch.arange(32).view(4, 8) + 3  # 32 tokens at d_model 32
    with pytest.raises(ValueError, match="layer 1.*32 tokens cannot test the linearity of a 32"):
        linearity_profile(model, windows, n_folds=1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_states_that_are_not_finite_name_the_layer(value, windows):
    model = tiny_model("gpt2")
    model.transformer.h[1].mlp.c_proj.bias.data[3] = value
    with pytest.raises(ValueError, match="layer 2: NaN or infinite values"):
        linearity_profile(model, windows)


def test_states_without_variance_name_the_layer(windows):
    model = tiny_model("gpt2")
    model.transformer.wte.weight.data.zero_()
    model.transformer.wpe.weight.data.fill_(0.5)
    with pytest.raises(ValueError, match="layer 1.*input has zero variance"):
        linearity_profile(model, windows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids, mask: (ids[0], None), r"must be \(n_windows, seq_len\)"),
        (lambda ids, mask: (ids, mask[:, 1:]), r"attention_mask \(24, 15\) must have the shape"),
        (lambda ids, mask: (ids, mask * 0), "window 0 holds no token"),
        (lambda ids, mask: (ids + 64, mask), "not all in the model's vocabulary of 64"),
        (lambda ids, mask: (ids.repeat(1, 5), None), "windows of 80 tokens .* at most 64"),
        (lambda ids, mask: (ids[:2], mask[:2]), r"windows \(2\) than folds \(4\): give more text"),
    ],
)
def test_windows_are_checked(model, windows, change, message):
    with pytest.raises(ValueError, match=message):
        linearity_profile(model, *change(windows, torch.ones_like(windows)))


@pytest.mark.parametrize(
    ("windows_given", "named"),
    [
        ("Some text.", "str"),
        (["One text.", "Another text."], "list"),
        (Dataset.from_dict({"text": ["One text."]}), "Dataset"),
        (torch.zeros(2, 3), "torch.float32"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        linearity_profile,
        collect_moments,
        stream_norms,
        window_losses,
        perplexity,
        lambda model, windows: token_errors(model, {}, windows),
    ],
)
def test_text_in_the_place_of_windows_is_refused(model, function, windows_given, named):
    message = rf"must be a tensor of token ids, .* got {named}; .* linlib\.token_windows\("
    with pytest.raises(TypeError, match=message):
        function(model, windows_given)


def test_layers_and_groups_are_checked(model, windows):
    with pytest.raises(IndexError, match=r"layer 4 does not exist: this model has 1 \.\. 3"):
        linearity_profile(model, windows, layers=[4])
    with pytest.raises(ValueError, match="unknown token group 'last'"):
        collect_moments(model, windows).group(1, "last")
