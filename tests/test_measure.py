"""Measurements on tiny random models, against plain computations on the collected states."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_models import tiny_model

from linlib.linearity import linearity_score
from linlib.measure import (
    StreamMoments,
    collect_moments,
    linearity_profile,
    stream_norms,
    tail_statistics,
    token_errors,
    worst_tokens,
)
from linlib.models import final_states, load_tokenizer, residual_stream


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


def test_profile_equals_the_scores_of_the_collected_states(model, windows):
    frame = linearity_profile(model, windows, batch_size=5)
    stream = stream_of(model, windows)
    for layer in (1, 2, 3):
        x, y = stream[layer - 1], stream[layer]
        for tokens, start in (("all", 0), ("no first position", 1)):
            a, b = x[:, start:].flatten(0, 1), y[:, start:].flatten(0, 1)
            row = at(frame, layer, tokens)
            assert row["linearity_score"] == pytest.approx(linearity_score(a, b), abs=1e-6)
            assert row["linearity_no_residual"] == pytest.approx(
                linearity_score(a, b - a), abs=1e-6
            )
            assert row["n_tokens"] == len(a)


def test_profile_has_the_columns_that_frames_promise(model, windows):
    frame = linearity_profile(model, windows)
    promised = {
        "layer", "depth", "linearity_score", "linearity_no_residual", "null_score",
        "heldout_score", "heldout_no_residual", "identity_score", "tokens", "n_tokens", "d_model",
    }  # fmt: skip
    assert promised <= set(frame.columns)
    assert frame["depth"].max() == 1 and len(frame) == 6
    assert (frame["heldout_no_residual_low"] <= frame["heldout_no_residual_high"]).all()
    ladder = ["identity_score", "scaled_identity_score", "orthogonal_score", "linearity_score"]
    assert (frame[ladder].diff(axis=1).iloc[:, 1:] >= -1e-9).all(axis=None)
    assert (frame["heldout_score"] < frame["linearity_score"]).all()


def test_profile_does_not_depend_on_batch_size_and_repeats_exactly(model, windows):
    first = linearity_profile(model, windows, batch_size=24)
    pd.testing.assert_frame_equal(first, linearity_profile(model, windows, batch_size=24))
    pd.testing.assert_frame_equal(first, linearity_profile(model, windows, batch_size=1), rtol=1e-5)


def test_padding_never_enters_and_the_first_token_is_the_first_real_one(model, windows):
    plain = linearity_profile(model, windows, n_folds=2)
    padding = torch.zeros(24, 4, dtype=torch.long)
    right = torch.cat([windows, padding], dim=1)
    mask = torch.cat([torch.ones_like(windows), padding], dim=1)
    pd.testing.assert_frame_equal(
        plain, linearity_profile(model, right, mask, n_folds=2), rtol=1e-4
    )
    left = torch.cat([padding, windows], dim=1)  # rotary positions are relative
    shifted = linearity_profile(model, left, mask.flip(1), n_folds=2)
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


def test_moments_survive_a_folder(tmp_path, model, windows):
    moments = collect_moments(model, windows)
    moments.save(tmp_path)
    loaded = StreamMoments.load(tmp_path)
    assert loaded.layers == [1, 2, 3] and loaded.n_blocks == 3
    assert loaded.group(2).heldout_score() == moments.group(2).heldout_score()


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


def test_a_batch_without_a_token_of_some_group_is_no_trouble(model, windows):
    mask = torch.ones_like(windows)
    mask[0, 1:] = 0  # the first window holds one token, so nothing but a first position
    frame = linearity_profile(model, windows, mask, batch_size=1, n_folds=2)
    assert at(frame, 1, "no first position")["n_tokens"] == 23 * 15


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


def test_norms_match_a_plain_computation(model, windows):
    frame = stream_norms(model, windows, batch_size=7)
    x, y = stream_of(model, windows)[1:3]
    expected = {
        "stream_norm": x.norm(dim=-1),
        "delta_norm": (y - x).norm(dim=-1),
        "ratio": (y - x).norm(dim=-1) / x.norm(dim=-1),
        "cosine": torch.cosine_similarity(x, y, dim=-1),
    }
    for quantity, values in expected.items():
        row = at(frame[frame["quantity"] == quantity], 2)
        assert row["median"] == pytest.approx(np.median(values), rel=1e-4)
        assert row["q25"] <= row["median"] <= row["q75"]
        inside = at(frame[frame["quantity"] == quantity], 2, "no first position")
        assert inside["median"] == pytest.approx(np.median(values[:, 1:]), rel=1e-4)
        assert inside["n_tokens"] == 24 * 15


def test_token_errors_are_those_of_the_map(model, windows):
    linear_map = collect_moments(model, windows).group(2).linear_map()
    other = windows.flip(1)
    errors = token_errors(model, {2: linear_map}, other, batch_size=5)[2]
    x, y = stream_of(model, other)[1:3]
    expected = (linear_map(x) - y).norm(dim=-1).flatten()
    np.testing.assert_allclose(errors.error, expected, rtol=1e-3)
    assert errors.place[17].tolist() == [1, 1]
    rest = token_errors(model, {2: linear_map}, other, skip_first=True)[2]
    inside = errors.place[:, 1] > 0
    np.testing.assert_array_equal(rest.place, errors.place[inside])
    np.testing.assert_allclose(rest.error, errors.error[inside], rtol=1e-6)


def test_the_gaussian_null_has_the_spread_of_the_residuals():
    model = tiny_model("gpt2")
    windows = torch.randint(3, 64, (200, 16), generator=torch.Generator().manual_seed(6))
    maps = {2: collect_moments(model, windows).group(2).linear_map()}
    errors, again = (token_errors(model, maps, windows, skip_first=True)[2] for _ in range(2))
    np.testing.assert_array_equal(errors.gaussian, again.gaussian)
    rms = [np.sqrt((part**2).mean()) for part in (errors.error, errors.gaussian)]
    assert rms[1] == pytest.approx(rms[0], rel=0.05)


def test_tail_statistics_tell_a_tail_from_none():
    rng = np.random.default_rng(0)
    plain = np.linalg.norm(rng.normal(size=(20_000, 64)), axis=1)
    spiked = plain * np.where(rng.random(20_000) < 0.01, 10, 1)
    none, tail = tail_statistics(plain), tail_statistics(spiked)
    assert none["worst_share"] < 0.02 and abs(none["excess_kurtosis"]) < 0.2
    assert tail["worst_share"] == pytest.approx(0.5, abs=0.06) and tail["excess_kurtosis"] > 20
    with pytest.raises(ValueError, match="50 tokens are too few for a tail"):
        tail_statistics(plain[:50])


def test_worst_tokens_are_named_with_what_stands_before(model, windows, tokenizer_folder):
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


def test_too_few_tokens_name_the_layer(model):
    windows = torch.randint(3, 64, (4, 8))  # 32 tokens at d_model 32
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
        (lambda ids, mask: (ids[0], None), r"must be \(n_windows, length\)"),
        (lambda ids, mask: (ids, mask[:, 1:]), r"attention_mask \(24, 15\) must have the shape"),
        (lambda ids, mask: (ids, mask * 0), "window 0 holds no token"),
        (lambda ids, mask: (ids + 64, mask), "not all in the model's vocabulary of 64"),
        (lambda ids, mask: (ids.repeat(1, 5), None), "windows of 80 tokens .* at most 64"),
        (lambda ids, mask: (ids[:2], mask[:2]), "2 windows cannot fill 4 folds"),
    ],
)
def test_windows_are_checked(model, windows, change, message):
    with pytest.raises(ValueError, match=message):
        linearity_profile(model, *change(windows, torch.ones_like(windows)))


def test_layers_and_groups_are_checked(model, windows):
    with pytest.raises(IndexError, match=r"layer 4 does not exist: this model has 1 \.\. 3"):
        linearity_profile(model, windows, layers=[4])
    with pytest.raises(ValueError, match="unknown token group 'last'"):
        collect_moments(model, windows).group(1, "last")
