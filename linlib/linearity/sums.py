"""What `BlockMoments` is computed from: running sums over tokens, and centred second moments.

Products of shifted states are float32, their sums float64. The moments are those of (X, delta), the
block's input and its contribution, and not those of (X, Y): the score without residual then needs
no subtraction of two nearly equal Gram matrices, and the score with residual follows by addition,
since Y = X + delta.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from linlib.linearity.maps import FLOAT32_CUTOFF, GramFactor, factorise

FLOAT32_EPSILON = torch.finfo(torch.float32).eps
CHUNK = 512  # tokens in one float32 product
CHUNKS_SUMMED = 8  # chunks whose products are summed in float32, before the float64 sums


@dataclass
class Sums:
    """Sums over tokens of z = [x | delta] - shift, kept per fold, all float64.

    Attributes:
        shift: the mean of the first batch, rounded to float32, shape (2 d,).
        count: tokens per fold, shape (n_folds,).
        first: sum of z, shape (n_folds, 2 d).
        second: sum of x'z, shape (n_folds, d, 2 d): X'X beside X'D.
        delta_energy: sum of ||delta||^2, shape (n_folds,).
    """

    shift: Tensor
    count: Tensor
    first: Tensor
    second: Tensor
    delta_energy: Tensor

    @classmethod
    def zeros(cls, shift: Tensor, n_folds: int) -> Sums:
        """Empty sums about `shift`, on its device."""
        shift = shift.double()
        width = len(shift)
        shapes = ((n_folds,), (n_folds, width), (n_folds, width // 2, width), (n_folds,))
        return cls(shift, *(shift.new_zeros(shape) for shape in shapes))

    def add(self, x: Tensor, delta: Tensor, fold: int) -> None:
        """Add tokens: x and delta, both (..., d).

        Products are float32 over a few tokens at a time, since a long float32 sum loses digits.
        """
        d, shift = x.shape[-1], self.shift.to(_precision(x))
        z = shift.new_empty(CHUNK, 2 * d)
        products = shift.new_zeros(d, 2 * d)
        with _full_float32():
            for number, part in enumerate(zip(_pieces(x), _pieces(delta), strict=True), 1):
                n = part[0].numel() // d
                for states, about, out in zip(part, shift.chunk(2), z[:n].chunk(2, 1), strict=True):
                    torch.sub(states, about, out=out.unflatten(0, states.shape[:-1]))
                self.count[fold] += n
                self.first[fold] += z[:n].sum(0)
                self.delta_energy[fold] += z[:n, d:].square().sum()
                products.addmm_(z[:n, :d].T, z[:n])
                if number % CHUNKS_SUMMED == 0:
                    self.second[fold] += products
                    products.zero_()
        self.second[fold] += products

    def about(self, shift: Tensor) -> Sums:
        """The same sums about another shift: exact algebra in float64."""
        move = self.shift - shift  # (2 d,)
        if not bool(move.any()):
            return self
        d, old = len(move) // 2, self.first
        first = old + self.count[:, None] * move
        second = self.second.clone()
        for fold, total in enumerate(second):  # sum x z' about the new shift, by two rank-1 terms
            total.addr_(old[fold, :d], move).addr_(move[:d], first[fold])
        energy = self.delta_energy + 2 * (old[:, d:] * move[d:]).sum(1)
        energy = energy + self.count * move[d:].square().sum()
        return Sums(shift, self.count, first, second, energy)

    def plus(self, other: Sums, sign: int = 1) -> Sums:
        """Return self + sign * other, about this object's shift."""
        other = other.about(self.shift)
        names = [field.name for field in fields(Sums)][1:]
        sums = (torch.add(getattr(self, k), getattr(other, k), alpha=sign) for k in names)
        return Sums(self.shift.clone(), *sums)


