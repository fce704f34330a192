"""Centred second moments: what every score of a block is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from linlib.linearity.maps import FLOAT32_CUTOFF, GramFactor, factorise
from linlib.linearity.sums import Sums

FLOAT32_EPSILON = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Centred:
    """Second moments of a block's input X and contribution D about a mean.

    Attributes:
        n: number of tokens.
        mean_x: the mean of x that they are taken about, shape (d,).
        mean_delta: the mean of delta, shape (d,).
        xx: X'X, shape (d, d).
        xd: X'D, shape (d, d).
        dd: ||D||_F^2.
        floor: variance of x, as a sum of squares, that float32 rounding alone can leave, (d,).
        delta_floor: the same of D, all dimensions together.
    """

    n: int
    mean_x: Tensor
    mean_delta: Tensor
    xx: Tensor
    xd: Tensor
    dd: float
    floor: Tensor
    delta_floor: float

    @classmethod
    def of(
        cls, sums: Sums, folds: Sequence[int] | None = None, about: Centred | None = None
    ) -> Centred:
        """Moments of some folds (default all) about their own mean, or about that of `about`."""
        folds = list(range(len(sums.count))) if folds is None else list(folds)
        n, first = sums.count[folds].sum(), sums.first[folds].sum(0)
        second = sums.second[folds[0]].clone()
        for fold in folds[1:]:
            second += sums.second[fold]
        d = len(second)
        if about is None:
            mean = first / n
        else:
            mean = torch.cat([about.mean_x, about.mean_delta]) - sums.shift
        raw_energy = second.diagonal().clone()
        # sum (z - m)(z - m)' = sum zz' - (sum z) m' - m (sum z - n m)'
        second.addr_(first[:d], mean, alpha=-1).addr_(mean[:d], first - n * mean, alpha=-1)
        energy = sums.delta_energy[folds].sum() - 2 * first[d:] @ mean[d:]
        mean_z = sums.shift + mean
        return cls(
            n=int(n.item()),
            mean_x=mean_z[:d],
            mean_delta=mean_z[d:],
            xx=second[:, :d],
            xd=second[:, d:],
            dd=(energy + n * mean[d:].square().sum()).item(),
            floor=FLOAT32_EPSILON
            * torch.maximum(FLOAT32_EPSILON * n * mean_z[:d].square(), raw_energy),
            delta_floor=(FLOAT32_EPSILON**2 * n * mean_z[d:].square().sum()).item(),
        )

    @classmethod
    def about_origin(cls, sums: Sums) -> Centred:
        """Moments about zero, as a map without a bias needs them."""
        zero = torch.zeros_like(sums.shift)
        d = len(zero) // 2
        origin = cls(0, zero[:d], zero[d:], zero, zero, 0.0, zero, 0.0)
        return cls.of(sums, about=origin)

    @property
    def stream_energy(self) -> float:
        """||X||_F^2."""
        return self.xx.trace().item()

    @property
    def output_energy(self) -> float:
        """||Y||_F^2 of the output Y = X + D."""
        return self.stream_energy + 2 * self.xd.trace().item() + self.dd

    @cached_property
    def factor(self) -> GramFactor:
        """The factorised X'X; see `maps.factorise`."""
        return factorise(self.xx, self.floor, FLOAT32_CUTOFF)

    @cached_property
    def unexplained(self) -> float:
        """min_A ||X A - D||_F^2, which equals min_A ||X A - Y||_F^2 as Y = X + D."""
        return max(self.dd - self.factor.explained(self.xd).item(), 0.0)

    @property
    def weight(self) -> Tensor:
        """The least-squares A of D = X A, shape (d, d)."""
        return self.factor.solve(self.xd)

    def shrunk_weight(self, ridge: float) -> Tensor:
        """The ridge solution of D = X A, of lambda = `ridge` x the mean of X'X's diagonal."""
        if not bool((self.xx.diagonal() > self.floor).any()):
            return self.weight  # raises: the input does not vary
        shrinkage = ridge * self.xx.diagonal().mean()
        identity = torch.eye(len(self.xx), dtype=self.xx.dtype, device=self.xx.device)
        return torch.linalg.solve(self.xx + shrinkage * identity, self.xd)

    def positive_output_energy(self) -> float:
        """||Y||_F^2, refused where y does not vary beyond the rounding of X + D."""
        floor = FLOAT32_EPSILON * (self.stream_energy + self.dd)
        return _above(self.output_energy, floor, "output y")

    def positive_delta_energy(self) -> float:
        """||D||_F^2, refused where delta does not vary."""
        return _above(self.dd, self.delta_floor, "contribution delta")


def _above(energy: float, floor: float, name: str) -> float:
    if energy <= floor:
        raise ValueError(f"the {name} has zero variance over the tokens, so its score is undefined")
    return energy


def heldout_terms(sums: Sums) -> list[tuple[float, float, float]]:
    """Predict every fold with the map fitted on all the others.

    Returns:
        Per fold that holds tokens, three sums of squares over its tokens: the error of the map,
        and the variance of y and of delta about their means on the *other* folds.

    Raises:
        ValueError: fewer than two folds hold tokens, or the others are too few to fit on.
    """
    filled = [fold for fold, count in enumerate(sums.count.tolist()) if count > 0]
    if len(filled) < 2:
        raise ValueError(
            f"a held-out score needs tokens in at least 2 folds, and {len(filled)} of "
            f"{len(sums.count)} hold any; make BlockMoments(d_model, n_folds=4) and give each "
            "update its fold"
        )
    terms = []
    for fold in filled:
        train = Centred.of(sums, [other for other in filled if other != fold])
        test = Centred.of(sums, [fold], about=train)
        _require_training_tokens(train, int(sums.count.sum()), len(filled))
        weight = train.weight
        # ||D - X A||^2 = ||D||^2 - 2 <X'D, A> + <A, X'X A>: also the error of Y, as Y = X + D.
        error = test.dd - 2 * (weight * test.xd).sum() + (weight * (test.xx @ weight)).sum()
        terms.append((error.item(), test.output_energy, test.dd))
    return terms


def _require_training_tokens(train: Centred, n_tokens: int, n_folds: int) -> None:
    d = len(train.mean_x)
    if train.n <= d:
        needed = d * n_folds // (n_folds - 1)
        raise ValueError(
            f"{n_tokens} tokens in {n_folds} folds leave {train.n} to fit a {d}-dimensional map "
            f"on, and more than {d} are needed; give more than {needed} tokens in folds of equal "
            "size, or n_folds=1 for no held-out score"
        )
