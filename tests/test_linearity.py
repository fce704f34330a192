"""The engine against float64 references, closed forms and identities."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from linlib.linearity import BlockMoments, FewTokens, LinearMap, fit_linear_map, linearity_score


def svd_score(x, y, rcond=1e-12):
    """Reference: share of y's variance in the column space of x, by float64 SVD."""
    x, y = x.double() - x.double().mean(0), y.double() - y.double().mean(0)
    left, values, _ = torch.linalg.svd(x, full_matrices=False)
    left = left[:, values > rcond * values[0]]
    return ((left.T @ y).square().sum() / y.square().sum()).item()


def gaussian(n, d, seed=0, dtype=torch.float32):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def block_states(n=2000, d=32, seed=0):
    """A mildly nonlinear block on anisotropic states with a large mean."""
    x = gaussian(n, d, seed) * torch.logspace(0, -1, d) + 5
    return x, 0.3 * torch.tanh(x @ gaussian(d, d, seed + 1)) + 0.1 * gaussian(n, d, seed + 2)


def adversarial_states(seed, rotated, n=16384, d=256):
    """Condition 1e4, a mean of 50, and one dimension at 3000x on every 256th token."""
    x = gaussian(n, d, seed, torch.float64) * torch.logspace(0, -4, d, dtype=torch.float64)
    if rotated:
        x = x @ torch.linalg.qr(gaussian(d, d, seed + 1, torch.float64))[0]
    x[::256, 7] += 3000 * x.std()
    x[:, 5] += 50
    weight = gaussian(d, d, seed + 2, torch.float64) / d**0.5
    noise = x.std() * gaussian(n, d, seed + 3, torch.float64)
    return x.float(), (0.05 * (x @ weight) + 0.1 * torch.tanh(x @ weight) + 0.02 * noise).float()


def moments_of(x, delta, n_folds=1, batch=300):
    moments = BlockMoments(x.shape[1], n_folds)
    for i, (a, b) in enumerate(zip(x.split(batch), delta.split(batch), strict=True)):
        moments.update(a, b, fold=i % n_folds)
    return moments


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("seed", [0, 100, 200])
def test_adversarial_activations_stay_within_1e_5_of_a_float64_svd(seed, rotated):
    x, delta = adversarial_states(seed, rotated)
    moments = moments_of(x, delta, batch=2048)
    assert moments.linearity_score() == pytest.approx(
        svd_score(x, x.double() + delta.double()), abs=1e-5
    )
    assert moments.linearity_no_residual() == pytest.approx(svd_score(x, delta), abs=1e-5)


def test_float64_states_are_accumulated_in_float64():
    x, delta = adversarial_states(0, rotated=True)
    moments = moments_of(x.double(), delta.double(), batch=2048)
    assert moments.linearity_no_residual() == pytest.approx(svd_score(x, delta), abs=1e-9)


def test_score_is_one_for_an_affine_map_and_null_for_noise():
    x, d = gaussian(4000, 40), 40
    assert linearity_score(x, x @ gaussian(d, 7, 1) - 3) == pytest.approx(1, abs=1e-9)
    noise = [linearity_score(x, gaussian(4000, d, seed)) for seed in range(5, 10)]
    expected = moments_of(x, x).null_score()
    assert expected == d / 3999
    assert sum(noise) / 5 == pytest.approx(expected, abs=4e-4)


def test_score_is_unchanged_by_invertible_maps_of_x_and_similarities_of_y():
    x, delta = block_states()
    base = linearity_score(x, delta)
    invertible = gaussian(32, 32, 9) + 4 * torch.eye(32)
    assert linearity_score(x @ invertible + 2, delta) == pytest.approx(base, abs=1e-5)
    rotation = torch.linalg.qr(gaussian(32, 32, 10))[0]
    assert linearity_score(x, 3 * delta @ rotation + 1) == pytest.approx(base, abs=1e-6)


def test_no_residual_score_is_the_skill_of_the_map_over_the_identity():
    moments = moments_of(*block_states())
    skill = (moments.linearity_score() - moments.identity_score()) / (1 - moments.identity_score())
    assert skill == pytest.approx(moments.linearity_no_residual(), abs=1e-12)