def first_shift(x: Tensor, delta: Tensor) -> Tensor:
    """The mean of the first tokens of x and delta, (..., d): sums about it stay small; (2 d,)."""
    means = [_token_sum(_pieces(states)[0]) for states in (x, delta)]
    return (torch.cat(means) / (_pieces(x)[0].numel() // x.shape[-1])).float()


def require_finite(x: Tensor, delta: Tensor) -> None:
    """Refuse states, (..., d), that are NaN or infinite, or whose sum over tokens is."""
    for states in (x, delta):
        if not bool(torch.isfinite(_token_sum(states)).all()):
            raise ValueError(
                "NaN or infinite values among the states; load the model in float32 or bfloat16, "
                "or find the input that makes it overflow"
            )


def _token_sum(states: Tensor) -> Tensor:
    return states.sum(tuple(range(states.ndim - 1)), dtype=_precision(states))


def _pieces(states: Tensor) -> tuple[Tensor, ...]:
    """Cut states, (..., d), into at most CHUNK tokens; windows that are shorter are not copied."""
    if states.ndim != 3 or states.shape[1] > CHUNK:
        return states.reshape(-1, states.shape[-1]).split(CHUNK)
    return states.split(CHUNK // states.shape[1])


def _precision(states: Tensor) -> torch.dtype:
    """Of products and sums over few tokens: float32, or float64 if the states are."""
    return torch.promote_types(states.dtype, torch.float32)


@contextmanager
def _full_float32() -> Iterator[None]:
    """Multiply in true float32, even where the process allows TF32 or bfloat16 products."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


@dataclass(frozen=True)
class Centred:
    """Second moments of a block's input X and contribution D about a mean.

    Attributes:
        n: number of tokens.
        mean: what they are taken about: of x, beside that of delta, shape (2 d,).
        xx: X'X, shape (d, d).
        xd: X'D, shape (d, d).
        dd: ||D||_F^2.
        floor: variance of x, as a sum of squares, that float32 rounding alone can leave, (d,).
        delta_floor: the same of D, all dimensions together.
    """

    n: int
    mean: Tensor
    xx: Tensor
    xd: Tensor
    dd: float
    floor: Tensor
    delta_floor: float

    @classmethod
    def of(
        cls, sums: Sums, folds: Sequence[int] | None = None, about: Tensor | None = None
    ) -> Centred:
        """Moments of some folds (all by default) about their own mean, or about (2 d,)."""
        folds = list(range(len(sums.count))) if folds is None else list(folds)
        n, first = sums.count[folds].sum(), sums.first[folds].sum(0)
        second = sums.second[folds[0]].clone()
        for fold in folds[1:]:
            second += sums.second[fold]
        d, mean = len(second), first / n if about is None else about - sums.shift
        raw_energy = second.diagonal().clone()
        # sum (z - m)(z - m)' = sum zz' - (sum z) m' - m (sum z - n m)'
        second.addr_(first[:d], mean, alpha=-1).addr_(mean[:d], first - n * mean, alpha=-1)
        energy = sums.delta_energy[folds].sum() - 2 * first[d:] @ mean[d:]
        mean_z = sums.shift + mean
        return cls(
            n=int(n.item()),
            mean=mean_z,
            xx=second[:, :d],
            xd=second[:, d:],
            dd=(energy + n * mean[d:].square().sum()).item(),
            floor=FLOAT32_EPSILON
            * torch.maximum(FLOAT32_EPSILON * n * mean_z[:d].square(), raw_energy),
            delta_floor=(FLOAT32_EPSILON**2 * n * mean_z[d:].square().sum()).item(),
        )

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

    def weight(self, ridge: float) -> Tensor:
        """The least-squares A of D = X A, (d, d), or that of a ridge; see `delta_map`."""
        if not ridge or not bool((self.xx.diagonal() > self.floor).any()):
            return self.factor.solve(self.xd)  # raises where the input does not vary
        penalty = ridge * self.xx.diagonal().mean() * torch.eye(len(self.xx)).to(self.xx)
        return torch.linalg.solve(self.xx + penalty, self.xd)

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
    """Predict each fold with the map fitted on all the others.

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
        test, d = Centred.of(sums, [fold], about=train.mean), len(train.xx)
        if train.n <= d:
            raise ValueError(
                f"{int(sums.count.sum())} tokens in {len(filled)} folds leave {train.n} to fit a "
                f"{d}-dimensional map on, and more than {d} are needed; give more than "
                f"{d * len(filled) // (len(filled) - 1)} tokens in folds of equal size, or "
                "n_folds=1 for no held-out score"
            )
        weight = train.weight(0.0)
        # ||D - X A||^2 = ||D||^2 - 2 <X'D, A> + <A, X'X A>: also the error of Y, as Y = X + D.
        error = test.dd - 2 * (weight * test.xd).sum() + (weight * (test.xx @ weight)).sum()
        terms.append((error.item(), test.output_energy, test.dd))
    return terms
