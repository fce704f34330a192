"""The running sums behind `BlockMoments`: float32 products of shifted states, float64 sums.

The moments are those of (X, delta), the block's input and its contribution, and not those of
(X, Y): the score without residual then needs no subtraction of two nearly equal Gram matrices, and
the score with residual follows by addition, since Y = X + delta.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor

CHUNK = 512  # tokens in one float32 product
CHUNKS_SUMMED = 8  # chunks whose products are summed in float32, before the float64 sums


@dataclass
class Sums:
    """Sums over tokens of z = [x | delta] - shift, kept per fold, all float64.

    Attributes:
        shift: the first batch's mean, rounded to float32, shape (2 d,).
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

    def copy(self) -> Sums:
        """The same sums in memory of their own."""
        return Sums(*(tensor.clone() for tensor in vars(self).values()))

    def about(self, shift: Tensor) -> Sums:
        """The same sums about another shift: exact algebra in float64."""
        move = self.shift - shift  # (2 d,)
        if not bool(move.any()):
            return self
        d = len(move) // 2
        n, old = self.count[:, None], self.first
        first = old + n * move
        second = self.second.clone()
        for fold, total in enumerate(second):  # sum x z' about the new shift, by two rank-1 terms
            total.addr_(old[fold, :d], move).addr_(move[:d], first[fold])
        energy = (
            self.delta_energy
            + 2 * (old[:, d:] * move[d:]).sum(1)
            + self.count * move[d:].square().sum()
        )
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
    """Refuse states, (..., d), before any of them is added.

    Raises:
        ValueError: a value is NaN or infinite, or so large that the sum over tokens is.
    """
    for states in (x, delta):
        if not bool(torch.isfinite(_token_sum(states)).all()):
            raise ValueError(
                "NaN or infinite values among the states; load the model in float32 or bfloat16, "
                "or look for the input that makes it overflow"
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
    """Multiply in true float32, also where the session allows TF32 or bfloat16 products."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