def test_streamed_scores_equal_the_direct_ones():
    x, delta = block_states()
    moments = moments_of(x, delta)
    assert moments.n_tokens == 2000
    assert moments.linearity_score() == pytest.approx(linearity_score(x, x + delta), abs=1e-6)
    assert moments.linearity_no_residual() == pytest.approx(linearity_score(x, delta), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_states_score_like_their_float32_copies(dtype):
    x, delta = (part.to(dtype) for part in block_states())
    half = moments_of(x, delta).linearity_no_residual()
    assert half == moments_of(x.float(), delta.float()).linearity_no_residual()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_cpu():
    x, delta = block_states()
    cuda = moments_of(x.cuda(), delta.cuda())
    assert cuda.linear_map().weight.device.type == "cuda"
    assert cuda.linearity_score() == pytest.approx(moments_of(x, delta).linearity_score(), abs=1e-6)


@pytest.mark.parametrize("defect", ["duplicated", "constant", "low_rank", "large_constant"])
def test_rank_deficient_inputs_are_scored_in_their_own_span(defect):
    x, delta = block_states()
    if defect == "duplicated":
        x[:, 5] = x[:, 3]
    elif defect == "constant":
        x[:, 5] = 2.0
    elif defect == "large_constant":
        x[:, 5] = 12345.678
    else:
        x = (x - 5)[:, :10] @ gaussian(10, 32, 4)
    moments = moments_of(x, delta)
    # x is stored in float32, whose rounding leaves faint directions outside the true span.
    reference = svd_score(x, delta, rcond=1e-6)
    assert moments.linearity_no_residual() == pytest.approx(reference, abs=1e-4)
    fitted = moments.delta_map()(x)
    residual = (delta - fitted).double()
    explained = 1 - residual.var(0).sum() / delta.double().var(0).sum()
    assert explained.item() == pytest.approx(reference, abs=1e-4)


@pytest.mark.parametrize("defect", ["duplicated", "low_rank"])
def test_direct_score_of_rank_deficient_float64_states(defect):
    x, delta = (part.double() for part in block_states())
    if defect == "duplicated":
        x[:, 5] = x[:, 3]
    else:
        x = x[:, :10] @ gaussian(10, 32, 4, torch.float64)
    assert linearity_score(x, delta) == pytest.approx(svd_score(x, delta), abs=1e-9)


LOW_PRECISION = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_linearity import adversarial_states, moments_of, svd_score
{setting}
x, delta = adversarial_states(0, rotated=True)
error = abs(moments_of(x, delta, batch=2048).linearity_no_residual() - svd_score(x, delta))
assert error < 1e-5, error
assert {setting_kept}
"""


@pytest.mark.parametrize(
    ("setting", "setting_kept"),
    [
        (
            "torch.set_float32_matmul_precision('medium')",
            "torch.get_float32_matmul_precision() == 'medium'",
        ),
        (
            "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
            "torch.backends.mkldnn.matmul.fp32_precision == 'bf16'",
        ),
    ],
)
def test_moments_stay_exact_where_bfloat16_products_are_allowed(setting, setting_kept):
    code = LOW_PRECISION.format(setting=setting, setting_kept=setting_kept)
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code, here], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_moments_merge_and_subtract_whatever_their_shifts():
    x, delta = block_states()
    whole = moments_of(x, delta, n_folds=2)
    # The first batch sets the shift, so the two parts are kept about very different points.
    left, right = moments_of(x[:600], delta[:600], 2), moments_of(x[600:] + 0, delta[600:], 2)
    merged = left + right
    assert merged.n_tokens == whole.n_tokens
    assert merged.linearity_no_residual() == pytest.approx(whole.linearity_no_residual(), abs=1e-6)
    assert merged.heldout_score() == pytest.approx(whole.heldout_score(), abs=1e-6)
    rest = merged - left
    assert rest.n_tokens == 1400
    assert rest.linearity_score() == pytest.approx(right.linearity_score(), abs=1e-6)
    assert (whole + BlockMoments(32, 2)).linearity_score() == whole.linearity_score()


def test_removing_a_sink_group_recovers_the_score_without_it():
    x, delta = gaussian(4000, 20), 0.5 * gaussian(4000, 20, 1)
    sink_x, sink_delta = gaussian(31, 20, 2) + 100, 30 + gaussian(31, 20, 3)
    everything = moments_of(torch.cat([sink_x, x]), torch.cat([sink_delta, delta]))
    assert everything.linearity_no_residual() > 0.9  # two independent clouds, but for the sink
    without = everything - moments_of(sink_x, sink_delta)
    assert without.linearity_no_residual() == pytest.approx(linearity_score(x, delta), abs=1e-5)


def test_heldout_score_equals_a_plain_cross_validation():
    x, delta = block_states(n=1200)
    moments = moments_of(x, delta, n_folds=4, batch=300)
    error = output = contribution = 0.0
    for fold in range(4):
        test = torch.zeros(1200, dtype=torch.bool)
        test[fold * 300 : (fold + 1) * 300] = True
        fitted = fit_linear_map(x[~test], delta[~test])
        error += (fitted(x[test].double()) - delta[test]).square().sum()
        y = x + delta
        output += (y[test].double() - y[~test].double().mean(0)).square().sum()
        contribution += (delta[test].double() - delta[~test].double().mean(0)).square().sum()
    assert moments.heldout_score() == pytest.approx((1 - error / output).item(), abs=1e-5)
    assert moments.heldout_no_residual() == pytest.approx(
        (1 - error / contribution).item(), abs=1e-5
    )
    assert len(moments.heldout_terms()) == 4


def test_heldout_score_of_noise_is_not_positive_and_adjusted_is_near_zero():
    x, delta = gaussian(2000, 50), gaussian(2000, 50, 1)
    moments = moments_of(x, delta - x, n_folds=2)  # y is independent of x
    assert moments.linearity_score() == pytest.approx(moments.null_score(), abs=5e-3)
    assert moments.heldout_score() < 0
    assert moments.adjusted_score() == pytest.approx(0, abs=5e-3)


def test_ladder_climbs_and_matches_closed_forms():
    x = gaussian(3000, 24)
    rotation = torch.linalg.qr(gaussian(24, 24, 1))[0]
    turned = moments_of(x, 2 * x @ rotation - x)
    assert turned.orthogonal_score() == pytest.approx(1, abs=1e-5)
    assert turned.scaled_identity_score() < 0.2
    assert moments_of(x, 0.5 * x).scaled_identity_score() == pytest.approx(1, abs=1e-6)
    moments = moments_of(*block_states())
    steps = [moments.identity_score(), moments.scaled_identity_score()]
    steps += [moments.orthogonal_score(), moments.linearity_score()]
    assert steps == sorted(steps)


def test_the_effective_number_of_tokens_is_that_of_equal_and_of_few_energies():
    signs = torch.tensor([1.0, -1.0]).repeat(200)[:, None] * torch.ones(4)
    equal = moments_of(signs, signs * torch.tensor([2.0, 1.0, -1.0, 3.0]), batch=400)
    assert equal.n_eff() == pytest.approx(400) and equal.n_eff_no_residual() == pytest.approx(400)
    x, delta = gaussian(4000, 16), gaussian(4000, 16, 1)
    x[::400] *= 1000
    spiked, y = moments_of(x, delta, batch=4000), x + delta
    squared = (y - y.mean(0)).square().sum(1).double()
    expected = (squared.sum() ** 2 / squared.square().sum()).item()
    assert spiked.n_eff() == pytest.approx(expected, rel=1e-3) and expected < 10
    assert spiked.n_eff_no_residual() > 3000
    halves = [moments_of(x[part::2], delta[part::2]) for part in range(2)]
    assert (halves[0] + halves[1]).n_eff() == pytest.approx(expected, rel=0.01)


def few_and_others(m, seed=0, n=2000, d=32, n_folds=3):
    """Moments of n tokens in folds, and m massive tokens apart."""
    x, delta = block_states(n + m, d, seed)
    folds = torch.arange(n + m) % n_folds
    few = torch.arange(n + m) % ((n + m) // m) == 1
    x[few], delta[few] = 200 * x[few], 80 * delta[few].roll(1, 1)
    moments = BlockMoments(d, n_folds)
    for fold in range(n_folds):
        here = ~few & (folds == fold)
        moments.update(x[here].double(), delta[here].double(), fold)
    weights = torch.rand(n + m, generator=torch.Generator().manual_seed(seed)) + 0.5
    return moments, FewTokens(x[few], delta[few], folds[few], weights[few])


@pytest.mark.parametrize("m", [1, 2, 8, 20])
@pytest.mark.parametrize("n_folds", [1, 3])
def test_a_solution_takes_in_a_few_tokens_as_if_it_were_computed_anew(m, n_folds):
    moments, few = few_and_others(m, n_folds=n_folds)
    anew, alone = few.joined_to(moments), few_and_others(m, n_folds=n_folds)[0]
    union = few.solved_with(moments)
    assert ("_unexplained" in union._solved) == (m <= 8)  # more are solved on their own
    assert len(few) == union.n_tokens - moments.n_tokens == m
    for mine, theirs in ((union, anew), (moments, alone)):
        assert mine.linearity_score() == pytest.approx(theirs.linearity_score(), abs=1e-10)
        expected = theirs.linearity_no_residual()
        assert mine.linearity_no_residual() == pytest.approx(expected, abs=1e-10)
        if n_folds > 1:
            pairs = zip(mine.heldout_terms(), theirs.heldout_terms(), strict=True)
            for terms, expected in pairs:
                assert terms == pytest.approx(expected, rel=1e-8)


def test_few_tokens_may_have_a_fold_of_their_own():
    moments, few = few_and_others(4, n_folds=3)
    wide = BlockMoments(32, 4)
    for fold, (x, delta) in enumerate(
        zip(*(s.split(500) for s in block_states(1500)), strict=True)
    ):
        wide.update(x, delta, fold)
    few.folds[:2] = 3
    union, anew = few.solved_with(wide), few.joined_to(wide)
    assert len(union.heldout_terms()) == 4
    assert union.heldout_score() == pytest.approx(anew.heldout_score(), abs=1e-12)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0])
def test_weights_are_checked(weight):
    x, delta = block_states(100)
    weights = torch.ones(100)
    weights[7] = weight
    with pytest.raises(ValueError, match="weights must be finite and not negative"):
        BlockMoments(32).update(x, delta, weights=weights)


def test_few_tokens_join_a_solution_that_does_not_span_the_space():
    x, delta = block_states(600)
    x = x.double() @ torch.diag((torch.arange(32) < 20).double()) @ gaussian(32, 32, 4).double()
    moments = moments_of(x, delta.double(), n_folds=2)
    apart = FewTokens(
        gaussian(3, 32, 7), gaussian(3, 32, 8), torch.tensor([0, 1, 1]), torch.ones(3)
    )
    union, anew = apart.solved_with(moments), apart.joined_to(moments)
    assert union.linearity_score() == pytest.approx(anew.linearity_score(), abs=1e-12)
    assert union.heldout_score() == pytest.approx(anew.heldout_score(), abs=1e-12)


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("batch", [4096, 64])
def test_adversarial_states_are_multiplied_in_float64(seed, batch):
    x, delta = adversarial_states(seed, rotated=True, n=4096, d=64)
    moments = moments_of(x, delta, batch=batch)
    expected = [svd_score(x, x.double() + delta.double()), svd_score(x, delta)]
    scores = [moments.linearity_score(), moments.linearity_no_residual()]
    assert scores == pytest.approx(expected, abs=1e-5)
    assert moments.is_precise


@pytest.mark.parametrize("seed", range(5))
def test_float32_products_alone_would_be_wrong_on_them(seed, monkeypatch):
    monkeypatch.setattr("linlib.linearity.sums.TOLERANCE", float("inf"))
    x, delta = adversarial_states(seed, rotated=True, n=4096, d=64)
    moments = moments_of(x, delta, batch=4096)
    assert abs(moments.linearity_no_residual() - svd_score(x, delta)) > 2e-6


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_states_of_moderate_condition_stay_in_float32_and_agree(scale):
    x = gaussian(6000, 64) * torch.logspace(0, -2, 64) * scale
    delta = 0.3 * torch.tanh(x @ gaussian(64, 64, 1)) + 0.1 * gaussian(6000, 64, 2)
    moments = moments_of(x, delta, batch=2000)
    scores = [moments.linearity_score(), moments.linearity_no_residual()]
    assert not moments.is_precise
    expected = [svd_score(x, x.double() + delta.double()), svd_score(x, delta)]
    assert scores == pytest.approx(expected, abs=1e-6)


def test_maps_are_the_least_squares_ones_and_keep_their_bias():
    x, delta = block_states()
    moments = moments_of(x, delta)
    design = torch.cat([x.double(), torch.ones(len(x), 1).double()], dim=1)
    solution = torch.linalg.lstsq(design, delta.double()).solution
    fitted = moments.delta_map()
    torch.testing.assert_close(fitted.weight, solution[:-1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fitted.bias, solution[-1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(moments.linear_map()(x), x + fitted(x), atol=1e-5, rtol=1e-5)
    direct = fit_linear_map(x, x + delta)
    torch.testing.assert_close(direct.weight, moments.linear_map().weight, atol=1e-5, rtol=1e-4)
    assert direct(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("ridge", [1e-4, 0.1, 10.0])
@pytest.mark.parametrize("intercept", [True, False])
def test_ridge_is_the_textbook_one_with_a_relative_penalty(ridge, intercept):
    x, delta = (part.double() for part in block_states())
    about = x - x.mean(0) if intercept else x
    penalty = ridge * about.square().sum(0).mean().item()
    reference = Ridge(alpha=penalty, fit_intercept=intercept, solver="svd").fit(x, delta)
    moments = moments_of(x, delta)
    fitted, output = (fit(ridge, intercept) for fit in (moments.delta_map, moments.linear_map))
    np.testing.assert_allclose(fitted.weight, reference.coef_.T, atol=1e-9)
    np.testing.assert_allclose(fitted.bias, np.broadcast_to(reference.intercept_, 32), atol=1e-8)
    assert torch.equal(output.weight, fitted.weight + torch.eye(32))
    assert torch.equal(output.bias, fitted.bias)
    closed_form = about.T @ about + penalty * torch.eye(32)
    solution = torch.linalg.solve(closed_form, about.T @ delta)
    torch.testing.assert_close(fitted.weight, solution, atol=1e-9, rtol=1e-7)


def test_a_map_without_a_bias_is_fitted_about_the_origin():
    x, delta = (part.double() for part in block_states())
    fitted = moments_of(x, delta).delta_map(intercept=False)
    solution = np.linalg.lstsq(x.numpy(), delta.numpy())[0]
    np.testing.assert_allclose(fitted.weight, solution, atol=1e-9)
    assert not fitted.bias.any()
    single = moments_of(*block_states()).delta_map(intercept=False)  # from float32 states
    np.testing.assert_allclose(single.weight, solution, atol=1e-5)


def test_an_endless_ridge_leaves_the_identity_and_the_mean_shift():
    x, delta = block_states()
    moments = moments_of(x, delta)
    shifted = moments.linear_map(ridge=1e12)
    torch.testing.assert_close(shifted.weight, torch.eye(32).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(shifted.bias, delta.double().mean(0), atol=1e-6, rtol=0)
    plain = moments.linear_map(ridge=1e12, intercept=False)
    torch.testing.assert_close(plain.weight, torch.eye(32).double(), atol=1e-9, rtol=0)
    assert not plain.bias.any()
    unshrunk = moments.delta_map(ridge=1e-14).weight  # and none at all is least squares
    torch.testing.assert_close(unshrunk, moments.delta_map().weight, atol=1e-9, rtol=1e-7)


def test_moments_survive_a_round_trip_through_safetensors(tmp_path):
    moments = moments_of(*block_states(), n_folds=3)
    moments.save(tmp_path / "block.safetensors")
    loaded = BlockMoments.load(tmp_path / "block.safetensors")
    assert loaded.n_tokens == moments.n_tokens
    assert loaded.heldout_score() == moments.heldout_score()
    BlockMoments(4).save(tmp_path / "empty.safetensors")
    assert BlockMoments.load(tmp_path / "empty.safetensors").n_tokens == 0


def test_an_empty_update_changes_nothing():
    x, delta = block_states()
    moments = BlockMoments(32)
    moments.update(x[:0], delta[:0])
    moments.update(x, delta)
    assert moments.linearity_score() == moments_of(x, delta, batch=2000).linearity_score()


def test_scores_follow_an_update():
    x, delta = block_states()
    moments = moments_of(x[:1000], delta[:1000])
    before = moments.linearity_score()
    moments.update(x[1000:], delta[1000:])
    assert moments.linearity_score() != before
    assert moments.linearity_score() == pytest.approx(linearity_score(x, x + delta), abs=1e-6)


# ---------------------------------------------------------------- bad input


def test_too_few_tokens_are_refused_with_the_number_needed():
    x = gaussian(32, 32)
    message = "32 tokens cannot test .* 32-dimensional .* at least 33 tokens"
    with pytest.raises(ValueError, match=message):
        linearity_score(x, x)
    with pytest.raises(ValueError, match=message):
        moments_of(x, x).linearity_score()
    with pytest.raises(ValueError, match="0 tokens"):
        BlockMoments(4).null_score()


def test_too_few_tokens_for_held_out_scores_name_the_number_needed():
    moments = moments_of(gaussian(40, 32), gaussian(40, 32, 1), n_folds=4, batch=10)
    message = "40 tokens in 4 folds leave 30 to fit a 32-dimensional map.*more than 42.*n_folds=1"
    with pytest.raises(ValueError, match=message):
        moments.heldout_score()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_states_are_refused_and_leave_the_moments_as_they_were(value):
    x, delta = block_states()
    moments = moments_of(x, delta)
    before = moments.linearity_score()
    bad = delta.clone()
    bad[3, 3] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        moments.update(x.repeat(4, 1), torch.cat([delta, delta, delta, bad]))
    assert moments.n_tokens == 2000 and moments.linearity_score() == before
    moments._solved.clear()  # what was kept from before the update
    assert moments.linearity_score() == before
    with pytest.raises(ValueError, match="y holds NaN or infinite"):
        linearity_score(x, bad)


def test_zero_variance_is_refused():
    constant = torch.full((100, 8), 3.3)
    with pytest.raises(ValueError, match="input has zero variance"):
        linearity_score(constant, gaussian(100, 8))
    with pytest.raises(ValueError, match="output y has zero variance"):
        linearity_score(gaussian(100, 8), constant)
    with pytest.raises(ValueError, match="input has zero variance"):
        moments_of(constant, gaussian(100, 8)).linearity_score()
    with pytest.raises(ValueError, match="contribution delta has zero variance"):
        moments_of(gaussian(100, 8), constant).linearity_no_residual()
    for seed in range(12):  # rounding leaves some variance of y, never the same
        x = gaussian(300, 8, seed)
        with pytest.raises(ValueError, match="output y has zero variance"):
            moments_of(x, 7.7 - x).linearity_score()


@pytest.mark.parametrize("ridge", [0.0, 1.0])
@pytest.mark.parametrize("intercept", [True, False])
def test_maps_that_cannot_be_fitted_are_refused(ridge, intercept):
    for n_tokens in (0, 32):
        moments = BlockMoments(32)
        moments.update(gaussian(n_tokens, 32), gaussian(n_tokens, 32, 1))
        with pytest.raises(ValueError, match=f"{n_tokens} tokens .* at least 33"):
            moments.delta_map(ridge, intercept)
    constant = 0.0 if not intercept else 3.3
    moments = moments_of(torch.full((100, 8), constant), gaussian(100, 8))
    with pytest.raises(ValueError, match="input has zero variance"):
        moments.delta_map(ridge, intercept)


def test_a_negative_ridge_is_refused():
    moments = moments_of(*block_states())
    for fit in (moments.delta_map, moments.linear_map):
        with pytest.raises(ValueError, match=r"ridge = -0\.1 is negative; 0 is least squares"):
            fit(ridge=-0.1)


def test_misuse_is_named():
    moments = BlockMoments(8, n_folds=2)
    with pytest.raises(ValueError, match=r"x and delta must both be \(\.\.\., 8\)"):
        moments.update(gaussian(10, 8), gaussian(10, 7))
    with pytest.raises(ValueError, match="fold 2 does not exist"):
        moments.update(gaussian(10, 8), gaussian(10, 8), fold=2)
    with pytest.raises(ValueError, match="at least 2 folds, and 1 of 1"):
        moments_of(*block_states()).heldout_score()
    with pytest.raises(ValueError, match="only moments of one shape combine"):
        moments + BlockMoments(9, n_folds=2)
    with pytest.raises(ValueError, match="cannot take 10 tokens out of 0"):
        other = BlockMoments(8, n_folds=2)
        other.update(gaussian(10, 8), gaussian(10, 8))
        moments - other
    with pytest.raises(ValueError, match="over the same tokens"):
        linearity_score(gaussian(10, 2), gaussian(9, 2))
    with pytest.raises(ValueError, match="must be positive"):
        BlockMoments(0)


def test_linear_map_is_frozen():
    with pytest.raises(AttributeError):
        LinearMap(torch.eye(2), torch.zeros(2)).weight = torch.zeros(2, 2)
