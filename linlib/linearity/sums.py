"""What `BlockMoments` is computed from: running sums over tokens, and centred second moments.

The moments are those of (X, delta), the block's input and its contribution, and not those of
(X, Y): the score without residual then needs no subtraction of two nearly equal Gram matrices, and
the score with residual follows by addition, since Y = X + delta.

Products of shifted states are float32 and their sums float64, where the states allow it. The first
tokens decide: their products are compared with float64 ones along random directions, and a block
whose scores would move by more than `TOLERANCE` is multiplied in float64 from then on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from linlib.linearity.maps import FLOAT32_CUTOFF, FLOAT64_CUTOFF, GramFactor, factorise

FLOAT32_EPSILON = torch.finfo(torch.float32).eps
TOLERANCE = 1e-6  # largest error of a score that float32 products may cause
DECIDING = 4  # times d tokens decide; fewer can span too little of the space
PROBES = 32  # random directions in which that error is estimated
CHUNK = 512  # tokens in one product
CHUNKS_SUMMED = (
    8  # chunks whose products are summed in their own precision, before the float64 sums
)


@dataclass
class Sums:
    """Sums over tokens of z = [x | delta] - shift, kept per fold, all float64.

    Each token counts with its weight w, which is 1 unless weights are given.

    Attributes:
        shift: the mean of the first tokens, rounded to float32, shape (2 d,).
        precise: whether products are float64, shape (); NaN until the first tokens have decided.
        count: tokens per fold, shape (n_folds,).
        mass: sum of w, shape (n_folds,).
        first: sum of w z, shape (n_folds, 2 d).
        second: sum of w x'z, shape (n_folds, d, 2 d): X'X beside X'D.
        delta_energy: sum of w ||delta||^2, shape (n_folds,).
        spread: sums of e and of e^2 for e = w ||y||^2 and for e = w ||delta||^2, y and delta
            shifted, shape (2, 2).
    """

    shift: Tensor
    precise: Tensor
    count: Tensor
    mass: Tensor
    first: Tensor
    second: Tensor
    delta_energy: Tensor
    spread: Tensor

    @classmethod
    def zeros(cls, shift: Tensor, n_folds: int) -> Sums:
        """Empty sums about `shift`, on its device."""
        shift = shift.double()
        d, per_fold = len(shift) // 2, (n_folds,)
        shapes = (per_fold, per_fold, (n_folds, 2 * d), (n_folds, d, 2 * d), per_fold, (2, 2))
        undecided = shift.new_tensor(torch.nan)
        return cls(shift, undecided, *(shift.new_zeros(shape) for shape in shapes))

    def add(self, x: Tensor, delta: Tensor, fold: int, weights: Tensor | None = None) -> None:
        """Add tokens: x and delta, both (..., d), with weights (...).

        The update in which the 4 d-th token comes decides on the precision of the rest; tokens of
        updates before it are multiplied in float64.
        """
        d = x.shape[-1]
        n_deciding = DECIDING * d
        n_tokens = self.count.sum() + x.numel() // d
        if self.precise.isnan() and x.dtype != torch.float64 and n_tokens >= n_deciding:
            x, delta = x.reshape(-1, d), delta.reshape(-1, d)  # (..., d) -> (n, d)
            weights = None if weights is None else weights.flatten()
            first, rest = (
                [None if one is None else one[part] for one in (x, delta, weights)]
                for part in (slice(n_deciding), slice(n_deciding, None))
            )
            trial = Sums.zeros(self.shift, 1)
            trial._add(*first, 0, precise=False)
            self.precise.fill_(float32_error(self, trial, *first) > TOLERANCE)
            if self.precise:
                rest = (x, delta, weights)
            else:
                for name in ("count", "mass", "first", "second", "delta_energy"):
                    getattr(self, name)[fold] += getattr(trial, name)[0]
                self.spread += trial.spread
            x, delta, weights = rest
        self._add(x, delta, weights, fold, precise=bool(self.precise != 0))

    def _add(
        self, x: Tensor, delta: Tensor, weights: Tensor | None, fold: int, precise: bool
    ) -> None:
        """Add tokens in a few products at a time, since a long float32 sum loses digits."""
        d, shift = x.shape[-1], self.shift if precise else self.shift.float()
        z, y = shift.new_empty(CHUNK, 2 * d), shift.new_empty(CHUNK, d)
        half = d // 2  # X'X is symmetric: three of its four blocks are multiplied
        top, bottom = shift.new_zeros(half, 2 * d), shift.new_zeros(d - half, 2 * d - half)
        roots = None if weights is None else _pieces(weights.to(shift.dtype).sqrt()[..., None])
        with _full_float32():
            pieces = list(zip(_pieces(x), _pieces(delta), strict=True))
            for number, part in enumerate(pieces, 1):
                n = part[0].numel() // d
                rows = z[:n]
                for states, about, out in zip(part, shift.chunk(2), rows.chunk(2, 1), strict=True):
                    torch.sub(states, about, out=out.unflatten(0, states.shape[:-1]))
                if roots is None:
                    self.count[fold] += n
                    self.mass[fold] += n
                    self.first[fold] += rows.sum(0)
                else:
                    root = roots[number - 1].flatten()  # (n,)
                    rows.mul_(root[:, None])
                    self.count[fold] += torch.count_nonzero(root)
                    self.mass[fold] += root.square().sum()
                    self.first[fold] += root @ rows
                torch.add(rows[:, :d], rows[:, d:], out=y[:n])
                for k, states in enumerate((y[:n], rows[:, d:])):
                    energy = torch.linalg.vector_norm(states, dim=1).double().square()  # (n,)
                    total = energy.sum()
                    self.spread[k] += torch.stack([total, energy @ energy])
                self.delta_energy[fold] += total
                top.addmm_(rows[:, :half].T, rows)
                bottom.addmm_(rows[:, half:d].T, rows[:, half:])
                if number % CHUNKS_SUMMED == 0 or number == len(pieces):
                    second = self.second[fold]
                    second[:half] += top
                    second[half:, half:] += bottom
                    second[half:, :half] += top[:, half:d].T
                    top.zero_()
                    bottom.zero_()

    def of_fold(self, fold: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The sums `second`, `mass`, `first` and `delta_energy` of one fold."""
        return self.second[fold], self.mass[fold], self.first[fold], self.delta_energy[fold]

    def about(self, shift: Tensor) -> Sums:
        """The same sums about another shift: exact algebra in float64; `spread` stays as it is."""
        move = self.shift - shift  # (2 d,)
        if not bool(move.any()):
            return self
        d, old = len(move) // 2, self.first
        first = old + self.mass[:, None] * move
        second = self.second.clone()
        for fold, total in enumerate(second):  # sum x z' about the new shift, by two rank-1 terms
            total.addr_(old[fold, :d], move).addr_(move[:d], first[fold])
        energy = self.delta_energy + 2 * (old[:, d:] * move[d:]).sum(1)
        energy = energy + self.mass * move[d:].square().sum()
        return Sums(shift, self.precise, self.count, self.mass, first, second, energy, self.spread)

    def plus(self, other: Sums, sign: int = 1) -> Sums:
        """Return self + sign * other, about this object's shift."""
        other = other.about(self.shift)
        names = [field.name for field in fields(Sums)][2:]
        sums = (torch.add(getattr(self, k), getattr(other, k), alpha=sign) for k in names)
        # What is added to the result is multiplied as it would be added to the less precise part.
        decided = [one.precise for one in (self, other) if not bool(one.precise.isnan())]
        precise = torch.stack(decided).min() if decided else self.precise.clone()
        return Sums(self.shift.clone(), precise, *sums)


