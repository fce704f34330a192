"""The regularisers against their formulas in float64."""

import pytest
import torch

from linlib.pretrain.regularise import Regulariser


def outputs(dtype=torch.float32, n_blocks=4):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(3, 5, 8, generator=generator).to(dtype).requires_grad_()
        for _ in range(n_blocks)
    ]


def by_formula(kind, weight, states, mask):
    """Token by token, as the paper writes it."""
    total = 0.0
    for earlier, later in zip(states, states[1:], strict=False):
        terms = []
        for row in range(3):
            for column in range(5):
                if not mask[row, column]:
                    continue
                a, b = later[row, column], earlier[row, column]
                if kind == "mse":
                    terms.append(((a - b) ** 2).sum())
                else:
                    terms.append(1 - (a @ b) / (a.norm() * b.norm()))
        total = total + sum(terms) / len(terms)
    return weight * total


@pytest.mark.parametrize("kind", ["mse", "cosine"])
@pytest.mark.parametrize("padded", [False, True])
def test_value_and_gradients_equal_the_formula_in_float64(kind, padded):
    mask = torch.ones(3, 5, dtype=torch.long)
    if padded:
        mask[1, 3:], mask[2, :2] = 0, 0
    single = outputs()
    double = [state.detach().double().requires_grad_() for state in single]
    ours = Regulariser(kind, 0.5)(single, mask if padded else None)
    expected = by_formula(kind, 0.5, double, mask)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-6)
    ours.backward()
    expected.backward()
    for state, reference in zip(single, double, strict=True):
        torch.testing.assert_close(state.grad.double(), reference.grad, atol=1e-6, rtol=1e-6)


def test_padding_has_no_part_in_it():
    mask = torch.ones(3, 5)
    mask[:, 4] = 0
    states = outputs()
    changed = [state.detach().clone() for state in states]
    for state in changed:
        state[:, 4] = 1e4 * torch.randn(3, 8)
    term = Regulariser("mse", 1.0)
    assert term(states, mask).item() == term(changed, mask).item()


def test_half_precision_states_are_summed_in_float32():
    term = Regulariser("cosine", 1.0)(outputs(torch.bfloat16))
    assert term.dtype == torch.float32


def test_equal_states_cost_nothing_and_the_sum_grows_with_depth():
    state = torch.randn(2, 3, 4)
    assert Regulariser("mse", 2.0)([state] * 5).item() == 0
    assert Regulariser("cosine", 2.0)([state] * 5).item() == pytest.approx(0, abs=1e-6)
    opposite = [state, -state, state, -state]
    assert Regulariser("cosine", 1.0)(opposite).item() == pytest.approx(3 * 2, rel=1e-6)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ValueError, match=f"must be a finite number .*, got {weight}"):
        Regulariser("cosine", weight)


def test_an_unknown_regulariser_is_refused():
    with pytest.raises(ValueError, match=r"unknown regulariser 'cos'; choose from \['cosine', 'm"):
        Regulariser("cos", 0.5)


def test_a_model_of_one_block_is_refused():
    with pytest.raises(ValueError, match="a model of 1 block has no adjacent blocks"):
        Regulariser("mse", 0.5)(outputs(n_blocks=1))
