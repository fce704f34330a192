"""`BlockMoments`: all linearity scores of one block from a single pass over its tokens."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from linlib.linearity.maps import LinearMap, require_tokens
from linlib.linearity.sums import Centred, Sums, first_shift, heldout_terms, require_finite


def _solved_once(method: Callable[[BlockMoments], object]) -> property:
    """A property that is computed once for the tokens seen so far.

    `functools.cached_property` holds a lock of the whole class while it computes (before Python
    3.12), and would keep blocks from being solved side by side.
    """

    def get(moments: BlockMoments) -> object:
        name = method.__name__
        if name not in moments._solved:
            moments._solved[name] = method(moments)
        return moments._solved[name]

    return property(get)


class BlockMoments:
    """Mergeable moments of a block's input x and of its contribution delta = y - x.

    Memory is O(n_folds d^2), whatever the number of tokens. Moments of disjoint token sets add
    (`a + b`), and a token group that was added can be taken out again (`a - b`).

    Args:
        d_model: width of the residual stream.
        n_folds: token groups kept apart for held-out scores; 1 keeps none.
    """

    def __init__(self, d_model: int, n_folds: int = 1) -> None:
        if d_model < 1 or n_folds < 1:
            raise ValueError(f"d_model and n_folds must be positive, got {d_model} and {n_folds}")
        self.d_model = d_model
        self.n_folds = n_folds
        self._sums: Sums | None = None
        self._solved: dict[str, object] = {}

    @torch.no_grad()
    def update(
        self, x: Tensor, delta: Tensor, fold: int = 0, weights: Tensor | None = None
    ) -> None:
        """Add tokens; the moments live on x's device.

        Args:
            x: what enters the block, shape (..., d_model), any float dtype. Products are
                float32, or float64 where the states are, or where the first 4 d_model tokens show
                that the scores need it; later tokens should not be of another kind.
            delta: what the block adds to it, same shape.
            fold: the token group that these tokens belong to.
            weights: by how much each token counts, shape (...), not negative; a token of weight 0
                is left out. None: all tokens count once.

        Raises:
            ValueError: shapes disagree, the fold does not exist, a value is NaN or infinite, or a
                weight is, or is negative (none of these tokens is then added).
        """
        if x.shape != delta.shape or x.shape[-1] != self.d_model:
            raise ValueError(
                f"x and delta must both be (..., {self.d_model}), "
                f"got {tuple(x.shape)} and {tuple(delta.shape)}"
            )
        if not 0 <= fold < self.n_folds:
            raise ValueError(f"fold {fold} does not exist: these moments have {self.n_folds} folds")
        if x.numel() == 0:
            return
        require_finite(x, delta)
        if weights is not None and not bool((weights.isfinite() & (weights >= 0)).all()):
            raise ValueError("weights must be finite and not negative")
        self._sums = self._sums or Sums.zeros(first_shift(x, delta, weights), self.n_folds)
        self._solved.clear()
        self._sums.add(x, delta, fold, weights)

    def empty_like(self) -> BlockMoments:
        """Moments without tokens, whose `n_eff` will count distances from the same point."""
        result = BlockMoments(self.d_model, self.n_folds)
        if self._sums is not None:
            result._sums = Sums.zeros(self._sums.shift, self.n_folds)
        return result

    def __add__(self, other: BlockMoments) -> BlockMoments:
        """Moments of the union of two disjoint token sets."""
        return self._combined(other, 1)

    def __sub__(self, other: BlockMoments) -> BlockMoments:
        """Moments of the tokens that remain when those of `other` are taken out again."""
        return self._combined(other, -1)

    def _combined(self, other: BlockMoments, sign: int) -> BlockMoments:
        if (self.d_model, self.n_folds) != (other.d_model, other.n_folds):
            raise ValueError(
                "only moments of one shape combine, got (d_model, n_folds) = "
                f"{(self.d_model, self.n_folds)} and {(other.d_model, other.n_folds)}"
            )
        if other.n_tokens == 0 or (self.n_tokens == 0 and sign > 0):
            return deepcopy(self if other.n_tokens == 0 else other)
        if sign < 0 and (self._sums is None or bool((other._sums.count > self._sums.count).any())):
            raise ValueError(
                f"cannot take {other.n_tokens} tokens out of {self.n_tokens}: subtract only what "
                "was added before, fold by fold"
            )
        result = BlockMoments(self.d_model, self.n_folds)
        result._sums = self._sums.plus(other._sums, sign)
        return result

    @property
    def n_tokens(self) -> int:
        """Number of tokens seen."""
        return 0 if self._sums is None else int(self._sums.count.sum().item())

    @property
    def is_precise(self) -> bool:
        """Whether all products so far are float64, as few tokens and difficult states need them."""
        return self._sums is None or bool(self._sums.precise != 0)

    @property
    def device(self) -> torch.device:
        """Where the moments live."""
        return torch.device("cpu") if self._sums is None else self._sums.second.device

    @_solved_once
    def _centred(self) -> Centred:
        require_tokens(self.n_tokens, self.d_model)
        return Centred.of(self._sums)

    @_solved_once
    def _unexplained(self) -> float:
        return self._centred.unexplained()

    @_solved_once
    def _heldout_terms(self) -> list[tuple[float, float, float]]:
        require_tokens(self.n_tokens, self.d_model)
        return heldout_terms(self._sums)

    def linearity_score(self) -> float:
        """Score of y = x + delta given x, "with residual" (paper, section 3).

        Raises:
            ValueError: n_tokens <= d_model, or x or y does not vary.
        """
        return 1 - self._unexplained / self._centred.positive_output_energy()

    def linearity_no_residual(self) -> float:
        """Score of delta given x, "without residual": the map's skill over the identity."""
        return 1 - self._unexplained / self._centred.positive_delta_energy()

    def identity_score(self) -> float:
        """Score of the prediction that the block changes nothing: 1 - ||delta||^2 / ||Y||^2."""
        return 1 - self._centred.dd / self._centred.positive_output_energy()

    def null_score(self) -> float:
        """Expected score of independent noise, d / (n - 1)."""
        require_tokens(self.n_tokens, self.d_model)
        return self.d_model / (self.n_tokens - 1)

    def n_eff(self) -> float:
        """Effective number of tokens of the linearity score, (sum r^2)^2 / sum r^4.

        r is the distance of a token's output y from the mean of the first batch. Where the number
        is below d_model, a map can fit the few tokens that hold most of the variance exactly,
        whatever the block does.
        """
        return self._effective(0)

    def n_eff_no_residual(self) -> float:
        """The same of the score without residual, with the distances of the contribution delta."""
        return self._effective(1)

    def _effective(self, k: int) -> float:
        require_tokens(self.n_tokens, self.d_model)
        energy, squared = self._sums.spread[k].tolist()
        return energy**2 / squared if squared > 0 else 0.0

    def adjusted_score(self) -> float:
        """Linearity score corrected for the d parameters per output: noise scores 0."""
        n = self.n_tokens
        score = self.linearity_score()
        if n <= self.d_model + 1:
            raise ValueError(f"the adjusted score needs n_tokens > {self.d_model + 1}, got {n}")
        return 1 - (1 - score) * (n - 1) / (n - 1 - self.d_model)

    def scaled_identity_score(self) -> float:
        """Score of the best multiple of the input, between those of the identity and of any map."""
        c = self._centred
        trace = c.stream_energy + c.xd.trace().item()
        return trace**2 / (c.stream_energy * c.positive_output_energy())

    def orthogonal_score(self) -> float:
        """Score of the best rotation with a free scale, (||X'Y||_* / (||X|| ||Y||))^2.

        This is the true orthogonal Procrustes value. It needs singular values, and so more time
        than all the others together.
        """
        c = self._centred
        nuclear = torch.linalg.svdvals(c.xx + c.xd).sum().item()
        return nuclear**2 / (c.stream_energy * c.positive_output_energy())

    def heldout_terms(self) -> list[tuple[float, float, float]]:
        """Predict each fold with the map fitted on all the others.

        Returns:
            Per fold that holds tokens, three sums of squares over its tokens: the error of the map,
            and the variance of y and that of delta. These are taken about the means of the other
            folds, so a map that is worse than a constant scores below 0.

        Raises:
            ValueError: fewer than two folds hold tokens, or the others are too few to fit on.
        """
        return self._heldout_terms

    def heldout_score(self) -> float:
        """Held-out linearity score with residual, pooled over folds."""
        errors, outputs, _ = zip(*self._heldout_terms, strict=True)
        return 1 - sum(errors) / sum(outputs)

    def heldout_no_residual(self) -> float:
        """Held-out linearity score without residual, pooled over folds."""
        errors, _, deltas = zip(*self._heldout_terms, strict=True)
        return 1 - sum(errors) / sum(deltas)

    def delta_map(self, ridge: float = 0.0, intercept: bool = True) -> LinearMap:
        """The affine map that best predicts a block's contribution delta from its input x.

        Args:
            ridge: shrinks the weight towards 0, and so that of `linear_map` towards the identity:
                (X'X + lambda I)^-1 X'D with lambda = ridge x the mean of X'X's diagonal.
            intercept: False fits a map without a bias, about the origin and not about the means.

        Raises:
            ValueError: n_tokens <= d_model, x does not vary, or the ridge is negative.
        """
        if ridge < 0:
            raise ValueError(f"ridge = {ridge} is negative; 0 is least squares")
        require_tokens(self.n_tokens, self.d_model)
        origin = torch.zeros_like(self._sums.shift)
        c = self._centred if intercept else Centred.of(self._sums, origin)
        weight, (mean_x, mean_delta) = c.weight(ridge), c.mean.chunk(2)
        return LinearMap(weight, mean_delta - mean_x @ weight)

    def linear_map(self, ridge: float = 0.0, intercept: bool = True) -> LinearMap:
        """The affine map that best predicts a block's output y = x + delta; see `delta_map`."""
        delta = self.delta_map(ridge, intercept)
        return LinearMap(torch.eye(self.d_model).to(delta.weight) + delta.weight, delta.bias)

    def save(self, path: str | Path) -> None:
        """Write the moments to a safetensors file."""
        sums = {} if self._sums is None else vars(self._sums)
        size = {"d_model": str(self.d_model), "n_folds": str(self.n_folds)}
        save_file({k: v.contiguous() for k, v in sums.items()}, str(path), metadata=size)

    @classmethod
    def load(cls, path: str | Path) -> BlockMoments:
        """Read moments that `save` wrote, onto the CPU."""
        with safe_open(str(path), framework="pt") as file:
            size = file.metadata()
            result = cls(int(size["d_model"]), int(size["n_folds"]))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        result._sums = Sums(**tensors) if tensors else None
        return result