def float32_error(
    before: Sums, trial: Sums, x: Tensor, delta: Tensor, weights: Tensor | None
) -> float:
    """Estimate by how much float32 products move a block's scores.

    To first order, products that are off by E (of X'X) and F (of X'D) change the variance that the
    map A explains by trace(2 A'F - A'E A). The trace is estimated in random directions g, in which
    the float64 value of each term needs products of the states with vectors only.

    Args:
        before: float64 sums of earlier tokens, which take part in A.
        trial: the same of these tokens in float32 products, about the same shift; one fold.
        x: block inputs, (n, d).
        delta: contributions, (n, d).
        weights: of the tokens, (n,), or None.

    Returns:
        The error, as a share of the smaller variance, that of y or of delta.
    """
    parts = [before, trial] if before.count.any() else [trial]
    names = ("mass", "first", "second", "delta_energy")
    c = Centred.of_totals(trial, *(sum(getattr(one, k).sum(0) for one in parts) for k in names))
    d, generator = len(c.xx), torch.Generator().manual_seed(0)
    g = torch.randn(d, PROBES, generator=generator, dtype=torch.float64).to(c.xx)  # (d, PROBES)
    try:
        v = c.factor().solve(c.xd @ g)  # A g, (d, PROBES)
    except ValueError:  # x does not vary, so that no score is defined
        return 0.0
    about_x, about_delta = trial.shift.chunk(2)
    mapped = (x.double() - about_x) @ v  # (n, PROBES)
    terms = mapped * (2 * ((delta.double() - about_delta) @ g) - mapped)
    exact = terms.sum(0) if weights is None else weights.double() @ terms
    xx, xd = trial.second[0].chunk(2, 1)
    rounded = (v * (2 * (xd @ g) - xx @ v)).sum(0)
    energy = min(c.output_energy, c.dd) * trial.mass.item() / c.mass
    return abs((rounded - exact).mean().item()) / energy if energy > 0 else 0.0


