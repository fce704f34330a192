"""Measurements on tiny random models, against plain computations on the collected states."""

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from test_models import tiny_model
from transformers import AutoConfig, AutoModelForCausalLM

from linlib.linearity import linearity_score
from linlib.measure import (
    StreamMoments,
    TokenErrors,
    choose_layers,
    collect_moments,
    error_counts,
    error_statistics,
    layer_passes,
    linearity_profile,
    losses,
    perplexity,
    profile_of_moments,
    stream_norms,
    tail_statistics,
    token_errors,
    window_losses,
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


def test_profile_has_the_promised_columns(model, windows):
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


def test_layers_are_chosen_at_equal_distances(model):
    assert choose_layers(model) == [1, 2, 3]
    assert choose_layers(model, [3, 1, 3]) == [1, 3]
    assert choose_layers(model, at_most=2) == [1, 3]
    assert choose_layers(model, at_most=1) == [1]
    assert choose_layers(model, at_most=8) == [1, 2, 3]


def test_moments_survive_a_folder(tmp_path, model, windows):
    moments = collect_moments(model, windows)
    moments.save(tmp_path)
    loaded = StreamMoments.load(tmp_path)
    assert list(loaded.rest) == [1, 2, 3] and loaded.n_blocks == 3
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


def test_a_batch_may_hold_no_token_of_some_group(model, windows):
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


def test_a_token_without_a_state_does_not_hide_the_others(windows):
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[windows[0, 0]] = 0  # as the row of a padding token is
    first = stream_norms(model, windows).query("layer == 1")
    assert first[["q25", "median", "q75"]].notna().all(axis=None)


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


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "bloom", "gemma2", "gemma3_text"])
def test_window_losses_are_those_of_transformers(name, windows):
    """Gemma 2 caps its logits after the head."""
    model = tiny_model(name)
    mask = torch.ones_like(windows)
    mask[3, 9:] = 0
    mask[7, 2:] = 0
    result = window_losses(model, windows, mask, batch_size=7)
    labels = windows.masked_fill(mask == 0, -100)
    for window in range(len(windows)):
        kept = slice(0, int(mask[window].sum()))
        one = windows[window : window + 1, kept]
        with torch.no_grad():
            expected = model(input_ids=one, labels=labels[window : window + 1, kept]).loss
        assert result[window].item() == pytest.approx(expected.item(), rel=1e-5)
    assert result.dtype == torch.float64


def logits_of_passes(model, *arguments, **options):
    """The losses of windows, and the number of logits in each forward pass."""
    sizes = []
    hook = model.register_forward_hook(lambda *call: sizes.append(call[-1].logits.numel()))
    try:
        return window_losses(model, *arguments, **options), sizes
    finally:
        hook.remove()


def test_a_large_vocabulary_goes_through_the_model_in_smaller_batches(model, windows, monkeypatch):
    whole, sizes = logits_of_passes(model, windows)
    per_window = 16 * 64
    assert sizes == [24 * per_window]
    monkeypatch.setattr(losses, "MOST_LOGITS", 5 * per_window + 1)
    parts, sizes = logits_of_passes(model, windows)
    assert sizes == [5 * per_window] * 4 + [4 * per_window]
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-6)
    monkeypatch.setattr(losses, "MOST_LOGITS", per_window - 1)
    _, sizes = logits_of_passes(model, windows)
    assert sizes == [per_window] * 24  # one window at least
    monkeypatch.setattr(losses, "MOST_LOGITS", 10**9)
    _, sizes = logits_of_passes(model, windows, batch_size=10)
    assert sizes == [10 * per_window, 10 * per_window, 4 * per_window]


def test_the_logits_of_a_vocabulary_as_large_as_gemmas_stay_below_256_mib():
    size = {"n_embd": 4, "n_layer": 1, "n_head": 1, "vocab_size": 262_144, "n_positions": 64}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **size)).eval()
    windows = torch.arange(10 * 64).view(10, 64)
    result, sizes = logits_of_passes(model, windows)
    assert 4 * max(sizes) == 2**28 and len(sizes) == 3
    assert result.tolist() == pytest.approx([np.log(262_144)] * 10, abs=0.05)


def test_perplexity_is_the_exponential_of_the_mean_loss_and_of_its_interval(model, windows):
    each = window_losses(model, windows).numpy()
    half = 2.0687 * each.std(ddof=1) / np.sqrt(24)  # t, 23 degrees of freedom, 97.5%
    expected = {
        "perplexity": np.exp(each.mean()),
        "low": np.exp(each.mean() - half),
        "high": np.exp(each.mean() + half),
        "loss": each.mean(),
    }
    assert perplexity(model, windows, batch_size=5) == pytest.approx(expected, rel=1e-4)
    single = perplexity(model, windows[:1])
    assert single["loss"] == pytest.approx(each[0], rel=1e-5)
    assert np.isnan(single["low"]) and np.isnan(single["high"])


# ---------------------------------------------------------------- bad input


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
        (lambda ids, mask: (ids[:2], mask[:2]), "2 windows cannot fill 4 folds"),
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


def test_a_loss_needs_a_window_of_two_tokens(model, windows):
    with pytest.raises(ValueError, match="there are no windows, so there is no loss"):
        window_losses(model, windows[:0])
    mask = torch.ones_like(windows)
    mask[5, 1:] = 0
    with pytest.raises(ValueError, match="window 5 holds one token"):
        window_losses(model, windows, mask)
    with pytest.raises(ValueError, match="window 0 holds one token"):
        perplexity(model, windows[:, :1])


def test_layers_and_groups_are_checked(model, windows):
    with pytest.raises(IndexError, match=r"layer 4 does not exist: this model has 1 \.\. 3"):
        linearity_profile(model, windows, layers=[4])
    with pytest.raises(ValueError, match="unknown token group 'last'"):
        collect_moments(model, windows).group(1, "last")
