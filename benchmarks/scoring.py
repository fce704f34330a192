"""The methods that are compared: how each scores one layer's states, with and without residual."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.metadata import distribution

import torch
from torch import Tensor

from linlib.linearity import BlockMoments

Scores = tuple[float, float]


def linlib_moments(x: Tensor, y: Tensor) -> Scores:
    """One pass of `BlockMoments`, both scores from the same moments."""
    moments = BlockMoments(x.shape[1])
    moments.update(x, y - x)
    return moments.linearity_score(), moments.linearity_no_residual()


def official() -> Callable[[Tensor, Tensor], Scores]:
    """`procrustes_similarity` of llm-microscope, whose package does not import: load its file."""
    path = distribution("llm-microscope").locate_file("llm_microscope/functions.py")
    spec = importlib.util.spec_from_file_location("llm_microscope_functions", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    similarity = module.procrustes_similarity

    def score(x: Tensor, y: Tensor) -> Scores:
        return similarity(x, y), similarity(x, y - x)

    return score


def least_squares(dtype: torch.dtype) -> Callable[[Tensor, Tensor], Scores]:
    """`torch.linalg.lstsq` on the centred states, one call for both targets."""

    def score(x: Tensor, y: Tensor) -> Scores:
        d = x.shape[1]
        x, targets = x.to(dtype), torch.cat([y, y - x], dim=1).to(dtype)
        x, targets = x - x.mean(0), targets - targets.mean(0)
        residual = targets - x @ torch.linalg.lstsq(x, targets).solution
        unexplained, total = residual.square().sum(0), targets.square().sum(0)
        scores = [1 - unexplained[part].sum() / total[part].sum() for part in _halves(d)]
        return scores[0].item(), scores[1].item()

    return score


def float64_svd(x: Tensor, y: Tensor) -> Scores:
    """The reference: the share of variance in the column space of x, by float64 SVD."""
    x, targets = x.double(), torch.cat([y.double(), y.double() - x.double()], dim=1)
    x, targets = x - x.mean(0), targets - targets.mean(0)
    left, values, _ = torch.linalg.svd(x, full_matrices=False)
    explained = (left[:, values > 1e-12 * values[0]].T @ targets).square().sum(0)
    total = targets.square().sum(0)
    scores = [explained[part].sum() / total[part].sum() for part in _halves(x.shape[1])]
    return scores[0].item(), scores[1].item()


def _halves(d: int) -> tuple[slice, slice]:
    return slice(0, d), slice(d, 2 * d)


METHODS: dict[str, Callable[[], Callable[[Tensor, Tensor], Scores]]] = {
    "linlib BlockMoments": lambda: linlib_moments,
    "llm-microscope 0.0.7 procrustes_similarity": official,
    "torch.linalg.lstsq, float32": lambda: least_squares(torch.float32),
    "torch.linalg.lstsq, float64": lambda: least_squares(torch.float64),
}


def adversarial_states(seed: int, n: int = 16384, d: int = 256) -> tuple[Tensor, Tensor]:
    """Condition 1e4 in a rotated basis, a mean of 50, a dimension at 3000x on each 256th token."""
    generator = torch.Generator().manual_seed(seed)

    def gaussian(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = gaussian(n, d) * torch.logspace(0, -4, d, dtype=torch.float64)
    x = x @ torch.linalg.qr(gaussian(d, d))[0]
    x[::256, 7] += 3000 * x.std()
    x[:, 5] += 50
    weight = gaussian(d, d) / d**0.5
    delta = 0.05 * (x @ weight) + 0.1 * torch.tanh(x @ weight) + 0.02 * x.std() * gaussian(n, d)
    x = x.float()
    return x, x + delta.float()
