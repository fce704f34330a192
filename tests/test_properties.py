"""Properties that hold for all inputs: moments, folds, batches, histograms."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from linlib.linearity import BlockMoments, fit_linear_map, linearity_score, sums
from linlib.measure.errors import TokenErrors, error_counts
from linlib.measure.windows import contiguous_batches, document_folds

repeatable = settings(derandomize=True, deadline=None, max_examples=60, database=None)
seeds = st.integers(0, 2**31 - 1)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@st.composite
def blocks(draw, dtype=torch.float64, offset=30.0):
    """Input and contribution of a block, (n, d) each, with means and scales of all sizes."""
    d = draw(st.integers(1, 6))
    n = draw(st.integers(4 * d + 8, 80))
    generator = torch.Generator().manual_seed(draw(seeds))
    scale = 10.0 ** draw(st.integers(-2, 2))
    x = scale * (normal(generator, n, d) + offset * normal(generator, d))
    delta = scale * draw(st.sampled_from([0.05, 1.0, 5.0])) * normal(generator, n, d)
    delta += x @ normal(generator, d, d) * draw(st.sampled_from([0.0, 0.2, 2.0]))
    return x.to(dtype), delta.to(dtype)


@st.composite
def cuts(draw, n):
    """Sizes of adjacent pieces of n tokens, some of which may be empty."""
    borders = sorted(draw(st.lists(st.integers(0, n), max_size=5)))
    return [stop - start for start, stop in zip([0, *borders], [*borders, n], strict=True)]


def accumulate(x, delta, n_folds=1, sizes=None, folds=None):
    moments = BlockMoments(x.shape[1], n_folds)
    sizes = sizes or [len(x)]
    folds = folds or [0] * len(sizes)
    for a, b, fold in zip(x.split(sizes), delta.split(sizes), folds, strict=True):
        moments.update(a, b, fold)
    return moments


def scores_of(moments):
    return [
        moments.linearity_score(),
        moments.linearity_no_residual(),
        moments.identity_score(),
    ]


def direct_scores(x, delta):
    """The same scores of all tokens at once, in float64."""
    x, delta = x.double(), delta.double()
    y = x + delta
    identity = 1 - (delta - delta.mean(0)).square().sum() / (y - y.mean(0)).square().sum()
    return [linearity_score(x, y), linearity_score(x, delta), identity.item()]


def rotation(seed, d):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(normal(generator, d, d))[0]


# ---------------------------------------------------------------- moments


@repeatable
@given(st.data(), st.sampled_from([torch.float32, torch.float64]))
def test_any_split_into_batches_folds_and_chunks_gives_the_scores_of_one_computation(data, dtype):
    x, delta = data.draw(blocks(dtype, offset=3.0))
    sizes = data.draw(cuts(len(x)))
    n_folds = data.draw(st.integers(1, 3))
    one_fold_each = st.lists(
        st.integers(0, n_folds - 1), min_size=len(sizes), max_size=len(sizes)
    )  # fmt: skip
    folds = data.draw(one_fold_each)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "CHUNK", data.draw(st.integers(1, 40)))
        patch.setattr(sums, "CHUNKS_SUMMED", data.draw(st.integers(1, 4)))
        moments = accumulate(x, delta, n_folds, sizes, folds)
    assert moments.n_tokens == len(x)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    assert scores_of(moments) == pytest.approx(direct_scores(x, delta), abs=tolerance)


@repeatable
@given(st.data())
def test_windows_and_flat_tokens_are_the_same_tokens(data):
    x, delta = data.draw(blocks())
    length = data.draw(st.sampled_from([k for k in range(1, len(x) + 1) if len(x) % k == 0]))
    windows = [states.view(-1, length, x.shape[1]) for states in (x, delta)]  # (windows, length, d)
    moments = BlockMoments(x.shape[1])
    moments.update(*windows)
    assert scores_of(moments) == pytest.approx(scores_of(accumulate(x, delta)), abs=1e-10)


@repeatable
@given(st.data())
def test_moments_of_parts_add_in_any_order(data):
    x, delta = data.draw(blocks())
    sizes = data.draw(cuts(len(x)))
    parts = [
        accumulate(a, b, n_folds=2, folds=[number % 2])
        for number, (a, b) in enumerate(zip(x.split(sizes), delta.split(sizes), strict=True))
    ]
    merged = BlockMoments(x.shape[1], 2)
    for part in data.draw(st.permutations(parts)):
        merged = merged + part
    assert scores_of(merged) == pytest.approx(direct_scores(x, delta), abs=1e-9)
    fitted, expected = merged.delta_map(), fit_linear_map(x, delta)
    torch.testing.assert_close(fitted(x), expected(x), atol=1e-6, rtol=1e-6)


@repeatable
@given(blocks(), blocks())
def test_what_was_added_can_be_subtracted_again(first, second):
    d = min(first[0].shape[1], second[0].shape[1])
    a, b = (accumulate(x[:, :d], delta[:, :d]) for x, delta in (first, second))
    back = (a + b) - b
    assert back.n_tokens == a.n_tokens
    # Digits are lost where b is much larger than a: errors are relative to the sums of both.
    largest = (a + b)._sums.about(back._sums.shift)
    for field in fields(sums.Sums):
        if field.name == "precise":
            continue
        mine, theirs = (getattr(one, field.name) for one in (back._sums, a._sums))
        scale = getattr(largest, field.name).abs().max().item()
        torch.testing.assert_close(mine, theirs, atol=1e-9 * scale + 1e-12, rtol=0)
    assert (b + a).n_tokens == (a + b).n_tokens == a.n_tokens + b.n_tokens


@repeatable
@given(blocks(), seeds)
def test_sums_about_another_shift_are_those_of_shifted_states(block, seed):
    x, delta = block
    moved = accumulate(x, delta)._sums.about(
        normal(torch.Generator().manual_seed(seed), 2 * x.shape[1])
    )
    z = torch.cat([x, delta], dim=1) - moved.shift  # (n, 2 d)
    d = x.shape[1]
    size = z.square().sum().item() + len(x) * accumulate(x, delta)._sums.shift.square().sum().item()
    expected = {
        "first": z.sum(0, keepdim=True),
        "second": (z[:, :d].T @ z)[None],
        "delta_energy": z[:, d:].square().sum()[None],
    }
    for name, value in expected.items():
        torch.testing.assert_close(getattr(moved, name), value, atol=1e-10 * size, rtol=0)


@repeatable
@given(blocks(), seeds)
def test_scores_do_not_depend_on_shifts_rotations_and_scale(block, seed):
    x, delta = block
    generator = torch.Generator().manual_seed(seed)
    turn = rotation(seed, x.shape[1])
    shift, other_shift = 10 * normal(generator, 2, x.shape[1])
    moved = accumulate(3 * x @ turn + shift, 3 * delta @ turn + other_shift)
    assert scores_of(moved) == pytest.approx(scores_of(accumulate(x, delta)), abs=1e-8)


@repeatable
@given(blocks(), seeds)
def test_the_score_without_residual_lets_input_and_contribution_turn_apart(block, seed):
    x, delta = block
    moved = accumulate(
        x @ rotation(seed, x.shape[1]) + 1, 2 * delta @ rotation(seed + 1, x.shape[1]) - 7
    )
    expected = accumulate(x, delta).linearity_no_residual()
    assert moved.linearity_no_residual() == pytest.approx(expected, abs=1e-8)


@repeatable
@given(blocks(torch.float32))
def test_richer_maps_never_score_lower(block):
    moments = accumulate(*block)
    ladder = [
        moments.identity_score(),
        moments.scaled_identity_score(),
        moments.orthogonal_score(),
        moments.linearity_score(),
    ]
    assert all(low <= high + 1e-6 for low, high in zip(ladder, ladder[1:], strict=False))
    assert moments.linearity_score() <= 1
    assert 0 <= moments.linearity_no_residual() <= 1
    assert moments.linearity_score() >= moments.identity_score()


@repeatable
@given(blocks(), st.permutations(range(4)))
def test_held_out_scores_do_not_depend_on_the_names_of_the_folds(block, names):
    x, delta = block
    sizes = [len(part) for part in x.tensor_split(4)]
    plain, renamed = (accumulate(x, delta, 4, sizes, folds) for folds in (list(range(4)), names))
    assert renamed.heldout_score() == pytest.approx(plain.heldout_score(), abs=1e-7)
    for fold, name in enumerate(names):
        error, *totals = renamed.heldout_terms()[name]
        expected_error, *expected = plain.heldout_terms()[fold]
        assert error == pytest.approx(expected_error, abs=1e-7 * expected[0])
        assert totals == pytest.approx(expected, rel=1e-7)


@repeatable
@given(blocks(torch.float32), st.integers(1, 3))
def test_moments_are_the_same_after_a_file(tmp_path_factory, block, n_folds):
    moments = accumulate(*block, n_folds=n_folds, folds=[n_folds - 1])
    path = tmp_path_factory.mktemp("moments") / "block.safetensors"
    moments.save(path)
    loaded = BlockMoments.load(path)
    assert scores_of(loaded) == scores_of(moments) and loaded.n_folds == n_folds


@repeatable
@given(blocks(), seeds, st.integers(1, 3))
def test_a_weight_of_two_counts_a_token_twice_and_one_of_zero_never(block, seed, n_folds):
    x, delta = block
    times = torch.randint(0, 3, (len(x),), generator=torch.Generator().manual_seed(seed))
    times[: 2 * x.shape[1] + 2] = 1  # enough tokens are left
    weighted = BlockMoments(x.shape[1], n_folds)
    weighted.update(x, delta, n_folds - 1, times)
    repeated = accumulate(x.repeat_interleave(times, 0), delta.repeat_interleave(times, 0))
    assert scores_of(weighted) == pytest.approx(scores_of(repeated), abs=1e-8)
    assert weighted.n_tokens == (times > 0).sum()


# ---------------------------------------------------------------- windows


@st.composite
def documents(draw):
    """The document of each token of some windows, which documents cross as they like."""
    n_windows, length = draw(st.integers(1, 20)), draw(st.integers(1, 8))
    sizes = draw(st.lists(st.integers(1, 30), min_size=1, max_size=40))
    number = np.repeat(np.arange(len(sizes)), sizes)
    number = np.resize(number, n_windows * length)  # what is cut off, or repeated, is sorted again
    return torch.from_numpy(np.sort(number)).view(n_windows, length)


@repeatable
@given(documents(), st.integers(1, 6))
def test_folds_hold_whole_documents_in_order(documents, n_folds):
    n_documents = len(documents.unique())
    if n_documents < n_folds:
        numbers = rf"\({n_documents}\) than folds \({n_folds}\)"
        with pytest.raises(ValueError, match=numbers):
            document_folds(documents, n_folds)
        return
    folds = document_folds(documents, n_folds)
    assert folds.shape == documents.shape and 0 <= folds.min() and folds.max() < n_folds
    assert (folds.flatten().diff() >= 0).all()
    longest = documents.unique(return_counts=True)[1].max().item()
    for document in documents.unique():
        assert len(folds[documents == document].unique()) == 1
    sizes = folds.flatten().bincount(minlength=n_folds)
    assert (sizes - documents.numel() / n_folds).abs().max() <= longest


@repeatable
@given(st.integers(0, 60), st.integers(1, 20))
def test_batches_cover_each_window_once(n_windows, batch_size):
    batches = list(contiguous_batches(n_windows, batch_size))
    assert [i for batch in batches for i in range(batch.start, batch.stop)] == [*range(n_windows)]
    assert all(0 < batch.stop - batch.start <= batch_size for batch in batches)


@repeatable
@given(seeds, st.integers(2, 300), st.sampled_from([0.05, 0.1, 0.5]))
def test_a_histogram_counts_each_token_once_in_its_bin(seed, n_tokens, bin_width):
    rng = np.random.default_rng(seed)
    error, gaussian = np.abs(rng.standard_cauchy((2, n_tokens)))
    counts = error_counts(TokenErrors(error, gaussian, np.zeros((n_tokens, 2))), bin_width)
    assert (counts["count"] > 0).all()
    assert (counts.groupby("cloud")["count"].sum() == n_tokens).all()
    rms = np.sqrt((error**2).mean())
    for cloud, values in (("measured", error), ("gaussian", gaussian)):
        for row in counts[counts["cloud"] == cloud].itertuples():
            # Within rounding of the borders, which may put a token into the neighbouring bin.
            inside = (values / rms > row.error_low - 1e-5) & (values / rms < row.error_high + 1e-5)
            assert inside.sum() >= row.count
            assert row.error_high - row.error_low == pytest.approx(bin_width)