def first_shift(x: Tensor, delta: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean of the first tokens of x and delta, (..., d): sums about it stay small; (2 d,)."""
    d = x.shape[-1]
    if weights is None or not bool(weights.any()):
        means = [_token_sum(states) / (states.numel() // d) for states in (x, delta)]
    else:
        shares = (weights / weights.sum()).flatten().to(_precision(x))
        means = [shares @ states.reshape(-1, d).to(shares.dtype) for states in (x, delta)]
    return torch.cat(means).float()


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
    """Of sums over few tokens: float32, or float64 if the states are."""
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
        mass: number of tokens, or the sum of their weights.
        mean: what they are taken about: of x, beside that of delta, shape (2 d,).
        xx: X'X, shape (d, d).
        xd: X'D, shape (d, d).
        dd: ||D||_F^2.
        floor: variance of x, as a sum of squares, that rounding alone can leave, (d,).
        delta_floor: the same of D, all dimensions together.
        cutoff: of `factorise`.
    """

    mass: float
    mean: Tensor
    xx: Tensor
    xd: Tensor
    dd: float
    floor: Tensor
    delta_floor: float
    cutoff: float

    @classmethod
    def of(cls, sums: Sums, about: Tensor | None = None) -> Centred:
        """Moments of all folds about their own mean, or about (2 d,)."""
        totals = (sums.mass.sum(), sums.first.sum(0), sums.second.sum(0), sums.delta_energy.sum())
        return cls.of_totals(sums, *totals, None if about is None else about - sums.shift)

    @classmethod
    def of_totals(
        cls,
        sums: Sums,
        mass: Tensor,
        first: Tensor,
        second: Tensor,
        energy: Tensor,
        mean: Tensor | None = None,
    ) -> Centred:
        """Centre sums over some folds of `sums`, given as its attributes are; `second` in place.

        They are taken about their own mean, or about the shift of `sums` plus `mean`, (2 d,).
        """
        d, mean = len(second), first / mass if mean is None else mean
        raw_energy = second.diagonal().clone()
        # sum (z - m)(z - m)' = sum zz' - (sum z) m' - m (sum z - n m)'
        second.addr_(first[:d], mean, alpha=-1).addr_(mean[:d], first - mass * mean, alpha=-1)
        energy = energy - 2 * first[d:] @ mean[d:] + mass * mean[d:].square().sum()
        mean_z = sums.shift + mean
        spread = FLOAT32_EPSILON * torch.sqrt(mass)  # of the rounding of as many tokens
        return cls(
            mass=mass.item(),
            mean=mean_z,
            xx=second[:, :d],
            xd=second[:, d:],
            dd=energy.item(),
            floor=torch.maximum((spread * mean_z[:d]).square(), FLOAT32_EPSILON * raw_energy),
            delta_floor=(spread * mean_z[d:]).square().sum().item(),
            cutoff=FLOAT32_CUTOFF if sums.precise == 0 else FLOAT64_CUTOFF,
        )

    @property
    def stream_energy(self) -> float:
        """||X||_F^2."""
        return self.xx.trace().item()

    @property
    def output_energy(self) -> float:
        """||Y||_F^2 of the output Y = X + D."""
        return self.stream_energy + 2 * self.xd.trace().item() + self.dd

    def factor(self) -> GramFactor:
        """The factorised X'X; see `maps.factorise`."""
        return factorise(self.xx, self.floor, self.cutoff)

    def unexplained(self, factor: GramFactor | None = None) -> float:
        """min_A ||X A - D||_F^2, which equals min_A ||X A - Y||_F^2 as Y = X + D."""
        return max(self.dd - (factor or self.factor()).explained(self.xd).item(), 0.0)

    def weight(self, ridge: float) -> Tensor:
        """The least-squares A of D = X A, (d, d), or that of a ridge; see `delta_map`."""
        if not ridge or not bool((self.xx.diagonal() > self.floor).any()):
            return self.factor().solve(self.xd)  # raises where the input does not vary
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
        ValueError: see `folds_apart`.
    """
    return [
        error_terms(train.weight(0.0), train.mean - sums.shift, *sums.of_fold(fold))
        for fold, train in folds_apart(sums)
    ]


def folds_apart(sums: Sums) -> Iterator[tuple[int, Centred]]:
    """Each fold that holds tokens, with the centred moments of all the others.

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
    n_tokens, d = int(sums.count.sum().item()), sums.second.shape[1]
    totals = [getattr(sums, k).sum(0) for k in ("second", "mass", "first", "delta_energy")]
    for fold in filled:
        if (n_train := n_tokens - int(sums.count[fold].item())) <= d:
            raise ValueError(
                f"{n_tokens} tokens in {len(filled)} folds leave {n_train} to fit a "
                f"{d}-dimensional map on, and more than {d} are needed; give more than "
                f"{d * len(filled) // (len(filled) - 1)} tokens in folds of equal size, or "
                "n_folds=1 for no held-out score"
            )
        parts = zip(totals, sums.of_fold(fold), strict=True)
        second, mass, first, energy = (total - part for total, part in parts)
        yield fold, Centred.of_totals(sums, mass, first, second, energy)


def error_terms(
    weight: Tensor, mean: Tensor, second: Tensor, mass: Tensor, first: Tensor, energy: Tensor
) -> tuple[float, float, float]:
    """Error of a map on a fold, whose sums are given, and the variance of y and delta about `mean`.

    Sums and mean are about one shift. They are centred after the large products: X'X A and X'D need
    no copy then.
    """
    (x, delta), (mean_x, mean_delta) = first.chunk(2), mean.chunk(2)
    xx, xd = second.chunk(2, 1)
    to_x, to_mean = x @ weight, mean_x @ weight  # the sum of x, and the mean, mapped, (d,)
    moved = delta - mass * mean_delta
    dd = energy - 2 * delta @ mean_delta + mass * mean_delta.square().sum()
    yy = dd + xx.trace() - 2 * x @ mean_x + mass * mean_x.square().sum()
    yy += 2 * (xd.trace() - x @ mean_delta - mean_x @ moved)
    # ||D - X A||^2 = ||D||^2 - 2 <X'D, A> + <A, X'X A>: also the error of Y, as Y = X + D.
    crossed = (weight * xd).sum() - to_x @ mean_delta - to_mean @ moved
    mapped = (weight * (xx @ weight)).sum() - 2 * to_x @ to_mean + mass * to_mean.square().sum()
    return (dd - 2 * crossed + mapped).clamp_min(0).item(), yy.item(), dd.item()
