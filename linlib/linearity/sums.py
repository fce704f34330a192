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

CHUNK = 1024  # tokens in one float32 product
PIECE = 4096  # tokens whose products are summed in float32, before the float64 sums


@dataclass
class Sums:
    """Sums over tokens of z = [x | delta] - shift, kept per fold, all float64.

    Attributes:
        shift: the first batch's mean, rounded to float32, shape (2 d,).
        count: tokens per fold, shape (n_folds,).
        first: sum of z, shape (n_folds, 2 d).
        second: sum of x'z, shape (n_folds, d, 2 d). Of its left half, X'X, only the upper
            triangle is meant: `Centred` mirrors it.
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

    def add(self, x: Tensor, delta: Tensor, first: Tensor, fold: int) -> None:
        """Add tokens: x and delta less the shift, both (n_tokens, d), and their sum, (2 d,)."""
        self.count[fold] += len(x)
        self.first[fold] += first
        self.delta_energy[fold] += delta.square().sum()
        with _full_float32():
            _add_second_moments(x, delta, self.second[fold])

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


def shifted_pieces(
    x: Tensor, delta: Tensor, shift: Tensor | None
) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
    """Prepare an update, so that a value that is not finite is found before anything is added.

    Args:
        x: what enters a block, (n_tokens, d).
        delta: what it adds, (n_tokens, d).
        shift: about which the sums are kept, (2 d,); None takes the mean of the first piece.

    Returns:
        The shift, and pieces (x, delta, sum over tokens), less the shift, for `Sums.add`.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    precision, pieces = torch.promote_types(x.dtype, torch.float32), []
    for part in zip(x.split(PIECE), delta.split(PIECE), strict=True):
        x, delta = (states.to(precision) for states in part)
        if shift is None:
            shift = torch.cat([x.mean(0), delta.mean(0)]).float()
        shift_x, shift_delta = shift.to(precision).chunk(2)
        x, delta = x - shift_x, delta - shift_delta
        pieces.append((x, delta, torch.cat([x.sum(0), delta.sum(0)])))
    if not all(bool(torch.isfinite(first).all()) for _, _, first in pieces):
        raise ValueError(
            "NaN or infinite values among the states; load the model in float32 or bfloat16, or "
            "look for the input that makes it overflow"
        )
    return shift, pieces


def _add_second_moments(x: Tensor, delta: Tensor, second: Tensor) -> None:
    """Add x'[x | delta] of x and delta, (n_tokens, d), to `second`, (d, 2 d), float64.

    Products are taken over few tokens at a time, since a long float32 sum loses digits. x'x is
    symmetric: row blocks leave out most of its lower triangle.
    """
    d = x.shape[1]
    step = max(d // 3, 128)
    xx, xd = x.new_zeros(2, d, d)
    for a, b in zip(x.split(CHUNK), delta.split(CHUNK), strict=True):
        for start in range(0, d, step):
            xx[start : start + step, start:].addmm_(a[:, start : start + step].T, a[:, start:])
        xd.addmm_(a.T, b)
    second[:, :d] += xx
    second[:, d:] += xd


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
