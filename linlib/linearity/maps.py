"""The best affine map between two clouds of hidden states, and its score.

Everything here is float64 algebra on second moments. With X and Y centred over tokens, the
linearity score of the paper (section 3, "Procrustes similarity") equals the share of Y's variance
that an affine map of X explains:

    score(X, Y) = 1 - min_A ||X A - Y||_F^2 / ||Y||_F^2
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Directions of the diagonally scaled Gram below this share of its largest eigenvalue carry only the
# rounding of what they were summed from: float32 products, or float64 ones.
FLOAT32_CUTOFF = 1e-9
FLOAT64_CUTOFF = 1e-13


@dataclass(frozen=True)
class LinearMap:
    """An affine map y = x A + b between hidden states.

    Attributes:
        weight: A, shape (d_in, d_out).
        bias: b, shape (d_out,).
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Map x, shape (..., d_in), to (..., d_out) in x's own dtype and on x's own device."""
        weight, bias = self.weight.to(x.device), self.bias.to(x.device)
        return (x.to(weight.dtype) @ weight + bias).to(x.dtype)


@dataclass(frozen=True)
class GramFactor:
    """W with pinv(X'X) = W W', for centred X of any rank.

    Attributes:
        scale: one over the norm of each column of X, 0 for constant columns, shape (d,).
        triangle: Cholesky factor of the scaled Gram, shape (d, d), if it is well conditioned.
        root: otherwise, its kept eigenvectors over the root of their eigenvalues, (d, rank).
    """

    scale: Tensor
    triangle: Tensor | None
    root: Tensor | None

    def explained(self, cross: Tensor) -> Tensor:
        """||W'C||_F^2: the variance of Z that a linear map of X explains, with C = X'Z."""
        cross = self.scale[:, None] * cross
        if self.triangle is not None:
            return torch.linalg.solve_triangular(self.triangle, cross, upper=False).square().sum()
        return (self.root.T @ cross).square().sum()

    def solve(self, cross: Tensor) -> Tensor:
        """W W'C: the least-squares map from X to Z, of minimal norm after scaling, (d, d_out)."""
        cross = self.scale[:, None] * cross
        if self.triangle is not None:
            return self.scale[:, None] * torch.cholesky_solve(cross, self.triangle)
        return self.scale[:, None] * (self.root @ (self.root.T @ cross))


def factorise(gram: Tensor, floor: Tensor, cutoff: float) -> GramFactor:
    """Factorise the Gram X'X so that rank-deficient X is solved in its own span.

    The Gram is scaled to unit diagonal first, so that a dimension with massive activations does
    not hide the others. A well-conditioned Gram is factorised by Cholesky, which is fast; any
    other is decomposed by `eigh`, and directions below the cut-off are left out.

    Args:
        gram: X'X of centred X, shape (d, d), float64.
        floor: variance (as a sum of squares) up to which a column counts as constant, shape (d,).
        cutoff: smallest eigenvalue kept, relative to the largest one.

    Raises:
        ValueError: no column of X varies.
    """
    energy = gram.diagonal()
    varies = energy > floor
    if not bool(varies.any()):
        raise ValueError(
            f"the input has zero variance: none of its {len(energy)} dimensions changes over the "
            "tokens, so no linear map can be fitted; check that the states are not all the same"
        )
    scale = torch.where(varies, energy.clamp_min(1e-300).rsqrt(), 0.0)
    scaled = scale[:, None] * gram * scale
    if bool(varies.all()):
        triangle, failed = torch.linalg.cholesky_ex(scaled)
        if not failed and _smallest_eigenvalue(triangle) > 10 * cutoff * len(energy):
            return GramFactor(scale, triangle, None)
    values, vectors = torch.linalg.eigh(scaled)
    kept = values > cutoff * values[-1]
    return GramFactor(scale, None, vectors[:, kept] * values[kept].rsqrt())


def _smallest_eigenvalue(triangle: Tensor) -> float:
    """Estimate the smallest eigenvalue of L L' from above, by inverse iteration on a fixed start.

    Two steps are enough: the smaller it is, the more of the vector the first one turns into its
    direction.
    """
    vector = torch.cos(torch.arange(len(triangle), device=triangle.device).double())[:, None]
    for _ in range(2):
        vector = vector / vector.norm()
        vector = torch.linalg.solve_triangular(triangle, vector, upper=False)
        vector = torch.linalg.solve_triangular(triangle.mT, vector, upper=True)
    return 1.0 / vector.norm().item()


def require_tokens(n_tokens: int, d_in: int) -> None:
    """Refuse n_tokens <= d_in, where the in-sample score is 1 by construction (ValueError)."""
    if n_tokens <= d_in:
        raise ValueError(
            f"{n_tokens} tokens cannot test the linearity of a {d_in}-dimensional input: with "
            f"n_tokens <= d the map fits anything and the score is 1. Give at least {d_in + 1} "
            f"tokens; {20 * d_in} keep the null value d/(n-1) near 0.05"
        )


def _centred(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Return (mean_x, mean_y, X, Y, floor) in float64, X and Y centred over tokens."""
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(
            "x and y must be (n_tokens, d_in) and (n_tokens, d_out) over the same tokens, "
            f"got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    require_tokens(*x.shape)
    for name, states in (("x", x), ("y", y)):
        if not bool(torch.isfinite(states).all()):
            raise ValueError(f"{name} holds NaN or infinite values; a score needs finite states")
    x, y = x.double(), y.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    floor = len(x) * (1e-14 * mean_x).square()
    return mean_x, mean_y, x - mean_x, y - mean_y, floor


@torch.no_grad()
def linearity_score(x: Tensor, y: Tensor) -> float:
    """Share of y's variance that the best affine map of x explains (paper, section 3).

    Pass `y - x` as `y` for the score without residual. Computed in float64; for streams that do
    not fit in memory use `BlockMoments`.

    Args:
        x: input states, shape (n_tokens, d_in), any float dtype, CPU or CUDA.
        y: output states, shape (n_tokens, d_out).

    Returns:
        The score: 1 for an exact affine map, about d_in / (n_tokens - 1) for independent noise.

    Raises:
        ValueError: shapes disagree, n_tokens <= d_in, values are not finite, or x or y is constant.
    """
    _, mean_y, x, y, floor = _centred(x, y)
    total = y.square().sum().item()
    if total <= len(y) * (1e-14 * mean_y).square().sum().item():
        raise ValueError("the output y has zero variance: every token has the same state")
    factor = factorise(x.T @ x, floor, FLOAT64_CUTOFF)
    return factor.explained(x.T @ y).item() / total


@torch.no_grad()
def fit_linear_map(x: Tensor, y: Tensor) -> LinearMap:
    """Least-squares affine map from x, (n_tokens, d_in), to y, (n_tokens, d_out), in float64.

    Raises:
        ValueError: as `linearity_score`, but a constant y is allowed (the map is then its mean).
    """
    mean_x, mean_y, x, y, floor = _centred(x, y)
    weight = factorise(x.T @ x, floor, FLOAT64_CUTOFF).solve(x.T @ y)
    return LinearMap(weight, mean_y - mean_x @ weight)
